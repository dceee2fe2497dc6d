"""Main mode: six messages, identities encrypted (RFC 2409 section 5.4).

    initiator                                responder
    Main1  HDR, SA, VID             -->
                                    <--      HDR, SA, VID             Main2
    Main3  HDR, KE, Ni, NAT-D       -->
                                    <--      HDR, KE, Nr, NAT-D       Main4
    Main5  HDR*, IDii, HASH_I       -->
                                    <--      HDR*, IDir, HASH_R       Main6

With a pre-shared key the responder has to pick the key before the identity arrives, by the addresses: where
several tunnels have the same, or one has two keys, it is the one with which message 5 verifies.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from contextlib import suppress

from vpnd.ike import natt
from vpnd.ike.contest import Verdict
from vpnd.ike.faults import Drop
from vpnd.ike.key_exchange import check_value
from vpnd.ike.v1.causes import Authenticated, BeginMain, Contested, Proved
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.exchanges import phase1, quick_mode
from vpnd.ike.v1.faults import IdentityTaken, InvalidKeyInformation
from vpnd.ike.v1.isakmp_sa import PeerFeatures
from vpnd.ike.v1.messages import Main1, Main2, Main3, Main4, Main5, Main6, Received
from vpnd.ike.v1.proposals import choose_phase1, limited_phase1, offer_phase1, require_suite
from vpnd.ike.v1.protect import IvChain
from vpnd.model.proposals import NO_GROUP
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import IkeVersion


def begin(context: Context, now: float, cause: BeginMain) -> None:
    context.registry.policies.renewals.begins_here(now, context.sa.tunnel)
    policy = context.sa.policy
    offer = offer_phase1(policy.proposals, policy.lifetime, policy.numbers)
    context.sa.negotiation.sa_i = offer.encode()
    context.phase1.send(now, [offer, *phase1.vendor_id_payloads()])


@phase1.step
def on_main1(context: Context, now: float, received: Received) -> None:
    """Choose a transform for the first tunnel that the offer fits, and answer. No key is computed yet."""
    message, sa = received.of(Main1), context.sa
    context.registry.strangers.admit(now, received.path.remote)
    distinct = context.registry.policies.distinct(IkeVersion.V1, received.path)
    mine = (policy for policy in distinct if policy.mode is sa.mode)
    sa.policy, choice = phase1.choose_policy(mine, message.sa)
    sa.negotiation.peer = PeerFeatures.read(message.vendor_ids)
    sa.negotiation.sa_i = received.body_of(message.sa)
    sa.set_suite(choice.suite, choice.lifetime)
    context.phase1.send(now, [choice.answer, *phase1.vendor_id_payloads(sa.negotiation.peer)])


@phase1.step
@phase1.first_answer
def on_main2(context: Context, now: float, received: Received) -> None:
    """The peer chose; send our public value and nonce."""
    message, sa, policy = received.of(Main2), context.sa, context.sa.policy
    choice = choose_phase1(message.sa, policy.proposals, policy.lifetime, policy.numbers, answer=True)
    sa.set_suite(choice.suite, choice.lifetime)
    sa.negotiation.peer = PeerFeatures.read(message.vendor_ids)
    half = phase1.our_half(context, choice.suite.dh or NO_GROUP)
    context.phase1.send(now, [*half, *phase1.nat_d_payloads(context)])


@phase1.step
def on_main3(context: Context, now: float, received: Received) -> None:
    """Agree on keys; answer with our public value and nonce."""
    message, sa = received.of(Main3), context.sa
    group = sa.suite.dh or NO_GROUP
    check_value(group, message.ke.data, InvalidKeyInformation)
    # It names the cookie that we sent to that address.
    context.prove_address()
    sa.path = natt.way_back(sa.nat, sa.path, received.path)
    half = phase1.our_half(context, group)
    sa.negotiation.ke_i, sa.negotiation.nonce_i = message.ke.data, message.nonce.data
    sa.negotiation.peer = sa.negotiation.peer.further(message.vendor_ids)
    keys = phase1.agree(context, message.ke)
    sa.nat = phase1.detect_nat(context, received.path, message.nat_d)
    context.phase1.send(now, [*half, *phase1.nat_d_payloads(context)])
    sa.set_keys(keys)


@phase1.step
def on_main4(context: Context, now: float, received: Received) -> None:
    """Agree on keys; prove who we are, on port 4500 if there is a NAT (RFC 3947 section 4)."""
    message, sa = received.of(Main4), context.sa
    sa.negotiation.ke_r, sa.negotiation.nonce_r = message.ke.data, message.nonce.data
    sa.negotiation.peer = sa.negotiation.peer.further(message.vendor_ids)
    keys = phase1.agree(context, message.ke)
    sa.nat = phase1.detect_nat(context, received.path, message.nat_d)
    chain = sa.set_keys(keys)
    if sa.nat.found:
        sa.path = natt.floated(sa.path)
    identity = phase1.id_payload(context)
    sa.negotiation.id_i = identity.encode()
    payloads = [identity, phase1.our_proof(context, keys), *phase1.first_contact(context)]
    context.phase1.send(now, payloads, chain)


@phase1.step
def on_main5(context: Context, now: float, received: Received) -> Proved:
    """The initiator's proof: find the tunnel by its identity, and verify."""
    message, sa = received.of(Main5), context.sa
    sa.negotiation.id_i = received.body_of(message.id)
    phase1.verify_hash(context, sa.keys, message.hash)
    initial_contact = phase1.says_initial_contact(context, message.notifies)
    sa.attempt.proof_iv = sa.chain.iv
    received.confirm()
    context.proven()
    sa.policy = phase1.named(phase1.rivals(context), message.id)[0]
    require_suite(sa.policy.proposals, sa.suite)
    return Proved(received, initial_contact)


