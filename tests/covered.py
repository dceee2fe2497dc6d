"""What of vpnd the tests reach, lines and branches, and the floors of it: `make test` and `make coverage`.

`-p tests.covered` has the processes of a run count (tests/lab/counting.py); `python -m tests.covered FOLDER`
adds up what they have left, names what nothing has reached, and fails below a floor.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from slipcover import Slipcover, print_coverage

from tests.lab.counting import ALL, WHOLE, save, start

REST = 90.0
"""Percent of the lines and branches of what must not be covered whole."""

WHAT = ("covered", "missing")
KINDS = [f"{what}_{kind}" for what in WHAT for kind in ("lines", "branches")]

Files = dict[str, dict[str, Any]]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before anything of ours is imported. A process that only shares the tests out counts nothing."""
    if "PYTEST_XDIST_WORKER" in os.environ or not early_config.known_args_namespace.numprocesses:
        start()


def pytest_sessionfinish() -> None:
    save()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.covered", description=__doc__)
    parser.add_argument("folder", type=Path, help="what the processes have left")
    parser.add_argument("--rest", action="store_true", help="what must not be covered whole")
    parser.add_argument("--floor", type=float, help="percent; else all, and 90 of the rest")
    arguments = parser.parse_args()
    sources = [ALL] if arguments.rest else [place if place.is_dir() else place.parent for place in WHOLE]
    files = reached(arguments.folder.glob("*.json"), sources)
    whole = {
        name: file for name, file in files.items() if any(map(Path(name).absolute().is_relative_to, WHOLE))
    }
    name = (
        "the rest of vpnd"
        if arguments.rest
        else "wire, ike, tunnel, and spd, sad, replay and esp of datapath"
    )
    chosen = {name: file for name, file in files.items() if name not in whole} if arguments.rest else whole
    met = report(name, chosen, arguments.floor or (REST if arguments.rest else 100.0))
    sys.exit(not met)


def reached(left: Iterable[Path], sources: Iterable[Path]) -> Files:
    """Each file in these folders: what any of the processes has reached of it, and what none."""
    counting = Slipcover(branch=True, source=[str(source) for source in dict.fromkeys(sources)])
    for path in left:
        for file, seen in json.loads(path.read_text()).items():
            counting.newly_seen[file].update(tuple(one) if isinstance(one, list) else one for one in seen)
    files: Files = counting.get_coverage()["files"]
    return files


def report(name: str, files: Files, floor: float) -> bool:
    """Name what is missing, and say whether the floor is reached."""
    sums = [file["summary"] for file in files.values()]
    total = {kind: sum(one[kind] for one in sums) for kind in KINDS}
    covered, missing = (sum(total[kind] for kind in KINDS if kind.startswith(what)) for what in WHAT)
    percent: float = 100 * covered / (covered + missing)
    if missing:
        summary = total | {"percent_covered": percent}
        coverage = {"files": files, "summary": summary, "meta": {"branch_coverage": True}}
        print_coverage(coverage, skip_covered=True, missing_width=60)
    left = f"{total['missing_lines']} lines and {total['missing_branches']} branches are missing"
    print(f"{name}: {percent:.2f} % covered, {floor:.0f} % wanted; {left}")
    return percent >= floor


if __name__ == "__main__":
    main()
