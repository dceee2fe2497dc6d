"""The simulated world: gateways, the network between them, one virtual clock. The same each time.

    world = World()
    a = world.add_gateway("a", ADDRESS_A, Endpoint(SeededEntropy(1)))
    ...
    a.initiate()
    world.run_until(lambda: a.installed, within=60)

Time passes only between events. Events are ordered by time, then by the order in which they came to be.
Every failure carries the ladder and the log of the network.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple, NoReturn, TypeVar

from vpnd.ike.outputs import LadderLine, Transmit
from vpnd.model.child import Path
from vpnd.model.selectors import Address
from vpnd.simulate.gateway import Broken, EndpointLike, Gateway
from vpnd.simulate.ladder import Ladder, Rung, draw

G = TypeVar("G", bound=Gateway)

EPOCH = 1_000.0
"""The clock starts here: monotonic clocks do not start at zero either."""

SAME_INSTANT = 50
"""So many timeouts of one gateway without a moment passing mean that its timer does not advance."""

LOG_TAIL = 60
"""Lines of the network's log that a failure shows."""

DELAY = 0.01
"""Seconds that a datagram takes."""

Fate = Iterable[tuple[float, bytes]]
"""The copies of a datagram that arrive: seconds of delay, and the bytes."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """One UDP payload on its way, the `number`th (from 1) of gateway `sender`, sent at `sent_at` seconds."""

    sender: str
    number: int
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    data: bytes
    sent_at: float


class Event(NamedTuple):
    """Something of a test's own that will happen at time `at`; `order` breaks ties."""

    at: float
    order: int
    action: Callable[[], None]


class Arrival(NamedTuple):
    """A copy of a datagram that will arrive at time `at`; `order` breaks ties."""

    at: float
    order: int
    datagram: Datagram


class Note(NamedTuple):
    """A line of the log about a datagram: only a failure shows it, so that it is a text only there."""

    at: float
    datagram: Datagram
    what: str

    def __str__(self) -> str:
        datagram = self.datagram
        return (
            f"{self.at - EPOCH:9.3f}      {datagram.sender}#{datagram.number} {len(datagram.data)} bytes "
            f"[{datagram.source}]:{datagram.source_port} -> [{datagram.destination}]:"
            f"{datagram.destination_port} {self.what}".rstrip()
        )


