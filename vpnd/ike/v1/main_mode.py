"""Main mode: six messages, identities encrypted (RFC 2409 section 5.4).

    initiator                                responder
    Main1  HDR, SA, VID             -->
                                    <--      HDR, SA, VID             Main2
    Main3  HDR, KE, Ni, NAT-D       -->
                                    <--      HDR, KE, Nr, NAT-D       Main4
    Main5  HDR*, IDii, HASH_I       -->
                                    <--      HDR*, IDir, HASH_R       Main6

With a pre-shared key the responder has to pick the key before the identity arrives, by the addresses: where
several tunnels have the same, it is the one with which message 5 verifies.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from vpnd.crypto.dh import KeyPair
from vpnd.ike.contest import Verdict
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.v1 import phase1
from vpnd.ike.v1.faults import IdentityTaken
from vpnd.ike.v1.messages import Main1, Main2, Main3, Main4, Main5, Main6
from vpnd.ike.v1.proposals import choose_phase1, limited_phase1, offer_phase1
from vpnd.ike.v1.protect import IvChain
from vpnd.model.proposals import NO_GROUP
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import Exchange1, Notify1
from vpnd.wire.ikev1 import Hash, KeyExchange, Nonce, Notify, Payload

if TYPE_CHECKING:
    from vpnd.ike.v1.received import Received
    from vpnd.ike.v1.session import Session

EXCHANGE = Exchange1.IDENTITY_PROTECTION


def begin(session: Session, now: float) -> None:
    """Send Main1."""
    policy = session.policy
    offer = offer_phase1(policy.proposals, policy.lifetime, policy.numbers)
    session.negotiation.sa_i = offer.encode()
    session.send_phase1(now, EXCHANGE, [offer, *phase1.vendor_id_payloads()])


def on_main1(session: Session, now: float, received: Received) -> None:
    """Choose a transform; answer with it. No key has been computed yet.

    Of several tunnels between the two addresses, the first that the offer fits, until the identity arrives.
    """
    message: Main1 = received.expect(Main1)
    session.registry.admit(now, received.path.remote)
    negotiation = session.negotiation
    distinct = session.registry.distinct(session.version, received.path)
    mine = (policy for policy in distinct if policy.mode is session.mode)
    policy, choice = phase1.choose_policy(mine, message.sa)
    session.policy_is(policy)
    negotiation.peer = phase1.PeerFeatures.read(message.vendor_ids)
    negotiation.sa_i = received.body_of(message.sa)
    session.suite_is(choice.suite, choice.lifetime)
    session.send_phase1(now, EXCHANGE, [choice.answer, *phase1.vendor_id_payloads(negotiation.peer)])


def on_main2(session: Session, now: float, received: Received) -> None:
    """The peer chose; send our public value and nonce."""
    message: Main2 = received.expect(Main2)
    policy, negotiation, entropy = session.policy, session.negotiation, session.registry.entropy
    choice = choose_phase1(message.sa, policy.proposals, policy.lifetime, policy.numbers, answer=True)
    session.suite_is(choice.suite, choice.lifetime)
    negotiation.peer = phase1.PeerFeatures.read(message.vendor_ids)
    negotiation.key_pair = KeyPair.generate(choice.suite.dh or 0, entropy)
    negotiation.ke_i = negotiation.key_pair.public
    negotiation.nonce_i = entropy.bytes(phase1.NONCE_LENGTH)
    payloads: list[Payload] = [KeyExchange(negotiation.ke_i), Nonce(negotiation.nonce_i)]
    session.send_phase1(now, EXCHANGE, [*payloads, *phase1.nat_d_payloads(session, entropy)])


def on_main3(session: Session, now: float, received: Received) -> None:
    """Agree on keys; answer with our public value and nonce."""
    message: Main3 = received.expect(Main3)
    negotiation, entropy = session.negotiation, session.registry.entropy
    group = session.suite.dh or NO_GROUP
    phase1.check_value(group, message.ke)
    # It names the cookie that we sent to that address.
    session.registry.address_proved(session, session.path.remote)
    negotiation.key_pair = KeyPair.generate(group, entropy)
    negotiation.ke_i, negotiation.nonce_i = message.ke.data, message.nonce.data
    negotiation.ke_r = negotiation.key_pair.public
    negotiation.nonce_r = entropy.bytes(phase1.NONCE_LENGTH)
    keys = phase1.agree(session, message.ke)
    session.nat = phase1.detect_nat(session, received.path, message.nat_d)
    payloads: list[Payload] = [KeyExchange(negotiation.ke_r), Nonce(negotiation.nonce_r)]
    session.send_phase1(now, EXCHANGE, [*payloads, *phase1.nat_d_payloads(session, entropy)])
    session.keys_are(keys, IvChain(keys, keys.iv))


def on_main4(session: Session, now: float, received: Received) -> None:
    """Agree on keys; prove who we are, on port 4500 if there is a NAT."""
    message: Main4 = received.expect(Main4)
    negotiation = session.negotiation
    negotiation.ke_r, negotiation.nonce_r = message.ke.data, message.nonce.data
    keys = phase1.agree(session, message.ke)
    session.nat = phase1.detect_nat(session, received.path, message.nat_d)
    chain = IvChain(keys, keys.iv)
    session.keys_are(keys, chain)
    session.float_if_nat()
    identity = phase1.id_payload(session.policy.local_id)
    negotiation.id_i = identity.encode()
    exchanged = negotiation.exchanged(session.cky_i, session.cky_r)
    proof = Hash(keys.hash_i(exchanged, negotiation.sa_i, negotiation.id_i))
    contact = [Notify(Notify1.INITIAL_CONTACT, spi=session.cky_i + session.cky_r)]
    payloads: list[Payload] = [identity, proof, *(contact if phase1.first_contact(session) else [])]
    session.send_phase1(now, EXCHANGE, payloads, chain)


def on_main5(session: Session, now: float, received: Received) -> None:
    """The initiator's proof: find the tunnel by its identity, verify, prove ourselves."""
    message: Main5 = received.expect(Main5)
    keys, negotiation = session.keys, session.negotiation
    negotiation.id_i = received.body_of(message.id)
    phase1.verify_hash(session, keys, message.hash, of_initiator=True)
    initial_contact = phase1.says_initial_contact(session, message.notifies)
    session.proof_iv = session.chain.iv
    received.confirm()
    session.proven()
    session.policy_is(phase1.check_identity(phase1.rivals(session), message.id))
    phase1.require_suite(session.policy, session.suite)
    conclude(session, now, received, initial_contact)


