"""Who may have a tunnel whose peer can have any address: one machine at a time.

A peer is known by its identity and key. If it begins from elsewhere while an IKE SA of the tunnel stands,
either it has moved, or another machine is configured like it. So the one that stands is asked for a sign of
life, and the newcomer, which has proved itself, is held without an answer until that is decided:

    newcomer --IKE_AUTH, Main5--> held; the present peer is asked --ANSWER_WITHIN--> answered?
                                  no:  its IKE SA goes, the newcomer has the tunnel
                                  yes: the newcomer is refused

RFC 7296 lets a responder take its time with an answer (the initiator repeats its request, section 2.1), and
has one notify that leaves no IKE SA behind in IKE_AUTH: AUTHENTICATION_FAILED (section 2.21.2). The notify
INITIAL_CONTACT (section 2.4) does not shorten this: both of two machines that are configured alike would say
it, and take the tunnel from each other without end. A newcomer at the address and port of the present peer is
that peer.
"""

from __future__ import annotations

from enum import Enum

from vpnd.ike.commands import Close, Probe
from vpnd.ike.registry import Registry
from vpnd.ike.session import Phase, Session
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import PeerPolicy

ANSWER_WITHIN = 3.0
"""Ours: seconds that the present peer has for its answer; IKEv2 asks three times in them.

Shorter than the first wait of common peers before they repeat IKE_AUTH (strongSwan: 4 s).
"""


class Verdict(Enum):
    """What becomes of a newcomer."""

    WELCOME = "the tunnel is its own"
    WAIT = "the present peer has been asked"
    REFUSED = "the present peer answers"


class Contest:
    """One newcomer's claim. Times are seconds on the caller's clock."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._present: Session | None = None
        self._asked = 0.0

    def decide(self, now: float, policy: PeerPolicy, path: Path) -> Verdict:
        """Whether the newcomer, which has proved that it is the peer of `policy`, may have the tunnel.

        On WAIT ask again after ANSWER_WITHIN seconds.
        """
        present = self._registry.sessions.established(policy.name) if policy.any_address else None
        if present is None or _same_place(present.sa.path, path):
            return Verdict.WELCOME
        if present is not self._present:
            self._present, self._asked = present, now
            present.command(now, Probe())
            self._registry.sessions.arm(present)
            return Verdict.WAIT
        if present.answered_since(self._asked):
            return Verdict.REFUSED
        gone = Diagnosis.of(Code.PEER_ELSEWHERE, peer=present.sa.path.remote, detail=f"now at {path.remote}")
        for session in self._registry.sessions.of(policy.name):
            if session.sa.phase is Phase.ESTABLISHED:
                session.command(now, Close(gone))
                self._registry.sessions.arm(session)
        return Verdict.WELCOME

    def refusal(self, path: Path) -> Diagnosis:
        """Why the newcomer is refused."""
        where = f"the one that is up answers at {self._present.sa.path.remote}" if self._present else None
        return Diagnosis.of(Code.IDENTITY_TAKEN, peer=path.remote, detail=where)


def _same_place(one: Path, other: Path) -> bool:
    return (one.remote, one.remote_port) == (other.remote, other.remote_port)
