"""Tables at the end of a run: a test tells a row, the terminal summary prints every row together.

The rows travel in the reports of pytest, so that they also arrive from a test that failed and from another
process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

_PREFIX = "table: "

Row = dict[str, str]
TellRow = Callable[..., None]


@pytest.fixture
def row(request: pytest.FixtureRequest) -> TellRow:
    """`row(title, heading=cell, ...)` adds a line to the table of that title; figures may be numbers."""

    def tell(title: str, **cells: object) -> None:
        told = {heading: str(cell) for heading, cell in cells.items()}
        request.node.user_properties.append((_PREFIX + title, told))

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tables: dict[str, list[Row]] = {}
    for title, told in _rows(terminalreporter):
        tables.setdefault(title, []).append(told)
    for title, rows in tables.items():
        terminalreporter.section(f"{title}: {len(rows)} rows")
        for line in lines(rows):
            terminalreporter.write_line(line)


def _rows(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, Row]]:
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            if getattr(report, "when", None) != "call":
                continue
            for name, told in report.user_properties:
                if name.startswith(_PREFIX):
                    yield name.removeprefix(_PREFIX), {"result": outcome, **told}


def lines(rows: list[Row]) -> list[str]:
    """The table as text: sorted by its cells, the verdict last, columns in the order they were first told."""
    headings = [*dict.fromkeys(heading for one in rows for heading in one if heading != "result"), "result"]
    cells = [[one.get(heading, "") for heading in headings] for one in rows]
    table = [headings, *sorted(cells, key=_natural)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]


def _natural(cells: list[str]) -> list[tuple[str, int, str]]:
    """F2 before F10."""
    return [
        (cell.rstrip("0123456789"), int(cell[len(cell.rstrip("0123456789")) :] or 0), cell) for cell in cells
    ]
