#!/usr/bin/env bash
# The networks behind this peer are addresses of its own: $INSIDE names them.
set -euo pipefail
for address in ${INSIDE:-}; do
    ip address add "$address" dev lo
done
exec /usr/lib/ipsec/charon
