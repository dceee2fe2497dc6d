"""Counts the lines and branches of vpnd that this process reaches, where `VPND_COVERED` names a folder.

slipcover puts probes into the bytecode of what is imported after `start`. They cost little where they
run, but an import takes three times as long. So `make test` counts what must be covered whole, in the
processes of pytest. With `VPND_COVERED_DAEMONS` all of vpnd is counted, in the daemons of tests as well.
`save` leaves in the folder what was reached, and `tests.covered` adds up what all processes have left
there.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

FOLDER = "VPND_COVERED"
DAEMONS = "VPND_COVERED_DAEMONS"
ALL = Path(__file__).parents[2] / "vpnd"
WHOLE = tuple(
    ALL / place
    for place in (
        *("wire", "ike", "tunnel"),
        *("datapath/spd.py", "datapath/sad.py", "datapath/replay.py", "datapath/esp.py"),
    )
)
"""What must be covered whole."""
NEVER = 1 << 30
"""Runs of a probe before it is taken out again: in runs as short as ours that costs more than it gains."""

_reached: list[dict[str, set[int | tuple[int, int]]]] = []


def start() -> None:
    """From now on."""
    if FOLDER in os.environ and not _reached:
        # Only here: `make demo` and `make bench` import this, and have no slipcover.
        from slipcover import FileMatcher, ImportManager, Slipcover

        counting = Slipcover(branch=True, d_miss_threshold=NEVER)
        _reached.append(counting.newly_seen)
        sources = [ALL] if DAEMONS in os.environ else WHOLE
        ImportManager(counting, FileMatcher(sources=sources)).__enter__()


def save() -> None:
    for reached in _reached:
        found = {path: list(seen) for path, seen in reached.items()}
        descriptor, _ = tempfile.mkstemp(".json", dir=os.environ[FOLDER])
        with open(descriptor, "w") as file:
            json.dump(found, file)
