"""From the bytes of a message to the row of the state table that handles it."""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

from vpnd.ike.faults import Drop, Fault
from vpnd.ike.message import Unfit, read_message, require_single
from vpnd.ike.outputs import Failed
from vpnd.ike.registry import NO_SPI
from vpnd.ike.session import Phase
from vpnd.ike.steps import Step, step_for
from vpnd.ike.v1 import aggressive_mode, informational, main_mode, messages, phase1, quick_mode
from vpnd.ike.v1.carrier import fragment_of, is_fragment
from vpnd.ike.v1.faults import AuthenticationFailed
from vpnd.ike.v1.ladder import exchange_name
from vpnd.ike.v1.protect import IvChain, Opened, Undecryptable
from vpnd.ike.v1.quick_mode import QuickMode
from vpnd.ike.v1.quick_mode import State as QuickState
from vpnd.ike.v1.received import Received, State
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import NegotiationMode
from vpnd.wire.chain import RawPayload, decode_chain
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange1, Payload1
from vpnd.wire.ikev1 import (
    Cert,
    CertReq,
    NatD,
    NatOa,
    Notify,
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
PROOFS: dict[type, Handler] = {
    messages.Main5: main_mode.on_main5_again,
    messages.Aggressive3: aggressive_mode.on_aggressive3_again,
}
"""The last message of an initiator, when it comes once more after it has been believed."""
QUICK_STEPS: dict[tuple[QuickState, type], Step[QuickHandler, QuickState]] = {
    (QuickState.SENT_QUICK1, messages.Quick2): Step("the peer chose; acknowledged", quick_mode.on_quick2),
    (QuickState.ABANDONED, messages.Quick2): Step("the peer chose too late", quick_mode.on_quick2),
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
UNANSWERED_PROOF = (State.SENT_AUTH, State.ANSWERED_AGGRESSIVE)
"""We have proved ourselves, the peer has not: it may say, protected, why it goes no further."""
REMEMBERED = 4
"""Phase-1 messages of the peer whose late copies are known as such; there are three at most."""


class Reception:
    """Reads the messages of one session. Raises Drop, DecodeError or Fault; the session catches them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._believed: deque[bytes] = deque(maxlen=REMEMBERED)
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

    def is_repeat(self, data: bytes) -> bool:
        """Whether `data` is the phase-1 message that was answered last."""
        return bool(self._believed) and self._believed[-1] == data

    def refuse(self, now: float, data: bytes, fault: Fault) -> None:
        """A handler found the message unacceptable: what becomes of the session, and what the peer hears."""
        session = self._session
        if isinstance(fault, AuthenticationFailed) and not session.initiator and not session.attempt.hint:
            session.registry.not_proved(now, session.tunnel, session.path.remote)
        if session.phase is not Phase.CONNECTING:
            session.registry.count(f"refused: {fault.diagnosis.code.value}")
        elif session.initiator:
            # Anyone could have sent it: keep waiting a little for the real answer.
            session.registry.count(f"refused: {fault.diagnosis.code.value}")
            session.attempt.note(now, fault.diagnosis)
        elif session.state is State.NEW or session.carrier.proven:
            self._believed.append(data)
            session.attempt.refuse(now, fault.notify, fault.diagnosis)
        else:
            session.attempt.suspect(data, fault.notify, fault.diagnosis)

    # --- phase 1

    def _take_phase1(self, now: float, path: Path, header: Header, data: bytes) -> None:
        session = self._session
        if self.is_repeat(data):
            if self._is_last():
                raise Drop("repeated")
            self._repeat()
            return
        if data in self._believed:
            raise Drop("repeated")
        aggressive = session.mode is NegotiationMode.AGGRESSIVE
        if (header.exchange == Exchange1.AGGRESSIVE) is not aggressive or header.message_id:
            raise Drop("another mode")
        if header.spi_r == NO_SPI and session.state is not State.NEW:
            raise Drop("cookies")
        if session.proof_iv is not None:
            self._take_proof_again(now, path, header, data, session.proof_iv)
            return
        received = self._read_phase1(path, header, data)
        step = step_for(STEPS, session.state, received.message)
        self._draw(header, received)
        unknown = session.initiator and session.cky_r == NO_SPI
        if unknown:
            # The responder's cookie comes with its first message.
            session.cookie_is(header.spi_r)
        try:
            step.action(session, now, received)
        except (Fault, Drop):
            if unknown:
                # Another may be the responder; should nobody else answer, this one is told why it ended.
                session.attempt.disbelieved = header.spi_r
                session.cookie_is(NO_SPI)
            raise
        self._believe(data)
        session.attempt.moved_on(now)
        if step.to is not None:
            session.to(step.to, step.story)

    def _read_phase1(self, path: Path, header: Header, data: bytes) -> Received:
        """The message as one that the state waits for. Raises Drop, DecodeError, Fault."""
        session = self._session
        candidates = [kind for state, kind in STEPS if state is session.state]
        if session.state is State.NEW:
            aggressive = session.mode is NegotiationMode.AGGRESSIVE
            candidates = [messages.Aggressive1 if aggressive else messages.Main1]
        if not candidates:
            raise Drop(f"no step: phase 1 in {session.state.name}")
        if session.state is State.ANSWERED_KE and _encrypted(header):
            main_mode.pick_key(session, lambda chain: self._read(path, header, data, chain, candidates))
        chain = session.chain if _encrypted(header) else None
        try:
            received = self._read(path, header, data, chain, candidates)
        except Undecryptable:
            cannot_open = CANNOT_OPEN.get(session.state)
            if cannot_open is not None:
                cannot_open(session)
            raise
        if type(received.message) in ENCRYPTED and received.opened is None:
            raise Drop("not encrypted")
        return received

    def _take_proof_again(self, now: float, path: Path, header: Header, data: bytes, proof_iv: bytes) -> None:
        """The initiator repeats its proof, in other bytes: it has not understood our answer."""
        session = self._session
        if not _encrypted(header):
            raise Drop("not encrypted")
        kind = messages.Aggressive3 if session.mode is NegotiationMode.AGGRESSIVE else messages.Main5
        received = self._read(path, header, data, IvChain(session.keys, proof_iv), [kind])
        self._draw(header, received)
        PROOFS[kind](session, now, received)
        self._believe(data)

    def _believe(self, data: bytes) -> None:
        self._believed.append(data)
        self._repeats = 0

    def _is_last(self) -> bool:
        """Whether what was believed last ended phase 1: Main6 or Aggressive3, which have no answer.

        Two sides that answered each copy with a copy would keep each other busy.
        """
        session = self._session
        ends = session.initiator is (session.mode is NegotiationMode.MAIN)
        return ends and session.phase is not Phase.CONNECTING and session.state is not State.REFUSED

    def _repeat(self) -> None:
        self._repeats += 1
        if self._repeats > self._session.registry.limits.repeats:
            raise Drop("repeated too often")
        self._session.attempt.repeat()

    # --- quick mode

    def _take_quick(self, now: float, path: Path, header: Header, data: bytes) -> None:
        session = self._session
        if session.state not in (State.ESTABLISHED, State.REPLACED):
            raise Drop(f"no step: quick mode in {session.state.name}")
        if not _encrypted(header) or not header.message_id:
            raise Drop("not encrypted")
        if session.quicks.repeat_refusal(header.message_id, data):
            return
        quick = session.quicks.find(header.message_id)
        if quick is None:
            self._begin_quick(now, path, header, data)
            return
        if hmac.compare_digest(data, quick.last_received):
            if quick.state is QuickState.DONE and not quick.initiator:
                # Quick3 has no answer: two sides that send one for each copy keep each other busy.
                raise Drop("repeated")
            session.quicks.repeat(now, quick)
            return
        candidates = [kind for state, kind in QUICK_STEPS if state is quick.state]
        if not candidates:
            raise Drop(f"no step: quick mode in {quick.state.name}")
        received = self._read(path, header, data, quick.chain, candidates)
        _first_is_hash(received)
        step = step_for(QUICK_STEPS, quick.state, received.message)
        self._draw(header, received)
        try:
            step.action(session, now, quick, received)
        except Fault as fault:
            self._tell(fault)
            session.quicks.fail(now, quick, fault.diagnosis)
            return
        quick.last_received = data

    def _begin_quick(self, now: float, path: Path, header: Header, data: bytes) -> None:
        session = self._session
        chain = session.phase2_chain(header.message_id)
        received = self._read(path, header, data, chain, [messages.Quick1])
        _first_is_hash(received)
        self._draw(header, received)
        try:
            quick_mode.on_quick1(session, now, header.message_id, received)
        except Fault as fault:
            session.quicks.refused(now, header.message_id, data, self._tell(fault))
            session.registry.emit(Failed(session.tunnel, fault.diagnosis, initiator=False))

    def _tell(self, fault: Fault) -> tuple[bytes, ...]:
        """The peer is authenticated: say why, protected."""
        return () if fault.notify is None else informational.send_error(self._session, fault.notify)

    # --- informational

    def _take_informational(self, now: float, path: Path, header: Header, data: bytes) -> None:
        session = self._session
        if not _encrypted(header):
            received = self._read(path, header, data, None, [messages.PlainInformational])
            self._draw(header, received)
            informational.on_plain(session, now, received)
            return
        early = session.state in UNANSWERED_PROOF
        if not early and session.state not in (State.ESTABLISHED, State.REPLACED, State.DELETED):
            raise Drop(f"no step: informational in {session.state.name}")
        if not header.message_id or session.quicks.is_used(header.message_id):
            raise Drop("message ID used before")
        chain = session.phase2_chain(header.message_id)
        try:
            received = self._read(path, header, data, chain, [messages.Informational])
        except Undecryptable:
            if early:
                detail = "the peer answered our proof with what our key does not open"
                session.attempt.note(now, phase1.wrong_key(session, detail=detail).diagnosis)
            raise
        _first_is_hash(received)
        self._draw(header, received)
        handler = informational.on_early if early else informational.on_informational
        handler(session, now, header.message_id, received)

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
            raw = decode_chain(header.next_payload, body, padded=True)
        try:
            require_single(raw, Payload1.SA)
            payloads = tuple(decode_payload(one) for one in raw)
            ignored = (*IGNORED, *_optional(candidates))
            message: object = read_message(candidates, payloads, ignored)
        except DecodeError as error:
            if opened is not None and not self._is_authentic(header, opened):
                raise Undecryptable from error
            if opened is not None and not isinstance(error, Unfit):
                name, peer = exchange_name(header.exchange), path.remote
                diagnosis = Diagnosis.of(Code.SYNTAX, exchange=name, detail=str(error), peer=peer)
                self._session.registry.emit(Failed(self._session.tunnel, diagnosis, initiator=False))
            raise
        return Received(path, data, raw, payloads, message, opened, chain)

    def _is_authentic(self, header: Header, opened: Opened) -> bool:
        """Whether a message of phase 2 that makes no sense is the peer's all the same: its hash verifies."""
        session, number = self._session, header.message_id
        if opened.hash is None or not number or session.phase is Phase.CONNECTING:
            return False
        wanted = session.keys.hash_1(number, opened.behind_hash)
        quick = session.quicks.own()
        if quick is not None and quick.message_id == number:
            wanted = session.keys.hash_2(number, quick.nonce_i, opened.behind_hash)
        return hmac.compare_digest(wanted, opened.hash)

    def _defragment(self, header: Header, data: bytes) -> bytes | None:
        return self._session.carrier.take_fragment(fragment_of(header, data))

    def _check_cookies(self, header: Header) -> None:
        session = self._session
        if session.initiator:
            fits = header.spi_i == session.cky_i and (session.cky_r in (header.spi_r, NO_SPI))
        else:
            fits = header.spi_i == session.cky_i and header.spi_r in (session.cky_r, NO_SPI)
        if not fits:
            raise Drop("cookies")

    def _draw(self, header: Header, received: Received) -> None:
        self._session.carrier.draw(header, received.payloads, outbound=False)


def _first_is_hash(received: Received) -> None:
    """The hash comes first, or it would not cover what stands before it (RFC 2409 5.5). Raises Drop."""
    if received.opened is None or received.opened.hash is None:
        raise Drop("the first payload is not HASH")


def _encrypted(header: Header) -> bool:
    return header.has(Flag.ENCRYPTION)


def _optional(candidates: Iterable[type]) -> tuple[type, ...]:
    """Vendor IDs, NAT payloads and notifies where the message has no field for them."""
    names = {field.name for kind in candidates for field in fields(kind)}
    extra = {"vendor_ids": VendorId, "nat_d": NatD, "nat_oa": NatOa, "notifies": Notify}
    return tuple(kind for name, kind in extra.items() if name not in names)
