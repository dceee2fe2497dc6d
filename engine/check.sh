#!/usr/bin/env bash
# All that is known of the native engine: rustfmt, clippy, its own tests, then both engines on the same packets.
set -euo pipefail
cd "$(dirname "$0")"

ENGINE_REQUIRED=1 bash build.sh
cargo fmt --check
# With --release, what the C compiler made for the build is used again.
cargo clippy --release --locked --quiet --all-targets --all-features -- -D warnings
cargo test --release --locked --quiet
if cargo deny --version >/dev/null 2>&1; then
    cargo deny --log-level error check bans licenses sources
    # Their database is not a crate of the registry, which may be all that can be reached.
    if cargo deny --log-level off fetch db 2>/dev/null; then
        cargo deny --log-level error check --disable-fetch advisories
    else
        echo "the database of advisories cannot be fetched: they were not compared"
    fi
else
    echo "cargo deny is not installed: licences, sources and advisories were not compared with deny.toml"
fi
cd ..
.venv/bin/python -m pytest tests/native tests/datapath tests/unit/datapath "$@"
