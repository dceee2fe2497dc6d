"""The engine in Python without its descriptors: tunnels, policies and SAs in; packets through; notices out.

What leaves is handed on at once, by `transmit` and by what writes to a TUN. `vpnd.datapath.engine` has
descriptors behind them, `vpnd.datapath.carrier` has lists.
"""

from __future__ import annotations

from collections.abc import Callable

from vpnd.crypto.entropy import Entropy
from vpnd.datapath.inbound import Endpoint, Inbound
from vpnd.datapath.interface import (
    MTU_INTERVAL,
    Drop,
    Notice,
    PathMtu,
    PolicyRow,
    SaStats,
)
from vpnd.datapath.mtu import believed
from vpnd.datapath.outbound import Outbound, Transmit
from vpnd.datapath.sad import Sad, SaPair
from vpnd.datapath.tunnels import Tunnel
from vpnd.model.child import ChildSa, Path
from vpnd.model.selectors import Address
from vpnd.wire.icmp import Echo

OnIkeFrom = Callable[[Address, int, Endpoint, bytes], None]
"""Our address and port, the sender, an IKE message without the marker."""


class Core:
    """What both directions share. `notices` is emptied by who gives them out."""

    def __init__(self, entropy: Entropy, transmit: Transmit, on_ike: OnIkeFrom) -> None:
        self._entropy = entropy
        self.own: frozenset[Address] = frozenset()
        """The addresses that are listened on: SAs that are installed later carry no packets from them."""
        self.notices: list[Notice] = []
        self.sad = Sad()
        self.tunnels: dict[str, Tunnel] = {}
        self.outbound = Outbound(self.sad, transmit, self.notices)
        self.inbound = Inbound(self.sad, self.tunnels, self.notices, on_ike, self._take_probe)
        self._mtu_told: dict[Address, float] = {}

    # --------------------------------------------------------------------------- tunnels

    def add_tunnel(self, tunnel: Tunnel) -> None:
        """Raises ValueError if one of its name is known."""
        if tunnel.name in self.tunnels:
            raise ValueError(f"tunnel {tunnel.name!r} is known")
        self.tunnels[tunnel.name] = tunnel

    def remove_tunnel(self, tunnel: str) -> Tunnel | None:
        """Forget a tunnel and its SAs; None where it is not known."""
        removed = self.tunnels.pop(tunnel, None)
        if removed is not None:
            for pair in self.sad.of_tunnel(tunnel):
                self.sad.remove(pair.child.spi_in)
        return removed

    def set_mtu(self, tunnel: str, path_mtu: int) -> None:
        self.tunnels[tunnel].path_mtu = path_mtu
        for pair in self.sad.of_tunnel(tunnel):
            pair.resize(believed(path_mtu, pair.version))

    def set_limits(self, tunnel: str, mtu: int | None, mss: int | None) -> None:
        self.tunnels[tunnel].most, self.tunnels[tunnel].mss = mtu, mss

    def replace_policies(self, tunnel: str, rows: tuple[PolicyRow, ...]) -> None:
        self.tunnels[tunnel].replace_policies(rows)

    def interrupt(self, tunnel: str, interrupted: bool, keep: tuple[Address, ...]) -> None:
        found = self.tunnels[tunnel]
        found.keep = frozenset(keep) if interrupted else None
        found.policies.interrupt(found.keep)
        for pair in self.sad.of_tunnel(tunnel):
            pair.allowed.interrupt(found.keep)

    def answer_probes(self, tunnel: str, local: Address, remote: Address) -> None:
        found = self.tunnels[tunnel]
        found.probed = remote.packed + local.packed
        for pair in self.sad.of_tunnel(tunnel):
            pair.allowed.tell_probes(found.probed)

    # ------------------------------------------------------------------------------- SAs

    def install(self, now: float, child: ChildSa, outbound: bool) -> None:
        """What waited for it is sent, and what came early is received."""
        tunnel = self.tunnels[child.tunnel]
        path_mtu = believed(tunnel.path_mtu, child.path.remote.version)
        pair = SaPair(child, self._entropy, path_mtu, self.own)
        pair.compare(tunnel.rows)
        pair.allowed.interrupt(tunnel.keep)
        pair.allowed.tell_probes(tunnel.probed)
        self.sad.install(pair, outbound)
        if outbound:
            self._release(now, tunnel, child.mapping)
        self.inbound.receive_early(now, child.spi_in)

    def use_outbound(self, now: float, spi_in: int) -> None:
        """What waited for it is sent."""
        pair = self.sad.by_spi(spi_in)
        if pair is not None:
            self.sad.use_outbound(pair)
            self._release(now, self.tunnels[pair.child.tunnel], pair.child.mapping)

    def limit(self, spi_in: int, kilobytes: int) -> None:
        pair = self.sad.by_spi(spi_in)
        if pair is not None:
            pair.limit_bytes(kilobytes, self._entropy)
            self.outbound.check_limits(pair)

    def remove(self, spi_in: int) -> None:
        self.sad.remove(spi_in)

    def move(self, spi_in: int, path: Path) -> None:
        pair = self.sad.by_spi(spi_in)
        if pair is not None:
            pair.move(path)
            pair.resize(believed(self.tunnels[pair.child.tunnel].path_mtu, pair.version))

    def _release(self, now: float, tunnel: Tunnel, mapping: int) -> None:
        """Send what waited for an SA of this mapping."""
        waiting = tunnel.waiting.pop(mapping, None)
        if waiting is not None:
            self.outbound.send(now, tunnel, waiting.release(now))

    # --------------------------------------------------------------------------- packets

    def send_packet(self, now: float, tunnel: Tunnel, packet: bytes) -> None:
        """Send one inner packet, without headroom."""
        if tunnel.tap is not None:
            tunnel.tap.inner(True, [packet])
        self.outbound.send(now, tunnel, [bytes(tunnel.headroom) + packet])

    def _take_probe(self, now: float, tunnel: Tunnel, packet: bytes) -> bool:
        """Answer an echo request; all else, such as the answers to ours, is the kernel's."""
        echo = Echo.decode(packet)
        if echo is None or echo.reply:
            return False
        self.send_packet(now, tunnel, echo.answer().encode())
        return True

    def believe(self, now: float, remote: Address, port: int, mtu: int, quote: bytes | None) -> None:
        """Believe "packet too big" only about a packet of one of our SAs (RFC 4301 section 8.2).

        `quote` begins with the SPI of the packet in question; None for what this host itself says about its
        own interface. A sender that cannot see our packets does not know the SPI. A report never makes the
        path larger: no router says that more would have fit (RFC 1191 section 3).
        """
        if quote is None:
            about = [pair for pair in self.sad.inbound.values() if pair.address[0] == str(remote)]
        else:
            sent_to = (str(remote), port)
            about = [pair for pair in self.sad.sending_on(quote[:4]) if pair.address == sent_to]
        if any(mtu < self.tunnels[pair.child.tunnel].path_mtu for pair in about):
            self._tell_mtu(now, remote, mtu)

    def _tell_mtu(self, now: float, remote: Address, mtu: int) -> None:
        if now >= self._mtu_told.get(remote, now):
            self._mtu_told[remote] = now + MTU_INTERVAL
            self.notices.append(PathMtu(remote, believed(mtu, remote.version)))

    # -------------------------------------------------------------------------- counters

    def stats(self, spi_in: int) -> SaStats | None:
        pair = self.sad.by_spi(spi_in)
        return None if pair is None else pair.stats()

    def take_heard(self) -> dict[str, float]:
        heard, self.inbound.heard = self.inbound.heard, {}
        return heard

    def take_sent(self) -> dict[str, float]:
        sent, self.outbound.sent = self.outbound.sent, {}
        return sent

    def drops(self, tunnel: str | None) -> dict[Drop, int]:
        counted = self.inbound.drops if tunnel is None else self.tunnels[tunnel].drops
        return {drop: counted[drop] for drop in Drop}
