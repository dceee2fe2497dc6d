"""The payloads of IKEv1 (RFC 2408 section 3, RFC 2407, RFC 3947): one frozen value each, drawing above."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vpnd.wire.chain import RawPayload, decode_chain, encode_chain
from vpnd.wire.iana import Payload1
from vpnd.wire.ikev1.exchange import Cert, CertReq, Hash, Id, KeyExchange, Nonce, Signature, VendorId
from vpnd.wire.ikev1.informational import Delete, Fragment, NatD, NatOa, Notify
from vpnd.wire.ikev1.proposals import IPSEC_DOI, SIT_IDENTITY_ONLY, ProposalPart, Sa, TransformPart

__all__ = [
    "IPSEC_DOI",
    "PAYLOADS",
    "SIT_IDENTITY_ONLY",
    "Cert",
    "CertReq",
    "Delete",
    "Fragment",
    "Hash",
    "Id",
    "KeyExchange",
    "NatD",
    "NatOa",
    "Nonce",
    "Notify",
    "Payload",
    "Plain",
    "ProposalPart",
    "Sa",
    "Signature",
    "TransformPart",
    "Unknown",
    "VendorId",
    "decode_payload",
    "decode_payloads",
    "encode_payloads",
    "raw_payload",
]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A payload of a type that IKEv1 gives no meaning here; it survives decoding and encoding."""

    payload_type: int
    body: bytes

    def encode(self) -> bytes:
        """The payload's body."""
        return self.body


Plain = (
    Sa | KeyExchange | Id | Cert | CertReq | Hash | Signature | Nonce | Notify | Delete | VendorId | Fragment
)  # fmt: skip
Payload = Plain | NatD | NatOa | Unknown

PAYLOADS: Mapping[int, type[Plain]] = MappingProxyType(
    {
        kind.payload_type: kind
        for kind in (
            *(Sa, KeyExchange, Id, Cert, CertReq, Hash, Signature, Nonce, Notify, Delete, VendorId),
            Fragment,
        )
    }
)


def decode_payload(raw: RawPayload) -> Payload:
    """The value of one payload; the bit that IKEv2 calls critical is reserved and ignored.

    Raises DecodeError for a malformed body.
    """
    kind = PAYLOADS.get(raw.type)
    if kind is not None:
        return kind.decode(raw.body)
    match raw.type:
        case Payload1.NAT_D | Payload1.NAT_D_DRAFT:
            return NatD.decode(raw.body, draft=raw.type == Payload1.NAT_D_DRAFT)
        case Payload1.NAT_OA | Payload1.NAT_OA_DRAFT:
            return NatOa.decode(raw.body, draft=raw.type == Payload1.NAT_OA_DRAFT)
        case _:
            return Unknown(raw.type, raw.body)


def decode_payloads(first: int, data: bytes, padded: bool = False) -> tuple[Payload, ...]:
    """The values of a whole chain whose first payload has type `first`.

    `padded`: bytes may follow it, as `decode_chain` says. Raises DecodeError.
    """
    return tuple(decode_payload(raw) for raw in decode_chain(first, data, padded=padded))


def raw_payload(payload: Payload) -> RawPayload:
    """One payload, encoded, ready for `encode_chain`."""
    payload_type = payload.payload_type
    if isinstance(payload, NatD) and payload.draft:
        payload_type = Payload1.NAT_D_DRAFT
    elif isinstance(payload, NatOa) and payload.draft:
        payload_type = Payload1.NAT_OA_DRAFT
    return RawPayload(payload_type, payload.encode())


def encode_payloads(payloads: Iterable[Payload]) -> tuple[int, bytes]:
    """The type of the first payload, for the header, and the bytes of the chain."""
    return encode_chain(raw_payload(payload) for payload in payloads)
