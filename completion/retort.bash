# Completion of retort's command line in bash. It asks the program itself, so that it knows what the program knows:
# commands from `retort --help`, options from `retort COMMAND --help`, descriptor keys from `retort run --help-keys`.

# _retort_choose WORDS: the candidates are those of the words that go on as what was typed.
_retort_choose() {
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current")
}

# _retort_files PATTERN: the candidates are files whose names fit it, and folders; without a pattern folders alone.
_retort_files() {
    mapfile -t COMPREPLY < <(
        compgen -d -- "$current"
        [[ -z ${1-} ]] || compgen -f -X "!$1" -- "$current"
    )
    compopt -o filenames
}

# KEY=VALUE of a descriptor: the keys, then the words that a key allows.
_retort_assignment() {
    local keys key=${current%%=*}
    keys=$("$program" run --help-keys 2>/dev/null)
    if [[ $current != *=* ]]; then
        _retort_choose "$(sed -nE '/^## Methods/q; s/^- `([^`]+)`.*/\1=/p' <<<"$keys")"
        compopt -o nospace
    else
        current=${current#*=}
        _retort_choose "$(sed -nE 's/^- `'"$key"'`[^:]*: (one of ([^.]*)|(true or false))\..*/\2\3/p' <<<"$keys" |
            sed 's/,/ /g; s/ or / /')"
        COMPREPLY=("${COMPREPLY[@]/#/$key=}")
    fi
}

# What an option takes, by the word that stands for it in the help.
_retort_value() {
    case $1 in
    KEY=VALUE* | key=value*) _retort_assignment ;;
    DIR) _retort_files ;;
    DESCRIPTOR) _retort_files '*.yaml' ;;
    FILE.*) _retort_files "*.${1#FILE.}" ;;
    *[[:lower:]]*) _retort_choose "${1//|/ }" ;;
    esac
}

_retort() {
    local program=${1/#\~/$HOME} line=${COMP_LINE:0:COMP_POINT} words word current help options operand argument command
    COMPREPLY=()
    read -ra words <<<"$line"
    [[ $line != *[[:space:]] ]] || words+=("")
    word=${words[-1]} current=$word
    if ((${#words[@]} <= 2)); then
        _retort_choose "$("$program" --help 2>/dev/null | sed -nE 's/^  ([a-z]+)  +.*/\1/p') --help --version"
        return
    fi
    command=("${words[1]}")
    help=$("$program" "${command[@]}" --help 2>/dev/null) || return
    operand=$(sed -nE '1s/^usage: retort [a-z]+ \[?([A-Za-z|.]+).*/\1/p' <<<"$help")
    if [[ $operand == *'|'* ]] && ((${#words[@]} > 3)); then
        command+=("${words[2]}")
        help=$("$program" "${command[@]}" --help 2>/dev/null) || return
        operand=
    fi
    # Lines of "--NAME", or "--NAME ARGUMENT".
    options=$(sed -nE 's/^  (--[a-z-]+)(, -[a-z])?( [^ ]+)?(  .*|$)/\1\3/p' <<<"$help")
    if [[ $word == --*=* ]]; then
        current=${word#*=}
        argument=$(sed -n "s/^${word%%=*} //p" <<<"$options" | paste -sd '|')
        _retort_value "$argument"
        COMPREPLY=("${COMPREPLY[@]/#/${word%%=*}=}")
    else
        argument=$(sed -n "s/^${words[-2]} //p" <<<"$options" | paste -sd '|')
        if [[ -n $argument ]]; then
            _retort_value "$argument"
        elif [[ $word == -* ]]; then
            _retort_choose "$(cut -d ' ' -f 1 <<<"$options" | sort -u) --help"
        else
            _retort_value "$operand"
        fi
    fi
    # Where = ends a word for bash, what stands before it stays as it is.
    [[ $COMP_WORDBREAKS != *=* ]] || COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}")
}

complete -o default -F _retort retort
