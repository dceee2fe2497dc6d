"""INFORMATIONAL: signs of life and DELETE (RFC 7296 section 1.4).

Either side                                 The other
HDR, SK {}                       -->                             are you there?
                                 <--   HDR, SK {}
HDR, SK {D(ESP, my inbound SPI)} -->                             this CHILD_SA is closed
                                 <--   HDR, SK {D(ESP, mine)}    and so is its other half
HDR, SK {D(IKE)}                 -->                             everything is closed
                                 <--   HDR, SK {}
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from vpnd.ike.faults import Drop
from vpnd.ike.message import Received
from vpnd.ike.silence import ASKED_AGAIN
from vpnd.ike.v2.causes import Finished, PeerClosed, Superseded
from vpnd.ike.v2.children import Child, Fate
from vpnd.ike.v2.context import Context
from vpnd.ike.v2.exchanges.rekey_ike import RekeyIke
from vpnd.ike.v2.messages import InformationalRequest, notify_of
from vpnd.ike.v2.proposals import ESP_SPI_LENGTH
from vpnd.ike.v2.requests import Exchange
from vpnd.ike.v2.state import State
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import PeerPolicy
from vpnd.wire.iana import Exchange2, Notify2, Protocol
from vpnd.wire.ikev2 import Delete, Notify, Payload

EXCHANGE = "INFORMATIONAL"
MAX_EARLY_DELETES = 16
"""SPIs of DELETEs that may have overtaken the answer which makes their CHILD_SA."""


class Liveness(Exchange):
    """Is the peer alive? Any answer is a yes (RFC 7296 section 2.4)."""

    kind = Exchange2.INFORMATIONAL
    longest_wait = ASKED_AGAIN


class DeleteChildren(Exchange):
    """CHILD_SAs are closed; `spis` are those that we receive on."""

    kind = Exchange2.INFORMATIONAL
    changes_children = True

    def __init__(self, spis: Iterable[int]) -> None:
        self._spis = tuple(spis)

    def request(self, context: Context, now: float) -> tuple[Payload, ...] | None:
        """Those that the peer has not deleted meanwhile; an SPI without a record never came up."""
        children = ((spi, context.children.find(spi)) for spi in self._spis)
        self._spis = tuple(spi for spi, child in children if child is None or child.fate is not Fate.DELETED)
        if not self._spis:
            return None
        spis = tuple(spi.to_bytes(ESP_SPI_LENGTH, "big") for spi in self._spis)
        return (Delete(Protocol.ESP, spis),)

    def accepted(self, context: Context, now: float, received: Received) -> None:
        context.registry.policies.renewals.closed(now, context.sa.tunnel)
        for spi in self._spis:
            child = context.children.find(spi)
            if child is not None and child.fate is Fate.REKEYED:
                context.children.mark_deleted(now, child)
            elif child is not None and child.fate is Fate.DELETING:
                context.children.forget(child)


class DeleteIke(Exchange):
    """The IKE SA is closed, with everything on it.

    `receiving`: the inbound SPIs of its children that another IKE SA still receives on, for the peer sends
    on them until it has this.
    """

    kind = Exchange2.INFORMATIONAL

    def __init__(self, receiving: Iterable[int] = ()) -> None:
        self._receiving = tuple(receiving)

    def request(self, context: Context, now: float) -> tuple[Payload, ...] | None:
        return (Delete(Protocol.IKE),)

    def accepted(self, context: Context, now: float, received: Received) -> Finished:
        context.registry.policies.renewals.closed(now, context.sa.tunnel)
        for other in context.siblings():
            for child in filter(None, map(other.children.find, self._receiving)):
                other.children.mark_deleted(now, child)
            other.rearm()
        return Finished()


class AuthenticationFailedNotice(Exchange):
    """The responder's proof was wrong: the IKE SA that it believes in does not exist (RFC 7296 2.21.2)."""

    kind = Exchange2.INFORMATIONAL

    def request(self, context: Context, now: float) -> tuple[Payload, ...] | None:
        return (Notify(Notify2.AUTHENTICATION_FAILED), Delete(Protocol.IKE))

    def accepted(self, context: Context, now: float, received: Received) -> Finished:
        """That it came is all."""
        return Finished()


