"""The mistakes that people make, with a real strongSwan: each is named, and the change that is named helps.

`make test` plays one of them, `make faults` all. The numbers are those of the list that it was made from. A
row prints the code that `vpnctl why` gives, what it says to change, and the seconds until it did; then that
change is made, and packets pass.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.faults import clocks
from tests.lab.lab import Lab, Namespace, write
from tests.lab.plan import PSK, A, B, HealthCheck, Plan, Suite
from tests.lab.process import Child, wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import Wire, two_sites
from tests.lab.traffic import ping, transfer
from tests.lab.vpnd import PROGRAM, Vpnd, tunnel_toml
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

TABLE = "mistakes with strongSwan"
ASKED = 90.0
"""Seconds in which two attempts have failed and the peer was asked, on a slow machine."""
YEAR = 365.25 * 86400
"""Seconds."""


@dataclass
class Scene:
    """Two sites, a host behind each; vpnd at a, strongSwan at b; one tunnel at a time."""

    wire: Wire
    vpnd: Vpnd
    peer: StrongSwan
    flows: list[Child] = field(default_factory=list)

    def begin(self, ours: Plan, theirs: Plan, we_begin: bool = True) -> None:
        """Both ends configured; one of them begins."""
        self.peer.replace(theirs)
        self.vpnd.add(ours.change(negotiation="active" if we_begin else "passive"))
        if not we_begin:
            self.peer.up(theirs.name, 3)

    def here(self, ours: Plan, we_begin: bool = True) -> None:
        """Our end is changed."""
        self.vpnd.add(ours.change(negotiation="active" if we_begin else "passive"))

    def there(self, theirs: Plan, begins: bool = False) -> None:
        """The peer's end is changed."""
        self.peer.replace(theirs)
        if begins:
            self.peer.up(theirs.name, 3)
        else:
            self.vpnd.up("t1", 1)

    def file(self, plan: Plan, key: str) -> int:
        """The tunnel stands in a file, with this text in the file of its key; what a reload answers."""
        path = self.vpnd.directory / "tunnels.d" / "t1.toml"
        self.vpnd.write_tunnel(plan.change(negotiation="active"), path)
        write(self.vpnd.directory / "psk" / "t1", key, mode=0o600)
        status, _ = self.vpnd.post("/v1/reload")
        return status

    def traffic(self, source: Namespace, local: str, remote: str, *more: str) -> None:
        """Packets, several a second, until the row is over."""
        command = ("ping", "-n", "-i", "0.3", *more, "-I", local, remote)
        self.flows.append(source.spawn(*command, log=f"ping-{len(self.flows)}-{time.monotonic_ns()}"))

    def up(self) -> None:
        """The tunnel is up, and packets pass."""
        self.vpnd.wait_state("t1", "up")
        site_a, site_b = self.wire.a, self.wire.b

        def passes() -> bool:
            return ping(site_a.host, site_a.inside, site_b.inside, count=1, patience=1).received == 1

        wait_until(passes, "packets to pass", interval=0.2)

    def clear(self) -> None:
        """As it was before the row."""
        for flow in self.flows:
            flow.stop()
        self.flows.clear()
        path = self.vpnd.directory / "tunnels.d" / "t1.toml"
        if path.exists():
            path.unlink()
            self.vpnd.post("/v1/reload")
        elif any(one["name"] == "t1" for one in self.vpnd.get("/v1/status")["tunnels"]):
            self.vpnd.remove("t1")
        self.peer.terminate_all()
        self.peer.replace()


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with Lab() as lab:
        wire = two_sites(lab)
        yield Scene(wire, Vpnd(wire.a.gateway, A.address), StrongSwan(wire.b.gateway))


Play = Callable[[Scene], Iterator[None]]


@dataclass(frozen=True)
class Mistake:
    """`play` makes it and pauses; then the change is made. `says` are words that `why` must have then."""

    number: int
    what: str
    codes: tuple[str, ...]
    play: Play
    says: tuple[str, ...] = ()
    quick: bool = False
    """Whether it is one of the few that `make test` plays."""


RIGHT = Plan()
OTHER_ID = "other.vpn.example"


