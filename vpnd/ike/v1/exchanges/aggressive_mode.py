"""Aggressive mode: three messages, identities in clear (RFC 2409 section 5.4).

    initiator                                     responder
    Aggressive1  HDR, SA, KE, Ni, IDii   -->
                                         <--      HDR, SA, KE, Nr, IDir, HASH_R, NAT-D   Aggressive2
    Aggressive3  HDR*, HASH_I, NAT-D     -->

The group cannot be negotiated, and who sees Aggressive2 can try keys against HASH_R offline; a responder
answers only an identity that it expects.
"""

from __future__ import annotations

from vpnd.ike import natt
from vpnd.ike.key_exchange import check_value
from vpnd.ike.v1.causes import Authenticated, BeginAggressive
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.exchanges import phase1, quick_mode
from vpnd.ike.v1.faults import InvalidKeyInformation, NoProposalChosen
from vpnd.ike.v1.isakmp_sa import PeerFeatures
from vpnd.ike.v1.messages import Aggressive1, Aggressive2, Aggressive3, Received
from vpnd.ike.v1.proposals import choose_phase1, first_group, offer_phase1
from vpnd.model.diagnosis import Code
from vpnd.model.proposals import NO_GROUP


def begin(context: Context, now: float, cause: BeginAggressive) -> None:
    """Send Aggressive1, with the first configured group."""
    context.registry.policies.renewals.begins_here(now, context.sa.tunnel)
    policy, negotiation = context.sa.policy, context.sa.negotiation
    group = first_group(policy.proposals)
    offer = offer_phase1(policy.proposals, policy.lifetime, policy.numbers, group)
    identity = phase1.id_payload(context)
    negotiation.sa_i, negotiation.id_i = offer.encode(), identity.encode()
    half = phase1.our_half(context, group)
    context.phase1.send(now, [offer, *half, identity, *phase1.vendor_id_payloads()])


@phase1.step
def on_aggressive1(context: Context, now: float, received: Received) -> None:
    """Everything but the initiator's proof: choose, agree on keys, prove who we are."""
    message, sa = received.of(Aggressive1), context.sa
    context.registry.strangers.admit(now, received.path.remote)
    named = phase1.named(phase1.candidates(context), message.id)
    policy, choice = phase1.choose_policy(named, message.sa)
    group = choice.suite.dh or NO_GROUP
    check_value(group, message.ke.data, InvalidKeyInformation)
    context.registry.strangers.spend_key_exchange(now, received.path.remote)
    sa.policy, negotiation = policy, sa.negotiation
    sa.set_suite(choice.suite, choice.lifetime)
    negotiation.peer = PeerFeatures.read(message.vendor_ids)
    negotiation.sa_i, negotiation.id_i = received.body_of(message.sa), received.body_of(message.id)
    negotiation.ke_i, negotiation.nonce_i = message.ke.data, message.nonce.data
    half = phase1.our_half(context, group)
    keys = phase1.agree(context, message.ke)
    identity = phase1.id_payload(context)
    negotiation.id_r = identity.encode()
    proof = phase1.our_proof(context, keys)
    payloads = [choice.answer, *half, identity, proof, *phase1.nat_d_payloads(context)]
    context.phase1.send(now, [*payloads, *phase1.vendor_id_payloads(negotiation.peer)])
    sa.set_keys(keys)


@phase1.step
@phase1.first_answer
def on_aggressive2(context: Context, now: float, received: Received) -> Authenticated:
    """The responder's proof; send ours, on port 4500 if there is a NAT (RFC 3947 section 4)."""
    message, sa = received.of(Aggressive2), context.sa
    policy, negotiation = sa.policy, sa.negotiation
    choice = choose_phase1(message.sa, policy.proposals, policy.lifetime, policy.numbers, answer=True)
    if choice.suite.dh != negotiation.key_pair.group:
        ours = first_group(policy.proposals)
        raise NoProposalChosen(code=Code.P1_DH, theirs=choice.suite.dh, ours=ours)
    sa.set_suite(choice.suite, choice.lifetime)
    negotiation.peer = PeerFeatures.read(message.vendor_ids)
    negotiation.ke_r, negotiation.nonce_r = message.ke.data, message.nonce.data
    negotiation.id_r = received.body_of(message.id)
    keys = phase1.agree_by_hash(context, message.ke, message.hash)
    phase1.named([policy], message.id)
    sa.nat = phase1.detect_nat(context, received.path, message.nat_d)
    chain = sa.set_keys(keys)
    context.proven()
    if sa.nat.found:
        sa.path = natt.floated(sa.path)
    # The hashes are of the ports that this very message travels between.
    nat_d = phase1.nat_d_payloads(context)
    payloads = [phase1.our_proof(context, keys), *nat_d, *phase1.first_contact(context)]
    context.phase1.send(now, payloads, chain)
    context.phase1.keep_unconfirmed()
    return Authenticated(initial_contact=False)


@phase1.step
def on_aggressive3(context: Context, now: float, received: Received) -> Authenticated:
    """The initiator's proof, which some peers send in clear (RFC 2409 section 5.4)."""
    message, sa = received.of(Aggressive3), context.sa
    phase1.verify_hash(context, sa.keys, message.hash)
    initial_contact = phase1.says_initial_contact(context, message.notifies)
    sa.attempt.proof_iv = sa.chain.iv
    received.confirm()
    context.registry.strangers.key_exchange_was_worth_it(now, sa.path.remote)
    context.proven()
    sa.attempt.accepted = True
    sa.nat = phase1.detect_nat(context, received.path, message.nat_d)
    phase1.proved_from(context, received.path, sa.nat)
    return Authenticated(initial_contact)


def on_aggressive3_again(context: Context, now: float, received: Received) -> None:
    """The initiator's proof in other bytes than before: see `main_mode.on_main5_again`. Raises Drop."""
    message, sa = received.of(Aggressive3), context.sa
    phase1.verify_hash(context, sa.keys, message.hash)
    phase1.says_initial_contact(context, message.notifies)
    received.confirm()
    # What shows a NAT here is behind the hash: the sender of a copy could have changed it.
    phase1.proved_from(context, received.path, sa.nat)
    sa.set_keys(sa.keys, received.chain)
    sa.nat = phase1.detect_nat(context, received.path, message.nat_d)
    quick_mode.restart(context, now)
    context.phase1.believe(received.data)


def on_unopened(context: Context, now: float, received: Received) -> None:
    """Aggressive3 that our key does not open: the peer's key is another."""
    raise phase1.wrong_key(context, exchange="aggressive mode message 3", detail="it cannot be decrypted")
