#!/usr/bin/env bash
# Builds the image of vpnd with the Docker engine of this machine:  contrib/image.sh [TAG]   (vpnd)
#
# The base image is pulled, or made by debootstrap where no image can be (as root; its name is vpnd-base then). The
# wheels come from .venv's pip where there is one, so that the build needs no package index; else pip finds them.
set -euo pipefail
cd "$(dirname "$0")/.."

tag=${1:-vpnd}
base=${BASE:-debian:12-slim}
wheels=build/image/wheels

if ! docker image inspect "$base" >/dev/null 2>&1 && ! docker pull -q "$base" >/dev/null 2>&1; then
    base=vpnd-base
    if ! docker image inspect "$base" >/dev/null 2>&1; then
        echo "No image can be pulled: Debian 12 comes by debootstrap"
        bash contrib/tools.sh debootstrap
        root=$(mktemp -d)
        trap 'rm -rf "$root" "$root.log"' EXIT
        debootstrap --variant=minbase bookworm "$root" >"$root.log" 2>&1 || { tail -n 20 "$root.log"; exit 1; }
        rm -rf "$root"/var/cache/apt/archives/*.deb
        tar -C "$root" -c . | docker import - "$base" >/dev/null
    fi
fi

rm -rf "$wheels"
if [ -x .venv/bin/python ]; then
    pip=(.venv/bin/python -m pip)
    "${pip[@]}" wheel -q --no-deps -w "$wheels" .
    "${pip[@]}" download -q -d "$wheels" --python-version 3.11 --implementation cp --only-binary :all: \
        --platform "manylinux_2_34_$(uname -m)" --platform "manylinux_2_28_$(uname -m)" \
        --platform "manylinux2014_$(uname -m)" "$wheels"/vpnd-*.whl
fi

build() {  # build TAG CONTAINERFILE CONTEXT
    local log
    log=$(mktemp)
    if ! docker build -q --network host --build-arg "BASE=$base" -t "$1" -f "$2" "$3" >"$log" 2>&1; then
        cat "$log"
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
    echo "image $1"
}

build "$tag" Containerfile .
[ -z "${PEER_TAG:-}" ] || build "$PEER_TAG" contrib/containers/Containerfile contrib/containers
