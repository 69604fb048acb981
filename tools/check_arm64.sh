#!/usr/bin/env bash
# Fails if a file of kernels, engine, losses or models (the CUDA kernels as the emulator compiles them, too) does not
# compile for 64-bit ARM. Checks syntax only, with a cross compiler, on the files and folders of headers that the plain
# build (build/dev) compiles with.
# Usage: bash tools/check_arm64.sh
set -uo pipefail
cd "$(dirname "$0")/.."

case "$(uname -m)" in aarch64 | arm64) echo "this is an ARM64 machine: its build is the check"; exit 0 ;; esac
compiler=
for name in aarch64-linux-gnu-g++ aarch64-linux-gnu-g++-{14,13,12}; do
  command -v "$name" >/dev/null && { compiler=$name; break; }
done
[ -n "$compiler" ] || { echo "skipped: no compiler for ARM64 (g++-aarch64-linux-gnu) was found" >&2; exit 0; }
[ -f build/dev/compile_commands.json ] || { echo "build/dev has no compile commands: build it first" >&2; exit 1; }

# What other libraries install for this machine is read after the cross compiler's own headers: their interfaces are the
# same.
options="-std=c++20 -fopenmp -Wall -Wextra -Wconversion -Wshadow -Werror -Wno-unknown-pragmas -Wno-psabi
         -idirafter /usr/include -idirafter /usr/include/$(uname -m)-linux-gnu"
work=build/arm64
mkdir -p $work
printf '#include <%s>\n' algorithm array atomic cmath cstdint cstdio cstring filesystem fstream functional map memory mutex \
  numeric optional random sstream string string_view thread tuple type_traits utility variant vector >$work/headers.h
# shellcheck disable=SC2086 # options are words
"$compiler" $options -x c++-header $work/headers.h -o $work/headers.h.gch || exit 1

sed -nE 's/^ *"command": "(.*)",?$/\1/p' build/dev/compile_commands.json | sed 's/\\"/"/g' |
  grep -E -- " -c $PWD/(kernels|engine|losses|models)/" | while read -r command; do
    words=$(grep -oE -- '(^| )(-D[^ ]+|-I[^ ]+|-isystem [^ ]+)' <<<"$command" | tr '\n' ' ')
    echo "$compiler -fsyntax-only -include $work/headers.h" $options "$words -x c++ ${command##* -c }"
  done >$work/commands
[ -s $work/commands ] || { echo "expected compile commands of kernels in build/dev, found none" >&2; exit 1; }
if ! tr '\n' '\0' <$work/commands | xargs -0 -P "$(nproc)" -I{} bash -c '{}'; then
  echo "expected these files to compile for ARM64" >&2
  exit 1
fi
echo "$(wc -l <$work/commands) files compile for ARM64"
