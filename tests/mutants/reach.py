"""Which tests reach which line, which interop files which function of a daemon; the functions of a module."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest

TESTS = {
    "near": ("tests/unit",),
    "fast": ("tests/unit", "tests/datapath", "tests/simulation", "tests/properties"),
}
"""By stage: the tests about single modules, and all that need no root, for what is left."""
SLOW = (
    "tests/simulation/test_ikev2_orders.py",
    "tests/simulation/v1/test_orders.py",
    "tests/simulation/test_year.py",
)
"""Thousands of histories: for a single line they take too long."""
WITH_ROOT = ("tests/unit", "tests/datapath", "tests/interop")
"""Where the tests are that need root: the quick ones, those with TUN devices, the gateways in namespaces."""
MARK = "pytest.mark.root"
INTEROP_RC = """[run]
source = vpnd
parallel = true
data_file = {data}
context = ${{MUTANTS_CONTEXT}}
"""
START = "import coverage\ncoverage.process_startup()\n"
QUIET = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider")
ROOT = (*QUIET, "-m", "root")
SUITE = (
    *QUIET, "--hypothesis-seed=0", "-m", "not root", "-W", "ignore::pytest.PytestAssertRewriteWarning",
    *(f"--ignore={file}" for file in SLOW),
)  # fmt: skip
"""How the tests that need no root are run, each time in the same order and with the same examples."""


def environment(copy: Path, **more: str) -> dict[str, str]:
    """Every process, also a daemon in a namespace, takes vpnd from this copy."""
    path = os.pathsep.join(filter(None, (str(copy), more.pop("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, **more}


def own_tests(module: str) -> str:
    """The file of unit tests that bears the name of a module."""
    path = Path(module)
    return f"tests/unit{path.parent.as_posix().removeprefix('vpnd')}/test_{path.stem}.py"


def test_files(copy: Path, stage: str) -> list[str]:
    """The files of tests of a stage."""
    found = (path for directory in TESTS[stage] for path in (copy / directory).rglob("test_*.py"))
    return sorted({path.relative_to(copy).as_posix() for path in found} - set(SLOW))


def recorded(copy: Path, kept: Path, file: str) -> Path:
    """Where is kept what a file of tests reaches, as long as it is the same: `.json` and `.coverage`."""
    told = f"{file}\n".encode() + (copy / file).read_bytes()
    return kept / "reached" / hashlib.sha256(told).hexdigest()[:16]


@dataclass(slots=True)
class Reached:
    """What each test reaches, and the seconds of each that passes without a mutant."""

    data: list[Path]
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, copy: Path, kept: Path, stage: str) -> Reached:
        """Of all tests of a stage."""
        paths = [recorded(copy, kept, file) for file in test_files(copy, stage)]
        found = cls([path.with_suffix(".coverage") for path in paths])
        for path in paths:
            found.seconds |= json.loads(path.with_suffix(".json").read_text())
        return found

    def lines(self, module: str) -> dict[int, set[str]]:
        """The tests that reach each line of a module."""
        found: dict[int, set[str]] = {}
        for path in filter(Path.exists, self.data):
            data = coverage.CoverageData(basename=str(path))
            data.read()
            for file in data.measured_files():
                if _module(file) == module:
                    for line, names in data.contexts_by_lineno(file).items():
                        found.setdefault(line, set()).update(names)
        return found

    def near(self, module: str) -> set[str]:
        """The tests that reach some line of a module in the same directory."""
        directory, found = Path(module).parent, set[str]()
        for path in filter(Path.exists, self.data):
            data = coverage.CoverageData(basename=str(path))
            data.read()
            for file in data.measured_files():
                if Path(_module(file)).parent == directory:
                    found.update(*data.contexts_by_lineno(file).values())
        return found


class Recorder:
    """A plugin that keeps for each file of tests what each test reaches."""

    def __init__(self, copy: Path, kept: Path) -> None:
        self._copy, self._kept = copy, kept
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        self._file, self._cover = "", coverage.Coverage(data_file=None)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """A coverage file for each file of tests, a context for each test."""
        file = item.nodeid.partition("::")[0]
        if file != self._file:
            self._end()
            self._file = file
            path = recorded(self._copy, self._kept, file).with_suffix(".coverage")
            self._cover = coverage.Coverage(
                data_file=str(path), config_file=False, include=[f"{self._copy}/vpnd/*"]
            )
            self._cover.set_option("run:disable_warnings", ["no-data-collected"])
            self._cover.erase()
            self._cover.start()
        self._cover.switch_context(item.nodeid)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Skipped ones are none that pass."""
        if report.failed:
            self._failed.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self._seconds[report.nodeid] = report.duration

    def pytest_sessionfinish(self) -> None:
        """The last file."""
        self._end()

    def _end(self) -> None:
        if self._file:
            self._cover.stop()
            self._cover.save()
            passed = {name: self._seconds[name] for name in self._seconds.keys() - self._failed}
            recorded(self._copy, self._kept, self._file).with_suffix(".json").write_text(json.dumps(passed))
        self._seconds.clear()


