"""Quick mode: three messages make one pair of IPsec SAs (RFC 2409 section 5.5).

    initiator                                              responder
    Quick1  HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr]  -->
                    <--  HDR*, HASH(2), SA, Nr [, KE] [, IDci, IDcr]  Quick2
    Quick3  HDR*, HASH(3)                                -->

HASH(1) and HASH(2) cover the message ID and everything behind them, HASH(3) both nonces. Quick3 is not
acknowledged: the responder repeats Quick2 until it comes, the initiator answers each repeat with it.

Wanted mappings wait in a queue of the peer, for one quick mode of ours is under way at a time.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import replace

from vpnd.crypto import suites
from vpnd.crypto.dh import KeyPair
from vpnd.ike.commands import Moved, RekeyNow
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.key_exchange import NONCE_LENGTH, check_value, shared_secret
from vpnd.ike.outputs import ChildFailed, Failed, PathMoved
from vpnd.ike.retransmit import Schedule
from vpnd.ike.v1 import diagnoses, proposals, selectors
from vpnd.ike.v1.causes import PeerDead, QuickModesDue, Refused
from vpnd.ike.v1.children import Limit
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.faults import InvalidIdInformation, InvalidKeyInformation, NoProposalChosen
from vpnd.ike.v1.keys import NO_SECRET
from vpnd.ike.v1.messages import Quick1, Quick2, Quick3, Received
from vpnd.ike.v1.proposals import Phase2Choice, choose_phase2, offer_phase2, offered_group
from vpnd.ike.v1.quick_modes import LINGER, UNREAD_RENEWED, QuickMode, Stage
from vpnd.ike.v1.state import LONGEST_WAIT, State
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy, NegotiationMode
from vpnd.model.proposals import NO_GROUP
from vpnd.model.secret import Secret
from vpnd.model.selectors import Selector
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import EncapsulationMode, Exchange1, Notify1
from vpnd.wire.ikev1 import Hash, Id, KeyExchange, Nonce, Payload, encode_payloads

ABOUT_GROUPS = frozenset(
    (
        Notify1.NO_PROPOSAL_CHOSEN,
        Notify1.ATTRIBUTES_NOT_SUPPORTED,
        Notify1.BAD_PROPOSAL_SYNTAX,
        Notify1.INVALID_KEY_INFORMATION,
    )
)
"""What peers say that want another PFS group, or none."""
NEVER_ACKNOWLEDGED = 30.0
"""Seconds in which DELETE is repeated for a pair that the peer may send on, while we never had it."""


# ------------------------------------------------------------------------------------- what is wanted


def want(context: Context, now: float, mapping: int, replaces: int | None = None) -> None:
    """A pair of SAs for this mapping, as soon as no quick mode of ours is under way.

    The last wish counts: a pair that was to be succeeded may be gone, and the mapping wants its first.
    """
    quick = context.quick_modes.own()
    if quick is None or quick.policy.index != mapping:
        context.peer.wanted[mapping] = replaces
    elif replaces is None:
        quick.replaces = None
    begin_next(context, now)


def begin_next(context: Context, now: float) -> None:
    """Begin the quick mode whose turn it is, if none of ours is under way."""
    peer, policies = context.peer, {policy.index: policy for policy in context.sa.policy.children}
    for mapping, replaces in list(peer.wanted.items()):
        if context.sa.state is not State.ESTABLISHED or context.quick_modes.own() is not None:
            return
        if peer.children.pending(mapping):
            # The peer has been faster; should nothing come of it, it is our turn.
            continue
        del peer.wanted[mapping]
        if mapping in policies and not peer.children.settled(mapping, replaces):
            _begin(context, now, policies[mapping], replaces)


def hand_on(context: Context) -> None:
    """Another ISAKMP SA speaks for the tunnel: what we have begun is wanted once more, before all else."""
    quick, peer = context.quick_modes.own(), context.peer
    if quick is not None:
        quick.abandon()
        peer.wanted = {quick.policy.index: quick.replaces} | peer.wanted


def succeed(context: Context, now: float) -> bool:
    """Have the current one make successors of the pairs that this one made beside it; whether there are any.

    In aggressive mode the peer has had the current one since it began, and we later. Quick modes are
    remembered for LINGER seconds, which is more than this one lives beside it.
    """
    current, children = context.current, context.peer.children
    if current.sa.mode is not NegotiationMode.AGGRESSIVE:
        return False
    made = {quick.spi_in for quick in context.quick_modes.all()}
    due = [
        (mapping, spi_in)
        for mapping, spi_in in children.current.items()
        if spi_in in made and children.by_spi[spi_in].made >= current.sa.attempt.began
    ]
    for mapping, spi_in in due:
        want(current, now, mapping, spi_in)
    current.rearm()
    return bool(due)


def restart(context: Context, now: float) -> None:
    """What we have begun cannot be read by the peer: begin it once more."""
    quick = context.quick_modes.own()
    if quick is not None:
        quick.abandon()
        want(context, now, quick.policy.index, quick.replaces)


def confirmed(context: Context, now: float, spi_in: int) -> None:
    """The peer sends on the pair of one of its quick modes, so it has had our answer."""
    for quick in context.quick_modes.all():
        if quick.spi_in == spi_in and quick.stage is Stage.SENT_QUICK2:
            _done(context, now, quick)


def _done(context: Context, now: float, quick: QuickMode) -> None:
    """Both sides have the SAs; the exchange stays to answer repeats."""
    context.quick_modes.unanswered_successions = 0
    context.quick_modes.done_at = now
    quick.stage, quick.schedule, quick.key_pair = Stage.DONE, None, None
    quick.last.ends = now + LINGER
    # What we have begun for the same is not needed, and the next has its turn.
    current = context.current
    own = current.quick_modes.own()
    if own is not None and current.peer.children.settled(own.policy.index, own.replaces):
        own.abandon()
    begin_next(current, now)


# ----------------------------------------------------------------------------------- initiator


def _begin(
    context: Context,
    now: float,
    policy: ChildPolicy,
    replaces: int | None,
    group: int | None = None,
    refused: tuple[int, ...] = (),
) -> None:
    """Send Quick1 for one mapping, with the first configured PFS group unless another is given."""
    registry, transport = context.registry, context.transport
    spi_in = registry.new_esp_spi()
    message_id = transport.new_message_id()
    chain = transport.phase2_chain(message_id)
    quick = QuickMode(message_id, chain, policy, True, spi_in, Stage.SENT_QUICK1, now)
    quick.replaces, quick.refused = replaces, refused
    group = group if group is not None else _first_group(context, policy, replaces)
    quick.nonce_i = registry.entropy.bytes(NONCE_LENGTH)
    asked, numbers = _asking(policy, group), context.sa.policy.numbers
    offer = offer_phase2(asked, spi_in.to_bytes(4, "big"), group, encapsulation(context), numbers)
    payloads: list[Payload] = [offer, Nonce(quick.nonce_i)]
    if group:
        quick.key_pair = KeyPair.generate(group, registry.entropy)
        payloads.append(KeyExchange(quick.key_pair.public))
    payloads += [selectors.id_of(policy.ts_local), selectors.id_of(policy.ts_remote)]
    proof = context.sa.keys.hash_1(message_id, encode_payloads(payloads)[1])
    _open(context, now, quick, [Hash(proof), *payloads])


def on_quick2(context: Context, now: float, received: Received) -> None:
    """The responder chose: acknowledge, and the SAs are up."""
    message, sa, quick = received.of(Quick2), context.sa, _meant(context, received)
    wanted = sa.keys.hash_2(quick.message_id, quick.nonce_i, received.behind_hash)
    _verify(context, now, received, message.hash, wanted)
    asked, numbers = _asking(quick.policy, quick.group), sa.policy.numbers
    choice = choose_phase2(message.sa, asked, quick.group, numbers, answer=True, in_udp=sa.nat.found)
    ranges = _ranges(message.ids)
    if ranges and ranges != (quick.policy.ts_local, quick.policy.ts_remote):
        raise InvalidIdInformation(diagnosis=diagnoses.of_selectors(sa, ranges, quick.policy))
    quick.nonce_r = message.nonce.data
    lifetimes = proposals.limited(choice.lifetimes, message.notifies)
    quick.child = _child(context, quick, replace(choice, lifetimes=lifetimes), shared(quick, message.ke))
    proof = Hash(sa.keys.hash_3(quick.message_id, quick.nonce_i, quick.nonce_r))
    _send(context, quick, [proof])
    _install(context, now, quick.child, pending=False)
    if quick.stage is Stage.ABANDONED:
        # The peer sends on this pair from now on, so it is the one to keep, should a DELETE be lost.
        context.peer.children.keep_only(now, quick.child, quick.replaces)
        context.current.rearm()
    _done(context, now, quick)
    quick.last.received = received.data
    _follow_policy(context, now, quick)


# ----------------------------------------------------------------------------------- responder


def on_quick1(context: Context, now: float, received: Received) -> None:
    """The peer wants a pair of SAs: find the mapping, choose, answer."""
    message, message_id = received.of(Quick1), received.header.message_id
    wanted = context.sa.keys.hash_1(message_id, received.behind_hash)
    _verify(context, now, received, message.hash, wanted)
    context.quick_modes.check_room()
    policy = _mapping(context, message)
    _cross(context, now, message_id, policy)
    quick, child, payloads = _answer(context, now, policy, received)
    proof = context.sa.keys.hash_2(message_id, quick.nonce_i, encode_payloads(payloads)[1])
    _open(context, now, quick, [Hash(proof), *payloads])
    _install(context, now, child, pending=True)


def _answer(
    context: Context, now: float, policy: ChildPolicy, received: Received
) -> tuple[QuickMode, ChildSa, list[Payload]]:
    """Our side, its pair, and what Quick2 carries behind the hash. Raises Fault, leaving nothing."""
    message, sa, registry = received.of(Quick1), context.sa, context.registry
    group = offered_group(message.sa) if message.ke else NO_GROUP
    # PFS that only the peer wants: a pair that is protected better than was asked for is not refused.
    acceptable = _asking(policy, group) if group in sa.groups_on_request() else policy
    choice = choose_phase2(message.sa, acceptable, group, sa.policy.numbers, in_udp=sa.nat.found)
    if message.ke is not None and group:
        check_value(group, message.ke.data, InvalidKeyInformation)
    key_pair = KeyPair.generate(group, registry.entropy) if group else None
    quick = QuickMode(
        received.header.message_id, received.chain, policy, False, 0, Stage.SENT_QUICK2, now, key_pair
    )
    quick.nonce_i, quick.nonce_r = message.nonce.data, registry.entropy.bytes(NONCE_LENGTH)
    secret = shared(quick, message.ke)
    quick.spi_in = registry.new_esp_spi()
    quick.last.received = received.data
    try:
        child = quick.child = _child(context, quick, choice, secret)
    except Fault:
        registry.release_esp_spi(quick.spi_in)
        raise
    payloads: list[Payload] = [choice.answer(quick.spi_in.to_bytes(4, "big")), Nonce(quick.nonce_r)]
    if key_pair is not None:
        payloads.append(KeyExchange(key_pair.public))
    payloads += message.ids
    return quick, child, payloads


def _cross(context: Context, now: float, message_id: int, policy: ChildPolicy) -> None:
    """Both sides have begun a quick mode for one mapping: the one of the side with the lower identity counts.

    Raises Drop if that is ours: the peer, if it knows the rule, answers ours instead; if it does not it
    repeats its own, which then finds ours done and succeeds it.
    """
    own = context.current.quick_modes.own()
    crossed = own if own is not None and own.policy.index == policy.index else None
    if context.sa.we_are_lower:
        context.quick_modes.cross(now, message_id, under_way=crossed is not None)
    if crossed is not None:
        crossed.abandon()


def on_quick3(context: Context, now: float, received: Received) -> None:
    """The initiator has the SAs installed."""
    message, quick = received.of(Quick3), _meant(context, received)
    wanted = context.sa.keys.hash_3(quick.message_id, quick.nonce_i, quick.nonce_r)
    _verify(context, now, received, message.hash, wanted)
    context.peer.children.confirm(quick.spi_in)
    _done(context, now, quick)
    quick.last.received = received.data
    _follow_policy(context, now, quick)


def _follow_policy(context: Context, now: float, quick: QuickMode) -> None:
    """Another policy may hold since it began: its pair gets a successor, or goes with its mapping."""
    current, made_by = context.current, quick.policy
    wanted = current.sa.policy.child(made_by.index)
    if not current.peer.children.is_current(quick.spi_in):
        return
    if wanted is None or wanted.selects != made_by.selects:
        gone = Diagnosis.of(Code.LIFETIME, detail="its mapping is not configured")
        close_child(current, quick.spi_in, gone)
        if wanted is not None:
            want(current, now, wanted.index)
    elif wanted.protection != made_by.protection:
        want(current, now, wanted.index, quick.spi_in)
    current.rearm()


# ------------------------------------------------------------------------------------- its end


def refuse(context: Context, now: float, refused: Refused) -> None:
    """A message of a quick mode is not acceptable: the peer is authenticated, so say why, protected."""
    fault, received = refused.fault, refused.received
    sent = context.transport.error(fault.notify)
    quick = context.quick_modes.find(received.header.message_id)
    if quick is not None:
        fail(context, now, quick, fault.diagnosis)
        return
    context.transport.use(received.header.message_id)
    context.quick_modes.refused(now, received.header.message_id, received.data, sent)
    context.emit(Failed(context.sa.tunnel, fault.diagnosis, initiator=False))


def fail(context: Context, now: float, quick: QuickMode, diagnosis: Diagnosis) -> None:
    """It ends without SAs; the next mapping has its turn."""
    tunnel = context.sa.tunnel
    _drop(context, quick, diagnosis)
    if quick.stage is Stage.ABANDONED:
        return
    if quick.initiator:
        context.emit(ChildFailed(tunnel, quick.policy.index, diagnosis))
    else:
        context.emit(Failed(tunnel, diagnosis, initiator=False))
    begin_next(context, now)


def refused_by_peer(
    context: Context, now: float, quick: QuickMode, notify: int, diagnosis: Diagnosis
) -> None:
    """The peer has refused it. Another PFS group may do where the first was the trouble of ours."""
    further = _further_groups(context, quick) if quick.initiator and notify in ABOUT_GROUPS else ()
    if not further:
        fail(context, now, quick, diagnosis)
        return
    refused = (*quick.refused, quick.group)
    _drop(context, quick, diagnosis)
    _begin(context, now, quick.policy, quick.replaces, further[0], refused)


def _further_groups(context: Context, quick: QuickMode) -> tuple[int, ...]:
    """What to ask for next. Where PFS is off, the peer may want it: with the ISAKMP SA's group, once."""
    groups = quick.policy.pfs
    if groups:
        return groups[groups.index(quick.group) + 1 :] if quick.group in groups else ()
    own = context.sa.suite.dh or NO_GROUP
    return tuple({NO_GROUP, own} - {*quick.refused, quick.group})


