"""F6, F8 to F10, F19: the peer restarts, this daemon is killed or ended, an administrator tears things down.

Figures are of wall clock time on a machine that does other things as well, so that none is a bound: the ways
that would come to the rescue later are closed (`NO_DPD`, `without_looks`), or the events tell what decided.
What a program needs to start is counted in its own processor time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from statistics import median

import pytest
from scapy.layers.inet import IP, UDP
from scapy.utils import rdpcap

from tests.faults.conftest import Arena, Arenas
from tests.lab.capture import Capture
from tests.lab.lab import Namespace
from tests.lab.plan import NO_DPD, A, B, End, HealthCheck, Plan
from tests.lab.process import wait_until
from tests.lab.relay import Weather
from tests.lab.traffic import ping, require_ping
from tests.lab.trickle import Trickle
from tests.lab.vpnd import PROGRAM, PROGRAMS, Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow]

ROUTED = Plan(routed=True, dpd_timeout=NO_DPD)
CHECKED = ROUTED.change(health=HealthCheck("169.254.128.1", "169.254.128.2"))
MAPPED = Plan(dpd_timeout=NO_DPD)
FAR = End("c", "192.0.2.3", "192.0.2.3", "10.3.0.1", ("10.3.0.0/24",))
OTHER = Plan(name="t2", interface="vpn-two", remote=FAR, routed=True, negotiation="active")
"""A tunnel to a peer that there is not."""
START_CPU = 10.0
"""Seconds of processor time that a start may take where the processor is slow; the rows have the figures."""
INNER = f"host {B.inside} or host {A.inside}"


@pytest.fixture
def arena(arenas: Arenas) -> Iterator[Arena]:
    """Two vpnd with a wire between them; what a test leaves configured is removed."""
    arena = arenas("vpnd")
    yield arena
    arena.weathered.relay.weather()
    for vpnd in (arena.ours, peer_of(arena)):
        if vpnd.child.exit_code is not None:
            vpnd.start()
        for tunnel in vpnd.get("/v1/status")["tunnels"]:
            vpnd.remove(tunnel["name"])


def peer_of(arena: Arena) -> Vpnd:
    """The other vpnd."""
    assert isinstance(arena.peer, Vpnd)
    return arena.peer


def bring_up(arena: Arena, plan: Plan) -> None:
    """Our end is active, the peer's passive."""
    arena.set_up(plan)
    arena.bring_up(plan)
    peer_of(arena).wait_state(plan.name, "up")


def trickle(arena: Arena, rate: int = 50) -> Trickle:
    """Datagrams from us to the peer."""
    wire = arena.weathered.wire
    return Trickle(wire.a.host, A.inside, wire.b.host, B.inside, rate)


@contextmanager
def nothing_in_clear(arena: Arena) -> Iterator[None]:
    """No inner packet is on the wire outside for the length of the block."""
    with Capture(arena.weathered.relay.namespace, "eth0", INNER) as path:
        yield
    assert packets(arena, path) == ""


def packets(arena: Arena, path: Path) -> str:
    """What a capture holds, as text."""
    return arena.weathered.relay.namespace.run("tcpdump", "-n", "-r", str(path)).stdout


# ---------------------------------------------------------------------------------- the peer


def test_f6_peer_restarts_without_a_word(arena: Arena, row: TellRow) -> None:
    # A passive end begins nothing where it has a doubt: what replaces the old SA comes from the peer.
    passive = ROUTED.change(negotiation="passive")
    arena.ours.add(passive)
    peer = peer_of(arena)
    peer.add(ROUTED.other().change(negotiation="active"))
    arena.ours.wait_state(ROUTED.name, "up")
    (old,) = spis(arena.ours)
    before = len(arena.ours.events(ROUTED.name))
    with trickle(arena) as stream:
        stream.wait_first_after(time.monotonic())
        peer.kill()
        peer.start()
        answers = time.monotonic()
        back = stream.wait_first_after(answers)
        wait_until(lambda: old not in spis(arena.ours), "the old SA to go", interval=0.01)
    outage = stream.longest_gap()
    row(
        "faults", id="F6", fault="peer killed, back, initiates", moment="traffic", target="vpnd-ikev2",
        figure=f"traffic {back:.2f} s after it answers, {outage:.1f} s away, old SA gone",
    )  # fmt: skip
    # INITIAL_CONTACT has replaced the old SA; without it the old one is redundant, and goes later.
    told = arena.ours.told(ROUTED.name, before)
    assert "E-PEER-RESTARTED" in told
    assert "attempt-failed" not in told
    arena.require_one_pair(ROUTED)


def spis(vpnd: Vpnd) -> list[tuple[str, str]]:
    """The SPIs of the IKE SAs."""
    return [(sa["spi_i"], sa["spi_r"]) for sa in vpnd.ike_sas(ROUTED.name)]


