# Sourced by tests/run and tests/campaign, from the root of the tree: makes .venv when it is missing or out of date, and puts it
# first on the PATH. Needs Python 3.11 or later, redis-server for the store, and haproxy, nginx and socat for the proxies' recipes.

. signald/demo/environment.sh

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

make_environment "[dev]"
PATH="$PWD/.venv/bin:$PATH"
