#!/usr/bin/env bash
# The table of docs/results.md: every truncation policy and reading, exact and low-rank Hessian, three seeds each, equal
# outer steps. Writes one run folder per row and seed below OUT and prints the table as Markdown; what is finished is not
# run again. Needs jq.
#
#   bench/ablations.sh fashion OUT          Fashion-MNIST, ConvNet-3-32
#   bench/ablations.sh cifar10 OUT PATH     CIFAR-10's binary records below PATH
#   STEPS=300 T=60 W=20 D=5 may be set in the environment, and what bench/rows.sh has: SEEDS, JOBS, RETORT, ROWS.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/rows.sh
data=$1 out=$2 path=${3:-} steps=${STEPS:-300}
common=(--set "outer.steps=$steps" --set "inner.steps=${T:-60}" --set "method.window=${W:-20}" --set "method.range=${D:-5}")
[ "$data" = fashion ] || common+=(--set data.kind=cifar10 --set "data.path=$path")

# The training accuracy as a running mean, and stages that last a fifth and a half of the run at least.
steady="method.stage.smoothing=0.7 method.stage.X=0.2 method.stage.Y=0.5"
rows=(
  "fixed window|quickstart|method.truncation=fixed"
  "random window (RaT-BPTT)|quickstart|method.truncation=random"
  "random, Lanczos rank 16|quickstart|method.truncation=random method.hessian=lanczos"
  "AT-BPTT, literal|quickstart|method.truncation=dynamic method.reading=literal"
  "AT-BPTT, released|quickstart|method.truncation=dynamic method.reading=released"
  "AT-BPTT, standardised|quickstart|method.truncation=dynamic method.reading=standardised"
  "AT-BPTT, literal, best found|quickstart|method.truncation=dynamic method.reading=literal $steady method.range=0"
  "AT-BPTT, released, best found|quickstart|method.truncation=dynamic method.reading=released $steady method.range=0"
  "AT-BPTT, standardised, best found|quickstart|method.truncation=dynamic method.reading=standardised method.temperature=4 method.range=2"
  "standardised, Lanczos rank 16|quickstart|method.truncation=dynamic method.reading=standardised method.hessian=lanczos"
)
run_rows

echo "| setting | distilled, mean of seeds (sd) | random subset | outer steps early / middle / late | seconds distilling | MB on the device | cosine to exact |"
echo "|---|---|---|---|---|---|---|"
for row in "${rows[@]}"; do
  name=${row%%|*}
  mapfile -t files < <(finished "$name" result.json)
  [ ${#files[@]} -gt 0 ] || continue
  cosine=$(finished "$name" metrics.jsonl | xargs -d '\n' cat | jq -s '[.[].cosine | select(. != null)] | if length > 0 then add / length * 1000 | round / 1000 | tostring else "" end' -r)
  jq -rs --arg name "$name" --arg cosine "$cosine" "$statistics"'
    "| \($name) | \([.[].accuracy.distilled.mean] | by_seed) | \([.[].accuracy.random.mean] | mean | round2) | \([.[].stages | if . then "\(.early)/\(.middle)/\(.late)" else "" end] | join(", ")) | \([.[].seconds.distil] | mean | round) | \([.[].peak_device_bytes] | mean / 1e6 | round) | \($cosine) |"' "${files[@]}"
done
