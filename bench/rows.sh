# Runs that become the rows of a table: sourced by the scripts that make tables. They say before they call run_rows
#   rows     "name|descriptor of configs/|settings", a row each
#   common   options that all runs get, before their own
#   out      where the folders of runs go, one per row and seed; what is finished is not run again
# Environment: SEEDS (0 1 2), JOBS, so many runs at a time (2), one core each, RETORT, the program (build/retort), and
# ROWS, lines that replace the script's rows.
# shellcheck shell=bash
seeds=${SEEDS:-0 1 2} jobs=${JOBS:-2} retort=${RETORT:-build/retort}

folder() { echo "$out/$(tr -cs 'A-Za-z0-9' - <<<"$1")$2"; } # name seed

run_row() { # name descriptor settings seed
  local to options=() setting
  to=$(folder "$1" "$4")
  [ ! -e "$to/result.json" ] || return 0
  for setting in $3; do options+=(--set "$setting"); done
  rm -rf "$to"
  POCL_MAX_PTHREAD_COUNT=1 "$retort" run "configs/$2.yaml" --quiet --seed "$4" --out "$to" \
    "${common[@]}" "${options[@]}" >"$to.log" 2>&1 || echo "failed: $1, seed $4 (see $to.log)" >&2
}

run_rows() {
  local seed row name descriptor settings
  [ -z "${ROWS:-}" ] || mapfile -t rows <<<"$ROWS"
  mkdir -p "$out"
  for seed in $seeds; do
    for row in "${rows[@]}"; do
      while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
      IFS='|' read -r name descriptor settings <<<"$row"
      run_row "$name" "$descriptor" "$settings" "$seed" &
    done
  done
  wait
}

finished() { # name file: that file of each of its finished runs
  local seed to
  for seed in $seeds; do
    to=$(folder "$1" "$seed")
    [ ! -e "$to/result.json" ] || echo "$to/$2"
  done
}

# For jq: of an array of numbers, one a seed, "mean (sd, with n - 1): each".
statistics='
  def mean: add / length;
  def round2: . * 100 | round / 100;
  def sd: mean as $m | if length > 1 then map((. - $m) * (. - $m)) | add / (length - 1) | sqrt else 0 end;
  def by_seed: "\(mean | round2) (\(sd | round2)): \(map(round2 | tostring) | join(", "))";'
