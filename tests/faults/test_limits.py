"""F38 and F39: an SA reaches the end of its bytes, or of its sequence numbers, in the middle of traffic.

In the simulated world, with the real limits, windows and ciphers of the datapath: the packets are counted at
both ends, and each SA afterwards.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.carrying import SIZE, Carrying
from tests.simulation.policies import ADDRESS_A, ADDRESS_B, Recipe
from tests.simulation.weather import Weather
from tests.simulation.world import World
from tests.tables import TellRow
from vpnd.crypto.entropy import SeededEntropy
from vpnd.datapath.carrier import PythonCarrier
from vpnd.datapath.core import Core
from vpnd.datapath.sad import SEQUENCE_END, SEQUENCE_RESERVE
from vpnd.ike.endpoint import Endpoint
from vpnd.model.policy import Lifetimes, Negotiation, NegotiationMode
from vpnd.wire.iana import IkeVersion

SPOKEN = {
    "IKEv2": (IkeVersion.V2, None),
    "IKEv1 main": (IkeVersion.V1, NegotiationMode.MAIN),
    "IKEv1 aggressive": (IkeVersion.V1, NegotiationMode.AGGRESSIVE),
}
DELAY = 0.002
"""Seconds from one gateway to the other."""
SENDERS = ("the initiator", "the responder", "both")
LAST = SEQUENCE_END[False]


class Link(World):
    """Two gateways with an SA pair between them whose lifetime is `lifetimes`, and traffic."""

    def __init__(self, spoken: str, lifetimes: Lifetimes) -> None:
        super().__init__(seed=1, weather=Weather(delay=(DELAY, DELAY)))
        version, mode = SPOKEN[spoken]
        ends = []
        for name, address, policy in zip("ab", (ADDRESS_A, ADDRESS_B), Recipe().pair(), strict=True):
            child = replace(policy.children[0], lifetimes=lifetimes)
            policy = replace(policy, version=version, mode=mode, children=(child,))
            end = self.add(Carrying, name, address, Endpoint(SeededEntropy(ord(name))))
            negotiation = Negotiation.ACTIVE if name == "a" else Negotiation.PASSIVE
            ends.append((end, policy, negotiation))
        self.a, self.b = (end for end, _, _ in ends)
        self.a.meet(self, self.b, 0.9 * DELAY)
        self.b.meet(self, self.a, 0.9 * DELAY)
        for (end, policy, negotiation), peer in reversed(list(zip(ends, "ba", strict=True))):
            end.live(peer, policy, negotiation, SeededEntropy(7))
        self.run_until(lambda: self.a.sends_on and self.b.sends_on)
        self.run_for(1.0)

    def stream(self, senders: str, rate: int, seconds: float, batch: int = 8) -> None:
        """Packets of `SIZE` bytes, `rate` a second in batches, and then time for what is under way."""
        ends = {"the initiator": [self.a], "the responder": [self.b], "both": [self.a, self.b]}[senders]
        end = self.now + seconds
        while self.now < end:
            for one in ends:
                one.put(batch)
            self.run_for(batch / rate)
        self.run_for(10.0)

    @property
    def lost(self) -> int:
        """Packets that went in and did not come out."""
        return self.a.sent + self.b.sent - self.a.received - self.b.received

    def most_bytes(self) -> int:
        """What any SA has carried at most, at either end of it."""
        return max(most for end in (self.a, self.b) for most in end.most.values())


@pytest.mark.usefixtures("on_each_engine")
@pytest.mark.parametrize("senders", SENDERS)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_the_byte_lifetime_ends_in_a_burst(spoken: str, senders: str, row: TellRow) -> None:
    """F38: 20 Mbit/s through SAs of 8 MB, of which each lasts for three seconds."""
    kilobytes = 8_000
    world = Link(spoken, Lifetimes(3600, kilobytes))
    world.stream(senders, rate=2_500, seconds=4.5)
    replaced = len(world.a.had) - 1
    row(
        "faults",
        id="F38",
        fault="byte lifetime reached in a burst of 20 Mbit/s",
        moment=f"{spoken}, {senders} sending",
        target="0 lost, not a packet beyond the limit",
        figure=f"{world.lost} of {world.a.sent + world.b.sent} lost, {replaced} successors, "
        f"{100 * world.most_bytes() / (kilobytes * 1024):.1f} % of the limit carried",
    )
    assert replaced >= 1
    assert world.lost == 0, (world.a.dropped(), world.b.dropped())
    assert world.most_bytes() <= kilobytes * 1024 + SIZE


@pytest.mark.usefixtures("on_each_engine")
@pytest.mark.parametrize("spoken", SPOKEN)
def test_what_outruns_its_successor_stops_at_the_limit(spoken: str) -> None:
    """F38: everything in one instant. No packet passes the limit, and the tunnel carries the next ones."""
    kilobytes = 1_000
    world = Link(spoken, Lifetimes(3600, kilobytes))
    for _ in range(20):
        world.a.put(64)
    world.run_for(10.0)
    assert world.most_bytes() <= kilobytes * 1024
    dropped = [*world.a.dropped().items(), *world.b.dropped().items()]
    assert {why for why, _ in dropped} <= {"LIFETIME", "NO_SA"}
    assert world.lost == sum(count for _, count in dropped) > 0
    assert world.b.received >= 1_000
    before = world.lost
    world.stream("both", rate=1_000, seconds=0.5)
    assert world.lost == before


def core_of(end: Carrying) -> Core:
    """The engine in Python from inside: no test sends 2^32 packets."""
    assert isinstance(end.carrier, PythonCarrier)
    return end.carrier.core


@pytest.mark.parametrize("left", [SEQUENCE_RESERVE, 100])
@pytest.mark.parametrize("senders", SENDERS)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_sequence_numbers_never_wrap(spoken: str, senders: str, left: int, row: TellRow) -> None:
    """F39: both ends are told that so many numbers are left, then 1,000 packets follow."""
    world = Link(spoken, Lifetimes(3600))
    pairs = []
    for end in (world.a, world.b):
        (pair,) = core_of(end).sad.inbound.values()
        pair.sequence = pair.window.highest = LAST - left
        pairs.append(pair)
    world.stream(senders, rate=250, seconds=4, batch=1)
    numbers = [max(pair.sequence, pair.window.highest) for pair in pairs]
    row(
        "faults",
        id="F39",
        fault=f"sequence number {left} before the last of 32 bits",
        moment=f"{spoken}, {senders} sending",
        target="rekeyed early, no wrap, 0 lost",
        figure=f"{world.lost} of {world.a.sent + world.b.sent} lost, {len(world.a.had) - 1} successors, "
        f"highest number 2^32 - {LAST + 1 - max(numbers)}",
    )
    assert len(world.a.had) >= 2
    assert max(numbers) <= LAST
    assert world.lost == 0, (world.a.dropped(), world.b.dropped())
    assert core_of(world.a).sad.outbound[world.a.tunnel, 0].sequence < 2_000
