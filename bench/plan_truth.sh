#!/usr/bin/env bash
# What `retort plan` says beside what then happens, for six descriptors: the table of docs/planning.md as Markdown. Plans
# and runs one after another on a device that should do nothing else. Writes below OUT; what is finished is not run
# again. Needs jq, and CIFAR-10's binary records below CIFAR.
#
#   bench/plan_truth.sh OUT CIFAR [OPTIONS OF RUN...]
#   RETORT names the program in the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1 cifar=$(readlink -f "$2") retort=${RETORT:-build/retort}
shift 2
mkdir -p "$out"
cifar="data.kind=cifar10 data.path=$cifar data.normalise=mean_sd"

# Name, descriptor, settings.
rows=(
  "RaT-BPTT, Fashion-MNIST, 1 a class|quickstart|outer.steps=400"
  "AT-BPTT, Fashion-MNIST, 1 a class|features/dynamic-window|outer.steps=300"
  "AT-BPTT under 64 MB, Fashion-MNIST, 1 a class|features/dynamic-window|outer.steps=300 memory=64MB"
  "DM, Fashion-MNIST, 10 a class|fashion-ipc10-dm|outer.steps=150 evaluate.epochs=60"
  "RaT-BPTT under 300 MB, CIFAR-10, 10 a class|quickstart|outer.steps=40 set.ipc=10 memory=300MB $cifar"
  "DM, CIFAR-10, 10 a class|fashion-ipc10-dm|outer.steps=60 evaluate.epochs=60 $cifar"
)

one() { # folder descriptor settings...
  local to=$1 descriptor=configs/$2.yaml options=() setting
  shift 2
  [ ! -e "$to/result.json" ] || return 0
  for setting; do options+=(--set "$setting"); done
  rm -rf "$to"
  "$retort" plan "$descriptor" "${options[@]}" "${more[@]}" --quiet --json >"$to.plan"
  "$retort" run "$descriptor" "${options[@]}" "${more[@]}" --quiet --out "$to" >"$to.log" 2>&1
}

more=("$@")
row=0
for line in "${rows[@]}"; do
  IFS='|' read -r name descriptor settings <<<"$line"
  row=$((row + 1))
  one "$out/$row" "$descriptor" $settings
done

echo "| | memory, MB: plan, run | an outer step, s | distilling, s | | evaluating, s | |"
echo "|---|---|---|---|---|---|---|"
row=0
for line in "${rows[@]}"; do
  row=$((row + 1))
  jq -rn --arg name "${line%%|*}" --slurpfile plan "$out/$row.plan" --slurpfile run "$out/$row/result.json" '
    def near: . * 100 | round / 100;
    def more($was; $said): "\(if $was >= $said then "+" else "" end)\(100 * ($was / $said - 1) | round) %";
    $plan[0] as $p | $run[0] as $r |
    "| \($name) | \($p.peak_device_bytes / 1e4 | round / 100), \($r.peak_device_bytes / 1e4 | round / 100) " +
    "| \($p.seconds.outer_step * 1e4 | round / 1e4), \($r.seconds.distil / $r.outer_steps * 1e4 | round / 1e4) " +
    "| \($p.seconds.distil | near), \($r.seconds.distil | near) | \(more($r.seconds.distil; $p.seconds.distil)) " +
    "| \($p.seconds.evaluate | near), \($r.seconds.evaluate | near) | \(more($r.seconds.evaluate; $p.seconds.evaluate)) |"'
done
