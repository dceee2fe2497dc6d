"""What was said before comes back: our own messages, and the last message of an exchange once more."""

from __future__ import annotations

import pytest

from tests.simulation.pair import Pair
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, MODES, pair_of
from tests.simulation.v1.stage import Stage
from tests.simulation.weather import Datagram
from vpnd.ike.outputs import ChildFailed, PeerDead
from vpnd.model.policy import NegotiationMode
from vpnd.wire.iana import Notify1
from vpnd.wire.ikev1 import Notify

# --------------------------------------------------------------------- reflections


def test_our_own_question_is_no_sign_of_life() -> None:
    """The cookies are the same in both directions, and so is HASH(1): who sends us our own words back, and
    the answers that they get, would make a dead peer live without end."""
    stage = Stage()
    stage.with_child(stage.puppet())
    returned = 0
    end = stage.world.now + 40
    while stage.world.now < end and not stage.gateway.of(PeerDead):
        stage.world.run_for(0.5)
        while returned < len(stage.heard):
            stage.say(stage.heard[returned])
            returned += 1
    (dead,) = stage.gateway.of(PeerDead)
    assert dead.tunnel == "to-a"
    assert stage.endpoint.counters["message ID used before"]


def test_our_own_refusal_ends_no_quick_mode_of_ours() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    theirs = puppet.begin_quick()
    (refusal,) = stage.say(puppet.seal_quick(theirs, puppet.quick1_payloads(theirs, mapping=9)))
    notify = puppet.open_informational(refusal).payloads[1]
    assert isinstance(notify, Notify)
    assert notify.type == Notify1.INVALID_ID_INFORMATION
    stage.gateway.initiate(1)
    stage.say(refusal)
    assert not stage.gateway.of(ChildFailed)


# --------------------------------------------------------------------- the last message, once more


@pytest.mark.parametrize("mode", MODES)
def test_one_copy_makes_at_most_one_more_message(mode: NegotiationMode) -> None:
    """Two sides that answer each repeat with a repeat would go on until one of them has had enough.

    Each message of a handshake comes once more when all is over.
    """
    for place in range(len(lived(mode).world.sent)):
        pair = lived(mode)
        datagram = pair.world.sent[place]
        before = len(pair.world.sent)
        again(pair, datagram)
        pair.world.settle()
        assert len(pair.world.sent) - before <= 1, f"{datagram.sender}#{datagram.number}"


def lived(mode: NegotiationMode) -> Pair:
    """One ISAKMP SA with one pair of IPsec SAs, and everything that was said for them."""
    pair = pair_of(mode)
    pair.a.initiate()
    pair.world.settle()
    assert len(pair.world.sent) == {MAIN: 9, AGGRESSIVE: 6}[mode]
    return pair


def again(pair: Pair, datagram: Datagram) -> None:
    """A copy of a datagram arrives."""
    pair.world.deliver(datagram)
