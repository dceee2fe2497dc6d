"""A refusal that anyone may have sent: one ends no attempt, and a peer that means it is believed soon.

RFC 7296 section 2.21: an initiator that gets an unauthenticated error may only take it as a hint.
"""

from __future__ import annotations

import pytest

from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from tests.simulation.puppet import in_clear
from tests.simulation.v1.pairs import MODES, pair_of
from tests.simulation.v1.stage import Stage as Stage1
from tests.simulation.weather import Datagram
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import Established, Failed
from vpnd.ike.retransmit import GIVE_UP_AFTER
from vpnd.model.diagnosis import Code
from vpnd.model.policy import NegotiationMode
from vpnd.wire.header import Flag, Header
from vpnd.wire.iana import Exchange1, Exchange2, Notify1, Notify2
from vpnd.wire.ikev1 import Notify as Notify1Payload
from vpnd.wire.ikev2 import Notify

KINDS = ["ikev2", *MODES]
LISTENING = Limits().error_listening


def slow_pair(kind: str | NegotiationMode, seconds: float) -> Pair:
    """Whatever `b` answers comes so many seconds late."""
    pair = Pair() if isinstance(kind, str) and kind == "ikev2" else pair_of(NegotiationMode(kind))

    def late(datagram: Datagram) -> list[tuple[float, bytes]] | None:
        return [(seconds, datagram.data)] if datagram.sender == "b" else None

    pair.world.interceptors.append(late)
    return pair


def forged(pair: Pair, kind: str | NegotiationMode) -> bytes:
    """NO_PROPOSAL_CHOSEN in clear with the SPI of the attempt's first message."""
    spi = Header.decode(pair.world.sent[0].data).spi_i
    if kind == "ikev2":
        refusal = Notify(Notify2.NO_PROPOSAL_CHOSEN)
        return in_clear(spi, bytes(8), Exchange2.IKE_SA_INIT, Flag.RESPONSE, 0, [refusal])
    puppet = Stage1().puppet()
    puppet.cky_i, puppet.cky_r = spi, b"forged!!"
    return puppet.clear(Exchange1.INFORMATIONAL, [Notify1Payload(Notify1.NO_PROPOSAL_CHOSEN)], 9)


@pytest.mark.parametrize("kind", KINDS)
def test_one_forged_refusal_does_not_end_an_attempt(kind: str | NegotiationMode) -> None:
    """The peer's answer comes after the time in which it would have been believed."""
    pair = slow_pair(kind, 2 * LISTENING)
    pair.a.initiate()
    pair.world.inject("a", forged(pair, kind), pair.b.address)
    pair.world.run_for(GIVE_UP_AFTER)
    assert pair.a.of(Established)
    assert not pair.a.of(Failed)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_is_said_where_nothing_else_comes(kind: str | NegotiationMode) -> None:
    pair = slow_pair(kind, 10 * GIVE_UP_AFTER)
    pair.a.initiate()
    pair.world.inject("a", forged(pair, kind), pair.b.address)
    pair.world.run_for(GIVE_UP_AFTER - 1)
    assert not pair.a.of(Failed)
    pair.world.run_for(2)
    (failed,) = pair.a.of(Failed)
    assert failed.diagnosis.code is Code.P1_PROPOSAL


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_that_refuses_each_repetition_is_believed_soon(kind: str | NegotiationMode) -> None:
    other = {"proposals": (Recipe(encryption=("aes-256",)).ike_proposal(),)}
    pair = Pair(changes_b=other) if kind == "ikev2" else pair_of(NegotiationMode(kind), changes_b=other)
    pair.a.initiate()
    began = pair.world.now
    pair.world.run_until(lambda: pair.a.of(Failed), within=GIVE_UP_AFTER)
    assert pair.world.now - began <= LISTENING + 0.1
    assert pair.a.of(Failed)[0].diagnosis.code is Code.P1_PROPOSAL
