#!/usr/bin/env bash
# Everything worth knowing about Retort on a GPU, unattended, in less than half an hour: what the device says of itself,
# whether it computes rightly, how fast kernels and whole outer steps are before and after tuning, and PyTorch beside it.
#
#   bench/gpu_day.sh [FOLDER]        (build/gpu_day); all output is kept there, summary.md tells what came out
#
# Environment:
#   DEVICE   OpenCL device: index or words of `retort devices` (the first GPU)
#   RETORT   the program (build/retort)
#   CASES    folders of oracle cases (../shared/oracle/*/, else those of tests/oracle)
#   COLUMNS  what to time, WIDTH:C,H,W:IPC each; "128:3,32,32:1 128:3,32,32:10 32:1,28,28:1 32:1,28,28:10"
#   REPS     outer steps timed in a column, after one that warms up (5)
#   MINUTES  after which nothing new is begun (25)
#   PYTHON   a Python whose torch sees the same card; without it PyTorch is left out
#
# Each part has its own time limit and its own files, and none needs the one before it: a driver that hangs or crashes costs
# that part alone. Needs jq for the summary; clinfo is asked where it is installed.
set -uo pipefail
columns=${COLUMNS:-}
[[ $columns == *:* ]] || columns="128:3,32,32:1 128:3,32,32:10 32:1,28,28:1 32:1,28,28:10"
called_from=$PWD
cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
folder=${1:-build/gpu_day}
[[ $folder == /* || -z ${1:-} ]] || folder=$called_from/$folder
retort=${RETORT:-build/retort} reps=${REPS:-5} minutes=${MINUTES:-25}
truncation=(--prefix 20 --window 20 --real 256)
device=(${DEVICE:+--device "$DEVICE"})
[ -x "$retort" ] || { echo "gpu_day: $retort is not there; build it with ./dev build, or name it in RETORT" >&2; exit 1; }
mkdir -p "$folder" || exit 1
deadline=$((SECONDS + minutes * 60))
if [ -n "${CASES:-}" ]; then read -ra cases <<<"$CASES"
elif [ -d ../shared/oracle ]; then cases=(../shared/oracle/*/)
else cases=(tests/oracle/*/); fi

failed=() skipped=()
# part NAME SECONDS COMMAND...: runs it under a time limit, output to FOLDER/NAME.txt, errors to FOLDER/NAME.err.
part() {
  local name=$1 limit=$2 begun=$SECONDS status
  shift 2
  [ $((deadline - SECONDS)) -ge "$limit" ] || limit=$((deadline - SECONDS))
  if [ "$limit" -lt 5 ]; then
    skipped+=("$name")
    return 1
  fi
  timeout --kill-after=5 "$limit" "$@" >"$folder/$name.txt" 2>"$folder/$name.err"
  status=$?
  [ "$status" = 0 ] || failed+=("$name ($([ "$status" = 124 ] && echo "ran past $limit s" || echo "exit status $status"))")
  printf '%4d s  %-28s %s\n' $((SECONDS - begun)) "$name" "$([ "$status" = 0 ] && echo done || echo "FAILED, $status")" >&2
  return "$status"
}

steps() { # prefix of the names; each column of `bench step`, whole and with a profile
  local column width image ipc
  for column in $columns; do
    IFS=: read -r width image ipc <<<"$column"
    part "$1-$width-$ipc" 120 "$retort" bench step --width "$width" --image "$image" --ipc "$ipc" "${truncation[@]}" \
      --reps "$reps" --json --profile ${device[@]+"${device[@]}"}
  done
}

# What it is.
command -v clinfo >/dev/null && part clinfo 30 clinfo
command -v nvidia-smi >/dev/null && part nvidia-smi 30 nvidia-smi
command -v rocminfo >/dev/null && part rocminfo 30 rocminfo
part devices 60 "$retort" devices

# The first start: nothing cached, nothing tuned.
export RETORT_WISDOM=off
RETORT_CACHE=off part first-start 180 "$retort" bench step --width 128 --image 3,32,32 --ipc 1 --reps 1 --json \
  ${device[@]+"${device[@]}"}

# Right or wrong: the oracle's cases as they are chosen, and each way to compute convolutions wherever it fits.
part check 180 "$retort" check ${device[@]+"${device[@]}"} "${cases[@]}"
for way in staged product; do
  RETORT_CONV=$way part "check-$way" 180 "$retort" check ${device[@]+"${device[@]}"} "${cases[@]}"
done
RETORT_GEMM=clblast part check-clblast 180 "$retort" check ${device[@]+"${device[@]}"} "${cases[@]}"
if [ -n "${DEVICE:-}" ] && [ -x ./dev ] && ./dev help | grep -q conformance; then
  part conformance 300 env RETORT_NO_INSTALL=1 ./dev conformance --device "$DEVICE"
fi

# Kernels and steps, untuned and tuned.
part conv 120 "$retort" bench conv --json ${device[@]+"${device[@]}"}
part gemm 90 "$retort" bench gemm --json ${device[@]+"${device[@]}"}
steps untuned
RETORT_WISDOM=$(realpath "$folder")/wisdom
rm -f "$RETORT_WISDOM"
for column in $columns; do
  IFS=: read -r width image ipc <<<"$column"
  part "tune-$width-$ipc" 120 "$retort" tune --quick --width "$width" --image "$image" --ipc "$ipc" --json \
    ${device[@]+"${device[@]}"}
done
steps tuned
part tuned-conv 120 "$retort" bench conv --json ${device[@]+"${device[@]}"}

# PyTorch on the same card.
if [ -n "${PYTHON:-}" ] && "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  for column in $columns; do
    IFS=: read -r width image ipc <<<"$column"
    for program in graph compiled; do
      for precision in float32 tf32; do
        flag=()
        [ "$precision" = float32 ] || flag=(--tf32)
        part "pytorch-$program-$precision-$width-$ipc" 150 "$PYTHON" bench/pytorch_step.py "$program" --device cuda \
          --width "$width" --image "$image" --ipc "$ipc" "${truncation[@]}" --reps "$reps" ${flag[@]+"${flag[@]}"}
      done
    done
  done
else
  skipped+=("pytorch (PYTHON names none whose torch sees a card)")
fi

# Products by CLBlast; without wisdom, beside the untuned column.
RETORT_GEMM=clblast RETORT_WISDOM=off steps clblast

# --- what came out ---
figure() { # file, jq expression
  jq -r "$2 // empty" "$folder/$1.txt" 2>/dev/null
}
summary() {
  echo "# $(figure first-start '"\(.device), \(.platform), driver \(.driver)"')"
  echo
  echo "$(date -u +%F), Retort $(figure first-start .version), \`bench/gpu_day.sh\`. Peaks measured:" \
    "$(figure first-start '"\(.peak_gflops | round) GFLOP/s, copy \(.peak_gb_per_s | round) GB/s"')."
  echo "First start: kernels ready in $(figure first-start '.build_seconds * 10 | round / 10') s, nothing cached."
  echo
  local name
  for name in check check-staged check-product check-clblast; do
    [ ! -s "$folder/$name.txt" ] ||
      echo "- $name: $(grep -c ' ok$' "$folder/$name.txt") ok, $(grep -c ' FAIL$' "$folder/$name.txt") failed"
  done
  [ ! -s "$folder/conformance.txt" ] || echo "- conformance: $(tail -n 1 "$folder/conformance.txt")"
  echo
  echo "| seconds an outer step | untuned | share of peak | tuned | share of peak | PyTorch graph | TF32 | compiled | TF32 |"
  echo "|---|---|---|---|---|---|---|---|---|"
  local column width image ipc way
  for column in $columns; do
    IFS=: read -r width image ipc <<<"$column"
    printf '| width %s, %s per class' "$width" "$ipc"
    for way in untuned tuned; do
      printf ' | %s | %s' "$(figure "$way-$width-$ipc" '.seconds_min | . * 10000 | round / 10000')" \
        "$(figure "$way-$width-$ipc" '.share_of_peak * 1000 | round / 10 | "\(.) %"')"
    done
    for way in graph-float32 graph-tf32 compiled-float32 compiled-tf32; do
      printf ' | %s' "$(figure "pytorch-$way-$width-$ipc" '.seconds_min | . * 10000 | round / 10000')"
    done
    echo ' |'
  done
  echo
  for name in conv tuned-conv; do
    echo "Convolutions, $name:"
    echo
    figure "$name" '.kernels[] | "    \(.pass) \(.channels) > \(.outputs) \(.side)x\(.side) batch \(.batch): \(.gflops | round) GFLOP/s, \(.share_of_peak * 100 | round) %, \(.file)"'
    echo
  done
  echo "Matrix products:"
  echo
  figure gemm '.kernels[] | "    \(.m) x \(.k) by \(.k) x \(.n): \(.gflops | round) GFLOP/s, \(.share_of_peak * 100 | round) %, \(.file)"'
  echo
  for column in $columns; do
    IFS=: read -r width image ipc <<<"$column"
    echo "Products by CLBlast, width $width, $ipc per class: $(figure "clblast-$width-$ipc" .seconds_min) s an outer step"
  done
  echo
  [ ${#failed[@]} = 0 ] || printf 'Failed: %s\n' "${failed[*]}"
  [ ${#skipped[@]} = 0 ] || printf 'Left out: %s\n' "${skipped[*]}"
  echo "Took $((SECONDS / 60)) min $((SECONDS % 60)) s."
}
summary | tee "$folder/summary.md"
[ ${#failed[@]} = 0 ]
