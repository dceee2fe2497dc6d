"""CREATE_CHILD_SA for a further CHILD_SA (RFC 7296 section 1.3.1).

Initiator                                   Responder
HDR, SK {SA, Ni, [KEi,] TSi, TSr}    -->
                                     <--   HDR, SK {SA, Nr, [KEr,] TSi, TSr}
                                     <--   HDR, SK {N(INVALID_KE_PAYLOAD)}     another group, please
                                     <--   HDR, SK {N(TS_UNACCEPTABLE)}, ...   refused
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vpnd.crypto.dh import KeyPair
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.outputs import ChildFailed
from vpnd.ike.v2 import diagnoses
from vpnd.ike.v2.faults import InvalidKe, InvalidSyntax, NoAdditionalSas, NoProposalChosen, TemporaryFailure
from vpnd.ike.v2.informational import DeleteChildren
from vpnd.ike.v2.key_exchange import check_value, shared_secret
from vpnd.ike.v2.messages import ChildRequest, ChildResponse, Received, Refusal, error_of
from vpnd.ike.v2.negotiate import Agreed, Offer, answer_offer, tell_offered
from vpnd.model.child import ChildSa
from vpnd.model.policy import ChildPolicy
from vpnd.model.proposals import NO_GROUP
from vpnd.model.secret import Secret
from vpnd.model.selectors import Selector
from vpnd.wire.iana import Exchange2, Notify2
from vpnd.wire.ikev2 import KeyExchange, Nonce, Notify, Payload

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

EXCHANGE = "CREATE_CHILD_SA"
NONCE_LENGTH = 32
"""At least half the key size of any PRF in use (RFC 7296 section 2.10)."""
INVALID_KE_ROUNDS = 3
"""Restarts with another group."""
BUSY_ROUNDS = 4
"""Restarts after TEMPORARY_FAILURE before it is told as a failure: 15 to 30 seconds in all."""
SHORTEST_BUSY_WAIT = 1.0
"""Seconds that the first restart waits at least, and at most twice that; each further one doubles it.

