"""Several IKEv1 tunnels between the same two addresses: which of them a peer's attempt is of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.bounds import KEYS_TRIED
from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, MODES, pair_of, speaking
from tests.simulation.v1.stage import Stage
from vpnd.ike.outputs import Failed
from vpnd.model.diagnosis import Code
from vpnd.model.identity import Identity
from vpnd.model.policy import NegotiationMode
from vpnd.model.proposals import Proposal
from vpnd.model.secret import Secret
from vpnd.wire.iana import Protocol
from vpnd.wire.ikev1 import Hash

AES_256 = Proposal(Protocol.IKE, ("aes-256",), ("sha384",), ("sha384",), (31,))


def add(pair: Pair, number: int, mode: NegotiationMode, **changes: Any) -> None:
    """A further tunnel, `number` from 2, with inside networks of its own, the same changes at both ends."""
    for gateway, peer, policy in zip((pair.a, pair.b), ("b", "a"), Recipe().pair(), strict=True):
        here, there = (2 * number, 2 * number + 1) if gateway is pair.a else (2 * number + 1, 2 * number)
        children = (Recipe().child(0, here, there),)
        name = f"{policy.name}-{number}"
        gateway.set_peer(peer, replace(policy, name=name, children=children, **speaking(mode, changes)))


def named(pair: Pair, number: int, identity: str) -> None:
    """The initiator of tunnel `number` has this name."""
    for gateway in (pair.a, pair.b):
        name = next(name for name in gateway.policies if name.endswith(f"-{number}"))
        policy, its = gateway.policies[name], Identity.of(identity)
        named = replace(policy, local_id=its) if gateway is pair.a else replace(policy, remote_id=its)
        gateway.set_peer(gateway.peers[name], named)


def bring_up(pair: Pair, number: int) -> None:
    """Tunnel `number` from a; afterwards both ends have its pair under its name."""
    pair.a.initiate(0, f"to-b-{number}")
    pair.world.settle()
    ours = [one.child for one in pair.a.installed.values() if one.child.tunnel == f"to-b-{number}"]
    theirs = [one.child for one in pair.b.installed.values() if one.child.tunnel == f"to-a-{number}"]
    assert [(one.spi_in, one.spi_out) for one in ours] == [(one.spi_out, one.spi_in) for one in theirs]
    assert len(ours) == 1


@pytest.mark.parametrize("mode", MODES)
def test_each_has_its_own_key_and_identity(mode: NegotiationMode) -> None:
    pair = pair_of(mode)
    for number in (2, 3, 4):
        add(pair, number, mode, psk=Secret(b"the key of number %d" % number))
        named(pair, number, f"branch-{number}.example")
    for number in (4, 2, 3):
        bring_up(pair, number)
    pair.a.initiate(0, "to-b")
    pair.world.settle()
    assert len(pair.b.installed) == 4
    assert not pair.a.of(Failed)
    assert not pair.b.of(Failed)


@pytest.mark.parametrize("mode", MODES)
def test_an_offer_is_matched_with_all_of_them(mode: NegotiationMode) -> None:
    """The second has other algorithms and the key of the first."""
    pair = pair_of(mode)
    add(pair, 2, mode, proposals=(AES_256,))
    named(pair, 2, "branch-2.example")
    bring_up(pair, 2)
    (sa,) = pair.b.ike_sas("to-a-2")
    assert (sa.suite.encryption, sa.suite.integrity) == ("aes-256", "sha384")


def test_with_the_same_identities_the_key_tells_them_apart_in_main_mode() -> None:
    pair = pair_of(MAIN)
    add(pair, 2, MAIN, psk=Secret(b"another"))
    bring_up(pair, 2)


def test_with_the_same_identities_the_offer_tells_them_apart_in_aggressive_mode() -> None:
    pair = pair_of(AGGRESSIVE)
    add(pair, 2, AGGRESSIVE, proposals=(AES_256,), psk=Secret(b"another"))
    bring_up(pair, 2)


def test_a_key_of_none_of_them_is_refused_and_all_are_named() -> None:
    pair = pair_of(MAIN, changes_a={"psk": Secret(b"of nobody")})
    add(pair, 2, MAIN, psk=Secret(b"another"))
    pair.a.initiate(0, "to-b")
    pair.world.run_for(60)
    failed = pair.b.of(Failed)[0]
    assert failed.diagnosis.code is Code.PSK
    ours = [Secret(key).fingerprint() for key in (Recipe().psk, b"another")]
    assert failed.diagnosis.fact("ours") == " or ".join(ours)
    assert not pair.b.installed


def test_the_key_of_one_does_not_prove_the_identity_of_another() -> None:
    pair = pair_of(MAIN)
    add(pair, 2, MAIN, psk=Secret(b"another"))
    named(pair, 2, "branch-2.example")
    first = pair.a.policies["to-b"]
    pair.a.set_peer("b", replace(first, local_id=Identity.of("branch-2.example")))
    pair.a.initiate(0, "to-b")
    pair.world.run_for(60)
    failed = pair.b.of(Failed)[0]
    assert (failed.tunnel, failed.diagnosis.code) == ("to-a", Code.IDENTITY)
    assert failed.diagnosis.fact("theirs") == "branch-2.example (FQDN)"
    assert failed.diagnosis.fact("ours") == "192.0.2.1 (IPV4_ADDR)"
    assert not pair.b.installed


def test_a_suite_that_only_another_tunnel_allows_is_refused_once_the_identity_is_known() -> None:
    """The offer fits the first, the identity is of the second, which asks for more."""
    pair = pair_of(MAIN)
    add(pair, 2, MAIN)
    named(pair, 2, "branch-2.example")
    strict = pair.b.policies["to-a-2"]
    pair.b.set_peer("a", replace(strict, proposals=(AES_256,)))
    pair.a.initiate(0, "to-b-2")
    pair.world.run_for(60)
    failed = pair.b.of(Failed)[0]
    assert (failed.tunnel, failed.diagnosis.code) == ("to-a-2", Code.P1_ENCRYPTION)
    assert (failed.diagnosis.fact("theirs"), failed.diagnosis.fact("ours")) == ("aes-128", "aes-256")
    assert not pair.b.installed


def test_a_damaged_proof_does_not_decide_which_of_them_it_is() -> None:
    """It decrypts with the key of the second, and proves nothing: the peer's real proof, sent again, does."""
    stage = Stage()
    (first,) = stage.gateway.policies.values()
    stage.gateway.set_peer("a", replace(first, name="second", psk=Secret(b"another")))
    puppet = stage.puppet(psk=b"another")
    stage.answered_key(puppet)
    first_iv = puppet.iv
    identity, proof = puppet.proof_payloads()
    assert isinstance(proof, Hash)
    stage.say(puppet.seal_phase1([identity, Hash(bytes(len(proof.data)))]))
    assert [sa.tunnel for sa in stage.endpoint.snapshot().sas] == [first.name]
    puppet.iv = first_iv
    puppet.take_phase1(*stage.say(puppet.seal_phase1([identity, proof])))
    assert len(stage.gateway.ike_sas("second")) == 1
    assert not stage.gateway.of(Failed)


def test_not_more_than_a_few_keys_are_tried() -> None:
    pair = pair_of(MAIN)
    for number in range(2, KEYS_TRIED + 2):
        add(pair, number, MAIN, psk=Secret(b"number %d" % number))
    bring_up(pair, KEYS_TRIED)
    pair.a.initiate(0, f"to-b-{KEYS_TRIED + 1}")
    pair.world.run_for(60)
    assert pair.b.of(Failed)[0].diagnosis.code is Code.PSK
    assert len(pair.b.installed) == 1
