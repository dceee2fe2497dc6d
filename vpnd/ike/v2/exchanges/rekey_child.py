"""Rekeying of a CHILD_SA, and what happens when both sides begin (RFC 7296 sections 1.3.3, 2.8.1, 2.25).

    HDR, SK {N(REKEY_SA), SA, Ni, [KEi,] TSi, TSr} -->
                                                   <--  HDR, SK {SA, Nr, [KEr,] TSi, TSr}
    HDR, SK {D(ESP)}                               -->                          the old one
                                                   <--  HDR, SK {D(ESP)}

When both sides rekey the same SA at once, there are two successors and four nonces. The successor that was
made with the lowest of the four is closed by the side that created it; the creator of the other closes the
old SA. Both sides know all nonces, so both come to the same end.
"""

from __future__ import annotations

from vpnd.ike.commands import Want
from vpnd.ike.faults import Fault
from vpnd.ike.message import Received
from vpnd.ike.outputs import ChildFailed
from vpnd.ike.v2 import diagnoses
from vpnd.ike.v2.causes import Reinitiate
from vpnd.ike.v2.children import Child, Fate
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.exchanges.create_child import (
    ChildExchange,
    ChildNegotiation,
    answer_child,
    find_policy,
    refuse_while_rekeying,
)
from vpnd.ike.v2.exchanges.informational import DeleteChildren
from vpnd.ike.v2.exchanges.rekey_ike import EXCHANGE, REFUSED_WAIT, busy_wait, replaced_if_full
from vpnd.ike.v2.faults import TemporaryFailure
from vpnd.ike.v2.key_exchange import required
from vpnd.ike.v2.messages import ChildRequest, Refusal, error_of, notify_of
from vpnd.ike.v2.proposals import ESP_SPI_LENGTH
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy
from vpnd.wire.iana import Notify2, Protocol
from vpnd.wire.ikev2 import Notify, Payload


