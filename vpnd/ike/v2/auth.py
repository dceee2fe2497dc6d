"""IKE_AUTH with a pre-shared key, and the first CHILD_SA (RFC 7296 sections 1.2 and 2.15).

    Initiator                                   Responder
    HDR, SK {IDi, [N(INITIAL_CONTACT),] IDr, AUTH,
             SAi2, TSi, TSr}         -->
                                     <--   HDR, SK {IDr, AUTH, SAr2, TSi, TSr}      up
                                     <--   HDR, SK {IDr, AUTH, N(TS_UNACCEPTABLE)}  up, without the child
                                     <--   HDR, SK {IDr, AUTH, N(INVALID_SYNTAX)}   refused after all
                                     <--   HDR, SK {N(AUTHENTICATION_FAILED)}       refused

The first CHILD_SA has no key exchange of its own. An initiator that wants no mapping yet begins without one,
if the peer has announced that it knows this (RFC 6023).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from vpnd.ike import natt
from vpnd.ike.contest import Verdict
from vpnd.ike.faults import Drop, Fault, Held
from vpnd.ike.outputs import ChildFailed, Failed
from vpnd.ike.session import Phase
from vpnd.ike.v2 import diagnoses, duplicates
from vpnd.ike.v2.create_child import find_policy, lowest
from vpnd.ike.v2.faults import AuthenticationFailed, IdentityTaken, InvalidSyntax, NoProposalChosen
from vpnd.ike.v2.informational import AuthenticationFailedNotice, DeleteChildren, DeleteIke
from vpnd.ike.v2.keys import auth_of_psk
from vpnd.ike.v2.messages import AuthRequest, AuthResponse, Received, Refusal, error_of, notify_of
from vpnd.ike.v2.negotiate import Offer, answer_offer, tell_offered
from vpnd.ike.v2.selectors import choose_mapping, decode_selectors
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity, describe_some
from vpnd.model.policy import ChildPolicy, PeerPolicy
from vpnd.model.secret import Secret
from vpnd.wire.iana import AuthMethod2, Exchange2, Notify2, Payload2, name_of
from vpnd.wire.ikev2 import Auth, Id, IdI, IdR, Notify, Payload

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

EXCHANGE = "IKE_AUTH"
CHILD_ERRORS = frozenset(
    {
        Notify2.NO_PROPOSAL_CHOSEN,
        Notify2.TS_UNACCEPTABLE,
        Notify2.SINGLE_PAIR_REQUIRED,
        Notify2.INTERNAL_ADDRESS_FAILURE,
        Notify2.FAILED_CP_REQUIRED,
        Notify2.NO_ADDITIONAL_SAS,
        Notify2.INVALID_KE_PAYLOAD,
        Notify2.INVALID_SELECTORS,
        Notify2.TEMPORARY_FAILURE,
    }
)
"""Errors beside AUTH that only concern the CHILD_SA; others end the IKE SA (RFC 7296 section 2.21.2)."""
DECOY_KEY = 32
"""Bytes of the random key that an unknown identity is checked with, to take as long as a known one."""


class AuthExchange:
    """The initiator's part."""

    kind = Exchange2.IKE_AUTH

    def __init__(self) -> None:
        self._offer: Offer | None = None

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        policy = session.policy
        id_i = IdI(policy.local_id.type, policy.local_id.value)
        # A peer that has another identity than the one that is asked for refuses: none is asked for.
        asked = () if policy.known_by_name else (IdR(policy.remote_id.type, policy.remote_id.value),)
        auth = _sign(session, policy.psk, session.initiator, id_i.encode())
        contact = (Notify(Notify2.INITIAL_CONTACT),) if _is_first_contact(session) else ()
        child = None if self._is_childless(session) else self._first_child(session)
        if child is not None:
            self._offer = Offer(session, child, key_exchange=False)
        return (
            id_i,
            *contact,
            *asked,
            Auth(AuthMethod2.SHARED_KEY_MIC, auth),
            *(self._offer.payloads() if self._offer else ()),
        )

    def answered(self, session: Session, now: float, received: Received) -> None:
        match received.message:
            case AuthResponse() as response:
                self._verify(session, received, response)
                error = error_of(response.notifies)
                if error is not None and error.type not in CHILD_ERRORS:
                    self.abandoned(session)
                    session.fail(now, diagnoses.of_auth_error(error, session.policy), DeleteIke())
                    return
                session.establish(now)
                self._child(session, now, response)
            case Refusal(notifies=notifies):
                error = error_of(notifies)
                if error is None:
                    raise InvalidSyntax(exchange=EXCHANGE, detail="an answer without AUTH")
                self._try_the_other_way(session, error)
                self.abandoned(session)
                session.fail(now, diagnoses.of_auth_error(error, session.policy))
            case _:
                raise InvalidSyntax(exchange=EXCHANGE)

    def failed(self, session: Session, now: float, fault: Fault) -> None:
        """The peer believes that the IKE SA is up: tell it otherwise (RFC 7296 section 2.21.2)."""
        self.abandoned(session)
        session.fail(now, fault.diagnosis, AuthenticationFailedNotice())

    def abandoned(self, session: Session) -> None:
        if self._offer is not None:
            self._offer.release()

    def _is_childless(self, session: Session) -> bool:
        """Whether to begin without a CHILD_SA: none is wanted, or the peer has refused to begin with one."""
        return session.knows_childless and (
            not session.wants_any or session.tunnel in session.registry.childless
        )

    def _first_child(self, session: Session) -> ChildPolicy | None:
        """The mapping to begin with: one that is wanted, else any, for a peer that knows no other way."""
        wanted = (find_policy(session, mapping) for mapping in session.take_wanted())
        return next(filter(None, wanted), next(iter(session.policy.children), None))

    def _try_the_other_way(self, session: Session, error: Notify) -> None:
        """A peer that insists on IKE SAs without a CHILD_SA says INVALID_SYNTAX (strongSwan: childless)."""
        if error.type == Notify2.INVALID_SYNTAX and session.knows_childless:
            session.registry.childless.symmetric_difference_update({session.tunnel})

    def _verify(self, session: Session, received: Received, response: AuthResponse) -> None:
        """The responder is who we expect, and holds the key. Raises AuthenticationFailed."""
        identity = _identity(response.id_r)
        if not session.policy.is_peer(identity):
            diagnosis = Diagnosis.of(
                Code.IDENTITY,
                exchange=EXCHANGE,
                theirs=identity.describe(),
                ours=describe_some(session.policy.peer_ids),
            )
            raise AuthenticationFailed(diagnosis=diagnosis)
        _check(session, session.policy.psk, response.auth, received.body_of(Payload2.IDR))

    def _child(self, session: Session, now: float, response: AuthResponse) -> None:
        """The piggybacked CHILD_SA; if it fails the IKE SA stays (RFC 7296 section 1.2)."""
        offer = self._offer
        if offer is None:
            return
        try:
            error = error_of(response.notifies)
            if response.sa is None or response.ts_i is None or response.ts_r is None:
                error = error or Notify(Notify2.NO_ADDITIONAL_SAS)
                diagnosis = diagnoses.of_child_error(error, EXCHANGE, offer.policy, pfs=False)
                raise NoProposalChosen(diagnosis=diagnosis)
            agreed = offer.accept(EXCHANGE, response.sa, response.ts_i, response.ts_r)
        except Fault as fault:
            offer.release()
            if response.sa is not None:
                session.outbox.enqueue(DeleteChildren((offer.spi_in,)))
            session.registry.emit(ChildFailed(session.tunnel, offer.policy.index, fault.diagnosis))
            return
        nonce_i, nonce_r = session.init.nonce_i, session.init.nonce_r
        sa = agreed.sa(session, nonce_i, nonce_r, None, initiator=True)
        session.children.add_first(now, sa, lowest(nonce_i, nonce_r), _is_to_prove(session, agreed.policy))


