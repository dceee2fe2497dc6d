"""IKEv1 messages in the RFC's notation, for the ladder that `vpnctl trace` draws."""

from __future__ import annotations

from collections.abc import Iterable

from vpnd.wire.iana import Exchange1, Notify1, name_of
from vpnd.wire.ikev1 import Notify, Payload, Unknown

_EXCHANGES: dict[int, str] = {
    Exchange1.IDENTITY_PROTECTION: "MAIN_MODE",
    Exchange1.AGGRESSIVE: "AGGRESSIVE_MODE",
    Exchange1.QUICK_MODE: "QUICK_MODE",
    Exchange1.INFORMATIONAL: "INFORMATIONAL",
}
_PAYLOADS = {
    "Sa": "SA",
    "KeyExchange": "KE",
    "Id": "ID",
    "Hash": "HASH",
    "Nonce": "Nonce",
    "VendorId": "VID",
    "NatD": "NAT-D",
    "NatOa": "NAT-OA",
    "Delete": "D",
    "Signature": "SIG",
    "Cert": "CERT",
    "CertReq": "CERTREQ",
    "Fragment": "FRAGMENT",
}


def ladder_text(exchange: int, message_id: int, payloads: Iterable[Payload], encrypted: bool) -> str:
    """`QUICK_MODE 1f2e3d4c* {HASH, SA, Nonce, ID, ID}`; the star marks an encrypted message."""
    number = f" {message_id:08x}" if message_id else ""
    names = ", ".join(payload_name(payload) for payload in payloads)
    return f"{exchange_name(exchange)}{number}{'*' if encrypted else ''} {{{names}}}"


def exchange_name(exchange: int) -> str:
    """The name that operators know: main, aggressive and quick mode."""
    return _EXCHANGES.get(exchange, f"EXCHANGE_{exchange}")


def payload_name(payload: Payload) -> str:
    """The RFC's short name; a notify with its type."""
    if isinstance(payload, Notify):
        return f"N({name_of(Notify1, payload.type)})"
    if isinstance(payload, Unknown):
        return f"payload {payload.payload_type}"
    return _PAYLOADS[type(payload).__name__]
