"""What every test may rely on: markers that skip with a reason, printed seeds, an end that cleans up."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.lab.lab import Lab, interruptible
from tests.requirements import missing_for_root, missing_for_strongswan, require

pytest_plugins = ["tests.tables", "tests.engines"]

# Seconds for each test (pytest-timeout): several times what the longest takes on a busy machine. One that
# hangs fails, with what its gateways say.
os.environ.setdefault("PYTEST_TIMEOUT", "900")

# A failure prints the blob that repeats it; shared build machines are too uneven for whatever counts seconds.
settings.register_profile(
    "vpnd", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# With --record: the same examples at every run, and none from an earlier failure.
settings.register_profile("recorded", settings.get_profile("vpnd"), derandomize=True, database=None)
settings.load_profile("vpnd")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full-grid",
        action="store_true",
        help="every combination of the interop grid instead of every pair of values",
    )
    parser.addoption(
        "--full-faults",
        action="store_true",
        help="faults with every seed and in their real time, instead of those that take seconds",
    )
    parser.addoption(
        "--machine",
        choices=("container", "qemu"),
        default="container",
        help="where the service is installed: systemd-nspawn on this kernel, or a machine with its own",
    )
    parser.addoption(
        "--gateway",
        choices=("vpnd", "strongswan"),
        default="vpnd",
        help="what the grid puts opposite strongSwan; strongswan proves the rig itself",
    )
    parser.addoption(
        "--engine",
        choices=("python", "native", "auto"),
        default="python",
        help="which engine each vpnd of the laboratory has; `make nightly` also runs some on the native one",
    )
    parser.addoption(
        "--programs",
        action="store_true",
        help="each vpnd is started as the program, none is forked (tests/lab/forked.py)",
    )
    parser.addoption(
        "--record",
        type=Path,
        metavar="FILE",
        help="add a digest of the messages of each simulated test to FILE (tests/simulation/histories.py)",
    )
    parser.addoption(
        "--record-whole",
        action="store_true",
        help="with --record: the messages too, a file a test in FILE.ladders",
    )


def pytest_configure(config: pytest.Config) -> None:
    interruptible()
    Lab.forks = not config.getoption("--programs")
    Lab.engine = config.getoption("--engine")
    if Lab.engine == "native":
        # Here: a plugin that is imported before pytest does it would not have its assertions rewritten.
        from tests.engines import missing_for_native

        if missing := missing_for_native():
            raise pytest.UsageError(missing)
    if config.getoption("--record") is not None:
        settings.load_profile("recorded")


LONG = ("tests/interop/", "tests/faults/", "tests/datapath/")
"""Tests of these take seconds each; those of the others compute, and nearly all of them shortly."""
LONGEST = (
    "tests/interop/test_failover.py",
    "tests/faults/test_box.py",
    "tests/interop/test_failures.py",
    "tests/faults/test_network.py",
    "tests/interop/test_spd.py",
    "tests/faults/test_clocks.py",
)
"""The files that take longest: with them at the end one process would be busy, and the others idle."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that share gateways stay in one process (pytest-xdist, --dist loadgroup), as do short files."""
    if not item.nodeid.startswith(LONG) or shares(item):
        item.add_marker(pytest.mark.xdist_group(file_of(item)))


def file_of(item: pytest.Item) -> str:
    """Its file. `location` says so too, and takes seconds to find the lines of all tests in each process."""
    return item.nodeid.partition("::")[0]


def shares(item: pytest.Item) -> bool:
    """Whether a test has a fixture of ours that outlives it."""
    fixtures = item.config.pluginmanager.get_plugin("funcmanage")
    assert fixtures is not None
    names = item.fixturenames if isinstance(item, pytest.Function) else ()
    defined = filter(None, (fixtures.getfixturedefs(name, item) for name in names))
    return any(found[-1].scope != "function" and found[-1].baseid for found in defined)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    leave_out(config, items)

    # Where several processes share the tests, no long one is left for the end, with the others idle.
    # What needs root waits most of the time; the rest computes meanwhile, and at the end.
    def place(item: pytest.Item) -> tuple[bool, bool, bool, int]:
        file = file_of(item)
        waits = item.get_closest_marker("root") is not None
        alone = item.get_closest_marker("xdist_group") is None
        order = LONGEST.index(file) if file in LONGEST else len(LONGEST)
        return not file.startswith(LONG), not waits, alone, order

    items.sort(key=place)


def leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop what only `make faults` has."""
    if config.getoption("--full-faults"):
        return
    left_out = [item for item in items if item.get_closest_marker("full_faults")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("full_faults")]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, missing in (("root", missing_for_root), ("strongswan", missing_for_strongswan)):
        if item.get_closest_marker(marker) is not None:
            require(missing())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure of a test with gateways shows what each of them says, and the end of its log."""
    report = yield
    fallen, Lab.last_words = Lab.last_words, []
    if report.failed:
        report.sections += fallen or [found for lab in Lab.living for found in lab.findings()]
    return report


LONG_ALONE = 60.0
"""Seconds from which a test is named at the end of `make test`: `make faults` may be the place for it."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what took long. It fails nothing: a busy machine is no fault of a test."""
    if config.getoption("--full-faults") or config.getoption("--full-grid"):
        return
    reports = [one for outcome in ("passed", "failed") for one in terminalreporter.getreports(outcome)]
    long = [one for one in reports if one.when == "call" and one.duration > LONG_ALONE]
    if long:
        terminalreporter.section(
            f"{len(long)} tests took more than {LONG_ALONE:.0f} s and are in `make test`"
        )
    for one in sorted(long, key=lambda report: -report.duration):
        terminalreporter.write_line(f"{one.duration:5.0f} s  {one.nodeid}")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A laboratory of this test alone."""
    with Lab() as lab:
        yield lab
