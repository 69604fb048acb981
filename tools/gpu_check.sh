#!/usr/bin/env bash
# Everything that only a GPU can tell, in one run of under ten minutes, as one JSON file for kernels/performance/.
#
#   tools/gpu_check.sh --pack DIR [--build BUILD] [--emulated BUILD] [--dry]
#       Gathers in DIR what a machine without package manager and network needs: binaries, their libraries (those of
#       CUDA come with its toolkit or with PyTorch there), scripts, fixtures, and what the emulator computes in the
#       kernel tests. Builds what is not given, for GPUs of compute capability 9.0 and any CPU with AVX2.
#   tools/gpu_check.sh --run DIR OUT.json [--dry] [--seconds 570] [--only STEP,STEP]
#       Runs there, what matters most first. Each step has its share of the time that is left, one that fails does not
#       stop the others, and OUT.json is written after each. What could not be taken, or was not reached when the run was
#       cut off, is null, with its reason.
#
# --dry: without a GPU, to test this script: CPU, emulated kernels and small sizes. Its figures mean nothing else.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

usage() { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }

pack() {
  local out=$1; shift
  local build="" emulated="" dry=0
  while [ $# -gt 0 ]; do
    case "$1" in
      --build) build=$2; shift 2 ;;
      --emulated) emulated=$2; shift 2 ;;
      --dry) dry=1; shift ;;
      *) usage ;;
    esac
  done
  if [ ! -e "$out/payload.tar.gz" ] && [ -n "$(ls -A "$out")" ]; then
    echo "$out: expected an empty folder or an earlier pack, found something else" >&2
    exit 1
  fi
  local travels=(-DDEPTHSTILL_MARCH=x86-64-v3 -DCMAKE_CUDA_ARCHITECTURES=90-real)
  if [ -z "$emulated" ]; then
    emulated=$root/build/gpu-check-emulated
    cmake -S "$root" --preset dev -B "$emulated" "${travels[@]}"
    cmake --build "$emulated" -j "$(nproc)" --target depthstill kernel_tests engine_tests
  fi
  if [ -z "$build" ] && [ $dry -eq 0 ]; then
    build=$root/build/gpu-check
    cmake -S "$root" --preset cuda -B "$build" "${travels[@]}"
    cmake --build "$build" -j "$(nproc)" --target depthstill kernel_tests engine_tests cudnn_tests
  fi
  [ $dry -eq 1 ] && build=$emulated

  stage=$(mktemp -d) # not local: the trap reads it
  trap 'rm -rf "$stage"' EXIT
  mkdir -p "$stage/bin" "$stage/lib"
  for binary in tools/depthstill tests/kernel_tests tests/engine_tests tests/cudnn_tests; do
    [ -x "$build/$binary" ] && strip -o "$stage/bin/$(basename "$binary")" "$build/$binary"
  done
  # The C and C++ runtimes, the driver and CUDA's libraries are the other machine's own.
  ldd "$stage"/bin/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|cuda|cudart|cublas|cublasLt|cudnn[a-z_]*|nvrtc)\.so' |
    while read -r library; do
      cp -L "$library" "$stage/lib/"
      strip "$stage/lib/$(basename "$library")" 2>/dev/null || true
    done
  (cd "$root" && cp --parents -r tests/gpu tests/bench/compare_pytorch_cuda.py tests/oracle/make_student_fixture.py \
    tests/oracle/losses.safetensors tools/recipes "$stage")
  echo "the emulated kernel tests, for comparison"
  DEPTHSTILL_RECORD="$stage/emulated.record" "$emulated/tests/kernel_tests" --gtest_brief=1 || true
  {
    echo "commit $(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)"
    echo "changed $(git -C "$root" status --porcelain 2>/dev/null | wc -l)"
    echo "built $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    grep -E '^(DEPTHSTILL_MARCH|CMAKE_CUDA_ARCHITECTURES|CMAKE_BUILD_TYPE):' "$build/CMakeCache.txt" | sed 's/:[A-Z]*=/ /'
  } >"$stage/gpu_check.txt"
  tar -C "$stage" -czf "$out/payload.tar.gz" .
  cp "$0" "$out/gpu_check.sh"
  echo "$out: $(du -sm "$out" | cut -f1) MB; on the other machine: bash $(basename "$out")/gpu_check.sh --run DIR OUT.json"
}

run() {
  local packed=$1 out=$2 python=""; shift 2
  folder=$(mktemp -d) # not local: the trap reads it
  trap 'rm -rf "$folder"' EXIT
  tar -C "$folder" -xzf "$packed/payload.tar.gz"
  for candidate in "${GPU_CHECK_PYTHON:-}" python3 /opt/torch/bin/python; do
    [ -n "$candidate" ] && "$candidate" -c 'import torch' 2>/dev/null && python=$candidate && break
  done
  [ -n "$python" ] || python=python3 # the comparison with PyTorch will say that it is missing
  "$python" "$folder/tests/gpu/check.py" "$folder" "$out" "$@"
}

case "${1:-}" in
  --pack) [ $# -ge 2 ] || usage; shift; mkdir -p "$1"; first=$(cd "$1" && pwd); shift; pack "$first" "$@" ;;
  --run) [ $# -ge 3 ] || usage; shift; run "$@" ;;
  *) usage ;;
esac
