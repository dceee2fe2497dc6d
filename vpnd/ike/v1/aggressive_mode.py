"""Aggressive mode: three messages, identities in clear (RFC 2409 section 5.4).

    initiator                                     responder
    Aggressive1  HDR, SA, KE, Ni, IDii   -->
                                         <--      HDR, SA, KE, Nr, IDir, HASH_R, NAT-D   Aggressive2
    Aggressive3  HDR*, HASH_I, NAT-D     -->

The group cannot be negotiated, and who sees Aggressive2 can try keys against HASH_R offline; a responder
answers only an identity that it expects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vpnd.crypto.dh import KeyPair
from vpnd.ike.v1 import phase1
from vpnd.ike.v1.faults import NoProposalChosen
from vpnd.ike.v1.messages import Aggressive1, Aggressive2, Aggressive3
from vpnd.ike.v1.proposals import choose_phase1, first_group, offer_phase1
from vpnd.ike.v1.protect import IvChain
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.proposals import NO_GROUP
from vpnd.wire.iana import Exchange1, Notify1
from vpnd.wire.ikev1 import Hash, KeyExchange, Nonce, Notify, Payload

if TYPE_CHECKING:
    from vpnd.ike.v1.received import Received
    from vpnd.ike.v1.session import Session

EXCHANGE = Exchange1.AGGRESSIVE


def begin(session: Session, now: float) -> None:
    """Send Aggressive1, with the first configured group."""
    policy, negotiation, entropy = session.policy, session.negotiation, session.registry.entropy
    group = first_group(policy.proposals)
    offer = offer_phase1(policy.proposals, policy.lifetime, policy.numbers, group)
    identity = phase1.id_payload(policy.local_id)
    negotiation.key_pair = KeyPair.generate(group, entropy)
    negotiation.sa_i, negotiation.id_i = offer.encode(), identity.encode()
    negotiation.ke_i = negotiation.key_pair.public
    negotiation.nonce_i = entropy.bytes(phase1.NONCE_LENGTH)
    payloads: list[Payload] = [offer, KeyExchange(negotiation.ke_i), Nonce(negotiation.nonce_i), identity]
    session.send_phase1(now, EXCHANGE, [*payloads, *phase1.vendor_id_payloads()])


def on_aggressive1(session: Session, now: float, received: Received) -> None:
    """Everything but the initiator's proof: choose, agree on keys, prove who we are."""
    message: Aggressive1 = received.expect(Aggressive1)
    session.registry.admit(now, received.path.remote)
    negotiation, entropy = session.negotiation, session.registry.entropy
    named = phase1.named(phase1.candidates(session), message.id)
    policy, choice = phase1.choose_policy(named, message.sa)
    group = choice.suite.dh or NO_GROUP
    phase1.check_value(group, message.ke)
    session.registry.spend_key_exchange(now, received.path.remote)
    session.policy_is(policy)
    session.suite_is(choice.suite, choice.lifetime)
    negotiation.peer = phase1.PeerFeatures.read(message.vendor_ids)
    negotiation.sa_i, negotiation.id_i = received.body_of(message.sa), received.body_of(message.id)
    negotiation.ke_i, negotiation.nonce_i = message.ke.data, message.nonce.data
    negotiation.key_pair = KeyPair.generate(group, entropy)
    negotiation.ke_r = negotiation.key_pair.public
    negotiation.nonce_r = entropy.bytes(phase1.NONCE_LENGTH)
    keys = phase1.agree(session, message.ke)
    identity = phase1.id_payload(session.policy.local_id)
    negotiation.id_r = identity.encode()
    proof = Hash(
        keys.hash_r(negotiation.exchanged(session.cky_i, session.cky_r), negotiation.sa_i, negotiation.id_r)
    )
    payloads: list[Payload] = [choice.answer, KeyExchange(negotiation.ke_r), Nonce(negotiation.nonce_r)]
    payloads += [identity, proof, *phase1.nat_d_payloads(session, entropy)]
    session.send_phase1(now, EXCHANGE, [*payloads, *phase1.vendor_id_payloads(negotiation.peer)])
    session.keys_are(keys, IvChain(keys, keys.iv))


