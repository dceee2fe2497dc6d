"""SK and SKF: sealing and opening the messages of one IKE SA (RFC 7296 section 3.14, RFC 7383)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpnd.crypto.entropy import Entropy
from vpnd.crypto.seal import IntegrityFailed, SkCipher, make
from vpnd.ike.faults import Drop
from vpnd.ike.fragments import Reassembly, split
from vpnd.ike.v2.keys import DirectionKeys, IkeKeys
from vpnd.model.numbers import DEFAULT_NUMBERS, Numbers
from vpnd.model.proposals import Suite
from vpnd.wire.chain import GENERIC_HEADER_LENGTH, RawPayload, decode_chain, generic_header
from vpnd.wire.cursor import Builder, Cursor
from vpnd.wire.errors import UnsupportedCriticalPayload
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Payload2
from vpnd.wire.ikev2 import PAYLOADS, SEALED, EncryptedFragment, Payload, encode_payloads

VERSION_2_0 = 0x20
FRAGMENT_FIELDS = 4
"""Bytes of Fragment Number and Total Fragments in front of the sealed part of an SKF payload."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An authentic message, or one authentic fragment of it.

    `inside` are the bytes of its payloads, of which the first has type `first`; None while fragments are
    missing. They may be malformed: that the peer has said so is proved, and it can be told. `critical` is
    the type of an unknown critical payload in front of them, authentic as they are.
    """

    first: int
    inside: bytes | None
    fragment: int | None
    critical: int | None = None

    def chain(self) -> tuple[RawPayload, ...]:
        """The payloads inside. Raises DecodeError, also for a critical one before them (RFC 7296 2.5)."""
        if self.critical is not None:
            raise UnsupportedCriticalPayload(self.critical)
        return decode_chain(self.first, self.inside or b"")


def header_of(spi_i: bytes, spi_r: bytes, exchange: int, flags: int, message_id: int) -> Header:
    """The header of a message whose payloads are not known yet."""
    return Header(spi_i, spi_r, 0, VERSION_2_0, exchange, flags, message_id, 0)


def plain(header: Header, payloads: Sequence[Payload]) -> bytes:
    """A message without protection: IKE_SA_INIT."""
    first, body = encode_payloads(payloads)
    return header.encode_before(first, len(body)) + body


class Protection:
    """The two directions of one IKE SA, and the reassembly of the peer's fragmented message."""

    def __init__(self, suite: Suite, keys: IkeKeys, initiator: bool, entropy: Entropy) -> None:
        """`initiator`: whether this side began the IKE SA."""
        ours, theirs = (keys.initiator, keys.responder) if initiator else (keys.responder, keys.initiator)
        self._entropy = entropy
        self._out = _cipher(suite, ours)
        self._in = _cipher(suite, theirs)
        self._reassembly = Reassembly()

    def seal(self, header: Header, payloads: Sequence[Payload], limit: int | None) -> tuple[bytes, ...]:
        """The datagrams of a message: one, or fragments of at most `limit` bytes where it is longer."""
        first, plaintext = encode_payloads(payloads)
        whole = HEADER_LENGTH + GENERIC_HEADER_LENGTH + self._out.sealed_length(len(plaintext))
        if limit is None or whole <= limit:
            return (self._seal(header, Payload2.SK, first, b"", plaintext),)
        pieces = split(plaintext, self._room(limit))
        return tuple(
            self._seal(
                header,
                Payload2.SKF,
                first if number == 1 else 0,
                Builder().u16(number).u16(len(pieces)).bytes(),
                piece,
            )
            for number, piece in enumerate(pieces, start=1)
        )

    def open(self, header: Header, data: bytes) -> Opened:
        """What is inside SK or SKF; of what stands before it only a critical payload matters.

        Raises Drop unless the message verifies, DecodeError for an outer chain that cannot be read.
        """
        chain = decode_chain(header.next_payload, data[HEADER_LENGTH:], SEALED)
        if not chain:
            raise Drop("not protected")
        sealed = chain[-1]
        critical = next((raw.type for raw in chain[:-1] if raw.critical and raw.type not in PAYLOADS), None)
        if sealed.type == Payload2.SK:
            return Opened(sealed.next_payload, self._verify(data, sealed.body), None, critical)
        if sealed.type == Payload2.SKF:
            fragment = EncryptedFragment.decode(sealed.body, sealed.next_payload)
            piece = self._verify(data, fragment.body)
            if critical is not None:
                return Opened(0, b"", fragment.number, critical)
            return self._keep(header, fragment, piece)
        raise Drop("not protected")

    def _keep(self, header: Header, fragment: EncryptedFragment, piece: bytes) -> Opened:
        """An authentic fragment; the first one brings the type of the first payload."""
        if fragment.number == 1:
            piece = bytes((fragment.next_payload,)) + piece
        key = header.message_id << 1 | header.has(Flag.RESPONSE)
        whole = self._reassembly.add(key, fragment.number, fragment.total, piece)
        if whole is None:
            return Opened(0, None, fragment.number)
        cursor = Cursor(whole, "fragments")
        return Opened(cursor.u8("next payload"), cursor.rest(), fragment.number)

    def _verify(self, data: bytes, sealed: bytes) -> bytes:
        try:
            return self._in.open(data[: len(data) - len(sealed)], sealed)
        except IntegrityFailed as error:
            raise Drop("integrity check failed") from error

    def _seal(self, header: Header, payload_type: int, first: int, fields: bytes, plaintext: bytes) -> bytes:
        size = len(fields) + self._out.sealed_length(len(plaintext))
        generic = generic_header(first, size)
        associated = header.encode_before(payload_type, len(generic) + size) + generic + fields
        return associated + self._out.seal(associated, plaintext, self._entropy)

    def _room(self, limit: int) -> int:
        """The longest plaintext whose fragment has at most `limit` bytes."""
        around = HEADER_LENGTH + GENERIC_HEADER_LENGTH + FRAGMENT_FIELDS
        room = limit - around - self._out.sealed_length(0)
        while around + self._out.sealed_length(room + 1) <= limit:
            room += 1
        return room


def _cipher(suite: Suite, keys: DirectionKeys) -> SkCipher:
    length = suite.icv_length
    numbers = DEFAULT_NUMBERS if length is None else Numbers(sm3_icv_length=length)
    return make(suite.encryption, suite.integrity, keys.encryption, keys.integrity, keys.salt, numbers)
