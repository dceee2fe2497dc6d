"""From the TUN to the network: the mapping and SA of each packet, the limits, runs of equal packets, sealing.

Packets of one flow come one after the other and most have one length, so the loop compares each with the one
before it; only where something differs does it look anything up. A run is what is sealed at once; runs of one
SA are sent together where only the last is shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct

from vpnd.datapath.fit import clamp_mss, fragment_ipv4, may_be_syn
from vpnd.datapath.interface import Acquire, Drop, HardLimit, Notice, SoftLimit
from vpnd.datapath.sad import Sad, SaPair
from vpnd.datapath.spd import ADDRESSES, NO_MAPPING
from vpnd.datapath.tunnels import Tunnel, Waiting
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import IpProtocol
from vpnd.wire.icmp import too_big
from vpnd.wire.ip import OPTION_HEADERS, decode_packet

_HEADS = {(4, headroom): Struct(f"!{headroom}xH7xB2x8s") for headroom in (0, 10)} | {
    (6, headroom): Struct(f"!{headroom}xH4xBx32s") for headroom in (0, 10)
}
"""By version and headroom, what packets of one flow share: first two bytes, protocol, addresses."""

SMALLEST = {4: 20, 6: 40}
PROTOCOL_AT = {4: 9, 6: 6}

MAY_LEAD_TO_TCP = {4: frozenset({IpProtocol.TCP}), 6: OPTION_HEADERS | {IpProtocol.TCP}}
"""By version, what the first header names where TCP follows, in IPv6 perhaps behind options."""

LARGEST_SYN = 200
"""Bytes of packet up to which TCP flags are looked at one by one: a SYN carries options and no more."""

LEAST_IPV6_MTU = 1280
"""No IPv6 link carries less (RFC 8200 section 5): up to this, what is too long goes and is cut outside."""

DONT_FRAGMENT_AT = 6
DONT_FRAGMENT_BIT = 0x40

Transmit = Callable[[SaPair, list[bytes], int, int], int]
"""Send buffers, two a packet, of a length and with a traffic class; returns how many were lost."""


class Outbound:
    """Seals and sends what is read from TUNs. Notices go to `notices`, which the engine empties."""

    def __init__(self, sad: Sad, transmit: Transmit, notices: list[Notice]) -> None:
        self._sad = sad
        self._transmit = transmit
        self._notices = notices
        self._train = _Train()
        self.sent: dict[str, float] = {}
        """When packets of each tunnel left last, for the engine to take."""

    def send(self, now: float, tunnel: Tunnel, packets: Sequence[bytes]) -> None:
        """Take a batch of packets as read from the TUN, headroom included."""
        headroom = tunnel.headroom
        pair: SaPair | None = None
        run: list[bytes] = []
        append = run.append
        length = -1
        read_head, same = _HEADS[4, 0].unpack_from, ()
        for packet in packets:
            if len(packet) == length and read_head(packet) == same:
                append(packet)
                continue
            if run and pair is not None:
                self._seal(now, tunnel, pair, run, headroom)
            length, run = -1, []
            pair, inner, stays = self._choose(now, tunnel, packet[headroom:])
            if pair is None:
                continue
            if stays:
                run, length = [packet], len(packet)
                append = run.append
                read_head = _HEADS[inner[0][0] >> 4, headroom].unpack_from
                same = read_head(packet)
            else:
                for single in inner:
                    self._seal(now, tunnel, pair, [single], 0)
        if run and pair is not None:
            self._seal(now, tunnel, pair, run, headroom)
        self._flush(tunnel)

    # ------------------------------------------------------------------------ what differs

    def _choose(self, now: float, tunnel: Tunnel, packet: bytes) -> tuple[SaPair | None, list[bytes], bool]:
        """The SA that carries a packet, and the packet: its fragments, or with its MSS clamped.

        The third value says whether packets with the same head and length have the same SA and pass
        unchanged. Without an SA there is nothing to send: the packet was dropped and counted, or waits.
        """
        nothing: tuple[None, list[bytes], bool] = (None, [], False)
        version = packet[0] >> 4 if packet else 0
        if len(packet) < SMALLEST.get(version, len(packet) + 1):
            tunnel.drops[Drop.MALFORMED] += 1
            return nothing
        try:
            mapping = tunnel.policies.flows.get(packet[ADDRESSES[version]])
            by_address = mapping is not None
            if mapping is None:
                mapping = tunnel.policies.lookup(packet)
                by_address = packet[ADDRESSES[version]] in tunnel.policies.flows
            if mapping == NO_MAPPING:
                tunnel.drops[Drop.POLICY] += 1
                return nothing
            pair = self._sad.outbound.get((tunnel.name, mapping))
            if pair is None:
                self._wait(now, tunnel, mapping, packet)
                return nothing
            if pair.part is not None:
                by_address = by_address and pair.part.by_address
                if pair.part.lookup(packet) == NO_MAPPING:
                    tunnel.drops[Drop.POLICY] += 1
                    return nothing
            limit = tunnel.within(pair.limit)
            limit = limit if version == 4 else max(limit, LEAST_IPV6_MTU)
            if len(packet) > limit:
                if pair.by_port and may_be_cut(packet):
                    # Its later fragments would show no ports, so the peer drops them: it is cut outside.
                    return pair, [packet], False
                return pair, self._cut(now, tunnel, packet, limit), False
            if packet[PROTOCOL_AT[version]] in MAY_LEAD_TO_TCP[version] and len(packet) < LARGEST_SYN:
                return pair, [clamp_mss(packet, limit, tunnel.mss) if may_be_syn(packet) else packet], False
        except DecodeError:
            tunnel.drops[Drop.MALFORMED] += 1
            return nothing
        return pair, [packet], by_address

    def _cut(self, now: float, tunnel: Tunnel, packet: bytes, limit: int) -> list[bytes]:
        """The fragments of a packet that is too long; or an ICMP error to its sender (RFC 4301 section 8)."""
        if may_be_cut(packet):
            return fragment_ipv4(packet, limit)
        tunnel.drops[Drop.TOO_BIG] += 1
        if tunnel.icmp.take(now):
            answer = too_big(packet, limit)
            if answer is not None:
                tunnel.write(answer)
        return []

    def _wait(self, now: float, tunnel: Tunnel, mapping: int, packet: bytes) -> None:
        """Keep a mapping's first packets until it has an SA, and ask for one."""
        waiting = tunnel.waiting.get(mapping)
        if waiting is None:
            waiting = tunnel.waiting[mapping] = Waiting()
        if not waiting.hold(now, bytes(tunnel.headroom) + packet):
            tunnel.drops[Drop.NO_SA] += 1
        if waiting.may_acquire(now):
            ip = decode_packet(packet)
            self._notices.append(Acquire(tunnel.name, mapping, ip.source, ip.destination, ip.protocol))

    # ----------------------------------------------------------------------------- sealing

    def _seal(self, now: float, tunnel: Tunnel, pair: SaPair, run: list[bytes], headroom: int) -> None:
        """Seal packets of one length and one head, and hand them on to be sent."""
        inner = len(run[0]) - headroom
        count = pair.sendable(len(run), inner)
        ended = count < len(run)
        if ended:
            tunnel.drops[Drop.LIFETIME] += len(run) - count
            run = run[:count]
            if not run:
                self._tell_limits(pair, used_up=True)
                return
        first = run[0][headroom]
        if first >> 4 == 4:
            next_header, traffic_class = 4, run[0][headroom + 1]
        else:
            next_header, traffic_class = 41, (first & 0x0F) << 4 | run[0][headroom + 1] >> 4
        buffers = pair.sealer.seal(run, headroom, pair.sequence + 1, next_header)
        pair.sequence += count
        pair.packets_out += count
        pair.bytes_out += count * inner
        pair.last_out = self.sent[tunnel.name] = now
        if ended or pair.should_be_replaced():
            self._tell_limits(pair, used_up=ended or pair.is_used_up())
        length = pair.sealer.sealed_length(inner)
        train = self._train
        if train.pair is pair and train.traffic_class == traffic_class and train.takes(length, count):
            train.buffers += buffers
            train.last = length
            return
        self._flush(tunnel)
        train.pair, train.traffic_class, train.buffers = pair, traffic_class, buffers
        train.length = train.last = length

    def _flush(self, tunnel: Tunnel) -> None:
        """Send the train."""
        train = self._train
        if train.pair is not None:
            lost = self._transmit(train.pair, train.buffers, train.length, train.traffic_class)
            tunnel.drops[Drop.SEND] += lost
            train.pair = None

    def check_limits(self, pair: SaPair) -> None:
        """Its limits were lowered: it may be near one already."""
        if pair.should_be_replaced():
            self._tell_limits(pair, used_up=False)

    def _tell_limits(self, pair: SaPair, used_up: bool) -> None:
        """Say once that an SA should be replaced, and once that it is used up."""
        if not pair.soft_told:
            pair.soft_told = True
            self._notices.append(SoftLimit(pair.child.tunnel, pair.child.spi_in))
        if used_up and not pair.hard_told:
            pair.hard_told = True
            self._notices.append(HardLimit(pair.child.tunnel, pair.child.spi_in))


def may_be_cut(packet: bytes) -> bool:
    """Whether it is of IPv4 and has no DF."""
    return packet[0] >> 4 == 4 and not packet[DONT_FRAGMENT_AT] & DONT_FRAGMENT_BIT


class _Train:
    """ESP packets of one SA that can leave with one send: of one length, but a last one that is shorter."""

    def __init__(self) -> None:
        self.pair: SaPair | None = None
        self.buffers: list[bytes] = []
        self.traffic_class = self.length = self.last = 0

    def takes(self, length: int, count: int) -> bool:
        """Whether `count` packets of `length` bytes can join: of the same length, or a shorter last one."""
        return self.last == self.length and (length == self.length or (length < self.length and count == 1))
