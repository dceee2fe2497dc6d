"""strongSwan begins again whatever we close (`close_action = start`): both come to rest, nothing is lost."""

from __future__ import annotations

import re
import time

import pytest

from tests.interop.conftest import Opposite
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.stream import Streams
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

WATCHED, AT_REST = 80.0, 20.0
"""Seconds that the two are watched, and those of them in which nothing more may be made."""
MOST = 3
"""SAs of a kind that may be made before the two are at rest."""
RATE = 1.0
"""Mbit/s, about 90 packets a second."""


def made(opposite: Opposite, name: str) -> tuple[int, int]:
    """How many IKE SAs and CHILD_SAs of a connection strongSwan has had."""
    log = opposite.peer.log()
    return tuple(
        len(re.findall(rf"{kind} {name}[\[{{]\d+[\]}}] established", log)) for kind in ("IKE_SA", "CHILD_SA")
    )  # type: ignore[return-value]


@pytest.mark.parametrize("negotiation", ["active", "passive"])
@pytest.mark.parametrize("version", ["ikev2", "ikev1"])
def test_both_ends_come_to_rest(version: str, negotiation: str, opposite: Opposite, row: TellRow) -> None:
    name = f"again-{version}-{negotiation}"
    plan = Plan(
        name=name, version=version, negotiation=negotiation, start_action="start", close_action="start"
    )
    vpnd = opposite.ours
    assert isinstance(vpnd, Vpnd)
    # Both begin: strongSwan's first message is not answered, and sent again 4 s later.
    opposite.peer.add(plan.other())
    try:
        vpnd.add(plan)
        wait_until(lambda: opposite.ours.agreed(name) and opposite.peer.agreed(name), "the tunnel to be up")
        with Streams(opposite.wire.a.host, A.inside, opposite.wire.b.host, B.inside, RATE) as streams:
            time.sleep(WATCHED - AT_REST)
            before = made(opposite, name)
            time.sleep(AT_REST)
            after = made(opposite, name)
        lost = [flow.lost for flow in streams.require_flows()]
        told = "begins again" in vpnd.ctl("events").stdout
        vpnd.ctl("reset", name)
        time.sleep(AT_REST)
        held = len(vpnd.ike_sas(name)), len(opposite.peer.sas())
        settled = made(opposite, name)
        time.sleep(AT_REST)
        row(
            "close-action",
            what=f"{version}, we are {negotiation}",
            figure=f"{after} made, {lost} lost, {held} IKE SAs after a reset, told: {told}",
        )
        assert before == after
        assert max(after) <= MOST
        assert lost == [0, 0]
        assert made(opposite, name) == settled
        assert max(held) <= MOST
        assert told or after == (1, 1) or version == "ikev1"
    finally:
        vpnd.remove(name)
        opposite.peer.remove(name)
