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

from vpnd.ike import natt
from vpnd.ike.commands import Close
from vpnd.ike.contest import Verdict
from vpnd.ike.faults import Fault
from vpnd.ike.message import Received
from vpnd.ike.outputs import ChildFailed, Failed
from vpnd.ike.session import Phase
from vpnd.ike.v2 import diagnoses, duplicates, life
from vpnd.ike.v2.causes import AttemptFailed, AttemptWithdrawn, Authenticated, Contested
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.exchanges.create_child import find_policy, follow_policy
from vpnd.ike.v2.exchanges.informational import AuthenticationFailedNotice, DeleteChildren, DeleteIke
from vpnd.ike.v2.faults import AuthenticationFailed, IdentityTaken, InvalidSyntax, NoProposalChosen
from vpnd.ike.v2.ike_sa import IkeSa
from vpnd.ike.v2.keys import auth_of_psk
from vpnd.ike.v2.messages import AuthRequest, AuthResponse, Refusal, error_of, notify_of
from vpnd.ike.v2.negotiate import Agreed, Offer, answer_offer, tell_offered
from vpnd.ike.v2.requests import Exchange
from vpnd.ike.v2.selectors import choose_mapping, decode_selectors
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity, describe_some
from vpnd.model.policy import ChildPolicy, PeerPolicy
from vpnd.model.secret import Secret
from vpnd.wire.iana import AuthMethod2, Exchange2, Notify2, name_of
from vpnd.wire.ikev2 import Auth, Id, IdI, IdR, Notify, Payload

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


class AuthExchange(Exchange):
    """The initiator's part."""

    kind = Exchange2.IKE_AUTH

    def __init__(self) -> None:
        self._offer: Offer | None = None

    def request(self, context: Context, now: float) -> tuple[Payload, ...] | None:
        sa, policy = context.sa, context.sa.policy
        id_i = IdI(policy.local_id.type, policy.local_id.value)
        # A peer that has another identity than the one that is asked for refuses: none is asked for.
        asked = () if policy.known_by_name else (IdR(policy.remote_id.type, policy.remote_id.value),)
        psk = sa.psk = context.registry.shared_keys.to_begin_with(policy)
        auth = _sign(sa, psk, sa.initiator, id_i.encode())
        contact = (Notify(Notify2.INITIAL_CONTACT),) if context.registry.is_first_contact(policy) else ()
        child = None if _is_childless(context) else _wanted_first(context)
        if child is not None:
            self._offer = Offer(context, child, key_exchange=False)
        return (
            id_i,
            *contact,
            *asked,
            Auth(AuthMethod2.SHARED_KEY_MIC, auth),
            *(self._offer.payloads() if self._offer else ()),
        )

    def accepted(self, context: Context, now: float, received: Received) -> Authenticated | AttemptWithdrawn:
        """The responder's proof; it may have failed in another way all the same."""
        response = received.of(AuthResponse)
        theirs = _verify(context, received, response)
        error = error_of(response.notifies)
        if error is not None and error.type not in CHILD_ERRORS:
            self._note_childless(context, error)
            self.abandoned(context)
            return AttemptWithdrawn(diagnoses.of_auth_error(error, context.sa.policy), DeleteIke())
        return Authenticated(received, theirs, self._offer)

    def refused(self, context: Context, now: float, received: Received) -> AttemptFailed:
        error, sa = error_of(received.of(Refusal).notifies), context.sa
        if error is None:
            raise InvalidSyntax(exchange=EXCHANGE, detail="an answer without AUTH")
        self._note_childless(context, error)
        if error.type == Notify2.AUTHENTICATION_FAILED and context.registry.shared_keys.refused(
            sa.policy, sa.psk
        ):
            self._begin_again(context)
        self.abandoned(context)
        return AttemptFailed(diagnoses.of_auth_error(error, sa.policy))

    def failed(self, context: Context, now: float, fault: Fault) -> AttemptWithdrawn:
        """The peer believes that the IKE SA is up: tell it otherwise (RFC 7296 section 2.21.2)."""
        self.abandoned(context)
        return AttemptWithdrawn(fault.diagnosis, AuthenticationFailedNotice())

    def abandoned(self, context: Context) -> None:
        if self._offer is not None:
            self._offer.release()

    def _note_childless(self, context: Context, error: Notify) -> None:
        """A peer that insists on IKE SAs without a CHILD_SA refuses others so, strongSwan beside its AUTH.

        The other way is tried at once; a peer that refuses that as well has another reason.
        """
        sa, registry = context.sa, context.registry
        if error.type != Notify2.INVALID_SYNTAX or not sa.peer.knows_childless:
            return
        registry.policies.childless.symmetric_difference_update({sa.tunnel})
        registry.policies.refused_for_child.symmetric_difference_update({sa.tunnel})
        if sa.tunnel in registry.policies.refused_for_child:
            self._begin_again(context)

    def _begin_again(self, context: Context) -> None:
        """Another attempt takes the place of this one at once."""
        sa, registry = context.sa, context.registry
        sa.attempt.begins_again = True
        if sa.attempt.beside:
            registry.reinitiating.append(sa.tunnel)
        else:
            asked = () if self._offer is None else (self._offer.policy.index,)
            registry.beginning_again.append((sa.tunnel, (*asked, *sa.attempt.wanted)))


