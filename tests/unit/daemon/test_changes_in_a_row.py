"""A change that comes while something else is under way: another change, its reverse, a rekey, a beginning.

Each message is 0.1 s on its way, so that the second comes between any two messages of the first. Whatever
came in between, in the end the tunnel is as it is configured, and nothing was down on the way there.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.daemon.pairs import PROVED, Pair, with_pair
from tests.unit.daemon.test_change_classes import (
    ACTIVE,
    PASSIVE,
    SPD,
    VERSIONS,
    Seen,
    begin,
    lost,
    rule,
    table,
)

DELAY = 0.1
"""Seconds of each message on the wire."""
MOMENTS = [
    pytest.param(moment, marks=() if moment == 0.15 else pytest.mark.full_faults)
    for moment in (0.0, 0.05, 0.15, 0.25, 0.35, 0.45, 0.65, 1.5)
]
"""Seconds after the first change, between any two messages of a new IKE SA and of what follows."""
SETTLED = 100.0
"""Seconds until what met something else was tried again."""

AES, SHA, GROUP = 'encryption = "aes-256"', 'integrity = "sha384"', "dh_group = 15"
FIRST = {
    "IKE": {"ike": AES},
    "ESP": {"ipsec": AES},
    "both": {"ike": AES, "ipsec": AES},
    "encapsulation": {"ipsec": 'encapsulation = "udp"'},
}
SECOND: dict[str, dict[str, str]] = {
    "IKE": {"ike": f"{AES}\n{SHA}"},
    "ESP": {"ipsec": SHA},
    "reverse": {},
    "encapsulation and IKE": {"ike": GROUP, "ipsec": 'encapsulation = "udp"'},
}
CHANGES = ["both", *(pytest.param(one, marks=pytest.mark.full_faults) for one in FIRST if one != "both")]
SOME = [("IKE", "IKE"), ("ESP", "ESP"), ("both", "reverse"), ("encapsulation", "ESP")]
"""The others take their time."""


def ours(version: str, tables: dict[str, str]) -> str:
    return table(version, ACTIVE, False, **tables)


def theirs(version: str) -> str:
    """The peer takes whatever of these is asked for."""
    return table(version, PASSIVE, wide=True)


async def settled(pair: Pair, wanted: dict[str, str]) -> None:
    """Wait until all is over, and see that both ends are as configured."""
    await asyncio.sleep(SETTLED)
    assert lost(pair) == []
    assert pair.state() == ("up", "up")
    for machine in (pair.hq, pair.branch):
        detail = machine.operator.tunnel("t")
        (ike,), (mapping,) = detail.ike_sas, detail.mappings
        expected = [
            "aes-256" if AES in wanted.get("ike", "") else "aes-128",
            "sha384" if SHA in wanted.get("ike", "") else "sha256",
            15 if GROUP in wanted.get("ike", "") else 14,
            "aes-256" if AES in wanted.get("ipsec", "") else "aes-128",
            "sha384" if SHA in wanted.get("ipsec", "") else "sha256",
        ]
        found = [ike.encryption, ike.integrity, ike.dh_group, mapping.encryption, mapping.integrity]
        assert found == expected
    agree(pair)


def agree(pair: Pair) -> None:
    """Both ends have the same SAs, and send on what the other receives."""
    one, other = pair.hq.operator.tunnel("t"), pair.branch.operator.tunnel("t")
    assert [(ike.spi_i, ike.spi_r) for ike in one.ike_sas] == [
        (ike.spi_i, ike.spi_r) for ike in other.ike_sas
    ]
    assert [(m.spi_in, m.spi_out) for m in one.mappings] == [(m.spi_out, m.spi_in) for m in other.mappings]


async def reload(pair: Pair, tunnel: str, branch: str) -> None:
    pair.configure({"t": tunnel}, {"t": branch})
    await pair.hq.operator.reload()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(first, second, marks=() if (first, second) in SOME else pytest.mark.full_faults)
        for first in FIRST
        for second in SECOND
    ],
)
@with_pair
async def test_two_changes_in_a_row(pair: Pair, version: str, first: str, second: str, moment: float) -> None:
    """At each moment of the first change: the second is what holds in the end."""
    branch = theirs(version)
    await begin(pair, ours(version, {}), branch)
    pair.wire.delay = DELAY
    await reload(pair, ours(version, FIRST[first]), branch)
    await asyncio.sleep(moment)
    await reload(pair, ours(version, SECOND[second]), branch)
    await settled(pair, SECOND[second])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    "change", ["both", *(pytest.param(one, marks=pytest.mark.full_faults) for one in FIRST)]
)
@pytest.mark.parametrize("who", ["hq", "branch"])
@pytest.mark.parametrize("what", ["ike", "child"])
@with_pair
async def test_a_change_while_a_rekey_is_running(
    pair: Pair, version: str, change: str, who: str, what: str, moment: float
) -> None:
    """Of either end: what the rekey makes is made by what held before, and has a successor in its turn."""
    branch = theirs(version)
    await begin(pair, ours(version, {}), branch)
    pair.wire.delay = DELAY
    gateway = (pair.hq if who == "hq" else pair.branch).service.gateway
    with gateway.input("a rekey", "t") as now:
        if what == "ike":
            gateway.endpoint.rekey_ike(now, "t")
        else:
            owner = gateway.tunnels["t"].mappings[0].owner
            assert owner is not None
            gateway.endpoint.rekey_child(now, "t", owner.spi_in)
    await asyncio.sleep(moment)
    await reload(pair, ours(version, FIRST[change]), branch)
    await settled(pair, FIRST[change])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "change", ["both", *(pytest.param(one, marks=pytest.mark.full_faults) for one in FIRST)]
)
@pytest.mark.parametrize("moment", MOMENTS)
@with_pair
async def test_a_change_while_connecting(pair: Pair, version: str, change: str, moment: float) -> None:
    """It comes up as it is configured by then; what was begun before is no failure."""
    branch = theirs(version)
    pair.wire.delay = DELAY
    pair.configure({"t": ours(version, {})}, {"t": branch})
    await pair.start()
    await asyncio.sleep(moment)
    await reload(pair, ours(version, FIRST[change]), branch)
    await pair.until(lambda: pair.state() == ("up", "up"), 30)
    await settled(pair, FIRST[change])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("moment", MOMENTS)
@with_pair
async def test_a_mapping_goes_and_another_comes(pair: Pair, version: str, moment: float) -> None:
    """While the one that goes is negotiated. Its number is free then, and what was negotiated is not."""

    def spd(numbers: list[int], negotiation: str, turned: bool = False) -> str:
        return table(version, f'{SPD}negotiation = "{negotiation}"') + rule(numbers, turned)

    async def change(numbers: list[int]) -> None:
        pair.configure({"t": spd(numbers, "active")}, {"t": spd([1, 2, 3, 4], "passive", turned=True)})
        await pair.hq.operator.reload()

    pair.configure({"t": spd([1], "active")}, {"t": spd([1, 2, 3, 4], "passive", turned=True)})
    await pair.start()
    await pair.until(lambda: pair.hq.service.gateway.tunnels["t"].all_up)
    await asyncio.sleep(PROVED)
    pair.wire.delay = DELAY
    for before, after in (([1, 2], [1, 3]), ([1, 4], [1, 2])):
        await change(before)
        await asyncio.sleep(moment)
        await change([1])
        await change(after)
        await asyncio.sleep(SETTLED)
        detail = pair.hq.operator.tunnel("t")
        assert [one.remote for one in detail.mappings] == [f"10.1.{number}.0/24" for number in after]
        assert all(one.state == "up" for one in detail.mappings)
        for machine in (pair.hq, pair.branch):
            assert len(machine.engine.installed) == len(after)
        wanted = {(str(m.local), str(m.remote)): m.spi_in for m in detail.mappings}
        selectors = {
            (str(one.ts_local[0]), str(one.ts_remote[0])): f"{one.spi_in:08x}"
            for one in pair.hq.engine.installed.values()
        }
        assert selectors == wanted
    assert [event for event in lost(pair) if event[1] != "mapping-down"] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("what", ["IKE", "ESP", "both"])
@with_pair
async def test_what_the_peer_refuses_leaves_the_old_ones(pair: Pair, version: str, what: str) -> None:
    """The tunnel stays up on its SAs and says why; going back ends that, and nothing more is tried."""
    branch = table(version, PASSIVE)
    before = await begin(pair, ours(version, {}), branch)
    await reload(pair, ours(version, FIRST[what]), branch)
    await asyncio.sleep(SETTLED)
    assert (Seen.of(pair.hq), lost(pair), pair.state()) == (before, [], ("up", "up"))
    assert ("t", "rekey-failed") in pair.hq.events()
    told = pair.hq.operator.tunnel("t")
    assert told.errors, told
    await reload(pair, ours(version, {}), branch)
    await asyncio.sleep(SETTLED)
    carried = pair.wire.carried
    failed = pair.hq.events().count(("t", "rekey-failed"))
    await asyncio.sleep(SETTLED)
    assert pair.hq.events().count(("t", "rekey-failed")) == failed
    assert pair.wire.carried - carried <= 2 * SETTLED / 10, "nothing but signs of life"
    assert (lost(pair), pair.state()) == ([], ("up", "up"))
    agree(pair)
