"""F1 to F5 and F16: what the network does to datagrams, with the daemons themselves and a relay between them.

A run is repeated by its seed, which is in the name of the case; a failure prints what the relay decided.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from scapy.layers.inet import UDP
from scapy.utils import rdpcap

from tests.faults.conftest import Arena, Arenas
from tests.lab.capture import Capture
from tests.lab.plan import NO_DPD, A, B, Plan
from tests.lab.process import wait_until
from tests.lab.relay import CALM, Weather
from tests.lab.traffic import ping
from tests.lab.trickle import Trickle
from tests.lab.vpnd import PROGRAMS
from tests.tables import TellRow
from vpnd.wire.iana import Exchange1, Exchange2

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

PLAN = Plan(routed=True, dpd_timeout=NO_DPD)
VPNCTL = str(PROGRAMS / "vpnctl")


@dataclass(frozen=True)
class Target:
    """Whom vpnd speaks to, and how."""

    peer: str
    version: str
    mode: str = "main"
    peer_begins: bool = False
    encapsulation: str = "udp"

    @property
    def plan(self) -> Plan:
        """The tunnel. kernel-libipsec of strongSwan wants its ESP in UDP, with both versions."""
        return PLAN.change(version=self.version, mode=self.mode, encapsulation=self.encapsulation)

    def __str__(self) -> str:
        mode = f"-{self.mode}" if self.version == "ikev1" else ""
        raw = "-raw" if self.encapsulation == "auto" else ""
        return f"{self.peer}-{self.version}{mode}{'-begins' if self.peer_begins else ''}{raw}"


V2, MAIN, AGGRESSIVE = (
    Target("vpnd", "ikev2"),
    Target("vpnd", "ikev1"),
    Target("vpnd", "ikev1", "aggressive"),
)
SWAN_V2, SWAN_MAIN = Target("strongswan", "ikev2"), Target("strongswan", "ikev1")
SWAN_AGGRESSIVE = Target("strongswan", "ikev1", "aggressive")
RAW_V2, RAW_MAIN = (Target("vpnd", version, encapsulation="auto") for version in ("ikev2", "ikev1"))
"""IKE stays on port 500, whose socket hears of errors."""
TARGETS = (V2, MAIN, AGGRESSIVE, SWAN_V2, SWAN_MAIN)
BEGINNERS = (
    Target("strongswan", "ikev2", peer_begins=True),
    Target("strongswan", "ikev1", peer_begins=True),
)
"""strongSwan repeats a request after 4 s, then after 7, 13, 23."""
SEEDS = range(4, 7)

MESSAGES = {V2: (2, 2), SWAN_V2: (2, 2), MAIN: (5, 4), SWAN_MAIN: (5, 4), AGGRESSIVE: (4, 2)}
MESSAGES |= dict(zip(BEGINNERS, ((2, 2), (4, 5)), strict=True))
"""How many datagrams we and the peer send until a tunnel is up."""


def cases(
    quick: dict[Target, int], seeds: range = SEEDS, targets: tuple[Target, ...] = TARGETS
) -> list[object]:
    """Each target with each seed, of which `quick` also run in `make test`."""
    return [
        pytest.param(
            target,
            seed,
            id=f"{target}-{seed}",
            marks=() if quick.get(target) == seed else (pytest.mark.full_faults,),
        )
        for target in targets
        for seed in seeds
    ]


@contextmanager
def tunnel(arenas: Arenas, target: Target) -> Iterator[Arena]:
    """The tunnel of a target at both ends, down; afterwards both have forgotten it, and no SA is left."""
    arena = arenas(target.peer)
    arena.set_up(target.plan)
    try:
        yield arena
    finally:
        arena.take_down(target.plan)


@pytest.mark.parametrize(
    "loss",
    [pytest.param(0.05, id="5%", marks=pytest.mark.full_faults), pytest.param(0.2, id="20%")],
)
@pytest.mark.parametrize(("target", "seed"), cases({V2: 6}, targets=TARGETS + BEGINNERS))
def test_f1_loss(target: Target, seed: int, loss: float, arenas: Arenas, row: TellRow) -> None:
    with tunnel(arenas, target) as arena:
        arena.weathered.relay.weather(Weather(loss=loss, kinds=("ike",)), seed=seed)
        took = arena.bring_up(target.plan, 60, target.peer_begins)
        arena.weathered.relay.weather()
        row(
            "faults", id="F1", fault=f"{loss:.0%} loss each way", moment=f"setup, seed {seed}",
            target=target, figure=f"up in {took:.1f} s",
        )  # fmt: skip
        arena.require_one_pair(target.plan)
        assert arena.failed == 0


HALF_SEEDS = range(12)
HALF_SHARE = 0.9
"""Of the setups of each version, up by their second attempt, which ends a minute after the first began."""


@pytest.mark.full_faults
def test_f1_half_of_all_is_lost(arenas: Arenas, row: TellRow) -> None:
    """All transmissions of an exchange, or their answers, are lost now and then: what counts is how often.

    tests/faults/test_exchanges.py asks the same of each kind alone, over 2,000 seeds.
    """
    up, asked = Counter[str](), Counter[str]()
    for target in TARGETS:
        came = [seed for seed in HALF_SEEDS if is_up_by_second_attempt(arenas, target, seed)]
        up[target.version] += len(came)
        asked[target.version] += len(HALF_SEEDS)
        row(
            "faults", id="F1", fault="50% loss each way", moment=f"setup, seeds {HALF_SEEDS}", target=target,
            figure=f"{len(came)} of {len(HALF_SEEDS)} up by the second attempt",
        )  # fmt: skip
    for version, setups in asked.items():
        assert up[version] >= HALF_SHARE * setups, f"{version}: {up[version]} of {setups}"


def is_up_by_second_attempt(arenas: Arenas, target: Target, seed: int) -> bool:
    """Whether it is, with half of all datagrams lost; then each end has one pair, the same one."""
    with tunnel(arenas, target) as arena:
        plan, ours = target.plan, arena.ours
        before = len(ours.events(plan.name))
        arena.weathered.relay.weather(Weather(loss=0.5, kinds=("ike",)), seed=seed)
        arena.begin(plan)

        def failed() -> int:
            return ours.told(plan.name, before).count("attempt-failed")

        def is_up() -> bool:
            return bool(ours.tunnel(plan.name)["state"] == "up")

        wait_until(lambda: is_up() or failed() >= 2, "two attempts", 300, interval=0.1)
        arena.weathered.relay.weather()
        if failed() >= 2:
            return False
        arena.require_one_pair(plan)
        return True


def single_losses() -> Iterator[object]:
    for target, (ours, theirs) in MESSAGES.items():
        for direction, count in ((0, ours), (1, theirs)):
            for number in range(1, count + 1):
                for times in (1, 3):
                    quick = times == 1 and (target, direction, number) == (MAIN, 1, 4)
                    yield pytest.param(
                        target, direction, number, times,
                        id=f"{target}-{'from' if direction else 'to'}-peer-{number}-x{times}",
                        marks=() if quick else (pytest.mark.full_faults,),
                    )  # fmt: skip


@pytest.mark.parametrize(("target", "direction", "number", "times"), [*single_losses()])
def test_f2_one_message_is_lost(
    target: Target, direction: int, number: int, times: int, arenas: Arenas, row: TellRow
) -> None:
    drops = Weather(drops=tuple(range(number, number + times)), kinds=("ike",))
    with tunnel(arenas, target) as arena:
        both = (CALM, drops) if direction else (drops, replace(CALM, kinds=("ike",)))
        arena.weathered.relay.weather(*both)
        took = arena.bring_up(target.plan, 60, target.peer_begins)
        # The last message of IKEv1 is answered by none: the loss shows at the peer, and heals there.
        wait_until(lambda: len(arena.peer.agreed(target.plan.name)) == 1, "the peer to be up", interval=0.05)
        row(
            "faults", id="F2", fault=f"message {number} {'from' if direction else 'to'} the peer lost",
            moment=f"setup, {times} times", target=target, figure=f"up in {took:.1f} s",
        )  # fmt: skip
        arena.weathered.relay.weather()
        arena.require_one_pair(target.plan)
        # Its repetition healed it, not another attempt.
        assert arena.failed == 0


@pytest.mark.parametrize("copies", [2, *(pytest.param(n, marks=pytest.mark.full_faults) for n in (10, 50))])
@pytest.mark.parametrize(
    ("target", "seed"), cases({SWAN_MAIN: 1}, range(1, 3), (*TARGETS, SWAN_AGGRESSIVE, *BEGINNERS))
)
def test_f3_everything_is_repeated(
    target: Target, seed: int, copies: int, arenas: Arenas, row: TellRow
) -> None:
    with tunnel(arenas, target) as arena:
        repeated = Weather(duplicate=1.0, copies=copies, delay=(0.0, 0.3), kinds=("ike",))
        arena.weathered.relay.weather(repeated, seed=seed)
        answers = Capture(
            arena.weathered.relay.namespace, "eth1", f"udp src port 500 and src host {B.address}"
        )
        with answers as path:
            took = arena.bring_up(target.plan, by_peer=target.peer_begins)
        # A copy of a first message has the answer that was made, or none: no other SA, no other key exchange.
        if target.peer == "vpnd":
            assert len(responder_spis(path)) == 1
        # Each copy that arrives is answered, and the answer copied. Packets come when that is over, for what
        # is too much for a socket is lost.
        arena.steady(target.plan)
        arena.wait_one_pair(target.plan)
        relay, wire = arena.weathered.relay, arena.weathered.wire
        wait_until(lambda: relay.quiet(1.0), "the copies to have arrived")
        relay.weather(Weather(duplicate=1.0, copies=copies))
        # Not all at once: ten times as many copies are more than the relay's socket holds.
        echoes = ping(wire.a.host, A.inside, B.inside, count=10, interval=0.3)
        doubled = echoes.text.count("DUP!")
        row(
            "faults", id="F3", fault=f"each datagram {copies} times", moment=f"all, seed {seed}",
            target=target, figure=f"up in {took:.1f} s, {10 - echoes.received} lost, {doubled} packets twice",
        )  # fmt: skip
        assert (echoes.received, doubled) == (10, 0), echoes.text
        relay.weather()
        arena.require_one_pair(target.plan)


def responder_spis(path: Path) -> set[bytes]:
    """Those that a responder has chosen in what it sent from port 500; a cookie is asked for without one."""
    messages = [bytes(frame[UDP].payload) for frame in rdpcap(str(path)) if UDP in frame]
    return {message[8:16] for message in messages} - {bytes(8)}


@pytest.mark.parametrize(("target", "seed"), cases({}))
def test_f4_delays_reorder(target: Target, seed: int, arenas: Arenas, row: TellRow) -> None:
    with tunnel(arenas, target) as arena:
        arena.weathered.relay.weather(Weather(delay=(0.0, 3.0), kinds=("ike",)), seed=seed)
        took = arena.bring_up(target.plan, 100)
        arena.weathered.relay.weather()
        row(
            "faults", id="F4", fault="delay of 0 to 3 s each way", moment=f"setup, seed {seed}",
            target=target, figure=f"up in {took:.1f} s",
        )  # fmt: skip
        arena.require_one_pair(target.plan)
        # strongSwan begins another main mode with each copy of its first message, and sometimes a whole
        # attempt is lost so.
        assert arena.failed <= (1 if target == SWAN_MAIN else 0)


@pytest.mark.parametrize(("target", "seed"), cases({SWAN_V2: 6}))
def test_f5_bits_are_wrong(target: Target, seed: int, arenas: Arenas, row: TellRow) -> None:
    with tunnel(arenas, target) as arena:
        # A bit of a nonce or a public value that nothing protects shows only as silence: a whole attempt. Of
        # the four such messages of main mode one is hit too often at 30 % to see an end.
        share = 0.3 if target.version == "ikev2" else 0.1
        arena.weathered.relay.weather(Weather(corrupt=share, kinds=("ike",)), seed=seed)
        took = arena.bring_up(target.plan, 100)
        wait_until(lambda: len(arena.peer.agreed(target.plan.name)) == 1, "the peer to be up", interval=0.05)
        before = arena.steady(target.plan)
        # Copies of which every one is wrong come besides what is right, of IKE and of ESP.
        arena.weathered.relay.weather(Weather(corrupt=0.5), seed=seed)
        wire = arena.weathered.wire
        echoes = ping(wire.a.host, A.inside, B.inside, count=40, interval=0.02, patience=1)
        arena.weathered.relay.weather()
        row(
            "faults", id="F5", fault=f"a bit wrong in {share:.0%} of IKE, 50 % of ESP",
            moment=f"all, seed {seed}", target=target,
            figure=f"up in {took:.1f} s, {echoes.received} of 40 echoes, same SAs",
        )  # fmt: skip
        arena.require_one_pair(target.plan)
        # Where chance has damaged each question for seconds, a second IKE SA is tried, which may win.
        if "peer-silent" not in arena.ours.told(target.plan.name):
            assert arena.ours.agreed(target.plan.name) == before


CUTS = [
    pytest.param(how, seconds, id=f"{how}-{seconds}s", marks=marks)
    for how, seconds, marks in (
        ("link set down", 1, ()),
        ("link set down", 5, (pytest.mark.full_faults,)),
        ("cable pulled", 5, (pytest.mark.full_faults,)),
    )
]


@pytest.mark.parametrize(("how", "seconds"), CUTS)
@pytest.mark.parametrize(
    "target",
    [V2, *(pytest.param(one, marks=pytest.mark.full_faults) for one in (MAIN, SWAN_V2, SWAN_MAIN))],
    ids=str,
)
def test_f16_link_down_and_up(target: Target, how: str, seconds: int, arenas: Arenas, row: TellRow) -> None:
    with tunnel(arenas, target) as arena:
        wire, relay = arena.weathered.wire, arena.weathered.relay
        arena.bring_up(target.plan)
        before, told_before = arena.steady(target.plan), len(arena.ours.events(target.plan.name))
        gateway = wire.a.gateway
        with Trickle(wire.a.host, A.inside, wire.b.host, B.inside) as trickle:
            trickle.wait_first_after(time.monotonic())
            if how == "cable pulled":
                relay.carrier(False)
            else:
                gateway.ip("link", "set", "eth0", "down")
            time.sleep(seconds)
            if how == "cable pulled":
                relay.carrier(True)
            else:
                gateway.ip("link", "set", "eth0", "up")
                gateway.ip("address", "replace", "2001:db8::1/64", "dev", "eth0", "nodad")
            back = trickle.wait_first_after(time.monotonic())
        row(
            "faults", id="F16", fault=f"{how} for {seconds} s", moment="traffic",
            target=target, figure=f"traffic {back:.2f} s after it is up",
        )  # fmt: skip
        arena.require_one_pair(target.plan)
        told = arena.ours.told(target.plan.name, told_before)
        assert "tunnel-lost" not in told
        # Packets that left and have no answer let us try a second IKE SA beside the first, which may win.
        if "peer-silent" not in told:
            assert arena.ours.agreed(target.plan.name) == before


REFUSALS = {
    "sendto": ("ours", "output", "drop"),
    "host-unreachable": ("peer", "input", "reject with icmp type host-unreachable"),
    "port-unreachable": ("peer", "input", "reject with icmp type port-unreachable"),
    "admin-prohibited": ("peer", "input", "reject with icmp type admin-prohibited"),
}
"""Where what we send to the peer's IKE ports is refused, and how: errors of sendto(2), and of ICMP."""


