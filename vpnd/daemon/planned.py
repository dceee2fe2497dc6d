"""What leads from one configuration to another, as the API says it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vpnd.config.classes import Difference, KeyChange, TunnelDifference
from vpnd.control.schema import KeyChangeBody, TunnelPlan


def difference(found: Difference) -> dict[str, Any]:
    """The fields that a plan and what was applied have in common."""
    return {
        "gateway": keys(found.gateway),
        "tunnels": [_tunnel(one) for one in found.tunnels],
        "unchanged": list(found.unchanged),
    }


def keys(changes: Iterable[KeyChange]) -> list[KeyChangeBody]:
    """What each key was and will be."""
    return [
        KeyChangeBody(key=one.key, before=one.before, after=one.after, class_=one.change_class.value)
        for one in changes
    ]


def _tunnel(one: TunnelDifference) -> TunnelPlan:
    return TunnelPlan(
        tunnel=one.name,
        change=one.kind.value,
        class_=one.change_class.value,
        cost=one.cost,
        keys=keys(one.keys),
        mappings_added=one.mappings_added,
        mappings_removed=one.mappings_removed,
        mappings_kept=one.mappings_kept,
    )
