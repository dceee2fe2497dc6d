"""Succession of a CHILD_SA and of the IKE SA, and what happens when both sides begin (RFC 7296 2.8, 2.25).

    HDR, SK {N(REKEY_SA), SA, Ni, [KEi,] TSi, TSr} -->                                     CHILD_SA
                                                   <--  HDR, SK {SA, Nr, [KEr,] TSi, TSr}
    HDR, SK {D(ESP)}                               -->                                     the old one
                                                   <--  HDR, SK {D(ESP)}

    HDR, SK {SA, Ni, KEi}                          -->                                     IKE SA
                                                   <--  HDR, SK {SA, Nr, KEr}
    HDR, SK {D(IKE)}                               -->                                     the old one
                                                   <--  HDR, SK {}

When both sides rekey the same SA at once, there are two successors and four nonces. The successor that was
made with the lowest of the four is closed by the side that created it; the creator of the other closes the
old SA. Both sides know all nonces, so both come to the same end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vpnd.crypto.dh import KeyPair
from vpnd.crypto.suites import GROUPS
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.outputs import ChildFailed, IkeRekeyFailed
from vpnd.ike.registry import NO_SPI
from vpnd.ike.v2 import create_child, diagnoses
from vpnd.ike.v2.children import Child, Fate
from vpnd.ike.v2.create_child import (
    EXCHANGE,
    INVALID_KE_ROUNDS,
    NONCE_LENGTH,
    ChildNegotiation,
    answer_child,
    find_policy,
    lowest,
)
from vpnd.ike.v2.faults import InvalidKe, InvalidSyntax, NoProposalChosen, TemporaryFailure
from vpnd.ike.v2.informational import DeleteChildren, DeleteIke
from vpnd.ike.v2.key_exchange import check_value, shared_secret
from vpnd.ike.v2.keys import IkeKeys, derive_ike_keys, derive_successor_skeyseed
from vpnd.ike.v2.messages import (
    ChildRequest,
    ChildResponse,
    IkeRekeyRequest,
    IkeRekeyResponse,
    Received,
    Refusal,
    error_of,
    notify_of,
)
from vpnd.ike.v2.proposals import (
    ESP_SPI_LENGTH,
    IKE_SPI_LENGTH,
    answer_sa,
    choose_by,
    decode_sa,
    encode_sa,
    read_answer,
)
from vpnd.ike.v2.state import State, Timer
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy
from vpnd.model.proposals import Chosen, Mismatch, Suite
from vpnd.model.secret import Secret
from vpnd.wire.iana import Exchange2, Notify2, Protocol
from vpnd.wire.ikev2 import KeyExchange, Nonce, Notify, Payload, Sa

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

BUSY_WAIT = 5.0
BUSY_SPREAD = 10.0
"""Seconds until a rekey that met TEMPORARY_FAILURE is tried again: 5 to 15, so as not to meet anew."""
SHORTEST_WAIT = 1.0
"""Seconds until then at least, where the SA ends so soon that only half of what is left is waited."""
CROSSED_WAIT = 1.0
CROSSED_SPREAD = 2.0
"""Seconds until a rekey of the IKE SA is tried again where each side refused the other's request: 1 to 3.

