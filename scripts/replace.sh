#!/bin/bash
# Installs program $1 at $2 with one rename, so that a containerd that starts a shim at this very
# moment finds the old or the new one, never half a file and never "text file busy".
set -euo pipefail
mkdir -p "$(dirname "$2")"
install -m 0755 "$1" "$2.new.$$"
mv -f "$2.new.$$" "$2"
echo "installed $2"
