"""No leak: protected traffic at 5,000 packets a second through everything that can happen to a gateway.

    host-a --- a ======= b --- host-b        the wire between a and b is watched all the time

`a` has a default route to `b`, so that a packet which a tunnel does not take would travel in clear, and
arrive. On a hostile network there are besides routes that are more specific than what the tunnel protects, as
an attacker who answers DHCP requests could set them (CVE-2024-3661).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.lab.lab import Lab, Namespace, write
from tests.lab.leaks import Rig, Seen, count_packets, counted
from tests.lab.plan import A, B, Plan
from tests.lab.process import PATIENCE, wait_until
from tests.lab.topology import Wire, two_sites
from tests.lab.traffic import ping
from tests.lab.two_paths import THERE, plan_of, two_paths
from tests.lab.vpnd import PROGRAM, PROGRAMS, Vpnd, tunnel_toml
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow]

RATE = 5000
SMALL = 600
"""KB: about a second of this traffic."""
A_WHILE = 0.4
"""Seconds of traffic before and after what happens."""
INSIDE_V6 = ("fd01::/64", "fd02::/64")

HOSTILE = ("10.2.0.0/25", "10.2.0.2/32", "10.2.0.0/24", "0.0.0.0/1")
HOSTILE_V6 = ("fd02::/65", "fd02::2/128", "fd02::/64", "8000::/1")


@dataclass
class Life:
    """A gateway, its peer, the traffic, and what has been seen so far."""

    wire: Wire
    ours: Vpnd
    theirs: Vpnd
    rig: Rig
    plan: Plan
    tell: Callable[[str, Seen], None]
    network: str = "calm"

    @contextmanager
    def row(self, event: str) -> Iterator[None]:
        """What happens in the block is one line of the table."""
        before = self.rig.seen()
        yield
        time.sleep(A_WHILE)
        self.tell(event, self.rig.seen().since(before))

    def configure(self, plan: Plan, *, psk: str | None = None) -> None:
        """Write `plan` for our end and reload; `psk` stands for the right one."""
        configure(self.ours, plan.change(psk=psk) if psk else plan)
        self.ours.ctl("reload")

    def up(self, timeout: float = PATIENCE) -> None:
        """Wait until every mapping carries traffic."""
        wait_until(lambda: self.mapping_states() == {"up"}, "the tunnel to be up", timeout)

    def mapping_states(self) -> set[str]:
        """The states of our mappings."""
        return {mapping["state"] for mapping in self.ours.tunnel(self.plan.name)["mappings"]}


def guard(vpnd: Vpnd, *options: str) -> None:
    """Run `vpnd guard` with the configuration of this vpnd."""
    vpnd.namespace.run(
        str(PROGRAMS / "vpnd"), "guard", "--config", str(vpnd.config),
        "--state", str(vpnd.directory / "state"), *options,
    )  # fmt: skip


def configure(vpnd: Vpnd, plan: Plan) -> Path:
    """Put a tunnel of both families into a file: by routes both at once, by mappings one beside the other."""
    path = vpnd.directory / "tunnels.d" / f"{plan.name}.toml"
    vpnd.write_tunnel(plan, path)
    if not plan.routed:
        local, remote = INSIDE_V6 if plan.local.label == "a" else INSIDE_V6[::-1]
        text = tunnel_toml(plan, f"file:{vpnd.directory / 'psk' / plan.name}")
        text += f'[[tunnels.{plan.name}.spd]]\nlocal = ["{local}"]\nremote = ["{remote}"]\n'
        write(path, text, mode=0o600)
    return path


def plan_with(mode: str, version: str) -> Plan:
    """The tunnel between the two sites."""
    plan = Plan(negotiation="active", version=version, interface="vpn-t", dpd_timeout=30)
    if mode == "mappings":
        return plan
    ends = (replace(end, networks=(*end.networks, v6)) for end, v6 in zip((A, B), INSIDE_V6, strict=True))
    local, remote = ends
    return plan.change(routed=True, local=local, remote=remote)


def add_ways_out(namespace: Namespace, there: str, there6: str, networks: tuple[str, ...]) -> None:
    """Routes to these networks by the gateway outside."""
    for network in networks:
        family, via = ("-6", there6) if ":" in network else ("-4", there)
        namespace.ip(family, "route", "add", network, "via", via)


@pytest.fixture
def wire(lab: Lab) -> Wire:
    wire = two_sites(lab)
    add_ways_out(wire.a.gateway, B.address, "2001:db8::2", ("0.0.0.0/0", "::/0"))
    add_ways_out(wire.b.gateway, A.address, "2001:db8::1", ("0.0.0.0/0", "::/0"))
    return wire


def rig_on(wire: Wire) -> Rig:
    ways = ((wire.a.inside, wire.b.inside), (wire.a.inside6, wire.b.inside6))
    return Rig(wire.a.host, wire.b.host, (wire.b.gateway, "eth0"), ways, RATE)


def test_the_onlooker_sees_a_leak(wire: Wire) -> None:
    rig = rig_on(wire)
    with rig.running():
        time.sleep(A_WHILE)
    seen = rig.seen()
    assert seen.clear > 0.8 * seen.sent
    assert seen.delivered > 0.8 * seen.sent
    assert rig.outside.dropped == 0


SHORT = [("routes", "ikev2"), ("mappings", "ikev1")]
FULL = [(mode, version) for mode in ("routes", "mappings") for version in ("ikev2", "ikev1")]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = metafunc.config.getoption("--full-faults")
    if "mode" in metafunc.fixturenames:
        lives = FULL if full else SHORT
        metafunc.parametrize(("mode", "version"), lives, ids=["-".join(life) for life in lives])
    if "how" in metafunc.fixturenames:
        metafunc.parametrize("how", ["mappings", "routes"] if full else ["routes"])
    if "routes" in metafunc.fixturenames:
        metafunc.parametrize("routes", ["10.2.0.0/24", "0.0.0.0/0"] if full else ["0.0.0.0/0"])


def test_nothing_leaks(
    wire: Wire, mode: str, version: str, row: TellRow, request: pytest.FixtureRequest
) -> None:
    leaked: dict[str, Seen] = {}
    life = begin(wire, mode, version, row, leaked)
    full = request.config.getoption("--full-faults")
    with life.rig.running():
        if full:
            life_of_a_gateway(life)
            life.network = "calm"
            faults(life)
            long_life(life)
            assert life.ours.stop() == 0
        life.network = "hostile"
        add_ways_out(life.wire.a.gateway, B.address, "2001:db8::2", (*HOSTILE, *HOSTILE_V6))
        if full or mode == "routes":
            life_of_a_gateway(life)
        else:
            start(life)
        faults(life)
    assert leaked == {}, [frame.hex() for frame in life.rig.outside.examples]
    assert life.rig.outside.dropped == 0


def begin(wire: Wire, mode: str, version: str, row: TellRow, leaked: dict[str, Seen]) -> Life:
    """Both gateways configured, the peer running, ours not, and the guard set."""
    plan = plan_with(mode, version)
    theirs = Vpnd(wire.b.gateway, B.address, running=False)
    ours = Vpnd(wire.a.gateway, A.address, PROGRAM, running=False)  # what leaks while it starts counts
    configure(theirs, plan.other().change(negotiation="passive"))
    configure(ours, plan)
    theirs.start()

    def tell(event: str, seen: Seen) -> None:
        row(
            "leaks",
            event=event,
            network=life.network,
            mode=f"{mode} {version}",
            sent=seen.sent,
            esp=seen.esp,
            **{"in clear outside": seen.clear},
            delivered=seen.delivered,
        )
        if seen.clear:
            leaked[f"{event}, {life.network}"] = seen

    life = Life(wire, ours, theirs, rig_on(wire), plan, tell)
    guard(ours)
    return life


def start(life: Life) -> None:
    """From the guard alone to a tunnel that carries."""
    with life.row("starts"):
        time.sleep(A_WHILE)
        life.ours.start()
        life.up()


def life_of_a_gateway(life: Life) -> None:
    """What an operator does."""
    ours, name = life.ours, life.plan.name
    start(life)
    with life.row("rekeys"):
        ours.ctl("rekey", name, "--ike", "--child", "--timeout", "60")
    with life.row("reloads, with another route or mapping, and back"):
        remote = life.plan.remote
        life.configure(life.plan.change(remote=replace(remote, networks=(*remote.networks, "10.77.0.0/16"))))
        life.configure(life.plan)
        life.up()
    with life.row("stops (SIGTERM), and starts"):
        assert ours.stop() == 0
        time.sleep(A_WHILE)
        ours.start()
        life.up()


def faults(life: Life) -> None:
    """What operators do not do."""
    ours = life.ours
    with life.row("carries"):
        before = life.rig.seen()
        time.sleep(A_WHILE)
        assert life.rig.seen().since(before).delivered > 0
    with life.row("killed (-9), and starts"):
        ours.kill()
        time.sleep(A_WHILE)
        ours.start()
        life.up()
    with life.row("interface deleted"):
        index = interface_index(life)
        ours.namespace.ip("link", "delete", life.plan.interface)
        wait_until(lambda: interface_index(life) not in (index, ""), "the interface to be back")
        life.up()
    with life.row("wrong key"):
        life.configure(life.plan, psk="a key that the peer does not have, 32 and more")
        ours.ctl("reset", life.plan.name, check=False)
        wait_until(lambda: ours.tunnel(life.plan.name)["last_error"] is not None, "the refusal")
    with life.row("hard lifetime in KB, the rekey is not answered"):
        life.configure(life.plan.change(lifetime_kb=SMALL))
        reach_the_hard_lifetime(life)


def interface_index(life: Life) -> str:
    """The index of the tunnel's interface, or nothing."""
    found = life.ours.namespace.ip("-o", "link", "show", life.plan.interface, check=False).stdout
    return found.partition(":")[0]