def our(change: Callable[[Plan], Plan], we_begin: bool = True) -> Play:
    """A mistake in our configuration, which is mended here."""

    def play(scene: Scene) -> Iterator[None]:
        scene.begin(change(RIGHT), RIGHT.other(), we_begin)
        yield
        scene.here(RIGHT, we_begin)
        if not we_begin:
            scene.peer.up(RIGHT.name, 10)

    return play


def their(change: Callable[[Plan], Plan], base: Plan = RIGHT, we_begin: bool = True) -> Play:
    """A mistake of the peer's configuration, which is mended there."""

    def play(scene: Scene) -> Iterator[None]:
        scene.begin(base, change(base.other()), we_begin)
        yield
        scene.there(base.other(), begins=not we_begin)

    return play


def differs(**values: Any) -> Callable[[Plan], Plan]:
    return lambda plan: plan.change(**values)


def identity(end: str, word: str) -> Callable[[Plan], Plan]:
    return lambda plan: plan.change(**{end: replace(getattr(plan, end), identity=word)})


def network(end: str, *words: str) -> Callable[[Plan], Plan]:
    return lambda plan: plan.change(**{end: replace(getattr(plan, end), networks=words)})


def key_file(text: str) -> Play:
    """A file of the key that is not the key, written by an editor."""

    def play(scene: Scene) -> Iterator[None]:
        scene.peer.replace(RIGHT.other())
        scene.file(RIGHT, text)
        yield
        scene.file(RIGHT, PSK)

    return play


def swapped(plan: Plan) -> Plan:
    """Local and remote ranges the wrong way round."""
    return network("remote", *A.networks)(network("local", *B.networks)(plan))


@contextmanager
def rule(at: Namespace, hook: str, text: str) -> Iterator[None]:
    """A rule of a firewall."""
    at.run("nft", "add", "table", "inet", "lab")
    at.run("nft", f"add chain inet lab one {{ type filter hook {hook} priority 0 ; }}")
    at.run("nft", f"add rule inet lab one {text}")
    try:
        yield
    finally:
        at.run("nft", "delete", "table", "inet", "lab")


def firewall(hook: str, text: str) -> Play:
    """A firewall at the peer, which is there before the first packet."""

    def play(scene: Scene) -> Iterator[None]:
        with rule(scene.wire.b.gateway, hook, text):
            scene.begin(RIGHT, RIGHT.other())
            yield
        scene.vpnd.up("t1", 1)

    return play


def unanswered(at: Callable[[Wire], Namespace], hook: str, text: str, from_here: bool) -> Play:
    """A firewall that drops inner packets of a tunnel that is up."""

    def play(scene: Scene) -> Iterator[None]:
        scene.begin(RIGHT, RIGHT.other())
        scene.up()
        a, b = scene.wire.a, scene.wire.b
        with rule(at(scene.wire), hook, text):
            if from_here:
                scene.traffic(a.host, a.inside, b.inside)
            else:
                scene.traffic(b.host, b.inside, a.inside)
            yield

    return play


def not_forwarding(scene: Scene) -> Iterator[None]:
    scene.begin(RIGHT, RIGHT.other())
    scene.up()
    scene.wire.a.gateway.sysctl("net.ipv4.ip_forward", "0")
    try:
        scene.traffic(scene.wire.b.host, scene.wire.b.inside, scene.wire.a.inside)
        yield
    finally:
        scene.wire.a.gateway.sysctl("net.ipv4.ip_forward", "1")


def cut_later(scene: Scene) -> Iterator[None]:
    plan = RIGHT.change(dpd_timeout=10)
    scene.begin(plan, plan.other())
    scene.up()
    with rule(scene.wire.b.gateway, "input", "udp dport 4500 drop"):
        scene.traffic(scene.wire.a.host, scene.wire.a.inside, scene.wire.b.inside)
        yield


def narrow_path(scene: Scene) -> Iterator[None]:
    """Large packets are tried, the path turns out to be smaller, and they pass."""
    scene.begin(RIGHT, RIGHT.other())
    scene.up()
    gateways = (scene.wire.a.gateway, scene.wire.b.gateway)
    for gateway in gateways:
        gateway.ip("link", "set", "eth0", "mtu", "1300")
    try:
        scene.traffic(scene.wire.a.host, scene.wire.a.inside, scene.wire.b.inside, "-s", "1350")
        yield
        scene.up()
    finally:
        for gateway in gateways:
            gateway.ip("link", "set", "eth0", "mtu", "1500")