@pytest.mark.full_faults
@pytest.mark.parametrize("moment", ["idle", "loaded"])
@pytest.mark.parametrize("action", ["disconnect", "retry"])
@pytest.mark.parametrize("version", ["ikev2", "ikev1"])
def test_f7_peer_is_gone_for_good(version: str, action: str, moment: str, arena: Arena, row: TellRow) -> None:
    plan = ROUTED.change(version=version, dpd_action=action, dpd_timeout=30)
    before = len(arena.ours.events(plan.name))
    bring_up(arena, plan)
    wire = arena.weathered.wire
    with trickle(arena) if moment == "loaded" else nullcontext():
        # The answer is the last that we hear.
        require_ping(wire.a.host, A.inside, B.inside, count=1)
        heard = time.monotonic()
        arena.weathered.relay.weather(Weather(loss=1.0))
        wait_until(lambda: arena.ours.tunnel(plan.name)["state"] != "up", "the peer to be dead", 70, 0.02)
        took = time.monotonic() - heard
    state = arena.ours.tunnel(plan.name)["state"]
    row(
        "faults", id="F7", fault="peer gone for good, T = 30 s", moment=f"{moment}, {action}",
        target=f"vpnd-{version}", figure=f"dead after {took:.2f} s, then {state}",
    )  # fmt: skip
    assert took >= plan.dpd_timeout - 0.2
    assert arena.ours.told(plan.name, before).count("E-DPD") == 1
    assert state == {"disconnect": "waiting", "retry": "connecting"}[action]


@pytest.mark.full_faults
@pytest.mark.parametrize("seconds", [5, 60])
def test_f8_peer_is_back_while_we_wait(seconds: int, arena: Arena, row: TellRow) -> None:
    bring_up(arena, ROUTED)
    peer = peer_of(arena)
    peer.add(ROUTED.other().change(negotiation="active"))
    peer.kill()
    # The address answers with ICMP, so each attempt of ours fails at once and the next waits longer.
    arena.ours.ctl("reset", ROUTED.name, "--timeout", "1", check=False)
    time.sleep(seconds)
    waits, before = retry_in(arena), len(arena.ours.events(ROUTED.name))
    with trickle(arena) as stream:
        peer.start()
        back = stream.wait_first_after(time.monotonic())
    row(
        "faults", id="F8", fault=f"peer dead for {seconds} s",
        moment="while we try" if waits is None else f"our next try in {waits} s",
        target="vpnd-ikev2", figure=f"traffic {back:.2f} s after it answers",
    )  # fmt: skip
    # The peer has begun; what we would have tried in a while was not waited for.
    told = arena.ours.told(ROUTED.name, before)
    assert waits is None or "attempt-failed" not in told
    assert retry_in(arena) is None
    arena.require_one_pair(ROUTED)


def retry_in(arena: Arena) -> int | None:
    """Seconds until our next attempt, as an operator sees it."""
    waits: int | None = arena.ours.call("GET", f"/v1/tunnels/{ROUTED.name}")["retry_in_s"]
    return waits


# ---------------------------------------------------------------------------------- this daemon

MOMENTS = ("established", "rekeying", "connecting")


@pytest.mark.parametrize(
    "plan", [MAPPED, pytest.param(ROUTED, marks=pytest.mark.full_faults)], ids=["spd", "route"]
)
def test_f9_killed_and_started_again(plan: Plan, arena: Arena, full: bool, row: TellRow) -> None:
    bring_up(arena, plan)
    gateway = arena.weathered.wire.a.gateway
    standing = standing_in(gateway)
    # What keeps the traffic in while no daemon is there; a comparison alone would not miss it.
    assert [line for line in standing["routes"] if line.startswith("blackhole")], standing["routes"]
    services, processor, returns = [], [], []
    kills = 50 if full else 3
    with arena.ours.starts_as(PROGRAM), nothing_in_clear(arena), trickle(arena) as stream:
        for number in range(kills):
            at_moment(arena, plan, MOMENTS[number % 3], number)
            peer_told = len(peer_of(arena).events(plan.name))
            arena.ours.kill()
            arena.weathered.relay.weather()
            leave_behind(gateway)
            killed = time.monotonic()
            arena.ours.start()
            services.append(time.monotonic() - killed)
            processor.append(arena.ours.cpu_seconds())
            returns.append(stream.wait_first_after(killed))
            arena.ours.wait_state(plan.name, "up")
            # At once, and by the first attempt.
            assert arena.ours.told(plan.name)[:2] == ["tunnel-connecting", "tunnel-up"]
            if MOMENTS[number % 3] != "connecting":
                # INITIAL_CONTACT has taken the peer's old SA away, not the rule for redundant ones, later.
                assert "E-PEER-RESTARTED" in peer_of(arena).told(plan.name, peer_told)
            require_standing(gateway, standing, f"after {number + 1} kills")
    row(
        "faults", id="F9", fault=f"kill -9, {kills} times", moment=" / ".join(MOMENTS),
        target="spd" if plan is MAPPED else "route",
        figure=f"service {median(services):.1f} s, at worst {max(services):.1f} (CPU {max(processor):.1f}), "
        f"traffic {median(returns):.1f} s, at worst {max(returns):.1f}, 0 in clear, nothing twice",
    )  # fmt: skip
    assert max(processor) <= START_CPU
    arena.require_one_pair(plan)


