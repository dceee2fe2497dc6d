"""The peer deletes one of two pairs of a mapping: what it sent before still arrives (RFC 2408, 3.15)."""

from __future__ import annotations

import pytest

from tests.simulation.bounds import DELETED_KEPT
from tests.simulation.v1.puppet import Puppet
from tests.simulation.v1.stage import Stage
from vpnd.ike.outputs import ChildDown, ChildRetired
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1, Protocol
from vpnd.wire.ikev1 import Delete

FIRST, SECOND = 0xC0FFEE01, 0xC0FFEE02
"""What the puppet receives on."""


def two_pairs() -> tuple[Stage, Puppet]:
    """The puppet has made two pairs of mapping 0, a renewal: the second one is sent on."""
    stage = Stage()
    puppet = stage.puppet()
    stage.with_child(puppet)
    stage.say(puppet.quick3(stage.answered_quick(puppet, SECOND)))
    assert [child.spi_out for child in stage.gateway.children()] == [FIRST, SECOND]
    assert stage.gateway.child().spi_out == SECOND
    return stage, puppet


def delete(stage: Stage, puppet: Puppet, *spis: int) -> None:
    """The puppet's DELETE for what it receives on."""
    stage.say(puppet.informational(Delete(Protocol.ESP, tuple(spi.to_bytes(4, "big") for spi in spis))))


def received_on(stage: Stage) -> set[int]:
    """The pairs that still receive, by what the puppet receives on."""
    return {child.spi_out for child in stage.gateway.children()}


@pytest.mark.parametrize(("gone", "stays"), [(FIRST, SECOND), (SECOND, FIRST)])
def test_one_of_two_is_sent_on_no_more_and_receives_a_little_longer(gone: int, stays: int) -> None:
    stage, puppet = two_pairs()
    delete(stage, puppet, gone)
    assert stage.gateway.child().spi_out == stays
    assert received_on(stage) == {FIRST, SECOND}
    stage.world.run_for(DELETED_KEPT - 0.5)
    delete(stage, puppet, gone)
    assert received_on(stage) == {FIRST, SECOND}
    said = len(stage.heard)
    stage.world.run_for(1)
    assert received_on(stage) == {stays}
    assert len(stage.gateway.of(ChildRetired)) == len(stage.gateway.of(ChildDown)) == 1
    answers = [Header.decode(data) for data in stage.heard[said:]]
    assert [one for one in answers if one.exchange == Exchange1.INFORMATIONAL] == [], "it was deleted already"


def test_a_pair_that_is_deleted_before_its_last_message_does_not_come_up() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.with_child(puppet)
    quick = stage.answered_quick(puppet, SECOND)
    delete(stage, puppet, SECOND)
    stage.say(puppet.quick3(quick))
    assert received_on(stage) == {FIRST}
    assert stage.gateway.child().spi_out == FIRST
    stage.say(puppet.quick3(stage.answered_quick(puppet, SECOND + 1)))
    assert stage.gateway.child().spi_out == SECOND + 1


@pytest.mark.parametrize("spis", [(FIRST, SECOND), (SECOND, FIRST)])
@pytest.mark.parametrize("at_once", [True, False])
def test_without_another_pair_the_mapping_is_down_at_once(spis: tuple[int, int], at_once: bool) -> None:
    stage, puppet = two_pairs()
    for named in [spis] if at_once else [(spi,) for spi in spis]:
        delete(stage, puppet, *named)
    assert [event.spi_in for event in stage.gateway.of(ChildDown)]
    assert not stage.gateway.sends()
    stage.world.run_for(DELETED_KEPT + 1)
    assert received_on(stage) == set()


def test_the_old_pair_is_never_renewed_and_the_new_one_is_as_before() -> None:
    stage, puppet = two_pairs()
    kept = stage.gateway.child().spi_in
    delete(stage, puppet, FIRST)
    stage.gateway.rekey_child()
    quick = puppet.answer_quick(stage.heard[-1])
    stage.say(puppet.quick2(quick, 0xC0FFEE03))
    stage.world.run_for(DELETED_KEPT + 1)
    assert received_on(stage) == {SECOND, 0xC0FFEE03}
    assert kept in stage.gateway.installed


def test_a_pair_that_was_deleted_is_not_taken_up_when_the_other_ends() -> None:
    """Nothing sent on it would arrive."""
    stage, puppet = two_pairs()
    delete(stage, puppet, FIRST)
    delete(stage, puppet, SECOND)
    assert not stage.gateway.sends()


def test_the_end_of_the_isakmp_sa_takes_what_still_receives_along() -> None:
    stage, puppet = two_pairs()
    delete(stage, puppet, FIRST)
    stage.say(puppet.informational(puppet.delete_ike()))
    assert not stage.gateway.installed
    stage.world.run_for(DELETED_KEPT + 1)
    assert len(stage.gateway.of(ChildDown)) == 2
