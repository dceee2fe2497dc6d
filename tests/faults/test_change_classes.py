"""What a reload costs, class by class: a stream of 2,000 numbered packets a second each way goes on.

The peer takes what is asked for before the change and after it, so that only the change of our end counts.
vpnd takes one IKE version only: as the peer of a tunnel whose version changes, it is reloaded beside us.
Beside each change stands the same stream without one, in the same tunnel just before. The table of all of
them is printed at the end, a row for each change, version and peer:

    sudo .venv/bin/python -m pytest -n0 -p no:randomly --full-faults tests/faults/test_change_classes.py
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.lab.lab import Lab, write
from tests.lab.plan import A, B, Plan, SpdRule, Suite
from tests.lab.process import wait_until
from tests.lab.stream import PACKET_LENGTH, Flow, Streams
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, agreement, two_gateways
from tests.lab.vpnd import Vpnd
from tests.lab.widen import widen
from tests.tables import TellRow
from vpnd.config.classes import ChangeClass

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.full_faults]

RATE = 2000
"""Packets a second, each way."""
QUEUE = 10_000
"""Packets that strongSwan's TUN holds: seconds of the stream."""
BEFORE, AFTER = 3.0, 8.0
"""Seconds of the stream before the change, or without one, and after what it asks for is there: a successor
is sent on within 2, and what it replaces is gone within 6."""
ROUTE = "10.99.0.0/16"
"""Made by hand: it leads to the tunnel's interface, and goes with it."""

NETWORKS = ("10.2.0.0/24", "10.3.0.0/24", "10.4.0.0/24")
LOCAL = "10.1.0.0/24"


def rules(*numbers: int) -> tuple[SpdRule, ...]:
    return tuple(SpdRule((LOCAL,), (NETWORKS[number],)) for number in numbers)


PLAN = Plan(rules=rules(0, 1), negotiation="active", remote=replace(B, networks=NETWORKS))
STRONGER = Suite("aes-256", "sha256", 14)
OTHER_VERSION = {"ikev1": "ikev2", "ikev2": "ikev1"}


@dataclass(frozen=True)
class Change:
    """What is written into our file, and what it comes to."""

    change_class: ChangeClass
    what: str
    plan: Plan

    def of(self, version: str) -> Change:
        """The change of a tunnel of this version."""
        is_break = self.change_class is ChangeClass.BREAK
        return replace(self, plan=self.plan.change(version=OTHER_VERSION[version] if is_break else version))


CHANGES = [
    Change(ChangeClass.LIVE, "dpd, description", PLAN.change(dpd_timeout=60, lines=('description = "x"',))),
    Change(ChangeClass.NEXT_SA, "lifetimes", PLAN.change(lifetime=7200, ike_lifetime=43200)),
    Change(ChangeClass.REKEY, "ESP algorithm", PLAN.change(esp=STRONGER)),
    Change(ChangeClass.REKEY, "one mapping more, one less", PLAN.change(rules=rules(0, 2))),
    Change(ChangeClass.NEW_IKE_SA, "IKE algorithm", PLAN.change(ike=STRONGER)),
    Change(ChangeClass.NEW_IKE_SA, "encapsulation", PLAN.change(encapsulation="auto")),
    Change(ChangeClass.INTERFACE, "its name", PLAN.change(interface="vpn-other")),
    Change(ChangeClass.BREAK, "IKE version", PLAN),
]


def their_plan(plan: Plan) -> Plan:
    """The peer's end: it has every mapping of both."""
    return plan.change(rules=rules(0, 1, 2), negotiation="passive").other()


def widen_vpnd(path: Path) -> None:
    """The peer takes either algorithm."""
    write(path, re.sub('"aes-128"', '["aes-128", "aes-256"]', path.read_text()), mode=0o600)


def peer_of(kind: str, wire: Wire, plan: Plan) -> Vpnd | StrongSwan:
    """It has every mapping of both, either algorithm, and strongSwan either version."""
    theirs = their_plan(plan)
    if kind == "vpnd":
        peer = Vpnd(wire.b.gateway, B.address, plans=[theirs], running=False)
        widen_vpnd(peer.directory / "tunnels.d" / f"{plan.name}.toml")
        peer.start()
        return peer
    for network in NETWORKS[1:]:
        # It has a policy only where it has an address.
        wire.b.gateway.add_address(f"{network.removesuffix('0/24')}1/32")
    swan = StrongSwan(wire.b.gateway)
    swan.add(theirs)
    path = swan.directory / "swanctl.conf"
    text = re.sub(r"aes128-sha256(-modp2048)?\n", r"aes128-sha256\1,aes256-sha256\1\n", path.read_text())
    text = re.sub(r"version = [12]\n", "version = 0\n", text)
    write(path, text, mode=0o600)
    swan.swanctl("--load-all", "--clear", "--noprompt", "--file", str(path))
    # Its own queues are short: what it drops while it computes is no loss of the change.
    widen(swan.pid)
    wire.b.gateway.ip("link", "set", "ipsec0", "txqueuelen", str(QUEUE))
    return swan


