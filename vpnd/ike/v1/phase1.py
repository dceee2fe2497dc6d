"""What main and aggressive mode share: what has been exchanged so far, and the proof at the end."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vpnd.crypto.dh import InvalidPublicValue, KeyPair, check_public
from vpnd.crypto.entropy import Entropy
from vpnd.ike import natt, vendors
from vpnd.ike.faults import Drop
from vpnd.ike.natt import NO_NAT, Nat
from vpnd.ike.v1.faults import (
    AuthenticationFailed,
    InvalidIdInformation,
    InvalidKeyInformation,
    NoProposalChosen,
    WeakKey,
)
from vpnd.ike.v1.keys import Exchanged, Phase1Keys
from vpnd.ike.v1.proposals import PHASE1_CODES, Phase1Choice, choose_phase1, mismatch
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity, describe_some
from vpnd.model.policy import Encapsulation, NegotiationMode, PeerPolicy
from vpnd.model.proposals import NO_GROUP, Mismatch, Proposal, Suite, choose
from vpnd.model.secret import Secret
from vpnd.wire.iana import Notify1, Protocol
from vpnd.wire.ikev1 import Hash, Id, KeyExchange, NatD, Notify, Sa, VendorId

if TYPE_CHECKING:
    from vpnd.ike.v1.session import Session

NONCE_LENGTH = 32
"""Bytes; RFC 2409 section 5 allows 8 to 256."""

COOKIES_LENGTH = 16
"""Bytes of both cookies."""

KEYS_TRIED = 8
"""Keys of tunnels between the same addresses that the proof of main mode is tried with."""

DPD = bytes.fromhex("afcad71368a1f1c96b8696fc77570100")
"""Dead peer detection, version 1.0 (RFC 3706 section 5)."""
NAT_T_RFC = bytes.fromhex("4a131c81070358455c5728f20e95452f")
"""NAT traversal (RFC 3947 section 3.1)."""
NAT_T_03 = bytes.fromhex("7d9419a65310ca6f2c179d9215529d56")
NAT_T_02 = bytes.fromhex("cd60464335df21f87cfdb2fc68b6a448")
NAT_T_02N = bytes.fromhex("90cb80913ebb696e086381b5ec427b1f")
"""The drafts 03 and 02 before it; old gateways hash a newline behind 02's name."""
FRAGMENTATION = bytes.fromhex("4048b7d56ebce88525e7de7f00d6c2d3")
"""Fragments of IKE messages, a vendor's extension; some peers add four bytes of flags."""

NAT_T = (NAT_T_RFC, NAT_T_03, NAT_T_02N, NAT_T_02)
"""What we speak of it, the best first."""
OUR_VENDOR_IDS = (*NAT_T, FRAGMENTATION, DPD, vendors.VPND)


@dataclass(slots=True)
class Negotiation:
    """Phase 1 so far. `sa_i`, `id_i`, `id_r` are payload bodies as they travelled, for the hashes."""

    key_pair: KeyPair | None = None
    shared: Secret | None = None
    suite: Suite | None = None
    lifetime: int = 0
    sa_i: bytes = b""
    nonce_i: bytes = b""
    nonce_r: bytes = b""
    ke_i: bytes = b""
    ke_r: bytes = b""
    id_i: bytes = b""
    id_r: bytes = b""
    peer: PeerFeatures = field(default_factory=lambda: PeerFeatures())

    def exchanged(self, cky_i: bytes, cky_r: bytes) -> Exchanged:
        """The values that every key and hash is made of."""
        return Exchanged(self.nonce_i, self.nonce_r, self.ke_i, self.ke_r, cky_i, cky_r)


@dataclass(frozen=True, slots=True)
class PeerFeatures:
    """What the peer's vendor IDs say that it speaks."""

    dpd: bool = False
    nat_t: bytes = b""
    fragments: bool = False
    vendor: str | None = None

    @classmethod
    def read(cls, vendor_ids: Iterable[VendorId]) -> PeerFeatures:
        """From the vendor IDs of the peer's first message; `nat_t` is the best that both speak, or empty."""
        data = [vendor_id.data for vendor_id in vendor_ids]
        return cls(
            dpd=any(one[: len(DPD) - 2] == DPD[:-2] for one in data),
            nat_t=next((known for known in NAT_T if known in data), b""),
            fragments=any(one.startswith(FRAGMENTATION) for one in data),
            vendor=vendors.recognise(data),
        )

    @property
    def nat_t_draft(self) -> bool:
        """Whether NAT traversal has the numbers of the drafts."""
        return bool(self.nat_t) and self.nat_t != NAT_T_RFC


