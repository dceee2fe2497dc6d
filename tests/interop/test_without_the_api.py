"""`vpnd run` carries traffic before, and without, what answers the API: the libraries never come here."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.lab.lab import Lab, write
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.topology import two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import PROGRAM, Vpnd

pytestmark = pytest.mark.root

WAITS = """
import os
open({asked!r}, "w").close()
with open({gate!r}) as gate:  # a FIFO: until its writer has written and closed it
    gate.read()
raise ImportError("fastapi never comes")
"""


def test_traffic_flows_while_the_libraries_of_the_api_do_not_come(lab: Lab) -> None:
    wire = two_gateways(lab)
    plan = Plan(negotiation="active")
    peer = Vpnd(wire.b.gateway, B.address, plans=[plan.change(negotiation="passive").other()])
    asked, gate = lab.directory / "asked", lab.directory / "gate"
    os.mkfifo(gate)
    write(lab.directory / "late" / "fastapi.py", WAITS.format(asked=str(asked), gate=str(gate)))
    path = f"PYTHONPATH={lab.directory / 'late'}"
    ours = Vpnd(wire.a.gateway, A.address, ("env", path, *PROGRAM), plans=[plan], running=False)
    ours.launch()
    try:
        # It is asked for in a thread, which waits at the FIFO from now on.
        wait_until(asked.exists, "the daemon to ask for FastAPI")
        wait_until(lambda: peer.tunnel(plan.name)["state"] == "up", "the tunnel to be up")
        require_ping(wire.a.host, A.inside, B.inside)
        with pytest.raises((OSError, subprocess.SubprocessError)):
            ours.vpnctl("status", timeout=1)
        counts = peer.tunnel(plan.name)["mappings"][0]
        assert counts["packets_in"] >= 3
        assert counts["packets_out"] >= 3
    finally:
        gate.write_text("on")
        ours.child.wait(30)
    assert "fastapi never comes" in ours.log()
