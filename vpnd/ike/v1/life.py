"""The life of an ISAKMP SA beside its exchanges: what its timers, commands and outcomes do.

Nothing in phase 1 is authenticated before the proofs, so whatever speaks against an attempt (an error in
clear, a message that makes no sense, a proof that does not verify) is only remembered: the real message may
still come. An initiator gives up 30 s after its last message has had no answer, or `Limits.error_listening`
after something spoke against the attempt: against its first message twice, the second time after a
repetition. A responder waits `Limits.half_open_lifetime` for each message.
"""

from __future__ import annotations

from vpnd.ike import commands, natt
from vpnd.ike.commands import Cause
from vpnd.ike.contest import ANSWER_WITHIN
from vpnd.ike.outputs import Failed, IkeRekeyFailed, Keepalive
from vpnd.ike.outputs import PeerDead as PeerIsDead
from vpnd.ike.registry import NO_SPI
from vpnd.ike.v1 import causes, diagnoses, reauthentication
from vpnd.ike.v1.children import REKEY_AGAIN, Limit
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.exchanges import quick_mode
from vpnd.ike.v1.exchanges.informational import answered_in_vain, note
from vpnd.ike.v1.faults import AuthenticationFailed
from vpnd.ike.v1.isakmp_sa import IsakmpSa
from vpnd.ike.v1.messages import Quick1, Quick2
from vpnd.ike.v1.state import SIGNED, State, Timer
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.wire.iana import Notify1

OTHER_KEY_AFTER = 2
"""Ours: repetitions of our proof in main mode, within 3.5 s, after which the other key is tried. A peer
that has the key answers the first, and one that has not may say nothing at all."""

# ------------------------------------------------------------------------------------- an attempt of ours


def retransmit(context: Context, now: float, timer: Timer) -> causes.AttemptFailed | None:
    waits = not _another_key(context) or context.phase1.repeated < OTHER_KEY_AFTER
    return None if waits and context.phase1.retransmit(now) else give_up(context, now, timer)


def give_up(context: Context, now: float, timer: Timer) -> causes.AttemptFailed:
    """No real answer has come; the reason is the best that is known."""
    sa, attempt = context.sa, context.sa.attempt
    diagnosis = diagnosis_of_silence(context)
    if sa.state is State.SENT_AGGRESSIVE and diagnosis.code is Code.PSK:
        # The responder has sent its proof and would only ever see silence.
        sa.peer_spi = attempt.rejected_cookie
        context.transport.error_in_clear(Notify1.AUTHENTICATION_FAILED)
    return causes.AttemptFailed(diagnosis)


def diagnosis_of_silence(context: Context) -> Diagnosis:
    """Why an attempt ended without a real answer: the best that is known."""
    attempt = context.sa.attempt
    return attempt.hint or diagnoses.unanswered(context.sa, context.phase1.sent, attempt.received)


def fail(context: Context, now: float, failed: causes.AttemptFailed) -> causes.Ended:
    """Our attempt has ended. A failed renewal is tried again by the SA that it was to succeed."""
    if _is_refused_key(context, failed.diagnosis):
        _try_other_key(context, now)
    elif not context.sa.attempt.renews:
        context.emit(Failed(context.sa.tunnel, failed.diagnosis, initiator=True))
    elif any(one.sa.outdated for one in context.siblings()):
        # Until one comes about the tunnel is not as it is configured.
        context.emit(IkeRekeyFailed(context.sa.tunnel, failed.diagnosis))
    return causes.Ended(failed.diagnosis)


def _another_key(context: Context) -> bool:
    """Whether the peer may have our other key: it does not go on after our proof, which comes first."""
    sa = context.sa
    return sa.state is State.SENT_AUTH and context.registry.shared_keys.has_another(sa.policy, sa.psk)


