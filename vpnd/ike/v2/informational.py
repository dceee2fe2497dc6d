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
from typing import TYPE_CHECKING

from vpnd.ike.faults import Drop, Fault
from vpnd.ike.v2.children import Child, Fate
from vpnd.ike.v2.messages import InformationalRequest, Received, notify_of
from vpnd.ike.v2.proposals import ESP_SPI_LENGTH
from vpnd.ike.v2.state import State
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.wire.iana import Exchange2, Notify2, Protocol
from vpnd.wire.ikev2 import Delete, Notify, Payload

if TYPE_CHECKING:
    from vpnd.ike.v2.session import Session

EXCHANGE = "INFORMATIONAL"
MAX_EARLY_DELETES = 16
"""SPIs of DELETEs that may have overtaken the answer which makes their CHILD_SA."""


class Inform:
    """A request whose answer only has to come."""

    kind = Exchange2.INFORMATIONAL

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        return ()

    def answered(self, session: Session, now: float, received: Received) -> None:
        return None

    def failed(self, session: Session, now: float, fault: Fault) -> None:
        return None

    def abandoned(self, session: Session) -> None:
        return None


class Liveness(Inform):
    """Are you there? Any answer is a yes (RFC 7296 section 2.4)."""


class DeleteChildren(Inform):
    """CHILD_SAs are closed; `spis` are those that we receive on."""

    def __init__(self, spis: Iterable[int]) -> None:
        self._spis = tuple(spis)

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        """Those that the peer has not deleted meanwhile; an SPI without a record never came up."""
        children = ((spi, session.children.find(spi)) for spi in self._spis)
        self._spis = tuple(spi for spi, child in children if child is None or child.fate is not Fate.GOING)
        if not self._spis:
            return None
        spis = tuple(spi.to_bytes(ESP_SPI_LENGTH, "big") for spi in self._spis)
        return (Delete(Protocol.ESP, spis),)

    def answered(self, session: Session, now: float, received: Received) -> None:
        session.registry.renewals.closed(now, session.tunnel)
        for spi in self._spis:
            child = session.children.find(spi)
            if child is not None and child.fate is Fate.REKEYED:
                session.children.going(now, child)
            elif child is not None and child.fate is Fate.DELETING:
                session.children.forget(child)


class DeleteIke(Inform):
    """The IKE SA is closed, with everything on it.

    `receiving`: the inbound SPIs of its children that another IKE SA still receives on, for the peer sends
    on them until it has this.
    """

    def __init__(self, receiving: Iterable[int] = ()) -> None:
        self._receiving = tuple(receiving)

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        return (Delete(Protocol.IKE),)

    def answered(self, session: Session, now: float, received: Received) -> None:
        session.registry.renewals.closed(now, session.tunnel)
        for other in session.siblings():
            for child in filter(None, map(other.children.find, self._receiving)):
                other.children.going(now, child)
            session.registry.arm(other)
        session.finish()


class AuthenticationFailedNotice(Inform):
    """The responder's proof was wrong: the IKE SA that it believes in does not exist (RFC 7296 2.21.2)."""

    def request(self, session: Session, now: float) -> tuple[Payload, ...] | None:
        return (Notify(Notify2.AUTHENTICATION_FAILED), Delete(Protocol.IKE))

    def answered(self, session: Session, now: float, received: Received) -> None:
        session.finish()


def respond(session: Session, now: float, received: Received) -> tuple[Payload, ...]:
    """A peer's request: note what it deletes, and answer in any case."""
    request = received.message
    if not isinstance(request, InformationalRequest):
        raise Drop("INFORMATIONAL: not a request")
    if notify_of(request.notifies, Notify2.AUTHENTICATION_FAILED) is not None:
        session.deleted_by_peer(now, _refused_by_peer(session))
        return ()
    if any(delete.protocol == Protocol.IKE for delete in request.deletes):
        facts = {"exchange": EXCHANGE, "peer": session.path.remote}
        session.deleted_by_peer(now, Diagnosis.of(Code.PEER_DELETED, **facts))
        return ()
    if session.state is State.SUCCESSOR:
        # The peer has moved on to it, its DELETE of the old IKE SA is still on its way, and so are the
        # children that this message may mean: it will be repeated.
        raise Drop("the successor has not taken over yet")
    named = [spi for d in request.deletes if d.protocol == Protocol.ESP for spi in d.spis]
    ours = _deleted(session, now, named) if named else ()
    return (Delete(Protocol.ESP, ours),) if ours else ()


def settle_early_deletes(session: Session, now: float) -> None:
    """An answer of the peer has come that may have made a CHILD_SA: was its DELETE here before?"""
    early, session.early_deletes = session.early_deletes, []
    if early:
        _deleted(session, now, early)


def _deleted(session: Session, now: float, named: Sequence[bytes]) -> tuple[bytes, ...]:
    """The peer has closed the CHILD_SAs that it receives on these SPIs: our halves, for the answer.

    A message may name 16,000 that are not this IKE SA's: each costs one look into a dictionary.
    """
    by_peer = session.children.by_peer()
    if session.is_changing_children:
        room = MAX_EARLY_DELETES - len(session.early_deletes)
        session.early_deletes += islice((spi for spi in named if spi not in by_peer), room)
    known = dict.fromkeys([by_peer[spi] for spi in named if spi in by_peer])
    return tuple(spi for child in known if (spi := _closed(session, now, child)) is not None)


def _closed(session: Session, now: float, child: Child) -> bytes | None:
    """Our half of what the peer has closed; None if we are closing it as well (RFC 7296 2.25.1)."""
    if child.fate is Fate.GOING:
        return None
    if child.fate is Fate.DELETING:
        session.children.forget(child)
        return None
    if child.successor is not None:
        session.children.going(now, child)
    elif child.outbound and session.children.other(child) is not None:
        session.children.retire(child)
        session.children.going(now, child)
    else:
        session.children.take_up_again(now, child)
        facts = {"exchange": EXCHANGE, "peer": session.path.remote}
        session.children.down(child, Diagnosis.of(Code.PEER_DELETED, **facts))
    return child.spi_in.to_bytes(ESP_SPI_LENGTH, "big")


def _refused_by_peer(session: Session) -> Diagnosis:
    """The peer did not accept our proof, which it learned of last."""
    return Diagnosis.of(
        Code.PSK,
        exchange=EXCHANGE,
        notify="AUTHENTICATION_FAILED",
        ours=session.policy.psk.fingerprint(),
        detail=f"we said IDr {session.policy.local_id.describe()}",
    )
