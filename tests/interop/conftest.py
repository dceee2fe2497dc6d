"""The gateways that a module of tests shares, and the table of the grid at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import A, B, Gateway
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, start, two_gateways

ROWS = pytest.StashKey[list[tuple[str, ...]]]()
HEADINGS = (
    "encryption",
    "integrity",
    "dh",
    "identity",
    "role",
    "up ms",
    "ping ms",
    "out Mbit/s",
    "in Mbit/s",
)


@dataclass
class Opposite:
    """The gateway under test at a, strongSwan at b."""

    wire: Wire
    ours: Gateway
    peer: StrongSwan


@pytest.fixture(scope="module")
def opposite(request: pytest.FixtureRequest) -> Iterator[Opposite]:
    """Both daemons, running, without a tunnel."""
    with Lab() as lab:
        wire = two_gateways(lab)
        ours = start(request.config.getoption("--gateway"), wire.a.gateway, A.address)
        peer = start("strongswan", wire.b.gateway, B.address)
        assert isinstance(peer, StrongSwan)
        yield Opposite(wire, ours, peer)


def pytest_configure(config: pytest.Config) -> None:
    rows: list[tuple[str, ...]] = []
    config.stash[ROWS] = rows


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = sorted(config.stash[ROWS])
    if not rows:
        return
    terminalreporter.section(f"{config.getoption('--gateway')} and strongSwan, {len(rows)} combinations")
    table = [HEADINGS, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            cell.ljust(width) if index < 5 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        terminalreporter.write_line("  ".join(cells).rstrip())
