#!/usr/bin/env bash
# What is written for people is true of the program: its help lists the options that it takes, its manual pages those of
# its help, and the words of errors in docs/troubleshooting.md are in the sources. Prints TAP.
set -uo pipefail
program=${RETORT_PROGRAM:?the program}
source=${RETORT_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cp "$source"/docs/man/*.1 .
awk -f "$source/docs/man/keys.awk" "$source/docs/man/retort-descriptor.5.in" "$source/docs/descriptor.md" \
  >retort-descriptor.5

. "$source/tests/tap.sh"

commands() { "$program" --help | sed -nE 's/^  ([a-z]+)  +.*/\1/p'; }
benchmarks() { "$program" bench --help | sed -nE '1s/^usage: retort bench ([a-z|]+) .*/\1/p' | tr '|' ' '; }
# Lines of "--NAME", or "--NAME ARGUMENT". The words of an option that has several lines are joined.
options() {
  "$program" "$@" --help | sed -nE 's/^  (--[a-z-]+)(, -[a-z])?( [^ ]+)?(  .*|$)/\1\3/p' |
    awk '{ words[$1] = words[$1] (words[$1] ? "|" : "") $2 } END { for (name in words) print name, words[name] }' |
    sed 's/ $//' | sort
}
options_of_page() {
  sed -nE 's/^\.It Fl (-[a-z-]+)(.*)/-\1 \2/p' "$1" | sed -E 's/ , Fl .*//; s/ (Ar|Cm) / /; s/ \| /|/g; s/ +/ /g; s/ $//' |
    sort
}

# Every option of the program is tried on every command. With --help behind it nothing is done.
verbs=()
for verb in $(commands); do
  if [ "$verb" = bench ]; then for name in $(benchmarks); do verbs+=("bench $name"); done; else verbs+=("$verb"); fi
done
for verb in "${verbs[@]}"; do options $verb; done | sed 's/ .*//' | sort -u >all
report "there are options" "$([ "$(wc -l <all)" -ge 30 ] || cat all)"
for verb in "${verbs[@]}"; do
  while read -r name; do
    said=$("$program" $verb "$name=x" --help 2>&1) && { echo "$name takes"; continue; }
    [[ $said != *"takes no value"* ]] || echo "$name"
  done <all | sort >taken
  report "retort $verb --help lists the options it takes" "$(diff taken <(options $verb | sed 's/ .*/ takes/'))"
done

for verb in $(commands); do
  page=retort-$verb.1
  if [ ! -e "$page" ]; then report "$page" "retort $verb has no manual page"; continue; fi
  if [ "$verb" = bench ]; then for name in $(benchmarks); do options bench "$name"; done | sort -u; else options "$verb"; fi >said
  report "$page has the options of its help, and no others" "$(diff said <(options_of_page "$page"))"
  report "retort.1 names $page" "$(grep -q "^\.It Xr retort-$verb 1" retort.1 || echo "it does not")"
done
report "every page is of a command" "$(ls retort-*.1 | sed 's/retort-\(.*\)\.1/\1/' | grep -vxF "$(commands)")"
report "every page is installed" "$(cd "$source/docs/man" && for page in *.1; do
  grep -q "'$page'" meson.build || echo "$page is not in docs/man/meson.build"; done)"

"$program" run --help-keys | sed -nE 's/^- `([^`]+)`.*/\1/p' | sort >wanted
sed -nE 's/^\.It Va ([^ ]+).*/\1/p' retort-descriptor.5 | sort >found
report "retort-descriptor.5 has every key" "$([ -s wanted ] && diff wanted found)"
grep -rhoE '"RETORT_[A-Z]+"' "$source/host" --include=*.c | tr -d '"' | sort -u >wanted
sed -nE 's/^\.It Ev (RETORT_[A-Z]+).*/\1/p' retort.1 | sort >found
report "retort.1 has every variable of the environment" "$([ -s wanted ] && diff wanted found)"

report "README.md names every command" "$(for verb in $(commands); do
  grep -q "^    retort $verb " "$source/README.md" || echo "retort $verb"; done)"
report "links lead to files that are there" "$(cd "$source" && for page in *.md docs/*.md; do
  grep -oE '\]\([^)#]+' "$page" | sed 's/^](//' | grep -v '^https\?:' | while read -r link; do
    [ -e "$(dirname "$page")/$link" ] || echo "$page: $link"; done; done)"

# Messages are quoted in indented lines of docs/troubleshooting.md, three dots for what differs; what is between them has
# to be in the sources, whose literals are joined as the compiler does.
find "$source/host" -name '*.c' -print0 | xargs -0 cat | tr -d '\n' | sed 's/" *"//g; s/\\"/"/g; s/%%/%/g; s/"/\n/g' >literals
sed -nE 's/^ +retort(: warning| [a-z]+): //p' "$source/docs/troubleshooting.md" | sed -E 's/\.\.\.|[;:,()]/\n/g' |
  sed -E 's/^ *(or )?//; s/ +$//' | grep -E '.{12}' | grep -v '^No ' >quotes # "No ..." is what the system says
report "docs/troubleshooting.md quotes what the program says" "$([ -s quotes ] && while read -r quote; do
  grep -qF -- "$quote" literals || echo "not in the sources: $quote"; done <quotes)"

if command -v mandoc >/dev/null; then
  for page in *.[15]; do report "$page by mandoc" "$(mandoc -Tlint -Wstyle "$page")"; done
else
  skip "pages by mandoc: it is not installed"
fi
if command -v groff >/dev/null; then
  for page in *.[15]; do report "$page by groff" "$(groff -mdoc -Tutf8 -ww "$page" 2>&1 >/dev/null)"; done
else
  skip "pages by groff: it is not installed"
fi
echo "1..$number"
exit $failed