def unread(context: Context, now: float, spi: bytes) -> bool:
    """Whether the peer's error is about a Quick3 of ours: the mapping gets another pair soon.

    Where the peer has said so before, it was about a copy, and neither is another quick mode refused by it.
    """
    modes, children = context.quick_modes, context.peer.children
    lately = [] if modes.named(spi) else modes.sent_quick3(now)
    quick = modes.renews(lately)
    if quick is not None and children.is_current(quick.spi_in):
        children.by_spi[quick.spi_in].doubted = True
        children.timers.arm((Limit.SOFT, quick.spi_in), now + UNREAD_RENEWED)
        context.current.rearm()
    return bool(lately)


def end_all(context: Context, now: float, diagnosis: Diagnosis) -> None:
    """The ISAKMP SA is gone: nothing is under way any more.

    The peer may have the pairs that a predecessor would have taken back, and send on them.
    """
    current = context.current
    takes_back = current is not context and current.sa.state is State.ESTABLISHED
    for quick in context.quick_modes.all() if takes_back else ():
        if quick.stage in (Stage.SENT_QUICK2, Stage.GIVEN_UP):
            entropy = current.registry.entropy
            current.peer.deleted(now, quick.spi_in, entropy, NEVER_ACKNOWLEDGED, LONGEST_WAIT)
            current.transport.delete_child(quick.spi_in)
    for quick in context.quick_modes.all():
        _drop(context, quick, diagnosis)
    context.quick_modes.clear()
    if takes_back:
        current.rearm()


