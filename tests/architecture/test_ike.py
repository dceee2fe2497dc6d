"""The shape of an IKE version: the table is the truth, and what an action sees is narrow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.architecture.code import ROOT, imported_modules, modules, nodes

VERSIONS = ("v1", "v2")
IKE = ROOT / "vpnd/ike"
TUNNEL = ROOT / "vpnd/tunnel"
DAEMON = ROOT / "vpnd/daemon"
ATTRIBUTES = 15
METHODS = 20
MANY_FIELDS = frozenset({"HealthCheck"})
"""Measures, judges and reports in one."""
MANY_METHODS = frozenset({"Endpoint"})
"""All commands and inputs of IKE."""


def package(version: str) -> Path:
    return IKE / version


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """The modules that a file imports, also those that it imports as names of a package."""
    found = imported_modules(path)
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_version_knows_the_session(version: str) -> None:
    session = f"vpnd.ike.{version}.session"
    importing = {path.name for path in modules(package(version)) if session in imports(path)}
    assert importing == {"version.py"}


def test_no_import_runs_in_a_circle() -> None:
    """Imports for types alone count as well: there are none."""
    arrows = {name_of(path): imports(path) for path in modules(IKE)}
    arrows = {name: {to for to in found if to in arrows} for name, found in arrows.items()}
    while leaves := {name for name, found in arrows.items() if not found}:
        arrows = {name: found - leaves for name, found in arrows.items() if name not in leaves}
    assert arrows == {}, "these import each other"
    assert not [path for path in modules(IKE) if "TYPE_CHECKING" in path.read_text()]


def test_the_state_moves_in_one_place() -> None:
    places = []
    for path in modules(IKE):
        for function in nodes(path):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                targets = node.targets if isinstance(node, ast.Assign) else []
                places += [
                    f"{path.name} {function.name}"
                    for target in targets
                    for one in ast.walk(target)
                    if isinstance(one, ast.Attribute) and one.attr == "state"
                ]
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("_transition"):
                    places.append(f"{path.name} {function.name} calls it")
    assert sorted(places) == ["engine.py _run calls it", "engine.py _transition"]


@pytest.mark.parametrize("path", [*modules(IKE), *modules(TUNNEL)], ids=name_of)
def test_a_class_is_small(path: Path) -> None:
    for node in nodes(path):
        if isinstance(node, ast.ClassDef):
            require_small(node)


def require_small(node: ast.ClassDef) -> None:
    methods = [one for one in node.body if isinstance(one, ast.FunctionDef) and not one.name.startswith("_")]
    fields = {
        one.target.id
        for one in node.body
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    set_in_methods = {
        one.attr
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute)
        and isinstance(one.ctx, ast.Store)
        and isinstance(one.value, ast.Name)
        and one.value.id == "self"
    }
    assert len(fields | set_in_methods) <= ATTRIBUTES or node.name in MANY_FIELDS, node.name
    assert len(methods) <= METHODS or node.name in MANY_METHODS, node.name


WRITTEN = frozenset({"root.handlers"})
"""An attribute of the standard library."""


@pytest.mark.parametrize("path", [*modules(TUNNEL), *modules(DAEMON)], ids=lambda path: path.name)
def test_an_object_changes_itself_only(path: Path) -> None:
    """Its facts are written by its own methods; a module may write those of a class of its own."""
    own = {
        item.target.id
        for node in nodes(path)
        if isinstance(node, ast.ClassDef)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    attributes = [node for node in nodes(path) if isinstance(node, ast.Attribute)]
    stores = [node for node in attributes if isinstance(node.ctx, ast.Store)]
    own |= {node.attr for node in stores if ast.unparse(node.value) == "self"}
    written = {ast.unparse(node) for node in stores if node.attr not in own}
    assert written <= WRITTEN
