#!/usr/bin/env bash
# Teams of processes: team_member.c, started by mpirun on this machine. Prints TAP.
set -uo pipefail
source=${RETORT_SOURCE:?the source tree}
. "$source/tests/tap.sh"
member=${RETORT_TEAM_MEMBER:-} other=${RETORT_TEAM_OTHER:-}
if [ -z "$member" ] || ! command -v mpirun >/dev/null; then
  echo "1..1"
  skip "$([ -n "$member" ] && echo "mpirun is not here" || echo "this build has no MPI")"
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# However few cores, and as any user, as in a container.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none
# Under the sanitizers: MPI itself keeps memory to the end of the process.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"
echo "1..19"

# start NAME SECONDS WORDS...: mpirun ends well in that time; what the processes said is in `said`, in order.
start() {
  local name=$1 seconds=$2 ended=0
  shift 2
  timeout -k 5 "$seconds" mpirun "$@" >out 2>err </dev/null || ended=$?
  sort out >said
  [ "$ended" = 0 ] || { report "$name" "mpirun ended with $ended: $(tail -n 20 out err)"; return 1; }
}
# says NAME TEXT: that is what they said.
says() {
  if [ "$(cat said)" = "$2" ]; then report "$1" ""; else
    report "$1" "expected:"$'\n'"$2"$'\n'"said:"$'\n'"$(cat said err)"; fi
}

for size in 2 3 4; do
  name="$size processes: the same bytes as threads"
  start "$name" 240 -n $size "$member" play &&
    says "$name" "$(for ((i = 0; i < size; i++)); do echo "member $i of $size: as threads"; done)"
done

calls=(team_meet team_share team_collect team_sum team_leave)
for what in 0 1 2 3 4; do
  for who in 0 2; do
    name="member $who fails, the others are in ${calls[what]}"
    start "$name" 60 -n 4 "$member" fail $what $who && says "$name" "$(for i in 0 1 2 3; do
      echo "member $i: -4, $([ $i = $who ] || echo "member $who: ")file $who is broken"
    done)"
  done
done

# gone: waits up to ten seconds for the processes of these numbers, and for mpirun, to end.
gone() {
  local pid alive
  for _ in {1..100}; do
    alive=
    for pid; do kill -0 "$pid" 2>/dev/null && alive+="$pid "; done
    [ -n "$alive" ] || return 0
    sleep 0.1
  done
  kill -KILL $alive 2>/dev/null
  echo "still there after ten seconds: $alive"
}
mkdir numbers
mpirun -n 4 "$member" wait numbers >out 2>err </dev/null &
launcher=$!
for _ in {1..300}; do [ "$(ls numbers | wc -l)" = 4 ] && break; sleep 0.1; done
sleep 1
mapfile -t numbers < <(cat numbers/*)
if [ "${#numbers[@]}" = 4 ]; then
  kill -KILL "${numbers[1]}"
  report "a process is killed: the others end within ten seconds" "$(gone "$launcher" "${numbers[@]}")"
else
  report "a process is killed: the others end within ten seconds" "they did not start: $(cat err)"
  kill -KILL "$launcher"
fi
wait "$launcher" && ended=0 || ended=$?
report "a process is killed: mpirun says so" "$([ "$ended" != 0 ] || echo "it ended well: $(cat out err)")"

timeout -k 5 60 mpirun -n 3 "$member" vanish >out 2>err </dev/null && ended=0 || ended=$?
report "a process ends without leaving its team: the others do too" "$(
  [ "$ended" != 0 ] && [ "$ended" != 124 ] && [ "$ended" != 137 ] || echo "mpirun ended with $ended: $(cat out err)")"

name="waiting leaves the core to others"
start "$name" 60 -n 2 "$member" idle &&
  report "$name" "$([ "$(cat said)" -le 150 ] || echo "computed $(cat said) of 500 ms")"

name="another version is refused, at all"
version=$("$RETORT_PROGRAM" --version | grep -oE '[0-9]+[.][0-9.]+' | head -n 1)
words="this is Retort 0.0.0, the leader's is $version: install the same everywhere"
start "$name" 60 -n 1 "$member" create : -n 1 "$other" create && says "$name" "-1, member 1: $words"$'\n'"-1, $words"

PMI_SIZE=2 PMI_RANK=0 timeout 60 "$member" create >said 2>err </dev/null
report "another MPI's launcher is refused" "$(
  grep -q '^-1, 2 processes were started together, but MPI finds 1: .*Open MPI' said || cat said err)"
exit $failed
