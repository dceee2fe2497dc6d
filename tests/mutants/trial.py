"""One warm process tries one mutant after another.

vpnd and its tests are imported once; each mutant lives in a fork, which changes the functions in memory. What
runs at import (a constant, a default, a class body) is imported again there. Only a test that fails with the
mutant and passes without it kills.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FunctionType

import pytest

from tests.mutants.nursery import exchange, functions_by_file, in_child
from tests.mutants.reach import SUITE, TESTS, Reached, function_at, functions, own_tests, record
from tests.mutants.sample import Mutant

SLACK, LEAST = 10.0, 10.0
"""Times of the processor longer than without the mutant, and seconds in any case, for each test."""
WAIT = 6.0
"""Times longer than that by the clock: the machine may be busy."""
AGAIN = 4
"""How many unstable tests may get in the way of one mutant."""
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py(?:::.*?)?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant: who killed it, or that nothing did."""

    key: str
    verdict: str
    """The stage that killed it: `near`, `fast` or `interop`; `timeout`, `survived`."""
    by: str
    """The test that failed first."""
    change: str
    """The line before and after."""
    asked: int
    """How many tests were run at most."""


class Seen:
    """A plugin that keeps which tests failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Skipped ones did not."""
        if report.failed and report.nodeid not in self.failed:
            self.failed.append(report.nodeid)

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
        self._functions: dict[str, list[FunctionType]] = {}
        self._reached = Reached.load(root, kept, stage)
        self._times = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of the tests."""
        self._items = {item.nodeid: item for item in session.items}
        self._functions = functions_by_file()
        tests = tests_of(self._root)
        for mutant in self._mutants:
            if time.time() > self._ends:
                break
            result = self._judge(mutant)
            with (self._kept / "results.jsonl").open("a") as file:
                file.write(json.dumps({"stage": self._stage, "tests": tests, **asdict(result)}) + "\n")
            self._say(f"{result.verdict:9} {result.key}  {result.by[:110]}")
        return True

    def _say(self, text: str) -> None:
        print(text, file=self._terminal, flush=True)

    def _run(self, names: list[str]) -> Seen:
        """Run tests that are collected already, up to the first that fails. In a child only."""
        seen = Seen()
        items = [self._items[name] for name in names]
        items[0].config.pluginmanager.register(seen)
        for item, following in zip(items, [*items[1:], None], strict=True):
            signal.setitimer(signal.ITIMER_PROF, LEAST + SLACK * self._seconds(item.nodeid))
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if seen.failed:
                # What it set up outside this process is taken down as at the end of a session.
                runner = item.config.pluginmanager.get_plugin("runner")
                assert runner is not None
                runner.pytest_sessionfinish(item.session)
                break
        return seen

    def _fresh(self, names: list[str]) -> Seen:
        """Import vpnd and its tests again and run these, also in a child only."""
        for name in list(sys.modules):
            if name.partition(".")[0] == "vpnd" or (name.startswith("tests.") and "mutants" not in name):
                del sys.modules[name]
        seen = Seen()
        signal.setitimer(signal.ITIMER_PROF, 2 * LEAST + SLACK * sum(map(self._seconds, names)))
        code = pytest.main([*SUITE, "-x", "--no-header", *names], plugins=[seen])
        if code not in (0, 5) and not seen.failed:
            seen.failed.append(f"exit code {code}")
        return seen

    def _seconds(self, name: str) -> float:
        return self._reached.seconds.get(name, 0)

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
            self._reached.seconds.pop(by, None)
            names = [name for name in names if name != by]
            verdict, by = "survived", ""
        verdict = self._stage if verdict == "killed" else verdict
        return Result(mutant.key, verdict, by, change(before, after), len(names))

    def _tried(self, path: Path, before: str, after: str, names: list[str]) -> tuple[str, str, bool]:
        """The verdict, the test that failed, and whether it passes without the mutant."""
        with self._written(path, before, after):
            by = self._ask(lambda: self._changed(path, before, after, names), names)
        if by is None:
            return "timeout", "", True
        if not by:
            return "survived", "", True
        # The test alone; what depends on those before it, with them. A file that cannot be imported is none.
        until = names[: names.index(by) + 1] if by in names else names[:1]
        return (
            "killed",
            by,
            any(
                self._ask(lambda run=run: self._run(run), run) == ""  # type: ignore[misc]  # a default binds the value of this turn
                for run in ([by] if by in names else until, until)
            ),
        )

    def _changed(self, path: Path, before: str, after: str, names: list[str]) -> Seen:
        if exchange(self._functions.get(str(path), []), path, before, after):
            return self._run(names)
        return self._fresh(names)

    def _ask(self, work: Callable[[], Seen], names: list[str]) -> str | None:
        """The first test that fails; empty if none does, None beyond the limit."""
        limit = WAIT * (2 * LEAST + SLACK * sum(map(self._seconds, names)))
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
        """The tests that reach the line, or its function, as many as the budget allows.

        Nearest first: those in the file named after the module, those about its package, then all others, the
        quick ones first. A line that runs at import has no test of its own: those that reach its module and
        those about its package count; where a module only runs at import, those that reach its neighbours.
        """
        lines = self._reached.lines(mutant.module)
        function, _ = function_at(self._root, mutant.module, mutant.line)
        about = Path(own_tests(mutant.module)).parent
        if function.endswith("::"):
            reached = {name for names in lines.values() for name in names if name}
            reached = reached or self._reached.near(mutant.module)
            reached |= {name for name in self._items if about in Path(name.partition("::")[0]).parents}
        else:
            within = functions(self._root, mutant.module)[function]
            reached = lines.get(mutant.line) or {name for at in lines for name in lines[at] if at in within}
        own, total = own_tests(mutant.module), 0.0
        chosen: list[str] = []

        def order(name: str) -> tuple[bool, bool, float]:
            file = name.partition("::")[0]
            return file != own, Path(file).parent != Path(own).parent, self._seconds(name)

        for name in sorted(reached & self._reached.seconds.keys() & self._items.keys(), key=order):
            if total + self._seconds(name) <= self._budget or not chosen:
                total += self._seconds(name)
                chosen.append(name)
        return chosen


def tests_of(copy: Path) -> str:
    """What the tests of a copy are known by: a survivor is tried again when they change."""
    return (copy / "tests.id").read_text()


def change(before: str, after: str) -> str:
    """The lines that differ."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(
        " ".join(line.split()) for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")
    )


def main() -> int:
    """`python -m tests.mutants.trial record|try JOB`, in a copy: test files to record, or mutants to try."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("record", "try"))
    parser.add_argument("job", type=Path)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--stage", choices=TESTS)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--ends", type=float)
    arguments = parser.parse_args()
    root, kept = Path.cwd(), arguments.kept
    job = json.loads(arguments.job.read_text())
    sys.dont_write_bytecode = True
    if arguments.what == "record":
        _quiet(root)
        return record(root, kept, job)
    mutants = [Mutant(**entry) for entry in job]
    trials = Trials(root, kept, arguments.stage, mutants, arguments.budget, arguments.ends)
    _quiet(root)
    return int(pytest.main([*SUITE, *TESTS[arguments.stage]], plugins=[trials]))


def _quiet(root: Path) -> None:
    os.dup2(os.open(root / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)


if __name__ == "__main__":
    raise SystemExit(main())
