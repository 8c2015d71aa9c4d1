#!/bin/bash
# Runs containers under the shims in folder $1 by the wherryd and the wherry in folder $2, with no
# containerd installed, and shows what happened: output, exit status, and what daemon and shim cost.
set -euo pipefail

usage="usage: demo.sh FOLDER-OF-PROGRAMS"
shims=$(cd "${1:?$usage}" && pwd)
programs=$shims
here=$(dirname "$0")
"$here/need-root.sh" "it runs real containers"
source "$here/demo-common.sh"

wherry() { "$programs/wherry" --address "$address" --namespace "$namespace" "$@"; }
remove_all() {
    local -a ids=()
    mapfile -t ids < <(wherry ps -aq)
    [ "${#ids[@]}" -eq 0 ] || wherry rm -f "${ids[@]}"
}
clean_with remove_all

# A folder of its own is all it is told; where a wherryd cannot be told that in one word, in three.
address=$base/wherryd.sock
log=$base/wherryd.log
flags=(--base "$base")
if ! "$programs/wherryd" --help | grep -q -- --base; then
    : >"$base/config.toml"
    flags=(--config "$base/config.toml" --root "$base/root" --state "$base/state" --address "$address")
fi
say "wherryd, the core daemon, on its own defaults: wherryd ${flags[*]}"
# A session of its own: Ctrl-C is for us, and we end the daemon when the containers are gone.
PATH="$shims:$PATH" setsid "$programs/wherryd" "${flags[@]}" >>"$log" 2>&1 &
daemon=$!
wait_for 30 wherry version || fail "wherryd did not come up"
wherry version

make_rootfs
say "An image of busybox, made by this script, and taken in: wherry import busybox.tar"
make_image "$base/busybox.tar" docker.io/library/busybox:demo
wherry import "$base/busybox.tar"
wherry images
say "Run by its name: wherry run --rm busybox:demo"
wherry run --rm busybox:demo
runtime=io.containerd.runc.v2
say "wherry run --rm --runtime $runtime --entrypoint '' busybox:demo sh -c 'echo ...; exit 7'"
status=0
wherry run --rm --runtime "$runtime" --entrypoint '' busybox:demo \
    sh -c 'echo "hello from busybox in a container, as pid $$ on $(uname -s)"; exit 7' || status=$?
echo "exit status: $status (the container said: exit 7)"
[ "$status" -eq 7 ] || fail "the exit status should be 7"

say "Ten containers in the background, and one more command in one of them"
count=10
# Pages of a binary that are not on disk yet would count as the process's own dirty memory.
sync "$shims/containerd-shim-runc-v2" "$programs/wherryd"
for i in $(seq "$count"); do
    wherry run -d --name "idle-$i" busybox:demo 'exec sleep 1000' >/dev/null || fail "idle-$i did not start"
done
wherry ps
wherry exec idle-1 echo "hello from an exec in idle-1"
mapfile -t pids < <(shim_pids)
[ "${#pids[@]}" -eq "$count" ] || fail "${#pids[@]} shims for $count containers"
exe=$(readlink "/proc/${pids[0]}/exe")
echo "their shim: $exe"
[ "$exe" = "$shims/containerd-shim-runc-v2" ] || fail "another shim was started: $exe"

table_head "memory"
table_row "wherryd" "$daemon"
table_row "one idle shim (median)" "${pids[@]}"

say "Cleaning up"
wherry kill idle-1
wherry rm -f idle-{1..10}
left=$(wherry ps -aq)
[ -z "$left" ] || fail "containers are left: $left"
wait_for 10 no_shims || fail "shims are left: $(shim_pids)"
echo "containers and shims left: none"
wherry rmi busybox:demo
left=$(wherry images -q)
[ -z "$left" ] || fail "images are left: $left"
