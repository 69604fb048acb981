#!/usr/bin/env bash
# Installs what is missing, builds, and passes all tests. Ends with "N passed, N failed, N skipped".
# Usage: bash tools/test.sh [--quick]
#   --quick   the plain build and its tests only: a few minutes. The full run adds AddressSanitizer +
#             UndefinedBehaviorSanitizer, ThreadSanitizer, the mutation check of the CUDA kernels, a syntax check for ARM64
#             (where there is a cross compiler), the CUDA build and what became of its hot kernels (where nvcc and cuDNN
#             are found) and the demo in its short form.
set -uo pipefail
cd "$(dirname "$0")/.."

quick=0
case "${1:-}" in
  "") ;;
  --quick) quick=1 ;;
  *) echo "usage: bash tools/test.sh [--quick]" >&2; exit 2 ;;
esac

bash tools/setup.sh --tests || exit 1
jobs=$(nproc)
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
passed=0 failed=0 skipped=0
failures=()
start=$SECONDS
export CCACHE_SLOPPINESS=pch_defines,time_macros  # files with precompiled headers are cached only so
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1     # the CUDA build takes over what it compiles as the plain build does
export OMP_WAIT_POLICY=passive  # suites run side by side: waiting threads must not take their cores

say() { printf '\n== %s (%d s)\n' "$*" $((SECONDS - start)); }

# A step that is not a test suite counts as one test.
step() {
  local name=$1; shift
  say "$name"
  if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); failures+=("$name"); return 1; fi
}

build() {
  local preset=$1; shift
  cmake --preset "$preset" "${launcher[@]}" "$@" >"build/$preset.configure.log" 2>&1 ||
    { cat "build/$preset.configure.log"; return 1; }
  cmake --build --preset "$preset" -j "$jobs"
}

# Runs a preset's test binaries and adds up what GoogleTest reports.
suite() {
  local preset=$1
  say "tests: $preset"
  local log="build/$preset.tests.log"
  ctest --preset "$preset" --verbose -j "$jobs" >"$log" 2>&1
  local code=$?
  local ran bad skips
  ran=$(sed -n 's/.*\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
  bad=$(sed -n 's/.*\[  FAILED  \] \([0-9]*\) test.*listed below.*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
  skips=$(sed -n 's/.*\[  SKIPPED \] \([0-9]*\) test.*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
  grep -hoE 'skipped: .*' "$log" | sort | uniq -c
  if [ $code -ne 0 ]; then
    grep -nE '\[  FAILED  \]|\*\*\*|ERROR: AddressSanitizer|WARNING: ThreadSanitizer|runtime error' "$log" | head -40
    tail -n 60 "$log"
    [ "$bad" -gt 0 ] || bad=1
    failures+=("tests: $preset")
  fi
  passed=$((passed + ran)) failed=$((failed + bad)) skipped=$((skipped + skips))
}

# cuobjdump and nvdisasm: those of the toolkit, else of NVIDIA's wheels, some 5 MB.
sass_tools() {
  command -v cuobjdump >/dev/null && command -v nvdisasm >/dev/null && return
  export PATH=$PWD/build/sass/nvidia/cu13/bin:$PATH
  command -v cuobjdump >/dev/null && command -v nvdisasm >/dev/null && return
  python3 -m pip install -q --no-deps --upgrade --target build/sass nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm &>/dev/null
  command -v cuobjdump >/dev/null && command -v nvdisasm >/dev/null
}

mkdir -p build
step "format" bash tools/check_format.sh
step "build: dev" build dev && suite dev
step "clang-tidy" bash tools/check_tidy.sh
if [ $quick -eq 0 ]; then
  step "ARM64" bash tools/check_arm64.sh
  step "build: asan" build asan && suite asan
  step "build: tsan" build tsan && suite tsan
  if command -v nvcc >/dev/null; then
    step "build: cuda" build cuda && suite cuda
    if sass_tools; then
      step "hot kernels' machine code" python3 tests/gpu/sass.py --check build/cuda
    else
      say "hot kernels not looked at: cuobjdump and nvdisasm were not found, nor the wheels"
      skipped=$((skipped + 1))
    fi
  else
    say "CUDA build skipped: nvcc was not found"
    skipped=$((skipped + 1))
  fi
  step "demo, short form" bash tools/demo.sh --short
fi

say "done"
for name in "${failures[@]:-}"; do [ -n "$name" ] && echo "FAILED: $name"; done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
