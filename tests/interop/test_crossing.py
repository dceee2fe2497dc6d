"""Both ends have begun, and strongSwan drops the IKE SA that both should keep, without a word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.interop.conftest import Opposite
from tests.lab.lab import Namespace
from tests.lab.plan import NO_DPD, A, B, Plan
from tests.lab.process import wait_until
from tests.lab.topology import agreement
from tests.lab.traffic import ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

DROPPED = "received INITIAL_CONTACT"
"""What charon logs when it destroys the older of two IKE SAs; it sends no DELETE for it."""
TRIES = 8
"""Attempts until strongSwan drops the one that stays by the rule: every other one on average."""
OUR_PROOF = {
    "ikev2": "udp dport 4500 @th,64,32 0 @th,240,8 35 @th,248,8 8",
    "ikev1": "udp dport 4500 @th,64,32 0 @th,240,8 2 @th,248,8 1 udp length > 120",
}
"""IKE_AUTH requests of one who has begun the IKE SA (RFC 7296 section 3.1), behind the non-ESP marker;
message 5 of main mode, which INITIAL_CONTACT makes longer than message 6."""
HIGHER = replace(A, identity="vpnd.example")
"""Of two ISAKMP SAs of IKEv1 the one of the lower identity stays, and an FQDN is higher than an address."""


@contextmanager
def without(peer: Namespace, match: str) -> Iterator[None]:
    """The peer's host receives no packet like this."""
    peer.run("nft", "add table inet lab")
    try:
        peer.run("nft", "add chain inet lab input { type filter hook input priority 0 ; }")
        peer.run("nft", f"add rule inet lab input {match} counter drop")
        yield
    finally:
        peer.run("nft", "delete table inet lab")


def spis(sas: list[dict[str, Any]], state: str) -> list[str]:
    """The initiators' SPIs of charon's IKE SAs in this state."""
    return [sa["initiator-spi"] for sa in sas if sa["state"] == state]


def passes(opposite: Opposite) -> bool:
    """Whether a packet goes through and its answer comes back."""
    return bool(ping(opposite.wire.a.host, A.inside, B.inside, count=1, patience=1).received)


def crossed(opposite: Opposite, plan: Plan) -> bool:
    """Have both ends begin, and charon drop its own IKE SA; whether that is the one that both should keep.

    Its INITIAL_CONTACT is in our proof, which charon gets after its own IKE SA is up.
    """
    ours, peer = opposite.ours, opposite.peer
    peer.add(plan.other())
    with without(opposite.wire.b.gateway, OUR_PROOF[plan.version]):
        ours.add(plan)
        wait_until(lambda: bool(spis(peer.sas(), "CONNECTING")), "our first message to be answered")
        (begun_here,) = spis(peer.sas(), "CONNECTING")
        peer.up(plan.name)
        (begun_there,) = spis(peer.sas(), "ESTABLISHED")
        before = peer.log().count(DROPPED)
    wait_until(lambda: peer.log().count(DROPPED) > before, "strongSwan to drop its IKE SA")
    assert spis(peer.sas(), "ESTABLISHED") == [begun_here]
    return begun_there < begun_here or plan.version == "ikev1"


@pytest.mark.parametrize("version", ["ikev2", "ikev1"])
def test_the_one_of_two_that_strongswan_has_dropped_is_the_one_that_goes(
    version: str, opposite: Opposite
) -> None:
    """Dead peer detection would find that an hour later, and nothing is sent that could show it sooner."""
    ours, peer = opposite.ours, opposite.peer
    assert isinstance(ours, Vpnd)
    plan = Plan(name="crossing", negotiation="active", dpd_timeout=NO_DPD, version=version, local=HIGHER)
    for _ in range(TRIES):
        try:
            as_meant = crossed(opposite, plan)
            wait_until(lambda: len(ours.ike_sas(plan.name)) == 1, "one IKE SA")
            agreement(ours, peer, plan.name)
            # The pair that went with the dropped one is sent on for a moment more.
            wait_until(lambda: passes(opposite), "traffic")
            assert "E-DPD" not in ours.told(plan.name)
        finally:
            ours.remove(plan.name)
            peer.remove(plan.name)
        if as_meant:
            break
