#!/usr/bin/env bash
# Makes this checkout ready to run: Debian packages that are missing, those that are named among them, then the
# virtual environment.
# Every step checks first, so that a second run changes nothing and takes a moment.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(
    strongswan-charon strongswan-swanctl libcharon-extra-plugins
    libstrongswan-standard-plugins libstrongswan-extra-plugins
    iproute2 iputils-ping procps nftables ethtool iperf3 tcpdump ike-scan
    libunbound8 libnss3
    "$@"
)
stamp=.venv/.ready
policy=/usr/sbin/policy-rc.d
log=$(mktemp)
made_policy=
trap 'rm -f "$log"; [ -z "$made_policy" ] || rm -f "$policy"' EXIT

# Runs a command quietly, with a dot every two seconds; its output is shown if it fails.
step() {
    local title=$1 began=$SECONDS
    shift
    printf '%s ' "$title"
    "$@" >"$log" 2>&1 </dev/null &
    local job=$!
    while kill -0 "$job" 2>/dev/null; do
        sleep 0.1
        [ $(((SECONDS - began) % 2)) -ne 0 ] || { [ "${dotted:-}" = "$SECONDS" ] || printf .; dotted=$SECONDS; }
    done
    if wait "$job"; then
        printf ' %ss\n' $((SECONDS - began))
    else
        printf ' failed\n\n'
        cat "$log"
        printf '\nThis command failed: %s\n' "$*" >&2
        exit 1
    fi
}

missing_packages() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# The first Python of this machine that is new enough.
find_python() {
    local candidate
    for candidate in python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "vpnd needs Python 3.11 or newer; this machine has: $(python3 --version 2>&1 || echo none)" >&2
    return 1
}

# What an extra of pyproject.toml needs, into .venv. uv takes a fifth of pip's time; where it does not find a package, pip
# does it. uv does not read what pip is configured with, so that it gets that here. Nothing is compiled before it is used.
install_python_packages() {
    local pip=(.venv/bin/python -m pip install -q --no-compile) index
    index=${PIP_INDEX_URL:-$(.venv/bin/python -m pip config get global.index-url 2>/dev/null || true)}
    [ -z "$index" ] || export UV_DEFAULT_INDEX=$index
    [ -z "${PIP_EXTRA_INDEX_URL:-}" ] || export UV_INDEX=$PIP_EXTRA_INDEX_URL
    [ -z "${PIP_FIND_LINKS:-}" ] || export UV_FIND_LINKS=${PIP_FIND_LINKS// /,}
    [ -z "${PIP_NO_INDEX:-}" ] || export UV_NO_INDEX=1
    { "${pip[@]}" 'uv>=0.9,<1' && .venv/bin/python -m uv pip install -q --python .venv/bin/python -e ".[$1]"; } ||
        "${pip[@]}" -e ".[$1]"
}

# libreswan's programs that check a configuration. The package itself would take strongSwan's /usr/sbin/ipsec.
fetch_libreswan() {
    local work package
    work=$(mktemp -d)
    # The package lists may be old, or not there.
    if (cd "$work" && { apt-get -q download libreswan ||
        { [ "$(id -u)" -eq 0 ] && apt-get -q update && apt-get -q download libreswan; }; }); then
        for package in "$work"/*.deb; do dpkg -x "$package" .venv/libreswan; done
    else
        echo "libreswan cannot be fetched: what peer-config writes for it is not checked" >&2
    fi
    rm -rf "$work"
}

python=$(find_python)
"$python" -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)

if command -v dpkg-query >/dev/null; then
    mapfile -t missing < <(missing_packages "${packages[@]}")
    if [ ${#missing[@]} -gt 0 ]; then
        if [ "$(id -u)" -ne 0 ]; then
            echo "These Debian packages are missing: ${missing[*]}. Run this with sudo." >&2
            exit 1
        fi
        export DEBIAN_FRONTEND=noninteractive
        # The packages must not start a daemon on this machine: the tests run their own in namespaces.
        if [ ! -e "$policy" ]; then
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod 755 "$policy"
            made_policy=yes
        fi
        step "Reading the package lists" apt-get -q update
        step "Installing ${#missing[@]} Debian packages" \
            apt-get -q -y --no-install-recommends install "${missing[@]}"
        if [ -n "$made_policy" ]; then
            rm -f "$policy"
            made_policy=
        fi
    fi
else
    echo "Not a Debian system: please install what provides ${packages[*]}." >&2
fi

if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
    [ -x .venv/bin/python ] || step "Creating .venv with $("$python" --version)" "$python" -m venv .venv
    step "Installing vpnd and its test tools into .venv" install_python_packages test
    touch "$stamp"
fi

if command -v apt-get >/dev/null && [ ! -x .venv/libreswan/usr/libexec/ipsec/addconn ]; then
    step "Fetching libreswan, to check what is written for it" fetch_libreswan
fi
