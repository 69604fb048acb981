#!/usr/bin/env bash
# Installs what is missing, builds, and does the main job on data that it renders itself: train a student from teacher
# depth maps, score it on frames that it never saw beside what needs no image, predict with it. Leaves
# runs/demo/report.html. About 20 minutes of CPU time, without a GPU.
# Usage: bash tools/demo.sh [--short | --readme]
#   --short    a few steps on a few frames, for CI
#   --readme   trains with the seeds 1, 2 and 3, and writes docs/prediction.png and the demo's figures in README.md
set -euo pipefail
cd "$(dirname "$0")/.."

frames=(--train 160 --val 8 --test 24)
settings=()
seeds=(1)
case "${1:-}" in
  "") ;;
  --short)
    frames=(--train 16 --val 2 --test 2)
    settings=(--set train.epochs=1)
    ;;
  --readme) seeds=(1 2 3) ;;
  *) echo "usage: bash tools/demo.sh [--short | --readme]" >&2; exit 2 ;;
esac

bash tools/setup.sh
cuda=OFF
[ -e /dev/nvidia0 ] && cuda=AUTO
binary=build/release/tools/depthstill
[ -x build/dev/tools/depthstill ] && [ "${1:-}" = "--short" ] && binary=build/dev/tools/depthstill
if [ "$binary" = build/release/tools/depthstill ]; then
  cmake --preset release -DDEPTHSTILL_CUDA=$cuda
  cmake --build --preset release -j "$(nproc)" --target depthstill
fi

# Figures of a result that `eval` wrote: of the student, or of a baseline.
figure() { awk -v part="$2" -v key="\"$3\":" '
  $1 == "\"" part "\":" {inside = 1}
  $1 == key && (part == "" || inside) {sub(",", "", $2); printf "%.3f", $2; exit}' "$1"; }
# Sets `cpu` to the user and system seconds that this shell and what it ran have taken so far; a subshell has times of
# its own.
count_cpu() {
  times >"$run/times"
  cpu=$(awk '{for (i = 1; i <= 2; ++i) {split($i, t, /[ms]/); s += 60 * t[1] + t[2]}} END {printf "%d", s}' "$run/times")
}

run=runs/demo recipe=tools/recipes/demo.toml
rm -rf "$run"
mkdir -p "$run"
"$binary" synth --out "$run/data" "${frames[@]}" --seed 7
"$binary" check-data $recipe --data "$run/data"
rows=""
for seed in "${seeds[@]}"; do
  count_cpu
  began=$cpu
  "$binary" train $recipe --data "$run/data" --out "$run/train_$seed" --set "train.seed=$seed" "${settings[@]}"
  count_cpu
  seconds=$((cpu - began))
  result=$run/metrics_$seed.json
  "$binary" eval $recipe --data "$run/data" --weights "$run/train_$seed/best.safetensors" --json "$result" \
    --picture "$run/picture_$seed.png"
  rows+="| student, training seed $seed | $(figure "$result" "" abs_rel) | $(figure "$result" "" rmse) | \
$(figure "$result" "" d1) | $seconds s |"$'\n'
done
for baseline in row_median constant; do
  text=$(awk -v part="\"$baseline\":" '$1 == part {inside = 1} inside && $1 == "\"text\":" {
    gsub(/^ *"text": "|",?$/, ""); print; exit}' "$result")
  rows+="| $text | $(figure "$result" $baseline abs_rel) | $(figure "$result" $baseline rmse) | \
$(figure "$result" $baseline d1) | |"$'\n'
done
first=${seeds[0]}
cp "$run/train_$first/report.html" "$run/report.html"
"$binary" predict --weights "$run/train_$first/best.safetensors" --out "$run/predictions" --format png,colour \
  "$run"/data/raw/synth/test_drive_0000_sync

table="| on ${frames[5]} frames that training never saw | abs_rel ↓ | rmse ↓ | d1 ↑ | CPU time of training |
|---|---|---|---|---|
$rows"
count_cpu
printf '\n%s\nreport: %s   metrics: %s   predictions: %s   CPU time of all: %d s\n' "$table" "$run/report.html" \
  "$run/metrics_$first.json" "$run/predictions" "$cpu"

if [ "${1:-}" = "--readme" ]; then
  cp "$run/picture_$first.png" docs/prediction.png
  printf '%s' "$table" >"$run/table.md"
  awk -v table="$run/table.md" '
    /^<!-- demo: end/ {while ((getline line < table) > 0) print line; print ""; inside = 0}
    !inside {print}
    /^<!-- demo: begin/ {print ""; inside = 1}' README.md >"$run/README.md"
  cp "$run/README.md" README.md
fi
