"""Two tunnels to one site: the primary fails in every way, the traffic goes on through the secondary."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tests.lab.lab import Lab
from tests.lab.process import CommandFailed, wait_until
from tests.lab.two_paths import CHECKS, THERE, Stream, TwoPaths, two_paths
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow]

CHECK = CHECKS["primary"]
BOUND = CHECK.failures * CHECK.interval_ms / 1000 + 1
"""Seconds within which traffic moves; what is asserted is that so many probes without an answer did it."""
RATE = 100


@pytest.fixture(scope="module")
def paths() -> Iterator[TwoPaths]:
    with Lab() as lab:
        yield two_paths(lab)


@pytest.fixture(autouse=True)
def calm(paths: TwoPaths) -> None:
    """Both tunnels healthy at both ends, the primary carries, and nothing of an earlier test waits."""
    for name, peer in paths.peers.items():
        for end in (paths.ours, peer):
            wait_until(lambda name=name, end=end: _healthy(end, name), f"{name} to be healthy")  # type: ignore[misc]  # a default binds the value of this turn
            # The early rekey is an event, and the counters of its new SA begin at 0.
            end.wait_proved(name)
    paths.ours.ctl("switch", "primary", "primary")
    assert paths.carrier() == "primary"


def _healthy(end: Vpnd, name: str) -> bool:
    tunnel = end.tunnel(name)
    health = tunnel["health"]
    return tunnel["state"] == "up" and health["state"] == "healthy" and not health["lossy"]


@contextmanager
def peer_killed(paths: TwoPaths) -> Iterator[None]:
    """The primary's peer dies as if it had lost its power."""
    peer = paths.peers["primary"]
    peer.kill()
    try:
        yield
    finally:
        peer.start()
        # Dead peer detection would find out by itself, in the 30 s that these tests do not have.
        paths.ours.ctl("reset", "primary", check=False)


@contextmanager
def peer_frozen(paths: TwoPaths) -> Iterator[None]:
    """The primary's peer is there and does nothing."""
    peer = paths.peers["primary"].child
    peer.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        peer.signal(signal.SIGCONT)


def failure(paths: TwoPaths, way: str) -> AbstractContextManager[None]:
    """One way in which the primary fails; over at the end of the block."""
    match way:
        case "peer killed":
            return peer_killed(paths)
        case "peer frozen":
            return peer_frozen(paths)
        case "link cut":
            return paths.cut("primary")
        case "ESP is not forwarded":
            return paths.dropping("primary", "ip protocol esp")
        case "ESP there is lost":
            return paths.dropping("primary", "ip protocol esp", way="there")
        case "ESP back is lost":
            return paths.dropping("primary", "ip protocol esp", way="back")
    raise ValueError(way)


@pytest.mark.parametrize(
    "way",
    [
        "peer killed",
        pytest.param("peer frozen", marks=pytest.mark.full_faults),  # silent, as a link that is cut
        "link cut",
        pytest.param("ESP is not forwarded", marks=pytest.mark.full_faults),  # as the next two
        "ESP there is lost",
        "ESP back is lost",
    ],
)
def test_traffic_moves_in_time_and_little_is_lost(paths: TwoPaths, way: str, row: TellRow) -> None:
    before = len(paths.ours.events())
    with Stream(paths, RATE) as stream:
        time.sleep(1.5)
        began = time.monotonic()
        with failure(paths, way):
            wait_until(lambda: paths.carrier() == "secondary", f"traffic to move: {way}")
            took = time.monotonic() - began
            assert paths.ours.tunnel("primary")["carries_traffic"] is False
            assert paths.ours.tunnel("secondary")["carries_traffic"] is True
            time.sleep(1)
        moved_for = stream.longest_gap(since=began - 0.1)
    row(
        "failover",
        fault=way,
        interval=f"{CHECK.interval_ms / 1000:g} s",
        bound=f"{BOUND:g} s",
        moved=f"{took:.1f} s, stream still for {moved_for:.1f} s",
        lost=f"{stream.lost} of {len(stream.sent)}, {RATE}/s",
    )
    require_moved_by_health(paths.ours.events()[before:])


def require_moved_by_health(events: list[dict[str, Any]]) -> None:
    """The first verdict moved the traffic, once; the 30 s of dead peer detection had no part in it."""
    told = [(event["tunnel"], event["event"]) for event in events]
    moved = told.index(("secondary", "carries-traffic"))
    failed = told.index(("primary", "health-failed"))
    assert failed < moved
    assert f"{CHECK.failures} probes in a row were not answered" in events[failed]["text"]
    assert told[:moved].count(("primary", "health-failed")) == 1
    assert [event["code"] for event in events[:moved] if event["code"] == "E-DPD"] == []


def test_business_traffic_is_interrupted_while_the_probes_go_on(paths: TwoPaths) -> None:
    # Nothing takes over: the secondary is down too.
    paths.ours.ctl("down", "secondary")
    try:
        with paths.dropping("primary", "ip protocol esp", way="back"):
            paths.ours.wait_state("primary", "unhealthy")
            before = paths.ours.tunnel("primary")
            with Stream(paths, RATE) as stream:
                time.sleep(2)
            after = paths.ours.tunnel("primary")
        assert not stream.arrived
        assert after["health"]["sent"] > before["health"]["sent"]
        assert after["carries_traffic"] is False
        assert after["drops"]["policy"] - before["drops"]["policy"] >= RATE
        for end in (paths.ours, paths.peers["primary"]):
            end.wait_state("primary", "up")
        with Stream(paths, RATE) as stream:
            time.sleep(0.5)
        assert stream.lost == 0
    finally:
        paths.ours.ctl("up", "secondary")


