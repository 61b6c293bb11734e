# Sourced by tests/run and tests/campaign, from the root of the tree: makes .venv when it is missing or out of date, and puts it
# first on the PATH. Needs Python 3.11 or later, redis-server for the store, and haproxy, nginx and socat for the proxies' recipes.

die() { printf '%s: %s\n' "$0" "$*" >&2; exit 69; }

apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    printf '== installing %s\n' "$*"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
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

# The caller's own settings must not decide what the tests see.
unset PYTHONPATH PYTHONHOME "${!SIGNALD_@}"

# Debian keeps servers where only root's PATH leads.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
missing=()
for program in redis-server haproxy nginx socat; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt_install "${missing[@]}" || die "needs ${missing[*]}: apt-get install ${missing[*]}, or brew install redis haproxy nginx socat"
fi

python=$(find_python)
# Built again only when what goes into it has changed.
stamp="$python $("$python" --version) $PWD $(cksum <pyproject.toml)"
if [ "$(cat .venv/stamp 2>/dev/null || true)" != "$stamp" ]; then
    printf '== making .venv with %s\n' "$python"
    "$python" -c 'import ensurepip' 2>/dev/null || apt_install python3-venv ||
        die "needs the venv module of Python: apt-get install python3-venv"
    "$python" -m venv --clear .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
    printf '%s' "$stamp" >.venv/stamp
fi
PATH="$PWD/.venv/bin:$PATH"