def conclude(context: Context, now: float, proof: Proved) -> Authenticated | Contested:
    """The initiator is who it says: prove ourselves, or hold its message. Raises IdentityTaken."""
    path = proof.received.path
    match context.contest.decide(now, context.sa.policy, path):
        case Verdict.WAIT:
            return Contested(proof)
        case Verdict.REFUSED:
            raise IdentityTaken(diagnosis=context.contest.refusal(path))
        case _:
            phase1.proved_from(context, path, context.sa.nat)
            _send_main6(context, now)
            return Authenticated(proof.initial_contact)


def pick_key(context: Context, read: Callable[[IvChain], Received]) -> None:
    """Before Main5: take the key that it verifies with, where the tunnels between the addresses have several.

    `read` decrypts it, and raises Drop or DecodeError. If no key fits, that of the first stays.
    """
    sa = context.sa
    if len(phase1.own_keys(context)) == 1:
        return
    for policy, psk, keys in phase1.candidate_keys(context):
        with suppress(Drop, DecodeError):
            received = read(IvChain(keys, keys.iv))
            message = received.of(Main5)
            sa.negotiation.id_i = received.body_of(message.id)
            if phase1.proves(context, keys, message.hash):
                sa.policy, sa.psk = policy, psk
                sa.set_keys(keys)
                return


def on_main5_again(context: Context, now: float, received: Received) -> None:
    """The initiator's proof in other bytes than we have answered: one of the two was damaged behind the hash.

    The IV chain continues from what the initiator has really sent. Raises Drop unless it is the same proof.
    """
    message, sa = received.of(Main5), context.sa
    if not hmac.compare_digest(sa.negotiation.id_i, received.body_of(message.id)):
        raise Drop("another identity")
    phase1.verify_hash(context, sa.keys, message.hash)
    phase1.says_initial_contact(context, message.notifies)
    received.confirm()
    sa.set_keys(sa.keys, received.chain)
    _send_main6(context, now)
    quick_mode.restart(context, now)
    context.phase1.believe(received.data)


def _send_main6(context: Context, now: float) -> None:
    identity, sa = phase1.id_payload(context), context.sa
    sa.negotiation.id_r = identity.encode()
    context.phase1.send(now, [identity, phase1.our_proof(context, sa.keys)], sa.chain)


@phase1.step
def on_main6(context: Context, now: float, received: Received) -> Authenticated:
    message, sa = received.of(Main6), context.sa
    sa.negotiation.id_r = received.body_of(message.id)
    phase1.verify_hash(context, sa.keys, message.hash)
    phase1.named([sa.policy], message.id)
    initial_contact = phase1.says_initial_contact(context, message.notifies)
    received.confirm()
    context.proven()
    sa.attempt.accepted = True
    sa.negotiation.lifetime = limited_phase1(sa.negotiation.lifetime, message.notifies)
    return Authenticated(initial_contact)


def on_unopened(context: Context, now: float, received: Received) -> None:
    """Main5 that our key does not open: the peer's key is another, of which there is no other sign."""
    raise phase1.wrong_key(context, exchange="main mode message 5", detail="it cannot be decrypted")
