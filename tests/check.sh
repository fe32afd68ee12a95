#!/usr/bin/env bash
# Meta-gradients against exact answers: the project's own cases (tests/oracle, made by make_cases.py there) on the CPU
# family, two of them on the GPU family, and those of ../shared/oracle where it is. Prints TAP, a case a folder.
set -euo pipefail
source_root=${RETORT_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
program=${RETORT_PROGRAM:-$source_root/build/retort}

runs=()
for folder in "$source_root"/tests/oracle/*/; do
  [[ $(basename "$folder") == @(dm|match|trajectory)-* ]] || runs+=("cpu $folder") # those match without training
done
for name in group-one-momentum mlp-gelu-soft; do runs+=("gpu $source_root/tests/oracle/$name/"); done
shared=$source_root/../shared/oracle
if [ -d "$shared" ]; then
  for folder in "$shared"/*/; do runs+=("cpu $folder"); done
else
  runs+=("skip ../shared/oracle")
fi

echo "1..${#runs[@]}"
number=0 failed=0
for run in "${runs[@]}"; do
  family=${run%% *} folder=${run#* }
  number=$((number + 1))
  name="$(basename "$folder"), $family"
  if [ "$family" = skip ]; then
    echo "ok $number - $folder # SKIP it is not there"
  elif lines=$("$program" check --family "$family" "$folder" 2>&1); then
    echo "ok $number - $name"
  else
    echo "not ok $number - $name"
    sed 's/^/# /' <<<"$lines"
    failed=1
  fi
done
exit $failed
