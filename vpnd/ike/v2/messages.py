"""The messages of IKEv2 as types: the annotations are the payload rules (see `vpnd.ike.message`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from vpnd.ike.faults import Drop
from vpnd.ike.message import read_message, require_single
from vpnd.model.child import Path
from vpnd.wire.chain import RawPayload
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import Flag, Header
from vpnd.wire.iana import Exchange2, Notify2, Payload2
from vpnd.wire.ikev2 import (
    Auth,
    Cert,
    CertReq,
    Configuration,
    Delete,
    IdI,
    IdR,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Sa,
    TsI,
    TsR,
    Unknown,
    VendorId,
    decode_payload,
)

FIRST_STATUS = 16384
"""Notify types from here on are status, those below are errors (RFC 7296 section 3.10.1)."""


@dataclass(frozen=True, slots=True)
class SaInitRequest:
    """HDR, [N(COOKIE),] SAi1, KEi, Ni -->   (RFC 7296 section 1.2)."""

    sa: Sa
    ke: KeyExchange
    nonce: Nonce
    notifies: tuple[Notify, ...]
    vendors: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class SaInitResponse:
    """<-- HDR, SAr1, KEr, Nr, [CERTREQ]   (RFC 7296 section 1.2)."""

    sa: Sa
    ke: KeyExchange
    nonce: Nonce
    notifies: tuple[Notify, ...]
    vendors: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """HDR, SK {IDi, [IDr,] AUTH, [SAi2, TSi, TSr]} -->   (RFC 7296 section 1.2; childless: RFC 6023)."""

    id_i: IdI
    id_r: IdR | None
    auth: Auth
    sa: Sa | None
    ts_i: TsI | None
    ts_r: TsR | None
    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """<-- HDR, SK {IDr, AUTH, [SAr2, TSi, TSr]}   (RFC 7296 section 1.2)."""

    id_r: IdR
    auth: Auth
    sa: Sa | None
    ts_i: TsI | None
    ts_r: TsR | None
    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """HDR, SK {[N(REKEY_SA),] SA, Ni, [KEi,] TSi, TSr} -->   (RFC 7296 sections 1.3.1 and 1.3.3)."""

    sa: Sa
    nonce: Nonce
    ke: KeyExchange | None
    ts_i: TsI
    ts_r: TsR
    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class ChildResponse:
    """<-- HDR, SK {SA, Nr, [KEr,] TSi, TSr}   (RFC 7296 sections 1.3.1 and 1.3.3)."""

    sa: Sa
    nonce: Nonce
    ke: KeyExchange | None
    ts_i: TsI
    ts_r: TsR
    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class IkeRekeyRequest:
    """HDR, SK {SA, Ni, KEi} -->   (RFC 7296 section 1.3.2)."""

    sa: Sa
    nonce: Nonce
    ke: KeyExchange
    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class IkeRekeyResponse:
    """<-- HDR, SK {SA, Nr, KEr}   (RFC 7296 section 1.3.2)."""

    sa: Sa
    nonce: Nonce
    ke: KeyExchange
    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """<-- HDR, N(error): the answer to any request but INFORMATIONAL that carries nothing else."""

    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class InformationalRequest:
    """HDR, SK {[N,] [D,] ...} -->   (RFC 7296 section 1.4)."""

    notifies: tuple[Notify, ...]
    deletes: tuple[Delete, ...]


@dataclass(frozen=True, slots=True)
class InformationalResponse:
    """<-- HDR, SK {[N,] [D,] ...}   (RFC 7296 section 1.4)."""

    notifies: tuple[Notify, ...]
    deletes: tuple[Delete, ...]


@dataclass(frozen=True, slots=True)
class Malformed:
    """A message that is authentic and cannot be read."""

    error: DecodeError


Request = SaInitRequest | AuthRequest | ChildRequest | IkeRekeyRequest | InformationalRequest
Response = SaInitResponse | AuthResponse | ChildResponse | IkeRekeyResponse | Refusal | InformationalResponse
Message = Request | Response | Malformed

M = TypeVar("M")

IGNORED = (Unknown, Cert, CertReq, Configuration, VendorId)
"""What a message may carry that has no meaning to a gateway with a pre-shared key.

Any message may carry a vendor ID (RFC 7296 section 3.12); those of IKE_SA_INIT are looked at.
"""

_REQUESTS: dict[int, tuple[type[Any], ...]] = {
    Exchange2.IKE_SA_INIT: (SaInitRequest,),
    Exchange2.IKE_AUTH: (AuthRequest,),
    Exchange2.CREATE_CHILD_SA: (IkeRekeyRequest, ChildRequest),
    Exchange2.INFORMATIONAL: (InformationalRequest,),
}
_RESPONSES: dict[int, tuple[type[Any], ...]] = {
    Exchange2.IKE_SA_INIT: (Refusal, SaInitResponse),
    Exchange2.IKE_AUTH: (Refusal, AuthResponse),
    Exchange2.CREATE_CHILD_SA: (Refusal, IkeRekeyResponse, ChildResponse),
    Exchange2.INFORMATIONAL: (InformationalResponse,),
}


@dataclass(frozen=True, slots=True)
class Received:
    """A message, the payloads that it was read from, decoded and as they travelled, and how it came.

    `datagram` is the message as it travelled; of a fragmented one it is the fragment that came last.
    """

    message: Message
    payloads: tuple[Payload, ...]
    raw: tuple[RawPayload, ...]
    header: Header
    path: Path
    datagram: bytes

    def of(self, kind: type[M]) -> M:
        """The message, of the type that the row of the table has. Raises Drop for another."""
        if not isinstance(self.message, kind):
            raise Drop(f"not a {kind.__name__}")
        return self.message

    def body_of(self, payload_type: int) -> bytes:
        """The body of the first payload of a type as it travelled, reserved bits included."""
        return next((raw.body for raw in self.raw if raw.type == payload_type), b"")


def read(header: Header, path: Path, datagram: bytes, chain: tuple[RawPayload, ...]) -> Received:
    """The message that the payloads in `chain` make. Raises DecodeError."""
    require_single(chain, Payload2.SA)
    payloads = tuple(decode_payload(payload) for payload in chain)
    candidates = (_RESPONSES if header.has(Flag.RESPONSE) else _REQUESTS).get(header.exchange)
    if candidates is None:
        raise DecodeError("exchange type", "not spoken here")
    message: Message = read_message(candidates, payloads, IGNORED)
    return Received(message, payloads, chain, header, path, datagram)


def notify_of(notifies: Iterable[Notify], kind: Notify2) -> Notify | None:
    """The first notify of a type."""
    return next((notify for notify in notifies if notify.type == kind), None)


def error_of(notifies: Iterable[Notify]) -> Notify | None:
    """The first error notify."""
    return next((notify for notify in notifies if notify.type < FIRST_STATUS), None)
