"""A pre-shared key is replaced while the tunnel goes on, live: with strongSwan, and between two vpnd.

strongSwan has one key and changes it at once; vpnd has both before it and the new one alone after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.interop.conftest import Opposite
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.stream import Streams
from tests.lab.topology import Wire, agreement, two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow
from vpnd.model.secret import Secret

pytestmark = [pytest.mark.root, pytest.mark.slow]

OLD, NEW = "the-key-until-now-0123456789abcdef", "the-key-from-now-on-0123456789abcdef"
OLD_MARK, NEW_MARK = (Secret(key.encode()).fingerprint() for key in (OLD, NEW))
BOTH = (f'next_pre_shared_key = "plain:{NEW}"',)
SPOKEN = {
    "ikev2": {"version": "ikev2"},
    "main": {"version": "ikev1", "mode": "main"},
    "aggressive": {"version": "ikev1", "mode": "aggressive"},
}
ALWAYS = {("ikev2", "initiator"), ("main", "responder"), ("aggressive", "initiator")}
CASES = [
    pytest.param(
        spoken,
        role,
        id=f"{spoken}-{role}",
        marks=() if (spoken, role) in ALWAYS else pytest.mark.full_faults,
    )
    for spoken in SPOKEN
    for role in ("initiator", "responder")
]
WRONG_ONCE = "aggressive-responder"
"""vpnd shows its key first, and cannot know that strongSwan has another now: its second attempt gets that."""
RATE = 2.0
"""Mbit/s each way."""


def plan_of(spoken: str, name: str) -> Plan:
    return Plan(name=name, psk=OLD, dpd_timeout=3600).change(**SPOKEN[spoken])


def in_use(vpnd: Vpnd, name: str) -> tuple[str, str]:
    """What both ends use, as vpnd says it."""
    keys = vpnd.call("GET", f"/v1/tunnels/{name}/psk")
    return keys["ours"]["fingerprint"], keys["theirs"]["fingerprint"]


def no_key_is_told(vpnd: Vpnd, name: str) -> None:
    """Neither key is in the log, the status, the events or the trace."""
    for path in (f"/v1/tunnels/{name}", f"/v1/tunnels/{name}/trace", "/v1/events?follow=false", "/v1/keys"):
        content = vpnd.ask("GET", path)[1].decode()
        assert OLD not in content
        assert NEW not in content
    log = vpnd.log()
    assert OLD not in log
    assert NEW not in log


def restart(opposite: Opposite, name: str, role: str, used: str) -> None:
    """Killed, and started again: what `psk status` says is true at once, and the next attempt succeeds."""
    assert isinstance(opposite.ours, Vpnd)
    kept = opposite.ours.directory / "state" / "keys.json"

    def is_written() -> bool:
        known = json.loads(kept.read_text())["tunnels"].get(name, {})
        return {end["fingerprint"] for end in known.values()} == {used}

    wait_until(is_written, "the key in use to be kept")
    opposite.ours.kill()
    opposite.ours.start()
    assert in_use(opposite.ours, name) == (used, used)
    opposite.peer.terminate_all()
    begin_again(opposite, name, role)
    agreement(opposite.ours, opposite.peer, name)
    assert in_use(opposite.ours, name) == (used, used)
    assert "attempt-failed" not in opposite.ours.told(name)


def begin_again(opposite: Opposite, name: str, role: str, may_fail: bool = False) -> None:
    """A new IKE SA in place of what there is. `may_fail`: the peer's first attempt may be in vain."""
    if role == "initiator":
        assert isinstance(opposite.ours, Vpnd)
        opposite.ours.call("POST", f"/v1/tunnels/{name}/down")
        wait_until(
            lambda: not opposite.peer.agreed(name), "strongSwan to have heard our DELETE", interval=0.1
        )
    else:
        opposite.peer.terminate_all()
    done = (opposite.ours if role == "initiator" else opposite.peer).up(name, timeout=20)
    if done.returncode and may_fail:
        done = opposite.peer.up(name, timeout=20)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(("spoken", "role"), CASES)
def test_strongswan_changes_at_once(opposite: Opposite, spoken: str, role: str, row: TellRow) -> None:
    change_at_once(opposite, spoken, role, everywhere=False)
    row("rotation", peer="strongSwan", spoken=spoken, begins=role, restarts=1, passed=True)


@pytest.mark.full_faults
@pytest.mark.parametrize("role", ["initiator", "responder"])
@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_restart_in_each_state(opposite: Opposite, spoken: str, role: str, row: TellRow) -> None:
    change_at_once(opposite, spoken, role, everywhere=True)
    row("rotation", peer="strongSwan", spoken=spoken, begins=role, restarts=4, passed=True)


