"""Both roles for every exchange."""

from __future__ import annotations

import pytest

from .held import ROLES


@pytest.fixture(params=ROLES, ids=lambda name: f"{name} began")
def initiator(request: pytest.FixtureRequest) -> str:
    """Who began the IKE SA; `a` acts first in every ladder."""
    name: str = request.param
    return name
