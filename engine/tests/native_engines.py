"""Both engines behind one set of calls: the Python one on a loop that a test turns, and the native one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, cast

import vpnd_engine
from vpnd.crypto.entropy import SeededEntropy
from vpnd.datapath.engine import EngineOptions, PythonEngine
from vpnd.datapath.esp import Opener, make_opener
from vpnd.datapath.interface import Drop, Notice, PolicyRow
from vpnd.datapath.sad import SaPair
from vpnd.model.child import ChildSa, Path
from vpnd.model.selectors import Address

TUNNEL = "t"
SEED = bytes(range(32))

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


class Recorded(PythonEngine):
    """The Python engine, whose sends are kept."""

    trains: list[Train]

    def _transmit(self, pair: SaPair, buffers: list[bytes], length: int, traffic_class: int) -> int:
        packets = [buffers[at] + buffers[at + 1] for at in range(0, len(buffers), 2)]
        self.trains.append((pair.child.spi_in, *pair.address, pair.child.udp, packets, traffic_class))
        return 0


class Both:
    """Every call goes to both engines, and what comes of it must be the same."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.notices: list[tuple[object, ...]] = []
        options = EngineOptions(vnet_header=False, raw=False)
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.python = Recorded(loop, (), self._no_ike, self._take_notice, options, SeededEntropy(1))
        self.python.trains = []
        self.native = vpnd_engine.Engine()
        # Each packet is one read or write, as with a TUN.
        self.tun, self.ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.python.add_tunnel(TUNNEL, self.tun.fileno(), 1400)
        self.native.add_tunnel(TUNNEL)
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
        return self._compared(ours)

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
            self.ours.send(packet)
        if packets:
            self.loop.readers[self.tun.fileno()]()
        return self._compared(self.native.send(self.loop.now, TUNNEL, list(packets)))

    # ----------------------------------------------------------------------- comparison

    def _compared(self, sent: Any) -> Outcome:
        self.loop.turn()
        trains = [(spi, str(to), port, udp, packets, tc) for spi, to, port, udp, packets, tc in sent[0]]
        ours = (
            trains,
            sent[1],
            self.native.take_notices(),
            self.native.drops(TUNNEL),
            self._counted(self.native),
        )
        counted = self.python.drops(TUNNEL)
        theirs = (
            self.python.trains,
            self._written(),
            self.notices,
            [counted[drop] for drop in Drop],
            self._counted(self.python),
        )
        assert self.native.take_sent(TUNNEL) == self.python.take_sent().get(TUNNEL)
        self.python.trains, self.notices = [], []
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

    def _written(self) -> list[bytes]:
        written = []
        while True:
            try:
                written.append(self.ours.recv(65536))
            except BlockingIOError:
                return written

    def _take_notice(self, notice: Notice) -> None:
        name = type(notice).__name__
        self.notices.append((name, *(getattr(notice, field.name) for field in fields(notice))))

    def _no_ike(self, path: Path, data: bytes) -> None:
        raise AssertionError("there are no sockets")
