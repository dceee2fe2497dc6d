"""Both engines without input and output behind one set of calls: what comes of each must be the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from ipaddress import ip_address
from itertools import islice
from typing import Any

from tests.engines import NativeCarrier
from tests.unit.datapath.parts import HEADER, address
from vpnd.crypto.entropy import SeededEntropy
from vpnd.datapath.carrier import PythonCarrier
from vpnd.datapath.coalesce import VNET_HEADER
from vpnd.datapath.esp import Opener, make_opener
from vpnd.datapath.interface import Carried, Carrier, Datagram, Drop, Notice, PolicyRow, SaStats
from vpnd.model.child import ChildSa, Path
from vpnd.model.selectors import Address
from vpnd.wire.ip import ones_complement_sum

TUNNEL = "t"
LOCAL = ip_address("192.0.2.1")

Sent = tuple[int, str, int, bool, list[bytes], int]
"""SPI that is received on, peer's address and port, whether in UDP, packets, DSCP and ECN."""

Told = tuple[object, ...]
"""The name of a notice, and its fields."""

Outcome = tuple[list[Sent], list[bytes], list[Told], list[int], list[SaStats | None]]
"""Trains, packets for the TUN, notices, drops of the tunnel, counters of each SA."""


@dataclass(frozen=True)
class Arrival:
    """A datagram, or several of `length` bytes that the kernel joined; port 0 is raw ESP."""

    data: bytes
    length: int
    traffic_class: int = 0
    sender: tuple[str, int] = ("192.0.2.2", 4500)


def cancels(packets: Sequence[bytes]) -> bool:
    """Whether several checksums of these packets are bad, and the sum of everything is good."""
    sums: list[int] = []
    for packet in packets:
        is_old = packet[0] >> 4 == 4
        head, body = (packet[:20], packet[20:]) if is_old else (packet[:40], packet[40:])
        ends, protocol = (head[12:20], head[9]) if is_old else (head[8:40], head[6])
        sums.append(ones_complement_sum(head) % 0xFFFF if is_old else 0)
        sums.append(ones_complement_sum(body, int.from_bytes(ends) + protocol + len(body)) % 0xFFFF)
    return sum(map(bool, sums)) > 1 and sum(sums) % 0xFFFF == 0


