#!/bin/bash
# Runs containers under the shim in folder $1 on a private stock containerd, and shows what
# happened: output, exit status, and what an idle shim costs beside Debian's Go shim.
set -euo pipefail

shims=${1:?usage: demo.sh FOLDER-OF-SHIMS}
shims=$(cd "$shims" && pwd)
go_shim=/usr/bin/containerd-shim-runc-v2
"$(dirname "$0")/need-root.sh" "it runs real containers"

source "$(dirname "$0")/demo-common.sh"
address=$base/c.sock
log=$base/containerd.log

ctr() { command ctr --address "$address" --namespace "$namespace" "$@"; }

stopped() { ctr task ls | awk -v id="$1" '$1 == id { print $3 }' | grep -qx STOPPED; }

remove() {
    ctr task kill --signal SIGKILL "$1" >/dev/null 2>&1 || true
    wait_for 10 stopped "$1" || true
    ctr task delete --force "$1" >/dev/null 2>&1 || true
    ctr container delete "$1" >/dev/null 2>&1 || true
}

remove_all() { for id in $(ctr container ls -q); do remove "$id"; done; }
clean_with remove_all

say "A private containerd: $(containerd --version)"
cat >"$base/config.toml" <<TOML
version = 2
root = "$base/root"
state = "$base/state"

[grpc]
  address = "$address"
[ttrpc]
  address = "$address.ttrpc"
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
# A session of its own: Ctrl-C is for us, and we end the daemon when the containers are gone.
PATH="$shims:$PATH" setsid containerd --config "$base/config.toml" >"$log" 2>&1 &
daemon=$!
wait_for 30 ctr --connect-timeout 2s version || fail "containerd did not come up"

make_rootfs
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
exe=$(readlink "/proc/$(shim_pids ours-1 | head -n 1)/exe")
echo "ours: $exe"
[ "$exe" = "$shims/containerd-shim-runc-v2" ] || fail "another shim was started: $exe"
if [ -x "$go_shim" ]; then
    echo "Go's: $go_shim"
    run_many go "$go_shim"
fi

mapfile -t ours < <(shim_pids ours-)
mapfile -t gos < <(shim_pids go-)
[ "${#ours[@]}" -eq "$count" ] || fail "${#ours[@]} shims for $count containers"
table_head "one idle shim (median)"
table_row "Wherry" "${ours[@]}"
if [ -x "$go_shim" ]; then table_row "Go ($(containerd --version | awk '{ print $3 }'))" "${gos[@]}"; fi

say "Cleaning up"
remove_all
wait_for 10 no_shims || fail "shims are left: $(shim_pids)"
echo "shims left: none"