def reach_the_hard_lifetime(life: Life) -> None:
    """The SAs carry what they may, and the peer hears no IKE from then on."""
    peer = life.wire.b.gateway
    life.up()
    peer.run("nft", "add table inet deaf")
    try:
        peer.run("nft", "add chain inet deaf input { type filter hook input priority 0 ; }")
        peer.run("nft", "add rule inet deaf input udp dport 500 drop")
        peer.run("nft", "add rule inet deaf input udp dport 4500 @th,64,32 0 drop")
        wait_until(lambda: "up" not in life.mapping_states(), "the hard lifetime", 60)
    finally:
        peer.run("nft", "delete table inet deaf")


def long_life(life: Life) -> None:
    """More of what an operator does, and what takes the least time that the configuration gives it."""
    ours, name = life.ours, life.plan.name
    life.configure(life.plan)
    life.up()
    with life.row("is reset"):
        ours.ctl("reset", name)
        life.up()
    with life.row("down, and up"):
        ours.ctl("down", name)
        ours.ctl("up", name)
    with life.row("hard lifetime of 10 s, the rekey is not answered"):
        life.configure(life.plan.change(lifetime=10))
        ours.ctl("reset", name)  # the lifetime is the next SA's
        reach_the_hard_lifetime(life)
    with life.row("peer killed, found by DPD, and back"):
        life.configure(life.plan)
        life.up()
        life.theirs.kill()
        wait_until(lambda: "up" not in life.mapping_states(), "dead peer detection", 60)
        life.theirs.start()
        life.ours.ctl("reset", life.plan.name)
        life.up()


