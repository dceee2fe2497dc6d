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

from vpnd.ike import natt
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.key_exchange import NONCE_LENGTH
from vpnd.ike.message import Received
from vpnd.ike.registry import NO_SPI
from vpnd.ike.v2 import diagnoses
from vpnd.ike.v2.causes import AskAgain, KeysAgreed
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.exchanges.auth import AuthExchange
from vpnd.ike.v2.faults import InvalidSyntax, NoProposalChosen
from vpnd.ike.v2.ike_sa import IkeSa, Peer
from vpnd.ike.v2.key_exchange import IkeKeyExchange, answer_ke, conclude_ke
from vpnd.ike.v2.keys import derive_ike_keys, derive_skeyseed
from vpnd.ike.v2.messages import Refusal, SaInitRequest, SaInitResponse, error_of, notify_of
from vpnd.ike.v2.proposals import answer_sa, choose_near, decode_sa, encode_sa, never_taken, read_answer
from vpnd.ike.v2.requests import Exchange
from vpnd.ike.v2.state import Timer
from vpnd.ike.vendors import VPND, recognise
from vpnd.model.child import Path
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import Encapsulation, PeerPolicy, Probing
from vpnd.model.proposals import Chosen, Mismatch
from vpnd.model.secret import Secret
from vpnd.wire.iana import Exchange2, IkeVersion, Notify2, Protocol
from vpnd.wire.ikev2 import Nonce, Notify, Payload, Sa, VendorId

COOKIE_ROUNDS = 3
"""Restarts with a cookie: a second one when the secret was rotated meanwhile."""
MAX_COOKIE = 64
"""Bytes of a cookie (RFC 7296 section 2.6)."""


class SaInitExchange(Exchange):
    """The initiator's part, with restarts for a cookie or another group."""

    kind = Exchange2.IKE_SA_INIT

    def __init__(self, context: Context) -> None:
        self._nonce = context.registry.entropy.bytes(NONCE_LENGTH)
        self._ours = IkeKeyExchange(context.sa.policy, context.registry.entropy)
        self._cookie: bytes | None = None
        self._cookie_rounds = 0
        self._deferred: tuple[float, int] | None = None
        """When the first answer said no that anyone may have sent, and how much had been sent by then."""

    def request(self, context: Context, now: float) -> tuple[Payload, ...] | None:
        sa = context.sa
        cookie = () if self._cookie is None else (Notify(Notify2.COOKIE, self._cookie),)
        return (
            *cookie,
            self._offer(sa.policy),
            self._ours.payload,
            Nonce(self._nonce),
            *_common_notifies(context, sa.local_spi, NO_SPI, sa.path),
            VendorId(VPND),
        )

    def _offer(self, policy: PeerPolicy) -> Sa:
        """Ours; and where the attempt only asks, one that nobody takes, to which the value of KE belongs."""
        sa = encode_sa(policy.proposals, numbers=policy.numbers)
        if policy.probing is not Probing.OFFER:
            return sa
        return Sa((*sa.proposals, never_taken(len(sa.proposals) + 1, self._ours.pair.group)))

    def accepted(self, context: Context, now: float, received: Received) -> KeysAgreed:
        """The peer has chosen. All of its answer is checked before any of it takes effect."""
        response, sa = received.of(SaInitResponse), context.sa
        answer = read_answer(response.sa, sa.policy.proposals, sa.policy.numbers)
        chosen = diagnoses.require(answer, "IKE_SA_INIT")
        if received.header.spi_r == NO_SPI:
            raise InvalidSyntax(detail="the responder's SPI is zero")
        shared = conclude_ke(self._ours.pair, response.ke, chosen.suite.dh, "IKE_SA_INIT")
        sa.peer_spi = received.header.spi_r
        _set_keys(sa, chosen, shared, self._nonce, response.nonce.data)
        sa.attempt.init.response = received.data
        _note_peer(sa, received.path, response.notifies, response.vendors)
        if sa.nat.found or sa.peer.esp_in_udp:
            sa.path = natt.floated(received.path)
        return KeysAgreed(AuthExchange())

    def refused(self, context: Context, now: float, received: Received) -> AskAgain | None:
        """Ask again as the peer wants, or defer the failure: the answer is not authenticated."""
        notifies = received.of(Refusal).notifies
        cookie = notify_of(notifies, Notify2.COOKIE)
        if cookie is not None and 0 < len(cookie.data) <= MAX_COOKIE and self._cookie_rounds < COOKIE_ROUNDS:
            self._cookie_rounds += 1
            self._cookie = cookie.data
            return AskAgain(self)
        error = error_of(notifies)
        if error is None:
            raise Drop("IKE_SA_INIT: answer without meaning")
        if self._ours.restart(error):
            return AskAgain(self)
        self._defer_failure(context, now, diagnoses.of_init_error(error, context.sa.policy))
        return None

    def failed(self, context: Context, now: float, fault: Fault) -> None:
        self._defer_failure(context, now, fault.diagnosis)

    def _defer_failure(self, context: Context, now: float, diagnosis: Diagnosis) -> None:
        """An answer that anyone may have sent says no: keep it for the diagnosis, and listen on.

        If a retransmission gets the like, the peer means it, and the attempt ends soon.
        """
        attempt = context.sa.attempt
        attempt.hint = diagnosis
        if self._deferred is None:
            self._deferred = now, attempt.sent
        since, sent = self._deferred
        if attempt.sent > sent and context.timers.deadline(Timer.LISTEN) is None:
            context.timers.arm(Timer.LISTEN, max(now, since + context.registry.limits.error_listening))


