"""Quick mode: three messages make one pair of IPsec SAs (RFC 2409 section 5.5).

    initiator                                              responder
    Quick1  HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr]  -->
                    <--  HDR*, HASH(2), SA, Nr [, KE] [, IDci, IDcr]  Quick2
    Quick3  HDR*, HASH(3)                                -->

HASH(1) and HASH(2) cover the message ID and everything behind them, HASH(3) both nonces. Quick3 is not
acknowledged: the responder repeats Quick2 until it comes, the initiator answers each repeat with it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from vpnd.crypto import suites
from vpnd.crypto.dh import InvalidPublicValue, KeyPair
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.retransmit import Schedule
from vpnd.ike.v1 import diagnoses, proposals, selectors, succession
from vpnd.ike.v1.faults import InvalidIdInformation, InvalidKeyInformation, NoProposalChosen
from vpnd.ike.v1.keys import NO_SECRET
from vpnd.ike.v1.messages import Quick1, Quick2, Quick3
from vpnd.ike.v1.phase1 import NONCE_LENGTH, check_value
from vpnd.ike.v1.proposals import Phase2Choice, choose_phase2, offer_phase2, offered_group
from vpnd.ike.v1.protect import IvChain
from vpnd.ike.v1.received import LONGEST_WAIT
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy
from vpnd.model.proposals import NO_GROUP
from vpnd.model.secret import Secret
from vpnd.model.selectors import Selector
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import EncapsulationMode
from vpnd.wire.ikev1 import Hash, Id, KeyExchange, Nonce, Payload, encode_payloads

if TYPE_CHECKING:
    from vpnd.ike.v1.received import Received
    from vpnd.ike.v1.session import Session


class State(Enum):
    """What has happened in a quick mode."""

    SENT_QUICK1 = "sent Quick1"
    SENT_QUICK2 = "sent Quick2"
    ABANDONED = "sent Quick1, not wanted any more"
    GIVEN_UP = "sent Quick2, never acknowledged, deleted"
    DONE = "done"


@dataclass(slots=True)
class QuickMode:
    """One quick mode. `group` is that of its KE payloads, 0 without PFS; `spi_in` is the SPI we chose.

    `replaces` is the inbound SPI of the pair that it is to succeed, `began` a time on the caller's clock,
    `refused` the groups that the peer has refused for it before.
    """

    message_id: int
    chain: IvChain
    policy: ChildPolicy
    initiator: bool
    spi_in: int
    state: State
    began: float
    group: int = NO_GROUP
    replaces: int | None = None
    refused: tuple[int, ...] = ()
    key_pair: KeyPair | None = None
    nonce_i: bytes = b""
    nonce_r: bytes = b""
    child: ChildSa | None = None
    schedule: Schedule | None = None
    last_sent: tuple[bytes, ...] = ()
    last_received: bytes = b""
    repeats: int = 0


# ----------------------------------------------------------------------------------- initiator


def begin(
    session: Session,
    now: float,
    policy: ChildPolicy,
    replaces: int | None,
    group: int | None = None,
    refused: tuple[int, ...] = (),
) -> None:
    """Send Quick1 for one mapping, with the first configured PFS group unless another is given."""
    registry = session.registry
    spi_in = registry.new_esp_spi()
    message_id = session.new_message_id()
    chain = session.phase2_chain(message_id)
    quick = QuickMode(message_id, chain, policy, True, spi_in, State.SENT_QUICK1, now, replaces=replaces)
    quick.group = group if group is not None else _first_group(session, policy, replaces)
    quick.refused = refused
    quick.nonce_i = registry.entropy.bytes(NONCE_LENGTH)
    numbers = session.policy.numbers
    asked = _asking(policy, quick.group)
    offer = offer_phase2(asked, spi_in.to_bytes(4, "big"), quick.group, _encapsulation(session), numbers)
    payloads: list[Payload] = [offer, Nonce(quick.nonce_i)]
    if quick.group:
        quick.key_pair = KeyPair.generate(quick.group, registry.entropy)
        payloads.append(KeyExchange(quick.key_pair.public))
    payloads += [selectors.id_of(policy.ts_local), selectors.id_of(policy.ts_remote)]
    proof = Hash(session.keys.hash_1(message_id, encode_payloads(payloads)[1]))
    session.quicks.add(quick)
    session.send_quick(quick, [proof, *payloads])
    quick.schedule = Schedule(now, registry.entropy, longest_wait=LONGEST_WAIT)


def on_quick2(session: Session, now: float, quick: QuickMode, received: Received) -> None:
    """The responder chose: acknowledge, and the SAs are up."""
    message: Quick2 = received.expect(Quick2)
    wanted = session.keys.hash_2(quick.message_id, quick.nonce_i, received.behind_hash)
    _verify(wanted, message.hash)
    received.confirm()
    session.verified(now)
    asked = _asking(quick.policy, quick.group)
    choice = choose_phase2(
        message.sa, asked, quick.group, session.policy.numbers, answer=True, in_udp=session.nat.found
    )
    ranges = _ranges(message.ids)
    if ranges and ranges != (quick.policy.ts_local, quick.policy.ts_remote):
        raise InvalidIdInformation(diagnosis=diagnoses.of_selectors(session, ranges, quick.policy))
    quick.nonce_r = message.nonce.data
    lifetimes = proposals.limited(choice.lifetimes, message.notifies)
    quick.child = _child(session, quick, replace(choice, lifetimes=lifetimes), _shared(quick, message.ke))
    proof = Hash(session.keys.hash_3(quick.message_id, quick.nonce_i, quick.nonce_r))
    session.send_quick(quick, [proof])
    session.install(now, quick.child, pending=False)
    if quick.state is State.ABANDONED:
        # The peer sends on this pair from now on, so it is the one to keep, should a DELETE be lost.
        session.keep_only(now, quick.child, quick.replaces)
    session.quicks.done(now, quick)


# ----------------------------------------------------------------------------------- responder


def on_quick1(session: Session, now: float, message_id: int, received: Received) -> None:
    """The peer wants a pair of SAs: find the mapping, choose, answer."""
    message: Quick1 = received.expect(Quick1)
    _verify(session.keys.hash_1(message_id, received.behind_hash), message.hash)
    received.confirm()
    session.verified(now)
    session.moved(now, received.path)
    session.quicks.check_room()
    policy = _mapping(session, message)
    _cross(session, now, message_id, policy)
    quick, payloads = _answer(session, now, message_id, policy, received)
    proof = Hash(session.keys.hash_2(message_id, quick.nonce_i, encode_payloads(payloads)[1]))
    session.quicks.add(quick)
    session.send_quick(quick, [proof, *payloads])
    quick.schedule = Schedule(now, session.registry.entropy, longest_wait=LONGEST_WAIT)
    if quick.child is not None:
        session.install(now, quick.child, pending=True)


def _answer(
    session: Session, now: float, message_id: int, policy: ChildPolicy, received: Received
) -> tuple[QuickMode, list[Payload]]:
    """Our side of the quick mode, and what Quick2 carries behind the hash. Raises Fault, leaving nothing."""
    message: Quick1 = received.expect(Quick1)
    registry, numbers = session.registry, session.policy.numbers
    group = offered_group(message.sa) if message.ke else NO_GROUP
    # PFS that only the peer wants: a pair that is protected better than was asked for is not refused.
    on_request = group in session.policy.groups_on_request(session.suite.dh)
    acceptable = _asking(policy, group) if on_request else policy
    choice = choose_phase2(message.sa, acceptable, group, numbers, in_udp=session.nat.found)
    if message.ke is not None and group:
        check_value(group, message.ke)
    key_pair = KeyPair.generate(group, registry.entropy) if group else None
    quick = QuickMode(message_id, received.chain, policy, False, 0, State.SENT_QUICK2, now, group)
    quick.key_pair = key_pair
    quick.nonce_i, quick.nonce_r = message.nonce.data, registry.entropy.bytes(NONCE_LENGTH)
    shared = _shared(quick, message.ke)
    quick.spi_in = registry.new_esp_spi()
    quick.last_received = received.data
    try:
        quick.child = _child(session, quick, choice, shared)
    except Fault:
        registry.release_esp_spi(quick.spi_in)
        raise
    payloads: list[Payload] = [choice.answer(quick.spi_in.to_bytes(4, "big")), Nonce(quick.nonce_r)]
    if key_pair is not None:
        payloads.append(KeyExchange(key_pair.public))
    payloads += message.ids
    return quick, payloads


def _cross(session: Session, now: float, message_id: int, policy: ChildPolicy) -> None:
    """Both sides have begun a quick mode for one mapping: the one of the side with the lower identity counts.

    Raises Drop if that is ours: the peer, if it knows the rule, answers ours instead; if it does not it
    repeats its own, which then finds ours done and succeeds it.
    """
    current = session.current_sa
    own = current.quicks.own()
    if own is not None and own.policy.index != policy.index:
        own = None
    if succession.we_are_lower(session):
        session.quicks.cross(now, message_id, under_way=own is not None)
    if own is not None:
        current.quicks.abandon(own)


def on_quick3(session: Session, now: float, quick: QuickMode, received: Received) -> None:
    """The initiator has the SAs installed."""
    message: Quick3 = received.expect(Quick3)
    _verify(session.keys.hash_3(quick.message_id, quick.nonce_i, quick.nonce_r), message.hash)
    received.confirm()
    session.verified(now)
    session.outbound_ready(quick.spi_in)
    session.quicks.done(now, quick)


# -------------------------------------------------------------------------------------- shared


def _first_group(session: Session, policy: ChildPolicy, replaces: int | None) -> int:
    """The group to begin with; where PFS is off, that of the pair that is succeeded: the peer wants it."""
    if policy.pfs:
        return policy.pfs[0]
    old = session.children.by_spi.get(replaces) if replaces is not None else None
    return (old.sa.suite.dh if old is not None else None) or NO_GROUP


def _asking(policy: ChildPolicy, group: int) -> ChildPolicy:
    """The policy with a key exchange in `group`, where PFS is off and the peer wants it."""
    return policy.with_groups(group) if group and not policy.pfs else policy


def _verify(wanted: bytes, received: Hash) -> None:
    """Raises Drop: a message with another hash is none of the peer's (RFC 2409 section 5.5)."""
    if not hmac.compare_digest(wanted, received.data):
        raise Drop("quick mode hash")