def change_at_once(opposite: Opposite, spoken: str, role: str, everywhere: bool) -> None:
    """The whole way; with a restart in each state, or in the one that needs most to be remembered."""
    ours, peer = opposite.ours, opposite.peer
    assert isinstance(ours, Vpnd)
    name = f"{spoken}-{role}"
    old = plan_of(spoken, name)
    ours.replace(old)
    # What the refusal at the end of another case has left half-open would take this one's place.
    peer.terminate_all()
    wait_until(lambda: not peer.sas(), "strongSwan to be idle", interval=0.1)
    peer.replace(old.other())
    opposite.bring_up(old, role)
    (before,) = agreement(ours, peer, name)
    assert in_use(ours, name) == (OLD_MARK, OLD_MARK)
    if everywhere:
        restart(opposite, name, role, OLD_MARK)
    ours.replace(old.change(lines=BOTH))
    assert in_use(ours, name) == (OLD_MARK, OLD_MARK), "nothing is negotiated"
    if everywhere:
        restart(opposite, name, role, OLD_MARK)
    peer.replace(old.other().change(psk=NEW))
    begin_again(opposite, name, role, may_fail=name == WRONG_ONCE)
    agreement(ours, peer, name)
    assert in_use(ours, name) == (NEW_MARK, NEW_MARK)
    restart(opposite, name, role, NEW_MARK)
    ours.replace(old.change(psk=NEW))
    begin_again(opposite, name, role)
    (after,) = agreement(ours, peer, name)
    assert after.spi_in != before.spi_in
    if everywhere:
        restart(opposite, name, role, NEW_MARK)
    assert "attempt-failed" not in ours.told(name)
    require_ping(opposite.wire.a.host, A.inside, B.inside)
    peer.replace(old.other())
    peer.terminate_all()
    refused = (ours if role == "initiator" else peer).up(name, timeout=5)
    assert refused.returncode != 0, "the old key has ended"
    no_key_is_told(ours, name)


@dataclass
class Two:
    """Two vpnd."""

    wire: Wire
    a: Vpnd
    b: Vpnd


@pytest.fixture(scope="module")
def two() -> Iterator[Two]:
    with Lab() as lab:
        wire = two_gateways(lab, "k-")
        yield Two(wire, Vpnd(wire.a.gateway, A.address), Vpnd(wire.b.gateway, B.address))


def up(two: Two, plan: Plan) -> None:
    """Both have the tunnel, and agree."""
    two.a.replace(plan)
    two.b.replace(plan.other())
    done = two.a.up(plan.name)
    assert done.returncode == 0, done.stderr
    agreement(two.a, two.b, plan.name)
    if plan.version == "ikev2":
        two.a.wait_proved(plan.name)
    agreement(two.a, two.b, plan.name)


@pytest.mark.parametrize(
    ("spoken", "proves", "ends_first"),
    [
        pytest.param(
            spoken,
            proves,
            ends_first,
            marks=() if (spoken, proves, ends_first) == ("ikev2", "a", "b") else pytest.mark.full_faults,
        )
        for spoken in ("ikev2", "main")
        for proves in ("a", "b")
        for ends_first in ("a", "b")
    ],
)
def test_two_vpnd_lose_nothing(two: Two, spoken: str, proves: str, ends_first: str, row: TellRow) -> None:
    """Both get the next key, it is proved beside what there is, each ends the old one: no packet is lost."""
    name = f"two-{spoken}-{proves}{ends_first}"
    old = plan_of(spoken, name)
    up(two, old)
    require_ping(two.wire.a.host, A.inside, B.inside)
    ends = {"a": (two.a, old), "b": (two.b, old.other())}
    with Streams(two.wire.a.host, A.inside, two.wire.b.host, B.inside, RATE) as streams:
        for gateway, plan in ends.values():
            gateway.replace(plan.change(lines=BOTH))
        ends[proves][0].call("POST", f"/v1/tunnels/{name}/psk/rotate", {"step": "prove"})
        for gateway, _ in ends.values():
            wait_until(lambda: in_use(gateway, name) == (NEW_MARK, NEW_MARK), "the next key")  # noqa: B023 (used at once)
        for end in (ends_first, "ab".replace(ends_first, "")):
            gateway, plan = ends[end]
            gateway.replace(plan.change(psk=NEW))
        wait_until(lambda: len(two.a.agreed(name)) == 1, "one pair", interval=0.1)
    sent = require_nothing_lost(two, streams, name)
    row("rotation", peer="vpnd", spoken=spoken, begins=f"{proves} proves", sent=sent, lost=0)


