"""The trials of one package, in a process that has collected its fast tests: a mutant is a fork of it.

The tests first run without a mutant: what fails then is left out. A mutant meets the tests that reach its
line, those of its module's own file first. What fails must fail again, and pass without the mutant.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.mutants.nursery import exchange, in_child
from tests.mutants.reach import QUIET, SLOW, function_at, functions, own_tests
from tests.mutants.sample import PACKAGES, Mutant

TESTS = {
    "near": {package: (f"unit/{package}",) for package in PACKAGES} | {"ike": ("unit/ike", "simulation/v1")},
    "fast": {
        "wire": ("unit/ike", "properties", "simulation"),
        "crypto": ("unit/ike", "properties", "simulation"),
        "ike": ("simulation", "properties"),
        "tunnel": ("simulation", "unit/daemon"),
        "datapath": ("properties", "unit/daemon"),
        "config": ("unit/control", "unit/daemon"),
        "control": ("unit/daemon",),
        "daemon": ("unit/control",),
    },
}
"""Directories of tests by stage and package: those about it, and for what is left those that use it."""
FIRST = 3600.0
"""Seconds for all tests of a package without a mutant, with coverage."""
SLACK, LEAST = 6.0, 30.0
"""Times longer than without the mutant, and seconds in any case: the machine may be busy."""
AGAIN = 4
"""How many unstable tests may get in the way of one mutant."""
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py(?:::.*?)?)(?: - .*)?$", re.MULTILINE)
SUITE = (*QUIET, "--hypothesis-seed=0", "-W", "ignore::pytest.PytestAssertRewriteWarning")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant: who killed it, or that nothing did."""

    key: str
    verdict: str
    """`fast`, `interop`, `timeout`, `survived`."""
    by: str
    """The test that failed first."""
    change: str
    """The line before and after."""
    asked: int
    """How many tests were run at most."""


