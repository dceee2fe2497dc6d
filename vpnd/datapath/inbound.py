"""From the network to the TUN: SA, window, ICV, padding, selectors, ECN; then the joined write.

The order is RFC 4303's: a cheap look at the window, the ICV, only then the window moves and the padding and
the inner packet are believed. A datagram of several segments, which the kernel joined, is taken as runs of
one SA and one length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from struct import Struct

from vpnd.datapath.ecn import apply_outer
from vpnd.datapath.esp import strip_trailer
from vpnd.datapath.fit import clamp_mss, may_be_syn
from vpnd.datapath.interface import (
    EARLY_PACKETS,
    EARLY_TIME,
    UNKNOWN_SPI_INTERVAL,
    Drop,
    HardLimit,
    Notice,
    PeerMoved,
    PeerSends,
    SoftLimit,
    Tap,
    UnknownSpi,
)
from vpnd.datapath.sad import Sad, SaPair, spi_key
from vpnd.datapath.spd import ADDRESSES, NO_MAPPING, PROBED
from vpnd.datapath.tunnels import TokenBucket, Tunnel
from vpnd.model.child import Path
from vpnd.model.selectors import Address
from vpnd.wire.errors import DecodeError
from vpnd.wire.esp import DUMMY_PACKET, ESP_HEADER_LENGTH
from vpnd.wire.udpencap import KEEPALIVE, NON_ESP_MARKER

_HEADER = Struct("!II")
ECN_MASK = 0x03

PEERS_KNOWN = 1.0
"""Ours: seconds between two looks at whose SAs there are, so that a flood costs one look."""

Endpoint = tuple[str, int]
"""Sender of a datagram as sockets give it: address and port; 0 for raw ESP."""


@dataclass(frozen=True, slots=True)
class Early:
    """An ESP packet that came before its SA, as `Inbound.receive` takes it."""

    at: float
    segment: bytes
    traffic_class: int
    sender: Endpoint
    local: Address
    port: int


class Inbound:
    """Opens what arrives and delivers it to TUNs. Notices go to `notices`, which the engine empties."""

    def __init__(
        self,
        sad: Sad,
        tunnels: dict[str, Tunnel],
        notices: list[Notice],
        on_ike: Callable[[Address, int, Endpoint, bytes], None],
        on_probe: Callable[[float, Tunnel, bytes], bool] | None = None,
    ) -> None:
        self._sad = sad
        self._tunnels = tunnels
        self._notices = notices
        self._on_ike = on_ike
        self._on_probe = on_probe
        self._strangers = TokenBucket(1 / UNKNOWN_SPI_INTERVAL, 1.0)
        self._peers: dict[str, TokenBucket] = {}
        """By the addresses of those that have SAs: no flood of another hides that one has forgotten them."""
        self._peers_at = float("-inf")
        self._early: deque[Early] = deque(maxlen=EARLY_PACKETS)
        self._delivered: dict[Tunnel, None] = {}
        self.drops = [0] * len(Drop)
        self.heard: dict[str, float] = {}
        """Tunnels whose peers sent authenticated packets, and when they last did; who reads it clears it."""

    def receive(
        self,
        now: float,
        data: bytes,
        length: int,
        traffic_class: int,
        sender: Endpoint,
        local: Address,
        port: int,
    ) -> None:
        """Take one datagram, or several of `length` bytes that the kernel joined; the last may be shorter.

        `port` is the local UDP port, or 0 for raw ESP, where there are neither keepalives nor IKE messages.
        """
        inbound = self._sad.inbound
        total, start = len(data), 0
        while start < total:
            length = min(length, total - start)
            key = data[start : start + 4]
            pair = inbound.get(key)
            if pair is None or length < ESP_HEADER_LENGTH:
                # Each segment is looked at: the kernel joins an IKE message or a keepalive to ESP packets.
                segment = data[start : start + length]
                start += length
                if port and key == NON_ESP_MARKER:
                    self._on_ike(local, port, sender, segment[4:])
                elif not (port and segment == KEEPALIVE):
                    self._refuse(Early(now, segment, traffic_class, sender, local, port))
                continue
            heads = _heads(length, (total - start) // length).unpack_from(data, start)
            spis, sequences = heads[::2], heads[1::2]
            if spis.count(spis[0]) != len(spis):
                # Packets of several SAs: this run ends before the first of another.
                ends = next(index for index, spi in enumerate(spis) if spi != spis[0])
                sequences = sequences[:ends]
            self._receive_run(now, pair, data, start, length, list(sequences), traffic_class, sender)
            start += len(sequences) * length

    def receive_early(self, now: float, spi_in: int) -> None:
        """An SA is installed: take what its peer has sent on it before.

        A responder may do that once it has sent its answer, which may be overtaken (RFC 7296 section 2.8).
        """
        key = spi_key(spi_in)
        if not any(one.segment[:4] == key for one in self._early):
            return
        kept = list(self._early)
        self._early.clear()
        for one in kept:
            if one.segment[:4] != key:
                self._early.append(one)
            elif now - one.at <= EARLY_TIME:
                length = len(one.segment)
                self.receive(now, one.segment, length, one.traffic_class, one.sender, one.local, one.port)
        self.flush()

    def flush(self) -> None:
        """Write what was joined; the end of a batch. Only tunnels with packets in it are looked at."""
        for tunnel in self._delivered:
            tunnel.coalescer.flush()
        self._delivered.clear()

    # -------------------------------------------------------------------------- one run

    def _receive_run(
        self,
        now: float,
        pair: SaPair,
        data: bytes,
        start: int,
        length: int,
        sequences: list[int],
        traffic_class: int,
        sender: Endpoint,
    ) -> None:
        """Open ESP packets of one SA and one length that follow each other in `data`."""
        tunnel = self._tunnels.get(pair.child.tunnel)
        if tunnel is None:
            self.drops[Drop.NO_SA] += len(sequences)
            return
        moved = sender != pair.address
        if moved and not self._is_possible_path(pair, sender):
            tunnel.drops[Drop.DECRYPTED_BAD_PATH] += len(sequences)
            return
        window, count = pair.window, len(sequences)
        highest = window.highest
        if pair.child.suite.esn:
            sequences = [window.extend(low) for low in sequences]
        if sequences[0] == highest + 1 and sequences == list(range(highest + 1, highest + count + 1)):
            opened = pair.opener.open(data, start, length, count, sequences)
            if None in opened:
                plaintexts = self._accepted(tunnel, pair, opened, sequences)
            else:
                # An unbroken run, as nearly always: the window moves once.
                window.advance(count)
                plaintexts = opened  # type: ignore[assignment]  # none of them is None
        else:
            opened = []
            for index, sequence in enumerate(sequences):
                if window.check(sequence):
                    opened += pair.opener.open(data, start + index * length, length, 1, (sequence,))
                else:
                    tunnel.drops[Drop.REPLAY] += 1
                    opened.append(_REPLAYED)
            plaintexts = self._accepted(tunnel, pair, opened, sequences)
        if not plaintexts:
            return
        if tunnel.tap is not None:
            # By identity: two packets may have the same plaintext.
            accepted = set(map(id, plaintexts))
            starts = [start + index * length for index, one in enumerate(opened) if id(one) in accepted]
            _show(tunnel.tap, pair, sender, [data[at : at + length] for at in starts], plaintexts)
        pair.last_in = self.heard[tunnel.name] = now
        self._delivered[tunnel] = None
        if pair.awaited:
            pair.awaited = False
            self._notices.append(PeerSends(tunnel.name, pair.child.spi_in))
        if moved and window.highest > highest and sequences[-1] == window.highest:
            self._tell_moved(pair, sender)
        self._deliver(now, tunnel, pair, plaintexts, traffic_class)

    def _accepted(
        self, tunnel: Tunnel, pair: SaPair, opened: list[bytes | None], sequences: list[int]
    ) -> list[bytes]:
        """The plaintexts whose ICV was good and whose numbers are new, each marked as seen, in order."""
        plaintexts: list[bytes] = []
        for plaintext, sequence in zip(opened, sequences, strict=True):
            if plaintext is _REPLAYED:
                continue
            if plaintext is None:
                tunnel.drops[Drop.INTEGRITY] += 1
            elif pair.window.accept(sequence):
                plaintexts.append(plaintext)
            else:
                tunnel.drops[Drop.REPLAY] += 1
        return plaintexts

    def _deliver(
        self, now: float, tunnel: Tunnel, pair: SaPair, plaintexts: list[bytes], traffic_class: int
    ) -> None:
        """Check authenticated plaintexts and give their packets to the TUN, within the SA's limits."""
        if pair.hard_bytes is not None:
            left = max(pair.hard_bytes - pair.bytes_in, 0)
            room = left // max(len(plaintexts[0]) - 2, 1)
            if room < len(plaintexts):
                # With their padding they do not all fit; it is their packets that count.
                room = _fitting(plaintexts, left)
            if room < len(plaintexts):
                tunnel.drops[Drop.LIFETIME] += len(plaintexts) - room
                plaintexts = plaintexts[:room]
                self._tell_hard(pair)

        def admit(plaintext: bytes) -> bytes | None:
            return self._admit(now, tunnel, pair, plaintext)

        if traffic_class & ECN_MASK:
            plaintexts = self._with_ecn(tunnel, plaintexts, traffic_class)
        # Real packets only are counted; a dummy packet is none.
        taken = tunnel.coalescer.deliver(plaintexts, admit, pair.allowed.by_address)
        pair.packets_in += taken[0]
        pair.bytes_in += taken[1]
        if not pair.soft_told and pair.should_be_replaced():
            pair.soft_told = True
            self._notices.append(SoftLimit(tunnel.name, pair.child.spi_in))

    def _with_ecn(self, tunnel: Tunnel, plaintexts: list[bytes], traffic_class: int) -> list[bytes]:
        """The plaintexts with the outer header's congestion marks, without those that must be dropped."""
        marked: list[bytes] = []
        for plaintext in plaintexts:
            try:
                changed = apply_outer(plaintext, traffic_class)
            except DecodeError:
                changed = plaintext  # Not an IP packet, which `_admit` finds out and counts.
            if changed is None:
                tunnel.drops[Drop.ECN] += 1
            else:
                marked.append(changed)
        return marked

    def _admit(self, now: float, tunnel: Tunnel, pair: SaPair, plaintext: bytes) -> bytes | None:
        """The packet within a plaintext, if the SA may carry it (RFC 4301 section 5.2 step 4)."""
        packet = strip_trailer(plaintext)
        if packet is None:
            # A dummy packet is dropped without a trace (RFC 4303 section 2.6).
            if plaintext[-1] != DUMMY_PACKET:
                tunnel.drops[Drop.MALFORMED] += 1
            return None
        version = packet[0] >> 4
        try:
            mapping = pair.allowed.flows.get(packet[ADDRESSES[version]])
            if mapping is None:
                mapping = pair.allowed.lookup(packet)
            if mapping == NO_MAPPING:
                tunnel.drops[Drop.POLICY] += 1
                return None
            if mapping == PROBED and self._on_probe is not None and self._on_probe(now, tunnel, packet):
                pair.packets_in += 1
                pair.bytes_in += len(packet)
                return None
            if may_be_syn(packet):
                return clamp_mss(packet, tunnel.within(pair.limit), tunnel.mss)
        except DecodeError:
            tunnel.drops[Drop.MALFORMED] += 1
            return None
        return packet

    # ------------------------------------------------------------------------- the rare

    def _refuse(self, early: Early) -> None:
        """Count what no SA takes; of a peer it is kept for a moment, should its SA come."""
        if len(early.segment) < ESP_HEADER_LENGTH:
            self.drops[Drop.MALFORMED] += 1
            return
        self.drops[Drop.NO_SA] += 1
        limit = self._unknown_of(early.at, early.sender[0])
        if limit is not self._strangers:
            self._early.append(early)
        if limit.take(early.at):
            spi, _ = _HEADER.unpack_from(early.segment)
            self._notices.append(UnknownSpi(spi, ip_address(early.sender[0])))

    def _unknown_of(self, now: float, address: str) -> TokenBucket:
        """What limits the notices about SPIs that no SA has, from this address."""
        if now >= self._peers_at + PEERS_KNOWN:
            self._peers_at = now
            peers = {pair.address[0] for pair in self._sad.inbound.values()}
            fresh = {peer: TokenBucket(1 / UNKNOWN_SPI_INTERVAL, 1.0) for peer in peers - self._peers.keys()}
            self._peers = fresh | {peer: old for peer, old in self._peers.items() if peer in peers}
        return self._peers.get(address, self._strangers)

    def _is_possible_path(self, pair: SaPair, sender: Endpoint) -> bool:
        """Whether an SA's packets may come from `sender`, which is not where ours go.

        In UDP the peer may have a new address or port behind its NAT; only authentication tells. All else
        must come from the peer's address, in either encapsulation (RFC 7296 section 2.23).
        """
        if pair.child.udp and sender[1]:
            return True
        return bool(sender[0] == pair.address[0])

    def _tell_moved(self, pair: SaPair, sender: Endpoint) -> None:
        """Say once that the peer sends from elsewhere; only for its newest packet (RFC 3948 section 3.1)."""
        if not sender[1] or not pair.child.udp or pair.moved_told == sender:
            return
        pair.moved_told = sender
        path = pair.path
        moved = Path(path.local, path.local_port, ip_address(sender[0]), sender[1])
        self._notices.append(PeerMoved(pair.child.tunnel, pair.child.spi_in, moved))

    def _tell_hard(self, pair: SaPair) -> None:
        if not pair.hard_told:
            pair.hard_told = True
            self._notices.append(HardLimit(pair.child.tunnel, pair.child.spi_in))


