"""The messages of one ISAKMP SA as datagrams: sealed, drawn, cut and sent; and what has no answer.

A peer that has proved nothing gets at most `AMPLIFICATION` times the bytes that came from it. Message IDs
are used once under an ISAKMP SA, by either side (RFC 2408 section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vpnd.ike import natt
from vpnd.ike.faults import Drop
from vpnd.ike.fragments import DATAGRAM_LIMIT, Reassembly, split
from vpnd.ike.outputs import Transmit
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.v1.isakmp_sa import IsakmpSa
from vpnd.ike.v1.ladder import detail_of, text_of
from vpnd.ike.v1.protect import IvChain
from vpnd.model.child import Path
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange1, Notify1, Payload1, Protocol
from vpnd.wire.ikev1 import Delete, Fragment, Hash, Notify, Payload, decode_payloads, encode_payloads

VERSION = 0x10
AMPLIFICATION = 3
"""Bytes that may go to an unproven address for each byte that came from it."""
UDP_AND_IPV6 = 48
"""Bytes of the larger of the headers in front of a datagram's data."""
FRAGMENT_OVERHEAD = HEADER_LENGTH + 8 + 4
"""Bytes of a fragment that are not its data: header, fragment payload header, non-ESP marker."""
REMEMBERED_IDS = 16_384
"""Message IDs whose reuse is known as such: a day of dead peer detection by both sides."""


@dataclass(slots=True)
class Turn:
    """The peer's last message, by which a repeat is known, and ours, which answers it.

    `ends`: when it is forgotten, on the caller's clock; None: it is not over yet.
    """

    received: bytes = b""
    sent: tuple[bytes, ...] = ()
    repeats: int = 0
    ends: float | None = None


