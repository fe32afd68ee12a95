#!/usr/bin/env bash
# docs/ci.md and the workflow beside it: every command is one that the program knows, with options that its help names,
# keys that it has and files that are there; packages are those that ./dev installs. Prints TAP.
set -uo pipefail
program=${RETORT_PROGRAM:?the program to test}
source=${RETORT_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
cd "$source"
. tests/tap.sh

# Commands: lines of the page that are indented as code, and lines of the workflow. One a line, without what comes behind.
commands() {
  grep -hE '^    (RETORT_[A-Z_]+=[^ ]+ )*(build/)?retort ' docs/ci.md
  grep -hE '^ +retort/build/retort ' examples/ci/retort.yml
}
mapfile -t lines < <(commands | sed -E 's/^ +//; s/^(RETORT_[A-Z_]+=[^ ]+ )*//; s/ *[|].*//')
complaint=
[ "${#lines[@]}" -ge 12 ] || complaint="found ${#lines[@]} commands alone"
report "the page and the workflow have commands" "$complaint"

keys=$("$program" run --help-keys)
for line in "${lines[@]}"; do
  read -ra words <<<"$line"
  verb=${words[1]}
  complaint=
  help=$("$program" "$verb" --help 2>&1) || complaint="no verb $verb: $help"
  previous=
  for word in "${words[@]:2}"; do
    case $word in
    --*) grep -Eq -- "(^|[^-a-z])${word%%=*}([^-a-z]|$)" <<<"$help" || complaint+="retort $verb --help lacks $word"$'\n' ;;
    *=*) [ "$previous" != --set ] || grep -Fq -- "\`${word%%=*}\`" <<<"$keys" || complaint+="no key ${word%%=*}"$'\n' ;;
    tests/* | retort/tests/*) [ -d "${word#retort/}" ] || complaint+="$word is not there"$'\n' ;;
    esac
    previous=$word
  done
  report "$line" "${complaint%$'\n'}"
done

complaint=
# What ./dev installs, and what the workflow names before its first checkout.
known=" $(sed -n '/^packages=(/,/^)/p' dev | grep -v '[()]' | tr -s ' \n' ' ') git ca-certificates "
for package in $(sed -n '/apt-get install/,/uses:/p' examples/ci/retort.yml | sed '1d;$d'); do
  [[ $known == *" $package "* ]] || complaint+="./dev does not install $package"$'\n'
done
[[ $(sed -n '/apt-get install/,/uses:/p' examples/ci/retort.yml) == *pocl-opencl-icd* ]] || complaint+="no driver"
report "packages of the workflow" "${complaint%$'\n'}"

if command -v python3 >/dev/null && python3 -c 'import yaml' 2>/dev/null; then
  complaint=$(python3 -c '
import yaml
steps = yaml.safe_load(open("examples/ci/retort.yml"))["jobs"]["distil"]["steps"]
assert all(("run" in step) != ("uses" in step) for step in steps), steps' 2>&1)
  report "the workflow is YAML, and its steps are steps" "$complaint"
else
  skip "the workflow is YAML: needs python3-yaml"
fi
echo "1..$number"
exit $failed