The peer was busy with nothing but the request that we refused. A rekey of a CHILD_SA that it repeats comes
later, a new CHILD_SA after waits that grow, so the two meet anew by chance only.
"""
REFUSED_WAIT = 60.0
"""Seconds until a rekey that was refused for good is tried again, but not before it is due."""

LEFT_BEHIND = 2
"""IKE SAs of a tunnel, in multiples of those that may be established: beyond, a peer that rekeys and never
deletes has to wait until the oldest are forgotten.
"""


class RekeyChild:
    """Our request for a successor of one CHILD_SA.

    `rival` is the successor that the peer began while ours had no answer.
    """

    kind = Exchange2.CREATE_CHILD_SA

    def __init__(self, old: Child) -> None:
        self.old = old
        self.rival: Child | None = None
        self._negotiation: ChildNegotiation | None = None

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        sa = self.old.sa
        policy = find_policy(session, sa.mapping)
        if policy is None or not self._old_is_live(session) or self.old.successor is not None:
            self.abandoned(session)
            return None
        if self._negotiation is None:
            selectors = (sa.ts_local, sa.ts_remote)
            self._negotiation = ChildNegotiation(session, policy, selectors, before=sa.suite.dh)
        self.old.rekeying = self
        spi = sa.spi_in.to_bytes(ESP_SPI_LENGTH, "big")
        rekey_sa = Notify(Notify2.REKEY_SA, protocol=Protocol.ESP, spi=spi)
        return (rekey_sa, *self._negotiation.payloads())

    def answered(self, session: Session, now: float, received: Received) -> None:
        negotiation = self._negotiation
        if negotiation is None:
            raise InvalidSyntax(exchange=EXCHANGE)
        match received.message:
            case ChildResponse() as response:
                sa = negotiation.accept(session, response)
                self._end()
                self._conclude(session, now, sa, lowest(negotiation.nonce, response.nonce.data))
            case Refusal(notifies=notifies) if (error := error_of(notifies)) is not None:
                self._refused(session, now, negotiation, error)
            case _:
                raise InvalidSyntax(exchange=EXCHANGE, detail="an answer that fits no CHILD_SA")

    def failed(self, session: Session, now: float, fault: Fault) -> None:
        """The peer has made a successor that we cannot use: delete that one, and keep the old."""
        if self._negotiation is not None:
            session.outbox.enqueue(DeleteChildren((self._negotiation.offer.spi_in,)))
        self.abandoned(session)
        self._try_later(session, now, REFUSED_WAIT)
        session.registry.emit(ChildFailed(session.tunnel, self.old.sa.mapping, fault.diagnosis))

    def abandoned(self, session: Session) -> None:
        if self._negotiation is not None:
            self._negotiation.release()
        self._end()

    def _end(self) -> None:
        self._negotiation = None
        self.old.rekeying = None

    def _old_is_live(self, session: Session) -> bool:
        return session.children.find(self.old.spi_in) is self.old and self.old.fate is Fate.LIVE

    def _conclude(self, session: Session, now: float, sa: ChildSa, lowest_nonce: bytes) -> None:
        """Our successor is made; a rival, if there is one, decides whether it stays (RFC 7296 2.8.1)."""
        session.registry.rekey_is_proved(session.policy)
        rival = self._living_rival(session)
        if self._is_redundant(session, lowest_nonce):
            session.registry.release_esp_spi(sa.spi_in)
            session.outbox.enqueue(DeleteChildren((sa.spi_in,)))
            if self._old_is_live(session):
                self.old.fate = Fate.REKEYED
            return
        gone = session.children.find(self.old.spi_in) is not self.old or self.old.fate is Fate.DELETING
        if gone:
            session.children.add(now, sa, lowest_nonce)
            return
        child = session.children.replace(now, self.old, sa, lowest_nonce, outbound=True)
        if rival is not None:
            rival.fate, rival.successor = Fate.REKEYED, child
        if self.old.fate is Fate.LIVE:
            self.old.fate = Fate.REKEYED
            session.outbox.enqueue(DeleteChildren((self.old.spi_in,)))

    def _is_redundant(self, session: Session, lowest_nonce: bytes) -> bool:
        """Whether ours has the lowest of the four nonces, so that the peer expects us to close it.

        A rival may be gone by now. If the old SA is as well, the peer had settled on the rival before. If
        not, the peer could not use the rival, and ours is the only successor.
        """
        rival = self.rival
        if rival is None or lowest_nonce >= rival.lowest_nonce:
            return False
        return self._living_rival(session) is not None or not self._old_is_live(session)

    def _living_rival(self, session: Session) -> Child | None:
        if self.rival is None or session.children.find(self.rival.spi_in) is not self.rival:
            return None
        return self.rival if self.rival.fate is Fate.LIVE else None

    def _refused(self, session: Session, now: float, negotiation: ChildNegotiation, error: Notify) -> None:
        if negotiation.retry_with(session, error):
            session.outbox.enqueue_first(self)
            return
        self.abandoned(session)
        if self._living_rival(session) is not None:
            if self._old_is_live(session):
                self.old.fate = Fate.REKEYED
            return
        policy, pfs = negotiation.policy, negotiation.with_key_exchange
        diagnosis = diagnoses.of_child_error(error, EXCHANGE, policy, pfs)
        match error.type:
            case Notify2.TEMPORARY_FAILURE:
                left = self.old.made_at + self.old.sa.lifetimes.seconds - now
                self._try_later(session, now, busy_wait(session, left))
            case Notify2.CHILD_SA_NOT_FOUND:
                if self._old_is_live(session):
                    session.children.down(self.old, diagnosis)
                    session.want(now, self.old.sa.mapping)
            case _:
                session.registry.rekey_is_proved(session.policy)
                _replace_if_full(session, now, error)
                self._try_later(session, now, REFUSED_WAIT)
                session.registry.emit(
                    ChildFailed(session.tunnel, self.old.sa.mapping, _as_pfs(diagnosis, policy))
                )

    def _try_later(self, session: Session, now: float, wait: float) -> None:
        if self._old_is_live(session):
            due = now + wait if wait < REFUSED_WAIT else max(now + wait, self.old.soft_end)
            session.children.postpone_rekey(self.old, due)


def respond_child(session: Session, now: float, received: Received) -> tuple[Payload, ...]:
    """A peer's CREATE_CHILD_SA request with selectors: a further CHILD_SA, or the successor of one."""
    request = received.message
    if not isinstance(request, ChildRequest):
        raise Drop("CREATE_CHILD_SA: not a request")
    rekey_sa = notify_of(request.notifies, Notify2.REKEY_SA)
    if rekey_sa is None:
        return create_child.respond(session, now, received)
    old = session.children.find_by_peer(rekey_sa.spi) if rekey_sa.protocol == Protocol.ESP else None
    if old is None and session.is_changing_children:
        # It may be the very one that the answer to our own request will tell of.
        raise TemporaryFailure(exchange=EXCHANGE)
    if old is None or old.fate is Fate.GOING:
        return (Notify(Notify2.CHILD_SA_NOT_FOUND, protocol=Protocol.ESP, spi=rekey_sa.spi),)
    if session.rekeying is not None:
        session.rekeying.crossed = True
        raise TemporaryFailure(exchange=EXCHANGE)
    if old.fate is not Fate.LIVE or old.successor is not None:
        raise TemporaryFailure(exchange=EXCHANGE)
    sa, lowest_nonce, payloads = answer_child(session, request, old.sa.mapping)
    session.registry.rekey_is_proved(session.policy)
    child = session.children.replace(now, old, sa, lowest_nonce, outbound=False)
    if old.rekeying is not None:
        old.rekeying.rival = child
    else:
        old.fate = Fate.REKEYED
    return payloads


