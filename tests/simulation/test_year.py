"""A year of a tunnel, in both versions: nothing leaks, nothing grows, and it is there when the network is."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from time import process_time

import pytest

from tests.simulation.carrying import Carrying
from tests.simulation.footprint import footprint
from tests.simulation.invariants import disagreements, leaks
from tests.simulation.living import Living
from tests.simulation.policies import Recipe
from tests.simulation.weather import Datagram
from tests.simulation.year import DAY, Remembered, Year, held
from tests.tables import TellRow
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.wire.iana import IkeVersion

SPEAKING = {
    "IKEv2": (IkeVersion.V2, None),
    "IKEv1 main mode": (IkeVersion.V1, NegotiationMode.MAIN),
}
WARM = 5
"""Days after which every ring and cache has seen its share."""


def policies(spoken: str, ike_lifetime: int = 86_400) -> tuple[PeerPolicy, PeerPolicy]:
    """Both ends, with the lifetimes of the specification: a day for IKE, an hour for ESP."""
    version, mode = SPEAKING[spoken]
    one, two = Recipe(ike_lifetime=ike_lifetime, child_lifetime=3_600, prove=True).pair()
    return replace(one, version=version, mode=mode), replace(two, version=version, mode=mode)


def memory(year: Year) -> tuple[int, int]:
    """Objects and bytes of both ends in a quiet moment."""
    year.run_until(lambda: year.possible and year.agreeing and year.is_quiet, within=3600)
    year.run_for(600)
    return footprint(*((g.endpoint, g.tunnels) for g in (year.a, year.b)))


@pytest.mark.slow
@pytest.mark.parametrize("spoken", SPEAKING)
def test_a_year_of_a_tunnel(spoken: str, row: TellRow, request: pytest.FixtureRequest) -> None:
    days = 365 if request.config.getoption("--full-faults") else 20
    began = process_time()
    year = Year(policies(spoken), seed=1)
    year.run_for(WARM * DAY)
    early = memory(year)
    year.run_for((days - WARM) * DAY)
    late = memory(year)
    lost = year.meter.possible - year.meter.carried
    row(
        "a simulated year",
        version=spoken,
        days=days,
        took=f"{process_time() - began:.0f} s of CPU",
        reboots=year.reboots - 1,
        links_down=year.link_failures,
        availability=f"{100 * year.meter.availability:.4f} % (at least 99.9 %)",
        not_carried=f"{lost:.0f} s of {year.meter.possible:.0f} s, {year.meter.longest_gap:.1f} s at most",
        most=f"{year.most_sas} SA pairs, {year.most_sessions} IKE SAs",
        memory=f"{early[1] // 1024} KiB on day {WARM}, {late[1] // 1024} KiB at the end",
    )
    assert year.meter.possible > 0.98 * days * DAY
    assert year.meter.availability >= 0.999
    assert not disagreements(year.a, year.b)
    assert year.most_sas <= 3
    assert year.most_sessions <= 4
    for gateway in (year.a, year.b):
        assert_nothing_leaked(gateway)
    # What waits for an answer at that moment makes a difference; an SA that is kept each day makes a greater.
    assert late[1] <= early[1] + 16_384, f"from {early} to {late} objects and bytes"


def assert_nothing_leaked(gateway: Living) -> None:
    """One IKE SA, in IKEv1 perhaps its predecessor too, and the SA pairs that are installed."""
    assert len(gateway.ike_sas()) == 1
    assert 1 <= len(gateway.installed) <= 2
    assert len(held(gateway).sas) <= 2
    predecessors = len(held(gateway).sas) - 1
    assert [wrong for wrong in leaks(gateway) if "sessions for" not in wrong or not predecessors] == []


@pytest.mark.slow
@pytest.mark.parametrize("spoken", SPEAKING)
def test_no_second_is_left_out(spoken: str) -> None:
    """Time that jumps over hours of traffic gives the same history as each second of it."""
    histories = []
    for seconds in (False, True):
        year = Year(policies(spoken, ike_lifetime=7_200), seed=3, day=3_600.0, seconds=seconds)
        told: list[tuple[float, str, str]] = []
        year.interceptors.insert(0, lambda d, told=told: told.append(_said(d)))  # type: ignore[misc]  # bound now
        year.run_for(4 * 3_600.0)
        assert year.reboots == 5
        assert year.link_failures >= 3
        histories.append((told, year.meter.carried, year.meter.possible))
    jumping, slow = histories
    assert jumping[0] == slow[0]
    assert jumping[1:] == pytest.approx(slow[1:])


def _said(datagram: Datagram) -> tuple[float, str, str]:
    return datagram.sent_at, datagram.sender, sha256(datagram.data).hexdigest()


class Carried(Carrying, Remembered):
    """It carries packets. One that was switched off takes none."""

    def take(self, packets: list[bytes]) -> None:
        if self.world.gateways.get(self.name) is self:
            super().take(packets)


class CarryingYear(Year):
    """In place of words that each has heard the other, a packet each way."""

    kind = Carried
    lost = 0
    put = 0

    def _boot(self) -> Remembered:
        b = super()._boot()
        a = self.a
        assert isinstance(a, Carried)
        assert isinstance(b, Carried)
        a.meet(self, b, 0.005)
        b.meet(self, a, 0.005)
        return b

    def _hear(self) -> None:
        for one, other in ((self.a, self.b), (self.b, self.a)):
            assert isinstance(one, Carried)
            assert isinstance(other, Carried)
            if self.possible and one.sending_on() in other.installed:
                self.put += 1
                before = other.received
                one.put(1)
                self.after(0.006, lambda other=other, before=before: self._count(other, before))  # type: ignore[misc]  # bound now

    def _count(self, other: Carried, before: int) -> None:
        self.lost += other.received == before and self.gateways.get(other.name) is other


@pytest.mark.slow
@pytest.mark.usefixtures("on_each_engine")
@pytest.mark.parametrize("spoken", SPEAKING)
def test_days_of_a_tunnel_with_real_packets(spoken: str) -> None:
    """Reboots, links that fail and hundreds of rekeys; whenever both ends agree, what is sent arrives."""
    year = CarryingYear(policies(spoken, ike_lifetime=7_200), seed=5, day=3_600.0)
    year.run_for(8 * 3_600.0)
    assert year.reboots == 9
    assert year.link_failures >= 5
    assert year.put > 100
    assert year.lost == 0
    assert year.meter.availability > 0.9
    for gateway in (year.a, year.b):
        assert_nothing_leaked(gateway)
