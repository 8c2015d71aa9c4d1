#!/bin/bash
# Installs those of the named Debian packages that are missing, without starting any service.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

if ! command -v dpkg-query >/dev/null; then
    echo "This is no Debian: install the equivalents of these packages by hand: $*" >&2
    echo "and run the make target's command without its deps- step." >&2
    exit 1
fi

missing=()
for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

here=$(dirname "$0")
"$here/need-root.sh" "these packages must be installed: ${missing[*]}"

# The packages of containerd and Docker start their daemons when they are installed; the tests and
# the demo use private ones, so nothing of the kind shall run because of us. A policy that is there
# already is the administrator's, and stays.
policy=/usr/sbin/policy-rc.d
ours=
cleanup() {
    if [ -n "$ours" ]; then rm -f "$policy"; fi
}
trap cleanup EXIT
if [ ! -e "$policy" ]; then
    ours=yes
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
fi

echo "== Installing ${missing[*]}"
if ! apt-get update -qq; then
    echo "apt-get update failed: is a Debian mirror reachable, and /etc/apt/sources.list right?" >&2
    exit 1
fi
if ! apt-get install -y --no-install-recommends "${missing[@]}"; then
    echo "apt-get could not install: ${missing[*]}" >&2
    echo "See its message above; then run the same command again." >&2
    exit 1
fi
