"""What a tunnel's settings do to its negotiations and its SAs, in both versions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from vpnd.crypto.suites import as_cut
from vpnd.ike.outputs import ChildFailed, ChildReplaced, ChildUp, IkeReplaced
from vpnd.ike.v2.selectors import touched
from vpnd.model.diagnosis import Code
from vpnd.model.policy import DpdPolicy, Lifetimes, Margin, NegotiationMode
from vpnd.model.proposals import Suite
from vpnd.model.selectors import ANY_PORT, Ports, Selector
from vpnd.wire.iana import IkeVersion

QUIET: dict[str, Any] = {"dpd": DpdPolicy(enabled=False)}
SPOKEN: dict[str, dict[str, Any]] = {
    "IKEv2": QUIET,
    "IKEv1 main": QUIET | {"version": IkeVersion.V1, "mode": NegotiationMode.MAIN},
    "IKEv1 aggressive": QUIET | {"version": IkeVersion.V1, "mode": NegotiationMode.AGGRESSIVE},
}


def children(side: int, **changes: Any) -> dict[str, Any]:
    """The children of one side (0: a, 1: b) of the usual pair, with other values."""
    policy = Recipe().pair()[side]
    return {"children": tuple(replace(child, **changes) for child in policy.children)}


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize(("percent", "fuzz"), [(40, 0), (2, 0), (20, 100), (10, 300)])
def test_a_child_is_rekeyed_the_margin_before_its_end(spoken: str, percent: int, fuzz: int) -> None:
    """The other side waits until a hundredth is left, so it is this side that begins."""
    margin, last = Margin(percent, fuzz), Margin(1, 0)
    pair = Pair(
        seed=percent,
        changes_a=SPOKEN[spoken] | children(0, lifetimes=Lifetimes(10_000, None, margin)),
        changes_b=SPOKEN[spoken] | children(1, lifetimes=Lifetimes(10_000, None, last)),
    )
    pair.establish()
    pair.world.run_for(margin.soft(10_000, 1) - 5)
    assert not pair.a.of(ChildReplaced)
    pair.world.run_for(margin.soft(10_000, 0) - margin.soft(10_000, 1) + 10)
    assert len(pair.a.of(ChildReplaced)) == 1


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("fuzz", [0, 100])
def test_the_ike_sa_has_a_margin_of_its_own(spoken: str, fuzz: int) -> None:
    margin, last = Margin(30, fuzz), Margin(1, 0)
    pair = Pair(
        seed=3,
        changes_a=SPOKEN[spoken] | {"lifetime": 10_000, "margin": margin},
        changes_b=SPOKEN[spoken] | {"lifetime": 10_000, "margin": last},
    )
    pair.establish()
    pair.world.run_for(margin.soft(10_000, 1) - 5)
    assert not pair.a.of(IkeReplaced)
    pair.world.run_for(margin.soft(10_000, 0) - margin.soft(10_000, 1) + 10)
    assert len(pair.a.of(IkeReplaced)) == 1


@pytest.mark.parametrize("spoken", SPOKEN)
def test_the_chance_is_another_for_each(spoken: str) -> None:
    """SAs that were made together are not replaced together."""
    margin = Margin(10, 300)
    moments = set()
    for seed in range(12):
        both = Lifetimes(10_000, None, margin)
        pair = Pair(
            seed=seed,
            changes_a=SPOKEN[spoken] | children(0, lifetimes=both),
            changes_b=SPOKEN[spoken] | children(1, lifetimes=Lifetimes(10_000, None, Margin(1, 0))),
        )
        pair.establish()
        begun = pair.world.now
        pair.world.run_until(lambda: pair.a.of(ChildReplaced), within=10_000)  # noqa: B023 (used at once)
        moments.add(round(pair.world.now - begun))
    assert len(moments) >= 10
    assert min(moments) >= 5_990
    assert max(moments) <= 9_010
    assert max(moments) - min(moments) >= 1_500


# ---------------------------------------------------------------------------- what protects packets


def offering(side: int, *esn: bool) -> dict[str, Any]:
    """The children of one side, which takes these sequence numbers, the preferred first."""
    (child,) = Recipe().pair()[side].children
    return children(side, proposals=tuple(replace(one, esn=esn) for one in child.proposals))


@pytest.mark.parametrize(
    ("ours", "theirs", "agreed"),
    [
        ((True, False), (True, False), True),
        ((True, False), (False,), False),
        ((True, False), (True,), True),
        ((True,), (True, False), True),
        ((False,), (True, False), False),
        ((True,), (False,), None),
        ((False,), (True,), None),
    ],
)
def test_extended_sequence_numbers_are_agreed_on(
    ours: tuple[bool, ...], theirs: tuple[bool, ...], agreed: bool | None
) -> None:
    pair = Pair(changes_a=QUIET | offering(0, *ours), changes_b=QUIET | offering(1, *theirs))
    pair.a.initiate()
    pair.world.run_for(2)
    if agreed is None:
        (failed,) = pair.a.of(ChildFailed)
        assert failed.diagnosis.code in (Code.P2_PROPOSAL, Code.P2_ESN)
        return
    assert {one.child.suite.esn for gateway in (pair.a, pair.b) for one in gateway.installed.values()} == {
        agreed
    }
    pair.a.rekey_child(0)
    pair.world.run_for(2)
    (replaced,) = pair.a.of(ChildReplaced)
    assert replaced.child.suite.esn is agreed


@pytest.mark.parametrize("spoken", SPOKEN)
def test_the_settings_of_esp_reach_every_sa(spoken: str) -> None:
    """The first and its successors, of who begins and of who answers."""
    settings = {"replay_window": 64, "sha256_96": True}
    pair = Pair(
        changes_a=SPOKEN[spoken] | children(0, **settings), changes_b=SPOKEN[spoken] | children(1, **settings)
    )
    pair.establish()
    pair.a.rekey_child(0)
    pair.world.run_for(2)
    pair.b.rekey_child(0)
    pair.world.run_for(2)
    for gateway in (pair.a, pair.b):
        sas = [up.child for up in gateway.of(ChildUp)] + [new.child for new in gateway.of(ChildReplaced)]
        assert len(sas) == 3
        assert {(sa.replay_window, sa.suite.icv_length) for sa in sas} == {(64, 12)}


def test_only_esp_cuts_sha256_short() -> None:
    """The IKE SA keeps to RFC 4868, and so does every other algorithm."""
    assert as_cut(Suite("aes-128", None, "sha1", None), True).icv_length is None
    assert as_cut(Suite("aes-128-gcm", None, None, None), True).icv_length is None
    assert as_cut(Suite("aes-128", None, "sha256", None), False).icv_length is None


# --------------------------------------------------------------------------------- protocol and ports

TCP = 6


def narrowed(side: int, *rules: tuple[int, Ports, Ports]) -> dict[str, Any]:
    """One side with a mapping for each protocol, our ports and the peer's, all between the same ranges."""
    (child,) = Recipe().pair()[side].children
    return {
        "children": tuple(
            replace(child, index=index, protocol=protocol, local_ports=local, remote_ports=remote)
            for index, (protocol, local, remote) in enumerate(rules)
        )
    }


