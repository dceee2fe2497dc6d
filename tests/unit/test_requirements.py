"""What a test needs and this machine lacks: a skip with the reason, and a failure where CI=true."""

from __future__ import annotations

import sys

import pytest

from tests.engines import missing_for_native
from tests.requirements import missing_for_root, require


def test_what_is_there_is_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    require(None)


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_root_a_build_machine_fails(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(outcome, match="needs root: run `sudo make test`"):
        require(missing_for_root())


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_the_native_engine_a_build_machine_fails(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setitem(sys.modules, "vpnd_engine", None)
    with pytest.raises(outcome, match="the native engine cannot be loaded"):
        require(missing_for_native())
