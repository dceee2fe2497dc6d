"""The world itself, with endpoints simple enough to know what must come out: a ping, an answer, a retry."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path as FilePath

import pytest

from vpnd.ike.outputs import ChildDown, ChildSaInfo, ChildUp, IkeSaInfo, LadderLine, Output, Transmit
from vpnd.ike.session import Snapshot
from vpnd.model.child import ChildSa, EspKeys, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import Lifetimes, PeerPolicy
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret
from vpnd.simulate.gateway import Broken, Gateway
from vpnd.simulate.ladder import Ladder, Rung, draw

from .histories import compared, read
from .policies import ADDRESS_A, ADDRESS_B, Recipe
from .weather import CALM, STORM, Nat, Weather, flip_bit
from .world import World


class Pinger:
    """Sends `ping` every second until `pong` comes; answers each `ping` with `pong`."""

    INTERVAL = 1.0

    def __init__(self) -> None:
        self.outputs: deque[Output] = deque()
        self.counters: Counter[str] = Counter()
        self.due: float | None = None
        self.answers: list[float] = []
        self.pings: list[Path] = []
        self.policy: PeerPolicy | None = None

    def set_peer(self, now: float, policy: PeerPolicy) -> None:
        self.policy = policy

    def initiate(self, now: float, name: str, mapping: int) -> None:
        assert self.policy is not None
        assert self.policy.remote_address is not None
        path = Path(self.policy.local_address, 500, self.policy.remote_address, 500)
        self.outputs.append(LadderLine(name, True, f"PING {mapping} {{SA}}", 4))
        self.outputs.append(Transmit(name, path, b"ping"))
        self.due = now + self.INTERVAL

    def handle_datagram(self, now: float, path: Path, data: bytes) -> None:
        if data == b"ping":
            self.pings.append(path)
            self.outputs.append(LadderLine("to-a", True, "PING 0 {Nr}", 4))
            self.outputs.append(Transmit(None, path, b"pong"))
        elif data == b"pong":
            self.answers.append(now)
            self.due = None

    def handle_timeout(self, now: float) -> None:
        self.initiate(now, "to-b", 0)

    def next_timeout(self) -> float | None:
        return self.due

    def ike_sas(self, name: str) -> tuple[IkeSaInfo, ...]:
        return ()

    def child_sas(self, name: str) -> dict[int, ChildSaInfo]:
        return {}

    def snapshot(self) -> Snapshot:
        return Snapshot((), frozenset(), (), 0, int(self.due is not None), int(self.due is not None))


def pingers(seed: int = 0, weather: Weather = CALM) -> tuple[World, Gateway, Gateway, Pinger, Pinger]:
    world = World(seed, weather)
    policy_a, policy_b = Recipe().pair()
    one, two = Pinger(), Pinger()
    a = world.add_gateway("a", ADDRESS_A, one)
    b = world.add_gateway("b", ADDRESS_B, two)
    a.set_peer("b", policy_a)
    b.set_peer("a", policy_b)
    return world, a, b, one, two


def test_a_datagram_takes_its_delay_and_the_answer_too() -> None:
    world, a, _, one, _ = pingers()
    start = world.now
    a.initiate()
    world.settle()
    assert one.answers == pytest.approx([start + 0.02])


def test_time_passes_without_events() -> None:
    world, *_ = pingers()
    start = world.now
    world.run_for(3600)
    assert world.now == start + 3600


def test_a_lost_datagram_is_sent_again_when_its_timer_is_due() -> None:
    world, a, _, one, _ = pingers()
    world.drop("a", 1, 2)
    start = world.now
    a.initiate()
    world.run_until(lambda: one.answers)
    assert one.answers == pytest.approx([start + 2.02])


def test_silence_ends_in_a_failure_that_names_the_seed() -> None:
    world, a, *_, one, _ = pingers(seed=77)
    world.silence("b")
    a.initiate()
    with pytest.raises(Broken, match="seed 77"):
        world.run_until(lambda: one.answers, within=10)


def test_a_timer_that_does_not_advance_is_noticed() -> None:
    world, a, _, one, _ = pingers()
    one.INTERVAL = 0.0
    world.silence("a")
    a.initiate()
    with pytest.raises(Broken, match="does not advance"):
        world.run_for(1)


def test_the_same_seed_is_the_same_history_and_another_is_not() -> None:
    def history(seed: int) -> list[str]:
        world, a, *_ = pingers(seed, STORM)
        for _ in range(20):
            a.initiate()
            world.run_for(5)
        return [str(line) for line in world.log]

    assert history(5) == history(5)
    assert history(5) != history(6)


def test_a_storm_loses_doubles_and_reorders_as_often_as_it_says() -> None:
    world, a, _, _, two = pingers(3, STORM)
    for _ in range(2000):
        a.initiate()
    world.settle()
    sent = sum(d.sender == "a" for d in world.sent)
    arrived = len(two.pings)
    assert arrived / sent == pytest.approx(0.7 * 1.2, abs=0.05)


def test_corruption_changes_one_bit() -> None:
    fate = list(Weather(corrupt=1.0).fate(World(1).dice, b"ping"))
    (_, data), *_ = fate
    assert sum((x ^ y).bit_count() for x, y in zip(data, b"ping", strict=True)) == 1
    assert flip_bit(b"\x00\x00", 15) == b"\x00\x80"


OUTSIDE = ip_address("198.51.100.9")


def behind_nat(filtering: bool = True) -> tuple[World, Gateway, Pinger, Pinger, Nat]:
    world, a, _, one, two = pingers()
    nat = Nat([ADDRESS_A], OUTSIDE, filtering)
    world.nats.append(nat)
    return world, a, one, two, nat


def test_a_nat_rewrites_the_source_and_lets_the_answer_back_in() -> None:
    world, a, one, two, _ = behind_nat()
    a.initiate()
    world.settle()
    assert len(one.answers) == 1
    assert two.pings == [Path(ADDRESS_B, 500, OUTSIDE, Nat.FIRST_PORT)]


def test_a_rebooted_nat_gives_a_new_port_and_refuses_the_old_one() -> None:
    world, a, one, two, nat = behind_nat()
    a.initiate()
    world.run_until(lambda: two.pings)
    nat.rebind()
    world.settle()
    assert one.answers == []
    a.initiate()
    world.settle()
    assert two.pings[-1].remote_port == Nat.FIRST_PORT + 1
    assert len(one.answers) == 1


def test_a_filtering_nat_lets_nobody_else_in() -> None:
    world, a, one, two, _ = behind_nat()
    a.initiate()
    world.settle()
    two.outputs.append(Transmit(None, Path(ADDRESS_B, 4500, OUTSIDE, Nat.FIRST_PORT), b"pong"))
    world.gateways["b"].drain()
    world.settle()
    assert len(one.answers) == 1


def test_a_ladder_is_drawn_from_the_left_gateway_and_aligned() -> None:
    world, a, *_ = pingers()
    a.initiate(mapping=10)
    world.settle()
    assert (
        world.ladder()
        == """
        a -> b  PING 10  {SA}
        a <- b  PING 0   {Nr}"""
    )
    assert world.ladder() != "a -> b  PING 10 {SA}"
    assert str.splitlines(world.ladder())[2] == "a <- b  PING 0   {Nr}"


def test_a_ladder_without_payloads_has_no_trailing_space() -> None:
    drawn = draw([Rung(0.0, "a", "b", "INFORMATIONAL 2 {}"), Rung(0.0, "b", "a", "X 1")], "a")
    assert str(drawn).splitlines() == ["", "a -> b  INFORMATIONAL 2  {}", "a <- b  X 1"]
    assert hash(drawn) == hash(Ladder("a -> b INFORMATIONAL 2 {}\na <- b X 1"))


def some_child(spi_in: int = 0x1000) -> ChildSa:
    keys = EspKeys(Secret(b"k"), Secret(b"i"), Secret(b""))
    path = Path(ADDRESS_A, 500, ADDRESS_B, 500)
    suite = Suite("aes-128", None, "sha256", None)
    return ChildSa(
        "to-b", 0, spi_in, 0x2000, suite, keys, keys, (), (), path, False, Lifetimes(60), initiator=True
    )


@pytest.mark.parametrize(
    ("outputs", "breach"),
    [
        ([ChildDown("to-b", 0, 0x1000, Diagnosis(Code.LIFETIME))], "not installed"),
        ([ChildUp(some_child())], "before any IKE SA"),
        ([ChildUp(some_child(255))], "reserved SPI"),
        ([ChildUp(replace(some_child(), spi_out=0))], "reserved SPI"),
    ],
)
def test_outputs_that_break_their_rules_are_noticed(outputs: list[Output], breach: str) -> None:
    _, a, _, one, _ = pingers()
    one.outputs.extend(outputs)
    with pytest.raises(Broken, match=breach):
        a.drain()


def test_a_timeout_that_is_not_finite_is_noticed() -> None:
    _, a, _, one, _ = pingers()
    one.due = float("nan")
    with pytest.raises(Broken, match="next timeout is nan"):
        a.drain()


def test_two_records_are_compared_test_by_test(tmp_path: FilePath) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.write_text("test_a[x y] 3 aa\ntest_b 1 bb\ntest_c 1 cc\n")
    after.write_text("test_d 1 dd\ntest_b 1 b0\ntest_a[x y] 3 aa\n")
    said = ["1 of 2 tests are equal", "differs  test_b", "gone     test_c", "new      test_d"]
    assert compared(read(before), read(after)) == said
