"""Traffic that does not pass although the tunnel is up: found in the counters, named, and told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vpnd.daemon.events.journal import Journal
from vpnd.daemon.traffic import Traffic
from vpnd.datapath.interface import Drop, Engine
from vpnd.ike.endpoint import Endpoint
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.mappings import Mapping, SaPair
from vpnd.tunnel.traffic_flow import WINDOW, Counted, Flow, FlowDetector
from vpnd.tunnel.tunnels import Tunnels

REMEMBERED = 60.0
"""Ours: seconds without any packet after which what was wrong is history."""

LOOK_EVERY = 10.0
"""Ours: seconds between two looks at what this machine forwards."""


class _Watched:
    """One tunnel: its detector, when packets last did not pass, and when this machine was asked last."""

    def __init__(self) -> None:
        self.detector = FlowDetector()
        self._wrong_at = self._looked_at = float("-inf")

    def wrong(self, now: float) -> None:
        """Packets do not pass."""
        self._wrong_at = now

    def is_history(self, now: float) -> bool:
        """Whether nothing is known of packets that do not pass for so long that it is over."""
        return now - self._wrong_at >= REMEMBERED

    def may_look(self, now: float) -> bool:
        """Whether this machine may be asked what it forwards; if so, it is."""
        due = now - self._looked_at >= LOOK_EVERY
        self._looked_at = now if due else self._looked_at
        return due


class TrafficWatch:
    """Of the tunnels through which packets go one way only.

    `traffic` counts those of a mapping, `probes` the echo requests of our health check. `look` asks this
    machine whether it forwards what comes out of a tunnel; the answer is `forwarding`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tunnels: Tunnels,
        engine: Engine,
        journal: Journal,
        traffic: Callable[[str, Mapping], Traffic],
        probes: Callable[[str], int],
        look: Callable[[str], None],
    ) -> None:
        self._endpoint, self._tunnels, self._engine, self._journal = endpoint, tunnels, engine, journal
        self._traffic, self._probes, self._look = traffic, probes, look
        self._watched: dict[str, _Watched] = {}

    def forget(self, tunnel: str) -> None:
        """The tunnel is removed."""
        self._watched.pop(tunnel, None)

    def evaluate(self, now: float, one_way: Iterable[str]) -> None:
        """Look once a second; through the tunnels in `one_way` packets went one way only since the last look.

        The counters of the others, which are most, are not read.
        """
        for name in {*one_way, *self._watched}:
            tunnel = self._tunnels.get(name)
            if tunnel is None or not any(mapping.owner for mapping in tunnel.mappings):
                self._watched.pop(name, None)
                continue
            watched = self._watched.setdefault(name, _Watched())
            flow = watched.detector.evaluate(now, self._counted(tunnel))
            if flow is not None:
                self._judge(now, tunnel, watched, flow)

    def forwarding(self, now: float, name: str, cause: str | None, detail: str | None) -> None:
        """This machine's answer. `cause`: why it does not forward what comes out of the tunnel, if so."""
        tunnel = self._tunnels.get(name)
        if tunnel is None or name not in self._watched:
            return
        if cause is None:
            self._say(now, tunnel, Diagnosis.of(Code.NO_REPLY, detail=detail))
        else:
            self._say(now, tunnel, Diagnosis.of(Code.NO_FORWARD, cause=cause, detail=detail))

    def _judge(self, now: float, tunnel: Tunnel, watched: _Watched, flow: Flow) -> None:
        match flow:
            case Flow.PASSES:
                self._passes(tunnel)
                self._watched.pop(tunnel.name, None)
            case Flow.IDLE:
                if watched.is_history(now):
                    self._passes(tunnel, told=False)
                    self._watched.pop(tunnel.name, None)
            case Flow.UNANSWERED:
                watched.wrong(now)
                if watched.may_look(now):
                    self._look(tunnel.name)
            case _:
                watched.wrong(now)
                if self._peer_answers(now, tunnel):
                    self._say(now, tunnel, _diagnosis(tunnel, flow))

    def _peer_answers(self, now: float, tunnel: Tunnel) -> bool:
        """Whether the peer is there by IKE, which asks one that answers no packets (`silence_detector`)."""
        heard = max((ike.last_heard for ike in self._endpoint.ike_sas(tunnel.name)), default=None)
        return heard is not None and (heard > now - WINDOW or not tunnel.policy.peer.dpd.enabled)

    def _say(self, now: float, tunnel: Tunnel, diagnosis: Diagnosis) -> None:
        before = tunnel.standing.flow
        tunnel.standing.impede(now, diagnosis)
        if before is None or before.diagnosis.code is not diagnosis.code:
            self._journal.failure(tunnel.name, "traffic-stuck", diagnosis)

    def _passes(self, tunnel: Tunnel, told: bool = True) -> None:
        if tunnel.standing.flow is None:
            return
        tunnel.standing.forget_flow()
        if told:
            self._journal.event(tunnel.name, "traffic-passes", "packets pass both ways again")

    def _counted(self, tunnel: Tunnel) -> Counted:
        traffic = [self._traffic(tunnel.name, mapping) for mapping in tunnel.mappings]
        return Counted(
            came=sum(one.packets_in for one in traffic),
            left=sum(one.packets_out for one in traffic),
            unreadable=self._unreadable(tunnel.name),
            probes=self._probes(tunnel.name),
        )

    def _unreadable(self, name: str) -> int:
        try:
            return self._engine.drops(name).get(Drop.INTEGRITY, 0)
        except KeyError:  # its interface is being made again
            return 0


def _diagnosis(tunnel: Tunnel, flow: Flow) -> Diagnosis:
    child = next(owners(tunnel)).child
    if flow is Flow.UNREADABLE:
        policy = tunnel.policy.peer.child(child.mapping)
        cut = "96" if policy is not None and policy.sha256_96 else None
        return Diagnosis.of(Code.ESP_ICV, ours=child.suite.integrity or child.suite.encryption, detail=cut)
    encapsulation = "udp" if child.udp else "esp"
    return Diagnosis.of(Code.ONE_WAY, seconds=int(WINDOW), encapsulation=encapsulation)


def owners(tunnel: Tunnel) -> Iterator[SaPair]:
    """The SA pairs that carry its mappings."""
    return (mapping.owner for mapping in tunnel.mappings if mapping.owner is not None)
