# shellcheck shell=sh
# What the tests share; each sources it. The service runs for real, so they need a booted systemd.
set -eu
unset NETCLAW_HOME
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck disable=SC2034
work=${AUTOPKGTEST_TMP:-$(mktemp -d)}
# shellcheck disable=SC2034 # by those who source this
config=/etc/netclaw/netclaw.toml
address=127.0.0.1:5199

say() { printf '== %s\n' "$*"; }

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    systemctl status --no-pager --full --lines=20 netclawd.service >&2 || true
    exit 1
}

# equal WHAT EXPECTED FOUND
equal() {
    [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
    printf '%s: %s\n' "$1" "$3"
}

property() { systemctl show --property="$1" --value netclawd.service; }

# listen ADDRESS…: a configuration that names those.
listen() {
    names=
    for name in "$@"; do
        names="$names${names:+, }\"$name\""
    done
    printf '[daemon]\nlisten = [%s]\n' "$names"
}

healthy() {
    python3 -c 'import sys, urllib.request as r
r.urlopen(f"http://{sys.argv[1]}/api/health/live", timeout=5).read()' "$1" 2>/dev/null
}

# settled: whether everything is over that a change or an installation began.
settled() {
    tries=0
    until netclaw status --probe settled >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "the daemon is not settled after a minute"
        sleep 0.2
    done
}

# Requests all the time, in the background, until end_load.
begin_load() {
    python3 "$here/load" "$address" "$work/load" &
    load=$!
    tries=0
    until [ -s "$work/load" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 100 ] || fail "the load did not begin"
        sleep 0.1
    done
}

# It prints what was answered and what was lost, and fails if anything was.
end_load() {
    kill -TERM "$load"
    wait "$load" || fail "requests were lost"
}
