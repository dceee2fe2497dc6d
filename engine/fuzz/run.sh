#!/usr/bin/env bash
# cargo fuzz on each target, or those that are named, under the address sanitizer: `run.sh SECONDS [TARGET...]`.
# What is missing is said in one line; `ENGINE_REQUIRED=1` makes that line a failure. Inputs that reach something new
# are kept in corpus/, what fails in artifacts/.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(decapsulate split join parse)

missing=
cargo fuzz --version >/dev/null 2>&1 || missing="there is no cargo fuzz (cargo install cargo-fuzz --locked)"
command -v c++ >/dev/null || missing="there is no C++ compiler, which libFuzzer needs"
if [ -n "$missing" ]; then
    echo "native engine: not fuzzed, $missing"
    exit "${ENGINE_REQUIRED:-0}"
fi
# The sanitizer's switch is one of nightly compilers; this lets any other take it.
export RUSTC_BOOTSTRAP=1
cargo fuzz build
for target in "${targets[@]}"; do
    log=$(mktemp)
    if ! cargo fuzz run "$target" -- -max_total_time="$seconds" -len_control=0 -max_len=16384 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log"
        exit 1
    fi
    covered=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
    executed=$(sed -nE 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: $executed inputs in $seconds s, ${covered:-cov: ?} edges, nothing found"
    rm -f "$log"
done