def begin(context: Context, now: float, authenticated: Authenticated) -> None:
    """Initiator: the IKE SA is up, and perhaps its first CHILD_SA; without that it stays (RFC 7296 1.2)."""
    life.begin(context, now)
    context.note_keys(now, context.sa.psk or authenticated.psk, authenticated.psk)
    context.registry.policies.refused_for_child.discard(context.sa.tunnel)
    offer, response = authenticated.offer, authenticated.received.of(AuthResponse)
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
            context.requests.ask(DeleteChildren((offer.spi_in,)))
        context.emit(ChildFailed(context.sa.tunnel, offer.policy.index, fault.diagnosis))
        return
    _add_first_child(context, now, agreed, initiator=True)


def respond(context: Context, now: float, received: Received) -> Authenticated | Contested:
    """The responder's part. Whatever is wrong with key or identity has one answer: AUTHENTICATION_FAILED."""
    sa = context.sa
    sa.policy, psk = _authenticate(context, received, received.of(AuthRequest))
    sa.psk = psk
    context.registry.strangers.proved(received.path.remote)
    match context.contest.decide(now, sa.policy, received.path):
        case Verdict.WAIT:
            return Contested(received)
        case Verdict.REFUSED:
            raise IdentityTaken(diagnosis=context.contest.refusal(received.path))
        case _:
            return Authenticated(received, psk)


def admit(context: Context, now: float, authenticated: Authenticated) -> tuple[Payload, ...]:
    """Responder: the IKE SA is up, and the answer says so."""
    received, sa = authenticated.received, context.sa
    request = received.of(AuthRequest)
    sa.path = natt.proved_from(sa.nat, sa.path, received.path)
    id_r = IdR(sa.policy.local_id.type, sa.policy.local_id.value)
    auth = _sign(sa, authenticated.psk, sa.initiator, id_r.encode())
    if notify_of(request.notifies, Notify2.INITIAL_CONTACT) is not None:
        _replace_others(context, now)
    enough = duplicates.are_enough(context, now)
    life.begin(context, now)
    context.note_keys(now, authenticated.psk, authenticated.psk)
    proof = (id_r, Auth(AuthMethod2.SHARED_KEY_MIC, auth))
    if enough:
        duplicates.close_soon(context, now)
        return (*proof, Notify(Notify2.NO_ADDITIONAL_SAS))
    return (*proof, *_first_child(context, now, request))