# ------------------------------------------------------------------------------------- to send


def vendor_id_payloads(peer: PeerFeatures | None = None) -> list[VendorId]:
    """Ours; in an answer only the NAT traversal that was picked among the peer's."""
    if peer is None:
        return [VendorId(data) for data in OUR_VENDOR_IDS]
    picked = [peer.nat_t] if peer.nat_t else []
    return [VendorId(data) for data in (*picked, FRAGMENTATION, DPD, vendors.VPND)]


def id_payload(identity: Identity) -> Id:
    """IDii or IDir, with protocol and port 0 (RFC 2407 section 4.6.2)."""
    return Id(identity.type, identity.value)


def nat_d_payloads(session: Session, entropy: Entropy) -> list[NatD]:
    """HASH(CKY-I | CKY-R | IP | Port), the peer's address first, then ours (RFC 3947 section 3.2).

    Where the policy wants UDP always, our own hash is noise: to the peer it looks like a NAT on our side.
    """
    peer, suite = session.negotiation.peer, session.suite
    if not peer.nat_t:
        return []
    word, path = suite.prf or "", session.path
    cookies = (session.cky_i, session.cky_r)
    theirs = natt.detection_hash(word, *cookies, path.remote, path.remote_port)
    ours = natt.detection_hash(word, *cookies, path.local, path.local_port)
    if session.policy.encapsulation is Encapsulation.UDP:
        ours = entropy.bytes(len(ours))
    return [NatD(theirs, peer.nat_t_draft), NatD(ours, peer.nat_t_draft)]


def first_contact(session: Session) -> bool:
    """Whether to say INITIAL_CONTACT: there is no SA of this tunnel, nor another tunnel like it."""
    policy = session.policy
    twins = [
        one
        for one in session.registry.policies.values()
        if (one.local_id, one.remote_id) == (policy.local_id, policy.remote_id) and one.name != policy.name
    ]
    return not twins and session.registry.established(session.tunnel) is None


# ------------------------------------------------------------------------------------- to read


def candidates(session: Session) -> list[PeerPolicy]:
    """The tunnels that a peer's attempt can be of: same addresses and mode, the one it is taken for first."""
    ours = session.policy
    others = session.registry.candidates(session.version, session.path)
    return [ours, *(one for one in others if one.mode == ours.mode and one.name != ours.name)]


def rivals(session: Session) -> list[PeerPolicy]:
    """Those of the candidates that have the key which the attempt was proved with."""
    return [one for one in candidates(session) if one.psk == session.policy.psk]


def choose_policy(policies: Iterable[PeerPolicy], offer: Sa) -> tuple[PeerPolicy, Phase1Choice]:
    """The first of `policies` that the offer fits, and what is chosen of it.

    Raises NoProposalChosen, with what differs from the first, if it fits none.
    """
    fault = None
    for policy in policies:
        try:
            return policy, choose_phase1(offer, policy.proposals, policy.lifetime, policy.numbers)
        except NoProposalChosen as error:
            fault = fault or error
    raise fault or NoProposalChosen()


def require_suite(policy: PeerPolicy, suite: Suite) -> None:
    """The suite was chosen before the tunnel was known. Raises NoProposalChosen if it is none of its own."""
    words = (suite.encryption,), (suite.prf or "",), (suite.integrity or "",), (suite.dh or NO_GROUP,)
    found = choose([Proposal(Protocol.IKE, *words)], policy.proposals)
    if isinstance(found, Mismatch):
        raise NoProposalChosen(diagnosis=mismatch(found, PHASE1_CODES, Code.P1_PROPOSAL))


def candidate_keys(session: Session) -> Iterator[tuple[PeerPolicy, Phase1Keys]]:
    """In main mode the key is needed before the identity: each key that it can be, with a tunnel that has it.

    A candidate whose key makes a weak one (RFC 2409 appendix A) is left out.
    """
    shared = session.negotiation.shared
    exchanged = session.negotiation.exchanged(session.cky_i, session.cky_r)
    if shared is not None:
        for policy in with_own_key(session):
            with suppress(WeakKey):
                yield policy, Phase1Keys.derive(session.suite, policy.psk, shared, exchanged)


def with_own_key(session: Session) -> list[PeerPolicy]:
    """Of the candidates the first with each key, but not more than KEYS_TRIED."""
    found: list[PeerPolicy] = []
    for policy in candidates(session):
        if all(policy.psk != other.psk for other in found):
            found.append(policy)
    return found[:KEYS_TRIED]


