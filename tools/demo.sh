#!/usr/bin/env bash
# Installs what is missing, builds, and does the main job on data that it renders itself: train a student from teacher
# depth maps, evaluate it, predict with it. Leaves runs/demo/report.html. About ten minutes on two cores, without a GPU.
# Usage: bash tools/demo.sh [--short]      (--short: a few steps, for CI)
set -euo pipefail
cd "$(dirname "$0")/.."

settings=()
frames=(--train 48 --val 8)
case "${1:-}" in
  "") ;;
  --short)
    settings=(--set train.epochs=1 --set train.max_steps=3)
    frames=(--train 4 --val 2)
    ;;
  *) echo "usage: bash tools/demo.sh [--short]" >&2; exit 2 ;;
esac

bash tools/setup.sh
cuda=OFF
[ -e /dev/nvidia0 ] && cuda=AUTO
binary=build/release/tools/depthstill
[ -x build/dev/tools/depthstill ] && [ "${1:-}" = "--short" ] && binary=build/dev/tools/depthstill
if [ "$binary" = build/release/tools/depthstill ]; then
  cmake --preset release -DDEPTHSTILL_CUDA=$cuda
  cmake --build --preset release -j "$(nproc)"
fi

run=runs/demo
rm -rf "$run"
mkdir -p "$run"
"$binary" synth --out "$run/data" "${frames[@]}" --seed 7
"$binary" check-data tools/recipes/demo.toml --data "$run/data"
"$binary" train tools/recipes/demo.toml --data "$run/data" --out "$run/train" "${settings[@]}"
"$binary" eval tools/recipes/demo.toml --data "$run/data" --split val --weights "$run/train/best.safetensors" \
  --json "$run/metrics.json"
"$binary" predict --weights "$run/train/best.safetensors" --out "$run/predictions" "$run"/data/raw
cp "$run/train/report.html" "$run/report.html"
echo "metrics: $run/metrics.json   report: $run/report.html   predictions: $run/predictions"
