"""A pre-shared key is replaced while the tunnel goes on, live: with strongSwan, and between two vpnd.

strongSwan has one key and changes it at once; vpnd has both before it and the new one alone after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
"""vpnd shows its key first, and not the one that the initiator has: the second attempt gets the other."""
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


def begin_again(opposite: Opposite, name: str, role: str) -> None:
    """A new IKE SA in place of what there is."""
    if role == "initiator":
        assert isinstance(opposite.ours, Vpnd)
        opposite.ours.call("POST", f"/v1/tunnels/{name}/down")
        wait_until(
            lambda: not opposite.peer.agreed(name), "strongSwan to have heard our DELETE", interval=0.1
        )
    else:
        opposite.peer.terminate_all()
    done = (opposite.ours if role == "initiator" else opposite.peer).up(name, timeout=20)
    if done.returncode and name == WRONG_ONCE:
        done = opposite.peer.up(name, timeout=20)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(("spoken", "role"), CASES)
def test_strongswan_changes_at_once(opposite: Opposite, spoken: str, role: str, row: TellRow) -> None:
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
    ours.replace(old.change(lines=BOTH))
    assert in_use(ours, name) == (OLD_MARK, OLD_MARK), "nothing is negotiated"
    peer.replace(old.other().change(psk=NEW))
    begin_again(opposite, name, role)
    agreement(ours, peer, name)
    assert in_use(ours, name) == (NEW_MARK, NEW_MARK)
    ours.kill()
    ours.start()
    peer.terminate_all()
    begin_again(opposite, name, role)
    agreement(ours, peer, name)
    assert in_use(ours, name) == (NEW_MARK, NEW_MARK), "also after a start, with nothing remembered"
    ours.replace(old.change(psk=NEW))
    begin_again(opposite, name, role)
    (after,) = agreement(ours, peer, name)
    assert after.spi_in != before.spi_in
    assert name == WRONG_ONCE or "attempt-failed" not in ours.told(name)
    require_ping(opposite.wire.a.host, A.inside, B.inside)
    peer.replace(old.other())
    peer.terminate_all()
    refused = (ours if role == "initiator" else peer).up(name, timeout=5)
    assert refused.returncode != 0, "the old key has ended"
    no_key_is_told(ours, name)
    row("rotation", peer="strongSwan", spoken=spoken, begins=role, passed=True)


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


@pytest.mark.parametrize("spoken", ["ikev2", pytest.param("main", marks=pytest.mark.full_faults)])
def test_two_vpnd_lose_nothing(two: Two, spoken: str, row: TellRow) -> None:
    """Both get the next key, it is proved beside what there is, each ends the old one: no packet is lost."""
    name = f"two-{spoken}"
    old = plan_of(spoken, name)
    two.a.replace(old)
    two.b.replace(old.other())
    done = two.a.up(name)
    assert done.returncode == 0, done.stderr
    agreement(two.a, two.b, name)
    if spoken == "ikev2":
        two.a.wait_proved(name)
    agreement(two.a, two.b, name)
    require_ping(two.wire.a.host, A.inside, B.inside)
    with Streams(two.wire.a.host, A.inside, two.wire.b.host, B.inside, RATE) as streams:
        two.a.replace(old.change(lines=BOTH))
        two.b.replace(old.other().change(lines=BOTH))
        two.a.call("POST", f"/v1/tunnels/{name}/psk/rotate", {"step": "prove"})
        wait_until(lambda: in_use(two.b, name) == (NEW_MARK, NEW_MARK), "both ends to use the next key")
        assert in_use(two.a, name) == (NEW_MARK, NEW_MARK)
        two.b.replace(old.other().change(psk=NEW))
        two.a.replace(old.change(psk=NEW))
        wait_until(lambda: len(two.a.agreed(name)) == 1, "one pair", interval=0.1)
    flows = streams.require_flows()
    for flow in flows:
        assert flow.lost == flow.duplicates == 0, flow.explanation()
    for gateway in (two.a, two.b):
        assert gateway.call("GET", f"/v1/tunnels/{name}/psk")["current"] == NEW_MARK
        assert "next-key-proved" in gateway.told(name)
        assert not {"attempt-failed", "tunnel-lost"} & set(gateway.told(name))
        no_key_is_told(gateway, name)
    row("rotation", peer="vpnd", spoken=spoken, begins="proved", sent=sum(f.sent for f in flows), lost=0)
