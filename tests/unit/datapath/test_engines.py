"""Which engine is chosen: by the configuration, and by what is installed."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from vpnd.datapath.engine import PythonEngine
from vpnd.datapath.engines import NATIVE, EngineUnavailable, choose
from vpnd.datapath.interface import INTERFACE
from vpnd.model.policy import EngineChoice


class NativeEngine:
    """What an installed wheel would have."""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType(NATIVE)
    vars(module).update(INTERFACE=INTERFACE, NativeEngine=NativeEngine)
    monkeypatch.setitem(sys.modules, NATIVE, module)
    return module


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NATIVE, None)


def test_the_native_engine_is_taken_where_it_is_installed(installed: ModuleType) -> None:
    native: object = NativeEngine
    assert choose(EngineChoice.AUTO) is native
    assert choose(EngineChoice.NATIVE) is native
    assert choose(EngineChoice.PYTHON) is PythonEngine


def test_without_it_the_packets_go_through_python(absent: None) -> None:
    assert choose(EngineChoice.AUTO) is PythonEngine
    with pytest.raises(EngineUnavailable, match="cannot be loaded"):
        choose(EngineChoice.NATIVE)


@pytest.mark.parametrize("made_for", [INTERFACE - 1, INTERFACE + 1, None])
def test_one_that_was_made_for_another_vpnd_is_not_used(installed: ModuleType, made_for: int | None) -> None:
    vars(installed)["INTERFACE"] = made_for
    assert choose(EngineChoice.AUTO) is PythonEngine
    with pytest.raises(EngineUnavailable, match=f"version {made_for} of the interface"):
        choose(EngineChoice.NATIVE)
