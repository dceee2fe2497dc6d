"""A storm of rekeys that strongSwan begins: afterwards there is a tunnel, and traffic passes both ways."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.interop.conftest import Opposite
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.traffic import ping
from tests.lab.vici import Vici
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

RATE = 20
"""Rekeys that are asked for each second."""
FULL, SHORT = 10.0, 2.0
"""Seconds of them."""
WITHIN = 10.0
"""Seconds after it in which traffic has to pass again; the whole form looks at it."""
ANSWER = 0.2
"""Seconds for charon's answer to one request; in a storm it has better things to do."""


@dataclass
class Storm:
    """What was asked of charon, and how often it has said yes."""

    asked: int = 0
    answered: int = 0

    def blow(self, peer: StrongSwan, kind: str, name: str, seconds: float) -> None:
        """Ask for `RATE` rekeys a second; one that charon does not answer at once is not waited for."""
        end = time.monotonic() + seconds
        while (began := time.monotonic()) < end:
            self.asked += 1
            try:
                with Vici(peer.directory / "vici", ANSWER) as vici:
                    # By its name charon would rekey each IKE SA that there is, and each successor of one.
                    which = {"ike-id": str(vici.established(name)[-1])} if kind == "ike" else {kind: name}
                    vici.begin("rekey", **which)
                    vici.end()
                self.answered += 1
            except (OSError, RuntimeError, IndexError):
                pass  # it is busy, or has no such SA at this moment
            time.sleep(max(0.0, 1 / RATE - (time.monotonic() - began)))


@pytest.fixture
def tunnel(version: str, kind: str, opposite: Opposite) -> Iterator[str]:
    """The name of a tunnel that is up."""
    name = f"storm-{version}-{kind}"
    ours, peer = opposite.ours, opposite.peer
    assert isinstance(ours, Vpnd)
    plan = Plan(name=name, version=version, negotiation="active")
    peer.add(plan.other())
    try:
        ours.add(plan)
        wait_until(lambda: bool(ours.agreed(name) and peer.agreed(name)), "the tunnel to be up")
        if version == "ikev2":
            ours.wait_proved(name)
        yield name
    finally:
        ours.remove(name)
        peer.remove(name)


def passes(opposite: Opposite) -> bool:
    """Whether traffic passes both ways now."""
    one = ping(opposite.wire.a.host, A.inside, B.inside, count=1, patience=1)
    other = ping(opposite.wire.b.host, B.inside, A.inside, count=1, patience=1)
    return bool(one.received and other.received)


@pytest.mark.parametrize("kind", ["child", "ike"])
@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
def test_after_a_storm_of_rekeys_traffic_passes(
    version: str, kind: str, tunnel: str, opposite: Opposite, row: TellRow, request: pytest.FixtureRequest
) -> None:
    full = bool(request.config.getoption("--full-faults"))
    ours, peer = opposite.ours, opposite.peer
    assert isinstance(ours, Vpnd)
    storm = Storm()
    storm.blow(peer, kind, tunnel, FULL if full else SHORT)
    over = time.monotonic()
    wait_until(lambda: passes(opposite), "traffic to pass after the storm", interval=0.2)
    took = time.monotonic() - over
    # It goes on doing so: nothing that the storm has left takes it down again.
    again, hold = time.monotonic(), WITHIN if full else 1.0
    wait_until(lambda: time.monotonic() - again > hold or not passes(opposite), "a while to pass")
    held = time.monotonic() - again > hold
    if not held:
        wait_until(lambda: passes(opposite), "traffic to pass once more")
    settled = time.monotonic() - over
    renewed = sum(event["event"] == "rekeyed" for event in ours.events(tunnel))
    row(
        "storms",
        what=f"{version}, {kind}",
        asked=storm.asked,
        answered=storm.answered,
        renewed=renewed,
        **{"traffic passes after s": f"{took:.1f}", "held": held, "IKE SAs": len(ours.ike_sas(tunnel))},
    )
    assert storm.answered, "charon has heard none of it"
    # What charon had queued it still does; then there is one IKE SA, and the same child at both ends.
    wait_until(lambda: bool(peer.agreed(tunnel)) and len(ours.ike_sas(tunnel)) == 1, "one IKE SA at the end")
    assert ours.tunnel(tunnel)["state"] == "up"
    if full:
        assert took <= WITHIN
        assert held, f"it was lost once more, for {settled:.0f} s"