def on_aggressive2(session: Session, now: float, received: Received) -> None:
    """The responder's proof; send ours, on port 4500 if there is a NAT."""
    message: Aggressive2 = received.expect(Aggressive2)
    policy, negotiation, entropy = session.policy, session.negotiation, session.registry.entropy
    choice = choose_phase1(message.sa, policy.proposals, policy.lifetime, policy.numbers, answer=True)
    if negotiation.key_pair is None or choice.suite.dh != negotiation.key_pair.group:
        raise NoProposalChosen(
            diagnosis=Diagnosis.of(Code.P1_DH, theirs=choice.suite.dh, ours=first_group(policy.proposals))
        )
    session.suite_is(choice.suite, choice.lifetime)
    negotiation.peer = phase1.PeerFeatures.read(message.vendor_ids)
    negotiation.ke_r, negotiation.nonce_r = message.ke.data, message.nonce.data
    negotiation.id_r = received.body_of(message.id)
    keys = phase1.agree(session, message.ke)
    phase1.verify_hash(session, keys, message.hash, of_initiator=False)
    phase1.check_identity([policy], message.id)
    session.nat = phase1.detect_nat(session, received.path, message.nat_d)
    chain = IvChain(keys, keys.iv)
    session.keys_are(keys, chain)
    session.proven()
    session.float_if_nat()
    # The hashes are of the ports that this very message travels between.
    nat_d = phase1.nat_d_payloads(session, entropy)
    exchanged = negotiation.exchanged(session.cky_i, session.cky_r)
    proof = Hash(keys.hash_i(exchanged, negotiation.sa_i, negotiation.id_i))
    contact = [Notify(Notify1.INITIAL_CONTACT, spi=session.cky_i + session.cky_r)]
    payloads: list[Payload] = [proof, *nat_d, *(contact if phase1.first_contact(session) else [])]
    session.send_phase1(now, EXCHANGE, payloads, chain)
    session.established(now, initial_contact=False)


def on_aggressive3(session: Session, now: float, received: Received) -> None:
    """The initiator's proof, which some peers send in clear (RFC 2409 section 5.4)."""
    message: Aggressive3 = received.expect(Aggressive3)
    phase1.verify_hash(session, session.keys, message.hash, of_initiator=True)
    initial_contact = phase1.says_initial_contact(session, message.notifies)
    session.proof_iv = session.chain.iv
    received.confirm()
    session.registry.key_exchange_was_worth_it(now, session.path.remote)
    session.proven()
    session.accepted = True
    session.nat = phase1.detect_nat(session, received.path, message.nat_d)
    session.proved_from(received.path, session.nat)
    session.established(now, initial_contact)


def on_aggressive3_again(session: Session, now: float, received: Received) -> None:
    """The initiator's proof in other bytes than before: one of the two was damaged behind the hash.

    The IV chain continues from what the initiator has really sent. Raises Drop unless it is the same proof.
    """
    message: Aggressive3 = received.expect(Aggressive3)
    phase1.verify_hash(session, session.keys, message.hash, of_initiator=True)
    phase1.says_initial_contact(session, message.notifies)
    received.confirm()
    # What shows a NAT here is behind the hash: the sender of a copy could have changed it.
    session.proved_from(received.path, session.nat)
    session.begin_again_from(received.chain, phase1.detect_nat(session, received.path, message.nat_d))
    session.quicks.restart(now)


def on_undecryptable(session: Session) -> None:
    """Aggressive3 that our key does not open: the peer's key is another."""
    raise phase1.wrong_key(session, exchange="aggressive mode message 3", detail="it cannot be decrypted")
