"""Each layer imports only those before it, and the core asks neither the clock nor the operating system."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from importlinter.application import use_cases
from importlinter.configuration import configure

from tests.architecture.code import ROOT, imported_modules, modules, nodes

CORE = ("wire", "model", "crypto", "ike", "tunnel", "datapath")
ASKING = frozenset({"time", "os", "random", "secrets", "socket", "asyncio"})
TOUCHES_THE_WORLD = frozenset(
    {"crypto/entropy.py", "datapath/engine.py", "datapath/engines.py", "datapath/sockets.py"}
)

configure()


def test_import_linter_finds_no_broken_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert use_cases.lint_imports(config_filename="pyproject.toml", cache_dir=None)


@pytest.mark.parametrize("layer", CORE)
def test_core_is_told_and_never_asks(layer: str) -> None:
    asking = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(ROOT / "vpnd" / layer)
        if path.relative_to(ROOT / "vpnd").as_posix() not in TOUCHES_THE_WORLD
        for name in imported_modules(path)
        if name.partition(".")[0] in ASKING
    }
    assert asking == set()


@pytest.mark.parametrize(
    ("library", "homes"),
    [("pyroute2", {"host/messages.py"}), ("asyncio_dgram", {"host/ike_socket.py"}), ("scapy", set[str]())],
)
def test_a_library_that_does_io_has_one_home(library: str, homes: set[str]) -> None:
    importing = {
        path.relative_to(ROOT / "vpnd").as_posix()
        for path in modules(ROOT / "vpnd")
        if any(name.partition(".")[0] == library for name in imported_modules(path))
    }
    assert importing <= homes


def test_nothing_refuses_a_peer_by_assert() -> None:
    asserting = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules(ROOT / "vpnd")
        for node in nodes(path)
        if isinstance(node, ast.Assert)
    }
    assert asserting == set()


def test_the_checks_see_what_they_look_for(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("import time\nfrom socket import AF_INET\n\ndef f():\n    import os.path\n")
    assert imported_modules(module) == {"time", "socket", "os.path"}


OWN_OF_THE_DAEMON = frozenset({"self", "cls", "attached", "answers", "root"})
"""Variables whose attributes the daemon may set: its own objects."""


def test_the_state_of_the_core_is_written_by_the_core() -> None:
    """The daemon calls methods, so that a class of the core shows every place that changes it."""
    written = {
        f"{path.relative_to(ROOT)}:{target.lineno} {ast.unparse(target)}"
        for path in modules(ROOT / "vpnd/daemon")
        for node in nodes(path)
        for target in assigned(node)
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) not in OWN_OF_THE_DAEMON
    }
    assert written == set()


def assigned(node: ast.AST) -> list[ast.expr]:
    """What a statement assigns to, one by one."""
    if isinstance(node, ast.AugAssign | ast.AnnAssign):
        return [node.target]
    found: list[ast.expr] = []
    for target in node.targets if isinstance(node, ast.Assign) else []:
        found += target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
    return found
