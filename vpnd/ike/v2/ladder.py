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
    Id,
    IdI,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Sa,
    Ts,
    TsI,
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
    return (line for payload in payloads for line in _details(payload))


def notify_name(notify: Notify) -> str:
    return name_of(Notify2, notify.type)


_LABELS = {
    Payload2.SA: "SA",
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


def _label(payload: Payload, side: str) -> str:
    match payload:
        case KeyExchange():
            return f"KE{side}"
        case Nonce():
            return f"N{side}"
        case Notify():
            return f"N({notify_name(payload)})"
        case Unknown():
            return f"payload {payload.payload_type}"
        case _:
            return _LABELS[Payload2(payload.payload_type)]


def _details(payload: Payload) -> Iterator[str]:
    match payload:
        case Sa():
            for proposal in decode_sa(payload):
                spi = f" spi {proposal.spi.hex()}" if proposal.spi else ""
                yield f"SA {proposal.number}: {proposal.protocol.name} {describe(proposal)}{spi}"
        case KeyExchange():
            group = GROUPS.get(payload.group)
            yield f"KE: group {payload.group}{f' ({group.name})' if group else ''}, {len(payload.data)} bytes"
        case Id():
            side = "IDi" if isinstance(payload, IdI) else "IDr"
            yield f"{side}: {Identity(payload.type, payload.value).describe()}"
        case Auth():
            yield f"AUTH: {name_of(AuthMethod2, payload.method)}"
        case Ts():
            side = "TSi" if isinstance(payload, TsI) else "TSr"
            yield f"{side}: {describe_selectors(decode_selectors(payload))}"
        case Delete():
            yield f"D: {name_of(Protocol, payload.protocol)} {describe_spis(payload.spis)}".rstrip()
        case VendorId():
            yield f"V: {recognise((payload.data,)) or payload.data[:SHOWN_BYTES].hex()}"
        case Notify():
            yield from _notify_details(payload)
        case _:
            return


def _notify_details(notify: Notify) -> Iterator[str]:
    name = notify_name(notify)
    match notify.type:
        case Notify2.INVALID_KE_PAYLOAD:
            yield f"N({name}): group {int.from_bytes(notify.data[:2], 'big')} wanted"
        case Notify2.REKEY_SA | Notify2.CHILD_SA_NOT_FOUND:
            yield f"N({name}): {name_of(Protocol, notify.protocol)} {notify.spi.hex()}"
        case Notify2.UNSUPPORTED_CRITICAL_PAYLOAD:
            yield f"N({name}): payload type {notify.data[:1].hex()}"
        case Notify2.COOKIE:
            yield f"N({name}): {len(notify.data)} bytes"
        case _:
            return
