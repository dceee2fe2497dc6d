#!/usr/bin/env bash
# vpnd and strongSwan in containers on one network of a Docker engine, a scenario after the other:
#
#     contrib/containers.sh [SCENARIO...]      main-mode aggressive-mode ikev2 spd-policy failover (all without a name)
#     contrib/containers.sh prepare SCENARIO   only its files, in build/containers/SCENARIO, for compose.yaml
#
# Each scenario: the tunnel comes up, a ping, 64 MB there and 64 MB back, compared by SHA-256. The logs of all are in
# build/containers/SCENARIO, and shown where something fails. In any case the containers, the networks, the keys and
# the images made here are removed; KEEP_IMAGES=1 keeps the images for the next time.
set -euo pipefail
cd "$(dirname "$0")/.."

all=(main-mode aggressive-mode ikev2 spd-policy failover)
size=$((64 * 1024 * 1024))
run=vpnd-scenario-$$
place=$PWD/build/containers
user=8500
patience=${PATIENCE:-240}   # seconds, for a busy machine
vpnd_image=vpnd-scenario peer_image=vpnd-scenario-peer
here=10.177.1.1 there=10.177.2.1

# The networks are for these containers alone: that this machine forwards nothing is as it should be.
docker() { command docker "$@" 2> >(grep -v 'IPv4 forwarding is disabled' >&2); }

# ------------------------------------------------------------------------------------------ files

# The files of both ends, and a new key that only they can read.
prepare() {
    local scenario=$1 files=$place/$1 key
    [ -d "contrib/containers/$scenario" ] || { echo "no scenario $scenario; there are: ${all[*]}" >&2; exit 2; }
    rm -rf "$files"
    install -d -m 0755 "$files" "$files/vpnd" "$files/peer"
    key=$(head -c 32 /dev/urandom | base64 -w 0)
    (
        umask 077
        printf '%s\n' "$key" >"$files/vpnd/psk"
        printf 'secrets {\n  ike {\n    secret = "%s"\n  }\n}\n' "$key" >"$files/peer/secret.conf"
    )
    cp "contrib/containers/$scenario/vpnd.toml" "$files/vpnd/"
    cp "contrib/containers/$scenario/swanctl.conf" "$files/peer/"
    if [ -e "contrib/containers/$scenario/other-swanctl.conf" ]; then
        cp -rp "$files/peer" "$files/other-peer"
        cp "contrib/containers/$scenario/other-swanctl.conf" "$files/other-peer/swanctl.conf"
    fi
    chown "$user" "$files/vpnd/psk"
}

# ------------------------------------------------------------------------------------- containers

up() {
    local files=$place/$1
    # Neither network leads out, and this machine has no address in them.
    for network in "wire 172.31.77" "inside 10.177.1"; do
        docker network create --internal -o com.docker.network.bridge.inhibit_ipv4=true \
            --subnet "${network#* }.0/24" --gateway "${network#* }.254" "$run-${network% *}" >/dev/null
    done
    peer peer 172.31.77.2 "$files/peer" "$there/32 10.177.3.1/32 169.254.128.2/32"
    [ ! -d "$files/other-peer" ] ||
        peer other-peer 172.31.77.3 "$files/other-peer" "$there/32 169.254.128.4/32"
    docker create --name "$run-vpnd" --network "$run-wire" --ip 172.31.77.1 --device /dev/net/tun --read-only \
        --cap-drop ALL --cap-add NET_ADMIN --cap-add NET_RAW --tmpfs "/run/vpnd:uid=$user,gid=$user,mode=0755" \
        -v "$files/vpnd:/etc/vpnd:ro" "$vpnd_image" >/dev/null
    docker network connect --ip "$here" "$run-inside" "$run-vpnd"
    docker start "$run-vpnd" >/dev/null
}

peer() {  # peer NAME ADDRESS FILES INSIDE
    docker run -d --name "$run-$1" --network "$run-wire" --ip "$2" --device /dev/net/tun --cap-drop ALL \
        --cap-add NET_ADMIN --cap-add NET_RAW --cap-add NET_BIND_SERVICE -e "INSIDE=$4" \
        -v "$3/swanctl.conf:/etc/swanctl/swanctl.conf:ro" -v "$3/secret.conf:/etc/swanctl/secret.conf:ro" \
        "$peer_image" >/dev/null
}

