#!/usr/bin/env bash
# Times a match of gradients (DC) and a step of trajectory matching (MTT) beside the same in PyTorch
# (bench/pytorch_match.py), turn by turn, and prints the table as Markdown.
#
#   bench/pytorch_match.py check                    first: PyTorch computes what Retort is tested to compute
#   bench/beside_pytorch_match.sh >table.md
#   ROWS="mtt:32:1,28,28:1" REPS=5 ROUNDS=3 bench/beside_pytorch_match.sh
#
# Environment:
#   ROWS     what to time, dc or mtt:WIDTH:C,H,W:IPC each; "dc:128:3,32,32:1 dc:128:3,32,32:10 dc:32:1,28,28:1
#            dc:32:1,28,28:10 mtt:128:3,32,32:1 mtt:32:1,28,28:1"
#   REPS     steps timed in a turn, after one that warms up (2)
#   ROUNDS   turns of each program (2)
#   THREADS  of PyTorch (all processors, as PoCL takes them)
#   DEVICE   OpenCL device: index or words of `retort devices`
#   RETORT   the program (build/retort)
#   PYTHON   a Python with torch and numpy; without it one is made in build/pytorch with pip, which heeds its own
#            variables (PIP_INDEX_URL, say, for a place that has PyTorch for CPUs alone)
#
# Retort's are `retort run`'s own steps, as metrics.jsonl times them, on random images without a test part, so that
# nothing is evaluated; random weights are drawn and the set is changed in its time, too. DC: all 256 real images of
# each class, no training between two matches; MTT: 30 steps, experts of two epochs, no augmentation.
# Programs that do not agree end it. Losses and gradients of MTT, which begins at the same weights, may differ by 1 %:
# rounding puts values on the other side of ReLU's kink, after 10 steps 1e-4 of the loss, where 5 steps agree to 1e-7.
# DC's weights are drawn by each program for itself: losses may differ by 15 %.
# Needs jq, a C++ compiler and Python's headers (torch.compile does). What was measured stays in
# build/beside_pytorch_match/turns.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/pytorch.sh
rows=${ROWS:-dc:128:3,32,32:1 dc:128:3,32,32:10 dc:32:1,28,28:1 dc:32:1,28,28:10 mtt:128:3,32,32:1 mtt:32:1,28,28:1}
reps=${REPS:-2} rounds=${ROUNDS:-2} threads=${THREADS:-$(nproc)} retort=${RETORT:-build/retort}

for row in $rows; do
  [[ $row =~ ^(dc|mtt):[0-9]+:[0-9]+,[0-9]+,[0-9]+:[0-9]+$ ]] || die "ROWS: $row is not dc or mtt:WIDTH:C,H,W:IPC"
done
begin_pytorch "$retort" torch numpy
work=$PWD/build/beside_pytorch_match
mkdir -p "$work"
turns=$work/turns.jsonl log=$work/log
: >"$turns"

settings=()
prepare() { # method width image ipc: sets settings, and makes data and experts where they are missing
  local data=$work/data-$3 experts=$work/experts-$2-$3 key class i
  [ -e "$data/labels.npy" ] || "$PYTHON" bench/pytorch_match.py data "$data" --image "$3"
  for ((class = 0; class < 10; class++)); do for ((i = 0; i < $4; i++)); do echo $((class * 256 + i)); done; done \
    >"$work/indices-$4.txt"
  settings=()
  for key in data.kind=npy data.path="$data/images.npy" data.labels="$data/labels.npy" data.test=0 data.normalise=none \
    network.width="$2" set.ipc="$4" set.init=indices set.indices="$work/indices-$4.txt" outer.lr=1e-6; do
    settings+=(--set "$key")
  done
  if [ "$1" = dc ]; then
    settings+=(--set method.outer=1 --set method.inner=1 --set method.real_per_class=256)
  else
    settings+=(--set inner.lr=0.01 --set method.steps=30 --set method.epochs=2 --set method.max_start=1
      --set method.augment=false --set outer.lr_inner=1e-6 --set method.experts="$experts")
    "$retort" experts "configs/cifar10-ipc1-mtt.yaml" "${settings[@]}" --networks 1 --epochs 2 --quiet \
      ${DEVICE:+--device "$DEVICE"} || die "retort experts failed"
  fi
}

