#!/usr/bin/env bash
# Builds the native engine into .venv, or as a wheel in the directory that is named, where there is a Rust toolchain
# that can; else says so in one line. As root, Debian's toolchain is installed where apt offers one that is new enough.
# `ENGINE_REQUIRED=1` makes that line a failure; `ENGINE_PROFILE=ci` compiles quickly, for tests.
set -euo pipefail
cd "$(dirname "$0")"

python=../.venv/bin/python
profile=${ENGINE_PROFILE:-release}
wanted=$(sed -nE 's/^rust-version = "(.*)"/\1/p' Cargo.toml)

is_enough() {
    [ -n "$1" ] && [ "$(printf '%s\n' "$wanted" "$1" | sort -V | head -1)" = "$wanted" ]
}
offered() {
    apt-cache policy cargo-web 2>/dev/null | sed -nE 's/^ *Candidate: ([0-9.]+).*/\1/p'
}

# What is in .venv already, from the same sources and by the same toolchain, is not built again; a release will do for tests.
built=../.venv/.engine
found=$(cargo --version 2>/dev/null | awk '{ print $2 }' || true)
sources=$(cat Cargo.toml Cargo.lock pyproject.toml $(find src -name '*.rs' | sort) | sha256sum | cut -d' ' -f1)
there=$(cat "$built" 2>/dev/null || true)
if [ $# -eq 0 ] && "$python" -c 'import vpnd_engine' 2>/dev/null; then
    case $there in
    "$sources $found $profile" | "$sources $found release")
        echo "native engine: built with cargo $found"
        exit
        ;;
    esac
fi

if ! is_enough "$found" && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    is_enough "$(offered)" || apt-get -q update >/dev/null 2>&1 || true
    if is_enough "$(offered)"; then
        DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install \
            cargo-web rustc-web gcc libc6-dev >/dev/null 2>&1 || true
        hash -r
        found=$(cargo --version 2>/dev/null | awk '{ print $2 }' || true)
    fi
fi

missing=
if [ -z "$found" ]; then
    missing="there is no cargo"
elif ! is_enough "$found"; then
    missing="cargo is $found"
elif ! command -v cc >/dev/null; then
    missing="there is no C compiler, which aws-lc needs"
fi
if [ -n "$missing" ]; then
    echo "native engine: not built, $missing (it needs cargo $wanted or newer, and cc)"
    exit "${ENGINE_REQUIRED:-0}"
fi

"$python" -c 'import maturin' 2>/dev/null || "$python" -m pip install -q 'maturin>=1.9,<2'
log=$(mktemp)
trap 'rm -f "$log"' EXIT
build=(develop)
[ $# -eq 0 ] || build=(build --out "$1" --interpreter "$python")
if ! VIRTUAL_ENV=$(cd ../.venv && pwd) "$python" -m maturin "${build[@]}" --profile "$profile" --locked >"$log" 2>&1; then
    cat "$log"
    exit 1
fi
[ $# -ne 0 ] || echo "$sources $found $profile" >"$built"
echo "native engine: built with cargo $found"
