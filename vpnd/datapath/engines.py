"""Which engine carries the packets: the one in Python, or the native one where it is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from vpnd.datapath.interface import INTERFACE, Engine, EngineOptions, OnIke, OnNotice
from vpnd.model.policy import EngineChoice
from vpnd.model.selectors import Address

NATIVE = "vpnd_engine"
"""The module of the native engine, which has a wheel of its own."""

HOW_TO_INSTALL = "pip install 'vpnd[native]' in vpnd's environment, or `make engine` in its source"


class EngineUnavailable(Exception):
    """The native engine was asked for and cannot be used; the message says why, in words for the operator."""


def is_native_installed() -> bool:
    """Whether the native engine can be imported, without importing it."""
    return find_spec(NATIVE) is not None


Maker = Callable[[asyncio.AbstractEventLoop, Sequence[Address], OnIke, OnNotice, EngineOptions], Engine]
"""Makes an engine on an event loop, which must be the caller's, and listens on these addresses.

Raises OSError if a socket cannot be opened.
"""


def choose(choice: EngineChoice) -> Maker:
    """What makes the engine of this choice.

    AUTO is the native one where it is installed and made for this version of the interface, otherwise the
    one in Python. Raises EngineUnavailable for NATIVE where that is not so.
    """
    if choice is not EngineChoice.PYTHON:
        try:
            return _native()
        except EngineUnavailable:
            if choice is EngineChoice.NATIVE:
                raise
    from vpnd.datapath.engine import PythonEngine

    return PythonEngine


def _native() -> Maker:
    try:
        module = import_module(NATIVE)
    except ImportError as error:
        raise EngineUnavailable(f"the native engine cannot be loaded: {error}; {HOW_TO_INSTALL}") from error
    made_for = getattr(module, "INTERFACE", None)
    if made_for != INTERFACE:
        raise EngineUnavailable(
            f"the native engine that is installed was made for version {made_for} of the interface,"
            f" this vpnd has {INTERFACE}; {HOW_TO_INSTALL}"
        )
    return cast(Maker, module.NativeEngine)