def conclude(session: Session, now: float, received: Received, initial_contact: bool) -> None:
    """The initiator is who it says. Prove ourselves, unless the tunnel is another machine's.

    Raises IdentityTaken. While that is not known the message is held, and this is called again.
    """
    match session.contest.decide(now, session.policy, received.path):
        case Verdict.WAIT:
            session.hold(now, received, lambda later: conclude(session, later, received, initial_contact))
        case Verdict.REFUSED:
            raise IdentityTaken(diagnosis=session.contest.refusal(received.path))
        case Verdict.WELCOME:
            session.proved_from(received.path, session.nat)
            _send_main6(session, now)
            session.established(now, initial_contact)


def pick_key(session: Session, read: Callable[[IvChain], Received]) -> None:
    """Before Main5: take the key that it verifies with, where the tunnels between the addresses have several.

    `read` decrypts it, and raises Drop or DecodeError. If no key fits, that of the first stays.
    """
    if len(phase1.with_own_key(session)) == 1:
        return
    for policy, keys in phase1.candidate_keys(session):
        with suppress(Drop, DecodeError, Fault):
            received = read(IvChain(keys, keys.iv))
            message: Main5 = received.expect(Main5)
            session.negotiation.id_i = received.body_of(message.id)
            phase1.verify_hash(session, keys, message.hash, of_initiator=True)
            session.policy_is(policy)
            session.keys_are(keys, IvChain(keys, keys.iv))
            return


def on_main5_again(session: Session, now: float, received: Received) -> None:
    """The initiator's proof in other bytes than we have answered: one of the two was damaged behind the hash.

    The IV chain continues from what the initiator has really sent. Raises Drop unless it is the same proof.
    """
    message: Main5 = received.expect(Main5)
    if not hmac.compare_digest(session.negotiation.id_i, received.body_of(message.id)):
        raise Drop("another identity")
    phase1.verify_hash(session, session.keys, message.hash, of_initiator=True)
    phase1.says_initial_contact(session, message.notifies)
    received.confirm()
    session.begin_again_from(received.chain, session.nat)
    _send_main6(session, now)
    session.quicks.restart(now)


def _send_main6(session: Session, now: float) -> None:
    negotiation = session.negotiation
    identity = phase1.id_payload(session.policy.local_id)
    negotiation.id_r = identity.encode()
    exchanged = negotiation.exchanged(session.cky_i, session.cky_r)
    proof = Hash(session.keys.hash_r(exchanged, negotiation.sa_i, negotiation.id_r))
    session.send_phase1(now, EXCHANGE, [identity, proof], session.chain)


def on_main6(session: Session, now: float, received: Received) -> None:
    """The responder's proof."""
    message: Main6 = received.expect(Main6)
    session.negotiation.id_r = received.body_of(message.id)
    phase1.verify_hash(session, session.keys, message.hash, of_initiator=False)
    phase1.check_identity([session.policy], message.id)
    initial_contact = phase1.says_initial_contact(session, message.notifies)
    received.confirm()
    session.proven()
    session.accepted = True
    session.negotiation.lifetime = limited_phase1(session.negotiation.lifetime, message.notifies)
    session.established(now, initial_contact)


def on_undecryptable(session: Session) -> None:
    """Main5 that our key does not open: the peer's key is another, of which there is no other sign."""
    raise phase1.wrong_key(session, exchange="main mode message 5", detail="it cannot be decrypted")
