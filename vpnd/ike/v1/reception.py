"""From the bytes of a message to the row of the state table that handles it."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from vpnd.ike.faults import Drop, Fault
from vpnd.ike.message import read_message
from vpnd.ike.outputs import LadderLine
from vpnd.ike.registry import NO_SPI
from vpnd.ike.session import Phase
from vpnd.ike.steps import Step, step_for
from vpnd.ike.v1 import aggressive_mode, informational, main_mode, messages, phase1, quick_mode
from vpnd.ike.v1.carrier import is_fragment
from vpnd.ike.v1.protect import IvChain, Opened, Undecryptable
from vpnd.ike.v1.quick_mode import QuickMode
from vpnd.ike.v1.quick_mode import State as QuickState
from vpnd.ike.v1.received import Received, State
from vpnd.ike.v1.story import ladder_text
from vpnd.model.child import Path
from vpnd.model.policy import NegotiationMode
from vpnd.wire.chain import RawPayload, decode_chain
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange1
from vpnd.wire.ikev1 import (
    Cert,
    CertReq,
    Fragment,
    NatD,
    NatOa,
    Signature,
    Unknown,
    VendorId,
    decode_payload,
)

if TYPE_CHECKING:
    from vpnd.ike.v1.session import Session

Handler = Callable[["Session", float, Received], None]
QuickHandler = Callable[["Session", float, QuickMode, Received], None]

STEPS: dict[tuple[State, type], Step[Handler, State]] = {
    (State.NEW, messages.Main1): Step(
        "the peer proposes; answered with our choice", main_mode.on_main1, State.ANSWERED_SA
    ),
    (State.SENT_SA, messages.Main2): Step(
        "the peer chose a proposal; sent our key and nonce", main_mode.on_main2, State.SENT_KE
    ),
    (State.ANSWERED_SA, messages.Main3): Step(
        "keys agreed; answered with our key and nonce", main_mode.on_main3, State.ANSWERED_KE
    ),
    (State.SENT_KE, messages.Main4): Step(
        "keys agreed; proved who we are", main_mode.on_main4, State.SENT_AUTH
    ),
    (State.ANSWERED_KE, messages.Main5): Step("the peer proved who it is", main_mode.on_main5),
    (State.SENT_AUTH, messages.Main6): Step("the peer proved who it is", main_mode.on_main6),
    (State.NEW, messages.Aggressive1): Step(
        "the peer proposes; answered with our choice and proof",
        aggressive_mode.on_aggressive1,
        State.ANSWERED_AGGRESSIVE,
    ),
    (State.SENT_AGGRESSIVE, messages.Aggressive2): Step(
        "the peer proved who it is; so did we", aggressive_mode.on_aggressive2
    ),
    (State.ANSWERED_AGGRESSIVE, messages.Aggressive3): Step(
        "the peer proved who it is", aggressive_mode.on_aggressive3
    ),
}
QUICK_STEPS: dict[tuple[QuickState, type], Step[QuickHandler, QuickState]] = {
    (QuickState.SENT_QUICK1, messages.Quick2): Step("the peer chose; acknowledged", quick_mode.on_quick2),
    (QuickState.SENT_QUICK2, messages.Quick3): Step("the peer acknowledged", quick_mode.on_quick3),
}
ENCRYPTED = {messages.Main5, messages.Main6}
"""Phase-1 messages that are never in clear; Aggressive3 may be (RFC 2409 section 5.4)."""
IGNORED: tuple[type, ...] = (Unknown, Cert, CertReq, Signature)
"""Payloads without a meaning here may stand in any message."""
CANNOT_OPEN = {
    State.ANSWERED_KE: main_mode.on_undecryptable,
    State.ANSWERED_AGGRESSIVE: aggressive_mode.on_undecryptable,
}


class Reception:
    """Reads the messages of one session. Raises Drop or Fault; the session catches both."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._last_phase1 = b""
        self._repeats = 0

    def take(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """One message, whole or a fragment."""
        self._check_cookies(header)
        if is_fragment(header):
            whole = self._defragment(header, data)
            if whole is None:
                return
            header, data = Header.decode(whole), whole
            self._check_cookies(header)
            if is_fragment(header):
                raise Drop("fragment of a fragment")
        match header.exchange:
            case Exchange1.IDENTITY_PROTECTION | Exchange1.AGGRESSIVE:
                self._take_phase1(now, path, header, data)
            case Exchange1.QUICK_MODE:
                self._take_quick(now, path, header, data)
            case Exchange1.INFORMATIONAL:
                self._take_informational(now, path, header, data)
            case _:
                raise Drop("exchange not spoken")

    def refuse(self, now: float, fault: Fault) -> None:
        """A handler found the message unacceptable: what becomes of the session, and what the peer hears."""
        session = self._session
        if session.phase is Phase.CONNECTING:
            if session.initiator:
                # Anyone could have sent it: keep waiting a little for the real answer.
                session.note(now, fault.diagnosis)
            else:
                session.refuse(now, fault.notify, fault.diagnosis)

    # --- phase 1

    def _take_phase1(self, now: float, path: Path, header: Header, data: bytes) -> None:
        session = self._session
        if data == self._last_phase1:
            self._repeat()
            return
        aggressive = session.mode is NegotiationMode.AGGRESSIVE
        if (header.exchange == Exchange1.AGGRESSIVE) is not aggressive or header.message_id:
            raise Drop("another mode")
        candidates = [kind for state, kind in STEPS if state is session.state]
        if session.state is State.NEW:
            wanted = messages.Aggressive1 if aggressive else messages.Main1
            candidates = [wanted]
        if not candidates:
            raise Drop(f"no step: phase 1 in {session.state.name}")
        try:
            received = self._read(
                path, header, data, session.chain if _encrypted(header) else None, candidates
            )
        except Undecryptable:
            cannot_open = CANNOT_OPEN.get(session.state)
            if cannot_open is not None:
                cannot_open(session)
            raise
        if type(received.message) in ENCRYPTED and received.opened is None:
            raise Drop("not encrypted")
        step = step_for(STEPS, session.state, received.message)
        self._learn_cookie(header)
        self._draw(header, received)
        try:
            step.handler(session, now, received)
        except Fault:
            if not session.initiator:
                # A repeat of what was refused is answered with the refusal.
                self._last_phase1, self._repeats = data, 0
            raise
        self._last_phase1, self._repeats = data, 0
        if step.to is not None:
            session.to(step.to, step.story)

    def _repeat(self) -> None:
        self._repeats += 1
        if self._repeats > self._session.registry.limits.repeats:
            raise Drop("repeated too often")
        self._session.repeat_last()

    # --- quick mode

    def _take_quick(self, now: float, path: Path, header: Header, data: bytes) -> None:
        session = self._session
        if session.state not in (State.ESTABLISHED, State.REPLACED):
            raise Drop(f"no step: quick mode in {session.state.name}")
        if not _encrypted(header) or not header.message_id:
            raise Drop("not encrypted")
        quick = session.quicks.find(header.message_id)
        if quick is None:
            chain = session.phase2_chain(header.message_id)
            received = self._read(path, header, data, chain, [messages.Quick1])
            self._first_is_hash(received)
            self._draw(header, received)
            self._begin_quick(now, header, received)
            return
        if hmac.compare_digest(data, quick.last_received):
            session.quicks.repeat(quick)
            return
        candidates = [kind for state, kind in QUICK_STEPS if state is quick.state]
        if not candidates:
            raise Drop(f"no step: quick mode in {quick.state.name}")
        received = self._read(path, header, data, quick.chain, candidates)
        self._first_is_hash(received)
        step = step_for(QUICK_STEPS, quick.state, received.message)
        self._draw(header, received)
        try:
            step.handler(session, now, quick, received)
        except Fault as fault:
            self._tell(fault)
            session.fail_quick(now, quick, fault.diagnosis)
            return
        quick.last_received = data

    def _begin_quick(self, now: float, header: Header, received: Received) -> None:
        session = self._session
        try:
            quick_mode.on_quick1(session, now, header.message_id, received)
        except Fault as fault:
            self._tell(fault)
            session.report(fault.diagnosis)

    def _tell(self, fault: Fault) -> None:
        """The peer is authenticated: say why, protected."""
        if fault.notify is not None:
            informational.send_error(self._session, fault.notify)

    # --- informational

    def _take_informational(self, now: float, path: Path, header: Header, data: bytes) -> None:
        session = self._session
        if not _encrypted(header):
            received = self._read(path, header, data, None, [messages.PlainInformational])
            self._draw(header, received)
            informational.on_plain(session, now, received)
            return
        if session.state not in (State.ESTABLISHED, State.REPLACED):
            self._early(now)
            raise Drop(f"no step: informational in {session.state.name}")
        if session.quicks.is_used(header.message_id):
            raise Drop("message ID used before")
        chain = session.phase2_chain(header.message_id)
        received = self._read(path, header, data, chain, [messages.Informational])
        self._first_is_hash(received)
        self._draw(header, received)
        informational.on_informational(session, now, header.message_id, received)

    def _early(self, now: float) -> None:
        """An encrypted notify while we wait for the peer's proof: it could not read ours."""
        session = self._session
        if session.initiator and session.phase is Phase.CONNECTING and session.has_keys:
            session.note(
                now, phase1.wrong_key(session, detail="the peer answered our proof with an error").diagnosis
            )

    # --- shared

    def _read(
        self, path: Path, header: Header, data: bytes, chain: IvChain | None, candidates: list[type]
    ) -> Received:
        opened: Opened | None = None
        body = data[HEADER_LENGTH:]
        raw: tuple[RawPayload, ...]
        if chain is not None:
            opened = chain.open(header.next_payload, body)
            raw = opened.payloads
        else:
            raw = decode_chain(header.next_payload, body)
        try:
            payloads = tuple(decode_payload(one) for one in raw)
            ignored = (*IGNORED, *_optional(candidates))
            message: object = read_message(candidates, payloads, ignored)
        except DecodeError as error:
            if opened is not None and self._session.phase is Phase.CONNECTING:
                raise Undecryptable from error
            raise
        return Received(path, data, raw, payloads, message, opened, chain)

    def _first_is_hash(self, received: Received) -> None:
        """RFC 2409 section 5.5: the hash comes first, or it would not cover what stands before it."""
        if not received.behind_hash and received.opened is None:
            raise Drop("not encrypted")

    def _defragment(self, header: Header, data: bytes) -> bytes | None:
        fragments = [decode_payload(one) for one in decode_chain(header.next_payload, data[HEADER_LENGTH:])]
        if len(fragments) != 1 or not isinstance(fragments[0], Fragment):
            raise Drop("fragment with other payloads")
        return self._session.carrier.take_fragment(fragments[0])

    def _check_cookies(self, header: Header) -> None:
        session = self._session
        if session.initiator:
            fits = header.spi_i == session.cky_i and (session.cky_r in (header.spi_r, NO_SPI))
        else:
            fits = header.spi_i == session.cky_i and header.spi_r in (session.cky_r, NO_SPI)
        if not fits:
            raise Drop("cookies")

    def _learn_cookie(self, header: Header) -> None:
        """The responder's cookie comes with its first message."""
        session = self._session
        if session.initiator and session.cky_r == NO_SPI:
            if header.spi_r == NO_SPI:
                raise Drop("cookies")
            session.cky_r = session.carrier.cky_r = header.spi_r

    def _draw(self, header: Header, received: Received) -> None:
        text = ladder_text(header.exchange, header.message_id, received.payloads, received.opened is not None)
        self._session.registry.emit(
            LadderLine(self._session.tunnel, outbound=False, text=text, size=len(received.data))
        )


def _encrypted(header: Header) -> bool:
    return bool(header.flags & Flag.ENCRYPTION)


def _optional(candidates: Iterable[type]) -> tuple[type, ...]:
    """Vendor IDs and NAT payloads where the message has no field for them."""
    names = {field.name for kind in candidates for field in fields(kind)}
    extra = {"vendor_ids": VendorId, "nat_d": NatD, "nat_oa": NatOa}
    return tuple(kind for name, kind in extra.items() if name not in names)