def record(copy: Path, kept: Path, files: list[str]) -> int:
    """Run files of tests without a mutant, and keep what they reach. The exit code of pytest."""
    (kept / "reached").mkdir(parents=True, exist_ok=True)
    sys.dont_write_bytecode = True
    code = int(pytest.main([*SUITE, *files], plugins=[Recorder(copy, kept)]))
    for file in files if code in (0, 1, 5) else ():  # those without a test that runs here
        path = recorded(copy, kept, file)
        if not path.with_suffix(".json").exists():
            path.with_suffix(".json").write_text("{}")
    return code


def _module(file: str) -> str:
    return file[file.rindex("/vpnd/") + 1 :]


@dataclass(frozen=True, slots=True)
class Interop:
    """The files of tests with root: seconds of each, and the functions that it reaches in some process."""

    seconds: dict[str, float]
    functions: dict[str, list[str]]

    def of(self, function: str) -> list[str]:
        """The files that reach a function of a module, the quick ones first."""
        reached = [file for file, names in self.functions.items() if function in names]
        return sorted(reached, key=self.seconds.__getitem__)


def interop(copy: Path, kept: Path) -> Interop:
    """Run each file of tests with root once with coverage in every daemon, unless what they said is kept."""
    found: dict[str, Any] = {"seconds": {}, "functions": {}}
    if kept.exists():
        found = json.loads(kept.read_text())
    paths = (path for directory in WITH_ROOT for path in sorted((copy / directory).rglob("test_*.py")))
    for path in (path for path in paths if MARK in path.read_text()):
        file = path.relative_to(copy).as_posix()
        if file not in found["seconds"]:
            found["seconds"][file], found["functions"][file] = _reached_by(copy, kept.parent, file)
            kept.write_text(json.dumps(found))
    return Interop(**found)


def _reached_by(copy: Path, directory: Path, file: str) -> tuple[float, list[str]]:
    data = directory / "interop"
    data.mkdir(exist_ok=True)
    (data / "sitecustomize.py").write_text(START)
    (data / "rc").write_text(INTEROP_RC.format(data=data / "data"))
    told = {"PYTHONPATH": str(data), "COVERAGE_PROCESS_START": str(data / "rc"), "MUTANTS_CONTEXT": file}
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "pytest", *ROOT, "--programs", file],
        cwd=copy,
        env=environment(copy, **told),
        check=False,
    )
    seconds = time.monotonic() - began
    together = coverage.Coverage(config_file=False, data_file=str(data / "all"))
    together.erase()
    together.combine([str(path) for path in data.glob("data.*")])
    found = together.get_data()
    reached = set()
    for name in found.measured_files():
        at = set(found.lines(name) or ())
        reached |= {function for function, lines in functions(copy, _module(name)).items() if lines & at}
    return seconds, sorted(reached)


def functions(copy: Path, module: str) -> dict[str, frozenset[int]]:
    """The functions of a module, as `module::name`, with the lines of each; the rest of it is `module::`."""
    source = (copy / module).read_text()
    bodies: dict[str, frozenset[int]] = {}

    def look(node: ast.AST, prefix: str) -> None:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}.{inner.name}" if prefix else inner.name
                if not isinstance(inner, ast.ClassDef):
                    first = inner.body[0].lineno
                    bodies[f"{module}::{name}"] = frozenset(range(first, (inner.end_lineno or first) + 1))
                look(inner, name)

    look(ast.parse(source), "")
    inside = frozenset[int]().union(*bodies.values())
    bodies[f"{module}::"] = frozenset(range(1, source.count("\n") + 2)) - inside
    return bodies


def function_at(copy: Path, module: str, line: int) -> tuple[str, int]:
    """The innermost function that has a line, and where it begins."""
    bodies = functions(copy, module)
    function = min((name for name in bodies if line in bodies[name]), key=lambda name: len(bodies[name]))
    return function, min(bodies[function])
