"""IKE_SA_INIT: agreeing on algorithms, keys and the path (RFC 7296 section 1.2).

    Initiator                                   Responder
    HDR, SAi1, KEi, Ni               -->
                                     <--   HDR, N(COOKIE)                 under load (section 2.6)
    HDR, N(COOKIE), SAi1, KEi, Ni    -->
                                     <--   HDR, N(INVALID_KE_PAYLOAD)     another group (section 1.3)
    HDR, N(COOKIE), SAi1, KEi, Ni    -->
                                     <--   HDR, SAr1, KEr, Nr

Each carries N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP) and N(FRAGMENTATION_SUPPORTED)
besides, and the answer N(CHILDLESS_IKEV2_SUPPORTED) (RFC 6023). Nothing here is authenticated until
IKE_AUTH has signed it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vpnd.crypto.dh import KeyPair
from vpnd.crypto.suites import GROUPS
from vpnd.ike import natt
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.registry import NO_SPI
from vpnd.ike.v2 import diagnoses
from vpnd.ike.v2.auth import AuthExchange
from vpnd.ike.v2.faults import InvalidKe, InvalidSyntax, NoProposalChosen
from vpnd.ike.v2.key_exchange import check_value, shared_secret
from vpnd.ike.v2.keys import derive_ike_keys, derive_skeyseed
from vpnd.ike.v2.messages import Received, Refusal, SaInitRequest, SaInitResponse, error_of, notify_of
from vpnd.ike.v2.proposals import answer_sa, choose_by, decode_sa, encode_sa, read_answer
from vpnd.ike.vendors import VPND, recognise
from vpnd.model.child import Path
from vpnd.model.policy import Encapsulation, PeerPolicy
from vpnd.model.proposals import Chosen, Mismatch, Proposal
from vpnd.model.secret import Secret
from vpnd.wire.iana import Exchange2, Notify2, Protocol
from vpnd.wire.ikev2 import KeyExchange, Nonce, Notify, Payload, Sa, VendorId

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

NONCE_LENGTH = 32
"""At least half the key size of any PRF in use (RFC 7296 section 2.10)."""
INVALID_KE_ROUNDS = 3
"""Restarts with another group: more than one is already odd (libreswan's bound)."""
COOKIE_ROUNDS = 3
"""Restarts with a cookie: a second one when the secret was rotated meanwhile."""
MAX_COOKIE = 64
"""Bytes of a cookie (RFC 7296 section 2.6)."""


class SaInitExchange:
    """The initiator's part, with restarts for a cookie or another group."""

    kind = Exchange2.IKE_SA_INIT

    def __init__(self, session: Session) -> None:
        self._nonce = session.registry.entropy.bytes(NONCE_LENGTH)
        self._key_pair = KeyPair.generate(_groups(session.policy)[0], session.registry.entropy)
        self._cookie: bytes | None = None
        self._invalid_ke_rounds = 0
        self._cookie_rounds = 0

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        cookie = () if self._cookie is None else (Notify(Notify2.COOKIE, self._cookie),)
        return (
            *cookie,
            encode_sa(session.policy.proposals, numbers=session.policy.numbers),
            KeyExchange(self._key_pair.group, self._key_pair.public),
            Nonce(self._nonce),
            *_common_notifies(session, session.local_spi, NO_SPI, session.path),
            VendorId(VPND),
        )

    def answered(self, session: Session, now: float, received: Received) -> None:
        match received.message:
            case SaInitResponse() as response:
                self._accept(session, received, response)
            case Refusal() as refusal:
                self._restart(session, now, refusal)
            case _:
                raise Drop("IKE_SA_INIT: unexpected answer")

    def failed(self, session: Session, now: float, fault: Fault) -> None:
        """Anyone may have sent it: remember it, and listen for a real answer a little longer."""
        session.remember(now, fault.diagnosis)

    def abandoned(self, session: Session) -> None:
        return None

    def _accept(self, session: Session, received: Received, response: SaInitResponse) -> None:
        """Check all of the answer before any of it takes effect."""
        chosen = read_answer(response.sa, session.policy.proposals, session.policy.numbers)
        if isinstance(chosen, Mismatch):
            raise NoProposalChosen(diagnosis=diagnoses.of_ike_mismatch(chosen, "IKE_SA_INIT"))
        if received.header.spi_r == NO_SPI:
            raise InvalidSyntax(detail="the responder's SPI is zero")
        shared = _shared(self._key_pair, chosen, response.ke)
        nonce_i, nonce_r = self._nonce, response.nonce.data
        session.peer_spi = received.header.spi_r
        keys = derive_ike_keys(
            chosen.suite,
            derive_skeyseed(chosen.suite.prf or "", shared, nonce_i, nonce_r),
            nonce_i,
            nonce_r,
            session.local_spi,
            session.peer_spi,
        )
        session.learn_keys(chosen.suite, keys)
        session.init.nonce_i, session.init.nonce_r = nonce_i, nonce_r
        session.init.response = received.datagram
        _learn_peer(session, received.path, response.notifies, response.vendors)
        if session.nat.found or session.esp_in_udp:
            session.path = natt.floated(received.path)
        session.outbox.enqueue(AuthExchange())

    def _restart(self, session: Session, now: float, refusal: Refusal) -> None:
        """Begin again as the peer asks, or remember what it says: it is not authenticated."""
        cookie = notify_of(refusal.notifies, Notify2.COOKIE)
        if cookie is not None and 0 < len(cookie.data) <= MAX_COOKIE and self._cookie_rounds < COOKIE_ROUNDS:
            self._cookie_rounds += 1
            self._cookie = cookie.data
            session.outbox.send(now, self)
            return
        error = error_of(refusal.notifies)
        if error is None:
            raise Drop("IKE_SA_INIT: answer without meaning")
        group = int.from_bytes(error.data, "big") if len(error.data) == 2 else None
        wanted = error.type == Notify2.INVALID_KE_PAYLOAD and group in _groups(session.policy)
        if wanted and group != self._key_pair.group and self._invalid_ke_rounds < INVALID_KE_ROUNDS:
            self._invalid_ke_rounds += 1
            self._key_pair = KeyPair.generate(group or 0, session.registry.entropy)
            session.outbox.send(now, self)
            return
        session.remember(now, diagnoses.of_init_error(error, session.policy))


def respond(session: Session, now: float, received: Received) -> tuple[Payload, ...]:
    """The responder's part: choose, compute the keys, and answer. The session becomes half-open.

    The tunnel is the first whose addresses and proposals fit; IKE_AUTH decides by identity.
    """
    request = received.message
    if not isinstance(request, SaInitRequest):
        raise Drop("IKE_SA_INIT: not a request")
    session.registry.admit(now, received.path.remote)
    distinct = session.registry.distinct(session.version, received.path)
    policy, chosen = _choose(distinct, request.sa, request.ke.group)
    group = chosen.suite.dh
    if group is None or group != request.ke.group:
        raise InvalidKe.wanting(group or 0)
    check_value(request.ke, "IKE_SA_INIT")
    session.policy, session.tunnel = policy, policy.name
    key_pair = KeyPair.generate(group, session.registry.entropy)
    shared = _shared(key_pair, chosen, request.ke)
    nonce_i, nonce_r = request.nonce.data, session.registry.entropy.bytes(NONCE_LENGTH)
    skeyseed = derive_skeyseed(chosen.suite.prf or "", shared, nonce_i, nonce_r)
    spi_i, spi_r = session.peer_spi, session.local_spi
    session.learn_keys(chosen.suite, derive_ike_keys(chosen.suite, skeyseed, nonce_i, nonce_r, spi_i, spi_r))
    session.init.nonce_i, session.init.nonce_r = nonce_i, nonce_r
    session.init.request = received.datagram
    _learn_peer(session, received.path, request.notifies, request.vendors)
    return (
        answer_sa(chosen, Protocol.IKE, numbers=policy.numbers),
        KeyExchange(group, key_pair.public),
        Nonce(nonce_r),
        *_common_notifies(session, spi_i, spi_r, received.path),
        Notify(Notify2.CHILDLESS_IKEV2_SUPPORTED),
        VendorId(VPND),
    )


def _choose(candidates: tuple[PeerPolicy, ...], sa: Sa, group: int) -> tuple[PeerPolicy, Chosen]:
    """The first tunnel with a common proposal; the group that the peer has sent a value of is preferred."""
    mismatches: list[Mismatch] = []
    for policy in candidates:
        numbers = policy.numbers
        offered = decode_sa(sa, numbers)
        same_group = tuple(replace(p, dh=(group,)) for p in policy.proposals if group in p.dh)
        preferred = choose_by(numbers, offered, same_group)
        outcome = choose_by(numbers, offered, policy.proposals)
        if isinstance(preferred, Chosen):
            return policy, preferred
        if isinstance(outcome, Chosen):
            return policy, outcome
        mismatches.append(outcome)
    if not mismatches:
        raise Drop("unknown peer")
    raise NoProposalChosen(diagnosis=diagnoses.of_ike_mismatch(mismatches[0], "IKE_SA_INIT"))


def _shared(key_pair: KeyPair, chosen: Chosen, ke: KeyExchange) -> Secret:
    if ke.group != key_pair.group or chosen.suite.dh != key_pair.group:
        raise InvalidSyntax(detail=f"KE is of group {ke.group}, the proposal of {chosen.suite.dh}")
    return shared_secret(key_pair, ke, "IKE_SA_INIT")


def _groups(policy: PeerPolicy) -> tuple[int, ...]:
    """Our DH groups, the preferred first."""
    proposals: tuple[Proposal, ...] = policy.proposals
    return tuple(dict.fromkeys(group for proposal in proposals for group in proposal.dh if group in GROUPS))


def _common_notifies(session: Session, spi_i: bytes, spi_r: bytes, path: Path) -> tuple[Notify, ...]:
    """NAT detection and fragmentation.

    To force UDP, the source hash is random: it fits no address, so the peer sees a NAT (RFC 7296 2.23).
    """
    source = natt.detection_hash("sha1", spi_i, spi_r, path.local, path.local_port)
    if session.policy.encapsulation is Encapsulation.UDP:
        source = session.registry.entropy.bytes(len(source))
    destination = natt.detection_hash("sha1", spi_i, spi_r, path.remote, path.remote_port)
    return (
        Notify(Notify2.NAT_DETECTION_SOURCE_IP, source),
        Notify(Notify2.NAT_DETECTION_DESTINATION_IP, destination),
        Notify(Notify2.FRAGMENTATION_SUPPORTED),
    )


def _learn_peer(
    session: Session, path: Path, notifies: tuple[Notify, ...], vendors: tuple[VendorId, ...]
) -> None:
    """What the peer's notifies and vendor IDs say about the path and about itself."""
    spi_i, spi_r = session.spi_i, session.spi_r if session.initiator else NO_SPI
    sources = tuple(n.data for n in notifies if n.type == Notify2.NAT_DETECTION_SOURCE_IP)
    destinations = tuple(n.data for n in notifies if n.type == Notify2.NAT_DETECTION_DESTINATION_IP)
    session.nat = natt.detect("sha1", spi_i, spi_r, path, sources, destinations)
    session.esp_in_udp = session.nat.found or (
        bool(sources) and session.policy.encapsulation is Encapsulation.UDP
    )
    session.fragmentation = notify_of(notifies, Notify2.FRAGMENTATION_SUPPORTED) is not None
    session.knows_childless = notify_of(notifies, Notify2.CHILDLESS_IKEV2_SUPPORTED) is not None
    session.vendor = recognise(vendor.data for vendor in vendors)