def test_an_operator_moves_the_traffic_and_back_without_loss(paths: TwoPaths) -> None:
    with Stream(paths, RATE) as stream:
        time.sleep(0.3)
        done = paths.ours.ctl("switch", "primary", "secondary")
        assert "10.2.0.0/24 is carried by secondary" in done.stdout
        assert "by hand" in done.stdout
        assert paths.carrier() == "secondary"
        time.sleep(0.5)
        paths.ours.ctl("switch", "10.2.0.0/24")
        assert paths.carrier() == "primary"
        time.sleep(0.5)
    assert stream.lost == 0


def test_a_switch_to_what_is_not_there_is_refused(paths: TwoPaths) -> None:
    for arguments, said in (
        (("primary", "nobody"), "nobody is not one of the group primary: primary, secondary"),
        (("nothing", "primary"), "neither a tunnel nor a route is called 'nothing'"),
        (("nothing",), "neither a tunnel nor a route is called 'nothing'"),
    ):
        done = paths.ours.ctl("switch", *arguments, check=False)
        assert done.returncode == 2
        assert said in done.stderr
        assert paths.carrier() == "primary"


def test_a_switch_to_a_tunnel_that_is_down_is_refused(paths: TwoPaths) -> None:
    paths.ours.ctl("down", "secondary")
    try:
        done = paths.ours.ctl("switch", "primary", "secondary", check=False)
        assert done.returncode == 1
        assert "down" in done.stderr
        assert paths.carrier() == "primary"
    finally:
        paths.ours.ctl("up", "secondary")


def test_what_comes_back_may_take_the_other_tunnel(paths: TwoPaths) -> None:
    # host-b answers through b1, the primary's peer, whichever way the question came.
    paths.ours.ctl("switch", "primary", "secondary")
    done = paths.host_a.run("ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", THERE["primary"].inside)
    assert "3 received" in done.stdout
    secondary = paths.ours.tunnel("secondary")["mappings"][0]
    assert secondary["packets_out"] >= 3


@pytest.mark.parametrize("end", ["ours", "theirs"])
def test_each_end_answers_the_other_end_s_pings_to_its_health_check_address(
    paths: TwoPaths, end: str
) -> None:
    asks = paths.a if end == "theirs" else paths.peers["secondary"].namespace
    address = CHECKS["secondary"].remote if end == "theirs" else CHECKS["secondary"].local
    try:
        asks.run("ping", "-n", "-c", "2", "-i", "0.1", "-W", "2", address)
    except CommandFailed as failed:
        pytest.fail(str(failed))


def test_30_percent_loss_moves_the_traffic_to_the_tunnel_that_loses_less(
    paths: TwoPaths, row: TellRow
) -> None:
    with paths.dropping("primary", "ip protocol esp numgen random mod 100 < 30", way="there"):
        began = time.monotonic()
        wait_until(lambda: paths.carrier() == "secondary", "traffic to leave the lossy primary", 120)
        # 30 % is told from 20 % by hundreds of echo requests: chance decides whether it is within the bound.
        row(
            "failover",
            fault="30 % loss",
            interval=f"{CHECK.interval_ms / 1000:g} s",
            bound=f"{BOUND:g} s",
            moved=f"{time.monotonic() - began:.1f} s",
            lost="30 % meanwhile",
        )
        # Chance may also have lost three probes in a row, of three echo requests each, before that is sure.
        wait_until(lambda: paths.ours.tunnel("primary")["health"]["lossy"] is True, "the loss to be seen")
        primary = paths.ours.tunnel("primary")
        assert primary["mappings"][0]["state"] == "up"
        assert primary["health"]["loss_percent"] > 0
    wait_until(lambda: not paths.ours.tunnel("primary")["health"]["lossy"], "the loss to be over")


def test_20_percent_loss_does_not_move_the_traffic(paths: TwoPaths, row: TellRow) -> None:
    before_it = len(paths.ours.events())

    def lost() -> int:
        count: int = paths.ours.tunnel("primary")["health"]["lost"]
        return count

    before = lost()
    with paths.dropping("primary", "ip protocol esp numgen random mod 100 < 20", way="there"):
        # The closer look that follows the first loss tells.
        wait_until(lambda: lost() > before, "a loss", 200)
        for _ in range(120):
            assert paths.carrier() == "primary"
            time.sleep(0.1)
    kinds = {event["event"] for event in paths.ours.events()[before_it:]}
    assert not kinds & {"loss-high", "health-failed", "tunnel-unhealthy", "carries-traffic", "tunnel-lost"}
    interval = f"{CHECK.interval_ms / 1000:g} s"
    row("failover", fault="20 % loss", interval=interval, bound="never", moved="not in 12 s", lost="20 %")


def test_status_shows_the_check_and_show_its_last_hour(paths: TwoPaths) -> None:
    detail = paths.ours.get("/v1/tunnels/primary")
    health = detail["health"]
    assert health["state"] == "healthy"
    assert health["local"] == CHECK.local
    assert health["remote"] == CHECK.remote
    assert 0 < health["rtt_ms"] < CHECK.timeout_ms
    assert 0 <= health["jitter_ms"] < CHECK.timeout_ms
    minutes = detail["health_history"]
    assert sum(minute["sent"] for minute in minutes) == health["sent"]
    assert sum(minute["lost"] for minute in minutes) == health["lost"]
    assert "last hour" in paths.ours.ctl("show", "primary").stdout
