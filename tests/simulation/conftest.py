"""A failure in a simulated world prints its seed, what each side holds, and the network's log."""

from __future__ import annotations

from collections.abc import Generator

import pytest

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
