#!/bin/bash
# Ends with an error unless run by root. $1: why root is needed.
set -euo pipefail
if [ "$(id -u)" -ne 0 ]; then
    echo "This needs root: $1. Run it with sudo." >&2
    exit 1
fi