class Both:
    """Every call goes to both engines."""

    def __init__(self, vnet_header: bool = False, joins_udp: bool = False) -> None:
        self.now = 100.0
        self._head = HEADER if vnet_header else 0
        self.python, self.native = PythonCarrier(SeededEntropy(1)), NativeCarrier(SeededEntropy(1))
        self.spis: dict[int, Opener] = {}
        self.packets = 0
        """Packets and datagrams that were put in."""
        for one in self._each:
            one.add_tunnel(TUNNEL, vnet_header, joins_udp)

    @property
    def _each(self) -> tuple[Carrier, Carrier]:
        return self.python, self.native

    def close(self) -> None:
        """Nothing is open."""

    # ------------------------------------------------------------------------- commands

    def replace_policies(self, rows: tuple[PolicyRow, ...]) -> None:
        for one in self._each:
            one.replace_policies(TUNNEL, rows)

    def set_limits(self, mtu: int | None, mss: int | None) -> None:
        for one in self._each:
            one.set_limits(TUNNEL, mtu, mss)

    def set_mtu(self, path_mtu: int) -> None:
        for one in self._each:
            one.set_mtu(TUNNEL, path_mtu)

    def interrupt(self, keep: Sequence[Address] | None) -> None:
        for one in self._each:
            one.interrupt(TUNNEL, keep is not None, tuple(keep or ()))

    def answer_probes(self, local: Address, remote: Address) -> None:
        for one in self._each:
            one.answer_probes(TUNNEL, local, remote)

    def own(self, own: Sequence[Address]) -> None:
        for one in self._each:
            one.set_own(own)

    def install(self, sa: ChildSa, outbound: bool) -> Outcome | None:
        """None where both engines refuse it in the same words."""

        def refused(call: Callable[[], Carried]) -> Carried | str:
            try:
                return call()
            except ValueError as error:
                return str(error)

        theirs, ours = (refused(lambda one=one: one.install(self.now, sa, outbound)) for one in self._each)  # type: ignore[misc]  # bound now
        if isinstance(theirs, str) or isinstance(ours, str):
            assert ours == theirs
            return None
        self.spis[sa.spi_in] = make_opener(sa.suite, sa.keys_out)
        return self._compared(theirs, ours)

    def limit(self, sa: ChildSa, kilobytes: int) -> Outcome:
        """Both lower the SA's limits; the margin has no chance in it."""
        for one in self._each:
            one.limit(sa.spi_in, kilobytes)
        return self._compared()

    def use_outbound(self, spi_in: int) -> Outcome:
        return self._compared(*(one.use_outbound(self.now, spi_in) for one in self._each))

    def remove(self, spi_in: int) -> None:
        for one in self._each:
            one.remove(spi_in)

    def move(self, sa: ChildSa, path: Path) -> None:
        for one in self._each:
            one.move(sa.spi_in, path)

    def believe(self, remote: Address, port: int, mtu: int, quote: bytes | None) -> Outcome:
        for one in self._each:
            one.believe(self.now, remote, port, mtu, quote)
        return self._compared()

    def send(self, packets: Sequence[bytes]) -> Outcome:
        """Packets as they come from the TUN."""
        self.packets += len(packets)
        return self._compared(*(one.send(self.now, TUNNEL, packets) for one in self._each))

    def receive(self, arrivals: Sequence[Arrival], port: int = 4500) -> Outcome:
        """One batch of datagrams."""
        batch = [
            Datagram(a.data, a.length, a.traffic_class, address(a.sender[0]), a.sender[1]) for a in arrivals
        ]
        self.packets += sum(-(-len(a.data) // a.length) for a in arrivals)
        return self._compared(*(one.receive(self.now, batch, LOCAL, port) for one in self._each))

    # ----------------------------------------------------------------------- comparison

    def _compared(self, *carried: Carried) -> Outcome:
        theirs, ours = carried or (Carried([], [], []), Carried([], [], []))
        # AEAD packets are the same byte by byte, others have random IVs.
        if ours.trains != theirs.trains:
            assert self._opened(ours) == self._opened(theirs)
        # An error of the engine's own may overtake what is joined; all else keeps its order.
        if ours.writes != theirs.writes:
            ordered = (sorted(writes, key=self._is_error) for writes in (theirs.writes, ours.writes))
            assert self.are_alike(*ordered)
        assert ours.ike == theirs.ike
        assert self.native.take_sent() == self.python.take_sent()
        assert self.native.take_heard() == self.python.take_heard()
        for tunnel in (TUNNEL, None):
            assert self.native.drops(tunnel) == self.python.drops(tunnel)
        notices = self.python.take_notices()
        assert self.native.take_notices() == notices
        counted = [self.python.stats(spi) for spi in sorted(self.spis)]
        assert [self.native.stats(spi) for spi in sorted(self.spis)] == counted
        drops = self.python.drops(TUNNEL)
        return (
            [
                (spi, str(to), port, udp, packets, traffic_class)
                for spi, to, port, udp, packets, traffic_class in theirs.trains
            ],
            [write for _, write in theirs.writes],
            list(map(_told, notices)),
            [drops[drop] for drop in Drop],
            counted,
        )

    def are_alike(self, theirs: list[tuple[str, bytes]], ours: list[tuple[str, bytes]]) -> bool:
        """Whether they are the same, but for trains whose damage adds up to nothing.

        The Python engine takes the sum of a whole train, which costs half as much: two faults in it that are
        each other's opposite do not show. The native one looks at each header and segment, and writes all as
        they came.
        """
        left = iter(ours)
        for tunnel, write in theirs:
            follows = next(left, None)
            if follows == (tunnel, write):
                continue
            if follows is None or not self._head or not write[1]:
                return False
            _, _, header, size, _, _ = VNET_HEADER.unpack_from(write)
            head, data = write[HEADER : HEADER + header], write[HEADER + header :]
            segments = [follows, *islice(left, -(-len(data) // size) - 1)]
            packets = [packet[HEADER:] for _, packet in segments]
            if not cancels(packets) or b"".join(packet[header:] for packet in packets) != data:
                return False
            addresses = slice(12, 24) if head[0] >> 4 == 4 else slice(8, 44)
            if any(
                packet[addresses] != head[addresses] or name != tunnel
                for (name, _), packet in zip(segments, packets, strict=True)
            ):
                return False
        return next(left, None) is None

    def _is_error(self, write: tuple[str, bytes]) -> bool:
        """Whether it says "too big", from whatever sender."""
        packet = write[1][self._head :]
        if packet[:1] >= b"\x60":
            return packet[6:7] == b"\x3a" and packet[40:41] == b"\2"
        return packet[9:10] == b"\1" and packet[20:22] == b"\3\4"

    def _opened(self, carried: Carried) -> list[object]:
        """Trains with plaintexts in place of ciphertext whose IV is random."""
        opened: list[object] = []
        for spi, to, port, udp, packets, traffic_class in carried.trains:
            seen: list[object] = []
            for packet in packets:
                # Sequence numbers of 64 bits are far from needing their upper half here.
                number = int.from_bytes(packet[4:8])
                (plaintext,) = self.spis[spi].open(packet, 0, len(packet), 1, (number,))
                assert plaintext is not None
                seen.append((packet[:8], len(packet), plaintext))
            opened.append((spi, to, port, udp, seen, traffic_class))
        return opened


def _told(notice: Notice) -> Told:
    values: list[Any] = [getattr(notice, field.name) for field in fields(notice)]
    if isinstance(values[-1], Path):
        path = values[-1]
        values[-1] = (path.local, path.local_port, path.remote, path.remote_port)
    return type(notice).__name__, *values
