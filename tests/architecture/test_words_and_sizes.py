"""Names say what a thing is, a protocol version is a package and never a flag, functions stay readable."""

from __future__ import annotations

import ast
import re

import pytest

from tests.architecture.code import ROOT, functions, length_without_docstring, modules, names_given

VPND = ROOT / "vpnd"
FUNCTION_LINES = 60
EMPTY_WORDS = re.compile(r"manager|helper|utils?(?![a-z])|misc(?![a-z])", re.IGNORECASE)
# A number of a registry may be called `ikev2`; a truth value, a parameter `v2` and a class `KeysV2` may not.
VERSION_FLAG = re.compile(r"^(is|use|for|has)_(ike)?_?v[12]$|^v[12]$|^_?[A-Z]\w*V[12]$")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")


def test_no_empty_words_in_names() -> None:
    found = [str(path.relative_to(ROOT)) for path in modules(VPND) if EMPTY_WORDS.search(path.stem)]
    found += [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in modules(VPND)
        for line, name in names_given(path)
        if EMPTY_WORDS.search(name)
    ]
    assert found == []


def test_a_version_is_a_package_and_never_a_flag() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in modules(VPND)
        for line, name in names_given(path)
        if VERSION_FLAG.search(name)
    ]
    assert found == []


@pytest.mark.parametrize("name", ["is_v1", "use_ikev2", "v2", "KeysV1", "_StateV2"])
def test_a_version_flag_would_be_seen(name: str) -> None:
    assert VERSION_FLAG.search(name)


def test_nothing_is_unfinished() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in modules(VPND)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_functions_fit_on_a_screen() -> None:
    """One that ends in a `match` grows with the cases, and is read a case at a time."""
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": lines
        for path in modules(VPND)
        for node in functions(path)
        if (lines := length_without_docstring(node)) > FUNCTION_LINES
        and not isinstance(node.body[-1], ast.Match)
    }
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in modules(VPND)
        if not path.read_text().lstrip().startswith(('"""', 'r"""'))
    ]
    assert silent == []