def _shared(quick: QuickMode, ke: KeyExchange | None) -> Secret:
    """g(qm)^xy, or nothing without PFS. Raises InvalidKeyInformation, NoProposalChosen."""
    if quick.key_pair is None:
        return NO_SECRET
    if ke is None:
        raise NoProposalChosen(diagnosis=Diagnosis.of(Code.PFS, theirs="off", ours=quick.group))
    try:
        return quick.key_pair.shared(ke.data)
    except InvalidPublicValue as error:
        raise InvalidKeyInformation(detail=str(error)) from error


def _ranges(ids: tuple[Id, ...]) -> tuple[Selector, ...]:
    """What the identities name. Raises InvalidIdInformation for one that names no range of addresses."""
    try:
        return tuple(map(selectors.selector_of, ids))
    except DecodeError as error:
        raise InvalidIdInformation(detail=str(error)) from error


def _mapping(session: Session, message: Quick1) -> ChildPolicy:
    """The mapping whose two ranges are exactly those of the offer; without identities, host to host.

    Narrowing is IKEv2's: an IKEv1 peer that is answered with other ranges than it offered is lost. Raises
    InvalidIdInformation with both sides' ranges.
    """
    ranges = _ranges(message.ids)
    if not ranges:
        ranges = tuple(Selector(one, one) for one in (session.path.remote, session.path.local))
    for policy in session.policy.children:
        if ranges == (policy.ts_remote, policy.ts_local):
            return policy
    raise InvalidIdInformation(diagnosis=diagnoses.of_selectors(session, ranges[::-1]))


