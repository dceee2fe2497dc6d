"""The payloads of IKEv2 (RFC 7296 section 3, RFC 7383): one frozen value each, its drawing above it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vpnd.wire.chain import RawPayload, decode_chain, encode_chain
from vpnd.wire.errors import UnsupportedCriticalPayload
from vpnd.wire.iana import Payload2
from vpnd.wire.ikev2.encrypted import Encrypted, EncryptedFragment
from vpnd.wire.ikev2.exchange import Auth, Cert, CertReq, Eap, Id, IdI, IdR, KeyExchange, Nonce
from vpnd.wire.ikev2.informational import (
    Configuration,
    ConfigurationAttribute,
    Delete,
    Notify,
    VendorId,
)
from vpnd.wire.ikev2.proposals import ProposalPart, Sa, Transform
from vpnd.wire.ikev2.selectors import TrafficSelector, Ts, TsI, TsR

__all__ = [
    "PAYLOADS",
    "SEALED",
    "Auth",
    "Cert",
    "CertReq",
    "Configuration",
    "ConfigurationAttribute",
    "Delete",
    "Eap",
    "Encrypted",
    "EncryptedFragment",
    "Id",
    "IdI",
    "IdR",
    "KeyExchange",
    "Nonce",
    "Notify",
    "Payload",
    "Plain",
    "ProposalPart",
    "Sa",
    "TrafficSelector",
    "Transform",
    "Ts",
    "TsI",
    "TsR",
    "Unknown",
    "VendorId",
    "decode_payload",
    "decode_payloads",
    "encode_payloads",
    "raw_payload",
]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A payload of a type that IKEv2 gives no meaning here; it survives decoding and encoding."""

    payload_type: int
    body: bytes
    critical: bool = False

    def encode(self) -> bytes:
        """The payload's body."""
        return self.body


Plain = (
    Sa | KeyExchange | IdI | IdR | Cert | CertReq | Auth | Nonce | Notify | Delete | VendorId | TsI | TsR
    | Configuration | Eap
)  # fmt: skip
Sealed = Encrypted | EncryptedFragment
Payload = Plain | Sealed | Unknown

PAYLOADS: Mapping[int, type[Plain]] = MappingProxyType(
    {
        kind.payload_type: kind
        for kind in (
            *(Sa, KeyExchange, IdI, IdR, Cert, CertReq, Auth, Nonce, Notify, Delete, VendorId, TsI, TsR),
            *(Configuration, Eap),
        )
    }
)

SEALED: frozenset[int] = frozenset({Payload2.SK, Payload2.SKF})
"""The types that end a chain: for `decode_chain`."""


def decode_payload(raw: RawPayload) -> Payload:
    """The value of one payload. The critical bit of a known type is ignored (RFC 7296 section 2.5).

    Raises UnsupportedCriticalPayload for an unknown critical type, DecodeError for a malformed body.
    """
    if raw.type == Payload2.SK:
        return Encrypted.decode(raw.body, raw.next_payload)
    if raw.type == Payload2.SKF:
        return EncryptedFragment.decode(raw.body, raw.next_payload)
    kind = PAYLOADS.get(raw.type)
    if kind is not None:
        return kind.decode(raw.body)
    if raw.critical:
        raise UnsupportedCriticalPayload(raw.type)
    return Unknown(raw.type, raw.body)


def decode_payloads(first: int, data: bytes) -> tuple[Payload, ...]:
    """The values of a whole chain whose first payload has type `first`. Raises DecodeError."""
    return tuple(decode_payload(raw) for raw in decode_chain(first, data, SEALED))


def raw_payload(payload: Payload) -> RawPayload:
    """One payload, encoded, ready for `encode_chain`; our own payloads are never critical."""
    next_payload = payload.next_payload if isinstance(payload, (Encrypted, EncryptedFragment)) else 0
    critical = isinstance(payload, Unknown) and payload.critical
    return RawPayload(payload.payload_type, payload.encode(), critical, next_payload)


def encode_payloads(payloads: Iterable[Payload]) -> tuple[int, bytes]:
    """The type of the first payload, for the header, and the bytes of the chain."""
    return encode_chain(raw_payload(payload) for payload in payloads)
