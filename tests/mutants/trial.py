"""One mutant in a copy: the fast tests that reach it, then the interop files."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.reach import QUIET, SLOW, Fast, Interop, environment, function_at, own_tests
from tests.mutants.sample import Mutant

SLACK = 6.0
"""How many times longer than without the mutant its tests may take; a machine may be busy."""
LEAST = 90.0
"""Seconds that a run has in any case: pytest starts and collects, also on a busy machine."""
SUITE = (
    *QUIET,
    "-x",
    "--hypothesis-seed=0",
    "--no-header",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)
USAGE = 4
"""The exit code of pytest that did not begin: a kill only where a conftest could not be loaded."""
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py(?:::.*?)?)(?: - .*)?$", re.MULTILINE)


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


class Copy:
    """A copy of the repository that one worker changes, and the process whose forks test it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._times = 0
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.nursery"],
            cwd=root,
            env=environment(root),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def test(self, arguments: list[str], limit: float) -> tuple[int | None, str]:
        """Run pytest here; its exit code, None beyond the limit, and what it printed."""
        output = self.root / "output"
        job = {"arguments": [*SUITE, *arguments], "output": str(output), "limit": limit}
        orders, answers = self._nursery.stdin, self._nursery.stdout
        if orders is None or answers is None:
            raise RuntimeError("the nursery has no pipes")
        print(json.dumps(job), file=orders, flush=True)
        code: int | None = json.loads(answers.readline())
        printed = output.read_text(errors="replace")
        if not printed or (code == USAGE and "conftest" not in printed):
            raise RuntimeError(f"pytest {' '.join(job['arguments'])} did not run: {printed}")
        return code, printed

    def newer(self, module: str, commit: str) -> set[str]:
        """The unit tests of a module's package that have changed since that commit."""
        under = Path(own_tests(module)).parent.as_posix()
        listed = subprocess.run(
            ["git", "diff", "--name-only", "--diff-filter=d", commit, "HEAD", "--", under],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return {file for file in listed.stdout.split() if Path(file).name.startswith("test_")}

    def known(self, fast: Fast) -> Path:
        """A file with every test that the map knows."""
        path = self.root / "known"
        if not path.exists():
            path.write_text("\n".join(fast.seconds))
        return path

    def write(self, module: str, code: str) -> None:
        """Change a module, so that Python sees that it did, also within the same second."""
        path = self.root / module
        path.write_text(code)
        self._times += 1
        os.utime(path, (1e9 + self._times, 1e9 + self._times))


def change(before: str, after: str) -> str:
    """The lines that differ."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(
        " ".join(line.split()) for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")
    )


def near(root: Path, module: str) -> list[str]:
    """The tests that are about a module by their names: its own file, then those beside it."""
    own, package = Path(own_tests(module)), Path(module).parent.relative_to("vpnd")
    places = [own, own.parent, Path("tests/simulation") / package.name, Path("tests") / package]
    return [str(place) for place in dict.fromkeys(places) if (root / place).exists()]


def judge_near(copy: Copy, mutant: Mutant, limit: float) -> Result:
    """Try the tests about the module; they stop at the first that fails, which nearly always is soon."""
    original = (copy.root / mutant.module).read_text()
    mutated = mutant.code(original)
    copy.write(mutant.module, mutated)
    try:
        ignored = [f"--ignore={file}" for file in SLOW]
        code, printed = copy.test([*near(copy.root, mutant.module), *ignored], limit)
    finally:
        copy.write(mutant.module, original)
    # Beyond the limit nothing is known: without the mutant they may take as long on a busy machine.
    verdict = "survived" if code in (None, 0, 5) else "fast"
    return Result(mutant.key, verdict, _by(verdict, printed), change(original, mutated), 0)


def judge_fast(copy: Copy, mutant: Mutant, fast: Fast, budget: float) -> Result:
    """Try the fast tests that reach the line; they stop at the first that fails."""
    original = (copy.root / mutant.module).read_text()
    mutated = mutant.code(original)
    names, total = _within(fast.of(copy.root, mutant.module, mutant.line), fast, budget)
    chosen = copy.root / "chosen"
    chosen.write_text("\n".join(names))
    files = {name.partition("::")[0] for name in names} | copy.newer(mutant.module, fast.commit)
    told = ["-p", "tests.mutants.chosen", f"--chosen={chosen}", f"--known={copy.known(fast)}"]
    copy.write(mutant.module, mutated)
    try:
        code, printed = copy.test([*sorted(files), *told], LEAST + SLACK * total)
    finally:
        copy.write(mutant.module, original)
    verdict = {None: "timeout", 0: "survived", 5: "survived"}.get(code, "fast")
    return Result(mutant.key, verdict, _by(verdict, printed), change(original, mutated), len(names))


def judge_interop(copy: Copy, mutant: Mutant, interop: Interop, budget: float) -> Result:
    """Try the interop files that reach the function; what fails must fail twice."""
    original = (copy.root / mutant.module).read_text()
    mutated = mutant.code(original)
    function, _ = function_at(copy.root, mutant.module, mutant.line)
    ends = time.monotonic() + budget
    asked = 0
    copy.write(mutant.module, mutated)
    try:
        for file in interop.of(function):
            if time.monotonic() > ends:
                break
            asked += 1
            limit = LEAST + SLACK * interop.seconds[file]
            code, printed = copy.test([file], limit)
            failed = _by("interop", printed)
            if code not in (0, 5) and copy.test([failed or file], limit)[0] not in (0, 5):
                return Result(mutant.key, "interop", failed, change(original, mutated), asked)
    finally:
        copy.write(mutant.module, original)
    return Result(mutant.key, "survived", "", change(original, mutated), asked)


def _within(names: list[str], fast: Fast, budget: float) -> tuple[list[str], float]:
    """As many of the tests as fit into the seconds, at least one."""
    total, taken = 0.0, []
    for name in names:
        if taken and total + fast.seconds[name] > budget:
            continue
        total += fast.seconds[name]
        taken.append(name)
    return taken, total


def _by(verdict: str, printed: str) -> str:
    found = FAILED.search(printed)
    if found is None:
        return "" if verdict in ("survived", "timeout") else printed[-300:]
    return found[1]
