"""What main and aggressive mode share: what the messages carry, and the proof at the end."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import wraps
from typing import TypeVar, Unpack

from vpnd.crypto.dh import KeyPair
from vpnd.ike import natt, vendors
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.key_exchange import NONCE_LENGTH, shared_secret
from vpnd.ike.natt import NO_NAT, Nat
from vpnd.ike.outputs import PathMoved
from vpnd.ike.registry import NO_SPI
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.faults import (
    AuthenticationFailed,
    InvalidIdInformation,
    InvalidKeyInformation,
    NoProposalChosen,
    WeakKey,
)
from vpnd.ike.v1.isakmp_sa import DPD, FRAGMENTATION, OUR_VENDOR_IDS, IsakmpSa, PeerFeatures
from vpnd.ike.v1.keys import KEYS_TRIED, Phase1Keys
from vpnd.ike.v1.messages import Received
from vpnd.ike.v1.proposals import Phase1Choice, choose_phase1
from vpnd.ike.v1.state import State, Timer
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Known
from vpnd.model.identity import Identity, describe_some
from vpnd.model.policy import Encapsulation, NegotiationMode, PeerPolicy
from vpnd.model.secret import Secret
from vpnd.wire.iana import IkeVersion, Notify1
from vpnd.wire.ikev1 import Hash, Id, KeyExchange, NatD, Nonce, Notify, Payload, Sa, VendorId

T = TypeVar("T")

COOKIES_LENGTH = 16
"""Bytes of both cookies."""

# ------------------------------------------------------------------------------------- the attempt


def step(action: Callable[[Context, float, Received], T]) -> Callable[[Context, float, Received], T]:
    """A message of the peer that is what the state waits for: nothing speaks against the attempt any more."""

    @wraps(action)
    def act(context: Context, now: float, received: Received) -> T:
        outcome, sa = action(context, now, received), context.sa
        context.phase1.believe(received.data)
        sa.attempt.hint = None
        context.timers.disarm(Timer.ERROR)
        if not sa.initiator:
            context.timers.arm(Timer.HALF_OPEN, now + context.registry.limits.half_open_lifetime)
        return outcome

    return act


def first_answer(action: Callable[[Context, float, Received], T]) -> Callable[[Context, float, Received], T]:
    """The responder's cookie comes with its first message. Should it be of no use, another may be it."""

    @wraps(action)
    def act(context: Context, now: float, received: Received) -> T:
        context.sa.peer_spi = received.header.spi_r
        try:
            return action(context, now, received)
        except (Fault, Drop):
            # Should nobody else answer, this one learns why it ended.
            context.sa.attempt.rejected_cookie = received.header.spi_r
            context.sa.peer_spi = NO_SPI
            raise

    return act


def proved_from(context: Context, path: Path, nat: Nat) -> None:
    """The peer's proof came along `path`; `nat` is what was known before it."""
    sa = context.sa
    path = natt.proved_from(nat, sa.path, path)
    if path != sa.path:
        sa.path = path
        if sa.state is State.ESTABLISHED:
            context.emit(PathMoved(sa.tunnel, path))


# ------------------------------------------------------------------------------------- to send


def vendor_id_payloads(peer: PeerFeatures | None = None) -> list[VendorId]:
    """Ours; in an answer only the NAT traversal that was picked among the peer's."""
    if peer is None:
        return [VendorId(data) for data in OUR_VENDOR_IDS]
    picked = [peer.nat_t] if peer.nat_t else []
    return [VendorId(data) for data in (*picked, FRAGMENTATION, DPD, vendors.VPND)]


def id_payload(context: Context) -> Id:
    """IDii or IDir, with protocol and port 0 (RFC 2407 section 4.6.2)."""
    identity = context.sa.policy.local_id
    return Id(identity.type, identity.value)


def our_half(context: Context, group: int) -> list[Payload]:
    one, entropy = context.sa.negotiation, context.registry.entropy
    one.key_pair = KeyPair.generate(group, entropy)
    public, nonce = one.key_pair.public, entropy.bytes(NONCE_LENGTH)
    if context.sa.initiator:
        one.ke_i, one.nonce_i = public, nonce
    else:
        one.ke_r, one.nonce_r = public, nonce
    return [KeyExchange(public), Nonce(nonce)]


