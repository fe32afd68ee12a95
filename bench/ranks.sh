#!/usr/bin/env bash
# What dividing a run costs on one machine: outer steps of two trajectories, by one process with two cores, by two
# processes with a core each, and by two threads with both. Prints a table as Markdown; wants an idle machine with two
# cores or more, PoCL and Open MPI. Needs jq.
#
#   bench/ranks.sh OUT
#
# Environment: TURNS, how often each (3); STEPS, outer steps (30); RETORT, the program (build/retort).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1 turns=${TURNS:-3} steps=${STEPS:-30} retort=$(readlink -f "${RETORT:-build/retort}")
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 RETORT_WISDOM=off
mkdir -p "$out"
common=(--quiet --set "outer.steps=$steps" --set outer.meta_batch=2 --set evaluate.networks=2 --set evaluate.steps='[20]')

# name | descriptor | settings
rows=(
  "RaT-BPTT, width 32, 1 a class|quickstart|inner.steps=30"
  "RaT-BPTT, width 32, 10 a class|quickstart|set.ipc=10 inner.steps=30"
)
one() { # words before the program, folder, descriptor, settings...
  local before=$1 to=$2 descriptor=configs/$3.yaml options=() setting
  shift 3
  for setting; do options+=(--set "$setting"); done
  rm -rf "$to"
  $before "$retort" run "$descriptor" "${common[@]}" "${options[@]}" --out "$to" >"$to.log" 2>&1 || { cat "$to.log" >&2; exit 1; }
}
single="env POCL_MAX_PTHREAD_COUNT=2"
ranks="mpirun -n 2 --bind-to core -x POCL_MAX_PTHREAD_COUNT=1"
threads="env POCL_MAX_PTHREAD_COUNT=2 RETORT_DEVICE=pocl,pocl"
for ((turn = 1; turn <= turns; turn++)); do
  for ((row = 0; row < ${#rows[@]}; row++)); do
    IFS='|' read -r name descriptor settings <<<"${rows[row]}"
    one "$single" "$out/$row-single-$turn" "$descriptor" $settings
    one "$ranks" "$out/$row-ranks-$turn" "$descriptor" $settings
    one "$threads" "$out/$row-threads-$turn" "$descriptor" $settings
  done
done

echo "| least seconds of $steps outer steps | one process, two cores | two processes, one core each | two threads, both cores |"
echo "|---|---|---|---|"
for ((row = 0; row < ${#rows[@]}; row++)); do
  least() { jq -s 'map(.seconds.distil) | min' "$out/$row-$1"-*/result.json; }
  jq -rn --arg name "${rows[row]%%|*}" --argjson single "$(least single)" --argjson ranks "$(least ranks)" \
    --argjson threads "$(least threads)" '
    def two: . * 100 | round / 100;
    "| \($name) | \($single | two) | \($ranks | two), \($single / $ranks | two) of its speed | \($threads | two), \($single / $threads | two) |"'
done
