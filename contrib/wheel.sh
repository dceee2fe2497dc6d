#!/usr/bin/env bash
# Builds the wheels in dist/, or in the directory that is named: vpnd, and vpnd-engine where there is a Rust toolchain
# that can; else it says so in one line. `ENGINE_REQUIRED=1` makes that line a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

place=$(realpath -m "${1:-dist}")
python=$PWD/.venv/bin/python
mkdir -p "$place"
rm -f "$place"/vpnd-*.whl "$place"/vpnd_engine-*.whl
"$python" -m pip wheel -q --no-deps --wheel-dir "$place" .
bash engine/build.sh "$place"
(cd "$place" && ls -1 vpnd-*.whl vpnd_engine-*.whl 2>/dev/null | sed "s|^|$place/|") || true
