"""A peer that offers several mappings in one CHILD_SA: one is agreed on, the others are begun from here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vpnd.ike.outputs import ChildUp, Offered
from vpnd.wire.iana import Exchange2, Notify2, Protocol
from vpnd.wire.ikev2 import Nonce, Notify, Payload, Sa, Ts, TsI, TsR

from .policies import Recipe
from .puppet import Puppet, subnet
from .stage import Stage

SPI = 0xC0FFEE77
NONCE = Nonce(bytes(range(32)))
POSSIBLE = Notify(Notify2.ADDITIONAL_TS_POSSIBLE)


def offer(puppet: Puppet, spi: int, *mappings: int) -> list[Payload]:
    """SA, TSi, TSr of several mappings at once: 10.1.N.0/24 of the puppet and 10.2.N.0/24 of the endpoint."""
    (sa,) = (p for p in puppet.child_payloads(spi, begun_here=True) if isinstance(p, Sa))
    ours = tuple(part for n in mappings for part in subnet(1, n))
    theirs = tuple(part for n in mappings for part in subnet(2, n))
    return [sa, TsI(ours), TsR(theirs)]


def answered(puppet: Puppet, answer: bytes) -> tuple[tuple[Ts, ...], bool]:
    """The selectors that the endpoint agreed to, and whether it says that more is possible."""
    payloads = puppet.open(answer).payloads
    return tuple(p for p in payloads if isinstance(p, Ts)), POSSIBLE in payloads


def of_mapping(number: int) -> tuple[Ts, ...]:
    return TsI(subnet(1, number)), TsR(subnet(2, number))


def test_the_first_child_has_one_mapping_and_the_others_are_told_of() -> None:
    stage = Stage(Recipe(mappings=3))
    puppet = stage.puppet()
    stage.half_open(puppet)
    payloads = [puppet.identity, puppet.auth_payload(), *offer(puppet, SPI, 0, 2)]
    (answer,) = stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, payloads))
    assert answered(puppet, answer) == (of_mapping(0), True)
    assert [offered.mappings for offered in stage.gateway.of(Offered)] == [(2,)]


def establish(stage: Stage) -> Puppet:
    puppet = stage.puppet()
    stage.establish(puppet)
    return puppet


def test_an_offer_of_one_mapping_leaves_nothing_out() -> None:
    stage = Stage(Recipe(mappings=3))
    puppet = establish(stage)
    (answer,) = stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, [*offer(puppet, SPI, 1), NONCE]))
    assert answered(puppet, answer) == (of_mapping(1), False)
    assert not stage.gateway.of(Offered)


def test_the_same_offer_again_means_a_mapping_that_has_no_sa() -> None:
    """strongSwan makes each CHILD_SA that it had again after a new authentication, with the same offer."""
    stage = Stage(Recipe(mappings=3))
    puppet = establish(stage)
    for number, mapping in ((2, 1), (3, 2)):
        payloads = [*offer(puppet, SPI + number, 0, 1, 2), NONCE]
        (answer,) = stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, number, payloads))
        assert answered(puppet, answer) == (of_mapping(mapping), True)
    assert [up.child.mapping for up in stage.gateway.of(ChildUp)] == [0, 1, 2]
    assert [offered.mappings for offered in stage.gateway.of(Offered)] == [(2,)]


def test_the_packet_that_waits_decides_although_its_mapping_has_an_sa() -> None:
    """RFC 7296 section 2.9: the first selectors are its, and wider ones follow."""
    stage = Stage(Recipe(mappings=2))
    puppet = establish(stage)
    sa, ts_i, ts_r = offer(puppet, SPI, 0, 1)
    assert isinstance(ts_i, TsI)
    assert isinstance(ts_r, TsR)
    (host_i,), (host_r,) = subnet(1, 0), subnet(2, 0)
    one = (
        TsI((replace(host_i, end=host_i.start), *ts_i.selectors)),
        TsR((replace(host_r, end=host_r.start), *ts_r.selectors)),
    )
    (answer,) = stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, [sa, *one, NONCE]))
    assert answered(puppet, answer) == (of_mapping(0), True)


@pytest.mark.parametrize("mapping", [0, 1])
def test_a_rekey_with_the_whole_offer_keeps_the_mapping(mapping: int) -> None:
    """strongSwan 5.9.8 offers all that it is configured for once more."""
    stage = Stage(Recipe(mappings=2))
    puppet = establish(stage)
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, [*offer(puppet, SPI, 1), NONCE]))
    old = (0xC0FFEE01, SPI)[mapping]
    rekey = Notify(Notify2.REKEY_SA, protocol=Protocol.ESP, spi=old.to_bytes(4, "big"))
    payloads = [rekey, *offer(puppet, SPI + 1, 0, 1), NONCE]
    (answer,) = stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 3, payloads))
    assert answered(puppet, answer) == (of_mapping(mapping), True)
    assert not stage.gateway.of(Offered)


def test_a_refused_offer_tells_of_nothing() -> None:
    stage = Stage(Recipe(mappings=2))
    puppet = establish(stage)
    payloads = [*offer(puppet, 1, 0, 1), NONCE]
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, payloads))
    assert not stage.gateway.of(Offered)