def respond(session: Session, now: float, received: Received) -> tuple[Payload, ...]:
    """The responder's part. Whatever is wrong with key or identity has one answer: AUTHENTICATION_FAILED."""
    request = received.message
    if not isinstance(request, AuthRequest):
        raise Drop("IKE_AUTH: not a request")
    session.policy = _authenticate(session, received, request)
    session.registry.proved(received.path.remote)
    session.tunnel = session.policy.name
    _contest(session, now, received)
    session.path = natt.proved_from(session.nat, session.path, received.path)
    id_r = IdR(session.policy.local_id.type, session.policy.local_id.value)
    auth = _sign(session, session.policy.psk, session.initiator, id_r.encode())
    if notify_of(request.notifies, Notify2.INITIAL_CONTACT) is not None:
        _replace_others(session, now)
    enough = duplicates.are_enough(session, now)
    session.establish(now)
    proof = (id_r, Auth(AuthMethod2.SHARED_KEY_MIC, auth))
    if enough:
        duplicates.close_soon(session, now)
        return (*proof, Notify(Notify2.NO_ADDITIONAL_SAS))
    return (*proof, *_first_child(session, now, request))


def _contest(session: Session, now: float, received: Received) -> None:
    """The tunnel may be another machine's. Raises Held, IdentityTaken."""
    match session.contest.decide(now, session, session.policy, received.path):
        case Verdict.WAIT:
            raise Held
        case Verdict.REFUSED:
            raise IdentityTaken(diagnosis=session.contest.refusal(received.path))
        case Verdict.WELCOME:
            return


