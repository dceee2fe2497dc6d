"""CREATE_CHILD_SA for a further CHILD_SA (RFC 7296 section 1.3.1).

Initiator                                   Responder
HDR, SK {SA, Ni, [KEi,] TSi, TSr}    -->
                                     <--   HDR, SK {SA, Nr, [KEr,] TSi, TSr}
                                     <--   HDR, SK {N(INVALID_KE_PAYLOAD)}     another group, please
                                     <--   HDR, SK {N(TS_UNACCEPTABLE)}, ...   refused
"""

from __future__ import annotations

from vpnd.crypto.dh import KeyPair
from vpnd.ike.faults import Fault
from vpnd.ike.key_exchange import NONCE_LENGTH
from vpnd.ike.message import Received
from vpnd.ike.outputs import ChildFailed
from vpnd.ike.v2 import diagnoses
from vpnd.ike.v2.children import Fate
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.exchanges.informational import DeleteChildren
from vpnd.ike.v2.exchanges.rekey_ike import EXCHANGE, RekeyIke
from vpnd.ike.v2.faults import NoAdditionalSas, NoProposalChosen, TemporaryFailure
from vpnd.ike.v2.key_exchange import INVALID_KE_ROUNDS, answer_ke, conclude_ke, required
from vpnd.ike.v2.ladder import group_wanted
from vpnd.ike.v2.messages import ChildRequest, ChildResponse, Refusal, error_of
from vpnd.ike.v2.negotiate import Offer, answer_offer, tell_offered
from vpnd.ike.v2.requests import Exchange
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy
from vpnd.model.proposals import NO_GROUP
from vpnd.model.selectors import Selector
from vpnd.wire.iana import Exchange2, Notify2
from vpnd.wire.ikev2 import KeyExchange, Nonce, Notify, Payload

BUSY_ROUNDS = 4
"""Restarts after TEMPORARY_FAILURE before it is reported as a failure: 15 to 30 seconds in all."""
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
        context: Context,
        policy: ChildPolicy,
        selectors: tuple[tuple[Selector, ...], tuple[Selector, ...]] | None = None,
        before: int | None = None,
    ) -> None:
        self.policy = policy
        self.nonce = context.registry.entropy.bytes(NONCE_LENGTH)
        self.offer = Offer(context, policy, key_exchange=True, selectors=selectors)
        self._key_pair: KeyPair | None = None
        self._refused: list[int] = []
        first = policy.pfs[0] if policy.pfs else before
        if first:
            self._use(context, first)

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
        return self._key_pair.group if self._key_pair else NO_GROUP

    def retry_with(self, context: Context, notify: Notify) -> bool:
        """Whether to ask again after this refusal: with the group that the peer names or may want."""
        group = self._other_group(context, notify)
        self._refused.append(self.group)
        if group is None or len(self._refused) > INVALID_KE_ROUNDS:
            return False
        self._use(context, group)
        return True

    def _other_group(self, context: Context, notify: Notify) -> int | None:
        """What to ask for next, NO_GROUP for no key exchange; None: nothing else comes into question."""
        acceptable = self.policy.pfs or context.sa.groups_on_request()
        if notify.type == Notify2.INVALID_KE_PAYLOAD:
            named = group_wanted(notify)
            return named if named is not None and named in acceptable and named != self.group else None
        if notify.type != Notify2.NO_PROPOSAL_CHOSEN or self.policy.pfs:
            return None
        other = NO_GROUP if self.group else acceptable[0]
        return other if other not in self._refused else None

    def _use(self, context: Context, group: int) -> None:
        self._key_pair = KeyPair.generate(group, context.registry.entropy) if group else None
        if not self.policy.pfs:
            self.offer.ask_for(group)

    def accept(self, context: Context, response: ChildResponse) -> ChildSa:
        """The agreed CHILD_SA with its keys. Raises Fault; the SPI stays to be released."""
        agreed = self.offer.accept(EXCHANGE, response.sa, response.ts_i, response.ts_r)
        group, shared = agreed.suite.dh, None
        if group is not None or response.ke is not None:
            shared = conclude_ke(self._key_pair, response.ke, group, EXCHANGE)
        return agreed.sa(context.sa, self.nonce, response.nonce.data, shared, initiator=True)


class ChildExchange(Exchange):
    """What a new CHILD_SA and a successor of one have in common, for the initiator."""

    kind = Exchange2.CREATE_CHILD_SA
    changes_children = True

    def __init__(self, mapping: int) -> None:
        self.mapping = mapping
        self._negotiation: ChildNegotiation | None = None

    def accepted(self, context: Context, now: float, received: Received) -> None:
        """The peer has made the CHILD_SA."""
        negotiation, response = required(self._negotiation), received.of(ChildResponse)
        sa = negotiation.accept(context, response)
        self._negotiation = None
        self._made(context, now, sa, min(negotiation.nonce, response.nonce.data))
        follow_policy(context, now, negotiation.policy, sa.spi_in)

    def _made(self, context: Context, now: float, sa: ChildSa, lowest_nonce: bytes) -> None:
        context.children.add(now, sa, lowest_nonce)

    def failed(self, context: Context, now: float, fault: Fault) -> None:
        """The peer has made an SA that we cannot use: delete it, and say why."""
        context.requests.ask(DeleteChildren((required(self._negotiation).offer.spi_in,)))
        self.abandoned(context)
        context.emit(ChildFailed(context.sa.tunnel, self.mapping, fault.diagnosis))

    def abandoned(self, context: Context) -> None:
        if self._negotiation is not None:
            self._negotiation.offer.release()
            self._negotiation = None


