"""A configuration that nobody confirms, and a daemon that is killed meanwhile."""

from __future__ import annotations

import random
import time

from tests.lab.lab import write
from tests.lab.process import wait_until
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

TUNNEL = """[tunnels.extra]
customer_gateway = {{ address = "203.0.113.50" }}
pre_shared_key = "plain:correct-horse-battery-staple"
negotiation = "passive"
routes = ["{route}"]
"""
"""Nobody is there: what counts is which of its routes is in force."""

CONFIRMED = "10.9.0.0/24"


def candidate(ours: Vpnd, route: str) -> None:
    """The files hold the tunnel with this route."""
    write(ours.directory / "tunnels.d" / "extra.toml", TUNNEL.format(route=route), mode=0o600)


def in_force(ours: Vpnd) -> str:
    """The route that the daemon has."""
    (route,) = ours.get("/v1/tunnels/extra")["routes"]
    return str(route)


def play(ours: Vpnd, chance: random.Random, number: int, seconds: float, row: TellRow) -> None:
    """Apply another route for `seconds`, kill the daemon at a random moment, start it at another.

    The confirmed route comes back, and another start has it as well. The row has how late it came: after the
    deadline, or after the daemon answered where that is later.
    """
    other = f"10.9.{number % 200 + 1}.0/24"
    candidate(ours, other)
    ours.call("POST", "/v1/apply", {"confirm_s": seconds})
    deadline = time.monotonic() + seconds
    killed_after, away = chance.uniform(0, 1.5 * seconds), chance.uniform(0, seconds)
    time.sleep(killed_after)
    ours.kill()
    time.sleep(away)
    ours.start()
    answered = time.monotonic()
    wait_until(lambda: in_force(ours) == CONFIRMED, "the confirmed configuration", interval=0.01)
    late = time.monotonic() - max(deadline, answered)
    assert ours.status()["gateway"]["confirm_in_s"] is None
    assert "the files differ" in ours.status()["gateway"]["rolled_back"]["message"]
    ours.kill()
    ours.start()
    assert in_force(ours) == CONFIRMED, "the files still hold what was rolled back"
    row(
        "killed while unconfirmed",
        killed_after_s=f"{killed_after:.1f}",
        away_s=f"{away:.1f}",
        late_s=f"{max(0.0, late):.2f}",
    )