def our_proof(context: Context, keys: Phase1Keys) -> Hash:
    """Our HASH_I or HASH_R (RFC 2409 section 5)."""
    return Hash(_hash(context.sa, keys, context.sa.initiator))


def _hash(sa: IsakmpSa, keys: Phase1Keys, of_initiator: bool) -> bytes:
    one = sa.negotiation
    if of_initiator:
        return keys.hash_i(sa.exchanged(), one.sa_i, one.id_i)
    return keys.hash_r(sa.exchanged(), one.sa_i, one.id_r)


def first_contact(context: Context) -> list[Payload]:
    first = context.registry.is_first_contact(context.sa.policy)
    return [Notify(Notify1.INITIAL_CONTACT, spi=context.sa.cookies)] if first else []


def nat_d_payloads(context: Context) -> list[NatD]:
    """HASH(CKY-I | CKY-R | IP | Port), the peer's address first, then ours (RFC 3947 section 3.2).

    Where the policy wants UDP always, our own hash is noise: to the peer it looks like a NAT on our side.
    """
    peer, suite = context.sa.negotiation.peer, context.sa.suite
    if not peer.nat_t:
        return []
    word, path = suite.prf or "", context.sa.path
    cookies = (context.sa.spi_i, context.sa.spi_r)
    theirs = natt.detection_hash(word, *cookies, path.remote, path.remote_port)
    ours = natt.detection_hash(word, *cookies, path.local, path.local_port)
    if context.sa.policy.encapsulation is Encapsulation.UDP:
        ours = context.registry.entropy.bytes(len(ours))
    return [NatD(theirs, peer.nat_t_draft), NatD(ours, peer.nat_t_draft)]


# ------------------------------------------------------------------------------------- to read


def candidates(context: Context) -> list[PeerPolicy]:
    """The tunnels that a peer's attempt can be of: same addresses and mode, the one it is taken for first."""
    ours = context.sa.policy
    others = context.registry.policies.candidates(IkeVersion.V1, context.sa.path)
    return [ours, *(one for one in others if one.mode == ours.mode and one.name != ours.name)]


def rivals(context: Context) -> list[PeerPolicy]:
    """Those of the candidates that have the key which the attempt was proved with."""
    return [one for one in candidates(context) if context.sa.psk in one.keys]


def choose_policy(policies: Iterable[PeerPolicy], offer: Sa) -> tuple[PeerPolicy, Phase1Choice]:
    """The first policy that the offer fits, and what is chosen. Raises NoProposalChosen, as the first did."""
    fault = None
    for policy in policies:
        try:
            return policy, choose_phase1(offer, policy.proposals, policy.lifetime, policy.numbers)
        except NoProposalChosen as error:
            fault = fault or error
    try:
        raise fault or NoProposalChosen()
    finally:
        # It holds this call, which would hold it, and with it what the peer has sent.
        del fault


def candidate_keys(context: Context) -> Iterator[tuple[PeerPolicy, Secret, Phase1Keys]]:
    """Main mode needs the key before the identity: each that it can be but weak ones, with its tunnel."""
    shared = context.sa.negotiation.shared
    exchanged = context.sa.exchanged()
    if shared is not None:
        for policy, psk in own_keys(context):
            with suppress(WeakKey):
                yield policy, psk, Phase1Keys.derive(context.sa.suite, psk, shared, exchanged)


def own_keys(context: Context) -> list[tuple[PeerPolicy, Secret]]:
    """The keys of at most KEYS_TRIED of the candidates, each with the first tunnel that has it."""
    found: dict[Secret, PeerPolicy] = {}
    for policy in candidates(context):
        if len(found) < KEYS_TRIED:
            found.setdefault(context.registry.shared_keys.of(policy)[0], policy)
    for policy in list(found.values()):
        for psk in policy.keys:
            found.setdefault(psk, policy)
    return [(policy, psk) for psk, policy in found.items()]


