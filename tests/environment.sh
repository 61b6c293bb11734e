# Sourced by tests/run and tests/campaign, from the root of the tree: makes .venv when it is missing or out of date, and puts it
# first on the PATH. Needs Python 3.11 or later, redis-server for the store, haproxy, nginx and socat for the proxies' recipes,
# Node 18 or later for the programs of tests/systems and the S3 of tests/blobs, and a compiler and libsoup for docs/examples.

. signald/demo/environment.sh

# make_node_modules FOLDER: what its lock file names, installed again only when the lock file has changed; else npm is not asked.
make_node_modules() {
    local stamp
    stamp="$(node --version) $(cksum <"$1/package-lock.json")"
    [ "$(cat "$1/node_modules/stamp" 2>/dev/null || true)" = "$stamp" ] && return
    printf '== making %s/node_modules with npm\n' "$1" >&2
    (cd "$1" && npm ci --silent) || die "npm could not install what $1/package-lock.json names"
    printf '%s' "$stamp" >"$1/node_modules/stamp"
}

# The caller's own settings must not decide what the tests see, nor how long they take: without bytecode that is kept, each of some
# hundred processes compiles signald again, which is a third of its start, and each worker of pytest all tests.
unset PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE "${!SIGNALD_@}"

# Debian keeps servers where only root's PATH leads.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
missing=()
for program in redis-server haproxy nginx socat; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt_install "${missing[@]}" || die "needs ${missing[*]}: apt-get install ${missing[*]}, or brew install redis haproxy nginx socat"
fi

# Debian's npm is a package of its own.
missing=()
for program in node npm; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
    apt_install nodejs npm || die "needs ${missing[*]}: apt-get install nodejs npm, or brew install node"
fi
node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' || die "needs Node 18 or later, which has fetch; $(command -v node) is $(node --version)"

# The app in C of docs/examples. libsoup 3 would draw in a hundred packages on Debian 12.
if ! { command -v cc && command -v make && pkg-config --exists glib-2.0 json-glib-1.0 libsoup-2.4; } >/dev/null 2>&1; then
    apt_install gcc libc6-dev make pkg-config libglib2.0-dev libjson-glib-dev libsoup2.4-dev ||
        die "needs cc, make, pkg-config, libsoup 2.4 and json-glib: apt-get install gcc make pkg-config libsoup2.4-dev libjson-glib-dev"
fi

make_environment "[dev]"
make_node_modules tests/systems
make_node_modules tests/blobs/s3rver
make_node_modules signald/sdk/js
make_node_modules tests/js/tools
PATH="$PWD/.venv/bin:$PATH"
