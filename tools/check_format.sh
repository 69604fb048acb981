#!/usr/bin/env bash
# Fails if a source file of ours is not formatted as .clang-format says, or is longer than a reader can hold.
# Usage: bash tools/check_format.sh [--fix]
set -uo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
if [ "${1:-}" = "--fix" ]; then
  exec clang-format -i --style=file "${files[@]}"
fi
command -v clang-format >/dev/null || { echo "clang-format was not found" >&2; exit 1; }
clang-format --style=file --dry-run --Werror --ferror-limit=3 "${files[@]}"