def interface_of(ours: Vpnd) -> tuple[int, bool]:
    """The index of the tunnel's interface, and whether the route that was made by hand is there."""
    name = ours.call("GET", "/v1/tunnels/t1")["interface"]
    (link,) = json.loads(ours.namespace.ip("-json", "link", "show", "dev", name).stdout)
    return link["ifindex"], ROUTE in ours.namespace.ip("route", "show", "dev", name).stdout


def messages(ours: Vpnd) -> list[str]:
    """The exchanges of the IKE messages that the daemon remembers, oldest first."""
    return [line["text"].split(" ")[0] for line in ours.call("GET", "/v1/tunnels/t1/trace")["lines"]]


def said(before: list[str], after: list[str]) -> str:
    """How many messages of which exchange are new."""
    counted = Counter(after[len(before) :])
    return ", ".join(f"{count} {exchange}" for exchange, count in counted.items()) or "none"


def figures(flows: tuple[Flow, Flow]) -> str:
    """Lost, doubled, reordered, each as sent by us and by the peer."""
    counts = ("lost", "duplicates", "reordered")
    return "/".join("+".join(str(getattr(flow, what)) for flow in flows) for what in counts)


def is_applied(ours: Vpnd, change: Change) -> Callable[[], bool]:
    """Whether the tunnel is as it is configured now."""

    def applied() -> bool:
        tunnel, wanted = ours.tunnel("t1"), change.plan
        up = [one["remote"] for one in tunnel["mappings"] if one["state"] == "up"]
        esp = {one["encryption"] for one in tunnel["mappings"]}
        return (
            tunnel["ike"] is not None
            and tunnel["ike"]["version"] == wanted.version
            and tunnel["ike"]["encryption"] == wanted.ike.encryption
            and esp == {wanted.esp.encryption}
            and up == [remote for _, remote in wanted.mappings]
        )

    return applied


@pytest.mark.parametrize("kind", ["vpnd", "strongswan"])
@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda one: f"{one.change_class.value}-{one.what}")
def test_a_change_costs_what_its_class_says(
    lab: Lab, change: Change, version: str, kind: str, row: TellRow
) -> None:
    wire = two_gateways(lab)
    plan = PLAN.change(version=version)
    change, is_break = change.of(version), change.change_class is ChangeClass.BREAK
    peer = peer_of(kind, wire, plan)
    ours = Vpnd(wire.a.gateway, A.address, plans=[plan])
    if version == "ikev2":
        ours.wait_proved(plan.name)
    stable = agreement(ours, peer, plan.name, 2)
    ours.namespace.ip("route", "add", ROUTE, "dev", plan.interface)
    index, _ = interface_of(ours)
    megabits = RATE * PACKET_LENGTH * 8 / 1e6
    with Streams(wire.a.host, A.inside, wire.b.host, B.inside, megabits) as without:
        time.sleep(BEFORE + AFTER)
    before = messages(ours)
    with Streams(wire.a.host, A.inside, wire.b.host, B.inside, megabits) as streams:
        time.sleep(BEFORE)
        if is_break and isinstance(peer, Vpnd):
            peer.replace(their_plan(change.plan))
        ours.replace(change.plan)
        wait_until(is_applied(ours, change), "the change to be applied", interval=0.1)
        time.sleep(AFTER)
    control, flows = without.require_flows(), streams.require_flows()
    now, route = interface_of(ours)
    sas = ours.agreed(plan.name)
    row(
        "classes of change",
        **{
            "class": change.change_class.value,
            "what": change.what,
            "version": version,
            "peer": kind,
            "lost/doubled/reordered": figures(flows),
            "without a change": figures(control),
            "packets": str(sum(flow.sent for flow in flows)),
            "interface": f"{index} to {now}" if now != index else f"{index} stays",
            "route by hand": "stays" if route else "gone",
            "messages": said(before, messages(ours)),
        },
    )
    if not is_break:
        assert (now, route) == (index, True)
    # A pair of IKEv1 that was replaced receives to its end.
    wait_until(
        lambda: {one.mirrored() for one in ours.agreed(plan.name)} <= set(peer.agreed(plan.name)),
        "both ends to have the same SAs",
    )
    kept = {one.spi_in for one in stable} & {one.spi_in for one in sas}
    expected = {"one mapping more, one less": 1, "ESP algorithm": 0, "encapsulation": 0}
    assert len(kept) == (0 if is_break else expected.get(change.what, 2))
    if is_break:
        return  # what it costs is said in the plan, and printed in the table
    for with_change, alone in zip(flows, control, strict=True):
        assert with_change.lost <= alone.lost, with_change.explanation()
        assert (with_change.duplicates, with_change.reordered) <= (alone.duplicates, alone.reordered)
