"""Beginning and end: a daemon that is killed starts again at once, one that is asked to stop says goodbye."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.interop.conftest import Opposite
from tests.lab.lab import Lab
from tests.lab.owner import is_abandoned, owned_directories, owned_namespaces, reap, start_time
from tests.lab.plan import NO_DPD, A, B, Plan
from tests.lab.process import PATIENCE, wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import agreement, two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.slow]

PLAN = Plan(negotiation="active", routed=True, dpd_timeout=NO_DPD)


@pytest.fixture
def running(lab: Lab) -> Opposite:
    """vpnd, its tunnel in a file, and strongSwan; the tunnel is up."""
    wire = two_gateways(lab)
    peer = StrongSwan(wire.b.gateway)
    peer.add(PLAN.other())
    ours = Vpnd(wire.a.gateway, A.address)
    ours.configure(PLAN)
    ours.ctl("reload")
    ours.wait_state(PLAN.name, "up")
    require_ping(wire.a.host, A.inside, B.inside)
    return Opposite(wire, ours, peer)


@pytest.mark.strongswan
def test_killed_and_started_again_the_tunnel_comes_back_at_once(running: Opposite) -> None:
    ours = running.ours
    assert isinstance(ours, Vpnd)
    assert ours.kill() == -signal.SIGKILL
    ours.start()
    ours.wait_state(PLAN.name, "up")
    # At once, and by the first attempt.
    assert ours.told(PLAN.name)[:2] == ["tunnel-connecting", "tunnel-up"]
    require_ping(running.wire.a.host, A.inside, B.inside)
    # INITIAL_CONTACT tells the peer that its old SAs lead nowhere.
    wait_until(lambda: len(running.peer.agreed(PLAN.name)) == 1, "strongSwan to drop the old SAs")
    agreement(ours, running.peer, PLAN.name)


@pytest.mark.strongswan
def test_sigterm_says_goodbye_and_takes_everything_away(running: Opposite) -> None:
    ours = running.ours
    assert isinstance(ours, Vpnd)
    assert ours.stop() == 0
    wait_until(lambda: not running.peer.sas(), "strongSwan to have been told")
    left = running.wire.a.gateway.left_behind()
    assert left["interfaces"] == []
    # What keeps the traffic in stays: the guard's rules and blackholes.
    assert all("proto 86" in rule for rule in left["rules"]), left["rules"]
    assert all(route.startswith("blackhole") for route in left["routes"]), left["routes"]
    assert not ours.socket.exists()


@pytest.mark.parametrize(
    ("moment", "signal_number"),
    [
        ("Starting the gateways", signal.SIGTERM),
        ("Bringing the tunnel up", signal.SIGINT),
        ("Through the tunnel", signal.SIGINT),
    ],
    ids=["starting", "connecting", "transferring"],
)
def test_interrupted_demo_leaves_nothing(moment: str, signal_number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.lab.demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        owner = f"-{demo.pid}-{start_time(demo.pid)}-"
        output = ""
        for line in demo.stdout:
            output += line
            if moment in line:
                break
        else:
            pytest.fail(f"the demo never came to {moment!r}:\n{output}")
        wait_until(lambda: any(owner in name for name in owned_namespaces()), "the demo to make something")
        time.sleep(0.3)
        os.killpg(demo.pid, signal_number)
        output += demo.stdout.read()
        assert demo.wait(PATIENCE) == 130, output
    assert [name for name in owned_namespaces() if owner in name] == []
    assert [path for path in owned_directories() if owner in path.name] == []


def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    script = (
        "import os, signal\n"
        "from tests.lab.lab import Lab\n"
        "from tests.lab.topology import two_gateways\n"
        "wire = two_gateways(Lab())\n"
        "wire.a.gateway.spawn('sleep', '1000', log='sleep')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    def left() -> list[str]:
        return [
            name for name in (*owned_namespaces(), *(p.name for p in owned_directories())) if owner in name
        ]

    with subprocess.Popen([sys.executable, "-c", script]) as killed:
        owner = f"-{killed.pid}-{start_time(killed.pid)}-"
        # As long as nobody has asked for its exit code it is there, and what it made is not abandoned. From
        # then on another process of this run, which begins a laboratory, may be the next one.
        ended = os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_status == signal.SIGKILL
        names = left()
        assert len(names) == 3, names
        assert not any(map(is_abandoned, names))
        assert killed.wait(PATIENCE) == -signal.SIGKILL
    assert all(map(is_abandoned, names))
    reap()
    wait_until(lambda: left() == [], "what was left to be gone")
