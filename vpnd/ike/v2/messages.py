"""The messages of IKEv2 as types: the annotations are the payload rules (see `vpnd.ike.message`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vpnd.ike.message import Message, Received, read_message, require_single
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
    Sa,
    TsI,
    TsR,
    Unknown,
    VendorId,
    decode_payload,
)

FIRST_STATUS = 16384
"""Notify types from here on are status, those below are errors (RFC 7296 section 3.10.1)."""


class _SaInit(Message):
    """What either side has in IKE_SA_INIT."""

    sa: Sa
    ke: KeyExchange
    nonce: Nonce
    notifies: tuple[Notify, ...]
    vendors: tuple[VendorId, ...]


class SaInitRequest(_SaInit):
    """HDR, [N(COOKIE),] SAi1, KEi, Ni -->   (RFC 7296 section 1.2)."""


class SaInitResponse(_SaInit):
    """<-- HDR, SAr1, KEr, Nr, [CERTREQ]   (RFC 7296 section 1.2)."""


class AuthRequest(Message):
    """HDR, SK {IDi, [IDr,] AUTH, [SAi2, TSi, TSr]} -->   (RFC 7296 section 1.2; childless: RFC 6023)."""

    id_i: IdI
    id_r: IdR | None
    auth: Auth
    sa: Sa | None
    ts_i: TsI | None
    ts_r: TsR | None
    notifies: tuple[Notify, ...]


class AuthResponse(Message):
    """<-- HDR, SK {IDr, AUTH, [SAr2, TSi, TSr]}   (RFC 7296 section 1.2)."""

    id_r: IdR
    auth: Auth
    sa: Sa | None
    ts_i: TsI | None
    ts_r: TsR | None
    notifies: tuple[Notify, ...]


class _Child(Message):
    """What either side says of a CHILD_SA that is made or rekeyed."""

    sa: Sa
    nonce: Nonce
    ke: KeyExchange | None
    ts_i: TsI
    ts_r: TsR
    notifies: tuple[Notify, ...]


class ChildRequest(_Child):
    """HDR, SK {[N(REKEY_SA),] SA, Ni, [KEi,] TSi, TSr} -->   (RFC 7296 sections 1.3.1 and 1.3.3)."""


class ChildResponse(_Child):
    """<-- HDR, SK {SA, Nr, [KEr,] TSi, TSr}   (RFC 7296 sections 1.3.1 and 1.3.3)."""


class _IkeRekey(Message):
    """What either side says of an IKE SA that is rekeyed."""

    sa: Sa
    nonce: Nonce
    ke: KeyExchange
    notifies: tuple[Notify, ...]


class IkeRekeyRequest(_IkeRekey):
    """HDR, SK {SA, Ni, KEi} -->   (RFC 7296 section 1.3.2)."""


class IkeRekeyResponse(_IkeRekey):
    """<-- HDR, SK {SA, Nr, KEr}   (RFC 7296 section 1.3.2)."""


class Refusal(Message):
    """<-- HDR, N(error): the answer to any request but INFORMATIONAL that carries nothing else."""

    notifies: tuple[Notify, ...]


class _Informational(Message):
    """What either side has in INFORMATIONAL."""

    notifies: tuple[Notify, ...]
    deletes: tuple[Delete, ...]


class InformationalRequest(_Informational):
    """HDR, SK {[N,] [D,] ...} -->   (RFC 7296 section 1.4)."""


class InformationalResponse(_Informational):
    """<-- HDR, SK {[N,] [D,] ...}   (RFC 7296 section 1.4)."""


class Malformed(Message):
    """A message that is authentic and cannot be read."""

    error: DecodeError


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


def read(header: Header, path: Path, data: bytes, chain: tuple[RawPayload, ...]) -> Received:
    """The message that the payloads in `chain` make. Raises DecodeError."""
    require_single(chain, Payload2.SA)
    payloads = tuple(decode_payload(payload) for payload in chain)
    candidates = (_RESPONSES if header.has(Flag.RESPONSE) else _REQUESTS).get(header.exchange)
    if candidates is None:
        raise DecodeError("exchange type", "not spoken here")
    message: Message = read_message(candidates, payloads, IGNORED)
    return Received(message, payloads, chain, header, path, data)


def notify_of(notifies: Iterable[Notify], kind: Notify2) -> Notify | None:
    return next((notify for notify in notifies if notify.type == kind), None)


def error_of(notifies: Iterable[Notify]) -> Notify | None:
    return next((notify for notify in notifies if notify.type < FIRST_STATUS), None)