def no_such_name(scene: Scene) -> Iterator[None]:
    scene.peer.replace(RIGHT.other())
    scene.here(RIGHT.change(remote=replace(B, address="nowhere.invalid")))
    yield
    scene.here(RIGHT)


def no_route(scene: Scene) -> Iterator[None]:
    scene.peer.replace(RIGHT.other())
    scene.here(RIGHT.change(remote=replace(B, address="203.0.113.9")))
    yield
    scene.here(RIGHT)


def into_the_tunnel(scene: Scene) -> Iterator[None]:
    """A route by hand, which leads what carries the tunnel into it."""
    route = (f"{B.address}/32", "dev", RIGHT.interface)
    scene.peer.replace(RIGHT.other())
    scene.here(RIGHT, we_begin=False)
    scene.wire.a.gateway.ip("route", "add", *route)
    try:
        scene.here(RIGHT)
        yield
    finally:
        scene.wire.a.gateway.ip("route", "del", *route)


def another_address(scene: Scene) -> Iterator[None]:
    """The peer begins, and not from where it is configured to be."""
    scene.peer.replace(RIGHT.other())
    scene.here(RIGHT.change(remote=replace(B, address="203.0.113.9")), we_begin=False)
    scene.peer.up(RIGHT.name, 3)
    yield
    scene.here(RIGHT, we_begin=False)
    scene.peer.up(RIGHT.name, 10)


def name_taken(scene: Scene) -> Iterator[None]:
    scene.wire.a.gateway.ip("link", "add", RIGHT.interface, "type", "veth", "peer", "name", "taken")
    scene.begin(RIGHT, RIGHT.other())
    yield
    scene.wire.a.gateway.ip("link", "delete", RIGHT.interface)


CHECK = HealthCheck("169.254.128.1", "169.254.128.2")
CHECKED = RIGHT.change(
    health=CHECK,
    local=replace(A, networks=(*A.networks, f"{CHECK.local}/32")),
    remote=replace(B, networks=(*B.networks, f"{CHECK.remote}/32")),
)


def filtered_path(scene: Scene) -> Iterator[None]:
    """What is large vanishes on the way, and nobody says so: the health check finds it."""
    gateways = scene.wire.a.gateway, scene.wire.b.gateway
    scene.wire.b.gateway.add_address(f"{CHECK.remote}/32")
    with ExitStack() as stack:
        for gateway in gateways:
            # On a real path each datagram comes by itself; the rule would see the length of several.
            gateway.ip("link", "set", "eth0", "gso_max_segs", "1")
            stack.callback(gateway.ip, "link", "set", "eth0", "gso_max_segs", "65535")
            stack.enter_context(rule(gateway, "input", 'iifname "eth0" meta length > 1300 drop'))
        scene.begin(CHECKED, CHECKED.other())
        scene.up()
        yield
        site_a, site_b = scene.wire.a, scene.wire.b
        transfer(site_a.host, site_a.inside, site_b.host, site_b.inside, 1 << 20)
        transfer(site_b.host, site_b.inside, site_a.host, site_a.inside, 1 << 20)
    scene.wire.b.gateway.ip("address", "delete", f"{CHECK.remote}/32", "dev", "lo")


def ports_taken(scene: Scene) -> Iterator[None]:
    """Another program has UDP 500 when vpnd starts; then it ends."""
    scene.vpnd.stop()
    squatter = scene.wire.a.gateway.spawn(
        sys.executable,
        "-c",
        f"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('{A.address}', 500));"
        " print('bound', flush=True); import time; time.sleep(300)",
        log="squatter",
    )
    scene.flows.append(squatter)
    wait_until(lambda: "bound" in squatter.output(), "the port to be taken")
    scene.vpnd.start()
    scene.begin(RIGHT, RIGHT.other())
    yield
    squatter.stop()


