"""The messages of one IKE SA as datagrams: sealed, drawn and sent."""

from __future__ import annotations

from collections.abc import Iterable

from vpnd.ike.fragments import DATAGRAM_LIMIT
from vpnd.ike.outputs import Transmit
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.v2.ike_sa import IkeSa
from vpnd.ike.v2.protect import Protection, header_of, plain
from vpnd.model.child import Path
from vpnd.wire.header import Flag
from vpnd.wire.iana import Exchange2
from vpnd.wire.ikev2 import Payload, encode_payloads

UDP_HEADER = 8
NON_ESP_MARKER = 4
IP_HEADER = {4: 20, 6: 40}


class Outbox:
    """Makes and sends the messages of one IKE SA; `protection` also opens those of the peer."""

    def __init__(self, registry: Registry, sa: IkeSa) -> None:
        self._registry = registry
        self._sa = sa
        self._protection: Protection | None = None

    @property
    def protection(self) -> Protection:
        """Raises Drop before IKE_SA_INIT has made the keys."""
        if self._protection is None:
            keys, suite = self._sa.keys, self._sa.suite
            self._protection = Protection(suite, keys, self._sa.initiator, self._registry.entropy)
        return self._protection

    def protect(
        self, exchange: int, message_id: int, payloads: tuple[Payload, ...], response: bool
    ) -> tuple[bytes, ...]:
        """The datagrams of a message: plain in IKE_SA_INIT, sealed and perhaps in fragments afterwards."""
        sa = self._sa
        flags = (Flag.RESPONSE if response else 0) | (Flag.INITIATOR if sa.initiator else 0)
        is_init = exchange == Exchange2.IKE_SA_INIT
        spi_r = NO_SPI if is_init and not response else sa.spi_r
        header = header_of(sa.spi_i, spi_r, exchange, flags, message_id)
        if sa.tunnel in self._registry.captured:
            self._registry.show(sa.tunnel, True, sa.path, header, *encode_payloads(payloads))
        if is_init or not sa.has_keys:
            return (plain(header, payloads),)
        around = IP_HEADER[sa.path.local.version] + UDP_HEADER + NON_ESP_MARKER
        limit = DATAGRAM_LIMIT - around if sa.peer.fragmentation else None
        return self.protection.seal(header, payloads, limit)

    def transmit(
        self, path: Path, datagrams: tuple[bytes, ...], text: str, detail: Iterable[str] = ()
    ) -> None:
        """Send the datagrams of one message, and draw it."""
        sa = self._sa
        sa.attempt.sent += 1
        self._registry.draw(sa.tunnel, True, text, sum(map(len, datagrams)), detail, sa.is_stranger)
        for datagram in datagrams:
            self._registry.emit(Transmit(sa.tunnel, path, datagram))
