"""How a message is drawn for people: the RFC's notation, and what each payload means. Never a key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vpnd.ike.v1.proposals import describe_sa
from vpnd.ike.v1.selectors import selector_of
from vpnd.ike.vendors import recognise
from vpnd.model.identity import Identity
from vpnd.model.numbers import Numbers
from vpnd.model.text import describe_spis
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import Exchange1, Notify1, Protocol, name_of
from vpnd.wire.ikev1 import (
    Delete,
    Hash,
    Id,
    KeyExchange,
    NatD,
    Nonce,
    Notify,
    Payload,
    Sa,
    Unknown,
    VendorId,
)

SHOWN_BYTES = 32
"""Of unknown data: enough to recognise it, too little to fill a screen."""

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
_NUMBERS_AS_DATA = (Notify1.R_U_THERE, Notify1.R_U_THERE_ACK)


def exchange_name(exchange: int) -> str:
    """`MAIN_MODE`; an exchange type that we do not know by its number."""
    return _EXCHANGES.get(exchange, f"EXCHANGE_{exchange}")


def text_of(exchange: int, message_id: int, payloads: Iterable[Payload], encrypted: bool) -> str:
    """`QUICK_MODE 1f2e3d4c* {HASH, SA, Nonce, ID, ID}`; the star marks an encrypted message."""
    number = f" {message_id:08x}" if message_id else ""
    labels = ", ".join(_label(payload) for payload in payloads)
    return f"{exchange_name(exchange)}{number}{'*' if encrypted else ''} {{{labels}}}"


def detail_of(exchange: int, payloads: Iterable[Payload], numbers: Numbers) -> Iterator[str]:
    """One line for each thing worth telling of the payloads; `numbers` are those that the peer may use."""
    quick = exchange == Exchange1.QUICK_MODE
    for payload in payloads:
        match payload:
            case Hash() | Nonce():
                continue
            case Sa():
                yield from describe_sa(payload, numbers)
            case KeyExchange():
                yield f"KE: {len(payload.data)} bytes"
            case Id():
                yield f"ID: {_range(payload) if quick else Identity(payload.type, payload.value).describe()}"
            case NatD():
                yield f"NAT-D: {payload.data[:SHOWN_BYTES].hex()}"
            case VendorId():
                yield f"VID: {recognise((payload.data,)) or payload.data[:SHOWN_BYTES].hex()}"
            case Delete():
                yield f"D: {name_of(Protocol, payload.protocol)} {describe_spis(payload.spis)}".rstrip()
            case Notify():
                yield from _notify_details(payload)


def _label(payload: Payload) -> str:
    if isinstance(payload, Notify):
        return f"N({name_of(Notify1, payload.type)})"
    if isinstance(payload, Unknown):
        return f"payload {payload.payload_type}"
    return _PAYLOADS[type(payload).__name__]


def _range(identity: Id) -> str:
    """The range that a quick mode's identity names, if it names one."""
    try:
        return str(selector_of(identity))
    except DecodeError:
        return Identity(identity.type, identity.value).describe()


def _notify_details(notify: Notify) -> Iterator[str]:
    name = name_of(Notify1, notify.type)
    if notify.type in _NUMBERS_AS_DATA:
        yield f"N({name}): sequence {int.from_bytes(notify.data[:4], 'big')}"
    elif notify.data or len(notify.spi) not in (0, 16):
        about = f"{name_of(Protocol, notify.protocol)} {notify.spi.hex()}".rstrip()
        yield f"N({name}): {about} {notify.data[:SHOWN_BYTES].hex()}".rstrip()
