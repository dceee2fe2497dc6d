"""The engine in Python without input and output: what a call comes to is its answer."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from vpnd.crypto.entropy import Entropy
from vpnd.datapath.core import Core
from vpnd.datapath.inbound import Endpoint
from vpnd.datapath.interface import Carried, Datagram, Drop, Notice, PolicyRow, SaStats, Train
from vpnd.datapath.sad import SaPair
from vpnd.datapath.tunnels import Tunnel
from vpnd.model.child import ChildSa, Path
from vpnd.model.selectors import Address


class PythonCarrier:
    """A `Carrier` (see `vpnd.datapath.interface`)."""

    def __init__(self, entropy: Entropy) -> None:
        self.core = Core(entropy, self._transmit, self._take_ike)
        self._names: list[str] = []
        """The tunnels by the numbers that stand in place of their descriptors."""
        self._carried = Carried([], [], [])

    def add_tunnel(self, tunnel: str, vnet_header: bool, joins_udp: bool = False) -> None:
        added = Tunnel(tunnel, len(self._names), 0, vnet_header, self._write, lambda address: False)
        added.coalescer.joins_udp = joins_udp
        self.core.add_tunnel(added)
        self._names.append(tunnel)

    def remove_tunnel(self, tunnel: str) -> None:
        self.core.remove_tunnel(tunnel)

    def set_own(self, addresses: Sequence[Address]) -> None:
        self.core.own = frozenset(addresses)

    def set_mtu(self, tunnel: str, path_mtu: int) -> None:
        self.core.set_mtu(tunnel, path_mtu)

    def set_limits(self, tunnel: str, mtu: int | None, mss: int | None) -> None:
        self.core.set_limits(tunnel, mtu, mss)

    def replace_policies(self, tunnel: str, rows: tuple[PolicyRow, ...]) -> None:
        self.core.replace_policies(tunnel, rows)

    def interrupt(self, tunnel: str, interrupted: bool, keep: tuple[Address, ...] = ()) -> None:
        self.core.interrupt(tunnel, interrupted, keep)

    def answer_probes(self, tunnel: str, local: Address, remote: Address) -> None:
        self.core.answer_probes(tunnel, local, remote)

    def install(self, now: float, child: ChildSa, outbound: bool = True) -> Carried:
        self.core.install(now, child, outbound)
        return self._take()

    def use_outbound(self, now: float, spi_in: int) -> Carried:
        self.core.use_outbound(now, spi_in)
        return self._take()

    def limit(self, spi_in: int, kilobytes: int) -> None:
        self.core.limit(spi_in, kilobytes)

    def remove(self, spi_in: int) -> None:
        self.core.remove(spi_in)

    def move(self, spi_in: int, path: Path) -> None:
        self.core.move(spi_in, path)

    def send(self, now: float, tunnel: str, packets: Sequence[bytes]) -> Carried:
        found = self.core.tunnels[tunnel]
        headroom = bytes(found.headroom)
        self.core.outbound.send(now, found, [headroom + packet for packet in packets])
        return self._take()

    def receive(self, now: float, datagrams: Sequence[Datagram], local: Address, port: int) -> Carried:
        for data, length, traffic_class, remote, remote_port in datagrams:
            sender = (str(remote), remote_port)
            self.core.inbound.receive(now, data, length, traffic_class, sender, local, port)
        self.core.inbound.flush()
        return self._take()

    def believe(self, now: float, remote: Address, port: int, mtu: int, quote: bytes | None) -> None:
        self.core.believe(now, remote, port, mtu, quote)

    def take_notices(self) -> list[Notice]:
        taken = list(self.core.notices)
        self.core.notices.clear()
        return taken

    def stats(self, spi_in: int) -> SaStats | None:
        return self.core.stats(spi_in)

    def take_heard(self) -> dict[str, float]:
        return self.core.take_heard()

    def take_sent(self) -> dict[str, float]:
        return self.core.take_sent()

    def drops(self, tunnel: str | None = None) -> dict[Drop, int]:
        return self.core.drops(tunnel)

    # ------------------------------------------------------------------------- collecting

    def _take(self) -> Carried:
        carried, self._carried = self._carried, Carried([], [], [])
        return carried

    def _transmit(self, pair: SaPair, buffers: list[bytes], length: int, traffic_class: int) -> int:
        packets = [head + rest for head, rest in zip(buffers[::2], buffers[1::2], strict=True)]
        host, port = pair.address
        train = Train(pair.child.spi_in, ip_address(host), port, pair.child.udp, packets, traffic_class)
        self._carried.trains.append(train)
        return 0

    def _write(self, number: int, pieces: Sequence[bytes]) -> None:
        self._carried.writes.append((self._names[number], b"".join(pieces)))

    def _take_ike(self, local: Address, port: int, sender: Endpoint, data: bytes) -> None:
        self._carried.ike.append((ip_address(sender[0]), sender[1], data))