def standing_in(gateway: Namespace) -> dict[str, list[str]]:
    """All that vpnd has made in a namespace, each line as often as it is there."""
    tables = gateway.run("nft", "-s", "list", "ruleset").stdout.splitlines()
    return {**gateway.left_behind(), "nft": tables}


def require_standing(gateway: Namespace, standing: dict[str, list[str]], when: str) -> None:
    """Soon there is in a namespace what was before, each line as often."""
    with suppress(TimeoutError):
        wait_until(lambda: standing_in(gateway) == standing, when, interval=0.1)
    assert standing_in(gateway) == standing, when


def leave_behind(gateway: Namespace) -> None:
    """What a daemon of another configuration would have left: it is nobody's now."""
    for family, network in (("-4", "10.99.0.0/16"), ("-6", "fd99::/64")):
        gateway.ip(
            family, "rule", "add", "to", network, "table", "7099", "priority", "7000", "protocol", "86"
        )
        gateway.ip(family, "route", "add", "blackhole", network, "table", "7099", "protocol", "86")


def at_moment(arena: Arena, plan: Plan, moment: str, seed: int) -> None:
    """Bring the daemon to where it is to be killed."""
    if moment == "rekeying":
        # The answer never comes, so that the kill falls into the exchange.
        arena.weathered.relay.weather(Weather(), Weather(loss=1.0, kinds=("ike",)), seed=seed)
        arena.ours.namespace.spawn(
            str(PROGRAMS / "vpnctl"), "--socket", str(arena.ours.socket), "rekey", plan.name,
            log=f"rekey-{seed}.log",
        )  # fmt: skip
        wait_until(lambda: len(arena.weathered.relay.decisions()) > 0, "the rekey to begin")
    elif moment == "connecting":
        arena.weathered.relay.weather(Weather(), Weather(loss=1.0, kinds=("ike",)), seed=seed)
        arena.ours.ctl("reset", plan.name, "--timeout", "1", check=False)
        arena.ours.wait_state(plan.name, "connecting")


@pytest.mark.parametrize(
    "heard",
    [
        pytest.param(True, id="peer-answers", marks=pytest.mark.full_faults),
        pytest.param(False, id="peer-is-silent"),
    ],
)
def test_f10_sigterm_leaves_only_the_guard_and_the_guard_can_go(
    heard: bool, arena: Arena, row: TellRow
) -> None:
    bring_up(arena, MAPPED)
    arena.ours.add(OTHER)
    gateway = arena.weathered.wire.a.gateway
    if not heard:
        arena.weathered.relay.weather(Weather(loss=1.0, kinds=("ike",)))
    with nothing_in_clear(arena), trickle(arena):
        began = time.monotonic()
        # Did it wait for the silent peer as long as it repeats a message, it would have to be killed.
        assert arena.ours.stop() == 0
        took = time.monotonic() - began
        left = gateway.left_behind()
        time.sleep(0.2)
    row(
        "faults", id="F10", fault="SIGTERM", moment=f"traffic, peer {'answers' if heard else 'silent'}",
        target="vpnd-ikev2", figure=f"ended in {took:.1f} s, only the guard left, 0 in clear",
    )  # fmt: skip
    assert left["interfaces"] == []
    assert left["routes"]
    assert [line for line in left["routes"] if line.split()[0] not in ("blackhole", "throw")] == []
    assert len([line for line in left["rules"] if line.startswith("7000:")]) == 1
    assert not arena.ours.socket.exists()
    if heard:
        assert peer_of(arena).agreed(MAPPED.name) == []
    gateway.run(str(PROGRAMS / "vpnd"), "guard", "--remove")
    assert not any(standing_in(gateway).values())