@contextmanager
def refused(arena: Arena, where: str, hook: str, verdict: str) -> Iterator[Callable[[], int]]:
    """For the length of the block; gives how many messages were refused so far."""
    gateway = (arena.ours if where == "ours" else arena.peer).namespace
    gateway.run(
        "nft", f"add table ip wall; add chain ip wall {hook} {{ type filter hook {hook} priority 0; }}"
    )
    gateway.run(
        "nft", f"add rule ip wall {hook} ip daddr {B.address} udp dport {{500, 4500}} counter {verdict}"
    )

    def count() -> int:
        found = re.search(r"packets (\d+)", gateway.run("nft", "list", "table", "ip", "wall").stdout)
        assert found is not None
        return int(found[1])

    try:
        yield count
    finally:
        gateway.run("nft", "delete", "table", "ip", "wall")


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(one, marks=() if one in ("sendto", "host-unreachable") else (pytest.mark.full_faults,))
        for one in REFUSALS
    ],
)
@pytest.mark.parametrize(
    "target",
    [RAW_V2, *(pytest.param(one, marks=pytest.mark.full_faults) for one in (RAW_MAIN, V2, MAIN))],
    ids=str,
)
def test_f16_an_error_of_the_network_ends_nothing(
    target: Target, refusal: str, arenas: Arenas, row: TellRow
) -> None:
    """Anyone can send such errors: they are no answer, and the message is repeated (RFC 7296 section 2.4)."""
    with tunnel(arenas, target) as arena:
        name, ours = target.plan.name, arena.ours
        arena.bring_up(target.plan)
        before, told_before = arena.steady(target.plan), len(ours.events(name))
        spis = [(sa["spi_i"], sa["spi_r"]) for sa in ours.ike_sas(name)]
        with refused(arena, *REFUSALS[refusal]) as count:
            rekey = (VPNCTL, "--socket", str(ours.socket), "rekey", name, "--child")
            ours.namespace.spawn(*rekey, log=f"rekey-{target}")
            wait_until(lambda: count() >= 2, "a message and its repetition to be refused")
        wait_until(lambda: ours.agreed(name) not in (before, []), "the successor")
        told = ours.told(name, told_before)
        row(
            "faults", id="F16", fault=refusal, moment="rekeying", target=target,
            figure="the message is repeated, and answered",
        )  # fmt: skip
        assert set(told) == {"rekeyed"}
        assert [(sa["spi_i"], sa["spi_r"]) for sa in ours.ike_sas(name)] == spis
        arena.require_one_pair(target.plan)


