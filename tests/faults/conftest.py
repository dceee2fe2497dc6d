"""The gateways that tests of faults share: two vpnd, or vpnd and strongSwan, with the relay between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import A, Agreed, B, Plan
from tests.lab.process import PATIENCE, wait_until
from tests.lab.relay import Weathered, through_relay
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import start
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd


@dataclass
class Arena:
    """vpnd at a, a peer of either kind at b, and weather in between."""

    weathered: Weathered
    ours: Vpnd
    peer: Vpnd | StrongSwan
    _loaded: Plan | None = None
    failed: int = 0
    """Attempts that came to nothing before the tunnel was up."""

    def set_up(self, plan: Plan) -> None:
        """Tell both ends of a tunnel that nobody brings up yet."""
        if isinstance(self.peer, Vpnd) or self._loaded != plan:
            self.peer.add(plan.other())
            self._loaded = plan
        self.ours.add(plan)

    def begin(self, plan: Plan) -> None:
        """From now on our end tries, without end."""
        self.ours.add(plan.change(negotiation="active"))

    def bring_up(self, plan: Plan, limit: float = PATIENCE, by_peer: bool = False) -> float:
        """Bring it up from our end, or the peer's; the seconds. Raises TimeoutError with what was decided."""
        began, before = time.monotonic(), len(self.ours.events(plan.name))
        if by_peer:
            self.peer.up(plan.name, limit)
        else:
            self.begin(plan)
        # A peer that begins in IKEv1 is up before we have heard so, and its last message may be lost.
        left = max(PATIENCE, began + limit - time.monotonic())
        try:
            self.ours.wait_state(plan.name, "up", timeout=left)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.weathered.relay.decisions()}") from None
        self.failed = self.ours.told(plan.name, before).count("attempt-failed")
        return time.monotonic() - began

    def steady(self, plan: Plan) -> list[Agreed]:
        """Our SAs, once the rekey that IKEv2 proves early is over: from now on they stay."""
        if plan.version == "ikev2":
            self.ours.wait_proved(plan.name)
        return self.ours.agreed(plan.name)

    def take_down(self, plan: Plan) -> None:
        """Our end forgets the tunnel in fine weather, and the peer has no SA any more."""
        self.weathered.relay.weather()
        self.ours.remove(plan.name)
        if isinstance(self.peer, Vpnd):
            self.peer.remove(plan.name)
        elif self.peer.sas():
            self.peer.swanctl("--terminate", "--ike", plan.name, "--timeout", "1", "--force", check=False)
            wait_until(lambda: not self.peer.agreed(plan.name), "strongSwan to have no SA")

    def ike_counts(self, plan: Plan) -> tuple[int, int]:
        """How many IKE SAs each end has.

        A vpnd counts also those that are not established. strongSwan makes one of each late copy of a first
        message, and forgets it after half a minute.
        """
        peer = self.peer
        if isinstance(peer, Vpnd):
            theirs = len(peer.ike_sas(plan.name))
        else:
            theirs = sum(sa["state"] == "ESTABLISHED" for sa in peer.sas())
        return len(self.ours.ike_sas(plan.name)), theirs

    def require_one_pair(self, plan: Plan) -> None:
        """Each end has one IKE SA and one pair of child SAs, the same one, and it carries traffic."""
        self.wait_one_pair(plan)
        wire = self.weathered.wire
        require_ping(wire.a.host, A.inside, B.inside)

    def wait_one_pair(self, plan: Plan) -> None:
        """Wait until each end has one IKE SA and one pair of child SAs, the same one."""

        def agree() -> bool:
            ours, theirs = self.ours.agreed(plan.name), self.peer.agreed(plan.name)
            same = len(ours) == len(theirs) == 1 and ours[0] == theirs[0].mirrored()
            return same and self.ike_counts(plan) == (1, 1)

        wait_until(agree, f"one pair of SAs at each end: {self.weathered.relay.decisions()}", interval=0.05)


Arenas = Callable[[str], Arena]


@pytest.fixture(scope="session")
def arenas() -> Iterator[Arenas]:
    """The arena of a kind of peer, made when it is first asked for; the weather is fine whenever it is."""
    with Lab() as lab:
        made: dict[str, Arena] = {}

        def of(kind: str) -> Arena:
            if kind not in made:
                weathered = through_relay(lab, f"{kind[0]}-")
                ours = Vpnd(weathered.wire.a.gateway, A.address)
                peer = start(kind, weathered.wire.b.gateway, B.address)
                assert isinstance(peer, Vpnd | StrongSwan)
                made[kind] = Arena(weathered, ours, peer)
            made[kind].weathered.relay.weather()
            return made[kind]

        yield of


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether faults are to take their real time."""
    return bool(request.config.getoption("--full-faults"))
