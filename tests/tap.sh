# What tests that are shell scripts print, in the Test Anything Protocol. Sourced by them; needs bash.
number=0 failed=0
report() { # words, complaint (empty: passed)
  number=$((number + 1))
  if [ -z "$2" ]; then
    echo "ok $number - $1"
  else
    echo "not ok $number - $1"
    sed 's/^/# /' <<<"$2"
    failed=1
  fi
}
skip() { number=$((number + 1)); echo "ok $number # SKIP $1"; }

# For tests of $program.
# expect NAME STATUS WORDS ARGUMENTS...: the program leaves with the status, and says the words (an extended regular
# expression, over both streams).
expect() {
  local name=$1 wanted=$2 words=$3 got=0 complaint=
  shift 3
  "$program" "$@" >out 2>err </dev/null || got=$?
  [ "$got" = "$wanted" ] || complaint="exit status $got, expected $wanted"$'\n'
  grep -Eq -- "$words" out err || complaint+="no '$words' in:"$'\n'"$(head -c 2000 out err)"
  report "$name" "$complaint"
}
# holds NAME FILE CONDITION: a file of one JSON value fulfils a condition of jq.
holds() {
  local complaint
  command -v jq >/dev/null || { skip "$1: needs jq"; return; }
  if complaint=$(jq -e -s 'length == 1 and (.[0] | '"$3"')' "$2" 2>&1); then report "$1" ""; else
    report "$1" "not so ($complaint): $(head -c 3000 "$2")"; fi
}
