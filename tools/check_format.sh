#!/usr/bin/env bash
# Fails if a source file of ours is not formatted as .clang-format says.
# Usage: bash tools/check_format.sh [--fix]
set -uo pipefail
cd "$(dirname "$0")/.."

# Versions disagree in details; Debian 12 has the one that the tree is formatted with.
formatter=clang-format
command -v clang-format-14 >/dev/null && formatter=clang-format-14
command -v "$formatter" >/dev/null || { echo "clang-format was not found" >&2; exit 1; }
version=$("$formatter" --version | sed 's/.*version \([0-9]*\).*/\1/')
if [ "$version" != 14 ]; then
  echo "skipped: formatting is checked with clang-format 14, found $version" >&2
  exit 0
fi

mapfile -t files < <(git ls-files --cached --others --exclude-standard '*.h' '*.cpp' '*.cu' '*.cuh')
if [ "${1:-}" = "--fix" ]; then
  exec "$formatter" -i --style=file "${files[@]}"
fi
"$formatter" --style=file --dry-run --Werror --ferror-limit=3 "${files[@]}" || exit 1
# Comments with formulas are not the formatter's: their lines are measured here.
if grep -nE '^.{121,}$' "${files[@]}" | grep -E '^[^:]+:[0-9]+: *//'; then
  echo "expected lines of at most 120 characters" >&2
  exit 1
fi