def _drop(context: Context, quick: QuickMode, diagnosis: Diagnosis) -> None:
    """Forget the exchange, and its SAs unless both sides have them."""
    context.quick_modes.forget(quick)
    if quick.stage is not Stage.DONE:
        context.peer.children.remove(quick.spi_in, diagnosis)


# ------------------------------------------------------------------------------------- repeats and time


def repeat(context: Context, now: float, quick: QuickMode, path: Path) -> None:
    """Answer a repeated message with the last answer. Raises Drop after a bounded number of times."""
    if quick.initiator and quick.stage is Stage.DONE:
        # The peer has not had our third message, and not the pair either.
        context.peer.children.give_time(now, quick.spi_in)
    context.transport.answer_again(quick.last, path)


def serve(context: Context, now: float, due: QuickModesDue) -> PeerDead | RekeyNow | None:
    """Forget what is over, repeat what has no answer yet, give up what has had none for long."""
    over = Diagnosis.of(Code.SILENT, exchange="quick mode")
    for quick in context.quick_modes.over(now):
        _drop(context, quick, over)
    outcome: PeerDead | RekeyNow | None = None
    for quick in context.quick_modes.all():
        schedule = quick.schedule
        if schedule is None or schedule.due > now:
            continue
        if schedule.exhausted(now):
            outcome = _unanswered(context, now, quick) or outcome
            continue
        schedule.again(now)
        context.phase1.repeat_unconfirmed()
        if quick.stage is Stage.GIVEN_UP:
            context.transport.delete_child(quick.spi_in)
        else:
            context.transport.repeat(quick.last.sent)
    return outcome