The mapping has no SA and carries nothing meanwhile, so the wait of a rekey, whose old SA works, would be
an outage. What the peer was busy with takes it a few round trips.
"""
SPARE_CHILDREN = 16
"""CHILD_SAs beyond two for each mapping: enough for any race, a bound for a peer that only ever asks."""


class ChildNegotiation:
    """Our request for one CHILD_SA, new or as a successor: nonce, SPI and key pair.

    Where PFS is off and the peer refuses, it is tried once with the group of the IKE SA, or with the one that
    the peer names, for the peer may want PFS. `before` is the group of the SA that is succeeded: what the
    peer has agreed to then comes first.
    """

    def __init__(
        self,
        session: Session,
        policy: ChildPolicy,
        selectors: tuple[tuple[Selector, ...], tuple[Selector, ...]] | None = None,
        before: int | None = None,
    ) -> None:
        self.policy = policy
        self.nonce = session.registry.entropy.bytes(NONCE_LENGTH)
        self.offer = Offer(session, policy, key_exchange=True, selectors=selectors)
        self._key_pair: KeyPair | None = None
        self._refused: list[int] = []
        first = policy.pfs[0] if policy.pfs else before
        if first:
            self._use(session, first)

    @property
    def with_key_exchange(self) -> bool:
        """Whether the request carries KE: perfect forward secrecy for the child."""
        return self._key_pair is not None

    def payloads(self) -> tuple[Payload, ...]:
        """SA, Ni, [KEi,] TSi, TSr."""
        sa, ts_i, ts_r = self.offer.payloads()
        ke = (KeyExchange(self._key_pair.group, self._key_pair.public),) if self._key_pair else ()
        return (sa, Nonce(self.nonce), *ke, ts_i, ts_r)

    @property
    def group(self) -> int:
        """The group of the key exchange that is asked for, NO_GROUP without one."""
        return self._key_pair.group if self._key_pair else NO_GROUP

    def retry_with(self, session: Session, notify: Notify) -> bool:
        """Whether to ask again after this refusal: with the group that the peer names or may want."""
        group = self._other_group(session, notify)
        self._refused.append(self.group)
        if group is None or len(self._refused) > INVALID_KE_ROUNDS:
            return False
        self._use(session, group)
        return True

    def _other_group(self, session: Session, notify: Notify) -> int | None:
        """What to ask for next, NO_GROUP for no key exchange; None: nothing else comes into question."""
        acceptable = self.policy.pfs or session.groups_on_request()
        if notify.type == Notify2.INVALID_KE_PAYLOAD:
            named = int.from_bytes(notify.data, "big") if len(notify.data) == 2 else 0
            return named if named in acceptable and named != self.group else None
        if notify.type != Notify2.NO_PROPOSAL_CHOSEN or self.policy.pfs:
            return None
        other = NO_GROUP if self.group else acceptable[0]
        return other if other not in self._refused else None

    def _use(self, session: Session, group: int) -> None:
        self._key_pair = KeyPair.generate(group, session.registry.entropy) if group else None
        if not self.policy.pfs:
            self.offer.ask_for(group)

    def accept(self, session: Session, response: ChildResponse) -> ChildSa:
        """The agreed CHILD_SA with its keys. Raises Fault; the SPI stays to be released."""
        agreed = self.offer.accept(EXCHANGE, response.sa, response.ts_i, response.ts_r)
        shared = self._shared(agreed, response.ke)
        return agreed.sa(session, self.nonce, response.nonce.data, shared, initiator=True)

    def release(self) -> None:
        """Nothing came of it."""
        self.offer.release()

    def _shared(self, agreed: Agreed, ke: KeyExchange | None) -> Secret | None:
        ours = self._key_pair
        if agreed.suite.dh is None and ke is None:
            return None
        if ours is None or ke is None or not ours.group == ke.group == agreed.suite.dh:
            raise InvalidSyntax(exchange=EXCHANGE, detail="KE does not fit the chosen proposal")
        return shared_secret(ours, ke, EXCHANGE)


class CreateChild:
    """The initiator's part for a mapping that has no CHILD_SA."""

    kind = Exchange2.CREATE_CHILD_SA

    def __init__(self, mapping: int) -> None:
        self.mapping = mapping
        self._negotiation: ChildNegotiation | None = None
        self._busy_rounds = 0

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        policy = find_policy(session, self.mapping)
        if policy is None or session.children.live(self.mapping) is not None:
            self.abandoned(session)
            return None
        self._negotiation = self._negotiation or ChildNegotiation(session, policy)
        return self._negotiation.payloads()

    def answered(self, session: Session, now: float, received: Received) -> None:
        negotiation = self._negotiation
        if negotiation is None:
            raise InvalidSyntax(exchange=EXCHANGE)
        match received.message:
            case ChildResponse() as response:
                sa = negotiation.accept(session, response)
                self._negotiation = None
                session.children.add(now, sa, lowest(negotiation.nonce, response.nonce.data))
            case Refusal(notifies=notifies) if (error := error_of(notifies)) is not None:
                self._refused(session, now, negotiation, error)
            case _:
                raise InvalidSyntax(exchange=EXCHANGE, detail="an answer that fits no CHILD_SA")

    def failed(self, session: Session, now: float, fault: Fault) -> None:
        """The peer has made an SA that we cannot use: delete it, and say why."""
        if self._negotiation is not None:
            session.outbox.enqueue(DeleteChildren((self._negotiation.offer.spi_in,)))
        self.abandoned(session)
        session.registry.emit(ChildFailed(session.tunnel, self.mapping, fault.diagnosis))

    def abandoned(self, session: Session) -> None:
        if self._negotiation is not None:
            self._negotiation.release()
            self._negotiation = None

    def _refused(self, session: Session, now: float, negotiation: ChildNegotiation, error: Notify) -> None:
        if negotiation.retry_with(session, error):
            session.outbox.enqueue_first(self)
            return
        if error.type == Notify2.TEMPORARY_FAILURE and self._busy_rounds < BUSY_ROUNDS:
            wait = SHORTEST_BUSY_WAIT * 2**self._busy_rounds
            self._busy_rounds += 1
            session.outbox.postpone(now + wait * (1 + session.registry.entropy.below(1001) / 1000), self)
            return
        diagnosis = diagnoses.of_child_error(
            error, EXCHANGE, negotiation.policy, negotiation.with_key_exchange
        )
        self.abandoned(session)
        session.registry.emit(ChildFailed(session.tunnel, self.mapping, diagnosis))


