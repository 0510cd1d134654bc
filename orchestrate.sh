#!/usr/bin/env bash
# The project's workflows. `./orchestrate.sh help` lists them.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")"

commands="setup test bench help"

usage() {
    cat <<'END'
usage: ./orchestrate.sh COMMAND

  setup                   make .venv and .env, install zejzl with its development tools
  test [ARGUMENT ...]     setup, then ruff, mypy, shellcheck and pytest (with these arguments)
  bench                   setup, then every benchmark of bench/
  help                    this
END
}

heading() {
    if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
        printf '\033[1m── %s\033[0m\n' "$*"
    else
        printf '── %s\n' "$*"
    fi
}

failed=""

step() { # $1: its name; the rest: a command. A failure is remembered, and the next step runs.
    local name=$1
    shift
    heading "$name"
    "$@" || failed="$failed${failed:+, }$name"
}

run_tests() {
    local python=.venv/bin/python
    step "ruff check" "$python" -m ruff check .
    step "ruff format" "$python" -m ruff format --check .
    step "mypy" "$python" -m mypy
    step "shellcheck" .venv/bin/shellcheck ./*.sh .ci/run
    # pytest comes last: its closing line must be the last of all, so failures are told before.
    [ -z "$failed" ] || heading "FAILED: $failed"
    step "pytest" "$python" -m pytest "$@"
    [ -z "$failed" ]
}

run_benchmarks() {
    local script
    for script in bench/*.py; do
        [ -e "$script" ] || {
            echo "bench/ holds no benchmark"
            return 0
        }
        step "$script" .venv/bin/python "$script"
    done
    [ -z "$failed" ] || heading "FAILED: $failed"
    [ -z "$failed" ]
}

command=${1:-help}
[ $# -eq 0 ] || shift
case $command in
    setup) ./start.sh --setup dev ;;
    test)
        ./start.sh --setup dev
        run_tests "$@"
        ;;
    bench)
        ./start.sh --setup dev
        run_benchmarks
        ;;
    help | -h | --help) usage ;;
    *)
        echo "orchestrate.sh: unknown command '$command'; known: $commands" >&2
        exit 2
        ;;
esac
