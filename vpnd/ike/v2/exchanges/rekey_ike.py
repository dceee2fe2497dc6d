"""Rekeying of the IKE SA, and what happens when both sides begin (RFC 7296 sections 1.3.2, 2.8.2 and 2.25).

    HDR, SK {SA, Ni, KEi}                          -->
                                                   <--  HDR, SK {SA, Nr, KEr}
    HDR, SK {D(IKE)}                               -->                          the old one
                                                   <--  HDR, SK {}

When both sides rekey at once there are two successors, and `rekey_child` says which stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vpnd.ike.faults import Fault
from vpnd.ike.key_exchange import NONCE_LENGTH
from vpnd.ike.message import Received
from vpnd.ike.outputs import IkeRekeyFailed
from vpnd.ike.registry import NO_SPI
from vpnd.ike.v2 import diagnoses
from vpnd.ike.v2.causes import Reinitiate, SuccessorAgreed, Superseded
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.faults import InvalidSyntax, TemporaryFailure
from vpnd.ike.v2.ike_sa import Attempt, IkeSa
from vpnd.ike.v2.key_exchange import IkeKeyExchange, answer_ke, conclude_ke, required
from vpnd.ike.v2.keys import derive_ike_keys, derive_successor_skeyseed
from vpnd.ike.v2.messages import IkeRekeyRequest, IkeRekeyResponse, Refusal, error_of
from vpnd.ike.v2.proposals import IKE_SPI_LENGTH, answer_sa, choose_near, decode_sa, encode_sa, read_answer
from vpnd.ike.v2.requests import Exchange
from vpnd.ike.v2.state import State, Timer
from vpnd.model.policy import PeerPolicy
from vpnd.model.proposals import Chosen
from vpnd.model.secret import Secret
from vpnd.wire.iana import Exchange2, Notify2, Protocol
from vpnd.wire.ikev2 import Nonce, Notify, Payload

EXCHANGE = "CREATE_CHILD_SA"
BUSY_WAIT = 5.0
BUSY_SPREAD = 10.0
"""Seconds until a rekey that met TEMPORARY_FAILURE is tried again: 5 to 15, so as not to meet again."""
SHORTEST_WAIT = 1.0
"""Seconds until then at least, where the SA ends so soon that only half of what is left is waited."""
CROSSED_WAIT = 1.0
CROSSED_SPREAD = 2.0
"""Seconds until a rekey of the IKE SA is tried again where each side refused the other's request: 1 to 3.

The peer was busy with nothing but the request that we refused. A rekey of a CHILD_SA that it repeats comes
later, a new CHILD_SA after waits that grow, so the two meet again by chance only.
"""
REFUSED_WAIT = 60.0
"""Seconds until a rekey that was refused for good is tried again, but not before it is due."""

LEFT_BEHIND = 2
"""IKE SAs of a tunnel, in multiples of those that may be established: beyond, a peer that rekeys and never
deletes has to wait until the oldest are forgotten.
"""


@dataclass(frozen=True, slots=True)
class Rival:
    """The successor of the IKE SA that the peer began while ours had no answer."""

    successor: Context
    lowest_nonce: bytes

    @property
    def lives(self) -> bool:
        return self.successor.sa.state is State.SUCCESSOR


class RekeyIke(Exchange):
    """Our request for a successor of the IKE SA; `crossed`: we have refused one for a CHILD_SA meanwhile."""

    kind = Exchange2.CREATE_CHILD_SA
    rekeys = True

    def __init__(self) -> None:
        self.rival: Rival | None = None
        self.crossed = False
        self._nonce = b""
        self._spi = b""
        self._ours: IkeKeyExchange | None = None
        self._policy: PeerPolicy | None = None
        """What it asks by, whatever is configured until the answer comes."""

    def request(self, context: Context, now: float) -> tuple[Payload, ...] | None:
        entropy, policy = context.registry.entropy, context.sa.policy
        if self._ours is None or self._policy is None or self._policy.terms != policy.terms:
            self._nonce = entropy.bytes(NONCE_LENGTH)
            self._spi = context.registry.new_ike_spi()
            self._ours, self._policy = IkeKeyExchange(policy, entropy), policy
        return (
            encode_sa(policy.proposals, self._spi, policy.numbers),
            Nonce(self._nonce),
            self._ours.payload,
        )

    def accepted(self, context: Context, now: float, received: Received) -> Superseded:
        """Our successor is made; a rival, if it lives, decides whether it stays (RFC 7296 section 2.8.2)."""
        response, policy = received.of(IkeRekeyResponse), required(self._policy)
        chosen = diagnoses.require(read_answer(response.sa, policy.proposals, policy.numbers), EXCHANGE)
        peer_spi, nonces = _ike_spi(chosen), (self._nonce, response.nonce.data)
        shared = conclude_ke(required(self._ours).pair, response.ke, chosen.suite.dh, EXCHANGE)
        successor = _successor(context, now, policy, True, (self._spi, peer_spi), chosen, shared, nonces)
        rival = self.rival
        if rival is not None and rival.lives and min(*nonces) < rival.lowest_nonce:
            return Superseded(rival.successor, redundant=successor)
        return Superseded(successor)

    def refused(self, context: Context, now: float, received: Received) -> Superseded | Reinitiate | None:
        """Ask again with another group or later; a rival, if it lives, succeeds."""
        ours, error = required(self._ours), required(error_of(received.of(Refusal).notifies))
        if ours.restart(error):
            context.requests.ask_next(self)
            return None
        if self.rival is not None and self.rival.lives:
            return Superseded(self.rival.successor)
        if error.type == Notify2.TEMPORARY_FAILURE:
            left = (context.timers.deadline(Timer.LIFETIME) or now) - now
            _try_later(context, now, busy_wait(context, left, self.crossed))
            return None
        asked_by = required(self._policy)
        if asked_by.terms != context.sa.policy.terms:
            # What is configured by now is another thing.
            _try_later(context, now, 0.0)
            return None
        diagnosis = diagnoses.of_init_error(error, asked_by, EXCHANGE)
        context.emit(IkeRekeyFailed(context.sa.tunnel, diagnosis))
        _try_later(context, now, REFUSED_WAIT)
        return replaced_if_full(error)

    def failed(self, context: Context, now: float, fault: Fault) -> Superseded | None:
        if self.rival is not None and self.rival.lives:
            return Superseded(self.rival.successor)
        context.emit(IkeRekeyFailed(context.sa.tunnel, fault.diagnosis))
        _try_later(context, now, REFUSED_WAIT)
        return None


def respond(context: Context, now: float, received: Received) -> tuple[Payload, ...] | Superseded:
    """A peer's request for a successor of the IKE SA; CHILD_SAs in the making come first (2.25.2)."""
    request, sa, registry = received.of(IkeRekeyRequest), context.sa, context.registry
    rekeying = context.requests.exchange if isinstance(context.requests.exchange, RekeyIke) else None
    has_rival = rekeying is not None and rekeying.rival is not None
    if context.requests.changes_children or has_rival or _is_crowded(context):
        raise TemporaryFailure(exchange=EXCHANGE)
    numbers = sa.policy.numbers
    found = choose_near(numbers, decode_sa(request.sa, numbers), sa.policy.proposals, request.ke.group)
    chosen = diagnoses.require(found, EXCHANGE)
    peer_spi = _ike_spi(chosen)
    ke, shared = answer_ke(request.ke, chosen.suite.dh, registry.entropy, EXCHANGE)
    nonces = request.nonce.data, registry.entropy.bytes(NONCE_LENGTH)
    local_spi = registry.new_ike_spi()
    successor = _successor(context, now, sa.policy, False, (peer_spi, local_spi), chosen, shared, nonces)
    payloads = (answer_sa(chosen, Protocol.IKE, local_spi, numbers), Nonce(nonces[1]), ke)
    if rekeying is None:
        return Superseded(successor, answer=payloads)
    rekeying.rival = Rival(successor, min(*nonces))
    return payloads


