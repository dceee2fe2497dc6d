"""Which tests reach which line, by coverage's contexts; and how long each takes.

A line is known by its function and its place there, so that a map holds while other functions change.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage

FAST = ("tests/unit", "tests/simulation", "tests/properties", "tests/datapath")
"""No namespaces and nothing to wait for: they are tried first."""
SLOW = (
    "tests/simulation/test_ikev2_orders.py",
    "tests/simulation/v1/test_orders.py",
    "tests/simulation/test_year.py",
)
"""Thousands of histories: for a single line they take too long."""
INTEROP = "tests/interop"
FAST_RC = """[run]
source = vpnd
data_file = {data}
"""
INTEROP_RC = """[run]
source = vpnd
parallel = true
data_file = {data}
context = ${{MUTANTS_CONTEXT}}
"""
START = "import coverage\ncoverage.process_startup()\n"
QUIET = ("-q", "-p", "no:randomly", "-p", "no:cacheprovider")


def environment(copy: Path, **more: str) -> dict[str, str]:
    """Every process, also a daemon in a namespace, takes vpnd from this copy."""
    path = os.pathsep.join(filter(None, (str(copy), more.pop("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, **more}


@dataclass(frozen=True, slots=True)
class Fast:
    """The fast tests: seconds of each, and the tests that reach each place of each function."""

    commit: str
    seconds: dict[str, float]
    places: dict[str, dict[str, list[str]]]

    def of(self, copy: Path, module: str, line: int) -> list[str]:
        """The tests that reach a line, the nearest first and the quick ones before the slow ones.

        A line that runs at import has no test of its own: all that reach its module count, and where that is
        none, as for a table of constants, all tests.
        """
        function, first = function_at(copy, module, line)
        places = self.places.get(function, {})
        reached: Iterable[str] = places.get(str(line - first)) or _together([places])
        if not reached:
            reached = _together(at for name, at in self.places.items() if name.startswith(f"{module}::"))
        own = own_tests(module)

        def order(name: str) -> tuple[bool, bool, float]:
            file = name.partition("::")[0]
            return file != own, Path(file).parent != Path(own).parent, self.seconds[name]

        return sorted(reached or self.seconds, key=order)


def own_tests(module: str) -> str:
    """The file of unit tests that bears the name of a module."""
    path = Path(module)
    return f"tests/unit{path.parent.as_posix().removeprefix('vpnd')}/test_{path.stem}.py"


def _together(places: Iterable[dict[str, list[str]]]) -> set[str]:
    return {name for at in places for names in at.values() for name in names}


def fast(copy: Path, kept: Path, commit: str, workers: int) -> Fast:
    """Run the fast tests once with coverage, unless what they said is kept."""
    if not kept.exists():
        data, rc, seconds = (kept.with_suffix(suffix) for suffix in (".coverage", ".rc", ".seconds"))
        rc.write_text(FAST_RC.format(data=data))
        subprocess.run(
            [sys.executable, "-m", "pytest", *QUIET, *FAST, *(f"--ignore={file}" for file in SLOW),
             "-n", str(workers), "--cov=vpnd", "--cov-context=test", f"--cov-config={rc}", "--cov-report=",
             "-p", "tests.mutants.chosen", f"--seconds={seconds}"],
            cwd=copy, env=environment(copy), check=False,
        )  # fmt: skip
        took = json.loads(seconds.read_text())
        kept.write_text(json.dumps({"commit": commit, "seconds": took, "places": _places(copy, data, took)}))
    return Fast(**json.loads(kept.read_text()))


def _places(copy: Path, data: Path, seconds: dict[str, float]) -> dict[str, dict[str, list[str]]]:
    found = coverage.CoverageData(str(data))
    found.read()
    places: dict[str, dict[str, list[str]]] = {}
    for file in found.measured_files():
        contexts = found.contexts_by_lineno(file)
        for function, lines in functions(copy, _module(file)).items():
            for line in sorted(lines & contexts.keys()):
                names = sorted({context.rpartition("|")[0] for context in contexts[line]} & seconds.keys())
                if names:
                    places.setdefault(function, {})[str(line - min(lines))] = names
    return places


def _module(file: str) -> str:
    return file[file.rindex("/vpnd/") + 1 :]


@dataclass(frozen=True, slots=True)
class Interop:
    """The interop files: seconds of each, and the functions that it reaches in some gateway."""

    seconds: dict[str, float]
    functions: dict[str, list[str]]

    def of(self, function: str) -> list[str]:
        """The files that reach a function of a module, the quick ones first."""
        reached = [file for file, names in self.functions.items() if function in names]
        return sorted(reached, key=self.seconds.__getitem__)


def interop(copy: Path, kept: Path) -> Interop:
    """Run each interop file once with coverage in every daemon, unless what they said is kept."""
    found: dict[str, Any] = {"seconds": {}, "functions": {}}
    if kept.exists():
        found = json.loads(kept.read_text())
    for path in sorted((copy / INTEROP).glob("test_*.py")):
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
        [sys.executable, "-m", "pytest", *QUIET, file], cwd=copy, env=environment(copy, **told), check=False
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
