"""A pair whose messages wait on the wire until a test delivers them, one by one or all of them.

pair = WirePair()
pair.a.initiate()
request = pair.take("a")       # to be delivered later, or never
pair.deliver(request)
pair.run()                     # everything that waits, and what it causes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vpnd.ike.limits import Limits
from vpnd.model.policy import PeerPolicy
from vpnd.simulate.gateway import Gateway

from .pair import Pair
from .policies import mirrored, policy
from .weather import Datagram

MOMENT = 0.001
"""Seconds that a datagram takes while time passes: far less than any timer."""


class WirePair(Pair):
    """Gateways `a` and `b` with one tunnel between them, of which `a` has the policy `ours`.

    A datagram waits in `wire` unless `filter` loses it: that is given the sender's name and the bytes, and
    returns the copies that go on their way. While time passes nothing waits.
    """

    def __init__(
        self,
        ours: PeerPolicy | None = None,
        theirs: PeerPolicy | None = None,
        seed: int = 1,
        limits: Limits | None = None,
    ) -> None:
        self.ours = ours or policy()
        self.theirs = theirs or mirrored(self.ours)
        super().__init__(seed, limits_b=limits, policies=(self.ours, self.theirs))
        self.wire: list[Datagram] = []
        self.filter: Callable[[str, bytes], list[bytes]] = lambda _, data: [data]
        self._waiting = True
        self.world.interceptors.append(self._hold)

    def _hold(self, datagram: Datagram) -> list[tuple[float, bytes]]:
        copies = self.filter(datagram.sender, datagram.data)
        if not self._waiting:
            return [(MOMENT, data) for data in copies]
        self.wire += [replace(datagram, data=data) for data in copies]
        return []

    # ------------------------------------------------------------------------------- the wire

    def deliver(self, datagram: Datagram) -> None:
        """It arrives now."""
        self.world.deliver(datagram)

    def run(self) -> None:
        """Deliver until the wire is empty."""
        for _ in range(10_000):
            if not self.wire:
                return
            self.deliver(self.wire.pop(0))
        self.world.fail("the two never stop talking")

    def take(self, name: str) -> Datagram:
        """Take the oldest datagram of a side off the wire."""
        datagram = next(one for one in self.wire if one.sender == name)
        self.wire.remove(datagram)
        return datagram

    def step(self, name: str, carries: bool = True) -> None:
        """Deliver the oldest datagram of a side. `carries`: no packet may be lost by it."""
        self.deliver(self.take(name))
        if carries:
            self.assert_carries()

    def inject(self, receiver: str, data: bytes) -> None:
        """A datagram arrives from where the receiver's peer is, of which the peer knows nothing."""
        gateway = self.world.gateways[receiver]
        sas = [sa for tunnel in gateway.policies for sa in gateway.ike_sas(tunnel)]
        if sas:
            path = sas[0].path
            self.world.inject(receiver, data, path.remote, path.remote_port, path.local_port)
        else:
            self.world.inject(receiver, data, self.other(gateway).address)

    def sent(self, name: str) -> list[bytes]:
        """Everything that a side has sent, lost or not."""
        return [datagram.data for datagram in self.world.sent if datagram.sender == name]

    # ------------------------------------------------------------------------------- time

    def advance(self, seconds: float) -> None:
        """Let time pass, with everything that happens meanwhile."""
        self.run()
        self._waiting = False
        self.world.run_for(seconds)
        self.world.settle()
        self._waiting = True

    def wait(self, seconds: float) -> None:
        """Let time pass for `a` alone, until it sends something: that waits on the wire."""
        end = self.world.now + seconds
        while (due := self.a.next_timeout()) is not None and due <= end:
            self.world.now = max(self.world.now, due)
            self.a.timeout()
            if self.wire:
                return
        self.world.now = end

    # ------------------------------------------------------------------------------- what tests do

    def other(self, gateway: Gateway) -> Gateway:
        """The peer of a gateway."""
        return self.b if gateway is self.a else self.a

    def initiate(self, gateway: Gateway | None = None, mapping: int = 0) -> None:
        """One side (a) is asked for a mapping, and the exchange runs."""
        (gateway or self.a).initiate(mapping)
        self.run()

    def establish(self, mappings: int = 1) -> None:
        """Bring the first `mappings` mappings up from `a`, and begin a new ladder."""
        for mapping in range(mappings):
            self.initiate(mapping=mapping)
        self.assert_one_tunnel(mappings)
        self.world.clear_ladder()

    def forget_child(self, gateway: Gateway, mapping: int = 0) -> None:
        """A side has lost an SA pair and its peer has not: of its DELETE the peer gets an empty request."""
        gateway.close_child(mapping)
        delete = self.take(gateway.name)
        self.deliver(self.insider(gateway.name).instead(delete, ()))
        self.run()
        self.world.clear_ladder()

    # ------------------------------------------------------------------------------- what came of it

    @property
    def lines(self) -> list[tuple[str, str]]:
        """The messages since the start, or since `clear_ladder`: the sender, and the text."""
        return [(rung.sender, rung.text) for rung in self.world.rungs]

    @property
    def drawn(self) -> list[str]:
        """The messages as a ladder has them, one line each."""
        return [f"{'a -> b' if name == 'a' else 'a <- b'}  {text}" for name, text in self.lines]

    @property
    def texts(self) -> list[str]:
        """The messages without their senders."""
        return [rung.text for rung in self.world.rungs]

    def assert_carries(self) -> None:
        """No packet is lost: each side sends on an SA that the other receives on."""
        for gateway in (self.a, self.b):
            for mapping, child in gateway.sending().items():
                if child.spi_out not in self.other(gateway).installed:
                    self.world.fail(f"{gateway.name} sends mapping {mapping} where nobody receives")

    def assert_agreed(self) -> None:
        """Both sides hold the same SAs, and send the same mappings."""
        self.assert_agreement()
        if set(self.a.sending()) != set(self.b.sending()):
            self.world.fail(f"a sends {set(self.a.sending())}, b {set(self.b.sending())}")