# ------------------------------------------------------------------------------------- the IKE SA


@dataclass(frozen=True, slots=True)
class RivalIke:
    """The successor of the IKE SA that the peer began while ours had no answer."""

    session: Session
    lowest_nonce: bytes


class RekeyIke:
    """Our request for a successor of the IKE SA.

    `crossed`: a request of the peer's for a CHILD_SA has come meanwhile, and we have refused it.
    """

    kind = Exchange2.CREATE_CHILD_SA

    def __init__(self) -> None:
        self.rival: RivalIke | None = None
        self.crossed = False
        self._nonce = b""
        self._spi = b""
        self._key_pair: KeyPair | None = None
        self._rounds = 0

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        if session.state is not State.ESTABLISHED:
            return None
        entropy = session.registry.entropy
        if self._key_pair is None:
            self._nonce = entropy.bytes(NONCE_LENGTH)
            self._spi = session.registry.new_ike_spi()
            self._key_pair = KeyPair.generate(_groups(session)[0], entropy)
        session.rekeying = self
        return (
            encode_sa(session.policy.proposals, self._spi, session.policy.numbers),
            Nonce(self._nonce),
            KeyExchange(self._key_pair.group, self._key_pair.public),
        )

    def answered(self, session: Session, now: float, received: Received) -> None:
        match received.message:
            case IkeRekeyResponse() as response:
                self._conclude(session, now, response)
            case Refusal(notifies=notifies) if (error := error_of(notifies)) is not None:
                self._refused(session, now, error)
            case _:
                raise InvalidSyntax(exchange=EXCHANGE, detail="an answer that fits no IKE SA")

    def failed(self, session: Session, now: float, fault: Fault) -> None:
        session.rekeying = None
        if not self._yield_to_rival(session, now):
            session.registry.emit(IkeRekeyFailed(session.tunnel, fault.diagnosis))
            session.postpone_rekey(now, REFUSED_WAIT)

    def abandoned(self, session: Session) -> None:
        session.rekeying = None

    def _conclude(self, session: Session, now: float, response: IkeRekeyResponse) -> None:
        """Our successor is made; a rival, if it lives, decides whether it stays (RFC 7296 section 2.8.1)."""
        chosen = read_answer(response.sa, session.policy.proposals, session.policy.numbers)
        if isinstance(chosen, Mismatch):
            raise NoProposalChosen(diagnosis=diagnoses.of_ike_mismatch(chosen, EXCHANGE))
        ours = self._key_pair
        if ours is None or not ours.group == response.ke.group == chosen.suite.dh:
            raise InvalidSyntax(exchange=EXCHANGE, detail="KE does not fit the chosen proposal")
        peer_spi = _ike_spi(chosen)
        nonce_i, nonce_r = self._nonce, response.nonce.data
        shared = shared_secret(ours, response.ke, EXCHANGE)
        keys = _successor_keys(session, chosen.suite, shared, (nonce_i, nonce_r), (self._spi, peer_spi))
        successor = session.make_successor(now, True, self._spi, peer_spi, chosen.suite, keys)
        session.rekeying = None
        rival = self.rival
        rival_lives = rival is not None and rival.session.state is State.SUCCESSOR
        if rival is not None and rival_lives and lowest(nonce_i, nonce_r) < rival.lowest_nonce:
            session.succeeded_by(now, rival.session)
            successor.discard(now)
            return
        session.succeeded_by(now, successor)
        session.outbox.enqueue(DeleteIke())

    def _refused(self, session: Session, now: float, error: Notify) -> None:
        group = int.from_bytes(error.data, "big") if len(error.data) == 2 else 0
        wanted = error.type == Notify2.INVALID_KE_PAYLOAD and group in _groups(session)
        if wanted and self._key_pair and group != self._key_pair.group and self._rounds < INVALID_KE_ROUNDS:
            self._rounds += 1
            self._key_pair = KeyPair.generate(group, session.registry.entropy)
            session.outbox.enqueue_first(self)
            return
        session.rekeying = None
        if self._yield_to_rival(session, now):
            return
        busy = error.type == Notify2.TEMPORARY_FAILURE
        _replace_if_full(session, now, error)
        if not busy:
            diagnosis = diagnoses.of_init_error(error, session.policy, EXCHANGE)
            session.registry.emit(IkeRekeyFailed(session.tunnel, diagnosis))
        left = (session.timers.deadline(Timer.LIFETIME) or now) - now
        session.postpone_rekey(now, busy_wait(session, left, self.crossed) if busy else REFUSED_WAIT)

    def _yield_to_rival(self, session: Session, now: float) -> bool:
        """Ours came to nothing, but the peer's has: let that one succeed."""
        if self.rival is None or self.rival.session.state is not State.SUCCESSOR:
            return False
        session.succeeded_by(now, self.rival.session)
        return True


