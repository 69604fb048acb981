#!/usr/bin/env bash
# Installs what building depthstill needs on Debian 12 / Ubuntu 24.04 or newer, and nothing that is there already.
# Usage: bash tools/setup.sh [--tests]      (--tests adds what only the test suite uses)
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config libdnnl-dev libcli11-dev libstb-dev nlohmann-json3-dev
          libtomlplusplus-dev zlib1g-dev libpng-dev libjpeg-dev libonnx-dev libprotobuf-dev)
if [ "${1:-}" = "--tests" ]; then
  packages+=(libgtest-dev python3 ccache clang-format clang-tidy)
fi

as_root=(env DEBIAN_FRONTEND=noninteractive)
[ "$(id -u)" -eq 0 ] || as_root=(sudo "${as_root[@]}")  # sudo drops the environment

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing ${missing[*]}" >&2
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