def answer_child(
    session: Session, request: ChildRequest, mapping: int | None = None
) -> tuple[ChildSa, bytes, tuple[Payload, ...]]:
    """The responder's part, new child or successor: the SA, its lowest nonce, and SA, Nr, [KEr,] TSi, TSr.

    `mapping` is that of the SA which is succeeded. Raises Fault with nothing taken.
    """
    children = session.children
    if len(children) >= 2 * len(session.policy.children) + SPARE_CHILDREN and not children.make_room():
        raise NoAdditionalSas(exchange=EXCHANGE)
    agreed, (sa_payload, ts_i, ts_r) = answer_offer(
        session,
        EXCHANGE,
        request.sa,
        request.ts_i,
        request.ts_r,
        key_exchange=True,
        group=request.ke.group if request.ke else None,
        mapping=mapping,
    )
    try:
        key_pair, shared = _key_exchange(session, agreed, request.ke)
    except Fault:
        session.registry.release_esp_spi(agreed.spi_in)
        raise
    nonce_i, nonce_r = request.nonce.data, session.registry.entropy.bytes(NONCE_LENGTH)
    sa = agreed.sa(session, nonce_i, nonce_r, shared, initiator=False)
    ke = (KeyExchange(key_pair.group, key_pair.public),) if key_pair else ()
    tell_offered(session, agreed)
    return sa, lowest(nonce_i, nonce_r), (sa_payload, Nonce(nonce_r), *ke, ts_i, ts_r, *agreed.notifies)


def respond(session: Session, now: float, received: Received) -> tuple[Payload, ...]:
    """A peer's request for a further CHILD_SA. One that duplicates ours is accepted; the older one goes."""
    request = received.message
    if not isinstance(request, ChildRequest):
        raise Drop("CREATE_CHILD_SA: not a request")
    if session.rekeying is not None:
        session.rekeying.crossed = True
        raise TemporaryFailure(exchange=EXCHANGE)
    sa, lowest_nonce, payloads = answer_child(session, request)
    session.children.add(now, sa, lowest_nonce)
    return payloads


def find_policy(session: Session, mapping: int) -> ChildPolicy | None:
    """The policy of a mapping, if the tunnel has it."""
    return next((child for child in session.policy.children if child.index == mapping), None)


def lowest(nonce_i: bytes, nonce_r: bytes) -> bytes:
    """The lower of an exchange's nonces, as collisions are decided by (RFC 7296 section 2.8.1)."""
    return min(nonce_i, nonce_r)


def _key_exchange(
    session: Session, agreed: Agreed, ke: KeyExchange | None
) -> tuple[KeyPair | None, Secret | None]:
    """Our half of the child's key exchange, if the chosen proposal has one."""
    group = agreed.suite.dh
    if group is None:
        return None, None
    if ke is None:
        raise NoProposalChosen(diagnosis=diagnoses.of_missing_ke(EXCHANGE, group, agreed.policy))
    if ke.group != group:
        raise InvalidKe.wanting(group)
    check_value(ke, EXCHANGE)
    key_pair = KeyPair.generate(group, session.registry.entropy)
    return key_pair, shared_secret(key_pair, ke, EXCHANGE)
