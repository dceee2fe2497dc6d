"""Configurations at random: few tunnels and few values, so that two of them have much in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

NAMES = ("a", "b", "c", "d")

KEYS = ("a key that nobody has to guess 1234", "another key that nobody guesses 5678")

Tables = Mapping[str, Mapping[str, Any]]

_OPTIONAL: dict[str, st.SearchStrategy[object]] = {
    "priority": st.sampled_from([0, 100]),
    "description": st.sampled_from(["", "the office in the north"]),
    "mtu": st.sampled_from([1300, 1400]),
    "ike": st.fixed_dictionaries(
        {},
        optional={
            "version": st.sampled_from(["ikev1", "ikev2"]),
            "lifetime": st.sampled_from([3600, 86400]),
            "encryption": st.sampled_from(["aes-128", "aes-256"]),
            "local_id": st.sampled_from(["192.0.2.1", "hq.example"]),
        },
    ),
    "ipsec": st.fixed_dictionaries(
        {}, optional={"pfs": st.sampled_from(["disable", 14]), "lifetime": st.sampled_from([1800, 3600])}
    ),
    "dpd": st.fixed_dictionaries({}, optional={"timeout": st.sampled_from([30, 60])}),
}


def _tunnel(name: str) -> st.SearchStrategy[dict[str, Any]]:
    number = NAMES.index(name)
    routed = st.builds(
        lambda routes, more: {"routes": routes, **more},
        st.lists(st.sampled_from([f"10.{number}.{n}.0/24" for n in range(3)]), min_size=1, unique=True),
        st.fixed_dictionaries({}, optional=_OPTIONAL),
    )
    by_policy = st.builds(
        lambda remote, more: {
            "communication": "spd-policy",
            "spd": [{"local": [f"172.16.{number}.0/24"], "remote": remote}],
            **more,
        },
        st.lists(st.sampled_from([f"10.1{number}.{n}.0/24" for n in range(4)]), min_size=1, unique=True),
        st.fixed_dictionaries({}, optional=_OPTIONAL),
    )
    return st.one_of(routed, by_policy)


def tunnels() -> st.SearchStrategy[Tables]:
    """Some of the four tunnels, each with its table but for customer gateway and key."""
    return st.fixed_dictionaries({}, optional={name: _tunnel(name) for name in NAMES})
