"""Reading the code as text and as a syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def modules(under: Path) -> list[Path]:
    """Every Python file below a directory."""
    return sorted(under.rglob("*.py"))


@lru_cache(maxsize=400)
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file, which several tests of this directory read."""
    return ast.parse(path.read_text())


@lru_cache(maxsize=400)
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Every node of it; to walk through a tree takes longer than to make it."""
    return tuple(ast.walk(tree(path)))


def imported_modules(path: Path) -> set[str]:
    """The absolute module names that a file imports, wherever in it."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def names_given(path: Path) -> Iterator[tuple[int, str]]:
    """Every name that a file gives to something: classes, functions, parameters and variables, with lines."""
    for node in nodes(path):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def defined_names(path: Path) -> set[str]:
    """Every function and method of a file, methods also as `Class.method`."""
    names = {node.name for node in functions(path)}
    for node in nodes(path):
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
            names.update(
                f"{node.name}.{member.name}"
                for member in node.body
                if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
            )
    return names


def length_without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's body, its docstring aside."""
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
