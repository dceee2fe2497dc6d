"""The payloads by which IKEv2 peers agree on keys and prove who they are."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from vpnd.wire.cursor import Builder, Cursor
from vpnd.wire.iana import Payload2

# RFC 7296 section 3.9: a nonce has between 16 and 256 bytes.
MIN_NONCE = 16
MAX_NONCE = 256

# RFC 3748 section 4: code, identifier and length come before anything else.
EAP_HEADER_LENGTH = 4

_KE = Struct("!Hxx")
# A type or method, and three reserved bytes.
_OCTET = Struct("!B3x")


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |   Diffie-Hellman Group Num    |           RESERVED            |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                       Key Exchange Data                       ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class KeyExchange:
    """A Diffie-Hellman public value and its group (RFC 7296 section 3.4); the group knows its length."""

    payload_type: ClassVar[int] = Payload2.KE

    group: int
    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "KE")
        (group,) = cursor.unpack(_KE, "group")
        return cls(group, cursor.rest())

    def encode(self) -> bytes:
        """The payload's body."""
        return _KE.pack(self.group) + self.data


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |   ID Type     |                 RESERVED                      |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                   Identification Data                         ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Id:
    """Who one side says it is (RFC 7296 section 3.5); the payload is IdI or IdR.

    The body as it travelled is also what AUTH signs, so a body with reserved bytes set must be signed as
    `RawPayload.body`, not as this value's encoding.
    """

    type: int
    value: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "ID")
        (id_type,) = cursor.unpack(_OCTET, "type")
        return cls(id_type, cursor.rest())

    def encode(self) -> bytes:
        """The payload's body."""
        return _OCTET.pack(self.type) + self.value


@dataclass(frozen=True, slots=True)
class IdI(Id):
    """The initiator's identity."""

    payload_type: ClassVar[int] = Payload2.IDI


@dataclass(frozen=True, slots=True)
class IdR(Id):
    """The responder's identity, or in a request the one that the initiator would like to meet."""

    payload_type: ClassVar[int] = Payload2.IDR


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Cert Encoding |                                               |
# +-+-+-+-+-+-+-+-+                                               |
# ~                       Certificate Data                        ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Cert:
    """A certificate (RFC 7296 section 3.6); vpnd reads over it."""

    payload_type: ClassVar[int] = Payload2.CERT

    encoding: int
    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "CERT")
        return cls(cursor.u8("encoding"), cursor.rest())

    def encode(self) -> bytes:
        """The payload's body."""
        return Builder().u8(self.encoding).raw(self.data).bytes()


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Cert Encoding |                                               |
# +-+-+-+-+-+-+-+-+                                               |
# ~                    Certification Authority                    ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class CertReq:
    """The authorities whose certificates the sender would accept (RFC 7296 section 3.7)."""

    payload_type: ClassVar[int] = Payload2.CERTREQ

    encoding: int
    authority: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "CERTREQ")
        return cls(cursor.u8("encoding"), cursor.rest())

    def encode(self) -> bytes:
        """The payload's body."""
        return Builder().u8(self.encoding).raw(self.authority).bytes()


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Auth Method   |                RESERVED                       |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                      Authentication Data                      ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Auth:
    """The proof of identity (RFC 7296 section 3.8)."""

    payload_type: ClassVar[int] = Payload2.AUTH

    method: int
    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "AUTH")
        (method,) = cursor.unpack(_OCTET, "method")
        return cls(method, cursor.rest())

    def encode(self) -> bytes:
        """The payload's body."""
        return _OCTET.pack(self.method) + self.data


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |                                                               |
# ~                            Nonce Data                         ~
# |                                                               |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Nonce:
    """Fresh randomness of one side (RFC 7296 section 3.9), 16 to 256 bytes."""

    payload_type: ClassVar[int] = Payload2.NONCE

    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        if not MIN_NONCE <= len(body) <= MAX_NONCE:
            raise Cursor(body, "nonce").fault("length", f"{len(body)} bytes")
        return cls(body)

    def encode(self) -> bytes:
        """The payload's body."""
        return self.data


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# | Next Payload  |C|  RESERVED   |         Payload Length        |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |     Code      | Identifier    |           Length              |
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# |     Type      | Type_Data...
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-
@dataclass(frozen=True, slots=True)
class Eap:
    """One EAP message (RFC 7296 section 3.16); `data` is type and type data, nothing where it ended."""

    payload_type: ClassVar[int] = Payload2.EAP

    code: int
    identifier: int
    data: bytes = b""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "EAP")
        code = cursor.u8("code")
        identifier = cursor.u8("identifier")
        data = cursor.take(cursor.u16("length") - EAP_HEADER_LENGTH, "length")
        cursor.expect_end()
        return cls(code, identifier, data)

    def encode(self) -> bytes:
        """The payload's body."""
        builder = Builder().u8(self.code).u8(self.identifier)
        return builder.u16(EAP_HEADER_LENGTH + len(self.data)).raw(self.data).bytes()
