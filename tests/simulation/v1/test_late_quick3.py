"""The third message of quick mode comes late, or never.

The peer may install a pair of ours only when it has our third message, however late that is. Nothing
acknowledges it, so that we can only give the peer time: what is sent on the pair sooner is lost. A pair that
the peer has begun receives here from our answer on: what comes before the third message is not lost.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.bounds import SETTLING, SETTLING_BESIDE, SURPLUS_KEPT
from tests.simulation.carrying import Carrying
from tests.simulation.pair import Pair
from tests.simulation.policies import ADDRESS_A, ADDRESS_B, Recipe
from tests.simulation.v1.pairs import MODES, pair_of, speaking
from tests.simulation.v1.stage import stage_in
from tests.simulation.weather import Datagram, Weather
from tests.simulation.world import World
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import ChildDown, ChildReplaced, ChildUp, Failed
from vpnd.ike.retransmit import GIVE_UP_AFTER
from vpnd.model.policy import Negotiation, NegotiationMode
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange1, Protocol
from vpnd.wire.ikev1 import Delete


def hold_third(pair: Pair, seconds: float) -> list[float]:
    """When a's third message of the next quick mode arrives: so many seconds late."""
    arrivals: list[float] = []
    first: set[bytes] = set()

    def intercept(datagram: Datagram) -> list[tuple[float, bytes]] | None:
        quick_mode = Header.decode(datagram.data).exchange == Exchange1.QUICK_MODE
        if datagram.sender != "a" or not quick_mode:
            return None
        if not first:
            first.add(datagram.data)
            return None
        arrivals.append(pair.world.now + seconds)
        return [(seconds, datagram.data)]

    pair.world.interceptors.append(intercept)
    return arrivals


@pytest.mark.parametrize("late", [0.1, 0.5, 1.0, 1.9])
def test_a_successor_is_not_sent_on_before_a_slow_peer_has_it(late: float) -> None:
    pair = pair_of()
    pair.establish()
    old = pair.a.child().spi_in
    arrivals = hold_third(pair, late)
    pair.a.rekey_child()
    pair.world.run_until(lambda: pair.a.child().spi_in != old, within=3 * SETTLING_BESIDE)
    assert pair.world.now >= arrivals[0]
    assert pair.a.child().spi_out == pair.b.child().spi_in, "and b sends on it as well"


def test_a_peer_that_repeats_its_answer_gets_the_time_again() -> None:
    """Its repeat says that it has not had our third message."""
    assert SETTLING_BESIDE < SURPLUS_KEPT
    stage, puppet = stage_in("with a child from here")
    stage.world.run_for(SETTLING)
    old = stage.gateway.child().spi_in
    stage.gateway.rekey_child()
    quick = puppet.answer_quick(stage.heard[-1])
    answer = puppet.quick2(quick, 0x2001)
    (third,) = stage.say(answer)
    stage.world.run_for(SETTLING_BESIDE - 0.5)
    assert stage.say(answer) == [third]
    stage.world.run_for(SETTLING_BESIDE - 0.1)
    assert stage.gateway.child().spi_in == old
    stage.world.run_for(0.2)
    assert stage.gateway.child().spi_out == 0x2001


def test_the_first_pair_waits_less_but_as_long_as_the_peer_repeats_its_answer() -> None:
    stage, puppet = stage_in("sent Quick1, main")
    quick = puppet.answer_quick(stage.heard[-1])
    answer = puppet.quick2(quick)
    (third,) = stage.say(answer)
    for _ in range(3):
        stage.world.run_for(SETTLING - 0.05)
        assert not stage.gateway.sends(0)
        assert stage.say(answer) == [third]
    stage.world.run_for(SETTLING + 0.01)
    assert stage.gateway.sends(0)


def test_one_that_is_sent_on_already_is_not_held_again() -> None:
    stage, puppet = stage_in("sent Quick1, main")
    quick = puppet.answer_quick(stage.heard[-1])
    answer = puppet.quick2(quick)
    stage.say(answer)
    stage.world.run_for(SETTLING + 0.01)
    stage.say(answer)
    assert stage.gateway.sends(0)


# --- a pair that the peer has begun


