#!/usr/bin/env bash
# Installs what building depthstill needs on Debian 12 / Ubuntu 24.04 or newer, and nothing that is there already.
# Usage: bash tools/setup.sh [--tests]      (--tests adds what only the test suite uses)
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config libdnnl-dev libcli11-dev libstb-dev nlohmann-json3-dev
          libtomlplusplus-dev zlib1g-dev libpng-dev libjpeg-dev libonnx-dev libprotobuf-dev)
optional=()  # what uses them is skipped where they cannot be had
if [ "${1:-}" = "--tests" ]; then
  packages+=(libgtest-dev python3 ccache clang-format clang-tidy)
  if [ "$(uname -m)" = x86_64 ]; then optional+=(g++-aarch64-linux-gnu); fi
fi

as_root=(env DEBIAN_FRONTEND=noninteractive)
[ "$(id -u)" -eq 0 ] || as_root=(sudo "${as_root[@]}")  # sudo drops the environment

installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }
install() { "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }

missing=() wanted=()
for package in "${packages[@]}"; do installed "$package" || missing+=("$package"); done
for package in "${optional[@]}"; do installed "$package" || wanted+=("$package"); done
[ $((${#missing[@]} + ${#wanted[@]})) -gt 0 ] || exit 0
echo "setup: installing ${missing[*]} ${wanted[*]}" >&2
if [ ${#missing[@]} -gt 0 ]; then
  "${as_root[@]}" apt-get update -qq
  install "${missing[@]}"
fi
if [ ${#wanted[@]} -gt 0 ] && ! { "${as_root[@]}" apt-get update -qq && install "${wanted[@]}"; }; then
  echo "setup: going on without ${wanted[*]}" >&2
fi
