#!/usr/bin/env bash
# What only a GPU can tell, in two calls, for kernels/performance/.
#
#   tools/gpu_check.sh --pack DIR [--build BUILD] [--emulated BUILD] [--dry]
#       Gathers in DIR what a machine without package manager and network needs: binaries, their libraries (those of
#       CUDA come with its toolkit or with PyTorch there), scripts, fixtures, and what the emulator computes in the
#       kernel tests. Builds what is not given, for GPUs of compute capability 9.0 and any CPU with AVX2.
#   tools/gpu_check.sh first DIR OUT [--seconds 300] [--only STAGE,STAGE] [--dry]
#       Runs there: does it start, is it right, how fast is it, where does the time go. A training step that fails ends
#       it with the line that launched the fault.
#   tools/gpu_check.sh compare DIR OUT [--seconds 400] [--only STAGE,STAGE] [--dry]
#       The same steps in PyTorch, tests with their deviations from the emulator, sanitizers, other networks, and what
#       else there is time for, what matters most first.
#
# Each stage has a limit, and one that fails does not stop the others. The seconds end a call: what was not reached by
# then has not failed. In the folder OUT, NAME.json is written after each stage (null: no figure, with its reason), and
# NAME.log has what the programs said; plans-*.txt are the ways chosen for convolutions.
#
# --dry: without a GPU, to test this script: CPU, emulated kernels and small sizes. Its figures mean nothing else.
# GPU_CHECK_PYTHON: the Python that has PyTorch, where it is not python3.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }

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
    local targets=(kernel_tests)
    [ $dry -eq 1 ] && targets+=(depthstill engine_tests)
    cmake --build "$emulated" -j "$(nproc)" --target "${targets[@]}"
  fi
  if [ -z "$build" ] && [ $dry -eq 0 ]; then
    build=$root/build/gpu-check
    cmake -S "$root" --preset cuda -B "$build" "${travels[@]}"
    cmake --build "$build" -j "$(nproc)" --target depthstill kernel_tests engine_tests cudnn_tests
  fi
  [ $dry -eq 1 ] && build=$emulated
  for binary in "$build/tools/depthstill" "$build"/tests/{kernel,engine}_tests "$emulated/tests/kernel_tests"; do
    [ -x "$binary" ] || { echo "$binary: expected the program, found nothing" >&2; exit 1; }
  done

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
  DEPTHSTILL_RECORD="$stage/whole.record" "$emulated/tests/kernel_tests" --gtest_brief=1 || true
  python3 "$root/tests/gpu/compare.py" "$stage/whole.record" "$stage/emulated.record"
  rm "$stage/whole.record"
  {
    echo "commit $(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)"
    echo "changed $(git -C "$root" status --porcelain 2>/dev/null | wc -l)"
    echo "built $(date -u +%Y-%m-%dT%H:%M:%SZ)"
    grep -E '^(DEPTHSTILL_MARCH|CMAKE_CUDA_ARCHITECTURES|CMAKE_BUILD_TYPE):' "$build/CMakeCache.txt" | sed 's/:[A-Z]*=/ /'
    # The other machine must have at least these.
    objdump -T "$stage"/bin/* "$stage"/lib/* | grep -oE '\b(GLIBC|GLIBCXX)_[0-9.]+' | sort -uV |
      awk -F_ '{last[$1] = $2} END {for (name in last) print "needs_" tolower(name), last[name]}'
    local headers
    headers=$(sed -n 's/^CUDNN_INCLUDE_DIR:[A-Z]*=//p' "$build/CMakeCache.txt")
    [ -f "$headers/cudnn_version.h" ] && awk '/define CUDNN_(MAJOR|MINOR|PATCHLEVEL)/ {v = v "." $3}
      END {print "needs_cudnn", substr(v, 2)}' "$headers/cudnn_version.h"
    ldd "$stage"/bin/* | awk '$1 ~ /^lib(cuda|cublas|nv|cudnn)/ {print $1}' | sort -u | paste -sd, |
      sed -n 's/^./needs_libraries &/p'
  } >"$stage/gpu_check.txt"
  tar -C "$stage" --exclude=__pycache__ -czf "$out/payload.tar.gz" .
  cp "$0" "$out/gpu_check.sh"
  echo "$out: $(du -sm "$out" | cut -f1) MB; on the other machine: bash $(basename "$out")/gpu_check.sh first DIR OUT"
}

run() {
  local call=$1 packed=$2 out=$3 python=""; shift 3
  folder=$(mktemp -d) # not local: the trap reads it
  trap 'rm -rf "$folder"' EXIT
  tar -C "$folder" -xzf "$packed/payload.tar.gz"
  local has_torch='import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' # importing it takes seconds
  for candidate in "${GPU_CHECK_PYTHON:-}" python3 python; do
    [ -n "$candidate" ] && "$candidate" -c "$has_torch" 2>/dev/null && python=$candidate && break
  done
  [ -n "$python" ] || python=${GPU_CHECK_PYTHON:-python3} # the comparison with PyTorch will say that it is missing
  # The run goes on beside this shell, which would otherwise see a signal only after it.
  GPU_CHECK_SPENT=$SECONDS "$python" -u "$folder/tests/gpu/check.py" "$call" "$folder" "$out" "$@" &
  local check=$!
  trap 'kill -TERM "$check" 2>/dev/null' TERM INT HUP
  local code=0
  wait "$check" || code=$?
  while kill -0 "$check" 2>/dev/null; do
    code=0
    wait "$check" || code=$?
  done
  return $code
}

case "${1:-}" in
  --pack) [ $# -ge 2 ] || usage; shift; mkdir -p "$1"; first=$(cd "$1" && pwd); shift; pack "$first" "$@" ;;
  first | compare) [ $# -ge 3 ] || usage; run "$@" ;;
  *) usage ;;
esac
