#!/usr/bin/env bash
# Completion of the command line, in the shells themselves, as far as they are installed: what they offer is what the
# program's own help says. Prints TAP.
set -uo pipefail
program=${RETORT_PROGRAM:?the program to complete}
source=${RETORT_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
PATH=$(dirname "$program"):$PATH
touch small.yaml notes.txt
mkdir runs

. "$source/tests/tap.sh"

# offers NAME LINE WORDS: completing the line gives those words and no others, in any order, by the function `candidates`
# of the shell at hand.
offers() {
  report "$1" "$(diff <(tr ' ' '\n' <<<"$3" | sort) <(candidates "$2" | sort) | head -n 20)"
}
commands() { "$program" --help | sed -nE 's/^  ([a-z]+)  +.*/\1/p'; }
options() { "$program" "$@" --help | sed -nE 's/^  (--[a-z-]+)(, -[a-z])?( [^ ]+)?(  .*|$)/\1/p' | sort -u; }
all_verbs() { # those of `retort bench` by themselves
  commands | grep -v '^bench$'
  printf 'bench %s\n' step conv gemm frequency compare
}

# What every shell has to offer; $1 names it.
check() {
  offers "$1: commands" "retort " "$(echo $(commands) --help --version)"
  offers "$1: commands that begin so" "retort de" devices
  while read -r verb; do
    offers "$1: options of $verb" "retort $verb --" "$(echo $(options $verb) --help)"
  done < <(all_verbs)
  offers "$1: benchmarks" "retort bench " "step conv gemm frequency compare"
  offers "$1: words that an option takes" "retort export runs --format " "npz safetensors png"
  offers "$1: words behind =" "retort check --family=c" "--family=cpu"
  offers "$1: values of a key" "retort run small.yaml --set outer.optimizer=" "outer.optimizer=sgd outer.optimizer=adam"
  offers "$1: values of a switch" "retort eval --set data.grey=" "data.grey=true data.grey=false"
  offers "$1: folders" "retort run small.yaml --out ru" "$2"
  offers "$1: a descriptor" "retort data sm" "small.yaml"
  offers "$1: a descriptor that may be left out" "retort tune sm" "small.yaml"
  offers "$1: a descriptor behind an option" "retort eval x --with sm" "small.yaml"
  candidates "retort run --set " | sed 's/[=	].*//' | sort -u >keys
  "$program" run --help-keys | sed -nE '/^## Methods/q; s/^- `([^`]+)`.*/\1/p' | sort -u >wanted
  report "$1: keys of a descriptor" "$([ -s wanted ] && diff wanted keys | head)"
}

. "$source/completion/retort.bash"
compopt() { :; } # which may only be called while bash itself completes
# What stands before the last = goes into the line as it is.
candidates() {
  COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$' \t\n'
  _retort retort
  printf '%s\n' "${COMPREPLY[@]}"
}
report "bash: it is the completion of retort" "$(complete -p retort | grep -v -- '-F _retort retort')"
check bash runs
COMP_LINE="retort run --set outer.opt" COMP_POINT=26 COMP_WORDBREAKS=$' \t\n=:'
_retort retort
report "bash: a key" "$([ "${COMPREPLY[*]}" = outer.optimizer= ] || echo "found ${COMPREPLY[*]}")"
COMP_LINE="retort run --set outer.optimizer=a" COMP_POINT=34
_retort retort
report "bash: where = ends a word, what follows it" "$([ "${COMPREPLY[*]}" = adam ] || echo "found ${COMPREPLY[*]}")"

if command -v fish >/dev/null; then
  export HOME=$work XDG_DATA_HOME=$work/none
  candidates() { fish --no-config -c "source $source/completion/retort.fish; complete -C '$1'" | sed 's/	.*//'; }
  check fish runs/
else
  skip "fish is not installed"
fi

if command -v zsh >/dev/null; then
  report "zsh: syntax" "$(zsh -n "$source/completion/_retort" 2>&1)"
  # An interactive zsh on a terminal of its own completes what is unique.
  cat >ask.zsh <<'ZSH'
zmodload zsh/zpty
zpty shell 'TERM=dumb zsh -f -i'
zpty -w shell "fpath=($1 \$fpath); autoload -U compinit; compinit -u -D; PS1='> '; print be''gin"
wait_for() {
  local chunk
  for ((i = 0; i < 300; i++)); do
    while zpty -r -t shell chunk 2>/dev/null; do said+=$chunk; done
    [[ $said != *$1* ]] || return 0
    sleep 0.1
  done
}
wait_for begin
for line word in 'devi' devices 'tune sma' small.yaml 'check run' runs 'bench ge' gemm 'data x --she' --sheet 'eval --with small.ya' small.yaml \
  'run --set outer.opt' outer.optimizer 'run --set outer.optimizer=ad' adam; do
  said=
  zpty -w -n shell "retort $line"$'\t'
  wait_for "$word"
  [[ $said == *$word* ]] || print -r -- "retort $line: no $word, found $said"
  zpty -w -n shell $'\x15'
done
zpty -d shell
ZSH
  report "zsh: completes" "$(zsh -f ask.zsh "$source/completion" 2>&1)"
else
  skip "zsh is not installed"
fi
echo "1..$number"
exit $failed
