"""What the linters do not look at: each place says why, and no file or module is left out as a whole."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.architecture.code import ROOT, modules, nodes

PLACES = ("vpnd", "tests", "bench", "docs", "contrib")
SILENCED = re.compile(r"#\s*(noqa|type:\s*ignore)\b(?P<code>:\s*[A-Z0-9, ]+|\[[a-z, -]+\])?(?P<reason>.*)")
UNCOUNTED = re.compile(r"#\s*pragma:\s*no\s*(cover|branch)(?P<reason>.*)")
TYPED = ("vpnd", "docs", "tests", "bench")


def silenced(path: Path) -> list[str]:
    """The lines of a file that silence a check without its code or a reason."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        match = SILENCED.search(line)
        if match and (not match["code"] or len(re.sub(r"[^a-z]", "", match["reason"])) < 5):
            found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


@pytest.mark.parametrize("place", PLACES)
def test_what_silences_a_check_says_which_and_why(place: str) -> None:
    assert [line for path in modules(ROOT / place) for line in silenced(path)] == []


def test_what_is_left_out_of_the_branch_coverage_says_why() -> None:
    """A line of vpnd has its reason beside it; the settings of coverage leave no line out by its text."""
    lines = ((path, line) for path in modules(ROOT / "vpnd") for line in path.read_text().splitlines())
    found = ((path, line, UNCOUNTED.search(line)) for path, line in lines)
    bare = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path, line, match in found
        if match and len(re.sub(r"[^a-z]", "", match["reason"])) < 5
    ]
    assert bare == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert "coverage" not in project


def test_every_module_is_typed_and_no_test_reaches_for_private_members() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert set(project["mypy"]["packages"]) == set(TYPED)
    assert not [one for one in project["mypy"]["overrides"] if one.get("ignore_errors")]
    ignored = project["ruff"]["lint"]["per-file-ignores"]
    assert [place for place, codes in ignored.items() if "SLF001" in codes] == ["vpnd/*"]


def test_the_facts_of_a_diagnosis_are_typed() -> None:
    """A dictionary of facts is a `Known`: else a wrong key would only show when it happens."""
    untyped = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules(ROOT / "vpnd")
        for node in nodes(path)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        if any(isinstance(target, ast.Name) and target.id == "facts" for target in node.targets)
    ]
    assert untyped == []
