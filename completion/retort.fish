# Completion of retort's command line in fish. It asks the program itself, so that it knows what the program knows:
# commands from `retort --help`, options from `retort COMMAND --help`, descriptor keys from `retort run --help-keys`.

# KEY=VALUE of a descriptor: the keys, or the words that a key allows.
function __retort_assignment --argument-names program typed
    set -l reference ($program run --help-keys 2>/dev/null)
    if string match -q '*=*' -- $typed
        set -l key (string split -m 1 = -- $typed)[1]
        set -l words (string match -r -g '^- `'(string escape --style=regex -- $key)'`[^:]*: (?:one of )?([^.]*)\.' -- $reference)
        string match -q -r ', | or ' -- $words[1]
        and printf '%s\n' $key=(string replace -a ' or ' ', ' -- $words[1] | string split ', ')
    else
        for line in $reference
            string match -q '## Methods' -- $line; and break
            string replace -f -r '^- `([^`]+)`[^:]*: (.*)' '$1=\t$2' -- $line
        end
    end
end

# Candidates for what an option or operand takes, by the word that stands for it in the help.
function __retort_value --argument-names program word typed
    switch $word
        case 'KEY=VALUE*' 'key=value*'
            __retort_assignment $program $typed
        case DIR
            __fish_complete_directories $typed
        case DESCRIPTOR
            __fish_complete_suffix $typed .yaml
        case 'FILE.*'
            __fish_complete_suffix $typed (string replace FILE '' -- $word)
        case 'RUN*' 'CASE*' ''
            __fish_complete_path $typed
        case '*'
            string match -q -r '[a-z]' -- $word; and string split '|' -- $word
    end
end

function __retort_candidates
    set -l words (commandline -opc) (commandline -ct)
    set -l program $words[1]
    set -l typed $words[-1]
    if test (count $words) -le 2
        $program --help 2>/dev/null | string replace -f -r '^  ([a-z]+)  +(.*)' '$1\t$2'
        printf '%s\n' --help --version
        return
    end
    set -l help ($program $words[2] --help 2>/dev/null)
    or return
    set -l operand (string match -r -g '^usage: retort [a-z]+ \[?([A-Za-z|.]+)' -- $help[1])
    if string match -q '*|*' -- $operand; and test (count $words) -gt 3
        set help ($program $words[2..3] --help 2>/dev/null)
        or return
        set operand ''
    end
    set -l name $words[-2]
    set -l lead ''
    if string match -q -- '--*=*' $typed
        set name (string split -m 1 = -- $typed)[1]
        set lead $name=
        set typed (string split -m 1 = -- $typed)[2]
    end
    set -l argument (string match -r -g '^  '(string escape --style=regex -- $name)'(?:, -[a-z])? ([^ ]+)(?:  |$)' -- $help)
    if set -q argument[1]
        for candidate in (__retort_value $program (string join '|' $argument) $typed)
            printf '%s\n' $lead$candidate
        end
    else if string match -q -- '-*' $typed
        string replace -f -r '^  (--[a-z-]+)(?:, -[a-z])?(?: [^ ]+)?(?:  +(.*)|$)' '$1\t$2' -- $help
        printf '%s\n' --help
    else
        __retort_value $program "$operand" $typed
    end
end

complete -c retort -f -a '(__retort_candidates)'
