"""A gateway that also carries packets: real SAs, sealing, windows and limits, on the world's clock."""

from __future__ import annotations

from tests.engines import carrier
from tests.unit.datapath.parts import EVERYTHING, Gateway, udp_packet
from vpnd.crypto.entropy import Entropy, SeededEntropy
from vpnd.datapath.interface import (
    Acquire,
    Carried,
    Datagram,
    Drop,
    HardLimit,
    PeerSends,
    PolicyRow,
    SoftLimit,
)
from vpnd.ike.outputs import (
    ChildDown,
    ChildExpected,
    ChildLimited,
    ChildReplaced,
    ChildUp,
    OutboundReady,
    Output,
)
from vpnd.model.child import ChildSa
from vpnd.model.policy import Negotiation, PeerPolicy

from .living import Living
from .world import World

SIZE = 1000
"""Bytes of an inner packet."""


class Carrying(Living):
    """Living, with an engine but for its descriptors. `had` are all SA pairs that it ever had.

    `most` is what each has carried at most, in and out, as far as that was looked at.
    """

    world: World
    other: Carrying
    delay: float
    carrying = False

    def live(self, peer: str, policy: PeerPolicy, negotiation: Negotiation, entropy: Entropy) -> None:
        self.carrier = carrier(Gateway.engine, SeededEntropy(1))
        self.carrier.add_tunnel(policy.name, False)
        self.carrier.replace_policies(policy.name, (PolicyRow(0, EVERYTHING, EVERYTHING),))
        self.had: list[ChildSa] = []
        self.most: dict[int, int] = {}
        self.sent = self.received = 0
        self.sends_on: int | None = None
        """The SA that is sent on, by the SPI that it receives on."""
        self.carrying = True
        super().live(peer, policy, negotiation, entropy)

    def meet(self, world: World, other: Carrying, delay: float) -> None:
        """ESP takes `delay` seconds to the other gateway, and none of it is lost."""
        self.world, self.other, self.delay = world, other, delay

    def put(self, count: int) -> None:
        """So many packets come out of the TUN at once."""
        here, there = (
            self.policies[self.tunnel].children[0].local,
            self.policies[self.tunnel].children[0].remote,
        )
        packets = [udp_packet(str(here[1]), str(there[1]), SIZE)] * count
        self.sent += count
        self._carry(self.carrier.send(self._clock(), self.tunnel, packets))
        self.look()

    def look(self) -> None:
        """Note what each SA has carried."""
        for child in self.had:
            if (stats := self.carrier.stats(child.spi_in)) is not None:
                self.most[child.spi_in] = max(stats.bytes_in, stats.bytes_out)

    def dropped(self) -> dict[str, int]:
        """Packets that were not carried, by reason."""
        mine, nobody = self.carrier.drops(self.tunnel), self.carrier.drops()
        return {drop.name: mine[drop] + nobody[drop] for drop in Drop if mine[drop] + nobody[drop]}

    # ------------------------------------------------------------------------------- inside

    def _carry(self, carried: Carried) -> None:
        self.received += len(carried.writes)
        for train in carried.trains:
            packets = train.packets
            self.world.after(self.delay, lambda packets=packets: self.other.take(packets))  # type: ignore[misc]  # bound now
        self._hear_notices()

    def take(self, packets: list[bytes]) -> None:
        datagrams = [Datagram(packet, len(packet), 0, self.other.address, 500) for packet in packets]
        self._carry(self.carrier.receive(self._clock(), datagrams, self.address, 4500))
        self.look()
        self.hear()

    def _hear_notices(self) -> None:
        endpoint, now = self.endpoint, self._clock()
        for notice in self.carrier.take_notices():
            match notice:
                case SoftLimit(tunnel, spi_in):
                    endpoint.rekey_child(now, tunnel, spi_in)
                case HardLimit(tunnel, spi_in):
                    endpoint.close_child(now, tunnel, spi_in)
                case PeerSends(tunnel, spi_in):
                    endpoint.peer_sends(now, tunnel, spi_in)
                case Acquire(_, mapping):
                    self.tell("acquire", mapping)
            self.drain()

    def _apply(self, output: Output) -> None:
        match output:
            case ChildExpected(child):
                self._add(child, False)
            case ChildUp(child, outbound, expected) | ChildReplaced(_, child, outbound, expected):
                if not expected:
                    self._add(child, outbound)
                elif outbound:
                    self._send_on(child.spi_in)
            case OutboundReady(_, spi_in):
                self._send_on(spi_in)
            case ChildLimited(_, spi_in, kilobytes):
                self._limit(spi_in, kilobytes)
            case ChildDown(_, _, spi_in):
                self.look()
                self.carrier.remove(spi_in)
                if self.sends_on == spi_in:
                    self.sends_on = None
        super()._apply(output)

    def _add(self, child: ChildSa, outbound: bool) -> None:
        self.had.append(child)
        if outbound:
            self.sends_on = child.spi_in
        self._carry(self.carrier.install(self._clock(), child, outbound))

    def _limit(self, spi_in: int, kilobytes: int) -> None:
        self.carrier.limit(spi_in, kilobytes)
        self._hear_notices()

    def _send_on(self, spi_in: int) -> None:
        self.sends_on = spi_in
        self._carry(self.carrier.use_outbound(self._clock(), spi_in))