def test_f10_reload_of_another_tunnel_touches_nothing(arena: Arena, row: TellRow) -> None:
    bring_up(arena, MAPPED)
    gateway = arena.weathered.wire.a.gateway
    before = arena.steady(MAPPED)
    esp = Capture(gateway, "eth0", f"udp port 4500 and src {A.address}")
    with esp as path, trickle(arena, 200) as stream:
        stream.wait_first_after(time.monotonic())
        arena.ours.configure(OTHER)
        added = arena.ours.call("POST", "/v1/reload")
        arena.ours.configure(OTHER.change(dpd_timeout=45))
        changed = arena.ours.call("POST", "/v1/reload")
        (arena.ours.directory / "tunnels.d" / f"{OTHER.name}.toml").unlink()
        removed = arena.ours.call("POST", "/v1/reload")
    sent = sequence(path)
    row(
        "faults", id="F10", fault="three reloads of another tunnel", moment="traffic", target="vpnd-ikev2",
        figure=f"{stream.lost} of {len(stream.sent)} lost, {len(sent)} sequence numbers without a gap",
    )  # fmt: skip
    assert (added["added"], changed["changed"], removed["removed"]) == ([OTHER.name],) * 3
    assert stream.lost == 0
    assert arena.ours.agreed(MAPPED.name) == before
    assert {spi for spi, _ in sent} == {before[0].spi_out}
    assert [number for _, number in sent] == list(range(sent[0][1], sent[0][1] + len(sent)))


def sequence(path: Path) -> list[tuple[int, int]]:
    """SPI and sequence number of each ESP packet in UDP of a capture."""
    payloads = (bytes(frame[UDP].payload) for frame in rdpcap(str(path)) if IP in frame and UDP in frame)
    esp = (payload for payload in payloads if len(payload) > 8 and payload[:4] != bytes(4))
    return [(int.from_bytes(one[:4], "big"), int.from_bytes(one[4:8], "big")) for one in esp]


# ------------------------------------------------------------------------------ the administrator

WRECKS = {
    "routes flushed": ("route", "flush", "table", "all", "proto", "86"),
    "TUN set down": ("link", "set", CHECKED.interface, "down"),
    "address removed": ("address", "flush", "dev", CHECKED.interface),
    "TUN deleted": ("link", "delete", CHECKED.interface),
}


@contextmanager
def without_looks(arena: Arena) -> Iterator[None]:
    """Our daemon hears of a change from the kernel, or never: it does not look by itself."""
    command = (sys.executable, "-m", "tests.faults.unwatchful", "run")
    with arena.ours.started_with(command):
        yield


def wait_healthy(arena: Arena) -> None:
    """Neither end interrupts the traffic: the peer also finds the tunnel sick while ours is not there."""
    for vpnd in (arena.ours, peer_of(arena)):
        vpnd.wait_state(CHECKED.name, "up")


def test_f19_what_an_administrator_removes_comes_back(arena: Arena, row: TellRow) -> None:
    with without_looks(arena):
        wreck(arena, row)


def wreck(arena: Arena, row: TellRow) -> None:
    """Each of them, one after the other."""
    bring_up(arena, CHECKED)
    gateway = arena.weathered.wire.a.gateway
    health = CHECKED.health
    assert health is not None
    for what, command in WRECKS.items():
        wait_healthy(arena)
        with trickle(arena) as stream:
            stream.wait_first_after(time.monotonic())
            used, began = arena.ours.cpu_seconds(), time.monotonic()
            gateway.ip(*command)
            wrecked = time.monotonic()
            wait_until(lambda: health.local in gateway.ip("address").stdout, f"the address: {what}")
            address = time.monotonic() - wrecked
            stream.wait_first_after(wrecked)
            time.sleep(max(0.0, 2 - (time.monotonic() - began)))
            used, spent = arena.ours.cpu_seconds() - used, time.monotonic() - began
        traffic = stream.longest_gap()
        row(
            "faults", id="F19", fault=what, moment="traffic", target="vpnd-ikev2",
            figure=f"traffic away {traffic:.2f} s, address {address:.2f} s, CPU {100 * used / spent:.0f} %",
        )  # fmt: skip
        assert used / spent < 0.5
    wait_healthy(arena)
    require_ping(arena.weathered.wire.a.host, A.inside, B.inside)
    assert ping(gateway, health.local, health.remote, count=1).received == 1


def test_f19_rules_that_an_administrator_removes_come_back(arena: Arena, row: TellRow) -> None:
    gateway = arena.weathered.wire.a.gateway
    with without_looks(arena):
        bring_up(arena, MAPPED)
        standing = gateway.left_behind()
        took = delete_rule(arena, standing)
    row(
        "faults", id="F19", fault="rule deleted", moment="traffic", target="vpnd-ikev2",
        figure=f"back after {took:.2f} s",
    )  # fmt: skip


def delete_rule(arena: Arena, standing: dict[str, list[str]]) -> float:
    """Seconds until it is back."""
    gateway = arena.weathered.wire.a.gateway
    with trickle(arena) as stream:
        stream.wait_first_after(time.monotonic())
        gateway.ip("rule", "delete", "priority", "7000")
        wrecked = time.monotonic()
        wait_until(lambda: gateway.left_behind() == standing, "the rule to be back")
        took = time.monotonic() - wrecked
        stream.wait_first_after(time.monotonic())
    return took
