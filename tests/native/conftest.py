"""All of this is about the native engine."""

from __future__ import annotations

import pytest

from tests.engines import missing_for_native
from tests.requirements import require


@pytest.fixture(autouse=True)
def built() -> None:
    require(missing_for_native())
