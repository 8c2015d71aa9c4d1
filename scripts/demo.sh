#!/bin/bash
# Runs containers under the shim in folder $1 on a private stock containerd, and shows what
# happened: output, exit status, and what an idle shim costs beside Debian's Go shim.
set -euo pipefail

shims=${1:?usage: demo.sh FOLDER-OF-SHIMS}
shims=$(cd "$shims" && pwd)
go_shim=/usr/bin/containerd-shim-runc-v2
"$(dirname "$0")/need-root.sh" "it runs real containers"

base=$(mktemp -d /tmp/wherry-demo.XXXXXX)
namespace=${base##*.}
namespace=demo-${namespace,,}
daemon=

say() { printf '\n== %s\n' "$*"; }

fail() {
    echo "demo failed: $*" >&2
    if [ -s "$base/containerd.log" ]; then
        echo "--- the end of containerd's log" >&2
        tail -n 20 "$base/containerd.log" >&2
    fi
    exit 1
}

ctr() { command ctr --address "$base/c.sock" --namespace "$namespace" "$@"; }

# Polls a condition for at most $1 seconds.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || return 1
        read -rt 0.1 <> <(:) || true
    done
}

# The pid of the shim of container $1: known by our daemon's address in its arguments.
shim_pid() {
    local pid
    for pid in $(pgrep -f -- "-address $base/c.sock" || true); do
        if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q -- "-id $1 "; then
            echo "$pid"
            return
        fi
    done
    return 1
}

stopped() { ctr task ls | awk -v id="$1" '$1 == id { print $3 }' | grep -qx STOPPED; }

remove() {
    ctr task kill --signal SIGKILL "$1" >/dev/null 2>&1 || true
    wait_for 10 stopped "$1" || true
    ctr task delete --force "$1" >/dev/null 2>&1 || true
    ctr container delete "$1" >/dev/null 2>&1 || true
}

cleanup() {
    trap - EXIT
    if [ -n "$daemon" ]; then
        for id in $(ctr container ls -q 2>/dev/null || true); do remove "$id"; done
        local pid
        for pid in $(pgrep -f -- "-address $base/c.sock" || true); do
            [ "$pid" = "$$" ] || kill -KILL "$pid" 2>/dev/null || true
        done
        kill -TERM "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    awk -v base="$base/" 'index($5, base) == 1 { print $5 }' /proc/self/mountinfo | tac |
        while read -r point; do umount -l "$point" 2>/dev/null || true; done
    rm -rf "/run/containerd/runc/$namespace" "$base"
    find /sys/fs/cgroup -mindepth 1 -depth -type d -path "*/$namespace*" -exec rmdir {} + 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say "A private containerd: $(containerd --version)"
cat >"$base/config.toml" <<TOML
version = 2
root = "$base/root"
state = "$base/state"

[grpc]
  address = "$base/c.sock"
[ttrpc]
  address = "$base/c.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "$base/opt"

[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "wherry"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.wherry]
  runtime_type = "io.containerd.runc.v2"
TOML
runtime=$(sed -n 's/^ *runtime_type = "\(.*\)"/\1/p' "$base/config.toml")
echo "its config.toml says: runtime_type = \"$runtime\""
echo "first in its PATH:    $shims"
PATH="$shims:$PATH" containerd --config "$base/config.toml" >"$base/containerd.log" 2>&1 &
daemon=$!
wait_for 30 ctr --connect-timeout 2s version || fail "containerd did not come up"

# A root file system with no registry: a static busybox and links to it.
mkdir -p "$base/rootfs"/{bin,dev,etc,proc,sys,tmp}
cp "$(command -v busybox)" "$base/rootfs/bin/busybox"
for applet in sh echo sleep uname cat; do ln -s busybox "$base/rootfs/bin/$applet"; done

say "ctr run --rm --runtime $runtime ... sh -c 'echo ...; exit 7'"
status=0
ctr run --rm --runtime "$runtime" --rootfs "$base/rootfs" hello \
    /bin/sh -c 'echo "hello from busybox in a container, as pid $$ on $(uname -s)"; exit 7' ||
    status=$?
echo "exit status: $status (the container said: exit 7)"
[ "$status" -eq 7 ] || fail "the exit status should be 7"

say "Ten idle containers under each shim"
count=10
run_many() { # $1: prefix, $2: runtime
    local i
    for i in $(seq "$count"); do
        ctr run -d --null-io --runtime "$2" --rootfs "$base/rootfs" "$1-$i" /bin/sleep 1000 ||
            fail "a container under $2 did not start"
    done
}
# Pages of a binary that are not on disk yet would count as the shim's own dirty memory.
sync "$shims/containerd-shim-runc-v2"
run_many ours "$runtime"
exe=$(readlink "/proc/$(shim_pid ours-1)/exe")
echo "ours: $exe"
[ "$exe" = "$shims/containerd-shim-runc-v2" ] || fail "another shim was started: $exe"
if [ -x "$go_shim" ]; then
    echo "Go's: $go_shim"
    run_many go "$go_shim"
fi

# Medians over the shims of one prefix: resident and private dirty kB, threads.
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
row() { # $1: name, $2: prefix
    local i pid
    local -a pids=()
    for i in $(seq "$count"); do
        pid=$(shim_pid "$2-$i") || fail "no shim of $2-$i"
        pids+=("$pid")
    done
    field() { for pid in "${pids[@]}"; do awk -v k="$1:" '$1 == k { print $2 }' "/proc/$pid/$2"; done | median; }
    printf '  %-22s %12s %17s %9s\n' "$1" "$(field Rss smaps_rollup) kB" \
        "$(field Private_Dirty smaps_rollup) kB" "$(field Threads status)"
}
printf '\n  %-22s %12s %17s %9s\n' "one idle shim (median)" "resident" "private dirty" "threads"
row "Wherry" ours
if [ -x "$go_shim" ]; then row "Go ($(containerd --version | awk '{ print $3 }'))" go; fi

say "Cleaning up"
for id in $(ctr container ls -q); do remove "$id"; done
left=$(pgrep -f -c -- "-address $base/c.sock" || true)
echo "shims left: $left"
[ "$left" -eq 0 ] || fail "shims are left"
