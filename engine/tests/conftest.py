"""The differential tests: the same bytes through `vpnd.datapath` and through the native engine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A failure prints the blob that repeats it; shared build machines are too uneven for whatever counts seconds.
settings.register_profile(
    "engine", print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("engine")
