"""`vpnctl` against a running daemon, as an operator types it, with what is wrong as well."""

from __future__ import annotations

import json

import pytest

from tests.lab.lab import Lab, write
from tests.lab.plan import A, B, Plan, SpdRule
from tests.lab.topology import two_gateways
from tests.lab.vpnd import PROGRAM, Vpnd

pytestmark = [pytest.mark.root, pytest.mark.slow]

NEW = """[customer_gateways.lab]
address = "203.0.113.50"
[tunnels.lab-1]
customer_gateway = "lab"
pre_shared_key = "plain:correct-horse-battery-staple"
routes = ["10.7.0.0/16"]
negotiation = "passive"
"""

WALK: tuple[tuple[str, int, str], ...] = (
    ("up branch-a", 0, '"state": "up"'),
    ("up nobody", 2, "E-UNKNOWN-TUNNEL"),
    ("rekey branch-a --child", 0, '"state": "up"'),
    ("down branch-a", 0, '"state": "down"'),
    ("rekey branch-a", 1, "E-NOT-UP"),
    ("why branch-a", 0, '"error": null'),
    ("reset branch-a", 0, '"state": "up"'),
    ("switch branch-a", 2, "branch-a has no routes to move: spd-policy"),
    ("peer-config branch-a --for abacus", 2, "one of: strongswan"),
    ("add {new}", 0, '"change": "created"'),
    ("add {new}", 0, '"change": "unchanged"'),
    ("add {wrong}", 2, "{wrong}:8: ike.encryption"),
    ("remove branch-a", 1, "E-FROM-FILE"),
    ("remove lab-1", 0, '"change": "removed"'),
    ("reload", 0, '"unchanged": [\n    "branch-a"'),
)
"""What is typed, the exit code, and what the JSON holds."""


def test_every_command_says_what_it_did_and_why_not(lab: Lab) -> None:
    wire = two_gateways(lab)
    rules = (SpdRule(A.networks, (*B.networks, "10.2.1.0/24")),)
    plan = Plan(name="branch-a", rules=rules)
    Vpnd(wire.b.gateway, B.address, PROGRAM, plans=[plan.other()])
    ours = Vpnd(wire.a.gateway, A.address, PROGRAM, plans=[plan])
    files = {
        "new": write(lab.directory / "new.toml", NEW, mode=0o600),
        "wrong": write(lab.directory / "wrong.toml", NEW + 'ike.encryption = "aes128"\n', mode=0o600),
    }
    for typed, code, says in WALK:
        done = ours.vpnctl("--json", *typed.format(**files).split(), check=False)
        assert (done.returncode, done.stderr) == (code, ""), f"{typed}: {done.stdout}{done.stderr}"
        assert ("error" in json.loads(done.stdout)) == (code != 0 or typed.startswith("why")), typed
        assert says.replace("{wrong}", str(files["wrong"])) in done.stdout, f"{typed}: {done.stdout}"
    status = ours.vpnctl("status").stdout
    assert "branch-a" in status
    assert max(map(len, status.splitlines())) <= 80
    broken = write(ours.directory / "tunnels.d" / "broken.toml", "[tunnels.x]\nrotes = []\n", mode=0o600)
    refused = ours.vpnctl("reload", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f'{broken}:2  E-KEY  unknown key "rotes"' in refused.stderr
    assert refused.stderr.endswith("errors: nothing was changed\n")
    assert [tunnel["name"] for tunnel in ours.status()["tunnels"]] == ["branch-a"]
    assert ours.stop() == 0
    gone = ours.vpnctl("--json", "status", check=False)
    assert (gone.returncode, json.loads(gone.stdout)["error"]["code"]) == (3, "E-UNREACHABLE-DAEMON")
