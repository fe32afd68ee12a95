#!/usr/bin/env bash
# What `retort plan` says beside what then happens, for six descriptors: the table of docs/planning.md as Markdown. Plans
# and runs one after another on a device that should do nothing else. Writes below OUT; what is finished is not run
# again. Needs jq, and CIFAR-10's binary records below CIFAR.
#
#   bench/plan_truth.sh OUT CIFAR
#
# Environment: TURNS, how often all of it is done (1): the table has medians. RETORT, the program (build/retort).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1 cifar=$(readlink -f "$2") retort=${RETORT:-build/retort} turns=${TURNS:-1}
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
  "$retort" plan "$descriptor" "${options[@]}" --quiet --json >"$to.plan"
  "$retort" run "$descriptor" "${options[@]}" --quiet --out "$to" >"$to.log" 2>&1
}

for ((turn = 1; turn <= turns; turn++)); do
  for ((row = 0; row < ${#rows[@]}; row++)); do
    IFS='|' read -r name descriptor settings <<<"${rows[row]}"
    one "$out/$row-$turn" "$descriptor" $settings
  done
done

echo "| | memory, MB: plan, run | an outer step, s | distilling, s | | evaluating, s | | both |"
echo "|---|---|---|---|---|---|---|---|"
for ((row = 0; row < ${#rows[@]}; row++)); do
  jq -rn --arg name "${rows[row]%%|*}" --slurpfile plan <(cat "$out/$row"-*.plan) \
    --slurpfile run <(cat "$out/$row"-*/result.json) '
    def median(f): map(f) | sort | .[((length - 1) / 2 | floor)] / 2 + .[(length / 2 | floor)] / 2;
    def to(digits): . * digits | round / digits;
    def pair(p; r; digits): "\($plan | median(p) | to(digits)), \($run | median(r) | to(digits))";
    def more(p; r): (100 * (($run | median(r)) / ($plan | median(p)) - 1) | round) as $more |
      "\(if $more > 0 then "+" else "" end)\($more) %";
    "| \($name) | \(pair(.peak_device_bytes / 1e6; .peak_device_bytes / 1e6; 100)) " +
    "| \(pair(.seconds.outer_step; .seconds.distil / .outer_steps; 1e4)) " +
    "| \(pair(.seconds.distil; .seconds.distil; 10)) | \(more(.seconds.distil; .seconds.distil)) " +
    "| \(pair(.seconds.evaluate; .seconds.evaluate; 10)) | \(more(.seconds.evaluate; .seconds.evaluate)) " +
    "| \(more(.seconds | .distil + .evaluate; .seconds | .distil + .evaluate)) |"'
done