class CreateChild(ChildExchange):
    """The initiator's part for a mapping that has no CHILD_SA."""

    def __init__(self, mapping: int) -> None:
        super().__init__(mapping)
        self._busy_rounds = 0

    def request(self, context: Context, now: float) -> tuple[Payload, ...] | None:
        policy = find_policy(context, self.mapping)
        if policy is None or context.children.live(self.mapping) is not None:
            self.abandoned(context)
            return None
        self._negotiation = self._negotiation or ChildNegotiation(context, policy)
        return self._negotiation.payloads()

    def refused(self, context: Context, now: float, received: Received) -> None:
        """Ask again in another way or later, or report the failure."""
        negotiation, error = required(self._negotiation), required(error_of(received.of(Refusal).notifies))
        if negotiation.retry_with(context, error):
            context.requests.ask_next(self)
            return
        if error.type == Notify2.TEMPORARY_FAILURE and self._busy_rounds < BUSY_ROUNDS:
            wait = SHORTEST_BUSY_WAIT * 2**self._busy_rounds
            self._busy_rounds += 1
            context.requests.postpone(now + wait * (1 + context.registry.entropy.below(1001) / 1000), self)
            return
        diagnosis = diagnoses.of_child_error(
            error, EXCHANGE, negotiation.policy, negotiation.with_key_exchange
        )
        self.abandoned(context)
        context.emit(ChildFailed(context.sa.tunnel, self.mapping, diagnosis))


def answer_child(
    context: Context, request: ChildRequest, mapping: int | None = None
) -> tuple[ChildSa, bytes, tuple[Payload, ...]]:
    """The responder's part, new child or successor: the SA, its lowest nonce, and SA, Nr, [KEr,] TSi, TSr.

    `mapping` is that of the SA which is succeeded. Raises Fault with nothing taken.
    """
    children, policy = context.children, context.sa.policy
    if len(children) >= 2 * len(policy.children) + SPARE_CHILDREN and not children.make_room():
        raise NoAdditionalSas(exchange=EXCHANGE)
    agreed, (sa_payload, ts_i, ts_r) = answer_offer(
        context,
        EXCHANGE,
        request.sa,
        request.ts_i,
        request.ts_r,
        key_exchange=True,
        group=request.ke.group if request.ke else None,
        mapping=mapping,
    )
    ke: tuple[KeyExchange, ...] = ()
    shared, group = None, agreed.suite.dh
    try:
        if group is not None and request.ke is None:
            raise NoProposalChosen(diagnosis=diagnoses.of_missing_ke(EXCHANGE, group, agreed.policy))
        if group is not None and request.ke is not None:
            ours, shared = answer_ke(request.ke, group, context.registry.entropy, EXCHANGE)
            ke = (ours,)
    except Fault:
        context.registry.release_esp_spi(agreed.spi_in)
        raise
    nonce_i, nonce_r = request.nonce.data, context.registry.entropy.bytes(NONCE_LENGTH)
    sa = agreed.sa(context.sa, nonce_i, nonce_r, shared, initiator=False)
    tell_offered(context, agreed)
    return sa, min(nonce_i, nonce_r), (sa_payload, Nonce(nonce_r), *ke, ts_i, ts_r, *agreed.notifies)


def follow_policy(context: Context, now: float, made_by: ChildPolicy, spi_in: int) -> None:
    """Another policy may hold than it was asked for by: it gets a successor, or goes with its mapping."""
    child, wanted = context.children.find(spi_in), find_policy(context, made_by.index)
    if child is None or child.fate is not Fate.LIVE:
        return
    if wanted is None or wanted.selects != made_by.selects:
        context.children.deleting(child, Diagnosis.of(Code.LIFETIME, detail="its mapping is not configured"))
        context.requests.ask(DeleteChildren((spi_in,)))
        if wanted is not None:
            context.requests.ask(CreateChild(wanted.index))
    elif wanted.protection != made_by.protection:
        context.children.postpone_rekey(child, now)


def find_policy(context: Context, mapping: int) -> ChildPolicy | None:
    return next((child for child in context.sa.policy.children if child.index == mapping), None)


def refuse_while_rekeying(context: Context) -> None:
    """No CHILD_SA while our request to rekey the IKE SA is out (RFC 7296 2.25.2). Raises TemporaryFailure."""
    rekeying = context.requests.exchange
    if isinstance(rekeying, RekeyIke):
        rekeying.crossed = True
        raise TemporaryFailure(exchange=EXCHANGE)