def detect_nat(context: Context, path: Path, nat_d: tuple[NatD, ...]) -> Nat:
    """What the peer's hashes say: the first is of our address as it sees us, the others are of its own."""
    if not context.sa.negotiation.peer.nat_t or len(nat_d) < 2:
        return NO_NAT
    claims = [payload.data for payload in nat_d]
    found = natt.detect(
        context.sa.suite.prf or "",
        context.sa.spi_i,
        context.sa.spi_r,
        path,
        sources=claims[1:],
        destinations=claims[:1],
    )
    if context.sa.policy.encapsulation is Encapsulation.UDP:
        return Nat(ours=found.ours, theirs=True)
    return found


def agree(context: Context, peer_ke: KeyExchange) -> Phase1Keys:
    """All keys, once both public values and nonces are known. Raises InvalidKeyInformation."""
    sa, shared_keys = context.sa, context.registry.shared_keys
    shared = _share(sa, peer_ke)
    choose = shared_keys.to_begin_with if sa.initiator else shared_keys.to_answer_with
    sa.psk = choose(sa.policy)
    return Phase1Keys.derive(sa.suite, sa.psk, shared, sa.exchanged())


def agree_by_hash(context: Context, peer_ke: KeyExchange, received: Hash) -> Phase1Keys:
    """As `agree`, with the key that the peer's proof shows. Raises AuthenticationFailed too."""
    sa = context.sa
    shared = _share(sa, peer_ke)
    for psk in context.registry.shared_keys.of(sa.policy):
        keys = Phase1Keys.derive(sa.suite, psk, shared, sa.exchanged())
        if proves(context, keys, received):
            sa.psk = psk
            return keys
    raise wrong_key(context)


def _share(sa: IsakmpSa, peer_ke: KeyExchange) -> Secret:
    shared = shared_secret(sa.negotiation.key_pair, peer_ke.data, InvalidKeyInformation)
    sa.negotiation.shared = shared
    return shared


def proves(context: Context, keys: Phase1Keys, received: Hash) -> bool:
    """Whether the peer's HASH_I or HASH_R is made with these keys (RFC 2409 section 5)."""
    return hmac.compare_digest(_hash(context.sa, keys, not context.sa.initiator), received.data)


def verify_hash(context: Context, keys: Phase1Keys, received: Hash) -> None:
    """The peer's proof. Raises AuthenticationFailed, also where its key has ended meanwhile."""
    if not proves(context, keys, received) or context.sa.psk not in context.sa.policy.keys:
        raise wrong_key(context)


def wrong_key(context: Context, **facts: Unpack[Known]) -> AuthenticationFailed:
    by_address = context.sa.mode is NegotiationMode.MAIN and not context.sa.initiator
    tried = [psk for _, psk in own_keys(context)] if by_address else context.sa.policy.keys
    ours = " or ".join(psk.fingerprint() for psk in tried)
    known: Known = {"ours": ours, "peer": context.sa.path.remote, **facts}
    return AuthenticationFailed(**known)


def named(policies: Iterable[PeerPolicy], received: Id) -> list[PeerPolicy]:
    """Those of `policies` (not empty) whose peer has this identity, at least one.

    Protocol and port are not looked at: peers send 0 and 0, or 17 and the port that they use. Raises
    InvalidIdInformation with both identities.
    """
    identity = Identity(received.type, received.value)
    asked = list(policies)
    found = [policy for policy in asked if policy.is_peer(identity)]
    if not found:
        ours = describe_some(one for policy in asked for one in policy.peer_ids)
        raise InvalidIdInformation(code=Code.IDENTITY, theirs=identity.describe(), ours=ours)
    return found


def says_initial_contact(context: Context, notifies: tuple[Notify, ...]) -> bool:
    """Whether the peer says that it holds no older SA with us (RFC 2407 section 4.6.3.3).

    It names the two cookies. No hash covers it, so that other cookies are the one sign that the end of the
    message was damaged, and with it the block that the IV chain goes on from. Raises Drop then.
    """
    contacts = [notify for notify in notifies if notify.type == Notify1.INITIAL_CONTACT]
    for notify in contacts:
        if len(notify.spi) == COOKIES_LENGTH and notify.spi != context.sa.cookies:
            raise Drop("damaged notify")
    return bool(contacts)