def _unanswered(context: Context, now: float, quick: QuickMode) -> PeerDead | RekeyNow | None:
    if quick.stage is Stage.GIVEN_UP:
        _drop(context, quick, Diagnosis.of(Code.SILENT))
        return None
    sa = context.sa
    diagnosis = sa.attempt.hint or Diagnosis.of(
        Code.SILENT, exchange="quick mode", mapping=str(quick.policy), peer=sa.path.remote
    )
    fail(context, now, quick, diagnosis)
    if not quick.initiator:
        _take_back(context, now, quick)
        return None
    if sa.state is State.ESTABLISHED:
        # It may only be that the peer does not answer what it refuses; one that speaks of its life is asked.
        if context.liveness.spoken and not context.phase1.unconfirmed:
            context.ask(now)
        elif context.liveness.last_heard <= quick.began:
            return PeerDead()
    # A pair that works has found no successor: there is time for a new phase 1 before it ends.
    renew = quick.replaces is not None and context.quick_modes.successions_are_unanswered()
    return RekeyNow() if renew and sa.state is State.ESTABLISHED else None


def _take_back(context: Context, now: float, quick: QuickMode) -> None:
    """The initiator may have the SAs, if all its acknowledgements were lost: tell it more than once."""
    quick.stage = Stage.GIVEN_UP
    quick.schedule = Schedule(now, context.registry.entropy, NEVER_ACKNOWLEDGED, LONGEST_WAIT)
    context.quick_modes.add(quick)
    context.transport.delete_child(quick.spi_in)


