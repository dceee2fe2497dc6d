"""A failure in a simulated world prints its seed, what each side holds, and the network's log."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from .histories import History
from .world import World


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and World.latest is not None:
        report.sections.append(("The last simulated world", World.latest.history()))
    return report


@pytest.fixture(autouse=True)
def _forget_the_last_world() -> None:
    World.latest = None


@pytest.fixture(autouse=True)
def _record_the_ladders(request: pytest.FixtureRequest) -> Iterator[None]:
    """With `--record FILE` each test adds a line: its name, how many messages, and their digest."""
    path: Path | None = request.config.getoption("--record")
    if path is None:
        yield
        return
    World.record = History(
        path.with_suffix(".ladders") if request.config.getoption("--record-whole") else None
    )
    yield
    World.record.write(path, request.node.nodeid)
    World.record = None
