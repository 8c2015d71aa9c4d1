#!/bin/bash
# Puts a criu that works on this kernel at $1/bin/criu, for the checkpoint tests, unless there is
# one. Debian 12's own is too old for newer kernels, so it comes with its libraries from a later
# Debian, into a folder of its own. Without one the tests say that they are skipped, so a
# failure here is told and not fatal.
set -euo pipefail
tools=${1:?usage: criu.sh FOLDER}
release=forky

works() { command -v "$1" >/dev/null && "$1" check >/dev/null 2>&1; }

if works criu || works "$tools/bin/criu"; then
    exit 0
fi
give_up() {
    echo "no criu: $1; the checkpoint tests will be skipped" >&2
    exit 0
}

root=$tools/$release
mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 2>/dev/null |
    awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }')
[ -n "$mirror" ] || give_up "apt knows no Debian mirror"
echo "== Fetching criu from Debian $release (a minute, once)"
rm -rf "$root"
mkdir -p "$tools/bin" "$root"
if ! debootstrap --variant=minbase --include=criu "$release" "$root" "$mirror" \
    /usr/share/debootstrap/scripts/sid >"$tools/criu.log" 2>&1; then
    give_up "debootstrap failed (see $tools/criu.log)"
fi
cat >"$tools/bin/criu" <<WRAPPER
#!/bin/sh
# criu of Debian $release, with the loader and the libraries it was built for.
libraries=\$(echo $root/usr/lib/*-linux-gnu)
exec "\$(echo \$libraries/ld-linux-*.so.*)" --library-path "\$libraries" $root/usr/sbin/criu "\$@"
WRAPPER
chmod 0755 "$tools/bin/criu"
works "$tools/bin/criu" || give_up "criu of Debian $release does not work on this kernel either"