def test_inner_packets_that_arrive_in_clear_are_not_delivered(wire: Wire, row: TellRow, how: str) -> None:
    plan = plan_with(how, "ikev2")
    ours = Vpnd(wire.a.gateway, A.address, running=False)
    configure(ours, plan)
    a, b = wire.a, wire.b
    # To the host behind the gateway, and to an inner address of the gateway itself.
    targets = [(b.inside, a.inside), (b.inside, A.inside), (b.inside6, a.inside6), (b.inside6, "fd01::1")]
    sender = b.host.spawn(
        sys.executable, "-m", "tests.lab.leaks", str(RATE), *(text for way in targets for text in way),
        log="spoofing.log",
    )  # fmt: skip
    for namespace, hook in ((b.host, "output"), (a.host, "input"), (a.gateway, "input")):
        count_packets(namespace, hook)

    def delivered(event: str) -> tuple[int, int]:
        places = (b.host, a.host, a.gateway)
        before = [counted(place) for place in places]
        wait_until(lambda: counted(b.host) > before[0] + A_WHILE * RATE, "packets to be sent")
        sent, host, gateway = (counted(place) - was for place, was in zip(places, before, strict=True))
        row(
            "arriving in clear",
            event=event,
            mode=how,
            sent=sent,
            **{"to the host": host, "to the gateway": gateway},
        )
        return host, gateway

    assert min(delivered("nothing protects")) > 0
    guard(ours)
    assert delivered("the guard alone") == (0, 0)
    ours.start()
    assert delivered("the daemon runs") == (0, 0)
    ours.kill()
    assert delivered("the daemon is killed") == (0, 0)
    guard(ours, "--remove")
    assert min(delivered("the guard is removed")) > 0
    sender.stop()