class MessageTransport:
    """Sends for one ISAKMP SA. `proven` is set once the peer is authenticated or is the one we contacted."""

    def __init__(self, registry: Registry, sa: IsakmpSa) -> None:
        self._registry = registry
        self._sa = sa
        self.proven = sa.initiator
        self.received = 0
        self.sent = 0
        self._used: dict[int, None] = {}
        self._reassembly = Reassembly()
        self._fragment_id = 0

    def send(
        self,
        exchange: Exchange1,
        payloads: Sequence[Payload],
        message_id: int = 0,
        chain: IvChain | None = None,
    ) -> tuple[bytes, ...]:
        """Send one message, encrypted if there is a `chain`; its datagrams, to be sent again as they are."""
        first, body = encode_payloads(payloads)
        flags, sa = 0, self._sa
        if chain is not None:
            body = chain.seal(body)
            flags = Flag.ENCRYPTION
        header = Header(
            sa.spi_i, sa.spi_r, first, VERSION, exchange, flags, message_id, HEADER_LENGTH + len(body)
        )
        datagrams = self._cut(header, header.encode() + body)
        self.draw(header, payloads, outbound=True)
        self.repeat(datagrams)
        return datagrams

    def draw(self, header: Header, payloads: Sequence[Payload], outbound: bool) -> None:
        encrypted = header.has(Flag.ENCRYPTION)
        text = text_of(header.exchange, header.message_id, payloads, encrypted)
        detail = detail_of(header.exchange, payloads, self._sa.policy.numbers)
        self._registry.draw(self._sa.tunnel, outbound, text, header.length, detail, not self.proven)
        if self._sa.tunnel in self._registry.captured:
            self._show(header, payloads, outbound)

    def _show(self, header: Header, payloads: Sequence[Payload], outbound: bool) -> None:
        if header.exchange in (Exchange1.IDENTITY_PROTECTION, Exchange1.AGGRESSIVE):
            payloads = [Hash(bytes(len(one.data))) if isinstance(one, Hash) else one for one in payloads]
        clear = replace(header, flags=header.flags & ~Flag.ENCRYPTION)
        self._registry.show(self._sa.tunnel, outbound, self._sa.path, clear, *encode_payloads(payloads))

    def repeat(self, datagrams: Sequence[bytes], path: Path | None = None) -> None:
        """Send the same bytes once more, within the budget of an unproven peer."""
        size = sum(map(len, datagrams))
        if not self.proven and self.sent + size > AMPLIFICATION * self.received:
            self._registry.count("amplification bound")
            return
        self.sent += size
        for datagram in datagrams:
            self._registry.emit(Transmit(self._sa.tunnel, path or self._sa.path, datagram))

    def answer_again(self, turn: Turn, path: Path) -> None:
        """Our answer once more, for a repeat along `path`. Raises Drop after a bounded number of times."""
        turn.repeats += 1
        if turn.repeats > self._registry.limits.repeats:
            raise Drop("repeated too often")
        self.repeat(turn.sent, natt.way_back(self._sa.nat, self._sa.path, path))

    # --- message IDs

    def use(self, message_id: int) -> None:
        """An exchange has this message ID: a replay of it is known as such."""
        self._used[message_id] = None
        if len(self._used) > REMEMBERED_IDS:
            del self._used[next(iter(self._used))]

    def is_used(self, message_id: int) -> bool:
        return message_id in self._used

    def new_message_id(self) -> int:
        """Random, not zero, never used under this ISAKMP SA (RFC 2408 section 3.1)."""
        while True:
            message_id = int.from_bytes(self._registry.entropy.bytes(4), "big")
            if message_id and not self.is_used(message_id):
                return message_id

    def phase2_chain(self, message_id: int) -> IvChain:
        """The IV chain of a new exchange, which begins from the last block of phase 1."""
        return IvChain(self._sa.keys, self._sa.keys.phase2_iv(self._sa.chain.iv, message_id))

    # --- informational exchanges: one way, with a message ID and an IV chain of their own

    def inform(self, *payloads: Payload) -> tuple[bytes, ...]:
        """One protected message (RFC 2409 section 5.7); its datagrams, for a repeated request.

        Nothing in it says which side it is from. Its message ID is used from now on, so that it means
        nothing to us should it be sent back.
        """
        message_id = self.new_message_id()
        self.use(message_id)
        proof = Hash(self._sa.keys.hash_1(message_id, encode_payloads(payloads)[1]))
        chain = self.phase2_chain(message_id)
        return self.send(Exchange1.INFORMATIONAL, [proof, *payloads], message_id, chain)

    def error(self, notify: int) -> tuple[bytes, ...]:
        """Why something of an authenticated peer was refused; its datagrams, for a repeated request."""
        return self.inform(Notify(notify, protocol=Protocol.ESP))

    def error_in_clear(self, notify: int) -> tuple[bytes, ...]:
        """An error before there are keys; its datagrams, for a repeated request."""
        payload = Notify(notify, spi=self._sa.cookies)
        return self.send(Exchange1.INFORMATIONAL, [payload], self.new_message_id())

    def delete_child(self, spi_in: int) -> None:
        """DELETE for the inbound SA that the peer sends on (RFC 2408 section 3.15)."""
        self.inform(Delete(Protocol.ESP, (spi_in.to_bytes(4, "big"),)))

    def delete_ike(self) -> None:
        self.inform(Delete(Protocol.IKE, (self._sa.cookies,)))

    def are_you_there(self, number: bytes, notify: int = Notify1.R_U_THERE) -> tuple[bytes, ...]:
        """R-U-THERE with a number that the ACK repeats (RFC 3706 section 5.3), or that ACK; its datagrams."""
        return self.inform(Notify(notify, number, Protocol.IKE, self._sa.cookies))

    # --- fragments

    def take_fragment(self, header: Header, data: bytes) -> bytes | None:
        """Keep a piece; the whole message with its last one. Raises Drop for pieces that cannot be."""
        fragment = fragment_of(header, data)
        total = fragment.number if fragment.last else None
        return self._reassembly.add(fragment.id, fragment.number, total, fragment.data)

    def _cut(self, header: Header, message: bytes) -> tuple[bytes, ...]:
        """The message, in vendor fragments if it is long and the peer reads them (payload type 132)."""
        limit = DATAGRAM_LIMIT - UDP_AND_IPV6 - FRAGMENT_OVERHEAD
        fragments = self._sa.has_keys and self._sa.negotiation.peer.fragments
        if not fragments or len(message) <= limit or self._sa.spi_r == NO_SPI:
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
    return header.next_payload == Payload1.FRAGMENT


def fragment_of(header: Header, data: bytes) -> Fragment:
    """The piece that the message carries, alone. Raises Drop if it has more than that, DecodeError."""
    payloads = decode_payloads(header.next_payload, data[HEADER_LENGTH:], padded=True)
    if len(payloads) != 1 or not isinstance(payloads[0], Fragment):
        raise Drop("fragment with other payloads")
    return payloads[0]