def _is_refused_key(context: Context, diagnosis: Diagnosis) -> bool:
    """Whether the attempt ended for its key, as far as one can know, and another one is worth while."""
    sa, shared_keys = context.sa, context.registry.shared_keys
    if sa.state is State.SENT_AGGRESSIVE:
        return diagnosis.code is Code.PSK and shared_keys.may_answer_with_another(sa.policy)
    if sa.state is not State.SENT_AUTH or diagnosis.code is Code.IDENTITY:
        return False
    return shared_keys.refused(sa.policy, sa.psk)


def _try_other_key(context: Context, now: float) -> None:
    """Another attempt takes the place of this one at once, with what was wanted."""
    sa, registry = context.sa, context.registry
    path = sa.path_of_successor()
    other = context.beside(IsakmpSa.new(now, registry, sa.policy, path, renews=sa.attempt.renews))
    other.peer.wanted, context.peer.wanted = context.peer.wanted, {}
    context.story("begin again at once: the other key may be the one")
    other.command(now, causes.begin(other.sa.mode))


def doubt(context: Context, now: float, refused: causes.Refused) -> None:
    """Anyone could have sent what makes no sense: keep waiting a little for the real answer."""
    context.registry.count(f"refused: {refused.fault.diagnosis.code.value}")
    note(context, now, refused.fault.diagnosis)


# ------------------------------------------------------------------------------------- an attempt of the peer


def suspect(context: Context, now: float, refused: causes.Refused) -> causes.Rejected | None:
    """The peer's message is not acceptable. It may be forged or damaged, so wait for another.

    The same bytes once more are what the peer really sends: it hears of it once, and so does the operator.
    """
    sa, fault, attempt = context.sa, refused.fault, context.sa.attempt
    _count_failed_proof(context, now, refused)
    if sa.state is State.NEW or context.transport.proven:
        return causes.Rejected(fault, refused.received)
    attempt.hint = fault.diagnosis
    context.registry.count(f"refused: {fault.diagnosis.code.value}")
    if refused.received.data != attempt.doubtful:
        attempt.doubtful = refused.received.data
    elif not attempt.reported:
        context.transport.error_in_clear(fault.notify)
        _report(context, fault.diagnosis)
    return None


def reject(context: Context, now: float, rejected: causes.Rejected) -> None:
    """Tell the peer, protected once it has proved that it has the key, and keep the answer for repeats."""
    fault, transport = rejected.fault, context.transport
    context.phase1.refuse(rejected.received.data)
    answer = transport.error if transport.proven else transport.error_in_clear
    context.phase1.last.sent = answer(fault.notify)
    _report(context, fault.diagnosis)
    context.timers.arm(Timer.FORGET, now + context.registry.limits.refused_lifetime)


def refuse(context: Context, now: float, refused: causes.Refused) -> None:
    """A message under an ISAKMP SA that stays as it is: of a quick mode, or of phase 1, come late."""
    if isinstance(refused.received.message, Quick1 | Quick2):
        quick_mode.refuse(context, now, refused)
        return
    _count_failed_proof(context, now, refused)
    context.registry.count(f"refused: {refused.fault.diagnosis.code.value}")


def _count_failed_proof(context: Context, now: float, refused: causes.Refused) -> None:
    sa = context.sa
    if isinstance(refused.fault, AuthenticationFailed) and not sa.initiator and not sa.attempt.hint:
        context.registry.strangers.not_proved(now, sa.tunnel, sa.path.remote)


def report_hint(context: Context, now: float, timer: Timer) -> None:
    """No real answer has come after something that speaks against the peer's attempt: wait on."""
    hint = context.sa.attempt.hint
    if hint is not None and not context.sa.attempt.reported and not _has_begun_again(context):
        _report(context, hint)


def _has_begun_again(context: Context) -> bool:
    """Whether we answered with one of two keys, in aggressive mode, and the peer showed the other since."""
    sa, shared_keys = context.sa, context.registry.shared_keys
    if sa.state is not State.ANSWERED_AGGRESSIVE or sa.psk is None:
        return False
    return shared_keys.has_shown_another(sa.policy, sa.psk, sa.attempt.began)


def half_open_over(context: Context, now: float, timer: Timer) -> causes.Ended:
    context.registry.count("half-open attempt expired")
    answered_in_vain(context)
    report_hint(context, now, timer)
    silent = Diagnosis.of(Code.SILENT, peer=context.sa.path.remote)
    return causes.Ended(context.sa.attempt.hint or silent)