# Containers, networks and keys; the logs stay.
down() {
    local name
    for name in vpnd peer other-peer; do
        docker inspect "$run-$name" >/dev/null 2>&1 || continue
        [ ! -d "$place/$1" ] || docker logs "$run-$name" >"$place/$1/$name.log" 2>&1 || true
        docker rm -f -v "$run-$name" >/dev/null
    done
    for name in wire inside; do
        docker network rm "$run-$name" >/dev/null 2>&1 || true
    done
    rm -f "$place/received" "$place/$1/vpnd/psk" "$place/$1"/*/secret.conf
}

at() {  # at END COMMAND...: in the network of vpnd, or at a peer
    local end=$1
    shift
    if [ "$end" = vpnd ]; then
        docker run --rm -i --network "container:$run-vpnd" --cap-drop ALL --cap-add NET_RAW --entrypoint "" "$peer_image" "$@"
    else
        docker exec -i "$run-$end" "$@"
    fi
}

vpnctl() { docker exec "$run-vpnd" vpnctl "$@"; }

# ---------------------------------------------------------------------------------------- traffic

until_so() {  # until_so WHAT COMMAND...
    local what=$1 end=$((SECONDS + patience))
    shift
    while [ "$SECONDS" -lt "$end" ]; do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.5
    done
    echo "  not within $patience s: $what" >&2
    return 1
}

carries() {  # carries TUNNEL: it is up, and traffic is led to it
    vpnctl --json show "$1" | grep -q '"carries_traffic": true'
}

is_up() { vpnctl --json show "$1" | grep -q '"state": "up"'; }

has_mappings() {  # has_mappings TUNNEL COUNT: so many have SAs
    [ "$(vpnctl --json show "$1" | grep -c '"spi_in": "')" = "$2" ]
}

ping_there() {  # ping_there ADDRESS
    local said
    said=$(at vpnd ping -n -c 3 -i 0.2 -W 5 -I "$here" "$1") || { echo "$said"; return 1; }
    echo "  ping $here -> $1: $(grep received <<<"$said")"
}

# 64 MB by TCP, of which both ends take the SHA-256.
transfer() {  # transfer FROM SOURCE TO DESTINATION
    local from=$1 source=$2 to=$3 destination=$4 received sent began=$SECONDS
    received=$place/received
    at "$to" timeout 300 bash -c "nc -l -w 120 $destination 5001 | sha256sum" >"$received" &
    local receiver=$!
    # The one who listens may be a moment late; a connection that is refused has sent nothing.
    sent=$(at "$from" timeout 300 bash -c "head -c $size /dev/urandom >/tmp/sent; sha256sum </tmp/sent
        for try in \$(seq 100); do nc -N -w 120 -s $source $destination 5001 </tmp/sent && exit; sleep 0.3; done; exit 1")
    wait "$receiver"
    if [ "$sent" != "$(cat "$received")" ]; then
        echo "  $from -> $to: what arrived is not what was sent" >&2
        return 1
    fi
    echo "  64 MB $from -> $to: the same at both ends, $((SECONDS - began)) s with the making of it"
}

both_ways() {  # both_ways PEER ADDRESS
    ping_there "$2"
    transfer vpnd "$here" "$1" "$2"
    transfer "$1" "$2" vpnd "$here"
}

scenario() {
    prepare "$1"
    up "$1"
    case $1 in
    failover)
        until_so "primary carries the traffic" carries primary
        until_so "secondary is up" is_up secondary
        both_ways peer "$there"
        docker kill "$run-peer" >/dev/null
        echo "  the primary's peer is killed"
        until_so "secondary carries the traffic" carries secondary
        both_ways other-peer "$there"
        ;;
    spd-policy)
        until_so "both mappings are up" has_mappings "$1" 2
        both_ways peer "$there"
        both_ways peer 10.177.3.1
        ;;
    *)
        until_so "$1 carries the traffic" carries "$1"
        both_ways peer "$there"
        ;;
    esac
    vpnctl status | sed 's/^/  /'
}

# ------------------------------------------------------------------------------------------- runs

if [ "${1:-}" = prepare ]; then
    prepare "${2:?a scenario}"
    exit
fi
docker info >/dev/null 2>&1 || { echo "this needs a Docker engine that runs, and the right to use it" >&2; exit 3; }
[ -c /dev/net/tun ] || { echo "this needs /dev/net/tun" >&2; exit 3; }
[ "$(id -u)" = 0 ] || { echo "this needs root, to give the key to the user in the image" >&2; exit 3; }

current=none
finish() {
    local code=$?
    trap - EXIT
    down "$current"
    if [ -z "${KEEP_IMAGES:-}" ]; then
        docker rmi -f "$vpnd_image" "$peer_image" vpnd-base >/dev/null 2>&1 || true
        docker image prune -f --filter label=vpnd.image >/dev/null 2>&1 || true
    fi
    [ "$code" = 0 ] || [ ! -d "$place/$current" ] || tail -n 25 "$place/$current"/*.log
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

PEER_TAG=$peer_image bash contrib/image.sh "$vpnd_image"
[ $# -gt 0 ] || set -- "${all[@]}"
for current in "$@"; do
    echo "$current"
    scenario "$current"
    down "$current"
    echo "  logs: build/containers/$current"
done
echo "$# scenarios: pings and transfers both ways, all right; nothing is left behind"