# -------------------------------------------------------------------------------------- shared


def verified(context: Context, now: float, alive: bool = True) -> None:
    """A message under this ISAKMP SA has been verified. `alive`: it says that the peer lives now."""
    attempt, current = context.sa.attempt, context.current
    attempt.proof_iv = attempt.hint = None
    attempt.accepted = True
    context.sa.last_message = now
    context.phase1.confirm()
    if attempt.confirmed_at is None:
        attempt.confirmed_at = now
    if alive and current.sa.state is State.ESTABLISHED:
        current.liveness.note_activity(now)
    if not context.is_current:
        current.rearm()


def follow(context: Context, now: float, came: Moved | Received) -> None:
    """An authentic, new message or ESP came along `came.path`: a peer that has moved there is asked."""
    sa = context.sa
    if sa.follows(came.path) and context.is_current:
        # A predecessor does not speak for the IPsec SAs.
        context.emit(PathMoved(sa.tunnel, sa.path))
        if sa.state is State.ESTABLISHED:
            context.ask(now)


def _meant(context: Context, received: Received) -> QuickMode:
    quick = context.quick_modes.find(received.header.message_id)
    if quick is None:  # pragma: no cover (`dispatch` has looked it up to read the message)
        raise Drop("no quick mode")
    return quick


def _open(context: Context, now: float, quick: QuickMode, payloads: Sequence[Payload]) -> None:
    """Our first message of it, sent again until it is answered."""
    context.quick_modes.add(quick)
    context.transport.use(quick.message_id)
    _send(context, quick, payloads)
    quick.schedule = Schedule(now, context.registry.entropy, longest_wait=LONGEST_WAIT)


def _send(context: Context, quick: QuickMode, payloads: Sequence[Payload]) -> None:
    quick.schedule = None
    quick.last.sent = context.transport.send(Exchange1.QUICK_MODE, payloads, quick.message_id, quick.chain)


def _install(context: Context, now: float, child: ChildSa, pending: bool) -> None:
    """A new SA pair. `pending`: the peer, which began, has not confirmed it yet."""
    children, current = context.peer.children, context.current
    children.install(now, child, pending)
    for spi_in in children.surplus(child.mapping):
        close_child(current, spi_in, Diagnosis.of(Code.LIFETIME, detail="one of too many IPsec SAs"))
    current.rearm()


