"""A strongSwan that refuses is asked what it takes: what is up is not touched, and nothing is left there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.interop.conftest import Opposite
from tests.lab.plan import A6, B6, A, B, Plan, Suite
from tests.lab.process import wait_until
from tests.lab.topology import settle
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow, pytest.mark.full_faults]

ASKED = 90.0
"""Seconds in which two attempts have failed and the peer was asked, on a slow machine."""
FAILURES = 5

WRONG = Plan(negotiation="active")
BESIDE = Plan(
    name="t2",
    local=replace(A, identity="a2.example", networks=A6.networks),
    remote=replace(B, identity="b2.example", networks=B6.networks),
    interface="vpn-lab2",
)
ALL = ('diagnose = "all"',)
V1 = WRONG.change(version="ikev1")
DIFFERENCES: dict[str, tuple[Plan, Plan, str]] = {
    "identity": (WRONG.change(remote=replace(B, identity="other.example")), WRONG, "E-ID"),
    "group": (WRONG.change(ike=Suite(dh_group=31)), WRONG, "E-P1-PROPOSAL"),
    "group, all": (WRONG.change(ike=Suite(dh_group=31), lines=ALL), WRONG, "E-P1-DH"),
    "cipher, all": (WRONG.change(ike=Suite("aes-256"), lines=ALL), WRONG, "E-P1-ENC"),
    "group, all, ikev1": (V1.change(ike=Suite(dh_group=5), lines=ALL), V1, "E-P1-DH"),
    "ikev1 here": (V1, WRONG, "E-V1V2"),
    "ikev1 there": (WRONG, V1, "E-V1V2"),
    "aggressive here": (V1.change(mode="aggressive"), V1, "E-MODE"),
}
"""Ours, what the peer has, and the code that is known once it was asked."""


def failures(vpnd: Vpnd, name: str) -> int:
    """How many attempts have failed by now."""
    why = vpnd.get(f"/v1/tunnels/{name}/why")
    return int(why["tries"] or 0)


@pytest.mark.parametrize("differs", DIFFERENCES)
def test_a_peer_is_asked_once_and_nothing_is_left(differs: str, opposite: Opposite) -> None:
    vpnd, peer = opposite.ours, opposite.peer
    assert isinstance(vpnd, Vpnd)
    wrong, right, code = DIFFERENCES[differs]
    beside = BESIDE.change(version=right.version)
    try:
        peer.replace(right.other(), beside.other())
        vpnd.add(beside)
        assert vpnd.up(BESIDE.name).returncode == 0
        settle(vpnd, peer, beside)
        before = vpnd.agreed(BESIDE.name), [sa["spi_i"] for sa in vpnd.ike_sas(BESIDE.name)]
        heard = len(vpnd.events(wrong.name))
        vpnd.add(wrong)
        wait_until(lambda: "probed" in vpnd.told(wrong.name, heard), "the peer to be asked", ASKED, 0.2)
        # 30 s is what strongSwan keeps of a peer that does not go on.
        wait_until(lambda: [sa["name"] for sa in peer.sas()] == [BESIDE.name], "nothing to be left", 5, 0.2)
        wait_until(lambda: failures(vpnd, wrong.name) >= FAILURES, "further failures", ASKED, 0.5)
        told = vpnd.told(wrong.name, heard)
        assert told.count("probing") == 1
        assert code in told
        assert vpnd.get(f"/v1/tunnels/{wrong.name}/why")["error"]["code"] == code
        vpnd.call("POST", f"/v1/tunnels/{wrong.name}/down", {})
        assert [sa["name"] for sa in peer.sas()] == [BESIDE.name]
        assert (vpnd.agreed(BESIDE.name), [sa["spi_i"] for sa in vpnd.ike_sas(BESIDE.name)]) == before
        vpnd.add(right)
        assert vpnd.up(right.name).returncode == 0, "nobody is locked out"
    finally:
        for plan in (WRONG, BESIDE):
            if any(one["name"] == plan.name for one in vpnd.get("/v1/status")["tunnels"]):
                vpnd.remove(plan.name)
        peer.terminate_all()
        peer.replace()


def test_a_peer_is_not_asked_where_that_is_off(opposite: Opposite) -> None:
    vpnd, peer = opposite.ours, opposite.peer
    assert isinstance(vpnd, Vpnd)
    wrong = DIFFERENCES["group"][0].change(lines=('diagnose = "off"',))
    try:
        peer.replace(WRONG.other())
        heard = len(vpnd.events(wrong.name))
        vpnd.add(wrong)
        wait_until(lambda: failures(vpnd, wrong.name) >= FAILURES, "failures", ASKED, 0.5)
        assert "probing" not in vpnd.told(wrong.name, heard)
        assert vpnd.get(f"/v1/tunnels/{wrong.name}/why")["error"]["code"] == "E-P1-PROPOSAL"
    finally:
        vpnd.remove(wrong.name)
        peer.replace()