def respond_ike(session: Session, now: float, received: Received) -> tuple[Payload, ...]:
    """A peer's request for a successor of the IKE SA; CHILD_SAs in the making come first (2.25.2)."""
    request = received.message
    if not isinstance(request, IkeRekeyRequest):
        raise Drop("CREATE_CHILD_SA: not a request")
    has_rival = session.rekeying is not None and session.rekeying.rival is not None
    if session.is_changing_children or has_rival or _is_crowded(session):
        raise TemporaryFailure(exchange=EXCHANGE)
    chosen = _choose(session, request.sa, request.ke.group)
    group = chosen.suite.dh
    if group is None or group != request.ke.group:
        raise InvalidKe.wanting(group or 0)
    peer_spi = _ike_spi(chosen)
    check_value(request.ke, EXCHANGE)
    entropy = session.registry.entropy
    key_pair = KeyPair.generate(group, entropy)
    shared = shared_secret(key_pair, request.ke, EXCHANGE)
    nonce_i, nonce_r = request.nonce.data, entropy.bytes(NONCE_LENGTH)
    local_spi = session.registry.new_ike_spi()
    keys = _successor_keys(session, chosen.suite, shared, (nonce_i, nonce_r), (peer_spi, local_spi))
    successor = session.make_successor(now, False, local_spi, peer_spi, chosen.suite, keys)
    if session.rekeying is not None:
        session.rekeying.rival = RivalIke(successor, lowest(nonce_i, nonce_r))
    else:
        session.succeeded_by(now, successor)
    return (
        answer_sa(chosen, Protocol.IKE, local_spi, session.policy.numbers),
        Nonce(nonce_r),
        KeyExchange(group, key_pair.public),
    )