def _is_childless(context: Context) -> bool:
    """Whether to begin without a CHILD_SA: none is wanted, or the peer has refused to begin with one."""
    sa, childless = context.sa, context.registry.policies.childless
    return sa.peer.knows_childless and (not sa.attempt.wanted or sa.tunnel in childless)


def _wanted_first(context: Context) -> ChildPolicy | None:
    """The mapping to begin with: one that is wanted, else any, for a peer that knows no other way."""
    wanted = context.sa.attempt.wanted
    while wanted:
        mapping = next(iter(wanted))
        del wanted[mapping]
        policy = find_policy(context, mapping)
        if policy is not None:
            return policy
    return next(iter(context.sa.policy.children), None)


def _verify(context: Context, received: Received, response: AuthResponse) -> Secret:
    """The responder is who we expect, and holds this key of ours. Raises AuthenticationFailed."""
    sa = context.sa
    identity, id_body = _identity(response.id_r), received.body_of(response.id_r)
    keys = context.registry.shared_keys.of(sa.policy)
    if not sa.policy.is_peer(identity):
        theirs, ours = identity.describe(), describe_some(sa.policy.peer_ids)
        by_key = response.auth.method == AuthMethod2.SHARED_KEY_MIC
        proved = by_key and _key_of(sa, keys, response.auth, id_body) is not None
        raise AuthenticationFailed(
            code=Code.IDENTITY, exchange=EXCHANGE, theirs=theirs, ours=ours, key="proved" if proved else None
        )
    return _check(sa, keys, response.auth, id_body)


def _first_child(context: Context, now: float, request: AuthRequest) -> tuple[Payload, ...]:
    """SAr2, TSi, TSr, or the notify that says why not; nothing for a childless request (RFC 6023)."""
    if request.sa is None or request.ts_i is None or request.ts_r is None:
        return ()
    try:
        agreed, payloads = answer_offer(
            context, EXCHANGE, request.sa, request.ts_i, request.ts_r, key_exchange=False
        )
    except Fault as fault:
        context.emit(Failed(context.sa.tunnel, fault.diagnosis, initiator=False))
        return (Notify(fault.notify, fault.data),)
    _add_first_child(context, now, agreed, initiator=False)
    tell_offered(context, agreed)
    return (*payloads, *agreed.notifies)


def _add_first_child(context: Context, now: float, agreed: Agreed, initiator: bool) -> None:
    """It is rekeyed early where that is to show whether both sides agree on its successor."""
    init = context.sa.attempt.init
    child = agreed.sa(context.sa, init.nonce_i, init.nonce_r, None, initiator)
    prove = bool(agreed.policy.pfs) or context.registry.policies.has_rekey_to_prove(context.sa.policy)
    context.children.add_first(now, child, min(init.nonce_i, init.nonce_r), prove)
    follow_policy(context, now, agreed.policy, child.spi_in)


def _authenticate(context: Context, received: Received, request: AuthRequest) -> tuple[PeerPolicy, Secret]:
    """The tunnel whose identities and key the peer has, and that key. Raises AuthenticationFailed.

    Of several tunnels with the same identities the key decides, then the mapping that is asked for, for the
    peer may have forgotten them all, then whether one is still down. An unknown identity is checked against
    a random key, so that time does not tell it from a wrong key.
    """
    id_body = received.body_of(request.id_i)
    sa, known = context.sa, context.registry.policies.by_name
    sa.attempt.candidates = tuple(known[p.name] for p in sa.attempt.candidates if p.name in known)
    named = [p for p in sa.attempt.candidates if _names(p, request)]
    if len(named) > 1:
        named.sort(key=lambda p: (not _has_mapping(p, request), _is_up(context, p)))
    for policy in named:
        psk = _key_of(sa, policy.keys, request.auth, id_body)
        if psk is not None:
            if policy.proposals and sa.suite_fits(policy):
                key = _check(sa, (psk,), request.auth, id_body)
                # Of all between the same addresses this is the one: the others are not kept with it.
                sa.attempt.candidates = (policy,)
                return policy, key
            raise AuthenticationFailed(code=Code.P1_PROPOSAL, exchange=EXCHANGE)
    if named:
        sa.policy = named[0]
        _check(sa, named[0].keys, request.auth, id_body)
    _sign(sa, Secret(context.registry.entropy.bytes(DECOY_KEY)), not sa.initiator, id_body)
    raise _another_identity(context, request)


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