def respond(
    context: Context, now: float, received: Received
) -> tuple[Payload, ...] | PeerClosed | Superseded:
    """A peer's request: note what it deletes, and answer in any case."""
    request, sa = received.of(InformationalRequest), context.sa
    if notify_of(request.notifies, Notify2.AUTHENTICATION_FAILED) is not None:
        return _closed(context, _refused_by_peer(sa.policy))
    if any(delete.protocol == Protocol.IKE for delete in request.deletes):
        return _closed(context, Diagnosis.of(Code.PEER_DELETED, exchange=EXCHANGE, peer=sa.path.remote))
    if sa.state is State.SUCCESSOR:
        # The peer has moved on to it, its DELETE of the old IKE SA is still on its way, and so are the
        # children that this message may mean: it will be retransmitted.
        raise Drop("the successor has not taken over yet")
    named = [spi for d in request.deletes if d.protocol == Protocol.ESP for spi in d.spis]
    ours = _deleted(context, now, named) if named else ()
    return (Delete(Protocol.ESP, ours),) if ours else ()


def _closed(context: Context, diagnosis: Diagnosis) -> PeerClosed | Superseded:
    """The peer closes the IKE SA; if it has made a successor, ours comes to nothing, and that takes over."""
    rekeying, closed = context.requests.exchange, PeerClosed(diagnosis)
    rival = rekeying.rival if isinstance(rekeying, RekeyIke) else None
    return closed if rival is None or not rival.lives else Superseded(rival.successor, then=closed)


def settle_early_deletes(context: Context, now: float) -> None:
    """An answer of the peer has come that may have made a CHILD_SA: was its DELETE here before?"""
    early, context.children.early_deletes = context.children.early_deletes, []
    if early:
        _deleted(context, now, early)


def _deleted(context: Context, now: float, named: Sequence[bytes]) -> tuple[bytes, ...]:
    """The peer has closed the CHILD_SAs that it receives on these SPIs, up to 16,000: our halves of them."""
    by_peer = context.children.by_peer()
    if context.requests.changes_children:
        room = MAX_EARLY_DELETES - len(context.children.early_deletes)
        context.children.early_deletes += islice((spi for spi in named if spi not in by_peer), room)
    known = dict.fromkeys([by_peer[spi] for spi in named if spi in by_peer])
    return tuple(spi for child in known if (spi := _child_closed(context, now, child)) is not None)


def _child_closed(context: Context, now: float, child: Child) -> bytes | None:
    """Our half of what the peer has closed; None if we are closing it as well (RFC 7296 2.25.1)."""
    if child.fate is Fate.DELETED:
        return None
    if child.fate is Fate.DELETING:
        context.children.forget(child)
        return None
    if child.successor is not None:
        context.children.mark_deleted(now, child)
    elif child.outbound and context.children.other(child) is not None:
        context.children.retire(child)
        context.children.mark_deleted(now, child)
    else:
        context.children.restore(now, child)
        gone = Diagnosis.of(Code.PEER_DELETED, exchange=EXCHANGE, peer=context.sa.path.remote)
        context.children.down(child, gone)
    return child.spi_in.to_bytes(ESP_SPI_LENGTH, "big")


def _refused_by_peer(policy: PeerPolicy) -> Diagnosis:
    """The peer did not accept our proof, which it learned of last."""
    return Diagnosis.of(
        Code.PSK,
        exchange=EXCHANGE,
        notify="AUTHENTICATION_FAILED",
        ours=policy.key_fingerprints,
        detail=f"we said IDr {policy.local_id.describe()}",
    )
