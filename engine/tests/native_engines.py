"""Both engines behind one set of calls: the Python one on a loop that a test turns, and the native one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Any, cast

import vpnd_engine
from vpnd.crypto.entropy import SeededEntropy
from vpnd.datapath.engine import PythonEngine
from vpnd.datapath.esp import Opener, make_opener
from vpnd.datapath.interface import Drop, EngineOptions, Notice, PolicyRow
from vpnd.datapath.sad import SaPair
from vpnd.model.child import ChildSa, Path
from vpnd.model.selectors import Address

TUNNEL = "t"
SEED = bytes(range(32))
LOCAL = ip_address("192.0.2.1")

Train = tuple[int, str, int, bool, list[bytes], int]
"""SPI that is received on, peer's address and port, whether in UDP, packets, DSCP and ECN."""

Outcome = tuple[list[Train], list[bytes], list[tuple[object, ...]], list[int], list[object]]
"""Trains, packets for the TUN, notices, drops of the tunnel, counters of each SA."""


class Loop:
    """As much of an event loop as the engine calls; the test turns it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.readers: dict[int, Callable[[], object]] = {}
        self.soon: list[Callable[[], object]] = []

    def time(self) -> float:
        return self.now

    def add_reader(self, fd: int, call: Callable[..., object], *args: object) -> None:
        self.readers[fd] = lambda: call(*args)

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def call_soon(self, call: Callable[[], object]) -> None:
        self.soon.append(call)

    def turn(self) -> None:
        while self.soon:
            self.soon.pop(0)()


@dataclass(frozen=True)
class Arrival:
    """A datagram, or several of `length` bytes that the kernel joined; port 0 is raw ESP."""

    data: bytes
    length: int
    traffic_class: int = 0
    sender: tuple[str, int] = ("192.0.2.2", 4500)


class Recorded(PythonEngine):
    """The Python engine, whose sends are kept. No address is this host's, so all checksums are verified."""

    trains: list[Train]
    written: list[bytes]

    def _is_local(self, packed: bytes) -> bool:
        return False

    def carry(self, tunnel: str, fd: int) -> None:
        """Begin to carry a tunnel, whose writes are kept."""
        self.add_tunnel(tunnel, fd, 1400)
        vars(self._tunnels[tunnel])["_write_to"] = lambda _, pieces: self.written.append(b"".join(pieces))

    def own(self, addresses: Sequence[Address]) -> None:
        """As if it listened on these addresses."""
        self._own = frozenset(addresses)

    def receive(self, now: float, arrivals: Sequence[Arrival], port: int) -> None:
        """One batch of datagrams."""
        for a in arrivals:
            self._inbound.receive(now, a.data, a.length, a.traffic_class, a.sender, LOCAL, port)
        self._inbound.flush()
        self._tell()

    def _transmit(self, pair: SaPair, buffers: list[bytes], length: int, traffic_class: int) -> int:
        packets = [buffers[at] + buffers[at + 1] for at in range(0, len(buffers), 2)]
        self.trains.append((pair.child.spi_in, *pair.address, pair.child.udp, packets, traffic_class))
        return 0


