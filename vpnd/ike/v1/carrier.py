"""How one IKEv1 session's messages reach the network: encoding, encryption, fragments, ladder, and a budget.

An unproven peer gets at most three times the bytes that came from its address, so that a forged source
address is worth nothing to an attacker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vpnd.ike.faults import Drop
from vpnd.ike.fragments import DATAGRAM_LIMIT, Reassembly, split
from vpnd.ike.outputs import Transmit
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.v1.ladder import detail_of, text_of
from vpnd.ike.v1.protect import IvChain
from vpnd.model.child import Path
from vpnd.model.policy import PeerPolicy
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange1, Payload1
from vpnd.wire.ikev1 import Fragment, Payload, decode_payloads, encode_payloads

VERSION = 0x10
AMPLIFICATION = 3
"""Bytes that may go to an unproven address for each byte that came from it."""
UDP_AND_IPV6 = 48
"""Bytes of the larger of the headers in front of a datagram's data."""
FRAGMENT_OVERHEAD = HEADER_LENGTH + 8 + 4
"""Bytes of a fragment that are not its data: header, fragment payload header, non-ESP marker."""


class Carrier:
    """Sends for one session. `proven` is set once the peer is authenticated or is the one we contacted."""

    def __init__(
        self, registry: Registry, policy: PeerPolicy, cky_i: bytes, cky_r: bytes, proven: bool
    ) -> None:
        self.registry = registry
        self.tunnel = policy.name
        self._numbers = policy.numbers
        self.cky_i = cky_i
        self.cky_r = cky_r
        self.proven = proven
        self.fragments = False
        self.received = 0
        self.sent = 0
        self._reassembly = Reassembly()
        self._fragment_id = 0

    def send(
        self,
        path: Path,
        exchange: Exchange1,
        payloads: Sequence[Payload],
        message_id: int = 0,
        chain: IvChain | None = None,
    ) -> tuple[bytes, ...]:
        """Send one message, encrypted if there is a `chain`; its datagrams, to be sent again as they are."""
        first, body = encode_payloads(payloads)
        flags = 0
        if chain is not None:
            body = chain.seal(body)
            flags = int(Flag.ENCRYPTION)
        header = Header(
            self.cky_i, self.cky_r, first, VERSION, exchange, flags, message_id, HEADER_LENGTH + len(body)
        )
        datagrams = self._cut(header, header.encode() + body)
        self.draw(header, payloads, outbound=True)
        self.repeat(path, datagrams)
        return datagrams

    def draw(self, header: Header, payloads: Sequence[Payload], outbound: bool) -> None:
        """One message of the ladder."""
        encrypted = header.has(Flag.ENCRYPTION)
        text = text_of(header.exchange, header.message_id, payloads, encrypted)
        detail = detail_of(header.exchange, payloads, self._numbers)
        self.registry.draw(self.tunnel, outbound, text, header.length, detail, not self.proven)

    def repeat(self, path: Path, datagrams: Sequence[bytes]) -> None:
        """Send the same bytes once more, within the budget of an unproven peer."""
        size = sum(map(len, datagrams))
        if not self.proven and self.sent + size > AMPLIFICATION * self.received:
            self.registry.count("amplification bound")
            return
        self.sent += size
        for datagram in datagrams:
            self.registry.emit(Transmit(self.tunnel, path, datagram))

    def take_fragment(self, fragment: Fragment) -> bytes | None:
        """Keep a piece; the whole message with its last one. Raises Drop for pieces that cannot be."""
        total = fragment.number if fragment.last else None
        return self._reassembly.add(fragment.id, fragment.number, total, fragment.data)

    def _cut(self, header: Header, message: bytes) -> tuple[bytes, ...]:
        """The message, in vendor fragments if it is long and the peer reads them (payload type 132)."""
        limit = DATAGRAM_LIMIT - UDP_AND_IPV6 - FRAGMENT_OVERHEAD
        if not self.fragments or len(message) <= limit or self.cky_r == NO_SPI:
            return (message,)
        self._fragment_id = self._fragment_id % 0xFFFF + 1
        pieces = split(message, limit)
        cut = []
        for number, piece in enumerate(pieces, start=1):
            fragment = Fragment(self._fragment_id, number, number == len(pieces), piece)
            first, body = encode_payloads([fragment])
            outer = replace(header, next_payload=first, flags=0, length=HEADER_LENGTH + len(body))
            cut.append(outer.encode() + body)
        return tuple(cut)


def is_fragment(header: Header) -> bool:
    """Whether the message is a piece of another."""
    return header.next_payload == Payload1.FRAGMENT


def fragment_of(header: Header, data: bytes) -> Fragment:
    """The piece that the message carries, alone. Raises Drop if it has more than that, DecodeError."""
    payloads = decode_payloads(header.next_payload, data[HEADER_LENGTH:], padded=True)
    if len(payloads) != 1 or not isinstance(payloads[0], Fragment):
        raise Drop("fragment with other payloads")
    return payloads[0]
