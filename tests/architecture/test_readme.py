"""The README is true: its commands, its layers and the functions on its journeys exist."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.architecture.code import ROOT, defined_names

README = ROOT / "README.md"
GUIDES = pytest.mark.parametrize("guide", ["README.md", "CONTRIBUTING.md"])


@pytest.mark.parametrize(
    "command", ["sudo make demo", "sudo make test", "make bench", "vpnctl status", "vpnctl why"]
)
def test_readme_shows_the_command(command: str) -> None:
    assert command in README.read_text()


def test_readme_names_every_layer_in_order() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = pyproject["tool"]["importlinter"]["contracts"][0]["layers"]
    layers = [layer.removeprefix("vpnd.") for layer in reversed(contract)]
    assert re.search(r"\b.{1,40}?".join(map(re.escape, layers)), README.read_text(), re.DOTALL), layers


@GUIDES
def test_every_file_that_is_named_exists(guide: str) -> None:
    named = set(re.findall(r"`((?:vpnd|conf|systemd|tests|bench)/[\w./-]+)`", (ROOT / guide).read_text()))
    assert named, "it points to no file at all"
    missing = {name for name in named if not (ROOT / name.rstrip("/")).exists()}
    assert missing == set()


@GUIDES
def test_every_function_that_is_named_exists(guide: str) -> None:
    named = re.findall(r"`(vpnd/[\w/]+\.py)` `([\w.]+)`", (ROOT / guide).read_text())
    assert len(named) >= 10
    missing = [f"{path} {name}" for path, name in named if name not in defined_names(ROOT / path)]
    assert missing == []


def test_make_offers_what_the_readme_says() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?sudo make ([a-z]+)\b|`make ([a-z]+)`", README.read_text()))
    assert named, "the README shows no make target at all"
    assert {name for pair in named for name in pair if name} <= targets


def test_build_machine_runs_what_a_person_runs() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