class RekeyChild(ChildExchange):
    """Our request for a successor of one CHILD_SA; `rival` is the one that the peer began meanwhile."""

    rekeys = True

    def __init__(self, old: Child) -> None:
        super().__init__(old.sa.mapping)
        self.old = old
        self.rival: Child | None = None

    def request(self, context: Context, now: float) -> tuple[Payload, ...] | None:
        sa = self.old.sa
        policy = find_policy(context, sa.mapping)
        if policy is None or not self._old_is_live(context) or self.old.successor is not None:
            self.abandoned(context)
            return None
        if self._negotiation is None:
            selectors = (sa.ts_local, sa.ts_remote)
            before = sa.suite.dh if sa.pfs_of_peer else None
            self._negotiation = ChildNegotiation(context, policy, selectors, before)
        spi = sa.spi_in.to_bytes(ESP_SPI_LENGTH, "big")
        rekey_sa = Notify(Notify2.REKEY_SA, protocol=Protocol.ESP, spi=spi)
        return (rekey_sa, *self._negotiation.payloads())

    def refused(self, context: Context, now: float, received: Received) -> Want | Reinitiate | None:
        """Ask again in another way or later; a rival, if it lives, succeeds."""
        negotiation, error = required(self._negotiation), required(error_of(received.of(Refusal).notifies))
        if negotiation.retry_with(context, error):
            context.requests.ask_next(self)
            return None
        self.abandoned(context)
        if self._living_rival(context) is not None:
            if self._old_is_live(context):
                self.old.fate = Fate.REKEYED
            return None
        policy, pfs, mapping = negotiation.policy, negotiation.with_key_exchange, self.mapping
        diagnosis = diagnoses.of_child_error(error, EXCHANGE, policy, pfs)
        match error.type:
            case Notify2.TEMPORARY_FAILURE:
                left = self.old.made_at + self.old.sa.lifetimes.seconds - now
                self._try_later(context, now, busy_wait(context, left))
                return None
            case Notify2.CHILD_SA_NOT_FOUND:
                if not self._old_is_live(context):
                    return None
                context.children.down(self.old, diagnosis)
                return Want(mapping)
            case _:
                context.registry.policies.rekey_is_proved(context.sa.policy)
                self._try_later(context, now, REFUSED_WAIT)
                context.emit(ChildFailed(context.sa.tunnel, mapping, _as_pfs(diagnosis, policy)))
                return replaced_if_full(error)

    def failed(self, context: Context, now: float, fault: Fault) -> None:
        """As of a new one; the old one stays, and has its time again."""
        self._try_later(context, now, REFUSED_WAIT)
        super().failed(context, now, fault)

    def _old_is_live(self, context: Context) -> bool:
        return context.children.find(self.old.spi_in) is self.old and self.old.fate is Fate.LIVE

    def _made(self, context: Context, now: float, sa: ChildSa, lowest_nonce: bytes) -> None:
        """Our successor is made; a rival, if there is one, decides whether it stays (RFC 7296 2.8.1)."""
        context.registry.policies.rekey_is_proved(context.sa.policy)
        rival = self._living_rival(context)
        if self._is_redundant(context, lowest_nonce):
            context.registry.release_esp_spi(sa.spi_in)
            context.requests.ask(DeleteChildren((sa.spi_in,)))
            if self._old_is_live(context):
                self.old.fate = Fate.REKEYED
            return
        gone = context.children.find(self.old.spi_in) is not self.old or self.old.fate is Fate.DELETING
        if gone:
            context.children.add(now, sa, lowest_nonce)
            return
        child = context.children.replace(now, self.old, sa, lowest_nonce, outbound=True)
        if rival is not None:
            rival.fate, rival.successor = Fate.REKEYED, child
        if self.old.fate is Fate.LIVE:
            self.old.fate = Fate.REKEYED
            context.requests.ask(DeleteChildren((self.old.spi_in,)))

    def _is_redundant(self, context: Context, lowest_nonce: bytes) -> bool:
        """Whether ours has the lowest of the four nonces, so that the peer expects us to close it.

        A rival may be gone by now. If the old SA is as well, the peer had settled on the rival before. If
        not, the peer could not use the rival, and ours is the only successor.
        """
        rival = self.rival
        if rival is None or lowest_nonce >= rival.lowest_nonce:
            return False
        return self._living_rival(context) is not None or not self._old_is_live(context)

    def _living_rival(self, context: Context) -> Child | None:
        if self.rival is None or context.children.find(self.rival.spi_in) is not self.rival:
            return None
        return self.rival if self.rival.fate is Fate.LIVE else None

    def _try_later(self, context: Context, now: float, wait: float) -> None:
        if self._old_is_live(context):
            due = now + wait if wait < REFUSED_WAIT else max(now + wait, self.old.soft_end)
            context.children.postpone_rekey(self.old, due)


def respond(context: Context, now: float, received: Received) -> tuple[Payload, ...]:
    """A peer's CREATE_CHILD_SA request with selectors: a further CHILD_SA, or the successor of one."""
    request, children = received.of(ChildRequest), context.children
    rekey_sa = notify_of(request.notifies, Notify2.REKEY_SA)
    if rekey_sa is None:
        # One that duplicates ours is accepted; the older one goes.
        refuse_while_rekeying(context)
        sa, lowest_nonce, payloads = answer_child(context, request)
        children.add(now, sa, lowest_nonce)
        return payloads
    old = children.by_peer().get(rekey_sa.spi) if rekey_sa.protocol == Protocol.ESP else None
    if old is None and context.requests.changes_children:
        # It may be the very one that the answer to our own request will bring.
        raise TemporaryFailure(exchange=EXCHANGE)
    if old is None or old.fate is Fate.DELETED:
        return (Notify(Notify2.CHILD_SA_NOT_FOUND, protocol=Protocol.ESP, spi=rekey_sa.spi),)
    refuse_while_rekeying(context)
    if old.fate is not Fate.LIVE or old.successor is not None:
        raise TemporaryFailure(exchange=EXCHANGE)
    sa, lowest_nonce, payloads = answer_child(context, request, old.sa.mapping)
    context.registry.policies.rekey_is_proved(context.sa.policy)
    child = children.replace(now, old, sa, lowest_nonce, outbound=False)
    ours = own_rekey(context, old)
    if ours is not None:
        ours.rival = child
    else:
        old.fate = Fate.REKEYED
    return payloads


def own_rekey(context: Context, old: Child) -> RekeyChild | None:
    """Our own request to rekey this CHILD_SA, while it has no answer."""
    exchange = context.requests.exchange
    return exchange if isinstance(exchange, RekeyChild) and exchange.old is old else None


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