def _report(context: Context, diagnosis: Diagnosis) -> None:
    """The operator hears why the peer's attempt came to nothing."""
    context.sa.attempt.reported = True
    unproven = not context.transport.proven
    context.emit(Failed(context.sa.tunnel, diagnosis, initiator=False, unproven=unproven))


def hold(context: Context, now: float, contested: causes.Contested) -> None:
    context.sa.attempt.held = contested.proof
    context.timers.arm(Timer.HELD, now + ANSWER_WITHIN)


def decide(context: Context, now: float, timer: Timer) -> Cause | None:
    held, context.sa.attempt.held = context.sa.attempt.held, None
    return held


# ------------------------------------------------------------------------------------- commands


def want(context: Context, now: float, cause: commands.Want) -> None:
    """Bring the IPsec SAs of a mapping up, or give a pair its successor."""
    if cause.replaces is not None or not context.peer.children.up(cause.mapping):
        quick_mode.want(context, now, cause.mapping, cause.replaces)


def close(context: Context, now: float, cause: commands.Close) -> causes.Ended:
    if context.sa.state in SIGNED:
        children = context.peer.children.by_spi if context.is_current else {}
        for spi_in, child in children.items():
            if not child.deleted:
                context.transport.delete_child(spi_in)
        context.transport.delete_ike()
    elif context.sa.policy.probing and context.sa.peer_spi != NO_SPI:
        # The peer's half of it would wait for us. What is in clear proves nothing, but most heed it.
        context.transport.error_in_clear(Notify1.NO_PROPOSAL_CHOSEN)
    return causes.Ended(cause.diagnosis)


def close_child(context: Context, now: float, cause: commands.CloseChild) -> None:
    quick_mode.close_child(context, cause.spi_in, cause.diagnosis)


def renew(context: Context, now: float, cause: commands.RekeyNow | Timer) -> None:
    """Begin a new phase 1 (RFC 2409 has no other renewal), unless that has begun; and again if it fails.

    Where what was made by other terms is more than algorithms, the IPsec SAs get successors as well.
    """
    context.timers.arm(Timer.RENEW, now + REKEY_AGAIN)
    if isinstance(cause, Timer) and context.sa.outdated and not context.sa.can_be_rekeyed:
        context.registry.reinitiating.append(context.sa.tunnel)
    elif not context.is_renewing:
        sa, registry = context.sa, context.registry
        new = IsakmpSa.new(now, registry, sa.policy, sa.path_of_successor(), renews=True)
        context.beside(new).command(now, causes.begin(new.mode))


def rekey_child(context: Context, now: float, cause: commands.RekeyChildNow) -> None:
    """Begin quick modes for one pair until it has a successor; an unknown SPI is ignored."""
    children = context.peer.children
    if children.is_current(cause.spi_in):
        children.timers.arm((Limit.SOFT, cause.spi_in), now + REKEY_AGAIN)
        mapping = children.by_spi[cause.spi_in].sa.mapping
        quick_mode.want(context, now, mapping, cause.spi_in)


def follow_policy(context: Context, now: float, changed: commands.PolicyChanged) -> None:
    """Dead peer detection goes by the new policy, and one that does not is renewed at once."""
    context.liveness.follow_policy(now)
    if context.sa.outdated:
        context.timers.arm(Timer.RENEW, now)


def probe(context: Context, now: float, cause: commands.Probe) -> None:
    context.ask(now)


# ------------------------------------------------------------------------------------- timers


def check_life(context: Context, now: float, timer: Timer) -> causes.PeerDead | None:
    """Nothing was heard for a while: ask, unless the time for an answer is over."""
    if context.liveness.is_dead(now):
        return causes.PeerDead()
    context.ask(now)
    return None


