#!/usr/bin/env bash
# Builds one target with clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, and runs it on the corpus.
# Usage: bash tests/fuzz/libfuzzer.sh TARGET [LIBFUZZER OPTIONS]     e.g. torch -max_total_time=600
#   TARGET    image, npy, pfm, safetensors, torch, zip, list, toml or packed
# New inputs are kept in build/libfuzzer/TARGET. The readers are compiled anew in build/libfuzzer, each once (delete that
# folder after a change). toml also needs build/dev, for what a recipe names.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { sed -n 3,4p "$0" >&2; exit 2; }
target=$1; shift
command -v clang++ >/dev/null || { echo "clang++ was not found" >&2; exit 1; }

build=build/libfuzzer
flags="-std=c++20 -O1 -g1 -w -I. -I/usr/include/stb -fno-omit-frame-pointer -DDEPTHSTILL_LIBPNG=1 -DDEPTHSTILL_LIBJPEG=1
       -DDEPTHSTILL_FUZZ_TARGET=$target -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined"
sources=(engine/io/*.cpp engine/data/{list_file,list_folder,packed,sample}.cpp tools/toml_document.cpp
         tests/io/allocation_watch.cpp tests/fuzz/{target,archive}.cpp)
mkdir -p "$build/$target"
objects=()
for source in "${sources[@]}"; do
  object=$build/${source//\//_}.o
  objects+=("$object")
  [ -e "$object" ] || echo "clang++ $flags -c $source -o $object"
done | xargs -r -P "$(nproc)" -I{} sh -c "{}"
libraries=()
if [ "$target" = toml ]; then  # a recipe names networks and losses
  libraries=(-Wl,--start-group build/dev/*/libdepthstill_*.a -Wl,--end-group -ldnnl -lgomp)
fi
clang++ $flags tests/fuzz/{libfuzzer,"$target"}.cpp -fsanitize=fuzzer "${objects[@]}" "${libraries[@]}" -lpng -ljpeg -lz \
  -o "$build/fuzz_$target"
export ASAN_OPTIONS=detect_leaks=0:max_allocation_size_mb=64
exec "$build/fuzz_$target" "$build/$target" "tests/fuzz/corpus/$target" -max_len=8192 "$@"
