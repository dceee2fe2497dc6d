"""The differential tests: the same bytes through `vpnd.datapath` and through the native engine."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# A failure prints the blob that repeats it; shared build machines are too uneven for whatever counts seconds.
settings.register_profile(
    "engine", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("engine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    needs_root = pytest.mark.skip(reason="needs root: TUNs, network namespaces, sockets of IP protocol 50")
    for item in items:
        if item.get_closest_marker("root") is not None:
            item.add_marker(needs_root)
