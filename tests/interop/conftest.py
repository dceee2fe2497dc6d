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
ROWS_SPECIFICATION = pytest.StashKey[list[tuple[str, ...]]]()
HEADINGS_SPECIFICATION = ("mode", "encryption", "integrity", "dh", "pfs", "role", "up ms", "ping ms")


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
    rows_specification: list[tuple[str, ...]] = []
    config.stash[ROWS] = rows
    config.stash[ROWS_SPECIFICATION] = rows_specification


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, key, headings in (
        ("IKEv2", ROWS, HEADINGS),
        ("the algorithms of the specification", ROWS_SPECIFICATION, HEADINGS_SPECIFICATION),
    ):
        rows = sorted(config.stash[key])
        if rows:
            ours = config.getoption("--gateway")
            terminalreporter.section(f"{ours} and strongSwan, {name}, {len(rows)} combinations")
            _write_table(terminalreporter, headings, rows)


def _write_table(
    terminalreporter: pytest.TerminalReporter, headings: tuple[str, ...], rows: list[tuple[str, ...]]
) -> None:
    """Columns of words to the left, those of figures, which come after the role, to the right."""
    words = headings.index("role") + 1
    table = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            cell.ljust(width) if index < words else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        terminalreporter.write_line("  ".join(cells).rstrip())