def _is_up(context: Context, policy: PeerPolicy) -> bool:
    return context.registry.sessions.established(policy.name) is not None


def _another_identity(context: Context, request: AuthRequest) -> AuthenticationFailed:
    """Which of the two identities no tunnel between these addresses has."""
    id_i = _identity(request.id_i)
    known = [p for p in context.sa.attempt.candidates if p.is_peer(id_i)]
    if known and request.id_r is not None:
        context.sa.policy = known[0]
        theirs, ours = _identity(request.id_r), [p.local_id for p in known]
        whose, detail = "ours", "the peer looks for another identity than this gateway's (IDr)"
    else:
        theirs, ours = id_i, [one for p in context.sa.attempt.candidates for one in p.peer_ids]
        whose, detail = "theirs", "the peer says it is another than is configured (IDi)"
    return AuthenticationFailed(
        code=Code.IDENTITY,
        exchange=EXCHANGE,
        notify="AUTHENTICATION_FAILED",
        theirs=theirs.describe(),
        ours=describe_some(ours),
        whose=whose,
        detail=detail,
    )


def _key_of(sa: IkeSa, keys: tuple[Secret, ...], auth: Auth, id_body: bytes) -> Secret | None:
    """The key that the peer's AUTH data is made with; each is tried, whichever fits."""
    fits = [psk for psk in keys if hmac.compare_digest(auth.data, _sign(sa, psk, not sa.initiator, id_body))]
    return next(iter(fits), None)


def _check(sa: IkeSa, keys: tuple[Secret, ...], auth: Auth, id_body: bytes) -> Secret:
    """The peer's proof: with which key. Raises AuthenticationFailed unless method and value are right."""
    if auth.method != AuthMethod2.SHARED_KEY_MIC:
        theirs, ours = name_of(AuthMethod2, auth.method), AuthMethod2.SHARED_KEY_MIC.name
        raise AuthenticationFailed(code=Code.P1_AUTH_METHOD, exchange=EXCHANGE, theirs=theirs, ours=ours)
    psk = _key_of(sa, keys, auth, id_body)
    if psk is None:
        raise AuthenticationFailed(exchange=EXCHANGE, ours=" or ".join(one.fingerprint() for one in keys))
    return psk


def _sign(sa: IkeSa, psk: Secret, initiator: bool, id_body: bytes) -> bytes:
    """The AUTH data of that side: ours, or what the peer's must be."""
    init, keys = sa.attempt.init, sa.keys
    message, nonce, side = (
        (init.request, init.nonce_r, keys.initiator)
        if initiator
        else (init.response, init.nonce_i, keys.responder)
    )
    return auth_of_psk(keys.prf, psk, side.sk_p, message, nonce, id_body)


def _replace_others(context: Context, now: float) -> None:
    """INITIAL_CONTACT: the peer has lost what it had; older IKE SAs of this tunnel go (RFC 7296 2.4)."""
    peer = context.sa.path.remote
    diagnosis = Diagnosis.of(Code.PEER_RESTARTED, exchange=EXCHANGE, notify="INITIAL_CONTACT", peer=peer)
    for other in context.registry.sessions.of(context.sa.tunnel):
        if other.sa.phase is Phase.ESTABLISHED:
            other.command(now, Close(diagnosis))


def _identity(payload: Id) -> Identity:
    return Identity(payload.type, payload.value)
