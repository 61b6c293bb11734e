# Sourced by signald/demo/run and tests/environment.sh, from the root of the tree: finds Python and makes .venv.

die() { printf '%s: %s\n' "$0" "$*" >&2; exit 69; }

apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    printf '== installing %s\n' "$*" >&2
    apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.14 python3.13 python3.12 python3.11 python3; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "needs Python 3.11 or later; set PYTHON=/path/to/python3 if it is not on the PATH"
}

# make_environment EXTRAS: .venv with signald and its EXTRAS ("[server]" or "[dev]"), built again only when what goes into it has
# changed. An environment with more than was asked for is kept: the demo runs in that of the tests.
make_environment() {
    local python stamp made
    python=$(find_python)
    stamp="$python $("$python" --version) $PWD $(cksum <pyproject.toml)"
    made=$(cat .venv/stamp 2>/dev/null || true)
    [ "$made" = "$stamp [dev]" ] && return
    [ "$made" = "$stamp $1" ] && return
    printf '== making .venv with %s\n' "$python" >&2
    "$python" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv ||
        die "needs the venv module of Python: apt-get install python3-venv"
    "$python" -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".$1"
    printf '%s' "$stamp $1" >.venv/stamp
}
