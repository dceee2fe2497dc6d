"""A gateway that also carries packets: real SAs, sealing, windows and limits, on the world's clock."""

from __future__ import annotations

from collections.abc import Sequence

from tests.unit.datapath.parts import EVERYTHING, udp_packet
from vpnd.crypto.entropy import Entropy, SeededEntropy
from vpnd.datapath.inbound import Inbound
from vpnd.datapath.interface import Acquire, Drop, HardLimit, Notice, PeerSends, PolicyRow, SoftLimit
from vpnd.datapath.outbound import Outbound
from vpnd.datapath.sad import Sad, SaPair
from vpnd.datapath.tunnels import Tunnel
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
    """Living, with the datapath but for its sockets. `pairs` are all SA pairs that ever carried packets."""

    world: World
    other: Carrying
    delay: float
    carrying = False

    def live(self, peer: str, policy: PeerPolicy, negotiation: Negotiation, entropy: Entropy) -> None:
        self.sad = Sad()
        self.pairs: list[SaPair] = []
        self.sent = self.received = 0
        self._notices: list[Notice] = []
        self._path = Tunnel(policy.name, -1, 1400, False, self._write, lambda address: False)
        self._path.replace_policies((PolicyRow(0, EVERYTHING, EVERYTHING),))
        self._outbound = Outbound(self.sad, self._carry, self._notices)
        self._inbound = Inbound(self.sad, {policy.name: self._path}, self._notices, lambda *_: None)
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
        self._outbound.send(self._clock(), self._path, packets)
        self._hear_notices()

    def dropped(self) -> dict[str, int]:
        """Packets that were not carried, by reason."""
        counted = zip(Drop, self._path.drops, self._inbound.drops, strict=True)
        return {drop.name: mine + nobody for drop, mine, nobody in counted if mine + nobody}

    # ------------------------------------------------------------------------------- inside

    def _carry(self, pair: SaPair, buffers: list[bytes], length: int, traffic_class: int) -> int:
        packets = [buffers[at] + buffers[at + 1] for at in range(0, len(buffers), 2)]
        self.world.after(self.delay, lambda: self.other.take(packets))
        return 0

    def take(self, packets: list[bytes]) -> None:
        sender = (str(self.other.address), 500)
        for packet in packets:
            self._inbound.receive(self._clock(), packet, len(packet), 0, sender, self.address, 4500)
        self._inbound.flush()
        self._hear_notices()
        self.hear()

    def _write(self, fd: int, buffers: Sequence[bytes]) -> None:
        self.received += 1

    def _hear_notices(self) -> None:
        endpoint, now = self.endpoint, self._clock()
        while self._notices:
            match self._notices.pop(0):
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
                self.sad.remove(spi_in)
        super()._apply(output)

    def _add(self, child: ChildSa, outbound: bool) -> None:
        pair = SaPair(child, SeededEntropy(child.spi_in), 1500)
        self.pairs.append(pair)
        self.sad.install(pair, outbound)
        if outbound:
            self._release()

    def _limit(self, spi_in: int, kilobytes: int) -> None:
        pair = self.sad.by_spi(spi_in)
        if pair is not None:
            pair.limit_bytes(kilobytes, SeededEntropy(spi_in))
            self._outbound.check_limits(pair)
            self._hear_notices()

    def _send_on(self, spi_in: int) -> None:
        pair = self.sad.by_spi(spi_in)
        if pair is not None:
            self.sad.use_outbound(pair)
            self._release()

    def _release(self) -> None:
        """What waited for an SA leaves."""
        waiting = self._path.waiting.pop(0, None)
        if waiting is not None:
            self._outbound.send(self._clock(), self._path, waiting.release(self._clock()))
