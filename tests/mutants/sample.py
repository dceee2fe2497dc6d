"""Which mutants: cosmic-ray's operators at places that the seed picks."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

PACKAGES = ("wire", "crypto", "ike", "tunnel", "datapath", "config", "control", "daemon", "host")
"""What is mutated: `model` is frozen values, and its rules are reached through the others."""


LEAVES = ("name", "string", "newline", "endmarker")
"""Nodes that no operator without arguments changes."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the `occurrence`th of the places where the operator fits in a module."""

    module: str
    line: int
    operator: str
    occurrence: int

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.module}:{self.line} {self.operator} {self.occurrence}"

    @property
    def package(self) -> str:
        """The layer that it is in."""
        return self.module.split("/")[1]

    def code(self, source: str) -> str:
        """The module with the change. Raises ValueError where the operator finds no such place."""
        changed = mutate_code(source, plugins.get_operator(self.operator)(), self.occurrence)
        if changed is None:
            raise ValueError(f"{self.key}: no such place")
        return str(changed)


def sample(root: Path, seed: int, count: int, only: tuple[str, ...] = ()) -> list[Mutant]:
    """That many mutants, each at a place of its own; with `only`, of the modules whose paths begin so.

    A place is picked first and an operator there second: `a + b` has eleven replacements, and `not a` one.
    """
    rng = random.Random(seed)
    found = _every_mutant(root, root.parent / "places.json")
    order = sorted(place for place in found if place.startswith(only or ""))
    rng.shuffle(order)
    return [rng.choice(found[place]) for place in order[:count]]


def _every_mutant(root: Path, kept: Path) -> dict[str, list[Mutant]]:
    """All mutants by their places; to find them takes half a minute, so that they are kept."""
    if not kept.exists():
        places: dict[str, list[tuple[str, int, str, int]]] = {}
        for package in PACKAGES:
            for path in sorted((root / "vpnd" / package).rglob("*.py")):
                for column, mutant in _mutants(path.relative_to(root).as_posix(), path.read_text()):
                    values = (mutant.module, mutant.line, mutant.operator, mutant.occurrence)
                    places.setdefault(f"{mutant.module}:{mutant.line:05}:{column:03}", []).append(values)
        kept.write_text(json.dumps(places))
    return {
        place: [Mutant(*values) for values in found] for place, found in json.loads(kept.read_text()).items()
    }


def _mutants(module: str, source: str) -> Iterator[tuple[int, Mutant]]:
    # Only what some operator could change: there are two hundred operators to ask about each node.
    nodes = [
        node
        for node in ast_nodes(get_ast(source))
        if node.type not in LEAVES and not (node.type == "operator" and node.value in "()[]{},:.=")
    ]
    ignored = _without_effect(source)
    for name in sorted(plugins.operator_names()):
        kind = plugins.get_operator(name)
        if kind.arguments() or name == "core/NoOp":
            continue
        operator = kind()
        positions = (start for node in nodes for start, _ in operator.mutation_positions(node))
        for occurrence, (line, column) in enumerate(positions):
            if not any(start <= (line, column) < end for start, end in ignored):
                yield column, Mutant(module, line, name, occurrence)


def _without_effect(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where a change does nothing that a test could see.

    Annotations, which Python does not evaluate here, imports for types, and `frozen` and `slots` of
    dataclasses, which keep us from mistakes and change no run.
    """
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            found.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            found.append(node.returns)
        elif (
            isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        ) or (isinstance(node, ast.keyword) and node.arg in ("frozen", "slots")):
            found.append(node)
    return [
        ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))  # type: ignore[attr-defined]  # those that are found have a place
        for node in found
    ]