def respond(context: Context, now: float, received: Received) -> tuple[Payload, ...]:
    """Choose, for the first tunnel that fits (IKE_AUTH decides by identity), compute the keys, and answer."""
    request, sa, registry = received.of(SaInitRequest), context.sa, context.registry
    registry.strangers.admit(now, received.path.remote)
    distinct = registry.policies.distinct(IkeVersion.V2, received.path)
    policy, chosen = _choose(distinct, request.sa, request.ke.group)
    ke, shared = answer_ke(request.ke, chosen.suite.dh, registry.entropy, "IKE_SA_INIT")
    sa.policy = policy
    nonce_r = registry.entropy.bytes(NONCE_LENGTH)
    _set_keys(sa, chosen, shared, request.nonce.data, nonce_r)
    sa.attempt.init.request = received.data
    _note_peer(sa, received.path, request.notifies, request.vendors)
    return (
        answer_sa(chosen, Protocol.IKE, numbers=policy.numbers),
        ke,
        Nonce(nonce_r),
        *_common_notifies(context, sa.spi_i, sa.spi_r, received.path),
        Notify(Notify2.CHILDLESS_IKEV2_SUPPORTED),
        VendorId(VPND),
    )


def _choose(candidates: tuple[PeerPolicy, ...], sa: Sa, group: int) -> tuple[PeerPolicy, Chosen]:
    """The first of them (at least one) with a common proposal; the group of the peer's value is preferred."""
    mismatches: list[Mismatch] = []
    for policy in candidates:
        chosen = choose_near(policy.numbers, decode_sa(sa, policy.numbers), policy.proposals, group)
        if isinstance(chosen, Chosen):
            return policy, chosen
        mismatches.append(chosen)
    raise NoProposalChosen(diagnosis=diagnoses.of_mismatch(mismatches[0], "IKE_SA_INIT"))


def _set_keys(sa: IkeSa, chosen: Chosen, shared: Secret, nonce_i: bytes, nonce_r: bytes) -> None:
    """The keys of the IKE SA, and the nonces that IKE_AUTH signs."""
    skeyseed = derive_skeyseed(chosen.suite.prf or "", shared, nonce_i, nonce_r)
    sa.set_keys(chosen.suite, derive_ike_keys(chosen.suite, skeyseed, nonce_i, nonce_r, sa.spi_i, sa.spi_r))
    sa.attempt.init.nonce_i, sa.attempt.init.nonce_r = nonce_i, nonce_r


def _common_notifies(context: Context, spi_i: bytes, spi_r: bytes, path: Path) -> tuple[Notify, ...]:
    """NAT detection and fragmentation.

    To force UDP, the source hash is random: it fits no address, so the peer sees a NAT (RFC 7296 2.23).
    """
    source = natt.detection_hash("sha1", spi_i, spi_r, path.local, path.local_port)
    if context.sa.policy.encapsulation is Encapsulation.UDP:
        source = context.registry.entropy.bytes(len(source))
    destination = natt.detection_hash("sha1", spi_i, spi_r, path.remote, path.remote_port)
    return (
        Notify(Notify2.NAT_DETECTION_SOURCE_IP, source),
        Notify(Notify2.NAT_DETECTION_DESTINATION_IP, destination),
        Notify(Notify2.FRAGMENTATION_SUPPORTED),
    )


def _note_peer(sa: IkeSa, path: Path, notifies: tuple[Notify, ...], vendors: tuple[VendorId, ...]) -> None:
    """What the peer's notifies and vendor IDs say about the path and about itself."""
    spi_r = sa.spi_r if sa.initiator else NO_SPI
    sources = tuple(n.data for n in notifies if n.type == Notify2.NAT_DETECTION_SOURCE_IP)
    destinations = tuple(n.data for n in notifies if n.type == Notify2.NAT_DETECTION_DESTINATION_IP)
    sa.nat = natt.detect("sha1", sa.spi_i, spi_r, path, sources, destinations)
    sa.peer = Peer(
        esp_in_udp=sa.nat.found or (bool(sources) and sa.policy.encapsulation is Encapsulation.UDP),
        fragmentation=notify_of(notifies, Notify2.FRAGMENTATION_SUPPORTED) is not None,
        knows_childless=notify_of(notifies, Notify2.CHILDLESS_IKEV2_SUPPORTED) is not None,
        vendor=recognise(vendor.data for vendor in vendors),
    )
