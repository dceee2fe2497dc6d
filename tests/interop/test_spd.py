"""Twelve mappings over three rules: each carries its own traffic, and says why when it does not."""

from __future__ import annotations

import json
import socket
import time
from functools import partial
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.utils import rdpcap

from tests.interop.batch import ROLES, negotiation
from tests.interop.conftest import Opposite
from tests.lab.capture import Capture
from tests.lab.plan import Plan, SpdRule
from tests.lab.process import wait_until
from tests.lab.topology import settle
from tests.lab.traffic import ping, require_ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

PINGS = 2
DISCARD = 9
HERE = tuple(f"10.1.{number}.0/24" for number in range(5))
THERE = tuple(f"10.2.{number}.0/24" for number in range(7))
RULES = (
    SpdRule(HERE[0:2], THERE[0:2]),
    SpdRule(HERE[2:4], THERE[2:5]),
    SpdRule(HERE[4:5], THERE[5:7]),
)
MISSING = (1, 6, 11)
"""Mappings, one of each rule, that the peer does not have."""
REFUSED = frozenset({"E-TS"})

Count = tuple[int, int]
"""Packets in, packets out."""


@pytest.fixture(scope="module", autouse=True)
def inside(opposite: Opposite) -> None:
    """An address in each network, and a route beside the tunnel for what no mapping covers."""
    a, b = opposite.wire.a.gateway, opposite.wire.b.gateway
    for namespace, networks in ((a, HERE), (b, THERE)):
        for network in networks:
            if (address := address_in(network)) not in ("10.1.0.1", "10.2.0.1"):
                namespace.add_address(f"{address}/32")
    a.ip("route", "add", "10.2.0.0/16", "via", "192.0.2.2")


def address_in(network: str) -> str:
    return network.replace(".0/24", ".1")


def plan_of(version: str, negotiation: str) -> Plan:
    return Plan(name=f"twelve-{version}", version=version, negotiation=negotiation, rules=RULES)


def without_missing(plan: Plan) -> Plan:
    """The same tunnel with nine mappings, each a rule of its own."""
    kept = [mapping for index, mapping in enumerate(plan.mappings) if index not in MISSING]
    return plan.change(rules=tuple(SpdRule((local,), (remote,)) for local, remote in kept))


def counted_here(opposite: Opposite, plan: Plan) -> dict[tuple[str, str], Count]:
    """vpnd's packets in and out of each mapping."""
    return {
        (mapping["local"], mapping["remote"]): (mapping["packets_in"], mapping["packets_out"])
        for mapping in vpnd_of(opposite).tunnel(plan.name)["mappings"]
    }


def counted_there(opposite: Opposite, plan: Plan) -> dict[tuple[str, str], Count]:
    """strongSwan's, in vpnd's words: what goes out there comes in here."""
    counted: dict[tuple[str, str], Count] = {}
    for sa in opposite.peer.sas():
        for child in sa["child-sas"].values() if sa["name"] == plan.name else ():
            if child["state"] == "INSTALLED":
                mapping = (child["remote-ts"][0], child["local-ts"][0])
                counted[mapping] = (int(child["packets-out"]), int(child["packets-in"]))
    return counted


def gain(before: dict[tuple[str, str], Count], after: dict[tuple[str, str], Count]) -> dict[Any, Count]:
    """What was counted meanwhile, by mapping, where something was."""
    return {
        mapping: (into - before[mapping][0], out - before[mapping][1])
        for mapping, (into, out) in after.items()
        if (into, out) != before[mapping]
    }