class Both:
    """Every call goes to both engines, and what comes of it must be the same."""

    def __init__(self, vnet_header: bool = False) -> None:
        self.loop = Loop()
        self.notices: list[tuple[object, ...]] = []
        self.ike: list[tuple[Address, int, bytes]] = []
        self.headroom = bytes(10 if vnet_header else 0)
        options = EngineOptions(vnet_header=vnet_header, raw=False)
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.python = Recorded(loop, (), self._take_ike, self._take_notice, options, SeededEntropy(1))
        self.python.trains, self.python.written = [], []
        self.native = vpnd_engine.Engine()
        # Each packet is one read, as with a TUN.
        self.tun, self.ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.python.carry(TUNNEL, self.tun.fileno())
        self.native.add_tunnel(TUNNEL, vnet_header)
        self.spis: dict[int, Opener] = {}

    def close(self) -> None:
        self.python.close()
        self.tun.close()
        self.ours.close()

    # ------------------------------------------------------------------------- commands

    def replace_policies(self, rows: tuple[PolicyRow, ...]) -> None:
        self.python.replace_policies(TUNNEL, rows)
        self.native.replace_policies(TUNNEL, list(rows))

    def set_limits(self, mtu: int | None, mss: int | None) -> None:
        self.python.set_limits(TUNNEL, mtu, mss)
        self.native.set_limits(TUNNEL, mtu, mss)

    def set_mtu(self, path_mtu: int) -> None:
        self.python.set_mtu(TUNNEL, path_mtu)
        self.native.set_mtu(TUNNEL, path_mtu)

    def interrupt(self, keep: Sequence[Address] | None) -> None:
        self.python.interrupt(TUNNEL, keep is not None, tuple(keep or ()))
        self.native.interrupt(TUNNEL, None if keep is None else list(keep))

    def install(self, sa: ChildSa, outbound: bool) -> Outcome | None:
        """None where both engines refuse it in the same words."""
        kilobytes = sa.lifetimes.kilobytes
        hard = None if kilobytes is None else kilobytes * 1024
        soft = None if hard is None else int(sa.lifetimes.margin.soft(hard, 0.0))

        def refused(call: Callable[[], Any]) -> Any:
            try:
                return call()
            except ValueError as error:
                return str(error)

        theirs = refused(lambda: self.python.install(sa, outbound))
        ours = refused(lambda: self.native.install(self.loop.now, sa, (soft, hard), SEED, outbound))
        if isinstance(theirs, str) or isinstance(ours, str):
            assert ours == theirs
            return None
        self.spis[sa.spi_in] = make_opener(sa.suite, sa.keys_out)
        return self._compared(ours[2], [write for _, write in ours[0]])

    def limit(self, sa: ChildSa, kilobytes: int) -> Outcome:
        """Both lower the SA's limits; the margin has no chance in it."""
        hard = kilobytes * 1024
        self.python.limit(sa.spi_in, kilobytes)
        self.native.limit(sa.spi_in, int(sa.lifetimes.margin.soft(hard, 0.0)), hard)
        return self._compared(([], []))

    def use_outbound(self, spi_in: int) -> Outcome:
        self.python.use_outbound(spi_in)
        return self._compared(self.native.use_outbound(self.loop.now, spi_in))

    def remove(self, spi_in: int) -> None:
        self.python.remove(spi_in)
        self.native.remove(spi_in)

    def move(self, sa: ChildSa, path: Path) -> None:
        self.python.move(sa.spi_in, path)
        self.native.move(sa.spi_in, path, sa.udp)

    def send(self, packets: Sequence[bytes]) -> Outcome:
        """Packets as they come from the TUN; at most as many as are read at once."""
        for packet in packets:
            self.ours.send(self.headroom + packet)
        if packets:
            self.loop.readers[self.tun.fileno()]()
        return self._compared(self.native.send(self.loop.now, TUNNEL, list(packets)))

    def answer_probes(self, local: Address, remote: Address) -> None:
        self.python.answer_probes(TUNNEL, local, remote)
        self.native.answer_probes(TUNNEL, local, remote)

    def own(self, own: Sequence[Address]) -> None:
        self.python.own(own)
        self.native.set_own(list(own))

    def receive(self, arrivals: Sequence[Arrival], port: int = 4500) -> Outcome:
        """One batch of datagrams."""
        self.python.receive(self.loop.now, arrivals, port)
        datagrams = [
            (a.data, a.length, a.traffic_class, ip_address(a.sender[0]), a.sender[1]) for a in arrivals
        ]
        writes, ike, sent = self.native.receive(self.loop.now, datagrams, port)
        assert ike == self.ike
        self.ike = []
        assert {name for name, _ in writes} <= {TUNNEL}
        return self._compared(sent, [write for _, write in writes])

    # ----------------------------------------------------------------------- comparison

    def _compared(self, sent: Any, writes: Sequence[bytes] = ()) -> Outcome:
        self.loop.turn()
        trains = [(spi, str(to), port, udp, packets, tc) for spi, to, port, udp, packets, tc in sent[0]]
        ours = (
            trains,
            [*writes, *(self.headroom + answer for answer in sent[1])],
            self.native.take_notices(),
            self.native.drops(TUNNEL),
            self._counted(self.native),
        )
        counted = self.python.drops(TUNNEL)
        theirs = (
            self.python.trains,
            self.python.written,
            self.notices,
            [counted[drop] for drop in Drop],
            self._counted(self.python),
        )
        assert self.native.take_sent(TUNNEL) == self.python.take_sent().get(TUNNEL)
        assert self.native.take_heard(TUNNEL) == self.python.take_heard().get(TUNNEL)
        assert self.native.drops() == [*self.python.drops().values()]
        self.python.trains, self.python.written, self.notices = [], [], []
        assert [*self._opened(ours[0])] == [*self._opened(theirs[0])]
        assert ours[1:] == theirs[1:]
        return cast(Outcome, theirs)

    def _opened(self, trains: list[Train]) -> list[tuple[object, ...]]:
        """Trains with plaintexts in place of ciphertext whose IV is random; AEAD packets as they are."""
        opened: list[tuple[object, ...]] = []
        for spi, to, port, udp, packets, traffic_class in trains:
            seen: list[object] = []
            for packet in packets:
                # Sequence numbers of 64 bits are far from needing their upper half here.
                number = int.from_bytes(packet[4:8])
                (plaintext,) = self.spis[spi].open(packet, 0, len(packet), 1, (number,))
                assert plaintext is not None
                seen.append((packet[:8], len(packet), plaintext))
            opened.append((spi, to, port, udp, seen, traffic_class))
        return opened

    def _counted(self, engine: Any) -> list[object]:
        found = [engine.stats(spi) for spi in sorted(self.spis)]
        return [
            stats
            if stats is None or isinstance(stats, tuple)
            else tuple(getattr(stats, f.name) for f in fields(stats))
            for stats in found
        ]

    def _take_notice(self, notice: Notice) -> None:
        values = [getattr(notice, field.name) for field in fields(notice)]
        if isinstance(values[-1], Path):
            path = values[-1]
            values[-1] = (path.local, path.local_port, path.remote, path.remote_port)
        self.notices.append((type(notice).__name__, *values))

    def _take_ike(self, path: Path, data: bytes) -> None:
        self.ike.append((path.remote, path.remote_port, data))
