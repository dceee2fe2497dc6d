#!/usr/bin/env bash
# Prints the Python with vpnd that makes what is generated: that of the tests where there is one, else one of its own,
# so that a gateway need not have what only tests need.
set -euo pipefail
cd "$(dirname "$0")/.."

place=.venv
if [ ! -e .venv/.ready ]; then
    place=build/venv
    if [ ! -e $place/.ready ] || [ pyproject.toml -nt $place/.ready ]; then
        bash contrib/tools.sh python3-venv >&2
        /usr/bin/python3 -m venv $place
        $place/bin/python -m pip install -q -e . >&2
        touch $place/.ready
    fi
fi
echo "$PWD/$place/bin/python"