@pytest.mark.full_faults
@pytest.mark.parametrize("target", [V2, MAIN, SWAN_V2, SWAN_MAIN], ids=str)
def test_a_peer_that_sends_nothing_is_asked_before_anything_is_begun(
    target: Target, arenas: Arenas, row: TellRow
) -> None:
    """A stream that goes one way has no answers: the peer of the SA says whether it is there."""
    with tunnel(arenas, target) as arena:
        relay, wire = arena.weathered.relay, arena.weathered.wire
        arena.bring_up(target.plan)
        arena.steady(target.plan)
        with Capture(relay.namespace, "eth0", f"udp src port (500 or 4500) and src host {A.address}") as path:
            relay.weather(Weather(kinds=("ike",)))
            with Trickle(wire.a.host, A.inside, wire.b.host, B.inside):
                wait_until(lambda: len(relay.decisions()) > 0, "an IKE message")
        messages = [bytes(frame[UDP].payload) for frame in rdpcap(str(path)) if UDP in frame]
        first = next(message[4:] for message in messages if message[:4] == bytes(4) and len(message) > 4)
        row(
            "faults", id="F6", fault="a stream without answers", moment="traffic", target=target,
            figure="the peer is asked",
        )  # fmt: skip
        assert first[18] in (Exchange1.INFORMATIONAL, Exchange2.INFORMATIONAL)


