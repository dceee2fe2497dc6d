"""A year of one tunnel: bad links, a peer that reboots every day, and traffic whenever there is a way for it.

What would take a second of traffic each takes nothing here: while packets flow both ways, time jumps to the
next moment at which something other than dead peer detection is due. Of all the seconds in between each side
is told the last one in which it heard the other, as the daemon, which looks at its counters each second,
would have told it all of them; `seconds=True` tells them all, for the comparison.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import floor, inf
from typing import ClassVar

from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.session import Snapshot
from vpnd.model.policy import DpdAction, Negotiation, PeerPolicy
from vpnd.simulate.gateway import Gateway

from .living import Living, with_dpd
from .policies import ADDRESS_A, ADDRESS_B
from .weather import Datagram, Weather
from .world import EPOCH, World

DAY = 86_400.0

LINK = Weather(loss=0.01, delay=(0.005, 0.030))
"""1 % loss."""

REBOOT = (20.0, 120.0)
"""Seconds that the peer is away once a day, without a word before; it comes back without its SAs."""

LINK_FAILURES = (5.0, 60.0, 300.0)
"""Seconds that the link is down, one of them about once a day."""


@dataclass(slots=True)
class Meter:
    """Seconds, and how many of them the network could have carried packets and did."""

    possible: float = 0.0
    carried: float = 0.0
    longest_gap: float = 0.0
    gap: float = 0.0

    def count(self, seconds: float, possible: bool, carried: bool) -> None:
        if not possible:
            return
        self.possible += seconds
        if carried:
            self.carried += seconds
            self.gap = 0.0
        else:
            self.gap += seconds
            self.longest_gap = max(self.longest_gap, self.gap)

    @property
    def availability(self) -> float:
        """Of the seconds in which the network could carry packets, those in which the tunnel did."""
        return self.carried / self.possible if self.possible else 0.0


class Remembered(Living):
    """A gateway that knows whether something has happened to it since it was looked at."""

    changed = True

    def drain(self) -> None:
        super().drain()
        self.changed = True


class Year(World):
    """Gateway a negotiates; gateway b is the peer, which only answers, and which reboots."""

    kind: ClassVar[type[Remembered]] = Remembered

    def __init__(
        self, policies: tuple[PeerPolicy, PeerPolicy], seed: int = 1, day: float = DAY, seconds: bool = False
    ) -> None:
        super().__init__(seed, LINK)
        self.meter = Meter()
        self.reboots = 0
        self.link_failures = 0
        self.most_sas = 0
        self.most_sessions = 0
        self.link = True
        self.held: dict[str, Snapshot] = {}
        """What each gateway has held since the last event."""
        self._policies = tuple(with_dpd(policy, action=DpdAction.RETRY) for policy in policies)
        self._fate = random.Random(seed + 1)
        self._length_of_day = day
        self._seconds = seconds
        self._heard = EPOCH
        self.interceptors.append(self._cut)
        self.a = self.add(self.kind, "a", ADDRESS_A, Endpoint(SeededEntropy(seed)))
        self.b = self._boot()
        self.a.live("b", self._policies[0], Negotiation.ACTIVE, SeededEntropy(seed + 2))
        self._day()
        if seconds:
            self._second()

    # ------------------------------------------------------------------------------- what happens

    def _boot(self) -> Remembered:
        self.reboots += 1
        seed = 1000 * self.seed + self.reboots
        b = self.add(self.kind, "b", ADDRESS_B, Endpoint(SeededEntropy(seed)))
        b.live("a", self._policies[1], Negotiation.PASSIVE, SeededEntropy(seed + 500_000))
        return b

    def _day(self) -> None:
        """What this day brings, and what a day leaves behind that only tests keep."""
        dice, day = self._fate, self._length_of_day
        self.after(dice.uniform(0.05, 0.6) * day, self._reboot)
        if dice.random() < 0.9:
            self.after(dice.uniform(0.65, 0.95) * day, self._link_down)
        self.after(day, self._day)
        self.sent.clear()
        self.rungs.clear()
        for gateway in (self.a, self.b):
            gateway.forget_events()

    def _reboot(self) -> None:
        del self.gateways["b"]
        self.after(self._fate.uniform(*REBOOT), self._back)

    def _back(self) -> None:
        self.b = self._boot()

    def _link_down(self) -> None:
        self.link = False
        self.link_failures += 1
        self.after(self._fate.choice(LINK_FAILURES), self._link_up)

    def _link_up(self) -> None:
        self.link = True

    def _cut(self, datagram: Datagram) -> list[tuple[float, bytes]] | None:
        return None if self.link else []

    # ------------------------------------------------------------------------------- traffic

    @property
    def possible(self) -> bool:
        """Whether the network can carry packets, and there is a host to carry them to."""
        return self.link and "b" in self.gateways

    @property
    def agreeing(self) -> bool:
        """Whether each side sends on what the other has installed."""
        return self.a.sending_on() in self.b.installed and self.b.sending_on() in self.a.installed

    def _second(self) -> None:
        self._hear()
        self.after(1.0, self._second)

    def _hear(self) -> None:
        if self.possible:
            for one, other in ((self.a, self.b), (self.b, self.a)):
                if one.sending_on() in other.installed:
                    other.hear()

    def run_for(self, seconds: float) -> None:
        """Let `seconds` pass, with everything that happens in them."""
        ended: list[bool] = []
        self.after(seconds, lambda: ended.append(True))
        while not ended:
            self._step()

    def _jump(self) -> None:
        """To the last whole second before something is due, both sides having heard each other till then."""
        queued = [queue[0].at for queue in (self._in_flight, self._events) if queue]
        if min(queued) - self.now < 1.0:
            return
        until = min([*queued, *(_busy_at(gateway, self.held[gateway.name]) for gateway in (self.a, self.b))])
        second = EPOCH + floor(until - EPOCH)
        if second > max(self.now, self._heard):
            self.meter.count(second - self.now, True, True)
            self.now = self._heard = second
            self._hear()

    def _step(self, moment: float | None = None) -> None:
        possible, carried = self.possible, self.agreeing
        if possible and carried and not self._seconds:
            self._jump()
        before = self.now
        super()._step()
        self.meter.count(self.now - before, possible, carried)
        for gateway in (self.a, self.b):
            if gateway.changed:
                gateway.changed = False
                self.most_sas = max(self.most_sas, len(gateway.installed))
                self.held[gateway.name] = snapshot = held(gateway)
                self.most_sessions = max(self.most_sessions, len(snapshot.sas))


def held(gateway: Gateway) -> Snapshot:
    """Everything of IKE that a gateway holds."""
    return gateway.endpoint.snapshot()


def _busy_at(gateway: Living, holding: Snapshot) -> float:
    """When something other than dead peer detection is due."""
    at = gateway.tunnels.next_timeout()
    due = [when for sa in holding.sas for when in sa.deadlines.values()]
    return min(due if at is None else [at, *due], default=inf)
