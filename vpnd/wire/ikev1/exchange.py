"""The payloads by which IKEv1 peers agree on keys and prove who they are."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from vpnd.wire.cursor import Builder, Cursor
from vpnd.wire.iana import Payload1

# RFC 2409 section 5: a nonce has between 8 and 256 bytes.
MIN_NONCE = 8
MAX_NONCE = 256

_ID = Struct("!BBH")


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ! Next Payload  !   RESERVED    !         Payload Length        !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                             Data                              ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Opaque:
    """What the payloads have in common whose body is nothing but data."""

    data: bytes

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body; any will do, but for a nonce."""
        return cls(body)

    def encode(self) -> bytes:
        """The payload's body."""
        return self.data


@dataclass(frozen=True, slots=True)
class KeyExchange(Opaque):
    """A Diffie-Hellman public value (RFC 2408 section 3.7); its group is the SA's."""

    payload_type: ClassVar[int] = Payload1.KE


@dataclass(frozen=True, slots=True)
class Hash(Opaque):
    """The proof of knowing the keys: HASH_I, HASH_R, HASH(1) to HASH(3) (RFC 2408 3.11, RFC 2409 5)."""

    payload_type: ClassVar[int] = Payload1.HASH


@dataclass(frozen=True, slots=True)
class Signature(Opaque):
    """A digital signature (RFC 2408 section 3.12); vpnd reads over it."""

    payload_type: ClassVar[int] = Payload1.SIG


@dataclass(frozen=True, slots=True)
class VendorId(Opaque):
    """A constant by which an implementation or an extension is known (RFC 2408 section 3.16)."""

    payload_type: ClassVar[int] = Payload1.VENDOR


@dataclass(frozen=True, slots=True)
class Nonce(Opaque):
    """Fresh randomness of one side (RFC 2408 section 3.13), 8 to 256 bytes."""

    payload_type: ClassVar[int] = Payload1.NONCE

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        if not MIN_NONCE <= len(body) <= MAX_NONCE:
            raise Cursor(body, "nonce").fault("length", f"{len(body)} bytes")
        return cls(body)


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !  Next Payload !   RESERVED    !        Payload Length         !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !   ID Type     !  Protocol ID  !             Port              !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ~                     Identification Data                       ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Id:
    """A peer's identity in phase 1, a traffic selector in Quick Mode (RFC 2407 section 4.6.2).

    `protocol` and `port` are 0 for any; phase 1 also sees 17 with 500 or 4500. Hashes cover the body as it
    travelled, which this value's encoding repeats exactly.
    """

    payload_type: ClassVar[int] = Payload1.ID

    type: int
    value: bytes
    protocol: int = 0
    port: int = 0

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """From a payload's body. Raises DecodeError."""
        cursor = Cursor(body, "ID")
        id_type, protocol, port = cursor.unpack(_ID, "header")
        return cls(id_type, cursor.rest(), protocol, port)

    def encode(self) -> bytes:
        """The payload's body."""
        return _ID.pack(self.type, self.protocol, self.port) + self.value


#                      1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ! Next Payload  !   RESERVED    !         Payload Length        !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# ! Cert Encoding !                                               !
# +-+-+-+-+-+-+-+-+                                               !
# ~                       Certificate Data                        ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class Cert:
    """A certificate (RFC 2408 section 3.9); vpnd reads over it."""

    payload_type: ClassVar[int] = Payload1.CERT

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
# ! Next Payload  !   RESERVED    !         Payload Length        !
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
# !  Cert. Type   !                                               !
# +-+-+-+-+-+-+-+-+                                               !
# ~                    Certificate Authority                      ~
# +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
@dataclass(frozen=True, slots=True)
class CertReq:
    """An authority whose certificates the sender would accept (RFC 2408 section 3.10)."""

    payload_type: ClassVar[int] = Payload1.CERTREQ

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
