"""A tunnel's pre-shared key is replaced while both ends go on: in each state of both, whichever end begins.

old    pre_shared_key is the old key
both   next_pre_shared_key, the new key, beside it
new    pre_shared_key is the new key
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.simulation.bounds import SETTLING
from tests.simulation.pair import Pair
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, speaking
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import Failed, NextKeyProved, PeerDead
from vpnd.ike.shared_keys import KeyInUse, KeysInUse
from vpnd.model.diagnosis import Code
from vpnd.model.policy import PeerPolicy
from vpnd.model.secret import Secret
from vpnd.simulate.gateway import Gateway

OLD, NEW, OTHER = Secret(b"the key until now"), Secret(b"the key from now on"), Secret(b"another one")
KEYS: dict[str, dict[str, Any]] = {
    "old": {"psk": OLD, "next_psk": None},
    "both": {"psk": OLD, "next_psk": NEW},
    "new": {"psk": NEW, "next_psk": None},
}
SPOKEN: dict[str, dict[str, Any]] = {"v2": {}, "main": speaking(MAIN), "aggressive": speaking(AGGRESSIVE)}
TOGETHER = [
    ("old", "old"),
    ("both", "old"),
    ("old", "both"),
    ("both", "both"),
    ("new", "both"),
    ("both", "new"),
    ("new", "new"),
]
"""States of both ends in which they have a key in common."""
ORDERS = {
    "a first": [("both", "old"), ("both", "both"), ("new", "both"), ("new", "new")],
    "b first": [("old", "both"), ("both", "both"), ("both", "new"), ("new", "new")],
    "a first, b at once": [("both", "old"), ("both", "new"), ("new", "new")],
    "b first, a at once": [("old", "both"), ("new", "both"), ("new", "new")],
    "a first and b last": [("both", "old"), ("both", "both"), ("both", "new"), ("new", "new")],
}
"""What the two ends have one after the other."""
MOVED = 5.0
"""Seconds until an end that was not restarted sends on the new pair for sure."""
HALF_OPEN_OVER = 60.0
"""Seconds in which an attempt of the peer that came to nothing is forgotten."""
RENEWED = 40.0
"""Seconds in which a renewal is done, also with the second key."""


def pair_of(spoken: str, a: str = "old", b: str = "old", seed: int = 0) -> Pair:
    """Two gateways that have these keys."""
    return Pair(seed, changes_a=SPOKEN[spoken] | KEYS[a], changes_b=SPOKEN[spoken] | KEYS[b])


def policy_of(gateway: Gateway) -> PeerPolicy:
    return next(iter(gateway.policies.values()))


def configure(gateway: Gateway, keys: str) -> None:
    """The same tunnel with other keys, as a reload does it."""
    gateway.set_peer(gateway.peers[gateway.tunnel], replace(policy_of(gateway), **KEYS[keys]))


def keys_of(gateway: Gateway) -> KeysInUse:
    assert isinstance(gateway.endpoint, Endpoint)
    found = gateway.endpoint.keys_in_use(gateway.tunnel)
    assert found is not None
    return found


def renew(pair: Pair, beginner: Gateway) -> None:
    """A new IKE SA beside the one that is there, which authenticates once more."""
    before = {ike.spi_i for ike in beginner.ike_sas()}
    beginner.do("reinitiate", beginner.tunnel)
    pair.world.run_until(lambda: not before & {ike.spi_i for ike in beginner.ike_sas()}, within=RENEWED)
    pair.world.run_for(SETTLING)


@pytest.mark.parametrize("beginner", ["a", "b"])
@pytest.mark.parametrize(("a", "b"), TOGETHER)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_start_in_each_state(spoken: str, a: str, b: str, beginner: str) -> None:
    """Nothing is remembered. Only in aggressive mode, where one shows its key first, may it be wrong once."""
    pair = pair_of(spoken, a, b)
    first = pair.world.gateways[beginner]
    first.initiate()
    wrong_once = (a, b, beginner) in (("new", "both", "a"), ("both", "new", "b"))
    if spoken == "aggressive" and wrong_once:
        pair.world.run_until(lambda: first.of(Failed), within=30)
        first.initiate()
    pair.world.run_until(lambda: pair.a.sends() and pair.b.sends(), within=30)
    pair.world.run_for(SETTLING)
    pair.assert_one_tunnel()
    expected = int(spoken == "aggressive" and wrong_once)
    assert len(first.of(Failed)) == expected
    common = {key for key in (OLD, NEW) if all(key in policy_of(g).keys for g in (pair.a, pair.b))}
    for gateway in (pair.a, pair.b):
        assert keys_of(gateway).ours.fingerprint == keys_of(gateway).theirs.fingerprint
        assert keys_of(gateway).ours.fingerprint in {key.fingerprint() for key in common}
    if a == b == "both":
        assert keys_of(pair.a).ours.fingerprint == OLD.fingerprint(), (
            "the current one, until the peer was seen with the next"
        )


@pytest.mark.parametrize("beginner", ["a", "b"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_the_ends_change_one_after_the_other(spoken: str, order: str, beginner: str) -> None:
    """After each change a new IKE SA is made beside the old one: no attempt fails, and none is missing."""
    pair = pair_of(spoken)
    pair.establish()
    first = pair.world.gateways[beginner]
    for a, b in ORDERS[order]:
        configure(pair.a, a)
        configure(pair.b, b)
        renew(pair, first)
        pair.assert_agreement()
        assert not first.of(Failed)
        for gateway in (pair.a, pair.b):
            assert not gateway.of(PeerDead)
            allowed = {key.fingerprint() for key in policy_of(gateway).keys}
            assert keys_of(gateway).theirs.fingerprint in allowed
    for gateway in (pair.a, pair.b):
        found = keys_of(gateway)
        assert found.ours.fingerprint == found.theirs.fingerprint == NEW.fingerprint()
        assert found.ours.since > 1000.0
        assert gateway.sends()
        assert len(gateway.of(NextKeyProved)) == _met(order, gateway is pair.b)


def _met(order: str, second: bool) -> bool:
    """Whether an end has both keys when the other is seen with the new one."""
    return any(step[second] == "both" and step[not second] == "new" for step in ORDERS[order])


def restart(pair: Pair, name: str, seed: int) -> Gateway:
    """A gateway begins from nothing but its configuration and what it has kept of the keys."""
    before, peer = pair.world.gateways[name], {"a": "b", "b": "a"}[name]
    assert isinstance(before.endpoint, Endpoint)
    endpoint = Endpoint(SeededEntropy(1000 + seed))
    endpoint.remember_keys(before.endpoint.known_keys())
    after = pair.world.add_gateway(name, before.address, endpoint)
    after.set_peer(peer, policy_of(before))
    if name == "a":
        pair.a = after
    else:
        pair.b = after
    return after


def begin(pair: Pair, beginner: Gateway) -> None:
    """A new IKE SA, beside the one that is there if there is."""
    if beginner.ike_sas():
        renew(pair, beginner)
        return
    beginner.initiate()
    pair.world.run_until(lambda: bool(beginner.ike_sas() and beginner.sends()), within=RENEWED)
    pair.world.run_for(SETTLING)


@pytest.mark.parametrize("restarted", ["a", "b", "ab"])
@pytest.mark.parametrize("beginner", ["a", "b"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_restart_in_each_state(spoken: str, order: str, beginner: str, restarted: str) -> None:
    """Before the new key is used, and after it: no attempt fails, and the key goes on that was in use."""
    pair = pair_of(spoken)
    pair.establish()
    for number, (a, b) in enumerate(ORDERS[order]):
        configure(pair.a, a)
        configure(pair.b, b)
        for again in range(2):
            for name in restarted:
                known = keys_of(pair.world.gateways[name])
                assert keys_of(restart(pair, name, 2 * number + again)) == known
            first = pair.world.gateways[beginner]
            begin(pair, first)
            pair.world.run_for(MOVED)
            # An end that was not restarted may hold what the other has lost; what sends is another pair.
            assert pair.a.child().spi_out in pair.b.installed
            assert pair.b.child().spi_out in pair.a.installed
            assert not first.of(Failed), f"{a}, {b}"
            assert pair.a.sends()
            assert pair.b.sends()
            used = {keys_of(gateway).theirs.fingerprint for gateway in (pair.a, pair.b)}
            assert len(used) == 1
            if again:
                assert used == {known.theirs.fingerprint}, "the key that was in use goes on"
    assert used == {NEW.fingerprint()}


@pytest.mark.parametrize("beginner", ["a", "b"])
def test_an_answer_with_the_other_key_is_no_failed_attempt(beginner: str) -> None:
    """In aggressive mode the responder cannot know: the peer begins again at once, and nobody is alarmed."""
    pair = pair_of("aggressive")
    pair.establish()
    first, second = (pair.a, pair.b) if beginner == "a" else (pair.b, pair.a)
    configure(second, "both")
    configure(first, "new")
    renew(pair, first)
    pair.world.run_for(HALF_OPEN_OVER)
    assert not first.of(Failed) + second.of(Failed)
    assert len(second.of(NextKeyProved)) == 1
    # What is wrong for both keys is reported, also while the tunnel is up.
    wrong: dict[str, Any] = {"psk": OTHER, "next_psk": None}
    first.set_peer(first.peers[first.tunnel], replace(policy_of(first), **wrong))
    first.do("reinitiate", first.tunnel)
    pair.world.run_for(HALF_OPEN_OVER)
    assert [failed.diagnosis.code for failed in second.of(Failed)] != []
    assert {failed.diagnosis.code for failed in second.of(Failed)} == {Code.PSK}


@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_tunnel_that_was_down_goes_on_with_the_key_that_was_in_use(spoken: str) -> None:
    """Taken down, or made again for a change that needs it; only one that is not configured is forgotten."""
    pair = pair_of(spoken, "both", "new")
    pair.a.initiate()
    pair.world.run_until(lambda: pair.a.sends() and pair.b.sends(), within=30)
    policy = policy_of(pair.a)
    pair.a.do("remove_peer", pair.a.tunnel)
    pair.world.settle()
    assert keys_of(pair.a).theirs.fingerprint == NEW.fingerprint()
    pair.a.set_peer("b", policy)
    pair.a.initiate()
    pair.world.run_until(lambda: pair.a.sends(), within=1)
    assert len(pair.b.of(Failed)) <= 1, "but for the first time of all, with the old one"
    assert isinstance(pair.a.endpoint, Endpoint)
    pair.a.endpoint.forget_keys(pair.a.tunnel)
    assert not pair.a.endpoint.known_keys()


def test_what_was_authenticated_counts_more_than_what_is_remembered() -> None:
    pair = pair_of("v2", "new", "new")
    pair.establish()
    used = KeyInUse(OLD.fingerprint(), 0.0)
    assert isinstance(pair.a.endpoint, Endpoint)
    pair.a.endpoint.remember_keys({pair.a.tunnel: KeysInUse(used, used)})
    assert keys_of(pair.a).theirs.fingerprint == NEW.fingerprint()


@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_key_that_is_in_use_is_begun_with(spoken: str) -> None:
    """The peer was seen with the next one: the next attempt needs no second one."""
    pair = pair_of(spoken, "both", "new")
    pair.a.initiate()
    pair.world.run_until(lambda: pair.a.sends() and pair.b.sends(), within=30)
    pair.a.close()
    pair.world.settle()
    pair.world.run_for(SETTLING)
    sent = len(pair.world.sent)
    pair.a.initiate()
    pair.world.run_until(lambda: pair.a.sends(), within=1)
    assert len(pair.world.sent) - sent <= 10
    assert not pair.b.of(Failed)[1:], "but for the first time of all, with the old one"


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("b", ["both", "old"])
def test_the_next_key_is_proved_on_demand(spoken: str, b: str) -> None:
    """Beside what there is; where the peer has not got it yet, the current one goes on."""
    pair = pair_of(spoken, "both", b)
    pair.establish()
    pair.a.do("prove_next_key", pair.a.tunnel)
    pair.world.run_for(RENEWED)
    pair.assert_agreement()
    assert pair.a.sends()
    assert pair.b.sends()
    assert not pair.a.of(Failed)
    proved = b == "both" and spoken != "aggressive"
    assert keys_of(pair.a).theirs.fingerprint == (NEW if proved else OLD).fingerprint()
    assert len(pair.a.of(NextKeyProved)) == len(pair.b.of(NextKeyProved)) == proved


@pytest.mark.parametrize("spoken", SPOKEN)
def test_without_a_next_key_there_is_nothing_to_prove(spoken: str) -> None:
    pair = pair_of(spoken)
    pair.establish()
    pair.a.do("prove_next_key", pair.a.tunnel)
    pair.a.do("prove_next_key", "unknown")
    pair.world.run_for(1)
    assert not pair.world.ladder().steps


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("beginner", ["a", "b"])
def test_an_ended_key_is_refused(spoken: str, beginner: str) -> None:
    pair = pair_of(spoken, "new", "old")
    pair.world.gateways[beginner].initiate()
    pair.world.run_until(lambda: pair.a.of(Failed) and pair.b.of(Failed), within=60)
    assert not pair.a.ike_sas() + pair.b.ike_sas()
    assert pair.world.gateways[beginner].diagnosis(Failed).code is Code.PSK


@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_peer_with_neither_key_is_refused_with_both_fingerprints(spoken: str) -> None:
    pair = Pair(changes_a=SPOKEN[spoken] | KEYS["both"], changes_b=SPOKEN[spoken] | {"psk": OTHER})
    pair.a.initiate()
    pair.world.run_until(lambda: pair.a.of(Failed), within=60)
    pair.world.run_for(60)
    assert len(pair.a.of(Failed)) == 1, "both keys are one attempt"
    found = pair.a.diagnosis(Failed)
    assert found.code is Code.PSK
    assert found.fact("ours") == f"{OLD.fingerprint()} or {NEW.fingerprint()}"
    assert not pair.a.ike_sas() + pair.b.ike_sas()


@pytest.mark.parametrize("spoken", ["main", "v2"])
def test_an_attempt_with_a_key_that_ends_meanwhile(spoken: str) -> None:
    """Its proof comes after the end of its key."""
    pair = pair_of(spoken, "old", "both")
    pair.a.initiate()
    last = 5 if spoken == "main" else 2
    pair.world.run_until(
        lambda: sum(one.sender == "a" for one in pair.world.sent) >= (last + 1) // 2, within=5
    )
    configure(pair.b, "new")
    pair.world.run_for(60)
    assert not pair.b.ike_sas()
    assert pair.b.diagnosis(Failed).code is Code.PSK