def _is_crowded(context: Context) -> bool:
    """Whether so many IKE SAs of the tunnel wait for their DELETE that a further one can wait as well."""
    lasting = (State.ESTABLISHED, State.SUCCESSOR, State.REKEYED)
    held = sum(one.sa.state in lasting for one in context.of_tunnel())
    return held >= LEFT_BEHIND * context.registry.limits.ike_sas_per_tunnel


def busy_wait(context: Context, left: float, crossed: bool = False) -> float:
    """Seconds to wait after TEMPORARY_FAILURE, of `left` in all; `crossed`: the peer has got the same."""
    wait, spread = (CROSSED_WAIT, CROSSED_SPREAD) if crossed else (BUSY_WAIT, BUSY_SPREAD)
    wait += spread * context.registry.entropy.below(1001) / 1000
    return max(SHORTEST_WAIT, min(wait, left / 2))


def replaced_if_full(error: Notify) -> Reinitiate | None:
    """A peer that makes no more SAs under this IKE SA: make another (RFC 7296 section 4)."""
    full = error.type == Notify2.NO_ADDITIONAL_SAS
    return Reinitiate("the peer makes no more SAs under it") if full else None


def _try_later(context: Context, now: float, wait: float) -> None:
    context.timers.arm(Timer.REKEY, now + wait)


def _successor(
    context: Context,
    now: float,
    policy: PeerPolicy,
    initiator: bool,
    spis: tuple[bytes, bytes],
    chosen: Chosen,
    shared: Secret,
    nonces: tuple[bytes, bytes],
) -> Context:
    """The new IKE SA, with keys from SK_d of the old (RFC 7296 section 2.18); pairs are (i, r).

    Its algorithms are of `policy`, all else is as the old one was made.
    """
    old = context.sa
    keys = derive_ike_keys(chosen.suite, derive_successor_skeyseed(old.keys, shared, *nonces), *nonces, *spis)
    local_spi, peer_spi = spis if initiator else reversed(spis)
    attempt = Attempt(old.attempt.begun_here, (old.policy,))
    sa = IkeSa(old.policy, old.path, initiator, local_spi, peer_spi, attempt, peer=old.peer)
    sa.psk, sa.made_by = old.psk, replace(old.made_by or policy, proposals=policy.proposals)
    sa.nat, sa.former, sa.last_heard = old.nat, old.former, old.last_heard
    sa.set_keys(chosen.suite, keys)
    successor = context.beside(sa)
    successor.command(now, SuccessorAgreed())
    return successor


def _ike_spi(chosen: Chosen) -> bytes:
    if len(chosen.spi) != IKE_SPI_LENGTH or chosen.spi == NO_SPI:
        raise InvalidSyntax(exchange=EXCHANGE, detail="no SPI in a proposal for the IKE SA")
    return chosen.spi
