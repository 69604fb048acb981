#!/usr/bin/env bash
# Runs clang-tidy with the checks of .clang-tidy on the sources that the last commits changed, with the compile commands of
# the plain build (build/dev). Usage: bash tools/check_tidy.sh [--since COMMIT | FILES...]
#   default   the last 20 commits and the working tree, at most 24 files, those changed last first; says what it leaves out
set -uo pipefail
cd "$(dirname "$0")/.."
most=24

tidy=clang-tidy
command -v clang-tidy-14 >/dev/null && tidy=clang-tidy-14
command -v "$tidy" >/dev/null || { echo "clang-tidy was not found" >&2; exit 1; }
version=$("$tidy" --version | sed -n 's/.*version \([0-9]*\).*/\1/p' | head -1)
if [ "$version" != 14 ]; then  # each version finds other things; Debian 12 has the one that the tree passes
  echo "skipped: checked with clang-tidy 14, found $version" >&2
  exit 0
fi
[ -f build/dev/compile_commands.json ] || { echo "build/dev has no compile commands: build it first" >&2; exit 1; }

case "${1:-}" in
  --since) mapfile -t files < <(git diff --name-only "$2" -- '*.cpp') ;;
  "") mapfile -t files < <({ git diff --name-only HEAD -- '*.cpp'
                             git log -20 --format= --name-only -- '*.cpp'; } | awk '!seen[$0]++') ;;
  *) files=("$@") ;;
esac
compiled=()
for file in "${files[@]}"; do
  [ -f "$file" ] && grep -qF "/$file\"" build/dev/compile_commands.json && compiled+=("$file")
done
if [ $# -eq 0 ] && [ ${#compiled[@]} -gt $most ]; then
  echo "clang-tidy: $most of ${#compiled[@]} changed files; all: bash tools/check_tidy.sh --since COMMIT" >&2
  compiled=("${compiled[@]:0:$most}")
fi
[ ${#compiled[@]} -gt 0 ] || { echo "clang-tidy: no compiled file changed" >&2; exit 0; }
# clang reads no headers that g++ has precompiled. Options that g++ alone knows are unknown to it, which is no finding.
mkdir -p build/tidy
sed -E 's# -Winvalid-pch -include [^ ]*cmake_pch\.hxx##; s# -fpch-preprocess##' build/dev/compile_commands.json \
  >build/tidy/compile_commands.json
printf '%s\0' "${compiled[@]}" |
  xargs -0 -n 1 -P "$(nproc)" "$tidy" -p build/tidy --quiet --extra-arg=-Wno-unknown-warning-option 2>/dev/null