def dead(context: Context, now: float, cause: causes.PeerDead) -> causes.Ended:
    sa = context.sa
    silence = f"nothing heard for {now - context.liveness.last_heard:.0f} s"
    found = Diagnosis.of(Code.PEER_DEAD, peer=sa.path.remote, detail=silence)
    diagnosis = sa.attempt.hint or found
    context.emit(PeerIsDead(sa.tunnel, diagnosis))
    return causes.Ended(diagnosis)


def keep_alive(context: Context, now: float, timer: Timer) -> None:
    """The NAT in front of this side keeps its mapping."""
    context.emit(Keepalive(context.sa.tunnel, context.sa.path))
    context.timers.arm(Timer.KEEPALIVE, now + natt.KEEPALIVE_INTERVAL)


def mend(context: Context, now: float, timer: Timer) -> None:
    """After a storm of new ISAKMP SAs: the DELETE for one may have taken IPsec SAs along at the peer.

    Nothing would say so: the peer lives, and drops what we send. Each mapping gets a successor.
    """
    children = context.peer.children
    for mapping, spi_in in list(children.current.items()):
        children.by_spi[spi_in].doubted = True
        quick_mode.want(context, now, mapping, spi_in)


def expire(context: Context, now: float, timer: Timer) -> commands.Close:
    return commands.Close(Diagnosis.of(Code.LIFETIME, detail="ISAKMP SA"))


def forget(context: Context, now: float, timer: Timer) -> causes.Ended:
    """It was only kept a little longer."""
    return causes.Ended(Diagnosis.of(Code.PEER_DELETED, peer=context.sa.path.remote))


def close_replaced(context: Context, now: float, timer: Timer) -> commands.Close | None:
    """A predecessor that is one too many; its quick modes end first, and the peer has the one that is kept.

    Else the peer's last message would be lost, and one side would send on what the other lacks. Pairs that it
    made lately get successors first: a peer that had the other one already may end them together with it
    (strongSwan moves those that it finds when it establishes an ISAKMP SA, and no later ones).
    """
    closing, asked = context.registry.limits.closing, context.timers.deadline(Timer.REVIEW) is not None
    if asked or context.quick_modes.busy(now, closing) or quick_mode.succeed(context, now):
        context.timers.arm(Timer.FORGET, now + closing)
        return None
    reauthentication.note_closed(context, now)
    return commands.Close(Diagnosis.of(Code.LIFETIME, detail="both sides had begun an ISAKMP SA"))


# ------------------------------------------------------------------------------------- timers of a pair

Key = tuple[Limit, int]


def send_on(context: Context, now: float, key: Key) -> None:
    """The peer has had time to install the pair."""
    context.peer.children.time_given(key[1])


def rekey_due(context: Context, now: float, key: Key) -> commands.RekeyChildNow | None:
    """A successor is due, and again for as long as it comes to nothing; what has one is not current."""
    children = context.peer.children
    children.timers.arm(key, now + REKEY_AGAIN)
    return commands.RekeyChildNow(key[1]) if children.is_current(key[1]) else None


def child_lifetime(context: Context, now: float, key: Key) -> commands.CloseChild:
    return commands.CloseChild(key[1], Diagnosis.of(Code.LIFETIME, detail="IPsec SA"))


def remove_child(context: Context, now: float, key: Key) -> None:
    gone = Diagnosis.of(Code.PEER_DELETED, peer=context.sa.path.remote, detail="IPsec SA")
    context.peer.children.remove(key[1], gone)


def delete_surplus(context: Context, now: float, key: Key) -> None:
    """One of two pairs is deleted, since both sides send on the other."""
    children, spi_in = context.peer.children, key[1]
    if spi_in in children.by_spi:
        context.transport.delete_child(spi_in)
        diagnosis = Diagnosis.of(Code.LIFETIME, detail="both sides had begun a quick mode")
        children.deleted(now, spi_in, diagnosis)
    context.peer.deleted(now, spi_in, context.registry.entropy)


def delete_again(context: Context, now: float, key: Key) -> None:
    """The peer may send on a pair that was deleted, and nothing acknowledges that: once more."""
    if context.peer.repeats_delete(now, key[1]):
        context.transport.delete_child(key[1])
