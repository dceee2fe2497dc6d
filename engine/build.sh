#!/usr/bin/env bash
# Builds the native engine into .venv, or as a wheel in the directory that is named, where there is a Rust toolchain
# that can; else says so in one line.
# `ENGINE_REQUIRED=1` makes that line a failure.
set -euo pipefail
cd "$(dirname "$0")"

python=../.venv/bin/python
wanted=$(sed -nE 's/^rust-version = "(.*)"/\1/p' Cargo.toml)
found=$(cargo --version 2>/dev/null | awk '{ print $2 }' || true)

missing=
if [ -z "$found" ]; then
    missing="there is no cargo"
elif [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -1)" != "$wanted" ]; then
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
if ! VIRTUAL_ENV=$(cd ../.venv && pwd) "$python" -m maturin "${build[@]}" --release --locked >"$log" 2>&1; then
    cat "$log"
    exit 1
fi
echo "native engine: built with cargo $found"
