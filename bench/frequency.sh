#!/usr/bin/env bash
# Sets of coefficients against sets of pixels in the same room, as a table: one image per class of storage, BPTT and
# distribution matching, seeds 0 to 2. The rows of a method take as many outer steps, and inner steps on as many images;
# each is evaluated under its method's protocol. Writes one run folder per row and seed below OUT and prints the table
# as Markdown; what is finished is not run again. Needs jq.
#
#   bench/frequency.sh fashion OUT          Fashion-MNIST, ConvNet-3-32
#   bench/frequency.sh cifar10 OUT PATH     CIFAR-10, whose binary records are the files in PATH
#   CHOOSE=1 bench/frequency.sh ...         the table that rates are chosen by: each that is listed, seed 0, two networks;
#                                           a tenth of train is kept aside and tested on, the test set is not read
#   COMMON, settings of all rows, may be set in the environment, and what bench/rows.sh has: SEEDS, JOBS, RETORT, ROWS.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -z "${CHOOSE:-}" ] || SEEDS=${SEEDS:-0}
. bench/rows.sh
data=$1 out=$2 common=()
path=$(readlink -f "${3:-/usr/share/datasets/fashion-mnist}")

# name | descriptor | settings | outer.lr for Fashion-MNIST | for CIFAR-10 | those tried (docs/results.md)
coefficients="set.parameters.kind=frequency set.parameters.budget=1"
bptt="outer.steps=150 inner.batch.per_class=1 evaluate.steps=[600]"
dm="outer.steps=200 method.real_per_class=64 evaluate.epochs=300"
table=(
  "BPTT, pixels|quickstart|$bptt|0.1|0.3|0.01 0.03 0.1 0.3 1"
  "BPTT, 4 images a class as coefficients|quickstart|$bptt set.ipc=4 $coefficients|0.1|0.1|0.03 0.1 0.3"
  "DM, pixels|fashion-ipc10-dm|$dm set.ipc=1|4|4|1 4 16"
  "DM, 4 images a class as coefficients|fashion-ipc10-dm|$dm set.ipc=4 $coefficients|4|4|1 4 16 64"
)

# The training images alone, a part of which becomes the test part: for CIFAR-10 half of its fifth file, which is not
# trained on.
keep_aside() {
  common+=(--set evaluate.networks=2)
  mkdir -p "$out/train"
  if [ "$data" = fashion ]; then
    ln -sf "$path"/train-* "$out/train/"
    common+=(--set data.test=0.1)
  else
    ln -sf "$path"/data_batch_[1-5].bin "$out/train/"
    ln -sf "$path/data_batch_5.bin" "$out/train/test_batch.bin"
    common+=(--set data.train_limit=40000 --set data.test_limit=5000)
  fi
  path=$(readlink -f "$out/train")
}

[ -z "${CHOOSE:-}" ] || keep_aside
common+=(--set "data.path=$path")
[ "$data" = fashion ] || common+=(--set "data.kind=$data")
for setting in ${COMMON:-}; do common+=(--set "$setting"); done
rows=()
for row in "${table[@]}"; do
  IFS='|' read -r name descriptor settings fashion cifar10 rates <<<"$row"
  if [ -z "${CHOOSE:-}" ]; then
    [ "$data" = fashion ] && rates=$fashion || rates=$cifar10
  fi
  for rate in $rates; do
    rows+=("$name, rate $rate|$descriptor|$settings outer.lr=$rate")
  done
done
run_rows

echo "| set | floats stored | distilled, mean of seeds (sd) | as many random real images | seconds distilling |"
echo "|---|---|---|---|---|"
for row in "${rows[@]}"; do
  mapfile -t files < <(finished "${row%%|*}" result.json)
  [ ${#files[@]} -gt 0 ] || continue
  jq -rs --arg name "${row%%|*}" "$statistics"'
    "| \($name) | \(.[0].storage.floats) | \([.[].accuracy.distilled.mean] | by_seed) | \([.[].accuracy.random.mean] | mean | round2) | \([.[].seconds.distil] | mean | round) |"' "${files[@]}"
done
