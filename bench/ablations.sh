#!/usr/bin/env bash
# The table of docs/results.md: every truncation policy and reading, exact and low-rank Hessian, three seeds each, equal
# outer steps. Writes one run folder per row and seed below OUT and prints the table as Markdown; what is finished is not
# run again. Needs jq. JOBS runs at a time (2), one core each.
#
#   bench/ablations.sh fashion OUT          Fashion-MNIST, ConvNet-3-32
#   bench/ablations.sh cifar10 OUT PATH     CIFAR-10's binary records below PATH
#   SEEDS="0 1 2" STEPS=300 T=60 W=20 D=5 may be set in the environment, and JOBS, and RETORT, the program.
set -euo pipefail
cd "$(dirname "$0")/.."
data=$1 out=$2 path=${3:-}
seeds=${SEEDS:-0 1 2} steps=${STEPS:-300} jobs=${JOBS:-2} retort=${RETORT:-build/retort}
common=(--set "outer.steps=$steps" --set "inner.steps=${T:-60}" --set "method.window=${W:-20}" --set "method.range=${D:-5}")
[ "$data" = fashion ] || common+=(--set data.kind=cifar10 --set "data.path=$path")

# The training accuracy as a running mean, and stages that last a fifth and a half of the run at least.
steady="method.stage.smoothing=0.7 method.stage.X=0.2 method.stage.Y=0.5"
rows=(
  "fixed window|method.truncation=fixed"
  "random window (RaT-BPTT)|method.truncation=random"
  "random, Lanczos rank 16|method.truncation=random method.hessian=lanczos"
  "AT-BPTT, literal|method.truncation=dynamic method.reading=literal"
  "AT-BPTT, released|method.truncation=dynamic method.reading=released"
  "AT-BPTT, standardised|method.truncation=dynamic method.reading=standardised"
  "AT-BPTT, literal, best found|method.truncation=dynamic method.reading=literal $steady method.range=0"
  "AT-BPTT, released, best found|method.truncation=dynamic method.reading=released $steady method.range=0"
  "AT-BPTT, standardised, best found|method.truncation=dynamic method.reading=standardised method.temperature=4 method.range=2"
  "standardised, Lanczos rank 16|method.truncation=dynamic method.reading=standardised method.hessian=lanczos"
)
[ -z "${ROWS:-}" ] || mapfile -t rows <<<"$ROWS"

folder() { echo "$out/$(tr -cs 'A-Za-z0-9' - <<<"$1")$2"; }

one() { # name settings seed
  local to options=() setting
  to=$(folder "$1" "$3")
  [ ! -e "$to/result.json" ] || return 0
  for setting in $2; do options+=(--set "$setting"); done
  rm -rf "$to"
  POCL_MAX_PTHREAD_COUNT=1 "$retort" run configs/quickstart.yaml --quiet --seed "$3" --out "$to" \
    "${common[@]}" "${options[@]}" >"$to.log" 2>&1 || echo "failed: $1, seed $3 (see $to.log)" >&2
}

mkdir -p "$out"
for seed in $seeds; do
  for row in "${rows[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    one "${row%%|*}" "${row#*|}" "$seed" &
  done
done
wait

echo "| setting | distilled, mean of seeds (sd) | random subset | outer steps early / middle / late | seconds distilling | MB on the device | cosine to exact |"
echo "|---|---|---|---|---|---|---|"
for row in "${rows[@]}"; do
  files=() metrics=()
  for seed in $seeds; do
    to=$(folder "${row%%|*}" "$seed")
    [ ! -e "$to/result.json" ] || { files+=("$to/result.json"); metrics+=("$to/metrics.jsonl"); }
  done
  [ ${#files[@]} -gt 0 ] || continue
  cosine=$(cat "${metrics[@]}" | jq -s '[.[].cosine | select(. != null)] | if length > 0 then add / length * 1000 | round / 1000 | tostring else "" end' -r)
  jq -rs --arg name "${row%%|*}" --arg cosine "$cosine" '
    def mean: add / length;
    def round2: . * 100 | round / 100;
    [.[].accuracy.distilled.mean] as $d
    | ($d | mean) as $m
    | (if ($d | length) > 1 then ([$d[] | (. - $m) * (. - $m)] | add / (length - 1) | sqrt) else 0 end) as $sd
    | "| \($name) | \($m | round2) (\($sd | round2)): \([$d[] | round2 | tostring] | join(", ")) | \([.[].accuracy.random.mean] | mean | round2) | \([.[].stages | if . then "\(.early)/\(.middle)/\(.late)" else "" end] | join(", ")) | \([.[].seconds.distil] | mean | round) | \([.[].peak_device_bytes] | mean / 1e6 | round) | \($cosine) |"' "${files[@]}"
done
