#!/bin/bash
# Ends with an error when docs/threat-model.md names a test that does not exist: a promise whose test
# was renamed or removed is no longer held.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=0
while read -r name; do
    if ! grep -rqE --include='*.rs' "fn $name\(" -- */src */tests; then
        echo "docs/threat-model.md names $name, and there is no such test" >&2
        missing=1
    fi
done < <(grep '^|' docs/threat-model.md | awk -F'|' '{ print $4 }' | grep -oE '`[a-z0-9_]+`' | tr -d '`' | sort -u)
exit "$missing"