V1 = RIGHT.change(version="ikev1")
MISTAKES = (
    Mistake(2, "trailing space in our key", ("E-PSK",), key_file(f"{PSK} "), ("W-PSK-SPACE",)),
    Mistake(3, "our key in quotes", ("E-PSK",), key_file(f'"{PSK}"'), ("W-PSK-QUOTES",)),
    Mistake(4, "space in the peer's key", ("E-PSK",), their(differs(psk=f"{PSK} ")), ("sha256sum",)),
    Mistake(5, "two newlines behind our key", ("E-PSK",), key_file(f"{PSK}\n\n"), ("W-PSK-",)),
    Mistake(
        8,
        "wrong remote_id here",
        ("E-ID",),
        our(identity("remote", OTHER_ID)),
        (OTHER_ID, "proved", "192.0.2.2"),
    ),
    Mistake(9, "wrong id at the peer", ("E-ID",), their(identity("local", OTHER_ID)), (OTHER_ID, "proved")),
    Mistake(
        10,
        "the peer expects another id of us",
        # strongSwan has one answer to a wrong key and to an identity that it does not know, also where it is
        # asked without IDr: the code is that of both, and its advice names both.
        ("E-PSK",),
        their(identity("remote", OTHER_ID)),
        ("the peer expects another identity of us", "set ike.local_id", "192.0.2.1"),
    ),
    Mistake(11, "FQDN against IP", ("E-ID",), our(identity("remote", "b.example")), ("(FQDN)", "IPV4")),
    Mistake(
        12,
        "subnets swapped",
        ("E-TS",),
        our(swapped),
        ("10.2.0.0/24 - 10.1.0.0/24", "our local range 10.2.0.0/24 is on no interface here"),
    ),
    Mistake(13, "one mask wrong", ("E-NARROW",), our(network("remote", "10.2.0.0/16")), ("10.2.0.0/24",)),
    Mistake(
        15,
        "DH differs, we begin",
        # Only what is configured is asked for, and with one group there is nothing to choose from.
        ("E-P1-PROPOSAL",),
        our(differs(ike=Suite(dh_group=31))),
        ("dh31", 'diagnose = \\"all\\"'),
    ),
    Mistake(
        15,
        "DH differs, we begin, and may ask for everything",
        ("E-P1-DH",),
        our(differs(ike=Suite(dh_group=31), lines=('diagnose = "all"',))),
        ("31", "14"),
    ),
    Mistake(
        16,
        "DH differs, the peer begins",
        ("E-P1-DH",),
        our(differs(ike=Suite(dh_group=31)), we_begin=False),
        ("31", "14"),
        quick=True,
    ),
    Mistake(17, "PFS only at the peer, IKEv2", ("W-PFS",), their(differs(pfs=14)), ("ipsec.pfs = 14",)),
    Mistake(18, "PFS only here, IKEv2", ("E-PFS",), our(differs(pfs=14)), ("ipsec.pfs",)),
    Mistake(19, "PFS only at the peer, IKEv1", ("W-PFS",), their(differs(pfs=14), V1)),
    Mistake(20, "IKEv1 here, IKEv2 there, we begin", ("E-V1V2",), our(differs(version="ikev1")), ("ikev2",)),
    Mistake(
        21,
        "IKEv1 here, IKEv2 there, the peer begins",
        ("E-V1V2",),
        our(differs(version="ikev1"), we_begin=False),
        ("ikev2",),
    ),
    Mistake(
        22,
        "aggressive here, main there, we begin",
        # The peer says that it does not know us; that it does so in main mode is asked.
        ("E-MODE",),
        their(differs(mode="main"), V1.change(mode="aggressive")),
        ('set ike.negotiation_mode = \\"main\\"',),
    ),
    Mistake(
        23,
        "aggressive there, the peer begins",
        ("E-MODE",),
        their(differs(mode="aggressive"), V1, we_begin=False),
        ("aggressive", "main"),
    ),
    Mistake(
        24,
        "main here, aggressive there, we begin",
        ("E-ID",),
        their(differs(mode="aggressive"), V1),
        ("wants aggressive mode",),
    ),
    Mistake(25, "UDP 4500 dropped", ("E-4500",), firewall("input", "udp dport 4500 drop"), ("sent, ",)),
    Mistake(25, "UDP 4500 rejected", ("E-4500",), firewall("input", "udp dport 4500 reject"), ("ICMP",)),
    Mistake(
        25,
        "UDP 4500 prohibited",
        ("E-4500",),
        firewall("input", "udp dport 4500 reject with icmpx admin-prohibited"),
        ("prohibited",),
    ),
    Mistake(26, "UDP 500 dropped", ("E-SILENT",), firewall("input", "udp dport 500 drop"), ("0 received",)),
    Mistake(
        27,
        "UDP 500 prohibited by a firewall",
        ("E-UNREACHABLE",),
        firewall("input", "udp dport 500 reject with icmpx admin-prohibited"),
        ("a firewall",),
    ),
    Mistake(
        28,
        "nothing listens at the peer",
        ("E-PORT",),
        firewall("input", "udp dport 500 reject"),
        (B.address,),
    ),
    Mistake(
        29,
        "silent address, no route here",
        ("E-UNREACHABLE",),
        no_route,
        ("this machine has no route", "ip route get"),
    ),
    Mistake(29, "the route leads into the tunnel", ("E-ROUTE",), into_the_tunnel, (RIGHT.interface,)),
    Mistake(29, "the peer has another address", ("E-UNKNOWN-PEER",), another_address, (B.address,)),
    Mistake(30, "4500 cut later", ("E-DPD",), cut_later, (B.address,)),
    Mistake(
        31,
        "the peer drops what we send",
        ("E-ONEWAY",),
        unanswered(lambda wire: wire.b.gateway, "forward", "drop", from_here=True),
        ("route back",),
    ),
    Mistake(32, "MTU 1300 on the path", ("E-MTU",), narrow_path, ("1300 bytes", "TCP segments of")),
    Mistake(
        32,
        "MTU 1300 on the path, and ICMP is filtered",
        ("E-MTU",),
        filtered_path,
        ("1300 bytes", "small packets pass", "no router says"),
    ),
    Mistake(35, "the name does not resolve", ("E-DNS",), no_such_name, ("nowhere.invalid",)),
    Mistake(36, "the interface's name is taken", ("E-INTERFACE",), name_taken, (RIGHT.interface,)),
    Mistake(36, "UDP 500 is taken", ("E-SOCKET",), ports_taken, ("end python (pid ",)),
    Mistake(37, "ip_forward = 0 here", ("E-NOFORWARD",), not_forwarding, ("ip_forward = 1",)),
    Mistake(
        38,
        "the forward policy drops here",
        ("E-NOFORWARD",),
        unanswered(lambda wire: wire.a.gateway, "forward", "drop", from_here=False),
        ("firewall",),
    ),
    Mistake(
        38,
        "the inner host's firewall",
        ("E-NOREPLY",),
        unanswered(lambda wire: wire.a.host, "input", "drop", from_here=False),
        ("firewall",),
    ),
)


