#!/usr/bin/env bash
# Comparing devices as a person does: one load on all of them, results that are whole whatever a driver does, a page of
# several files, and the words for files that are broken or something else. Prints TAP.
set -uo pipefail
program=${RETORT_PROGRAM:?the program to test}
source=${RETORT_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
unset RETORT_DEVICE
export RETORT_WISDOM=off

. "$source/tests/tap.sh"

sound() { # PAGE
  command -v python3 >/dev/null || { skip "$1 is sound HTML: needs python3"; return; }
  python3 "$source/tests/html_page.py" "$1" >out 2>&1 && report "$1 is sound HTML" "" ||
    report "$1 is sound HTML" "$(cat out)"
}

# --- words ---
expect "bench --help tells of all devices" 0 'retort bench --all-devices \[--device SPEC\]' bench --help
expect "bench compare --help" 0 '^usage: retort bench compare FILE' bench compare --help
expect "bench compare: unknown option" 2 'unknown option --markdwn \(did you mean --markdown\?\)' bench compare --markdwn
expect "bench compare: near enough" 2 'unknown benchmark compre \(did you mean compare\?\)' bench compre
expect "bench compare: nothing" 2 'of what\? Name files that' bench compare
expect "bench: a device alone" 2 'which benchmark\?' bench --device 0
expect "bench --all-devices: operand" 2 'takes no operand, found x' bench --all-devices x
expect "bench --all-devices: no time" 2 '--limit 0: expected a number of seconds above 0' bench --all-devices --limit 0
expect "bench --all-devices: device not there" 1 'no device matches "nosuchdevice"; `retort devices` lists them' \
  bench --all-devices --device nosuchdevice
OCL_ICD_VENDORS=/nowhere expect "bench --all-devices: no device" 1 'no OpenCL device found' bench --all-devices
echo mine >mine
expect "bench --all-devices: somebody's file" 2 'mine is there and holds no such results' bench --all-devices --out mine

# --- files that are none ---
expect "bench compare: file not there" 1 'cannot read nowhere\.json' bench compare nowhere.json
expect "bench compare: no JSON" 1 'mine:1: not JSON' bench compare mine
echo '{"benchmark": "step", "gflops": 3}' >foreign.json
expect "bench compare: foreign" 1 'foreign\.json: benchmark: found "step", expected "hardware"' bench compare foreign.json

# --- the load, on every device there is ---
expect "bench --all-devices --quick" 0 '^results +quick\.json$' bench --all-devices --quick --limit 300 --out quick.json
holds "results of every device" quick.json '
  .format == 1 and .quick == true and .machine.cores >= 1 and (.build.compiler | length) > 3
  and (.results | length) > 0 and (.results | all(.problem == null and (.peaks.flops | length) == 2
    and (.loads | map(.load) | unique | length) == (.loads | length)
    and (.loads | map(.load) | contains(["launch", "product-square", "conv-wide-to-weights", "rows", "outer-32-1",
      "inner-32-1"]))
    and (.loads | all((.seconds | length) == 2 or .problem != null))))
  and (.results[0].loads | map(select(.load == "outer-32-1"))[0] | .flops > 0 and .bytes > 0 and .device_bytes > 0
    and .build_seconds >= 0 and .arithmetic_seconds >= 0 and .memory_seconds > 0)
  and (.results[0].loads | map(select(.load == "inner-32-1"))[0] | .flops > 0 and .build_seconds == null)'
expect "bench compare" 0 '^page +hardware\.html$' bench compare quick.json
sound hardware.html
expect "bench compare --markdown" 0 '^\| norm, activation, pooling, a GB of maps \|' bench compare quick.json --markdown
expect "a note on quick results" 0 'quick\.json was measured with --quick' bench compare quick.json --markdown
cp mine page.html
expect "bench compare: somebody's page" 2 'page\.html is there and is no report' bench compare quick.json --out page.html

# --- Ctrl-C: what was measured is written, no processes and no caches are left ---
mkdir tmp
TMPDIR=$work/tmp "$program" bench --all-devices --device 0 --out stopped.json >out 2>err </dev/null &
stopped=$!
for _ in $(seq 600); do [ -z "$(ls tmp)" ] || break; sleep 0.1; done
had=$(ls tmp)
sleep 0.5
kill -INT "$stopped"
wait "$stopped"
left=$?
complaint=
[[ $had == retort-bench-* ]] || complaint+="no folder for caches: $had"$'\n'
[ "$left" = 130 ] || complaint+="exit status $left: $(tail -n 3 err)"$'\n'
grep -q 'measuring was stopped; the results are those until then' err || complaint+="not said: $(tail -n 3 err)"$'\n'
"$program" bench compare stopped.json --markdown >out 2>&1 || complaint+="results until then: $(cat out)"$'\n'
[ -z "$(ls tmp)" ] || complaint+="left in TMPDIR: $(ls tmp)"$'\n'
report "interrupted" "${complaint%$'\n'}"

# --- others' results ---
if command -v jq >/dev/null; then
  jq '.results[0].device.name = "<script>alert(1)</script> & \"x\" | y" | .results[0].device.platform = "</td>\u0001"
    | .machine.processor = "\u0000" | .results[0].loads[0].problem = "]]><u>" | .results[0].loads[1].seconds = [1e-300]
    | .results[0].loads[2].flops = 1e29 | .results[0].peaks.bytes = [1e-29]' quick.json | sed 's/\\u0000//' >hostile.json
  expect "hostile words and numbers" 0 '^page +both\.html$' bench compare quick.json hostile.json --out both.html
  sound both.html
  jq '.results[0].loads[1].seconds = "x"' quick.json >broken.json
  expect "a broken file is refused by its key" 1 \
    'broken\.json: results\[0\]\.loads\[1\]\.seconds: found "x", expected a list of numbers' bench compare quick.json broken.json
else
  skip "others' results: needs jq"
fi
samples=("$source"/bench/results/*.json)
if [ -e "${samples[0]}" ]; then
  expect "results of this project" 0 '^page +samples\.html$' bench compare "${samples[@]}" --out samples.html
  sound samples.html
else
  skip "results of this project: there are none in bench/results"
fi

# --- drivers with defects: a row says why, the others go on ---
if [ -n "${RETORT_FALSE_DRIVER:-}" ]; then
  disturbed() { # NAME DEFECT LIMIT
    RETORT_TEST_BAD="$2" LD_PRELOAD=$RETORT_FALSE_DRIVER ASAN_OPTIONS=verify_asan_link_order=0:detect_leaks=0 \
      expect "$1" 0 '^results' bench --all-devices --quick --device 0 --limit "$3" --out "$1.json"
  }
  disturbed crash "crash count" 300
  holds "a driver that crashes" crash.json '.results[0].loads
    | (map(select(.load == "launch"))[0] | .problem == "it ended the process that ran it" and .seconds == [])
    and (map(select(.load == "outer-32-1"))[0] | .problem == null and (.seconds | length) == 2)'
  disturbed hang "hang count" 12
  holds "a driver that hangs" hang.json '.results[0].loads
    | (map(select(.load == "launch"))[0] | .problem == "not done in 12 s" and .seconds == [])
    and (map(select(.load == "conv-wide-forward"))[0] | .problem == null and (.seconds | length) == 2)'
  disturbed peaks "crash multiply_add" 300
  holds "peaks that cannot be measured" peaks.json '.results[0]
    | .peaks.problem == "it ended the process that ran it" and (.loads | map(select(.load == "launch"))[0].problem) == null'
  expect "what is missing is told" 0 '^\| .* \| peaks \| it ended the process that ran it \|$' \
    bench compare peaks.json --markdown
else
  skip "drivers with defects: RETORT_FALSE_DRIVER does not name the library"
fi

echo "1..$number"
exit $failed