@pytest.mark.full_faults
@pytest.mark.parametrize("begins", ["a", "b"])
def test_two_vpnd_in_aggressive_mode_lose_nothing(two: Two, begins: str, row: TellRow) -> None:
    """The initiator has the next key alone, the responder shows the other one first: once more at once."""
    name = f"two-aggressive-{begins}"
    old = plan_of("aggressive", name)
    up(two, old)
    require_ping(two.wire.a.host, A.inside, B.inside)
    ends = {"a": (two.a, old), "b": (two.b, old.other())}
    (first, plan), (second, others) = ends[begins], ends["ab".replace(begins, "")]
    with Streams(two.wire.a.host, A.inside, two.wire.b.host, B.inside, RATE) as streams:
        second.replace(others.change(lines=BOTH))
        first.replace(plan.change(psk=NEW))
        first.call("POST", f"/v1/tunnels/{name}/rekey", {"ike": True, "timeout_s": 20})
        for gateway in (first, second):
            wait_until(lambda: in_use(gateway, name) == (NEW_MARK, NEW_MARK), "the next key")  # noqa: B023 (used at once)
        second.replace(others.change(psk=NEW))
    assert "next-key-proved" in second.told(name)
    sent = require_nothing_lost(two, streams, name, proved=False)
    row("rotation", peer="vpnd", spoken="aggressive", begins=begins, sent=sent, lost=0)


def require_nothing_lost(two: Two, streams: Streams, name: str, proved: bool = True) -> int:
    """No packet, and no attempt; both have the new key alone. Returns how many were sent."""
    flows = streams.require_flows()
    for flow in flows:
        assert flow.lost == flow.duplicates == 0, flow.explanation()
    for gateway in (two.a, two.b):
        assert gateway.call("GET", f"/v1/tunnels/{name}/psk")["current"] == NEW_MARK
        assert not proved or "next-key-proved" in gateway.told(name)
        assert not {"attempt-failed", "tunnel-lost"} & set(gateway.told(name))
        no_key_is_told(gateway, name)
    return sum(flow.sent for flow in flows)


STATES: dict[str, dict[str, Any]] = {
    "old": {"psk": OLD},
    "both": {"psk": OLD, "lines": BOTH},
    "new": {"psk": NEW},
}
ORDERS = {
    "a first": (("both", "old"), ("both", "both"), ("new", "both"), ("new", "new")),
    "b first": (("old", "both"), ("both", "both"), ("both", "new"), ("new", "new")),
    "a first, b at once": (("both", "old"), ("both", "new"), ("new", "new")),
    "b first, a at once": (("old", "both"), ("new", "both"), ("new", "new")),
}
"""What the two ends have one after the other."""


@pytest.mark.full_faults
@pytest.mark.parametrize("restarted", ["a", "b"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("spoken", SPOKEN)
def test_two_vpnd_and_a_restart_in_each_state(
    two: Two, spoken: str, order: str, restarted: str, row: TellRow
) -> None:
    """In each state before its first authentication, and after it: none fails, and status is true."""
    name = f"states-{spoken}-{list(ORDERS).index(order)}-{restarted}"
    old = plan_of(spoken, name)
    up(two, old)
    ends = {"a": (two.a, old), "b": (two.b, old.other())}
    killed = ends[restarted][0]
    restarts = 0
    for state in ORDERS[order]:
        for (gateway, plan), keys in zip(ends.values(), state, strict=True):
            gateway.replace(plan.change(**STATES[keys]))
        for _ in range(2):
            known = in_use(killed, name)
            heard = len(two.a.events(name)) if restarted == "b" else 0
            killed.kill()
            killed.start()
            restarts += 1
            assert in_use(killed, name) == known
            two.a.call("POST", f"/v1/tunnels/{name}/reset", {"timeout_s": 20})
            agreement(two.a, two.b, name)
            assert in_use(two.a, name) == in_use(two.b, name)
            assert "attempt-failed" not in two.a.told(name, heard), (state, two.a.told(name, heard))
    assert in_use(two.a, name) == (NEW_MARK, NEW_MARK)
    require_ping(two.wire.a.host, A.inside, B.inside)
    for gateway, _ in ends.values():
        no_key_is_told(gateway, name)
    row("rotation", peer="vpnd", spoken=spoken, begins=f"a; {order}, {restarted} restarts", restarts=restarts)
