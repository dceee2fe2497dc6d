"""Signs of life: what the traffic tells of the peers, and the questions that follow from it."""

from __future__ import annotations

from vpnd.daemon.journal import Journal
from vpnd.datapath.interface import Engine
from vpnd.host.clock import suspended_seconds
from vpnd.ike.endpoint import Endpoint
from vpnd.model.policy import Negotiation
from vpnd.tunnel.doubt import Doubt, Step
from vpnd.tunnel.roster import Roster

PROBE_EVERY = 10.0
"""Ours: seconds between two checks of one peer that are due to ESP with an unknown SPI."""


class SignsOfLife:
    """Listens to the datapath's counters for IKE, and asks where they make the peer's life doubtful."""

    def __init__(self, endpoint: Endpoint, roster: Roster, engine: Engine, journal: Journal) -> None:
        self._endpoint = endpoint
        self._roster = roster
        self._engine = engine
        self._journal = journal
        self._probed: dict[str, float] = {}
        self._doubts: dict[str, Doubt] = {}
        """Of the tunnels whose packets have no answer yet."""

    def forget(self, tunnel: str) -> None:
        """The tunnel is removed."""
        self._probed.pop(tunnel, None)
        self._doubts.pop(tunnel, None)

    def unknown_spi(self, now: float, tunnel: str) -> None:
        """The peer sends what we do not know: it, or we, may have forgotten; a check finds out which."""
        if now - self._probed.get(tunnel, -PROBE_EVERY) >= PROBE_EVERY:
            self._probed[tunnel] = now
            self._endpoint.probe(now, tunnel)

    def listen(self, now: float) -> None:
        """Look at what came and what left, once a second."""
        offset = suspended_seconds()
        for name, at in self._engine.take_heard().items():
            tunnel = self._roster.get(name)
            if tunnel is not None and tunnel.policy.peer.dpd.enabled:
                # Authenticated packets prove that the peer lives (RFC 7296 2.4, RFC 3706 section 5.1).
                tunnel.last_heard = at + offset
                self._endpoint.heard(min(at + offset, now), name)
        sent = self._engine.take_sent()
        for name in {*sent, *self._doubts}:
            self._look(now, name, min(sent.get(name, float("-inf")) + offset, now))

    def next_timeout(self) -> float | None:
        """When to listen before the second is over."""
        looks = [look for doubt in self._doubts.values() if (look := doubt.next_look()) is not None]
        return min(looks, default=None)

    def _look(self, now: float, name: str, sent: float) -> None:
        """Whether the packets of one tunnel are answered; `sent` is when the last one left, if one did."""
        tunnel = self._roster.get(name)
        heard = max((ike.last_heard for ike in self._endpoint.ike_sas(name)), default=None)
        if tunnel is None or heard is None or not tunnel.policy.peer.dpd.enabled:
            self._doubts.pop(name, None)
            return
        doubt = self._doubts.setdefault(name, Doubt())
        begun = doubt.has_begun
        step = doubt.look(now, sent, heard)
        if step is Step.ASK:
            self._endpoint.probe(now, name)
        elif step is not None and tunnel.policy.negotiation is not Negotiation.PASSIVE:
            self._begin_anew(now, name, step, begun)
        if doubt.is_settled(now):
            del self._doubts[name]

    def _begin_anew(self, now: float, name: str, step: Step, begun: bool) -> None:
        if step is Step.ANSWERS:
            self._journal.event(name, "peer-answers", "the peer answers again")
            return
        if not begun:
            text = "the peer does not answer; in case it was started anew, connecting once more"
            self._journal.event(name, "peer-silent", text)
        self._endpoint.begin_anew(now, name)
