#!/usr/bin/env bash
# Runs a command with a Docker engine:  contrib/engine.sh COMMAND...
#
# That is the engine that runs on this machine. Where none does, root gets one of its own for the length of the command,
# of Debian's package docker.io: in a directory of its own, without a filter, NAT, bridge or forwarding on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

! docker info >/dev/null 2>&1 || exec "$@"
[ "$(id -u)" = 0 ] || { echo "no Docker engine runs here, and only root can start one" >&2; exit 3; }
bash tests/lab/setup.sh docker.io

place=$(mktemp -d /tmp/vpnd-engine-XXXXXX)
engine=

# What an engine could leave behind on this machine.
around() {
    ip -o link show | cut -d: -f2 | grep -E 'docker|br-|veth' || true
    nft list ruleset
    sysctl -a 2>/dev/null | grep -E 'forward|bridge-nf|rp_filter' | grep -vE '\.(docker|br-|veth)' || true
    grep " $place/" /proc/mounts || true
}

finish() {
    local code=$?
    trap - EXIT
    if [ -n "$engine" ]; then
        kill "$engine" 2>/dev/null || true
        wait "$engine" || true
        # It leaves this machine's own network namespace mounted there, after a container or a build that is in it.
        umount -q "$place"/run/netns/* || true
    fi
    if [ "$(around)" != "$before" ]; then
        echo "the engine has left something behind:" >&2
        diff <(echo "$before") <(around) >&2 || true
        code=1
    fi
    [ "$code" = 0 ] || tail -n 5 "$place/log" >&2
    grep -q " $place/" /proc/mounts || rm -rf "$place"
    exit "$code"
}
before=$(around)
trap finish EXIT
trap 'exit 130' INT TERM

# Debian's client is as old as its engine; another one may not speak with it.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH DOCKER_HOST=unix://$place/docker.sock
dockerd --host "$DOCKER_HOST" --data-root "$place/data" --exec-root "$place/run" --pidfile "$place/pid" \
    --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --bridge=none >"$place/log" 2>&1 &
engine=$!
for _ in $(seq 300); do
    ! docker info >/dev/null 2>&1 || break
    kill -0 "$engine" 2>/dev/null || { echo "the engine has not started" >&2; exit 1; }
    sleep 0.2
done
"$@"