class World:
    """Gateways and the network between them."""

    def __init__(self) -> None:
        self.now = EPOCH
        self.gateways: dict[str, Gateway] = {}
        self.sent: list[Datagram] = []
        self.rungs: list[Rung] = []
        self.log: deque[str | Note] = deque(maxlen=LOG_TAIL)
        self._in_flight: list[Arrival] = []
        self._events: list[Event] = []
        self._numbers: dict[str, int] = {}
        self._order = 0
        self._same_instant: tuple[str, float, int] = ("", 0.0, 0)

    # ------------------------------------------------------------------------------- building

    def add_gateway(self, name: str, address: Address, endpoint: EndpointLike) -> Gateway:
        """A gateway with its endpoint at `address`."""
        return self.add(Gateway, name, address, endpoint)

    def add(self, kind: type[G], name: str, address: Address, endpoint: EndpointLike) -> G:
        """A gateway of this kind; one of the same name is no more."""
        gateway = kind(name, address, endpoint, lambda: self.now, self._transmit, self._drawn)
        self.gateways[name] = gateway
        return gateway

    # ------------------------------------------------------------------------------- running

    def run_until(self, condition: Callable[[], object], within: float = 60.0) -> None:
        """Let events happen until `condition()` is true; fails if it is not within so many seconds."""
        end = self.now + within
        while not condition():
            moment = self._next_moment()
            if moment is None or moment > end:
                self.fail(f"this did not happen within {within:g} s")
            self._step(moment)

    def run_for(self, seconds: float) -> None:
        """Let `seconds` pass, with everything that happens in them."""
        end = self.now + seconds
        while (moment := self._next_moment()) is not None and moment <= end:
            self._step(moment)
        self.now = end

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is on its way."""
        return not self._in_flight

    def settle(self) -> None:
        """Let everything in flight, and what it causes, arrive. Timers that fall due meanwhile fire."""
        while self._in_flight:
            self._step()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something of the test's own once so much time has passed."""
        self._order += 1
        heapq.heappush(self._events, Event(self.now + seconds, self._order, action))

    def _next_moment(self) -> float | None:
        # Half of the time of a test with much traffic is spent here.
        moment = self._in_flight[0].at if self._in_flight else inf
        if self._events and (at := self._events[0].at) < moment:
            moment = at
        for gateway in self.gateways.values():
            if (due := gateway.next_timeout()) is not None and due < moment:
                moment = due
        if moment == inf:
            return None
        return moment if moment > self.now else self.now

    def _step(self, moment: float | None = None) -> None:
        """The next event, at `moment` if known. An arrival goes before a timeout of the same moment."""
        if moment is None and (moment := self._next_moment()) is None:
            return
        self.now = moment
        if self._in_flight and self._in_flight[0].at <= moment:
            self._arrive(heapq.heappop(self._in_flight).datagram)
            return
        if self._events and self._events[0].at <= moment:
            heapq.heappop(self._events).action()
            return
        for gateway in self.gateways.values():
            due = gateway.next_timeout()
            if due is not None and due <= moment:
                self._guard_against_spinning(gateway)
                gateway.timeout()
                return

    def _guard_against_spinning(self, gateway: Gateway) -> None:
        name, at, count = self._same_instant
        count = count + 1 if (name, at) == (gateway.name, self.now) else 1
        self._same_instant = (gateway.name, self.now, count)
        if count > SAME_INSTANT:
            self.fail(f"the timer of {gateway.name} does not advance beyond {self.now}")

    # ------------------------------------------------------------------------------- the network

    def _transmit(self, gateway: Gateway, output: Transmit) -> None:
        path = output.path
        number = self._numbers[gateway.name] = self._numbers.get(gateway.name, 0) + 1
        source = gateway.address if path.local.is_unspecified else path.local
        datagram = Datagram(
            gateway.name,
            number,
            source,
            path.local_port,
            path.remote,
            path.remote_port,
            output.data,
            self.now,
        )
        self.sent.append(datagram)
        copies = list(self._copies(datagram))
        self._note(datagram, "lost" if not copies else "" if len(copies) == 1 else f"x{len(copies)}")
        datagram = self._outbound(datagram)
        for delay, data in copies:
            self._fly(datagram, delay, data)

    def _fly(self, datagram: Datagram, delay: float, data: bytes) -> None:
        self._order += 1
        heapq.heappush(self._in_flight, Arrival(self.now + delay, self._order, replace(datagram, data=data)))

    def _copies(self, datagram: Datagram) -> Fate:
        """The copies of it that arrive: here everything does, after the same time."""
        return [(DELAY, datagram.data)]

    def _outbound(self, datagram: Datagram) -> Datagram:
        """As it is on the network, after what stands between."""
        return datagram

    def _inbound(self, datagram: Datagram) -> Datagram | None:
        """As it reaches a gateway; None if nothing lets it in."""
        return datagram

    def _arrive(self, outside: Datagram) -> None:
        datagram = self._inbound(outside)
        if datagram is None:
            self._note(outside, "filtered by the NAT")
            return
        for gateway in self.gateways.values():
            if gateway.address == datagram.destination:
                path = Path(
                    datagram.destination, datagram.destination_port, datagram.source, datagram.source_port
                )
                gateway.receive(path, datagram.data)
                return
        self._note(datagram, "nobody there")

    # ------------------------------------------------------------------------------- telling

    def _drawn(self, gateway: Gateway, line: LadderLine) -> None:
        if line.outbound:
            peer = gateway.peers.get(line.tunnel, "?")
            self.rungs.append(Rung(self.now, gateway.name, peer, line.text))
            self.log.append(f"{self.now - EPOCH:9.3f}  {gateway.name} -> {peer}  {line.text}")

    def _note(self, datagram: Datagram, what: str) -> None:
        self.log.append(Note(self.now, datagram, what))

    def ladder(self) -> Ladder:
        """Everything that was sent since the start or since `clear_ladder()`."""
        return draw(self.rungs, left=next(iter(self.gateways), ""))

    def clear_ladder(self) -> None:
        """Begin a new ladder."""
        self.rungs.clear()

    def history(self) -> str:
        """What a failure shows: the moment, what each side holds, and the end of the log."""
        holdings = [
            f"{g.name}: {len(g.installed)} SA pairs, IKE SAs "
            f"{[info.spi_i.hex() + '/' + info.spi_r.hex() for t in g.policies for info in g.ike_sas(t)]}"
            for g in self.gateways.values()
        ]
        head = f"{self.now - EPOCH:.3f} s after the start"
        return "\n".join([head, *holdings, *map(str, self.log)])

    def fail(self, message: str) -> NoReturn:
        """Fail with the whole history."""
        raise Broken(f"{message}\n{self.history()}")
