#!/usr/bin/env bash
# The matching family on Fashion-MNIST, ConvNet-3-32, under the protocol dc with five networks, as a table of accuracies,
# and of differences between rows: gradients (DC, DSA, EGM; DCC on CIFAR-10), networks that learn from real images (IDC,
# Acc-DD), trajectories (MTT, TESLA, DDPP) and, beside them, distribution matching and back-propagation through time for
# as long. Seeds 0 to 2; writes one run folder per row and seed below OUT and prints the table as Markdown; what is
# finished is not run again. Needs jq. An hour and more a seed on two CPU cores.
#
#   bench/matching.sh OUT [CIFAR10]     CIFAR10: the folder of its binary records, for DCC
#   COMMON, settings of all rows, may be set in the environment, and what bench/rows.sh has: SEEDS, JOBS, RETORT, ROWS.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/rows.sh
out=$1 common=(--set evaluate.networks=5)
for setting in ${COMMON:-}; do common+=(--set "$setting"); done
experts=$(readlink -m "$out/experts")

ten="set.ipc=10 outer.steps=600"
egm="method.row=cosine_norm inner.momentum=0.5"
# Ten times the published rate, for a run of a three-hundredth of its length; Acc-DD has twice IDC's.
idc="method.name=idc method.matches=20 outer.steps=600 evaluate.augment=true outer.lr=1e-2 set.parameters.kind=tiles"
mixed="$idc set.parameters.factor=2 set.init=mix"
fifth="$mixed outer.steps=120"
early="method.models=early" moved="method.perturb=[0.01,0.09]"
mtt="method.experts=$experts evaluate.networks=5"
cifar="data.kind=cifar10 data.path=$(readlink -m "${2:-.}") network.width=32 outer.steps=300"
same="evaluate.protocol=dc evaluate.augment=false evaluate.epochs=300"
rows=(
  "DC, 1|fashion-ipc1-dc|outer.steps=300"
  "BPTT, 1|quickstart|$same outer.steps=500"
  "IDC, 1, whole images|fashion-ipc1-dc|$idc set.parameters.factor=1 set.init=real"
  "IDC, 1|fashion-ipc1-dc|$mixed"
  "IDC, 1, a fifth|fashion-ipc1-dc|$fifth"
  "IDC, 1, a fifth, twice the rate|fashion-ipc1-dc|$fifth outer.lr=2e-2"
  "Acc-DD, 1, a fifth|fashion-ipc1-dc|$fifth outer.lr=2e-2 $early $moved"
  "Early networks alone, 1, a fifth|fashion-ipc1-dc|$fifth outer.lr=2e-2 $early"
  "Moved weights alone, 1, a fifth|fashion-ipc1-dc|$fifth outer.lr=2e-2 $moved"
  "MTT, 1|features/trajectories|$mtt"
  "TESLA, 1|features/trajectories|$mtt method.hessian=none"
  "DDPP, 1, ratio|features/trajectories|$mtt method.prune=ratio"
  "DDPP, 1, distance|features/trajectories|$mtt method.prune=distance method.epsilon=1"
  "DM, 10|fashion-ipc10-dm|outer.steps=600"
  "DC, 10|fashion-ipc1-dc|$ten"
  "DSA, 10|fashion-ipc1-dc|$ten method.augment=true evaluate.augment=true"
  "EGM, 10, loss|fashion-ipc1-dc|$ten $egm method.inter=classes method.adaptive=loss"
  "EGM, 10, both|fashion-ipc1-dc|$ten $egm method.inter=classes"
  "EGM, 10, intra|fashion-ipc1-dc|$ten $egm"
  "EGM, 10, inter|fashion-ipc1-dc|$ten $egm method.intra=0 method.inter=classes"
  "BPTT, 10|quickstart|$same set.ipc=10 outer.steps=350"
)
if [ -n "${2:-}" ]; then
  rows+=(
    "DC, 1, CIFAR-10|fashion-ipc1-dc|$cifar"
    "DCC, 1, CIFAR-10|fashion-ipc1-dc|$cifar method.intra=0 method.inter=1 method.warmup=[75,10]"
  )
fi
if [[ "${ROWS:-trajectories}" == *trajectories* ]]; then
  "$retort" experts configs/features/trajectories.yaml --out "$experts" --networks 10 --epochs 10
fi
run_rows

# difference ROW ROW: of the means, with its standard error over seeds.
difference() {
  local first second
  mapfile -t first < <(finished "$1" result.json)
  mapfile -t second < <(finished "$2" result.json)
  [ "${#first[@]}" -gt 1 ] && [ "${#first[@]}" = "${#second[@]}" ] || return 0
  jq -rs --arg name "$1 - $2" "$statistics"'
    map(.accuracy.distilled.mean) | (length / 2) as $n | [range($n) as $i | .[$i] - .[$i + $n]]
    | "| \($name) | \(mean | round2) | \(sd / ($n | sqrt) | round2) |"' "${first[@]}" "${second[@]}"
}

echo "| row | distilled, mean of seeds (sd) | random images | inner epochs | device bytes | seconds distilling |"
echo "|---|---|---|---|---|---|"
for row in "${rows[@]}"; do
  mapfile -t files < <(finished "${row%%|*}" result.json)
  [ ${#files[@]} -gt 0 ] || continue
  jq -rs --arg name "${row%%|*}" "$statistics"'
    "| \($name) | \([.[].accuracy.distilled.mean] | by_seed) | \([.[].accuracy.random.mean] | mean | round2) | \(.[0].inner_epochs // "") | \(.[0].peak_device_bytes) | \([.[].seconds.distil] | mean | round) |"' "${files[@]}"
done
echo
echo "| difference | of means | standard error |"
echo "|---|---|---|"
difference "DSA, 10" "DC, 10"
difference "EGM, 10, both" "DC, 10"
difference "EGM, 10, intra" "DC, 10"
difference "EGM, 10, inter" "DC, 10"
difference "EGM, 10, loss" "EGM, 10, both"
difference "EGM, 10, loss" "DC, 10"
difference "DCC, 1, CIFAR-10" "DC, 1, CIFAR-10"
difference "IDC, 1" "IDC, 1, whole images"
difference "Acc-DD, 1, a fifth" "IDC, 1"
difference "Acc-DD, 1, a fifth" "IDC, 1, a fifth"
difference "Acc-DD, 1, a fifth" "IDC, 1, a fifth, twice the rate"
difference "Acc-DD, 1, a fifth" "Early networks alone, 1, a fifth"
difference "Acc-DD, 1, a fifth" "Moved weights alone, 1, a fifth"
difference "BPTT, 1" "DC, 1"
difference "BPTT, 10" "DC, 10"
difference "TESLA, 1" "MTT, 1"
difference "DDPP, 1, ratio" "MTT, 1"
difference "DDPP, 1, distance" "MTT, 1"
