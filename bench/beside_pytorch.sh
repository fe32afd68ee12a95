#!/usr/bin/env bash
# Times Retort's outer step beside PyTorch's (bench/pytorch_step.py), turn by turn, and prints the table as Markdown.
#
#   bench/beside_pytorch.sh [>table.md]
#
# Environment:
#   COLUMNS  what to time, WIDTH:C,H,W:IPC each; "128:3,32,32:1 128:3,32,32:10 32:1,28,28:1 32:1,28,28:10"
#   REPS     outer steps timed in a turn, after one that warms up (3)
#   ROUNDS   turns of each program (3)
#   THREADS  of PyTorch (all processors, as PoCL takes them)
#   DEVICE   OpenCL device: index or words of `retort devices`
#   RETORT   the program (build/retort)
#   PYTHON   a Python with torch; without it one is made in build/pytorch with pip, which heeds its own variables
#            (PIP_INDEX_URL, say, for a place that has PyTorch for CPUs alone)
#
# Needs jq, a C++ compiler and Python's headers (torch.compile does). What was measured stays in build/beside_pytorch.jsonl.
set -euo pipefail
# The shell puts a terminal's width into COLUMNS too; that is not a list.
columns=${COLUMNS:-}
[[ $columns == *:* ]] || columns="128:3,32,32:1 128:3,32,32:10 32:1,28,28:1 32:1,28,28:10"
cd "$(dirname "$0")/.."
. bench/pytorch.sh
reps=${REPS:-3} rounds=${ROUNDS:-3} threads=${THREADS:-$(nproc)} retort=${RETORT:-build/retort}
truncation=(--prefix 20 --window 20 --real 256)

for column in $columns; do
  [[ $column =~ ^[0-9]+:[0-9]+,[0-9]+,[0-9]+:[0-9]+$ ]] || die "COLUMNS: $column is not WIDTH:C,H,W:IPC"
done
begin_pytorch "$retort" torch
mkdir -p build
results=build/beside_pytorch.jsonl log=build/beside_pytorch.log
: >"$results"

turn() { # program column
  local width image ipc
  IFS=: read -r width image ipc <<<"$2"
  local arguments=(--width "$width" --image "$image" --ipc "$ipc" "${truncation[@]}" --reps "$reps")
  case $1 in
  retort) "$retort" bench step "${arguments[@]}" --json ${DEVICE:+--device "$DEVICE"} ;;
  *) "$PYTHON" bench/pytorch_step.py "$1" "${arguments[@]}" --threads "$threads" ;;
  esac 2>"$log" | jq -c --arg program "$1" --arg column "$2" '{program: $program, column: $column} + .' >>"$results" ||
    { cat "$log" >&2; die "$1 failed on $2"; }
  tail -n 1 "$results" | jq -r '"\(.column)  \(.program)  \(.seconds_min) s"' >&2
}

for column in $columns; do
  for ((round = 0; round < rounds; round++)); do
    for program in retort graph compiled; do turn "$program" "$column"; done
  done
done

jq -rs '
  def digits($n): . * pow(10; $n) | round / pow(10; $n);
  def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;
  def names: {retort: "Retort", graph: "PyTorch, one graph", compiled: "PyTorch, compiled replay"};
  . as $turns
  | (reduce $turns[].column as $c ([]; if index($c) then . else . + [$c] end)) as $columns
  | ($turns | map(select(.program == "retort"))[0]) as $retort
  | ($turns | map(select(.program != "retort"))[0]) as $torch
  | "| network and images | program | seconds, least | seconds, median | peak RSS, MiB | times Retort |",
    "|---|---|---:|---:|---:|---:|",
    ($columns[] as $column
      | ($turns | map(select(.column == $column))) as $here
      | ($here | map(select(.program == "retort").seconds_min) | min) as $unit
      | ("retort", "graph", "compiled") as $program
      | ($here | map(select(.program == $program)))
      | (map(.seconds_min) | min) as $least
      | "| width \(.[0].width), \($column | split(":")[1] | gsub(","; " x ")), \(.[0].ipc) per class"
        + " | \(names[$program]) | \($least | digits(4)) | \(map(.seconds_median) | median | digits(4))"
        + " | \(map(.peak_rss_mb) | max | round) | \($least / $unit | digits(2)) |"),
    "",
    "Retort \($retort.version) on \($retort.device) (\($retort.platform), \($retort.driver)) beside PyTorch"
    + " \($torch.version) on \($torch.threads) threads; prefix 20, window 20, 256 real images; \('"$rounds"') turns of"
    + " \('"$reps"') outer steps each."' "$results"
