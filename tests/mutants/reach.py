"""Which interop files reach which function of a daemon, and the functions of a module."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage

SLOW = (
    "tests/simulation/test_ikev2_orders.py",
    "tests/simulation/v1/test_orders.py",
    "tests/simulation/test_year.py",
)
"""Thousands of histories: for a single line they take too long."""
INTEROP = "tests/interop"
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


def own_tests(module: str) -> str:
    """The file of unit tests that bears the name of a module."""
    path = Path(module)
    return f"tests/unit{path.parent.as_posix().removeprefix('vpnd')}/test_{path.stem}.py"


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