class Seen:
    """A plugin that keeps which tests passed and failed, and their seconds."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Skipped ones are neither."""
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call" and report.passed:
            self.seconds[report.nodeid] = report.duration

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported."""
        if report.failed:
            self.failed.append(report.nodeid)


class Trials:
    """A plugin that runs no tests itself: it forks for each list of them."""

    def __init__(
        self, root: Path, kept: Path, stage: str, mutants: list[Mutant], budget: float, ends: float
    ) -> None:
        self._root, self._kept, self._stage, self._mutants = root, kept, stage, mutants
        self._budget, self._ends = budget, ends
        self._output = root / "result.json"
        self._terminal = os.fdopen(os.dup(1), "w")
        self._items: dict[str, pytest.Item] = {}
        self._first: dict[str, Any] = {}
        self._times = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of the tests."""
        self._items = {item.nodeid: item for item in session.items}
        self._first = self._without()
        for mutant in self._mutants:
            if time.time() > self._ends:
                break
            result = self._judge(mutant)
            with (self._kept / "results.jsonl").open("a") as file:
                file.write(json.dumps({"stage": self._stage, **asdict(result)}) + "\n")
            self._say(f"{result.verdict:9} {result.key}  {result.by[:110]}")
        return True

    def _say(self, text: str) -> None:
        print(text, file=self._terminal, flush=True)

    def _without(self) -> dict[str, Any]:
        """The tests without a mutant: the seconds of each that passes, and the lines that it reaches."""
        package = self._mutants[0].package
        kept = self._kept / f"{self._stage}-{package}.json"
        if not kept.exists():
            found = in_child(lambda: self._cover(package), self._output, FIRST)
            if found is None or "ended" in found:
                raise RuntimeError(f"the tests without a mutant: {found}")
            kept.write_text(json.dumps(found))
        first: dict[str, Any] = json.loads(kept.read_text())
        for name in first["failed"]:
            self._say(f"left out, fails without a mutant: {name}")
        self._say(f"{package}: {len(first['seconds'])} tests take {sum(first['seconds'].values()):.0f} s")
        return first

    def _cover(self, package: str) -> dict[str, Any]:
        cover = coverage.Coverage(
            data_file=None, config_file=False, include=[f"{self._root}/vpnd/{package}/*"]
        )
        cover.start()
        seen = self._run(list(self._items), stop=False, before=cover.switch_context)
        cover.stop()
        data, lines = cover.get_data(), {}
        for file in data.measured_files():
            at = data.contexts_by_lineno(file)
            lines[str(Path(file).relative_to(self._root))] = {str(line): at[line] for line in at}
        passed = {name: taken for name, taken in seen.seconds.items() if name not in seen.failed}
        return {"failed": seen.failed, "seconds": passed, "lines": lines}

    def _run(self, names: list[str], *, stop: bool, before: Callable[[str], object] | None = None) -> Seen:
        """Run tests that are collected already. In a child only."""
        seen = Seen()
        items = [self._items[name] for name in names]
        items[0].config.pluginmanager.register(seen)
        for item, following in zip(items, [*items[1:], None], strict=True):
            if before is not None:
                before(item.nodeid)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if stop and seen.failed:
                item.session._setupstate.teardown_exact(None)  # what it set up outside this process
                break
        return seen

    def _fresh(self, names: list[str]) -> Seen:
        """Import vpnd and its tests again and run these, also in a child only."""
        for name in list(sys.modules):
            if name.partition(".")[0] == "vpnd" or (name.startswith("tests.") and "mutants" not in name):
                del sys.modules[name]
        seen = Seen()
        code = pytest.main([*SUITE, "-x", "--no-header", *names], plugins=[seen])
        if code not in (0, 5) and not seen.failed:
            seen.failed.append(f"exit code {code}")
        return seen

    def _judge(self, mutant: Mutant) -> Result:
        path = self._root / mutant.module
        before = path.read_text()
        after = mutant.code(before)
        names = self._chosen(mutant)
        verdict, by = "survived", ""
        for _ in range(AGAIN):
            if not names:
                break
            verdict, by, steady = self._tried(path, before, after, names)
            if steady:
                break
            self._say(f"left out, unstable: {by}")
            self._first["seconds"].pop(by, None)
            names = [name for name in names if name != by]
            verdict, by = "survived", ""
        return Result(mutant.key, verdict, by, change(before, after), len(names))

    def _tried(self, path: Path, before: str, after: str, names: list[str]) -> tuple[str, str, bool]:
        """The verdict, the test that failed, and whether it fails each time, but never without the mutant."""

        def mutated(run: list[str]) -> str | None:
            with self._written(path, before, after):
                return self._ask(lambda: self._changed(path, before, after, run), run)

        by = mutated(names)
        if by is None:
            return "timeout", "", True
        if not by:
            return "survived", "", True
        # A file that cannot be imported is none of the tests.
        until = names[: names.index(by) + 1] if by in names else names
        clean = self._ask(lambda: self._run(until, stop=True), until)
        return "fast", by, clean == "" and mutated(until) in (by, None)

    def _changed(self, path: Path, before: str, after: str, names: list[str]) -> Seen:
        if exchange(path, before, after):
            return self._run(names, stop=True)
        return self._fresh(names)

    def _ask(self, work: Callable[[], Seen], names: list[str]) -> str | None:
        """The first test that fails; empty if none does, None beyond the limit."""
        limit = LEAST + SLACK * sum(self._first["seconds"].get(name, 0) for name in names)
        found = in_child(lambda: work().failed, self._output, limit)
        if isinstance(found, dict):
            return str(found["ended"])
        return None if found is None else "".join(found[:1])

    @contextmanager
    def _written(self, path: Path, before: str, after: str) -> Iterator[None]:
        """The change is also in the file, for processes that tests start and for a second import."""
        had = path.stat()
        self._times += 1
        path.write_text(after)
        os.utime(path, (1e9 + self._times, 1e9 + self._times))
        try:
            yield
        finally:
            path.write_text(before)
            os.utime(path, ns=(had.st_atime_ns, had.st_mtime_ns))

    def _chosen(self, mutant: Mutant) -> list[str]:
        """The tests that reach the line, or its function, or its module, as many as the budget allows.

        A line that runs at import has no test of its own: all that reach its module count, and where that is
        none, as for a table of constants, all tests.
        """
        lines: dict[str, list[str]] = self._first["lines"].get(mutant.module, {})
        function, _ = function_at(self._root, mutant.module, mutant.line)
        within = functions(self._root, mutant.module)[function]
        reached = set(lines.get(str(mutant.line), ()))
        reached |= {name for line in lines for name in lines[line] if not reached and int(line) in within}
        if not reached and function.endswith("::"):
            reached = {name for names in lines.values() for name in names} or set(self._items)
        seconds, own, total = self._first["seconds"], own_tests(mutant.module), 0.0
        chosen: list[str] = []

        def order(name: str) -> tuple[bool, bool, float]:
            file = name.partition("::")[0]
            return file != own, Path(file).parent != Path(own).parent, seconds[name]

        for name in sorted(reached & seconds.keys(), key=order):
            if total + seconds[name] <= self._budget or not chosen:
                total += seconds[name]
                chosen.append(name)
        return chosen


def change(before: str, after: str) -> str:
    """The lines that differ."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(
        " ".join(line.split()) for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")
    )


def main() -> int:
    """`python -m tests.mutants.trial MUTANTS`, in a copy: a file with the mutants of one package."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mutants", type=Path)
    parser.add_argument("--stage", choices=TESTS)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--ends", type=float)
    arguments = parser.parse_args()
    root, kept = Path.cwd(), arguments.kept
    mutants = [Mutant(**entry) for entry in json.loads(arguments.mutants.read_text())]
    paths = [f"tests/{path}" for path in TESTS[arguments.stage][mutants[0].package]]
    ignored = [f"--ignore={file}" for file in SLOW]
    sys.dont_write_bytecode = True
    trials = Trials(root, kept, arguments.stage, mutants, arguments.budget, arguments.ends)
    os.dup2(os.open(kept / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    return int(pytest.main([*SUITE, *paths, *ignored], plugins=[trials]))


if __name__ == "__main__":
    raise SystemExit(main())
