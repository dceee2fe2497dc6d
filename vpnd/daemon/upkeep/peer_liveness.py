"""Which peers live, by their traffic; one that answers no packets is asked, and connected to again."""

from __future__ import annotations

from vpnd.daemon.events.journal import Journal
from vpnd.datapath.interface import Engine
from vpnd.host.clock import suspended_seconds
from vpnd.ike.endpoint import Endpoint
from vpnd.model.policy import Negotiation
from vpnd.tunnel.silence_detector import SilenceDetector, Step
from vpnd.tunnel.tunnels import Tunnels

PROBE_EVERY = 10.0
"""Ours: seconds between two checks of one peer that are due to ESP with an unknown SPI."""


class PeerLiveness:
    """Reads the datapath's counters for IKE, and asks a peer whose traffic stops while ours goes on."""

    def __init__(self, endpoint: Endpoint, tunnels: Tunnels, engine: Engine, journal: Journal) -> None:
        self._endpoint = endpoint
        self._tunnels = tunnels
        self._engine = engine
        self._journal = journal
        self._probed: dict[str, float] = {}
        self._detectors: dict[str, SilenceDetector] = {}
        """Of the tunnels whose packets have no answer yet."""

    def forget(self, tunnel: str) -> None:
        """The tunnel is removed."""
        self._probed.pop(tunnel, None)
        self._detectors.pop(tunnel, None)

    def unknown_spi(self, now: float, tunnel: str) -> None:
        """The peer sends what we do not know: it, or we, may have forgotten; a check finds out which."""
        if now - self._probed.get(tunnel, -PROBE_EVERY) >= PROBE_EVERY:
            self._probed[tunnel] = now
            self._endpoint.probe(now, tunnel)

    def evaluate(self, now: float) -> frozenset[str]:
        """Look once a second at what came and left; returns the tunnels where only one of the two did."""
        offset = suspended_seconds()
        came = self._engine.take_heard()
        for name, at in came.items():
            tunnel = self._tunnels.get(name)
            if tunnel is not None and tunnel.policy.peer.dpd.enabled:
                # Authenticated packets prove that the peer lives (RFC 7296 2.4, RFC 3706 section 5.1).
                tunnel.note_activity(at + offset)
                self._endpoint.note_activity(min(at + offset, now), name)
        sent = self._engine.take_sent()
        for name in {*sent, *self._detectors}:
            self._evaluate(now, name, min(sent.get(name, float("-inf")) + offset, now))
        return frozenset(came) ^ frozenset(sent)

    def next_timeout(self) -> float | None:
        """When to evaluate before the second is over."""
        detectors = self._detectors.values()
        wanted = [at for one in detectors if (at := one.next_evaluation()) is not None]
        return min(wanted, default=None)

    def _evaluate(self, now: float, name: str, sent: float) -> None:
        """Whether the packets of one tunnel are answered; `sent` is when the last one left, if one did."""
        tunnel = self._tunnels.get(name)
        heard = max((ike.last_heard for ike in self._endpoint.ike_sas(name)), default=None)
        if tunnel is None or heard is None or not tunnel.policy.peer.dpd.enabled:
            self._detectors.pop(name, None)
            return
        detector = self._detectors.setdefault(name, SilenceDetector())
        begun = detector.has_begun
        step = detector.evaluate(now, sent, heard)
        if step is Step.ASK:
            self._endpoint.probe(now, name)
        elif step is not None and tunnel.policy.negotiation is not Negotiation.PASSIVE:
            self._reinitiate(now, name, step, begun)
        if detector.is_settled(now):
            del self._detectors[name]

    def _reinitiate(self, now: float, name: str, step: Step, begun: bool) -> None:
        if step is Step.RECOVERED:
            self._journal.event(name, "peer-answers", "the peer answers again")
            return
        if not begun:
            text = "the peer does not answer; in case it was restarted, connecting once more"
            self._journal.event(name, "peer-silent", text)
        self._endpoint.reinitiate(now, name)