def detect_nat(session: Session, path: Path, nat_d: tuple[NatD, ...]) -> Nat:
    """What the peer's hashes say: the first is of our address as it sees us, the others are of its own."""
    if not session.negotiation.peer.nat_t or len(nat_d) < 2:
        return NO_NAT
    claims = [payload.data for payload in nat_d]
    found = natt.detect(
        session.suite.prf or "",
        session.cky_i,
        session.cky_r,
        path,
        sources=claims[1:],
        destinations=claims[:1],
    )
    if session.policy.encapsulation is Encapsulation.UDP:
        return Nat(ours=found.ours, theirs=True)
    return found


def check_value(group: int, ke: KeyExchange) -> None:
    """Before any work of our own for the peer: is its value one of the group?

    Raises InvalidKeyInformation.
    """
    try:
        check_public(group, ke.data)
    except (InvalidPublicValue, KeyError) as error:
        raise InvalidKeyInformation(detail=str(error)) from error


def agree(session: Session, peer_ke: KeyExchange) -> Phase1Keys:
    """All keys, once both public values and nonces are known. Raises InvalidKeyInformation."""
    negotiation = session.negotiation
    if negotiation.key_pair is None:
        raise InvalidKeyInformation(detail="no key exchange is under way")
    try:
        shared = negotiation.key_pair.shared(peer_ke.data)
    except InvalidPublicValue as error:
        raise InvalidKeyInformation(detail=str(error)) from error
    negotiation.shared = shared
    exchanged = negotiation.exchanged(session.cky_i, session.cky_r)
    return Phase1Keys.derive(session.suite, session.policy.psk, shared, exchanged)


def verify_hash(session: Session, keys: Phase1Keys, received: Hash, of_initiator: bool) -> None:
    """HASH_I or HASH_R proves the key (RFC 2409 section 5). Raises AuthenticationFailed."""
    negotiation = session.negotiation
    exchanged = negotiation.exchanged(session.cky_i, session.cky_r)
    if of_initiator:
        wanted = keys.hash_i(exchanged, negotiation.sa_i, negotiation.id_i)
    else:
        wanted = keys.hash_r(exchanged, negotiation.sa_i, negotiation.id_r)
    if not hmac.compare_digest(wanted, received.data):
        raise wrong_key(session)


def wrong_key(session: Session, **facts: object) -> AuthenticationFailed:
    """The fault of a peer whose pre-shared key is another."""
    by_address = session.mode is NegotiationMode.MAIN and not session.initiator
    tried = with_own_key(session) if by_address else [session.policy]
    ours = " or ".join(policy.psk.fingerprint() for policy in tried)
    return AuthenticationFailed(
        diagnosis=Diagnosis.of(Code.PSK, ours=ours, peer=session.path.remote, **facts)
    )


def check_identity(policies: Iterable[PeerPolicy], received: Id) -> PeerPolicy:
    """The first of `policies` whose peer has this identity. Raises InvalidIdInformation."""
    return named(policies, received)[0]


def named(policies: Iterable[PeerPolicy], received: Id) -> list[PeerPolicy]:
    """Those of `policies` (not empty) whose peer has this identity.

    Protocol and port of the payload are not looked at: peers send 0 and 0, or 17 and the port that they use.
    Raises InvalidIdInformation with both identities if there is none.
    """
    identity = Identity(received.type, received.value)
    asked = list(policies)
    found = [policy for policy in asked if policy.is_peer(identity)]
    if not found:
        ours = describe_some(one for policy in asked for one in policy.peer_ids)
        raise InvalidIdInformation(
            diagnosis=Diagnosis.of(Code.IDENTITY, theirs=identity.describe(), ours=ours)
        )
    return found


def says_initial_contact(session: Session, notifies: tuple[Notify, ...]) -> bool:
    """Whether the peer says that it holds no older SA with us (RFC 2407 section 4.6.3.3).

    It names the two cookies. No hash covers it, so that other cookies are the one sign that the end of the
    message was damaged, and with it the block that the IV chain goes on from. Raises Drop then.
    """
    contacts = [notify for notify in notifies if notify.type == Notify1.INITIAL_CONTACT]
    for notify in contacts:
        if len(notify.spi) == COOKIES_LENGTH and notify.spi != session.cky_i + session.cky_r:
            raise Drop("damaged notify")
    return bool(contacts)