def marked(mistake: Mistake) -> Any:
    name = f"{mistake.number}-{mistake.what.replace(' ', '-')}"
    return pytest.param(mistake, id=name, marks=() if mistake.quick else pytest.mark.full_faults)


@pytest.mark.parametrize("mistake", [marked(mistake) for mistake in MISTAKES])
def test_a_mistake_is_named_and_its_change_helps(mistake: Mistake, scene: Scene, row: TellRow) -> None:
    try:
        playing = mistake.play(scene)
        next(playing)
        began = time.monotonic()
        why: dict[str, Any] = {"error": None}

        def named() -> bool:
            why.update(scene.vpnd.get("/v1/tunnels/t1/why"))
            text = json.dumps(why)
            error = why["error"]
            return (
                error is not None and error["code"] in mistake.codes and all(w in text for w in mistake.says)
            )

        try:
            wait_until(named, f"{mistake.codes} with {mistake.says}", ASKED, 0.2)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{json.dumps(why, indent=1)}") from None
        took = time.monotonic() - began
        next(playing, None)
        scene.up()
        change = why["explanation"]["change"]
        told = {"code": why["error"]["code"], "change": change, "seconds": f"{took:.0f}"}
        row(TABLE, number=mistake.number, mistake=mistake.what, **told)
    finally:
        scene.clear()


@pytest.mark.full_faults
def test_a_calendar_that_is_a_year_ahead_is_no_matter(scene: Scene, row: TellRow) -> None:
    file = scene.vpnd.directory / "clocks.json"
    told = {"code": "none", "change": "nothing: it works, and an event says so"}
    try:
        with scene.vpnd.started_with(clocks.command(file)):
            scene.begin(RIGHT, RIGHT.other())
            scene.up()
            began = time.monotonic()
            clocks.turn(scene.vpnd, file, wall=YEAR)
            wait_until(
                lambda: "calendar-set" in {event["event"] for event in scene.vpnd.events()}, "the event"
            )
            took = f"{time.monotonic() - began:.0f}"
            scene.up()
            scene.vpnd.call("POST", "/v1/tunnels/t1/reset", {})
            scene.up()
            row(TABLE, number=34, mistake="clock a year ahead", **told, seconds=took)
            scene.clear()
    finally:
        scene.clear()