def _first_child(session: Session, now: float, request: AuthRequest) -> tuple[Payload, ...]:
    """SAr2, TSi, TSr, or the notify that says why not; nothing for a childless request (RFC 6023)."""
    if request.sa is None or request.ts_i is None or request.ts_r is None:
        return ()
    try:
        agreed, payloads = answer_offer(
            session, EXCHANGE, request.sa, request.ts_i, request.ts_r, key_exchange=False
        )
    except Fault as fault:
        session.registry.emit(Failed(session.tunnel, fault.diagnosis, initiator=False))
        return (Notify(fault.notify or Notify2.NO_PROPOSAL_CHOSEN, fault.data),)
    nonce_i, nonce_r = session.init.nonce_i, session.init.nonce_r
    sa = agreed.sa(session, nonce_i, nonce_r, None, initiator=False)
    session.children.add_first(now, sa, lowest(nonce_i, nonce_r), _is_to_prove(session, agreed.policy))
    tell_offered(session, agreed)
    return (*payloads, *agreed.notifies)


def _authenticate(session: Session, received: Received, request: AuthRequest) -> PeerPolicy:
    """The tunnel whose identities and key the peer has. Raises AuthenticationFailed.

    Of several tunnels with the same identities the key decides, then the mapping that is asked for, for the
    peer may have forgotten them all, then whether one is still down. An unknown identity is checked against
    a random key, so that time does not tell it from a wrong key.
    """
    id_body = received.body_of(Payload2.IDI)
    known = session.registry.policies
    session.candidates = tuple(known[p.name] for p in session.candidates if p.name in known)
    named = [p for p in session.candidates if _names(p, request)]
    if len(named) > 1:
        named.sort(key=lambda p: (not _has_mapping(p, request), _is_up(session, p)))
    for policy in named:
        if hmac.compare_digest(request.auth.data, _expected(session, policy.psk, id_body)):
            if policy.proposals and session.suite_fits(policy):
                _check(session, policy.psk, request.auth, id_body)
                return policy
            raise AuthenticationFailed(diagnosis=Diagnosis.of(Code.P1_PROPOSAL, exchange=EXCHANGE))
    if named:
        session.policy, session.tunnel = named[0], named[0].name
        _check(session, named[0].psk, request.auth, id_body)
    _expected(session, Secret(session.registry.entropy.bytes(DECOY_KEY)), id_body)
    raise AuthenticationFailed(diagnosis=_identity_mismatch(session, request))


def _names(policy: PeerPolicy, request: AuthRequest) -> bool:
    """Whether the request's IDi, and IDr if it has one, are those of a tunnel."""
    if not policy.is_peer(_identity(request.id_i)):
        return False
    return request.id_r is None or policy.local_id.matches(_identity(request.id_r))


