"""The first message of a peer in fragments, as strongSwan sends it with `fragmentation = force`."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.simulation.policies import ADDRESS_A
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN
from tests.simulation.v1.puppet import Puppet
from tests.simulation.v1.stage import Stage
from vpnd.ike.limits import LARGEST_FIRST_MESSAGE
from vpnd.ike.outputs import Established, Failed
from vpnd.model.diagnosis import Code
from vpnd.model.policy import NegotiationMode
from vpnd.model.selectors import Address
from vpnd.wire.header import Flag
from vpnd.wire.ikev1 import Fragment, VendorId

STRANGER = ip_address("203.0.113.77")


def pieces(puppet: Puppet, whole: bytes, count: int, fragment_id: int = 1) -> list[bytes]:
    """The message in `count` fragments."""
    size = -(-len(whole) // count)
    cut = [whole[start : start + size] for start in range(0, len(whole), size)]
    return [
        puppet.clear(puppet.exchange, [Fragment(fragment_id, number, number == len(cut), piece)])
        for number, piece in enumerate(cut, start=1)
    ]


def say_all(stage: Stage, datagrams: list[bytes], source: Address = ADDRESS_A) -> list[bytes]:
    """Each after the other; what the endpoint sends to all of them."""
    return [answer for datagram in datagrams for answer in stage.say(datagram, source)]


@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "backwards"])
def test_a_first_message_in_fragments_is_answered(mode: NegotiationMode, count: int, backwards: bool) -> None:
    stage = Stage(mode)
    puppet = stage.puppet()
    datagrams = pieces(puppet, puppet.first_message(), count)
    (answer,) = say_all(stage, datagrams[::-1] if backwards else datagrams)
    puppet.take(answer)
    if puppet.aggressive:
        stage.say(puppet.seal_phase1(puppet.proof_payloads()[1:]))
    else:
        (answer,) = stage.say(puppet.clear(puppet.exchange, puppet.key_payloads()))
        puppet.take(answer)
        stage.say(puppet.seal_phase1(puppet.proof_payloads()))
    assert stage.gateway.of(Established)


def test_its_repeat_in_other_fragments_gets_the_same_answer() -> None:
    stage = Stage()
    puppet = stage.puppet()
    whole = puppet.first_message()
    (answer,) = say_all(stage, pieces(puppet, whole, 2))
    assert say_all(stage, pieces(puppet, whole, 3, fragment_id=2)) == [answer]
    assert stage.say(whole) == [answer]


def test_fragments_of_an_address_that_is_no_peers_are_not_kept() -> None:
    stage = Stage()
    puppet = stage.puppet()
    first, second = pieces(puppet, puppet.first_message(), 2)
    assert stage.say(first, source=STRANGER) == []
    assert stage.say(second) == []
    assert stage.endpoint.counters["unknown peer"] == 1


def test_fragments_of_another_port_are_anothers() -> None:
    stage = Stage()
    puppet = stage.puppet()
    first, second = pieces(puppet, puppet.first_message(), 2)
    assert stage.say(first, port=501) == []
    assert stage.say(second) == []
    assert len(stage.say(first)) == 1


def test_the_oldest_of_more_than_eight_goes() -> None:
    stage = Stage()
    puppets = [stage.puppet(seed=number) for number in range(9)]
    halves = [pieces(puppet, puppet.first_message(), 2) for puppet in puppets]
    for first, _ in halves:
        assert stage.say(first) == []
    assert len(stage.say(halves[1][1])) == 1, "the oldest that is still there"
    assert len(stage.say(halves[-1][1])) == 1, "the newest"
    assert stage.say(halves[0][1]) == [], "its first half has gone"


def test_a_first_message_that_is_too_long_is_not_put_together() -> None:
    stage = Stage()
    puppet = stage.puppet()
    long = puppet.clear(puppet.exchange, [puppet.proposal()[0], VendorId(bytes(LARGEST_FIRST_MESSAGE))])
    assert say_all(stage, pieces(puppet, long, 12)) == []
    assert stage.endpoint.counters["fragment: message too long"] == 1
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.SYNTAX
    assert "a first message has 10000 at most" in str(failed.diagnosis.fact("detail"))
    assert len(say_all(stage, pieces(puppet, puppet.first_message(), 2, fragment_id=2))) == 1


def test_a_fragment_of_a_fragment_is_dropped() -> None:
    stage = Stage()
    puppet = stage.puppet()
    (inner,) = pieces(puppet, puppet.first_message(), 1)
    assert say_all(stage, pieces(puppet, inner, 2)) == []
    assert stage.endpoint.counters["fragment of a fragment"] == 1


def test_a_fragment_is_not_encrypted() -> None:
    stage = Stage()
    puppet = stage.puppet()
    (first,) = pieces(puppet, puppet.first_message(), 1)
    flags = bytes([Flag.ENCRYPTION])
    assert stage.say(first[:19] + flags + first[20:]) == []
    assert stage.endpoint.counters["no session"] == 1


def test_what_is_put_together_is_a_first_message_or_nothing() -> None:
    stage = Stage()
    puppet = stage.puppet()
    whole = puppet.first_message()
    answered = whole[:8] + b"\1" * 8 + whole[16:]
    assert say_all(stage, pieces(puppet, answered, 2)) == []
    assert stage.endpoint.counters["no session"] == 1
    cut = whole[:-1]
    assert say_all(stage, pieces(puppet, cut, 2, fragment_id=2)) == []
    assert stage.endpoint.counters["malformed: header length"] == 1