class Link(World):
    """Two gateways with traffic between them; the third message of quick mode, which `a` sends, is late."""

    def __init__(self, mode: NegotiationMode, late: float | None) -> None:
        super().__init__(weather=Weather(delay=(0.01, 0.01)))
        self.late = late
        self._quick: list[bytes] = []
        self.interceptors.append(self._hold)
        self.a = self.add(Carrying, "a", ADDRESS_A, Endpoint(SeededEntropy(1)))
        self.b = self.add(Carrying, "b", ADDRESS_B, Endpoint(SeededEntropy(2)))
        self.a.meet(self, self.b, 0.005)
        self.b.meet(self, self.a, 0.005)
        for end, policy in zip((self.b, self.a), reversed(Recipe().pair()), strict=True):
            spoken = replace(policy, **speaking(mode))
            role = Negotiation.ACTIVE if end is self.a else Negotiation.PASSIVE
            end.live("ab".strip(end.name), spoken, role, SeededEntropy(7))

    def _hold(self, datagram: Datagram) -> list[tuple[float, bytes]] | None:
        if datagram.sender != "a" or Header.decode(datagram.data).exchange != Exchange1.QUICK_MODE:
            return None
        self._quick.append(datagram.data)
        if datagram.data == self._quick[0]:
            return None
        return [] if self.late is None else [(self.late, datagram.data)]

    def stream(self, end: Carrying, seconds: float) -> None:
        """One packet each 10 ms."""
        for _ in range(round(seconds / 0.01)):
            end.put(1)
            self.run_for(0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("on_each_engine")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("late", [0.0, 0.5, 3.0, None])
def test_what_the_peer_sends_before_its_third_message_arrives(
    late: float | None, mode: NegotiationMode
) -> None:
    """It says that the peer has the pair, so that we send on it too; also if the message never comes."""
    link = Link(mode, late)
    link.run_until(lambda: link.a.sends_on)
    link.stream(link.a, 0.1)
    assert link.b.sends_on
    for _ in range(20):
        link.stream(link.a, 1)
        link.stream(link.b, 1)
    link.run_for(1)
    assert link.a.sent + link.b.sent == link.a.received + link.b.received
    assert len(link.b.of(ChildUp)) == len(link.a.of(ChildUp)) == 1
    assert not link.b.of(Failed)
    assert not link.b.of(ChildDown)


def test_its_first_packet_ends_the_waiting_for_its_word() -> None:
    stage, puppet = stage_in("established, main")
    quick = stage.answered_quick(puppet)
    ((spi_in, _),) = stage.gateway.installed.items()
    stage.world.run_for(1)
    assert not stage.gateway.sends(0)
    stage.gateway.do("peer_sends", stage.gateway.tunnel, spi_in)
    assert stage.gateway.sends(0)
    before = len(stage.heard)
    stage.world.run_for(GIVE_UP_AFTER - 5)
    exchanges = {Header.decode(data).exchange for data in stage.heard[before:]}
    assert Exchange1.QUICK_MODE not in exchanges, "our answer is not repeated"
    assert stage.say(puppet.quick3(quick)) == []
    assert len(stage.gateway.of(ChildUp)) == 1
    assert stage.gateway.sends(0)


def test_without_its_word_and_without_a_packet_the_pair_goes() -> None:
    """Eight at once may wait for it."""
    stage, puppet = stage_in("established, main")
    for number in range(8 + 3):
        begun = puppet.begin_quick()
        stage.say(puppet.seal_quick(begun, puppet.quick1_payloads(begun, 0xC0FFEE01 + number, 0)))
    assert len(stage.gateway.installed) == 8
    stage.world.run_for(GIVE_UP_AFTER + 1)
    assert not stage.gateway.installed
    assert not stage.gateway.of(ChildUp)


def test_a_first_pair_of_ours_is_sent_on_at_once_when_the_peer_sends() -> None:
    """It has our third message then."""
    stage, puppet = stage_in("sent Quick1, main")
    quick = puppet.answer_quick(stage.heard[-1])
    stage.say(puppet.quick2(quick))
    ((spi_in, _),) = stage.gateway.installed.items()
    assert not stage.gateway.sends(0)
    stage.gateway.do("peer_sends", stage.gateway.tunnel, spi_in)
    assert stage.gateway.sends(0)


def test_a_first_pair_of_ours_is_not_sent_on_once_its_successor_is() -> None:
    """The peer has begun one as well: the time that ours is given ends after that."""
    stage, puppet = stage_in("sent Quick1, main")
    stage.say(puppet.quick2(puppet.answer_quick(stage.heard[-1])))
    theirs = stage.answered_quick(puppet, spi=0xC0FFEE02)
    stage.say(puppet.quick3(theirs))
    assert stage.gateway.child().spi_out == 0xC0FFEE02
    stage.world.run_for(SETTLING + 0.01)
    assert stage.gateway.child().spi_out == 0xC0FFEE02


def test_a_first_pair_of_ours_is_sent_on_while_the_peer_does_not_confirm_its_own() -> None:
    stage, puppet = stage_in("sent Quick1, main")
    stage.say(puppet.quick2(puppet.answer_quick(stage.heard[-1]), 0x2001))
    stage.answered_quick(puppet, spi=0xC0FFEE02)
    stage.world.run_for(SETTLING + 0.01)
    assert stage.gateway.child().spi_out == 0x2001


@pytest.mark.parametrize(
    "begins", ["established, main", "with a child from here"], ids=["first", "successor"]
)
def test_the_later_of_two_pairs_of_the_peer_is_sent_on_whichever_it_confirms_first(begins: str) -> None:
    """The peer sends on the later one: both third messages are on their way, and arrive in another order."""
    stage, puppet = stage_in(begins)
    stage.world.run_for(SETTLING + 0.01)
    early = stage.answered_quick(puppet, spi=0xC0FFEE01)
    late = stage.answered_quick(puppet, spi=0xC0FFEE02)
    stage.say(puppet.quick3(late))
    assert stage.gateway.child().spi_out == 0xC0FFEE02
    stage.say(puppet.quick3(early))
    assert stage.gateway.child().spi_out == 0xC0FFEE02
    stage.world.run_for(SETTLING_BESIDE + SURPLUS_KEPT)
    assert stage.gateway.child().spi_out == 0xC0FFEE02
    assert 0xC0FFEE01 in {one.spi_out for one in stage.gateway.children()}, "the peer may still send on it"


def test_the_earlier_of_two_pairs_of_the_peer_is_sent_on_once_the_later_one_is_deleted() -> None:
    stage, puppet = stage_in("established, main")
    early = stage.answered_quick(puppet, spi=0xC0FFEE01)
    late = stage.answered_quick(puppet, spi=0xC0FFEE02)
    stage.say(puppet.quick3(late))
    stage.say(puppet.quick3(early))
    stage.say(puppet.informational(Delete(Protocol.ESP, ((0xC0FFEE02).to_bytes(4, "big"),))))
    assert stage.gateway.child().spi_out == 0xC0FFEE01


def test_a_pair_of_the_peer_is_sent_on_after_ours_that_came_up_before_its_word() -> None:
    """Both had begun the first one. The peer confirms its own last, and so sends on that one."""
    stage, puppet = stage_in("sent Quick1, main")
    theirs = stage.answered_quick(puppet, spi=0xC0FFEE02)
    stage.say(puppet.quick2(puppet.answer_quick(stage.heard[-2]), 0x2001))
    stage.world.run_for(SETTLING + 0.01)
    ours = stage.gateway.child()
    assert ours.spi_out == 0x2001
    stage.say(puppet.quick3(theirs))
    assert stage.gateway.child().spi_out == 0xC0FFEE02
    (replaced,) = stage.gateway.of(ChildReplaced)
    assert (replaced.old_spi_in, replaced.child.spi_out) == (ours.spi_in, 0xC0FFEE02)
    assert {one.spi_out for one in stage.gateway.children()} == {0x2001, 0xC0FFEE02}, "ours still receives"


def test_an_answer_is_repeated_beside_a_quick_mode_that_is_over() -> None:
    stage, puppet = stage_in("established, main")
    stage.say(puppet.quick3(stage.answered_quick(puppet)))
    stage.answered_quick(puppet, spi=0xC0FFEE02, mapping=1)
    before = len(stage.heard)
    stage.world.run_for(1)
    exchanges = [Header.decode(data).exchange for data in stage.heard[before:]]
    assert exchanges == [Exchange1.QUICK_MODE]