NOT_ROOT = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--", *PROGRAM)
"""A daemon that reads the files of its own user alone, as that of the package does, which is not root."""


@pytest.mark.full_faults
def test_a_key_of_another_user_is_refused_with_the_command_that_gives_it_away(
    scene: Scene, row: TellRow
) -> None:
    key = scene.vpnd.directory / "psk" / "t1"
    try:
        with scene.vpnd.started_with(NOT_ROOT):
            scene.file(RIGHT, PSK)
            os.chown(key, 65534, 65534)
            scene.peer.replace(RIGHT.other())
            began = time.monotonic()
            status, answer = scene.vpnd.post("/v1/reload")
            assert status == 422, answer
            (problem,) = (one for one in answer["error"]["problems"] if one["code"] == "E-PSK-FILE")
            assert problem["line"] is not None
            assert f"chown root: {key}" in problem["hint"]
            took = f"{time.monotonic() - began:.0f}"
            row(
                TABLE,
                number=7,
                mistake="the key is another user's",
                code=problem["code"],
                change=problem["hint"],
                seconds=took,
            )
            os.chown(key, 0, 0)
            assert scene.vpnd.post("/v1/reload")[0] == 200
            scene.up()
            scene.clear()
    finally:
        scene.clear()


@pytest.mark.full_faults
def test_a_key_file_with_cr_lf_works(scene: Scene, row: TellRow) -> None:
    try:
        scene.peer.replace(RIGHT.other())
        scene.file(RIGHT, f"{PSK}\r\n")
        scene.up()
        row(
            TABLE,
            number=1,
            mistake="key file ends with CR LF",
            code="none",
            change="nothing: it is up",
            seconds=0,
        )
    finally:
        scene.clear()


REFUSED = (
    (6, "key file mode 0644", "E-PSK-MODE", ""),
    (14, "host bits set", "E-PREFIX", '["10.2.0.1/24"]'),
    (33, "mappings of two tunnels overlap", "E-OVERLAP", ""),
)


@pytest.mark.full_faults
@pytest.mark.parametrize(("number", "what", "code", "remote"), REFUSED, ids=[f"{r[0]}" for r in REFUSED])
def test_what_a_reload_refuses_has_line_and_cure(
    number: int, what: str, code: str, remote: str, scene: Scene, row: TellRow
) -> None:
    path = scene.vpnd.directory / "tunnels.d" / "t1.toml"
    second = scene.vpnd.directory / "tunnels.d" / "t2.toml"
    key = scene.vpnd.directory / "psk" / "t1"
    try:
        scene.peer.replace(RIGHT.other())
        scene.vpnd.write_tunnel(RIGHT.change(negotiation="active"), path)
        if number == 6:
            key.chmod(0o644)
        if remote:
            path.write_text(path.read_text().replace('["10.2.0.0/24"]', remote))
        if number == 33:
            other = RIGHT.change(name="t2", interface="vpn-lab2")
            write(second, tunnel_toml(other, f"file:{key}"), mode=0o600)
        began = time.monotonic()
        status, answer = scene.vpnd.post("/v1/reload")
        assert status == 422, answer
        (problem,) = (one for one in answer["error"]["problems"] if one["code"] == code)
        assert problem["line"] is not None or number == 6
        assert problem["hint"]
        took = f"{time.monotonic() - began:.0f}"
        row(TABLE, number=number, mistake=what, code=code, change=problem["hint"], seconds=took)
        second.unlink(missing_ok=True)
        scene.vpnd.write_tunnel(RIGHT.change(negotiation="active"), path)
        assert scene.vpnd.post("/v1/reload")[0] == 200
        scene.up()
    finally:
        second.unlink(missing_ok=True)
        scene.clear()


def test_every_row_of_the_list_is_played() -> None:
    here = {mistake.number for mistake in MISTAKES} | {1, 7, 34} | {number for number, *_ in REFUSED}
    assert here == set(range(1, 39))
