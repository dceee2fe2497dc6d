"""Both roles for every exchange."""

from __future__ import annotations

import pytest

from .held import ROLES, HeldPair


@pytest.fixture(params=ROLES, ids=lambda name: f"{name} began")
def initiator(request: pytest.FixtureRequest) -> str:
    """Who began the IKE SA; `a` acts first in every ladder."""
    name: str = request.param
    return name


@pytest.fixture
def held(initiator: str) -> HeldPair:
    """A tunnel that is up, of which every message is held."""
    return HeldPair(initiator)
