"""A plugin of pytest: run the tests of a list in its order, and new ones; or write down what each takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chosen", type=Path, help="a file with one test a line: no others run, in this order")
    parser.addoption("--known", type=Path, help="a file with the tests that are not new")
    parser.addoption("--seconds", type=Path, help="where to write the seconds of each test that passes")


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    yield
    if config.option.chosen is not None:
        order = {name: index for index, name in enumerate(config.option.chosen.read_text().splitlines())}
        known = set(config.option.known.read_text().splitlines())
        items[:] = [item for item in items if item.nodeid in order or item.nodeid not in known]
        items.sort(key=lambda item: order.get(item.nodeid, -1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.option.seconds is not None:
        passed = terminalreporter.stats.get("passed", ())
        config.option.seconds.write_text(
            json.dumps({report.nodeid: report.duration for report in passed if report.when == "call"})
        )