def _show(tap: Tap, pair: SaPair, sender: Endpoint, sealed: list[bytes], plaintexts: list[bytes]) -> None:
    """Let who captures the tunnel hear ESP packets of a run, and what was in them."""
    path = pair.path
    came = Path(path.local, path.local_port, ip_address(sender[0]), sender[1])
    tap.outer(False, came, pair.child.udp, sealed)
    packets = [strip_trailer(plaintext) for plaintext in plaintexts]
    tap.inner(False, [packet for packet in packets if packet is not None])


def _fitting(plaintexts: list[bytes], left: int) -> int:
    """How many of the plaintexts, the first ones, have packets of at most `left` bytes together."""
    for index, plaintext in enumerate(plaintexts):
        left -= len(strip_trailer(plaintext) or b"")
        if left < 0:
            return index
    return len(plaintexts)


_HEADS: dict[tuple[int, int], Struct] = {}
MAXIMUM_HEADS = 512
"""Ours: lengths and counts of runs whose layout is remembered; beyond it all are forgotten and made again."""


def _heads(length: int, count: int) -> Struct:
    """SPI and sequence number of each of `count` packets in a row: reading them all is one call."""
    found = _HEADS.get((length, count))
    if found is None:
        if len(_HEADS) >= MAXIMUM_HEADS:
            _HEADS.clear()
        found = _HEADS[length, count] = Struct("!" + f"II{length - ESP_HEADER_LENGTH}x" * count)
    return found


_REPLAYED = b"replayed"
"""Stands, by identity, for a packet that was not opened because its number had been seen."""