def carrying_their_own(
    opposite: Opposite, plan: Plan, mappings: list[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Ping through each mapping: those for which both ends count its packets, and for no other."""
    # The early rekey makes a new SA, whose counters begin at 0.
    settle(vpnd_of(opposite), opposite.peer, plan)
    for mapping in mappings:
        # A pair that a busy strongSwan could not read has its successor, which is sent on a moment later.
        wait_until(partial(passes, opposite, mapping), f"traffic of {mapping}")
    own = []
    here, there = counted_here(opposite, plan), counted_there(opposite, plan)
    for mapping in mappings:
        local, remote = map(address_in, mapping)
        require_ping(opposite.wire.a.gateway, local, remote, count=PINGS)
        before, here = here, counted_here(opposite, plan)
        before_there, there = there, counted_there(opposite, plan)
        expected = {mapping: (PINGS, PINGS)}
        if gain(before, here) == gain(before_there, there) == expected:
            own.append(mapping)
    return own


def passes(opposite: Opposite, mapping: tuple[str, str]) -> bool:
    """Whether a packet of the mapping is answered."""
    local, remote = map(address_in, mapping)
    return bool(ping(opposite.wire.a.gateway, local, remote, count=1, patience=1).received)


def vpnd_of(opposite: Opposite) -> Vpnd:
    assert isinstance(opposite.ours, Vpnd)
    return opposite.ours


def why(opposite: Opposite, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(vpnd_of(opposite).ctl("--json", "why", name).stdout)
    return found


def mappings_up(opposite: Opposite, plan: Plan) -> int:
    return len(opposite.ours.agreed(plan.name))


def forget(opposite: Opposite, plan: Plan) -> None:
    opposite.ours.remove(plan.name)
    opposite.peer.remove(plan.name)


@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
def test_every_mapping_carries_its_own_traffic_and_only_its_own(
    version: str, opposite: Opposite, row: TellRow
) -> None:
    plan = plan_of(version, "active")
    opposite.peer.add(plan.other())
    try:
        began = time.monotonic()
        opposite.ours.add(plan)
        wait_until(lambda: mappings_up(opposite, plan) == len(plan.mappings), "all mappings to be up")
        seconds = time.monotonic() - began
        order = [(one["local"], one["remote"]) for one in vpnd_of(opposite).tunnel(plan.name)["mappings"]]
        own = carrying_their_own(opposite, plan, plan.mappings)
        figure = (
            f"{len(own)} of {len(plan.mappings)} carry their own traffic and no other; up in {seconds:.1f} s"
        )
        row("mappings", peer="strongSwan", version=version, what="12 over 3 rules", figure=figure)
        assert order == plan.mappings
        assert own == plan.mappings
        require_untouched(opposite, plan, row)
    finally:
        forget(opposite, plan)


def send(opposite: Opposite, local: str, remote: str) -> None:
    """A datagram from our end, for which nobody waits."""
    with opposite.wire.a.gateway.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((local, 0))
        sender.sendto(b"through or beside", (remote, DISCARD))


def require_untouched(opposite: Opposite, plan: Plan, row: TellRow) -> None:
    """What no mapping covers goes where the main table says, every packet in clear, and nothing else."""
    uncovered = [
        (local, remote) for local in HERE for remote in THERE if (local, remote) not in plan.mappings
    ]
    before = counted_here(opposite, plan)
    with Capture(opposite.wire.b.gateway, "eth0", f"udp port {DISCARD}") as path:
        for local, remote in [*uncovered, *plan.mappings]:
            send(opposite, address_in(local), address_in(remote))
    sent = {mapping: out for mapping, (_, out) in gain(before, counted_here(opposite, plan)).items()}
    seen = [(packet[IP].src, packet[IP].dst) for packet in rdpcap(str(path)) if UDP in packet]
    expected = [(address_in(local), address_in(remote)) for local, remote in uncovered]
    beside = len(set(seen) - set(expected))
    row(
        "mappings",
        peer="strongSwan",
        version=plan.version,
        what=f"{len(uncovered)} pairs that no mapping covers",
        figure=f"{len(seen)} of {len(uncovered)} packets go by the main table; {beside} of the mappings' do",
    )
    assert sorted(seen) == sorted(expected)
    assert sent == dict.fromkeys(plan.mappings, 1)


@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
def test_mappings_that_the_peer_does_not_have_say_so_and_the_others_work(
    version: str, opposite: Opposite, row: TellRow
) -> None:
    plan = plan_of(version, "active")
    opposite.peer.add(without_missing(plan).other())
    try:
        opposite.ours.add(plan)
        done = opposite.ours.up(plan.name, 40)
        tunnel = vpnd_of(opposite).tunnel(plan.name)
        there = [mapping for index, mapping in enumerate(plan.mappings) if index not in MISSING]
        own = carrying_their_own(opposite, plan, there)
        told = [m for m in tunnel["mappings"] if m["reason"] and m["reason"]["code"] in REFUSED]
        explained = why(opposite, plan.name)
        row(
            "mappings",
            peer="strongSwan",
            version=version,
            what="3 of our 12 missing at the peer",
            figure=f"{len(own)} of 9 carry their own traffic; {len(told)} of 3 say why",
        )
        assert done.returncode == 1
        assert "3 of 12 mappings" in done.stderr, done.stderr
        assert [(m["local"], m["remote"]) for m in told] == [plan.mappings[index] for index in MISSING]
        for mapping in told:
            # IKEv1 and IKEv2 name no selectors in the refusal: ours are in the words.
            assert mapping["state"] != "up"
            assert mapping["local"] in mapping["reason"]["message"], mapping
            assert mapping["remote"] in mapping["reason"]["message"], mapping
        assert explained["error"]["code"] == "E-MAPPING"
        assert "3 of 12 mappings are down: rows 2, 7, 12" in explained["error"]["message"], explained
        assert explained["explanation"]["change"], explained
        assert len(own) == 9
    finally:
        forget(opposite, plan)


@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
def test_mappings_that_only_the_peer_has_are_refused_and_explained(
    version: str, opposite: Opposite, row: TellRow
) -> None:
    whole = plan_of(version, "passive")
    ours = without_missing(whole)
    opposite.peer.add(whole.other())
    try:
        opposite.ours.add(ours)
        children = [f"{whole.name}-{index}" if index else whole.name for index in range(12)]
        refused = [
            index
            for index, child in enumerate(children)
            if opposite.peer.swanctl(
                "--initiate", "--child", child, "--timeout", "20", check=False
            ).returncode
        ]
        own = carrying_their_own(opposite, ours, ours.mappings)
        explained = why(opposite, ours.name)
        row(
            "mappings",
            peer="strongSwan",
            version=version,
            what="3 of the peer's 12 missing here",
            figure=f"{len(own)} of 9 carry their own traffic; refused: {refused}",
        )
        # swanctl's numbers are those of the peer's order, in which remote networks come first.
        theirs = [whole.mappings.index((remote, local)) for local, remote in whole.other().mappings]
        assert sorted(theirs[index] for index in refused) == list(MISSING)
        assert own == ours.mappings
        assert explained["error"]["code"] in REFUSED, explained
    finally:
        forget(opposite, ours)


@pytest.mark.parametrize("role", ROLES)
def test_a_peer_that_narrows_is_reported_and_nothing_else_gets_out(
    role: str, opposite: Opposite, row: TellRow
) -> None:
    """IKEv2; the peer has the first 64 addresses of one of our two mappings."""
    asked, left = ("10.1.0.0/24", "10.2.0.0/24"), ("10.1.0.0/24", "10.2.0.0/26")
    other = ("10.1.1.0/24", "10.2.1.0/24")
    plan = Plan(
        name="narrowed",
        negotiation=negotiation(role),
        rules=tuple(SpdRule((local,), (remote,)) for local, remote in (asked, other)),
    )
    theirs = plan.change(rules=tuple(SpdRule((local,), (remote,)) for local, remote in (left, other)))
    opposite.peer.add(theirs.other())
    try:
        opposite.ours.add(plan)
        if role == "responder":
            assert opposite.peer.up(plan.name).returncode == 0
        wait_until(lambda: mappings_up(opposite, plan) == 2, "both mappings to be up")
        narrowed, whole = vpnd_of(opposite).tunnel(plan.name)["mappings"]
        a = opposite.wire.a.gateway
        require_ping(a, "10.1.0.1", "10.2.0.1")
        require_ping(a, "10.1.1.1", "10.2.1.1")
        with Capture(opposite.wire.b.gateway, "eth0", f"udp port {DISCARD}") as path:
            send(opposite, "10.1.0.1", "10.2.0.200")
        in_clear = len(rdpcap(str(path)))
        dropped = vpnd_of(opposite).tunnel(plan.name)["drops"]["policy"]
        told = (narrowed["reason"] or {}).get("code")
        row(
            "mappings",
            peer="strongSwan",
            version="ikev2",
            what=f"narrowed by the peer, we are {role}",
            figure=f"{told}; of what is outside {in_clear} in clear, {dropped} dropped",
        )
        assert told == "E-NARROW"
        assert f"{left[0]} - {left[1]}" in narrowed["reason"]["message"]
        assert whole["reason"] is None
        assert why(opposite, plan.name)["error"]["code"] == "E-NARROW"
        assert (in_clear, dropped) == (0, 1)
    finally:
        forget(opposite, plan)


def test_an_ikev1_peer_that_narrows_is_refused_with_both_ranges(opposite: Opposite, row: TellRow) -> None:
    """IKEv1 has no narrowing (RFC 2409 section 5.5); strongSwan does it all the same."""
    asked, left = (HERE[0], THERE[0]), (HERE[0], "10.2.0.0/26")
    plan = Plan(name="narrowed-1", version="ikev1", rules=(SpdRule(*((one,) for one in asked)),))
    theirs = plan.change(rules=(SpdRule(*((one,) for one in left)),))
    opposite.peer.add(theirs.other())
    try:
        opposite.ours.add(plan)
        assert opposite.ours.up(plan.name, 40).returncode == 1
        (mapping,) = vpnd_of(opposite).tunnel(plan.name)["mappings"]
        reason = mapping["reason"] or {"code": None, "message": ""}
        row(
            "mappings",
            peer="strongSwan",
            version="ikev1",
            what="narrowed by the peer, we are initiator",
            figure=f"{reason['code']}: refused, {len(opposite.peer.agreed(plan.name))} SAs at the peer",
        )
        assert reason["code"] == "E-TS"
        for ranges in (asked, left):
            assert f"{ranges[0]} - {ranges[1]}" in reason["message"]
        assert mapping["state"] != "up"
        wait_until(lambda: not opposite.peer.agreed(plan.name), "strongSwan to have no child SA")
    finally:
        forget(opposite, plan)
