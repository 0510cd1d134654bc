#!/usr/bin/env bash
# Makes zejzl ready in this folder, then starts it. `./start.sh --help` tells more.
# Runs on bash 3.2 too, which is what macOS has.
set -euo pipefail
unset CDPATH
trap 'exit 130' INT # without this, a tool that ends politely on Ctrl-C lets the script go on

usage() {
    cat <<'END'
usage: ./start.sh [COMMAND [ARGUMENT ...]]    make ready, then run `zejzl COMMAND ...`
       ./start.sh --check                     only report what is there; change nothing
       ./start.sh --setup [EXTRA]             only make ready; EXTRA is one of pyproject.toml's
       ./start.sh --help

Making ready means: a virtual environment in .venv, zejzl and its dependencies in it, and a .env
made from .env.example. What is there already is kept. Without a command, `zejzl chat` starts on a
terminal and `zejzl demo` elsewhere. The command runs in the project's folder, where .env is; its
exit code is this script's.
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

was_mark="" was_extra="" was_root=""
if [ -f "$stamp" ]; then
    { read -r was_mark && read -r was_extra && read -r was_root; } <"$stamp" || was_mark=""
fi
extras="" in_extras="" # the names in pyproject.toml's table of them
while IFS= read -r line; do
    case $line in
        "[project.optional-dependencies]") in_extras=1 ;;
        "["*) in_extras="" ;;
        [a-z]*"="*) [ -z "$in_extras" ] || extras="$extras ${line%%[ =]*}" ;;
    esac
done <pyproject.toml

is_extra() { # $1: a name
    case "$extras " in *" $1 "*) return 0 ;; esac
    return 1
}

is_extra "$was_extra" || was_extra=""
mark=$(cat pyproject.toml constraints.txt | cksum)

venv_works() {
    # A folder that was moved or copied still runs, but installs itself where it was.
    if [ -n "$was_root" ] && [ "$was_root" != "$root" ]; then return 1; fi
    .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || return 1
    # Without a stamp the venv may be half made.
    [ -n "$was_mark" ] || .venv/bin/python -m pip --version >/dev/null 2>&1
}

is_installed() { # $1: an extra, or nothing
    [ "$was_mark" = "$mark" ] && [ -x .venv/bin/zejzl ] && { [ -z "$1" ] || [ "$1" = "$was_extra" ]; }
}

make_ready() { # $1: an extra, or nothing
    local extra=$1
    if ! venv_works; then
        find_python || die "$python_is"
        say "making .venv with $python ($python_is) …"
        rm -rf .venv
        was_mark="" was_extra=""
        "$python" -m venv .venv >&2 || die "$python -m venv .venv failed; see above"
    fi
    if ! is_installed "$extra"; then
        extra=${extra:-$was_extra} # what was there is brought up to date with the rest
        say "installing zejzl${extra:+ with [$extra]} into .venv; this needs the network, once …"
        rm -f "$stamp"
        .venv/bin/python -m pip install -qq --disable-pip-version-check \
            -c constraints.txt -e ".${extra:+[$extra]}" >&2 ||
            die "the installation failed (see above); nothing is lost, start again to repeat it"
        printf '%s\n' "$mark" "$extra" "$root" >"$stamp.new"
        mv "$stamp.new" "$stamp"
    fi
    if [ ! -e .env ] && [ ! -L .env ]; then
        (umask 077 && cat .env.example >.venv/env.new)
        mv .venv/env.new .env # whole or not at all
        say "made .env from .env.example: put your keys there"
    fi
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

report() {
    local ready=0 looks_with=.venv/bin/python
    find_python || ready=1
    say "Python: $python_is"
    if venv_works; then
        say ".venv: works"
        if is_installed ""; then
            say "zejzl: installed${was_extra:+ with [$was_extra]}"
        else
            say "zejzl: to be installed"
        fi
    else
        looks_with=$python
        if [ -e .venv ]; then say ".venv: does not work here, to be made anew"; else say ".venv: to be made"; fi
        say "zejzl: to be installed"
    fi
    if [ -e .env ]; then say ".env: there, kept"; else say ".env: to be made from .env.example"; fi
    if [ -n "$looks_with" ]; then redis_report "$looks_with"; fi
    return "$ready"
}

# ── go ───────────────────────────────────────────────────────────────────────────────────────

case ${1:-} in
    -h | --help) usage ;;
    --check) report ;;
    --setup)
        if [ -n "${2:-}" ] && ! is_extra "$2"; then
            say "start.sh: no extra named '$2'; known:$extras"
            exit 2
        fi
        make_ready "${2:-}"
        ;;
    "")
        make_ready ""
        redis_report .venv/bin/python
        if [ -t 0 ] && [ -t 1 ]; then exec .venv/bin/zejzl chat; fi
        exec .venv/bin/zejzl demo
        ;;
    *)
        make_ready ""
        exec .venv/bin/zejzl "$@"
        ;;
esac
