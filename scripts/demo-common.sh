# What the two demos share; read with `source`. Sets `base`, a folder of the demo's own, and
# `namespace`, a name nobody else uses; the demo sets `address`, its daemon's socket, `log`, and
# `daemon`, its pid. Whatever happens, nothing is left behind.

base=$(mktemp -d /tmp/wherry-demo.XXXXXX)
namespace=${base##*.}
namespace=demo-${namespace,,}
daemon=
address=
log=

say() { printf '\n== %s\n' "$*"; }

fail() {
    echo "demo failed: $*" >&2
    if [ -s "$log" ]; then
        echo "--- the end of the daemon's log" >&2
        tail -n 20 "$log" >&2
    fi
    exit 1
}

# Polls a condition for at most $1 seconds.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$until" ] || return 1
        read -rt 0.1 <> <(:) || true
    done
}

# The pids of the demo's shims (of container $1, if it is named): they have our daemon's address
# among their arguments.
shim_pids() {
    local cmdline arguments pid
    for cmdline in /proc/[0-9]*/cmdline; do
        arguments=$({ tr '\0' ' ' <"$cmdline"; } 2>/dev/null) || continue
        case $arguments in
        *" -address $address "*)
            pid=${cmdline#/proc/}
            case $arguments in *"-id ${1:-}"*) echo "${pid%/cmdline}" ;; esac
            ;;
        esac
    done
}

no_shims() { [ -z "$(shim_pids)" ]; }

# A root file system with no registry: a static busybox and links to it.
make_rootfs() {
    mkdir -p "$base/rootfs"/{bin,dev,etc,proc,sys,tmp,run}
    cp "$(command -v busybox)" "$base/rootfs/bin/busybox"
    local applet
    for applet in sh echo sleep uname cat; do ln -s busybox "$base/rootfs/bin/$applet"; done
}

# An image made of the root file system, with tar and sha256sum alone: an OCI layout in the file $1,
# for the image named $2. The script is what a registry or a build would otherwise give.
make_image() {
    local file=$1 name=$2 layout=$base/layout machine
    case $(uname -m) in
    x86_64) machine=amd64 ;;
    aarch64) machine=arm64 ;;
    *) machine=$(uname -m) ;;
    esac
    mkdir -p "$layout/blobs/sha256"
    # Puts the file $1 where its digest says, and answers its descriptor of media type $2.
    blob() {
        local sum size
        sum=$(sha256sum <"$1")
        sum=${sum%% *}
        size=$(stat -c %s "$1")
        mv "$1" "$layout/blobs/sha256/$sum"
        printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%s' "$2" "$sum" "$size"
    }
    local layer config manifest diff part=$base/part
    tar -C "$base/rootfs" --owner 0 --group 0 -cf "$part" .
    diff=$(sha256sum <"$part")
    layer=$(blob "$part" layer.v1.tar)}
    printf '{"os":"linux","architecture":"%s","config":{"Entrypoint":["/bin/sh","-c"],"Cmd":["%s"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$machine" 'echo hello from the image' "${diff%% *}" >"$part"
    config=$(blob "$part" config.v1+json)}
    printf '{"schemaVersion":2,"config":%s,"layers":[%s]}' "$config" "$layer" >"$part"
    manifest=$(blob "$part" manifest.v1+json)
    printf '{"schemaVersion":2,"manifests":[%s,"annotations":{"io.containerd.image.name":"%s"}}]}' \
        "$manifest" "$name" >"$layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"
    tar -C "$layout" -cf "$file" oci-layout index.json blobs
}

# The middle one of the numbers on stdin.
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# A line of the table: name $1, and medians over the pids that follow of resident and private
# dirty memory and of threads.
table_head() { printf '\n  %-24s %12s %17s %9s\n' "$1" "resident" "private dirty" "threads"; }
table_row() {
    local name=$1
    shift
    field() {
        local key=$1 file=$2 pid
        shift 2
        for pid in "$@"; do awk -v k="$key:" '$1 == k { print $2 }' "/proc/$pid/$file"; done | median
    }
    printf '  %-24s %12s %17s %9s\n' "$name" "$(field Rss smaps_rollup "$@") kB" \
        "$(field Private_Dirty smaps_rollup "$@") kB" "$(field Threads status "$@")"
}

# $1: a function that removes the containers while the daemon lives.
cleanup() {
    trap - EXIT
    trap '' INT TERM HUP
    [ -z "$daemon" ] || "$1" >/dev/null 2>&1 || true
    local pid id
    for pid in $(shim_pids); do kill -KILL "$pid" 2>/dev/null || true; done
    # What a daemon that broke down has left running.
    for id in $(runc --root "/run/containerd/runc/$namespace" list -q 2>/dev/null || true); do
        runc --root "/run/containerd/runc/$namespace" delete --force "$id" >/dev/null 2>&1 || true
    done
    if [ -n "$daemon" ]; then
        kill -TERM "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    awk -v base="$base/" 'index($5, base) == 1 { print $5 }' /proc/self/mountinfo | tac |
        while read -r point; do umount -l "$point" 2>/dev/null || true; done
    rm -rf "/run/containerd/runc/$namespace" "$base"
    find /sys/fs/cgroup -mindepth 1 -depth -type d -path "*/$namespace*" -exec rmdir {} + 2>/dev/null || true
}
# Whoever reads this file removes at least the folder; `clean_with` names what removes the rest.
clean_with() { trap "cleanup $1" EXIT; }
clean_with true
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