@pytest.mark.full_faults
@pytest.mark.parametrize("target", [V2, MAIN, SWAN_V2, SWAN_MAIN], ids=str)
def test_f16_link_down_while_rekeying(target: Target, arenas: Arenas, row: TellRow) -> None:
    with tunnel(arenas, target) as arena:
        wire, relay, name = arena.weathered.wire, arena.weathered.relay, target.plan.name
        arena.bring_up(target.plan)
        before = arena.steady(target.plan)
        gateway = wire.a.gateway
        with Trickle(wire.a.host, A.inside, wire.b.host, B.inside) as trickle:
            trickle.wait_first_after(time.monotonic())
            relay.weather(Weather(kinds=("ike",)), Weather(loss=1.0, kinds=("ike",)))
            socket = str(arena.ours.socket)
            gateway.spawn(VPNCTL, "--socket", socket, "rekey", name, "--child", log=f"rekey-{target}")
            wait_until(lambda: len(relay.decisions()) > 0, "the rekey to begin")
            gateway.ip("link", "set", "eth0", "down")
            relay.weather()
            time.sleep(5)
            gateway.ip("link", "set", "eth0", "up")
            up = time.monotonic()
            back = trickle.wait_first_after(up)
            wait_until(lambda: arena.ours.agreed(name) not in (before, []), "the successor")
            renewed = time.monotonic() - up
            time.sleep(1)
        after = [number for number, sent in enumerate(trickle.sent) if sent > up + back]
        lost = len([number for number in after if number not in trickle.arrived])
        gateway.ip("address", "replace", "2001:db8::1/64", "dev", "eth0", "nodad")
        row(
            "faults", id="F16", fault="link set down for 5 s", moment="rekeying", target=target,
            figure=f"traffic {back:.2f} s after it is up, renewed after {renewed:.1f} s, {lost} lost",
        )  # fmt: skip
        assert "tunnel-lost" not in arena.ours.told(name)
        assert lost == 0
        # The peer may keep what it replaced for a while: what counts is that both send on the same.
        wait_until(lambda: arena.ours.agreed(name)[0].mirrored() in arena.peer.agreed(name), "one pair")
