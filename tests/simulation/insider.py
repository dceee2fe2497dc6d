"""One who has the keys of a side of an IKE SA between two endpoints, and says in its place what it likes.

The private value of that side is among the random bytes that its endpoint has drawn; the keys follow from it
and from both IKE_SA_INIT messages as they travelled, as for any puppet. So it needs the puppet's one suite
for the IKE SA, and knows an IKE SA until it is rekeyed.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Sequence
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from vpnd.crypto.entropy import Entropy
from vpnd.simulate.gateway import Gateway
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange2, Protocol
from vpnd.wire.ikev2 import (
    Delete,
    KeyExchange,
    Nonce,
    Payload,
    decode_payloads,
)

from .puppet import Puppet
from .weather import Datagram

PRIVATE_LENGTH = 32
"""Bytes of a private value of Curve25519."""


class Overheard:
    """Randomness of an endpoint, of which what may be a private value is noted."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self.drawn: list[builtins.bytes] = []

    def below(self, bound: int) -> int:
        """A number uniform in [0, `bound`)."""
        return self._entropy.below(bound)

    def bytes(self, length: int) -> builtins.bytes:
        """`length` bytes."""
        drawn = self._entropy.bytes(length)
        if length == PRIVATE_LENGTH:
            self.drawn.append(drawn)
        return drawn


class Insider(Puppet):
    """Gateway `gateway` of the newest IKE SA whose IKE_SA_INIT is among the datagrams that were sent."""

    def __init__(self, gateway: Gateway, draws: Overheard, sent: Sequence[Datagram], seed: int = 0) -> None:
        psk = next(iter(gateway.policies.values())).psk.reveal()
        mine, theirs = _first_messages(gateway.name, sent)
        header, payloads = Header.decode(mine), _payloads(mine)
        super().__init__(bool(header.flags & Flag.INITIATOR), gateway.address, psk, seed)
        self.private = _private_of(next(p for p in payloads if isinstance(p, KeyExchange)), draws.drawn)
        self.public = self.private.public_key().public_bytes_raw()
        self.nonce = next(p.data for p in payloads if isinstance(p, Nonce))
        self.spi_i, self.spi_r = header.spi_i, header.spi_r
        self.first_message = mine
        self.take_init(theirs)

    def instead(
        self, datagram: Datagram, payloads: Sequence[Payload], exchange: int | None = None
    ) -> Datagram:
        """What this side sends in place of a datagram of its own: the same header, and these payloads."""
        header = Header.decode(datagram.data)
        response = bool(header.flags & Flag.RESPONSE)
        kind = header.exchange if exchange is None else exchange
        return replace(datagram, data=self.seal(kind, header.message_id, payloads, response))


def _payloads(data: bytes) -> tuple[Payload, ...]:
    return decode_payloads(Header.decode(data).next_payload, data[HEADER_LENGTH:])


def _first_messages(name: str, sent: Iterable[Datagram]) -> tuple[bytes, bytes]:
    """The newest IKE_SA_INIT of this gateway that has a KE payload, and the peer's of the same IKE SA."""
    mine = theirs = b""
    for datagram in sent:
        header = Header.decode(datagram.data)
        if header.exchange != Exchange2.IKE_SA_INIT:
            continue
        if not any(isinstance(payload, KeyExchange) for payload in _payloads(datagram.data)):
            continue
        if datagram.sender == name:
            mine = datagram.data
        else:
            theirs = datagram.data
    assert Header.decode(mine).spi_i == Header.decode(theirs).spi_i, "two IKE SAs have begun at once"
    return mine, theirs


def _private_of(ke: KeyExchange, drawn: Iterable[bytes]) -> X25519PrivateKey:
    """The private value of a public one: whichever of these bytes it follows from."""
    keys = map(X25519PrivateKey.from_private_bytes, drawn)
    return next(key for key in keys if key.public_key().public_bytes_raw() == ke.data)


def delete_of(spi_in: int) -> Delete:
    """DELETE of the CHILD_SA on which its sender receives with this SPI."""
    return Delete(Protocol.ESP, (spi_in.to_bytes(4, "big"),))