def _has_mapping(policy: PeerPolicy, request: AuthRequest) -> bool:
    """Whether the request's selectors mean a mapping of this tunnel, if it has any."""
    if request.ts_i is None or request.ts_r is None:
        return True
    local, remote = decode_selectors(request.ts_r), decode_selectors(request.ts_i)
    return bool(local and remote) and choose_mapping(policy.children, local, remote) is not None


def _is_up(session: Session, policy: PeerPolicy) -> bool:
    return session.registry.established(policy.name) is not None


def _identity_mismatch(session: Session, request: AuthRequest) -> Diagnosis:
    """Which of the two identities no tunnel between these addresses has."""
    id_i = _identity(request.id_i)
    known = [p for p in session.candidates if p.is_peer(id_i)]
    if known and request.id_r is not None:
        session.policy, session.tunnel = known[0], known[0].name
        theirs, ours = _identity(request.id_r), [p.local_id for p in known]
        detail = "the peer looks for another identity than this gateway's (IDr)"
    else:
        theirs, ours = id_i, [one for p in session.candidates for one in p.peer_ids]
        detail = "the peer says it is another than is configured (IDi)"
    return Diagnosis.of(
        Code.IDENTITY,
        exchange=EXCHANGE,
        notify="AUTHENTICATION_FAILED",
        theirs=theirs.describe(),
        ours=describe_some(ours),
        detail=detail,
    )


def _check(session: Session, psk: Secret, auth: Auth, id_body: bytes) -> None:
    """The peer's proof. Raises AuthenticationFailed unless method and value are right."""
    if auth.method != AuthMethod2.SHARED_KEY_MIC:
        diagnosis = Diagnosis.of(
            Code.P1_AUTH_METHOD,
            exchange=EXCHANGE,
            theirs=name_of(AuthMethod2, auth.method),
            ours=AuthMethod2.SHARED_KEY_MIC.name,
        )
        raise AuthenticationFailed(diagnosis=diagnosis)
    if not hmac.compare_digest(auth.data, _expected(session, psk, id_body)):
        raise AuthenticationFailed(exchange=EXCHANGE, ours=psk.fingerprint())


def _expected(session: Session, psk: Secret, id_body: bytes) -> bytes:
    """What the peer's AUTH must be."""
    return _sign(session, psk, not session.initiator, id_body)


def _sign(session: Session, psk: Secret, initiator: bool, id_body: bytes) -> bytes:
    """The AUTH data of one side."""
    init, keys = session.init, session.keys
    message, nonce, side = (
        (init.request, init.nonce_r, keys.initiator)
        if initiator
        else (init.response, init.nonce_i, keys.responder)
    )
    return auth_of_psk(keys.prf, psk, side.sk_p, message, nonce, id_body)


def _is_first_contact(session: Session) -> bool:
    """Whether to say INITIAL_CONTACT: no SA with this peer is here, and no other tunnel has its identities.

    Peers apply it to the identity pair, so a second tunnel between the same two would end the first.
    """
    registry, policy = session.registry, session.policy
    return registry.sharing_identities(policy) <= 1 and registry.established(policy.name) is None


def _replace_others(session: Session, now: float) -> None:
    """INITIAL_CONTACT: the peer has lost what it had; older IKE SAs of this tunnel go (RFC 7296 2.4)."""
    facts = {"exchange": EXCHANGE, "notify": "INITIAL_CONTACT", "peer": session.path.remote}
    diagnosis = Diagnosis.of(Code.PEER_RESTARTED, **facts)
    for other in session.registry.sessions(session.tunnel):
        if other is not session and other.phase is Phase.ESTABLISHED:
            other.close(now, diagnosis)


def _identity(payload: Id) -> Identity:
    return Identity(payload.type, payload.value)


def _is_to_prove(session: Session, child: ChildPolicy) -> bool:
    """Whether the first CHILD_SA is rekeyed early, to see whether both sides agree on its successor."""
    return bool(child.pfs) or session.registry.has_rekey_to_prove(session.policy)