def test_a_firewall_that_is_loaded_again_does_not_take_the_filter_away(
    wire: Wire, request: pytest.FixtureRequest
) -> None:
    if not request.config.getoption("--full-faults"):
        pytest.skip("takes the 5 s between two looks at the filters: --full-faults")
    ours = Vpnd(wire.a.gateway, A.address, running=False)
    configure(ours, plan_with("routes", "ikev2"))
    ours.start()

    def there() -> bool:
        return "vpnd" in ours.namespace.run("nft", "list", "tables").stdout

    wait_until(there, "the filter")
    ours.namespace.run("nft", "flush", "ruleset")
    assert not there()
    wait_until(there, "the filter to be back")


OUTSIDE_GATEWAY = "192.0.2.254"
EVERYTHING = ("0.0.0.0/0",)


def test_nothing_leaks_while_traffic_moves(lab: Lab, row: TellRow, routes: str) -> None:
    paths = two_paths(lab)
    ours = paths.ours
    if routes in EVERYTHING:
        # Both peers are reached through a gateway, that is by a route which is less specific than none.
        ours.configure(
            *(plan_of(name).change(remote=replace(THERE[name], networks=EVERYTHING)) for name in THERE)
        )
        ours.ctl("reload")
    add_ways_out(paths.a, OUTSIDE_GATEWAY, "", ("10.2.0.0/25", "10.2.0.2/32", "10.2.0.0/24", "0.0.0.0/1"))
    rig = Rig(paths.host_a, paths.host_b, (paths.net, "eth0"), (("10.1.0.2", "10.2.0.2"),), RATE)
    leaked: dict[str, Seen] = {}

    @contextmanager
    def told(event: str) -> Iterator[None]:
        before = rig.seen()
        yield
        time.sleep(A_WHILE)
        seen = rig.seen().since(before)
        row(
            "leaks",
            event=event,
            network="hostile",
            mode=f"routes {routes}",
            sent=seen.sent,
            esp=seen.esp,
            **{"in clear outside": seen.clear},
            delivered=seen.delivered,
        )
        if seen.clear:
            leaked[event] = seen

    def moved_to(name: str) -> None:
        wait_until(lambda: paths.carrier() == name, f"traffic to move to {name}")

    with rig.running():
        with told("carries"):
            assert paths.carrier() == "primary"
        with told("switched by hand"):
            ours.ctl("switch", "primary", "secondary")
            moved_to("secondary")
        with told("switched back"):
            ours.ctl("switch", "primary")
            moved_to("primary")
        with told("failover: the link is cut"), paths.cut("primary"):
            moved_to("secondary")
        assert rig.seen().delivered > 0
    assert leaked == {}, [frame.hex() for frame in rig.outside.examples]
    assert rig.outside.dropped == 0
    wait_until(lambda: ours.tunnel("secondary")["health"]["state"] == "healthy", "a healthy secondary")
    # What is not to be protected goes on: the network outside to which the gateway belongs, and its LAN.
    for own, target in (("192.0.2.1", OUTSIDE_GATEWAY), ("10.1.0.1", "10.1.0.2")):
        assert ping(paths.a, own, target).received > 0, target
    # host-b answers through b1: both ends of the primary must have recovered from the cut.
    for end in (paths.peers["primary"], ours):
        end.wait_state("primary", "up")
    assert ping(paths.host_a, "10.1.0.2", THERE["primary"].inside).received > 0