def close_child(context: Context, spi_in: int, diagnosis: Diagnosis) -> None:
    child = context.peer.children.by_spi.get(spi_in)
    if child is not None and not child.deleted:
        context.transport.delete_child(spi_in)
    context.peer.children.remove(spi_in, diagnosis)


def _first_group(context: Context, policy: ChildPolicy, replaces: int | None) -> int:
    """The group to begin with; where PFS is off, that of the pair that is succeeded: the peer wants it."""
    if policy.pfs:
        return policy.pfs[0]
    old = context.peer.children.by_spi.get(replaces) if replaces is not None else None
    return (old.sa.suite.dh if old is not None and old.sa.pfs_of_peer else None) or NO_GROUP


def _asking(policy: ChildPolicy, group: int) -> ChildPolicy:
    """The policy with a key exchange in `group`, where PFS is off and the peer wants it."""
    return policy.with_groups(group) if group and not policy.pfs else policy


def _verify(context: Context, now: float, received: Received, found: Hash, wanted: bytes) -> None:
    """Raises Drop: a message with another hash is none of the peer's (RFC 2409 section 5.5)."""
    if not hmac.compare_digest(wanted, found.data):
        raise Drop("quick mode hash")
    received.confirm()
    verified(context, now)
    follow(context, now, received)


def shared(quick: QuickMode, ke: KeyExchange | None) -> Secret:
    """g(qm)^xy, or nothing without PFS. Raises InvalidKeyInformation, NoProposalChosen."""
    if quick.key_pair is None:
        return NO_SECRET
    if ke is None:
        raise NoProposalChosen(code=Code.PFS, theirs="off", ours=quick.group)
    return shared_secret(quick.key_pair, ke.data, InvalidKeyInformation)


def _ranges(ids: tuple[Id, ...]) -> tuple[Selector, ...]:
    """What the identities name. Raises InvalidIdInformation for one that names no range of addresses."""
    try:
        return tuple(map(selectors.selector_of, ids))
    except DecodeError as error:
        raise InvalidIdInformation(detail=str(error)) from error


def _mapping(context: Context, message: Quick1) -> ChildPolicy:
    """The mapping whose two ranges are exactly those of the offer; without identities, host to host.

    Narrowing is IKEv2's: an IKEv1 peer that is answered with other ranges than it offered is lost. Raises
    InvalidIdInformation with both sides' ranges.
    """
    sa, ranges = context.sa, _ranges(message.ids)
    if not ranges:
        ranges = tuple(Selector(one, one) for one in (sa.path.remote, sa.path.local))
    for policy in sa.policy.children:
        if ranges == (policy.ts_remote, policy.ts_local):
            return policy
    raise InvalidIdInformation(diagnosis=diagnoses.of_selectors(sa, ranges[::-1]))


def _child(context: Context, quick: QuickMode, choice: Phase2Choice, secret: Secret) -> ChildSa:
    """The SA pair that both sides have keys for. Raises WeakKey."""
    keys, nonces = context.sa.keys, (quick.nonce_i, quick.nonce_r)
    inbound = keys.esp_keys(choice.suite, quick.spi_in.to_bytes(4, "big"), *nonces, secret)
    outbound = keys.esp_keys(choice.suite, choice.spi, *nonces, secret)
    suite = suites.by_numbers(replace(choice.suite, dh=quick.group or None), context.sa.policy.numbers)
    suite = suites.as_cut(suite, quick.policy.sha256_96)
    return ChildSa(
        tunnel=context.sa.tunnel,
        mapping=quick.policy.index,
        spi_in=quick.spi_in,
        spi_out=int.from_bytes(choice.spi, "big"),
        suite=suite,
        keys_in=inbound,
        keys_out=outbound,
        ts_local=(quick.policy.ts_local,),
        ts_remote=(quick.policy.ts_remote,),
        path=context.sa.path,
        udp=choice.udp,
        lifetimes=choice.lifetimes,
        initiator=quick.initiator,
        replay_window=quick.policy.replay_window,
        pfs_of_peer=bool(quick.group) and not quick.policy.pfs,
    )


def encapsulation(context: Context) -> EncapsulationMode:
    """Tunnel mode, in UDP where a NAT was found, by the number that the agreed NAT traversal has for it."""
    if not context.sa.nat.found:
        return EncapsulationMode.TUNNEL
    if context.sa.negotiation.peer.nat_t_draft:
        return EncapsulationMode.UDP_TUNNEL_DRAFT
    return EncapsulationMode.UDP_TUNNEL