def _child(session: Session, quick: QuickMode, choice: Phase2Choice, shared: Secret) -> ChildSa:
    """The SA pair that both sides have keys for. Raises WeakKey."""
    keys, nonces = session.keys, (quick.nonce_i, quick.nonce_r)
    inbound = keys.esp_keys(choice.suite, quick.spi_in.to_bytes(4, "big"), *nonces, shared)
    outbound = keys.esp_keys(choice.suite, choice.spi, *nonces, shared)
    suite = suites.by_numbers(replace(choice.suite, dh=quick.group or None), session.policy.numbers)
    suite = suites.as_cut(suite, quick.policy.sha256_96)
    return ChildSa(
        tunnel=session.tunnel,
        mapping=quick.policy.index,
        spi_in=quick.spi_in,
        spi_out=int.from_bytes(choice.spi, "big"),
        suite=suite,
        keys_in=inbound,
        keys_out=outbound,
        ts_local=(quick.policy.ts_local,),
        ts_remote=(quick.policy.ts_remote,),
        path=session.path,
        udp=choice.udp,
        lifetimes=choice.lifetimes,
        initiator=quick.initiator,
        replay_window=quick.policy.replay_window,
    )


def _encapsulation(session: Session) -> EncapsulationMode:
    """Tunnel mode, in UDP where a NAT was found, by the number that the agreed NAT traversal has for it."""
    if not session.nat.found:
        return EncapsulationMode.TUNNEL
    if session.negotiation.peer.nat_t_draft:
        return EncapsulationMode.UDP_TUNNEL_DRAFT
    return EncapsulationMode.UDP_TUNNEL
