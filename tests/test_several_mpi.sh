#!/usr/bin/env bash
# One run by several processes that mpirun starts on this machine: the bytes of threads, one that is killed, messages.
# Prints TAP.
set -uo pipefail
program=${RETORT_PROGRAM:?the program to test}
source=${RETORT_SOURCE:?the source tree}
fashion=/usr/share/datasets/fashion-mnist
. "$source/tests/tap.sh"
why=
# Not grep -q, which ends before ldd has said all: with pipefail that would be a failure.
ldd "$program" | grep libmpi >/dev/null || why="this build has no MPI"
command -v mpirun >/dev/null || why="mpirun is not here"
[ -d "$fashion" ] || why="Fashion-MNIST is not here"
if [ -n "$why" ]; then
  echo "1..1"
  skip "$why"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# However few cores, and as any user, as in a container.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none RETORT_WISDOM=off POCL_MAX_PTHREAD_COUNT=1
echo "1..13"
cat >small.yaml <<'YAML'
data: {kind: idx, path: /usr/share/datasets/fashion-mnist, train_limit: 600, test_limit: 200}
network: {width: 4}
inner: {steps: 6, lr: 0.02}
method: {window: 3, range: 1}
outer: {steps: 20, lr: 0.01, real_batch: 32, meta_batch: 4}
evaluate: {networks: 4, steps: [20]}
YAML

together() { # processes, words of `retort run`...: its exit status; what it said is in out and err
  local count=$1
  shift
  timeout -k 5 200 mpirun -n "$count" "$program" run "$@" >out 2>err </dev/null
}
# The object `accuracy` of result.json, which is written with one key a line.
accuracy() { sed -n '/"accuracy": {/,/^  }/p' "$1/result.json"; }
same() { # name, two run folders
  local complaint=
  cmp -s "$2/set/images.npy" "$3/set/images.npy" || complaint="$2/set/images.npy and $3/set/images.npy differ"
  [ -n "$(accuracy "$2")" ] && [ "$(accuracy "$2")" = "$(accuracy "$3")" ] || complaint+=" accuracies differ"
  report "$1" "$complaint"
}
# threads FOLDER WORDS...: a run by four threads. PoCL 3.1 loses count of its kernels now and then where several threads
# launch on it, and aborts: then another attempt.
threads() {
  local out=$1 ended
  shift
  for _ in {1..8}; do
    rm -rf "$out"
    "$program" run small.yaml --device "$device,$device,$device,$device" --out "$out" "$@" -q >out 2>err </dev/null
    ended=$?
    [ "$ended" = 134 ] || break
  done
  return "$ended"
}
words() { # name, pattern: it stands in err once
  local count
  count=$(grep -Ec -- "$2" err)
  report "$1" "$([ "$count" = 1 ] || echo "$count times '$2' in: $(head -c 2000 err)")"
}

device=${RETORT_DEVICE:-cpu}
unset RETORT_DEVICE
threads threads
report "four threads" "$([ -e threads/result.json ] || cat err)"
together 4 small.yaml --device "$device" --out four
report "four processes" "$([ $? = 0 ] || tail -20 err)"
same "four processes: the bytes of four threads" threads four
words "one of four talks" "^devices: 4, which divide the trajectories of a step"
together 2 small.yaml --device "$device" --out two
same "two processes: the bytes of four" two four

rows=(--set device.divide=rows --set device.shares=[1,1,1,1] --set outer.meta_batch=1 --set set.ipc=4 --set outer.steps=6)
threads row-threads "${rows[@]}"
together 4 small.yaml --device "$device" --out row-four "${rows[@]}"
words "rows: four processes divide them" "^devices: 4, which divide the rows of batches"
same "rows: the bytes of four threads" row-threads row-four

# --- one is killed ---
mpirun -n 4 "$program" run small.yaml --device "$device" --out killed --checkpoint-every 0.000001 >out 2>err </dev/null &
launcher=$!
for _ in {1..600}; do compgen -G 'killed/checkpoint/00001*.json' >/dev/null && break; sleep 0.05; done
read -ra numbers <"/proc/$launcher/task/$launcher/children"
kill -KILL "${numbers[2]}"
alive=
for _ in {1..100}; do
  alive=
  for pid in "$launcher" "${numbers[@]}"; do kill -0 "$pid" 2>/dev/null && alive+="$pid "; done
  [ -n "$alive" ] || break
  sleep 0.1
done
report "one is killed: the others end within ten seconds" "$alive"
[ -z "$alive" ] || kill -KILL $alive
report "one is killed: the run is not finished" "$([ ! -e killed/result.json ] || echo "it is")"
together 2 small.yaml --device "$device" --out killed --resume
words "another number of processes is refused" "killed was begun on 4 devices, this command names 2"
together 4 small.yaml --device "$device" --out killed --resume
words "the run goes on" "^resuming after outer step [1-9]"
same "killed and resumed: the bytes of a whole run" killed four

# --- mistakes ---
together 3 small.yaml --device nowhere --out no
words "a mistake of all is told once" "nowhere"
exit $failed
