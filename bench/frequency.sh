#!/usr/bin/env bash
# Sets of coefficients against sets of pixels in the same room, as a table. BPTT and distribution
# matching, one image per class of storage, seeds 0 to 2; each row is evaluated under its method's protocol. Writes one
# run folder per row and seed below OUT and prints the table as Markdown; what is finished is not run again. Needs jq.
#
#   bench/frequency.sh fashion OUT          Fashion-MNIST, ConvNet-3-32
#   bench/frequency.sh cifar10 OUT PATH     CIFAR-10's binary records below PATH; so data of any other kind
#   SEEDS="0 1 2" STEPS=300, ROWS (lines of the table below), COMMON (settings of all rows), JOBS=2 and RETORT, the
#   program, may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$1 out=$2 path=${3:-}
seeds=${SEEDS:-0 1 2} steps=${STEPS:-300} jobs=${JOBS:-2} retort=${RETORT:-build/retort}
common=(--set "outer.steps=$steps")
[ "$data" = fashion ] || common+=(--set "data.kind=$data" --set "data.path=$path")
for setting in ${COMMON:-}; do common+=(--set "$setting"); done

# name | descriptor | settings. An inner step of BPTT trains on 1 or 4 images of a class.
coefficients="set.parameters.kind=frequency set.parameters.budget=1"
bptt="evaluate.steps=[300,600]"
dm="method.real_per_class=64 evaluate.epochs=500"
rows=(
  "BPTT, pixels|quickstart|$bptt"
  "BPTT, 4 images a class as coefficients|quickstart|$bptt set.ipc=4 $coefficients"
  "BPTT, 16 images a class as coefficients|quickstart|$bptt set.ipc=16 inner.batch.per_class=4 $coefficients"
  "DM, pixels|fashion-ipc10-dm|$dm set.ipc=1"
  "DM, 4 images a class as coefficients|fashion-ipc10-dm|$dm set.ipc=4 outer.lr=16 $coefficients"
  "DM, 16 images a class as coefficients|fashion-ipc10-dm|$dm set.ipc=16 outer.lr=64 $coefficients"
)
[ -z "${ROWS:-}" ] || mapfile -t rows <<<"$ROWS"

folder() { echo "$out/$(tr -cs 'A-Za-z0-9' - <<<"$1")$2"; }

one() { # name descriptor settings seed
  local to options=() setting
  to=$(folder "$1" "$4")
  [ ! -e "$to/result.json" ] || return 0
  for setting in $3; do options+=(--set "$setting"); done
  rm -rf "$to"
  POCL_MAX_PTHREAD_COUNT=1 "$retort" run "configs/$2.yaml" --quiet --seed "$4" --out "$to" \
    "${common[@]}" "${options[@]}" >"$to.log" 2>&1 || echo "failed: $1, seed $4 (see $to.log)" >&2
}

mkdir -p "$out"
for seed in $seeds; do
  for row in "${rows[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    IFS='|' read -r name descriptor settings <<<"$row"
    one "$name" "$descriptor" "$settings" "$seed" &
  done
done
wait

echo "| set | floats stored | distilled, mean of seeds (sd) | as many random real images | seconds distilling |"
echo "|---|---|---|---|---|"
for row in "${rows[@]}"; do
  files=()
  for seed in $seeds; do
    to=$(folder "${row%%|*}" "$seed")
    [ ! -e "$to/result.json" ] || files+=("$to/result.json")
  done
  [ ${#files[@]} -gt 0 ] || continue
  jq -rs --arg name "${row%%|*}" '
    def mean: add / length;
    def round2: . * 100 | round / 100;
    [.[].accuracy.distilled.mean] as $d
    | ($d | mean) as $m
    | (if ($d | length) > 1 then ([$d[] | (. - $m) * (. - $m)] | add / (length - 1) | sqrt) else 0 end) as $sd
    | "| \($name) | \(.[0].storage.floats) | \($m | round2) (\($sd | round2)): \([$d[] | round2 | tostring] | join(", ")) | \([.[].accuracy.random.mean] | mean | round2) | \([.[].seconds.distil] | mean | round) |"' "${files[@]}"
done
