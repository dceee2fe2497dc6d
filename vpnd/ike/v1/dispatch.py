"""Bytes -> message. Whatever fails before a message is verified changes nothing.

cookies -> fragments -> repeats -> IV chain -> typed message, which is the cause of a row of the table
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from vpnd.ike.faults import Drop
from vpnd.ike.message import Unfit, read_message, require_single
from vpnd.ike.outputs import Failed
from vpnd.ike.registry import NO_SPI
from vpnd.ike.session import Phase
from vpnd.ike.v1 import messages
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.exchanges import main_mode, quick_mode
from vpnd.ike.v1.isakmp_sa import IsakmpSa
from vpnd.ike.v1.ladder import exchange_name
from vpnd.ike.v1.message_transport import is_fragment
from vpnd.ike.v1.messages import Received
from vpnd.ike.v1.phase1_messages import EXCHANGES
from vpnd.ike.v1.protect import IvChain, Opened, Undecryptable
from vpnd.ike.v1.quick_modes import ANSWERS, Stage
from vpnd.ike.v1.state import SIGNED, State
from vpnd.ike.v1.table import EXPECTED
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import NegotiationMode
from vpnd.wire.chain import decode_chain
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange1, Payload1
from vpnd.wire.ikev1 import Cert, CertReq, NatD, NatOa, Notify, Signature, Unknown, VendorId, decode_payload

ENCRYPTED = {messages.Main5, messages.Main6}
"""Phase-1 messages that are never in clear; Aggressive3 may be (RFC 2409 section 5.4)."""
IGNORED: tuple[type, ...] = (Unknown, Cert, CertReq, Signature, VendorId, NatD, NatOa, Notify)
"""What may stand in any message, and means nothing where that has no field for it."""


def take(context: Context, now: float, path: Path, header: Header, data: bytes) -> Received | None:
    """The message, if it is whole and no repeat. Raises Drop, DecodeError."""
    _check_cookies(context.sa, header)
    if is_fragment(header):
        whole = context.transport.take_fragment(header, data)
        if whole is None:
            return None
        header, data = Header.decode(whole), whole
        _check_cookies(context.sa, header)
        if is_fragment(header):
            raise Drop("fragment of a fragment")
    match header.exchange:
        case Exchange1.IDENTITY_PROTECTION | Exchange1.AGGRESSIVE:
            return _take_phase1(context, path, header, data)
        case Exchange1.QUICK_MODE:
            return _take_quick(context, now, path, header, data)
        case Exchange1.INFORMATIONAL:
            return _take_informational(context, path, header, data)
        case _:
            raise Drop("exchange not spoken")


def _check_cookies(sa: IsakmpSa, header: Header) -> None:
    """Raises Drop. Our own first message has no responder's cookie, nor has the peer's."""
    ours, theirs = (header.spi_r, sa.spi_r) if sa.initiator else (sa.spi_r, header.spi_r)
    if header.spi_i != sa.spi_i or theirs not in (ours, NO_SPI):
        raise Drop("cookies")


def _take_phase1(context: Context, path: Path, header: Header, data: bytes) -> Received | None:
    sa, phase1, expected = context.sa, context.phase1, EXPECTED[context.sa.state]
    if phase1.is_repeat(data):
        if _was_last(sa):
            raise Drop("repeated")
        context.transport.answer_again(phase1.last, path)
        return None
    if phase1.is_known(data):
        raise Drop("repeated")
    if header.exchange != EXCHANGES[sa.mode] or header.message_id:
        raise Drop("another mode")
    if header.spi_r == NO_SPI and sa.state is not State.NEW:
        raise Drop("cookies")
    kinds = messages.MAIN if sa.mode is NegotiationMode.MAIN else messages.AGGRESSIVE
    candidates = [kind for kind in kinds if kind in expected]
    again = sa.state in SIGNED
    if not candidates or (again and sa.attempt.proof_iv is None):
        raise Drop(f"no step: phase 1 in {sa.state.name}")
    if again and not _encrypted(header):
        raise Drop("not encrypted")
    if sa.state is State.ANSWERED_KE and _encrypted(header):
        main_mode.pick_key(context, lambda chain: _read(context, path, header, data, chain, candidates))
    chain = sa.chain if _encrypted(header) else None
    if sa.attempt.proof_iv is not None:
        # The initiator repeats its proof, in other bytes: it has not understood our answer.
        chain = IvChain(sa.keys, sa.attempt.proof_iv)
    try:
        received = _read(context, path, header, data, chain, candidates)
    except Undecryptable:
        if messages.UnopenedProof in expected:
            return Received(messages.UnopenedProof(), (), (), header, path, data)
        raise
    if type(received.message) in ENCRYPTED and received.opened is None:
        raise Drop("not encrypted")
    return _drawn(context, received)


def _was_last(sa: IsakmpSa) -> bool:
    """Whether what was believed last ended phase 1: Main6 or Aggressive3, which have no answer.

    Two sides that answered each copy with a copy would keep each other busy.
    """
    ends = sa.initiator is (sa.mode is NegotiationMode.MAIN)
    return ends and sa.phase is not Phase.CONNECTING and sa.state is not State.REFUSED


def _take_quick(context: Context, now: float, path: Path, header: Header, data: bytes) -> Received | None:
    modes, message_id = context.quick_modes, header.message_id
    if messages.Quick1 not in EXPECTED[context.sa.state]:
        raise Drop(f"no step: quick mode in {context.sa.state.name}")
    if not _encrypted(header) or not message_id:
        raise Drop("not encrypted")
    refusal, quick = modes.refusal(message_id), modes.find(message_id)
    if refusal is not None and refusal.received == data:
        context.transport.answer_again(refusal, path)
        return None
    if quick is None and context.transport.is_used(message_id):
        raise Drop("message ID used before")
    if quick is None:
        chain, kind = context.transport.phase2_chain(message_id), messages.Quick1
        return _with_hash(context, _read(context, path, header, data, chain, [kind]))
    if hmac.compare_digest(data, quick.last.received):
        if quick.stage is Stage.DONE and not quick.initiator:
            # Quick3 has no answer: two sides that send one for each copy keep each other busy.
            raise Drop("repeated")
        quick_mode.repeat(context, now, quick, path)
        return None
    if quick.stage not in ANSWERS:
        raise Drop(f"no step: quick mode in {quick.stage.name}")
    kinds = [ANSWERS[quick.stage]]
    return _with_hash(context, _read(context, path, header, data, quick.chain, kinds))


def _take_informational(context: Context, path: Path, header: Header, data: bytes) -> Received:
    expected = EXPECTED[context.sa.state]
    if not _encrypted(header):
        return _drawn(context, _read(context, path, header, data, None, [messages.PlainInformational]))
    if messages.Informational not in expected:
        raise Drop(f"no step: informational in {context.sa.state.name}")
    if not header.message_id or context.transport.is_used(header.message_id):
        raise Drop("message ID used before")
    chain = context.transport.phase2_chain(header.message_id)
    try:
        received = _read(context, path, header, data, chain, [messages.Informational])
    except Undecryptable:
        if messages.UnopenedInformational in expected:
            return Received(messages.UnopenedInformational(), (), (), header, path, data)
        raise
    return _with_hash(context, received)


def _with_hash(context: Context, received: Received) -> Received:
    """The hash comes first, or it would not cover what stands before it (RFC 2409 5.5). Raises Drop."""
    if received.opened is None or received.opened.hash is None:
        raise Drop("the first payload is not HASH")
    return _drawn(context, received)


def _read(
    context: Context,
    path: Path,
    header: Header,
    data: bytes,
    chain: IvChain | None,
    candidates: Sequence[type],
) -> Received:
    body, sa = data[HEADER_LENGTH:], context.sa
    opened = None if chain is None else chain.open(header.next_payload, body)
    raw = decode_chain(header.next_payload, body, padded=True) if opened is None else opened.payloads
    try:
        require_single(raw, Payload1.SA)
        payloads = tuple(decode_payload(one) for one in raw)
        message: object = read_message(candidates, payloads, IGNORED)
    except DecodeError as error:
        if opened is not None and not _is_authentic(context, header, opened):
            raise Undecryptable from error
        if opened is not None and not isinstance(error, Unfit):
            name, peer = exchange_name(header.exchange), path.remote
            diagnosis = Diagnosis.of(Code.SYNTAX, exchange=name, detail=str(error), peer=peer)
            context.emit(Failed(sa.tunnel, diagnosis, initiator=False))
        raise
    return Received(message, payloads, raw, header, path, data, opened, chain)


def _is_authentic(context: Context, header: Header, opened: Opened) -> bool:
    """Whether a message of phase 2 that makes no sense is the peer's all the same: its hash verifies."""
    sa, number = context.sa, header.message_id
    if opened.hash is None or not number or sa.phase is Phase.CONNECTING:
        return False
    wanted = sa.keys.hash_1(number, opened.behind_hash)
    quick = context.quick_modes.own()
    if quick is not None and quick.message_id == number:
        wanted = sa.keys.hash_2(number, quick.nonce_i, opened.behind_hash)
    return hmac.compare_digest(wanted, opened.hash)


def _drawn(context: Context, received: Received) -> Received:
    context.transport.draw(received.header, received.payloads, outbound=False)
    return received


def _encrypted(header: Header) -> bool:
    return header.has(Flag.ENCRYPTION)