HTTPS = (TCP, (443, 443), ANY_PORT)
SYSLOG = (17, ANY_PORT, (514, 514))
PING = (1, ANY_PORT, ANY_PORT)
WIDE = (TCP, (1024, 2047), (8000, 8999))


@pytest.mark.parametrize("initiator", ["a", "b"])
@pytest.mark.parametrize("spoken", SPOKEN)
def test_each_mapping_has_the_sa_of_its_protocol_and_ports(spoken: str, initiator: str) -> None:
    rules = [HTTPS, SYSLOG, PING] + ([WIDE] if spoken == "IKEv2" else [])
    mirrored = [(protocol, remote, local) for protocol, local, remote in reversed(rules)]
    pair = Pair(
        changes_a=SPOKEN[spoken] | narrowed(0, *rules), changes_b=SPOKEN[spoken] | narrowed(1, *mirrored)
    )
    gateways = {"a": (pair.a, rules), "b": (pair.b, mirrored)}
    began, its_rules = gateways[initiator]
    for index in range(len(rules)):
        began.initiate(index)
        pair.world.run_for(2)
    for gateway, wanted in gateways.values():
        policy = gateway.policies[gateway.tunnel]
        sas = {one.child.mapping: one.child for one in gateway.installed.values()}
        assert sorted(sas) == list(range(len(wanted)))
        for index, sa in sas.items():
            assert sa.ts_local == (policy.children[index].ts_local,)
            assert sa.ts_remote == (policy.children[index].ts_remote,)
    began.rekey_child(len(its_rules) - 1)
    pair.world.run_for(2)
    (renewed,) = began.of(ChildReplaced)
    assert renewed.child.ts_local == (began.policies[began.tunnel].children[-1].ts_local,)


@pytest.mark.parametrize(
    "theirs", [(TCP, ANY_PORT, (444, 444)), (17, ANY_PORT, (443, 443)), (TCP, (1, 2), (443, 443))]
)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_other_ports_are_refused_and_named(spoken: str, theirs: tuple[int, Ports, Ports]) -> None:
    ours = (TCP, (443, 443), (80, 80))
    pair = Pair(changes_a=SPOKEN[spoken] | narrowed(0, ours), changes_b=SPOKEN[spoken] | narrowed(1, theirs))
    pair.a.initiate()
    pair.world.run_for(2)
    (failed,) = pair.a.of(ChildFailed)
    assert failed.diagnosis.code is Code.TRAFFIC_SELECTORS
    (refused,) = pair.b.of(ChildFailed) or pair.a.of(ChildFailed)
    assert refused.diagnosis.code is Code.TRAFFIC_SELECTORS


def test_a_peer_with_wider_ports_gets_what_both_have() -> None:
    """IKEv2 narrows (RFC 7296 section 2.9), from either end."""
    pair = Pair(
        changes_a=QUIET | narrowed(0, (TCP, (443, 443), ANY_PORT)),
        changes_b=QUIET | narrowed(1, (0, ANY_PORT, ANY_PORT)),
    )
    pair.a.initiate()
    pair.world.run_for(2)
    for gateway, end in ((pair.a, "local"), (pair.b, "remote")):
        (one,) = gateway.installed.values()
        (selector,) = getattr(one.child, f"ts_{end}")
        assert (selector.protocol, selector.port_start, selector.port_end) == (TCP, 443, 443)


def test_an_offer_touches_only_the_mappings_of_its_ports() -> None:
    """Several subnets in one offer are told apart by their ports too."""
    policy = narrowed(0, HTTPS, SYSLOG, PING)["children"]
    https = policy[0]
    assert touched(policy, (https.ts_local,), (https.ts_remote,)) == (0,)
    assert touched(policy, (Selector.of(https.local),), (Selector.of(https.remote),)) == (0, 1, 2)