run_retort() { # method: one JSON object
  local out=$work/run peak
  rm -rf "$out"
  peak=$("$PYTHON" - "$retort" run "configs/cifar10-ipc1-$1.yaml" "${settings[@]}" --set outer.steps=$((reps + 1)) \
    --out "$out" --quiet ${DEVICE:+--device "$DEVICE"} <<<'
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)')
  jq -cs --argjson peak "$peak" --slurpfile result "$out/result.json" '
    map(select(.outer_step)) | {loss: .[0].loss, gradient_norm: .[0].gradient_norm, seconds: [.[1:][].seconds],
      peak_rss_mb: $peak, peak_device_mb: ($result[0].peak_device_bytes / 1048576), retort: $result[0].retort,
      device: $result[0].device, platform: $result[0].platform, driver: $result[0].driver}' "$out/metrics.jsonl"
}

turn() { # program row
  local method width image ipc
  IFS=: read -r method width image ipc <<<"$2"
  case $1 in
  retort) run_retort "$method" ;;
  *) "$PYTHON" bench/pytorch_match.py "$method" "$work/data-$image" --image "$image" --width "$width" --ipc "$ipc" \
    --reps "$reps" --threads "$threads" --experts "$work/experts-$width-$image" --variant "$1" ;;
  esac 2>"$log" | jq -c --arg program "$1" --arg row "$2" '{program: $program, row: $row} + .' >>"$turns" ||
    { cat "$log" >&2; die "$1 failed on $2"; }
  tail -n 1 "$turns" | jq -r '"\(.row)  \(.program)  \(.seconds) s, loss \(.loss), gradient \(.gradient_norm)"' >&2
}

agree() { # row
  jq -es --arg row "$1" 'map(select(.row == $row)) | (map(.loss) | min / max) as $loss
    | (map(.gradient_norm) | min / max) as $gradient
    | if $row | startswith("mtt") then $loss > 0.99 and $gradient > 0.99 else $loss > 0.85 end' "$turns" >/dev/null ||
    die "$1: the programs do not compute the same thing, see $turns"
}

for row in $rows; do
  IFS=: read -r -a parts <<<"$row"
  prepare "${parts[@]}"
  run_retort "${parts[0]}" >/dev/null 2>"$log" || { cat "$log" >&2; die "retort failed on $row"; } # builds its kernels
  for ((round = 0; round < rounds; round++)); do
    for program in retort graph compiled; do turn "$program" "$row"; done
  done
  agree "$row"
done

jq -rs '
  def digits($n): . * pow(10; $n) | round / pow(10; $n);
  def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;
  def seconds($program): map(select(.program == $program).seconds[]) | median;
  def most($program; $member): map(select(.program == $program)[$member]) | max;
  . as $turns
  | (reduce $turns[].row as $r ([]; if index($r) then . else . + [$r] end)) as $rows
  | ($turns | map(select(.program == "retort"))[0]) as $retort
  | ($turns | map(select(.program != "retort"))[0]) as $torch
  | "| match, network, images per class | Retort, s | PyTorch, one graph, s | PyTorch, compiled, s | times the faster"
    + " | Retort, MiB (buffers) | one graph, MiB | compiled, MiB | share of the smaller |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ($rows[] as $row
      | ($row | split(":")) as $part
      | ($turns | map(select(.row == $row)))
      | seconds("retort") as $own | seconds("graph") as $graph | seconds("compiled") as $compiled
      | most("retort"; "peak_rss_mb") as $memory
      | most("graph"; "above_import_mb") as $graph_memory | most("compiled"; "above_import_mb") as $compiled_memory
      | "| \($part[0] | ascii_upcase), width \($part[1]), \($part[2] | gsub(","; "x")), \($part[3])"
        + " | \($own | digits(3)) | \($graph | digits(3)) | \($compiled | digits(3))"
        + " | \(([$graph, $compiled] | min) / $own | digits(1))"
        + " | \($memory | round) (\(most("retort"; "peak_device_mb") | round))"
        + " | \($graph_memory | round) | \($compiled_memory | round)"
        + " | \($memory / ([$graph_memory, $compiled_memory] | min) | digits(2)) |"),
    "",
    "Retort \($retort.retort) on \($retort.device) (\($retort.platform), \($retort.driver)) beside PyTorch"
    + " \($torch.version) on \($torch.threads) threads; medians of \('"$rounds"') turns of \('"$reps"') steps each. Memory is"
    + " the most that was resident: of all of Retort, with its device buffers (in brackets) and the compiler of kernels; of"
    + " PyTorch beyond what `import torch` takes."' "$turns"
