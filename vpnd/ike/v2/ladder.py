"""How a message is drawn for people: the RFC's notation, and what each payload means. Never a key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vpnd.crypto.suites import GROUPS
from vpnd.ike.v2.proposals import decode_sa
from vpnd.ike.v2.selectors import decode_selectors
from vpnd.ike.vendors import recognise
from vpnd.model.identity import Identity
from vpnd.model.proposals import describe
from vpnd.model.selectors import describe as describe_selectors
from vpnd.model.text import describe_spis
from vpnd.wire.iana import AuthMethod2, Exchange2, Notify2, Payload2, Protocol, name_of
from vpnd.wire.ikev2 import (
    Auth,
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
)

SHOWN_BYTES = 32
"""Of unknown data: enough to recognise it, too little to fill a screen."""


def text_of(exchange: int, message_id: int, payloads: Iterable[Payload], response: bool) -> str:
    """`IKE_AUTH 1 {IDi, AUTH, SA, TSi, TSr}`."""
    labels = ", ".join(_label(payload, "r" if response else "i") for payload in payloads)
    return f"{name_of(Exchange2, exchange)} {message_id} {{{labels}}}"


def detail_of(payloads: Iterable[Payload]) -> Iterator[str]:
    for payload in payloads:
        match payload:
            case Nonce():
                continue
            case Notify():
                yield from _notify_details(payload)
            case Sa():
                for proposal in decode_sa(payload):
                    spi = f" spi {proposal.spi.hex()}" if proposal.spi else ""
                    yield f"SA {proposal.number}: {proposal.protocol.name} {describe(proposal)}{spi}"
            case KeyExchange(group, data):
                name = f" ({GROUPS[group].name})" if group in GROUPS else ""
                yield f"KE: group {group}{name}, {len(data)} bytes"
            case TsI() | TsR():
                side = _LABELS[payload.payload_type]
                yield f"{side}: {describe_selectors(decode_selectors(payload))}"
            case IdI() | IdR():
                side = _LABELS[payload.payload_type]
                yield f"{side}: {Identity(payload.type, payload.value).describe()}"
            case Auth():
                yield f"AUTH: {name_of(AuthMethod2, payload.method)}"
            case Delete():
                yield f"D: {name_of(Protocol, payload.protocol)} {describe_spis(payload.spis)}".rstrip()
            case VendorId():
                yield f"V: {recognise((payload.data,)) or payload.data[:SHOWN_BYTES].hex()}"


def group_wanted(notify: Notify) -> int | None:
    """The DH group that INVALID_KE_PAYLOAD names, two bytes (RFC 7296 section 3.10.1); None: it does not."""
    return int.from_bytes(notify.data, "big") if len(notify.data) == 2 else None


def notify_name(notify: Notify) -> str:
    return name_of(Notify2, notify.type)


_LABELS: dict[int, str] = {
    Payload2.SA: "SA",
    Payload2.KE: "KE",
    Payload2.NONCE: "N",
    Payload2.IDI: "IDi",
    Payload2.IDR: "IDr",
    Payload2.CERT: "CERT",
    Payload2.CERTREQ: "CERTREQ",
    Payload2.AUTH: "AUTH",
    Payload2.DELETE: "D",
    Payload2.VENDOR: "V",
    Payload2.TSI: "TSi",
    Payload2.TSR: "TSr",
    Payload2.CP: "CP",
    Payload2.EAP: "EAP",
    Payload2.SK: "SK",
    Payload2.SKF: "SKF",
}
_OF_A_SIDE = (Payload2.KE, Payload2.NONCE)


def _label(payload: Payload, side: str) -> str:
    if isinstance(payload, Notify):
        return f"N({notify_name(payload)})"
    if isinstance(payload, Unknown):
        return f"payload {payload.payload_type}"
    label = _LABELS[payload.payload_type]
    return label + side if payload.payload_type in _OF_A_SIDE else label


def _notify_details(notify: Notify) -> Iterator[str]:
    name = notify_name(notify)
    match notify.type:
        case Notify2.INVALID_KE_PAYLOAD:
            group = group_wanted(notify)
            yield f"N({name}): group {group} wanted" if group is not None else f"N({name}): names no group"
        case Notify2.REKEY_SA | Notify2.CHILD_SA_NOT_FOUND:
            yield f"N({name}): {name_of(Protocol, notify.protocol)} {notify.spi.hex()}"
        case Notify2.UNSUPPORTED_CRITICAL_PAYLOAD:
            yield f"N({name}): payload type {notify.data[:1].hex()}"
        case Notify2.COOKIE:
            yield f"N({name}): {len(notify.data)} bytes"
        case _:
            return