def _is_crowded(session: Session) -> bool:
    """Whether so many IKE SAs of the tunnel wait for their DELETE that a further one can wait as well."""
    lasting = (State.ESTABLISHED, State.SUCCESSOR, State.REKEYED)
    others = (s for s in session.registry.sessions(session.tunnel) if isinstance(s, type(session)))
    held = sum(other.state in lasting for other in others)
    return held >= LEFT_BEHIND * session.registry.limits.ike_sas_per_tunnel


def busy_wait(session: Session, left: float, crossed: bool = False) -> float:
    """Seconds to wait after TEMPORARY_FAILURE, of `left` in all; `crossed`: the peer was told the same."""
    wait, spread = (CROSSED_WAIT, CROSSED_SPREAD) if crossed else (BUSY_WAIT, BUSY_SPREAD)
    wait += spread * session.registry.entropy.below(1001) / 1000
    return max(SHORTEST_WAIT, min(wait, left / 2))


def _replace_if_full(session: Session, now: float, error: Notify) -> None:
    """A peer that makes no more SAs under this IKE SA, perhaps none ever: begin anew (RFC 7296 section 4)."""
    if error.type == Notify2.NO_ADDITIONAL_SAS:
        session.begin_anew(now, "the peer makes no more SAs under it")


def _choose(session: Session, sa: Sa, group: int) -> Chosen:
    numbers, acceptable = session.policy.numbers, session.policy.proposals
    offered = decode_sa(sa, numbers)
    same_group = tuple(replace(p, dh=(group,)) for p in acceptable if group in p.dh)
    chosen = choose_by(numbers, offered, same_group)
    if isinstance(chosen, Mismatch):
        chosen = choose_by(numbers, offered, acceptable)
    if isinstance(chosen, Mismatch):
        raise NoProposalChosen(diagnosis=diagnoses.of_ike_mismatch(chosen, EXCHANGE))
    return chosen


def _successor_keys(
    session: Session, suite: Suite, shared: Secret, nonces: tuple[bytes, bytes], spis: tuple[bytes, bytes]
) -> IkeKeys:
    """The keys of the new IKE SA, from SK_d of the old (RFC 7296 section 2.18); pairs are (i, r)."""
    skeyseed = derive_successor_skeyseed(session.keys, shared, *nonces)
    return derive_ike_keys(suite, skeyseed, *nonces, *spis)


def _ike_spi(chosen: Chosen) -> bytes:
    if len(chosen.spi) != IKE_SPI_LENGTH or chosen.spi == NO_SPI:
        raise InvalidSyntax(exchange=EXCHANGE, detail="no SPI in a proposal for the IKE SA")
    return chosen.spi


def _groups(session: Session) -> tuple[int, ...]:
    return tuple(dict.fromkeys(g for p in session.policy.proposals for g in p.dh if g in GROUPS))


def _as_pfs(diagnosis: Diagnosis, policy: ChildPolicy) -> Diagnosis:
    """A proposal that was good for the first SA, without key exchange, and is refused: PFS differs."""
    if diagnosis.code is not Code.P2_PROPOSAL:
        return diagnosis
    ours = ", ".join(map(str, policy.pfs))
    return Diagnosis.of(
        Code.PFS,
        exchange=EXCHANGE,
        notify=diagnosis.fact("notify"),
        theirs="off or another group" if ours else "another group than ours of the IKE SA",
        ours=ours or "off",
        mapping=policy,
    )
