"""F1 to F5 and F11 to F14: what happens to exchanges, in simulation, with fixed seeds.

The same faults between daemons, with fewer seeds, are in `test_network.py`. With `--full-faults` there are
more seeds, and every byte instead of every twenty-fourth.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.faults.simulated import (
    KINDS,
    SEEDS,
    V1_MAIN,
    V2,
    Kind,
    Stream,
    counting,
    lose,
    one_tunnel,
    send_alike,
    sent_by,
)
from tests.simulation.exchanges import NOT_APPLICABLE, SUITES
from tests.simulation.exchanges.held import LOWEST, Led, LedEntropy
from tests.simulation.pair import Pair
from tests.simulation.policies import Recipe
from tests.simulation.weather import CALM, Datagram, Weather, flip_bit
from tests.simulation.world import World
from tests.tables import TellRow
from vpnd.ike.outputs import ChildDown, ChildReplaced, ChildUp, Established, IkeDown, IkeReplaced, PeerDead
from vpnd.model.child import Path
from vpnd.simulate.gateway import Gateway

EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=str)
TWO_MAPPINGS = Recipe(mappings=2)
EACH_HEARD_THE_OTHER_ONE = 345
"""A seed with which each of both ends closed the IKE SA that the other one kept, so that none was left."""
CONFIRMED_IN_ANOTHER_ORDER = 367
"""A seed with which IKEv1's third messages of two pairs arrive in another order than they were sent in."""

EXCHANGE_TYPE, FLAGS = 18, 19
"""Where they are in the header (RFC 7296 section 3.1)."""


def many(request: pytest.FixtureRequest, seeds: int, few: int = len(SEEDS)) -> range:
    """`few` seeds, or `seeds` with --full-faults."""
    return range(seeds if request.config.getoption("--full-faults") else few)


def ask_until(pair: Pair, done: Callable[[], object], within: float) -> float | None:
    """Ask for mapping 0 as the lifecycle does, again and again; the seconds until `done`, or None."""
    start = pair.world.now
    while pair.world.now - start < within:
        pair.a.initiate()
        pair.world.run_for(0.25)
        if done():
            return pair.world.now - start
    return None


# ------------------------------------------------------------------------------- F1


@EVERY_KIND
@pytest.mark.parametrize(("loss", "within", "share"), [(0.05, 5, 0.99), (0.2, 20, 0.99), (0.5, 60, 0.90)])
def test_loss(
    kind: Kind, loss: float, within: float, share: float, row: TellRow, request: pytest.FixtureRequest
) -> None:
    """Each datagram is lost with this chance, each way."""
    seeds = many(request, 2000, few=100)
    times: list[float] = []
    for seed in seeds:
        pair = kind.pair(seed, Weather(loss=loss))
        took = ask_until(pair, lambda: send_alike(pair.a, pair.b), 60)  # noqa: B023 (used at once)
        times += [] if took is None else [took]
        pair.world.default_weather = CALM
        assert ask_until(pair, lambda: one_tunnel(pair.a, pair.b), 120), f"seed {seed}"  # noqa: B023 (used at once)
    done = [sum(took <= limit for took in times) / len(seeds) for limit in (5, 20, 60)]
    row(
        "faults", id="F1", fault=f"{loss:.0%} loss each way", moment=f"handshake, {len(seeds)} seeds",
        target=kind, figure="up in 5 / 20 / 60 s: " + " / ".join(f"{one:.1%}" for one in done),
    )  # fmt: skip
    assert done[(5, 20, 60).index(int(within))] >= share


# ------------------------------------------------------------------------------- F2


@dataclass(frozen=True, slots=True)
class Exchange:
    """What `a` begins on a tunnel that is up, and how it is seen to be over."""

    begin: Callable[[Gateway], None]
    over: Callable[[Pair], object]


def replaced(kind: type) -> Callable[[Pair], object]:
    """Both sides have a successor, and send alike."""
    return lambda pair: pair.a.of(kind) and pair.b.of(kind) and send_alike(pair.a, pair.b)


EXCHANGES = {
    "new child": Exchange(lambda a: a.initiate(1), lambda pair: send_alike(pair.a, pair.b, 1)),
    "rekey child": Exchange(lambda a: a.rekey_child(), replaced(ChildReplaced)),
    "rekey IKE": Exchange(lambda a: a.rekey_ike(), replaced(IkeReplaced)),
}


def lengths(kind: Kind, name: str) -> dict[str, int]:
    """How many datagrams each side sends for an exchange in calm weather."""
    pair = prepared(kind, name, 0)
    before = {side: len(sent_by(pair.world, side)) for side in "ab"}
    begin(pair, name)
    pair.world.run_for(0.3)
    return {side: len(sent_by(pair.world, side)) - before[side] for side in "ab"}


def prepared(kind: Kind, name: str, seed: int) -> Pair:
    """The world before an exchange."""
    pair = kind.pair(seed, recipe=TWO_MAPPINGS)
    if name != "handshake":
        pair.establish()
    return pair


def begin(pair: Pair, name: str) -> None:
    """The exchange begins."""
    if name == "handshake":
        pair.a.initiate()
    else:
        EXCHANGES[name].begin(pair.a)


def over(pair: Pair, name: str) -> bool:
    """It is done on both sides."""
    return bool(send_alike(pair.a, pair.b) if name == "handshake" else EXCHANGES[name].over(pair))


@EVERY_KIND
@pytest.mark.parametrize("name", ["handshake", *EXCHANGES])
def test_exactly_one_message_is_lost(
    kind: Kind, name: str, row: TellRow, request: pytest.FixtureRequest
) -> None:
    """Each message of each side, once and three times in a row."""
    slowest = {1: 0.0, 3: 0.0}
    cases = 0
    for side, count in lengths(kind, name).items():
        for number in range(1, count + 1):
            for times in slowest:
                for seed in many(request, 20, few=3):
                    took = seconds_without(kind, name, seed, (side, number, times))
                    slowest[times] = max(slowest[times], took)
                    cases += 1
    row(
        "faults", id="F2", fault="one message lost", moment=name, target=kind,
        figure=f"{cases} of {cases} heal; lost once {slowest[1]:.2f} s, three times {slowest[3]:.2f} s",
    )  # fmt: skip
    assert slowest[1] <= 4.0


def seconds_without(kind: Kind, name: str, seed: int, lost: tuple[str, int, int]) -> float:
    """How long the exchange takes without these messages."""
    pair = prepared(kind, name, seed)
    lose(pair.world, *lost)
    start = pair.world.now
    begin(pair, name)
    pair.world.run_until(lambda: over(pair, name), within=30)
    took = pair.world.now - start
    pair.world.run_for(20)
    pair.assert_agreement()
    assert not pair.a.of(PeerDead)
    assert not pair.b.of(PeerDead)
    return took


# ------------------------------------------------------------------------------- F3


@EVERY_KIND
def test_copies_and_replays(kind: Kind, row: TellRow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each datagram arrives 2 to 50 times, and everything that was ever said is said again later."""
    counted = counting(monkeypatch.setattr)
    extra_sas = extra_work = replays = 0
    for seed in SEEDS:
        calm = life(kind, seed, 1)
        work, counted.number = counted.number, 0
        copies = 50 if seed % 10 == 9 else (2, 5)[seed % 2]
        pair = life(kind, seed, copies)
        replays += replay_all(pair)
        extra_work += counted.number - work
        counted.number = 0
        for one, two in ((calm.a, pair.a), (calm.b, pair.b)):
            for event in (Established, ChildUp, ChildReplaced, IkeReplaced):
                extra_sas += len(two.of(event)) - len(one.of(event))
        pair.assert_agreement()
    row(
        "faults", id="F3", fault="x2 to x50, and all said again", moment="handshake, children, rekeys",
        target=kind, figure=f"{extra_sas} extra SAs, {extra_work} extra DH, {replays} messages replayed",
    )  # fmt: skip
    assert extra_sas == 0
    assert extra_work == 0


def life(kind: Kind, seed: int, copies: int) -> Pair:
    """A handshake, a further child, both kinds of succession, with each message so many times."""
    pair = kind.pair(seed, recipe=TWO_MAPPINGS)
    pair.world.interceptors.append(lambda d: [(0.01 + 0.001 * n, d.data) for n in range(copies)])
    for command in ("initiate", "initiate 1", "rekey_child", "rekey_ike", "rekey_child 1"):
        name, *arguments = command.split()
        getattr(pair.a, name)(*map(int, arguments))
        pair.world.run_for(5)
    return pair


IKE_SA_INIT = 34


def replay_all(pair: Pair) -> int:
    """Everything that was sent reaches its receiver once more; how much that was.

    But for IKE_SA_INIT: once its IKE SA has a successor nobody can tell it from a new peer's first message,
    which costs one answer, and a cookie before that if it comes often.
    """
    history = [datagram for datagram in pair.world.sent if datagram.data[EXCHANGE_TYPE] != IKE_SA_INIT]
    for datagram in history:
        receiver = pair.b if datagram.sender == "a" else pair.a
        receiver.receive(arriving(datagram), datagram.data)
    pair.world.run_for(1)
    return len(history)


def arriving(datagram: Datagram) -> Path:
    """The path of a datagram as its receiver sees it."""
    return Path(datagram.destination, datagram.destination_port, datagram.source, datagram.source_port)


# ------------------------------------------------------------------------------- F4


@EVERY_KIND
def test_delay_and_order(kind: Kind, row: TellRow, request: pytest.FixtureRequest) -> None:
    """For ten seconds each datagram takes 0 to 3 s; two phase-2 exchanges at once."""
    slowest, first = 0.0, 0
    seeds = sorted({*many(request, 500), EACH_HEARD_THE_OTHER_ONE, CONFIRMED_IN_ANOTHER_ORDER})
    for seed in seeds:
        pair = kind.pair(seed, Weather(delay=(0.0, 3.0)), TWO_MAPPINGS)
        pair.a.initiate(0)
        pair.a.initiate(1)
        pair.b.initiate(1)
        start = pair.world.now
        pair.world.run_for(10)
        up = all(send_alike(pair.a, pair.b, mapping) for mapping in (0, 1))
        first += up
        pair.world.default_weather = CALM
        while not all(send_alike(pair.a, pair.b, mapping) for mapping in (0, 1)):
            pair.a.initiate(0)
            pair.a.initiate(1)
            pair.world.run_for(0.25)
            assert pair.world.now - start < 60, f"seed {seed}: no convergence"
        slowest = max(slowest, pair.world.now - start - 10)
        pair.world.run_for(60)
        assert one_tunnel(pair.a, pair.b), f"seed {seed}: something is left over"
    row(
        "faults", id="F4", fault="delays of 0 to 3 s for 10 s", moment="handshake, two phase 2 at once",
        target=kind,
        figure=f"{first} of {len(seeds)} up meanwhile, the last {slowest:.2f} s after it",
    )  # fmt: skip
    assert slowest <= 10


# ------------------------------------------------------------------------------- F5


@EVERY_KIND
@pytest.mark.parametrize("name", ["handshake", *EXCHANGES])
def test_one_bit(kind: Kind, name: str, row: TellRow, request: pytest.FixtureRequest) -> None:
    """One bit of one byte of one message, which arrives so and not otherwise; its repetition heals it."""
    step = 1 if request.config.getoption("--full-faults") else 24
    dice = random.Random(5)
    slowest, cases, torn = 0.0, 0, 0
    for side, count in lengths(kind, name).items():
        for number in range(1, count + 1):
            at = dice.randrange(step)
            while (
                took := seconds_with_flip(kind, name, (side, number, 8 * at + dice.randrange(8)))
            ) is not None:
                seconds, ended = took
                slowest, torn, cases = max(slowest, seconds), torn + ended, cases + 1
                at += step
    row(
        "faults", id="F5", fault="one bit of one byte", moment=name, target=kind,
        figure=f"{cases} corruptions, {torn} established SAs touched, slowest up after {slowest:.2f} s",
    )  # fmt: skip
    assert torn == 0
    assert slowest <= 65, "later than two attempts"


def seconds_with_flip(kind: Kind, name: str, flip: tuple[str, int, int]) -> tuple[float, int] | None:
    """Seconds until an exchange is over of which one bit was wrong, and how many SAs of before it ended.

    None if the message is not that long.
    """
    side, number, bit = flip
    pair = prepared(kind, name, 0)
    place = len(sent_by(pair.world, side)) + number
    before = set(pair.a.installed) | set(pair.b.installed)
    short: list[bool] = []

    def corrupt(datagram: Datagram) -> list[tuple[float, bytes]] | None:
        if datagram.sender != side or datagram.number != place:
            return None
        if bit >= 8 * len(datagram.data):
            short.append(True)
            return None
        return [(0.01, flip_bit(datagram.data, bit))]

    pair.world.interceptors.append(corrupt)
    begin(pair, name)
    start = pair.world.now
    pair.world.run_for(0.3)
    if short:
        return None
    while not over(pair, name):
        assert pair.world.now - start < 300, f"{name}, {flip}: never over"
        begin(pair, name)
        pair.world.run_for(0.3)
    ended = [down.spi_in for gateway in (pair.a, pair.b) for down in gateway.of(ChildDown)]
    gone = [down for gateway in (pair.a, pair.b) for down in gateway.of(IkeDown)] if before else []
    return pair.world.now - start, len(before & set(ended)) + len(gone)


# ------------------------------------------------------------------------------- F11, F12


def begin_race(pair: Pair, command: str, other: str, lowest: str) -> None:
    """Both sides act at once; `lowest` of their nonces is the lowest."""
    led = Led.of(lowest, pair)
    led.requests()
    getattr(pair.a, command)()
    getattr(pair.b, other)()
    led.answers()


@dataclass(slots=True)
class Race:
    """What came of races under traffic, over all of them."""

    runs: int = 0
    packets: int = 0
    lost: int = 0
    slowest: float = 0.0

    def run(self, kind: Kind, seed: int, commands: tuple[str, str], loses: bool) -> None:
        """One race: the order of nonces and the message that is lost go with the seed."""
        pair = kind.pair(seed, entropy=LedEntropy)
        pair.establish()
        stream = Stream(pair.world)
        stream.start()
        pair.world.run_for(0.5)
        if loses:
            lose(pair.world, "ab"[seed // 4 % 2], 1 + seed // 8 % 4)
        start = pair.world.now
        before = pair.a.child().spi_in
        begin_race(pair, *commands, LOWEST[seed % 4])
        pair.world.run_until(lambda: settled(pair, before if "rekey_child" in commands else None), within=60)
        self.slowest = max(self.slowest, pair.world.now - start)
        pair.world.run_for(6)
        stream.stop()
        assert send_alike(pair.a, pair.b)
        self.runs += 1
        self.packets += stream.sent
        self.lost += len(stream.lost) + stream.kept

    def figure(self) -> str:
        """For the table."""
        return f"{self.lost} of {self.packets} packets lost, sending alike after {self.slowest:.2f} s at most"


def settled(pair: Pair, before: int | None) -> bool:
    """Both sides send on the same SA pair, which is another than before where that was asked for."""
    return send_alike(pair.a, pair.b) and pair.a.child().spi_in != before


@pytest.mark.parametrize("loses", [False, True], ids=["no loss", "one loss"])
@pytest.mark.parametrize("kind", [V2, V1_MAIN], ids=str)
def test_both_rekey_the_child(kind: Kind, loses: bool, row: TellRow, request: pytest.FixtureRequest) -> None:
    race = Race()
    for seed in many(request, 320, few=32 if loses else 20):
        race.run(kind, seed, ("rekey_child", "rekey_child"), loses)
    row(
        "faults", id="F11", fault="both rekey CHILD at once" + ", one loss" * loses,
        moment="traffic, every order of nonces" if kind is V2 else "traffic",
        target=kind, figure=race.figure(),
    )  # fmt: skip
    assert race.lost == 0
    assert loses or race.slowest <= 5


CROSSINGS = {
    "both rekey IKE at once": ("rekey_ike", "rekey_ike"),
    "CHILD x IKE": ("rekey_child", "rekey_ike"),
    "new CHILD x IKE": ("initiate", "rekey_ike"),
}


@pytest.mark.parametrize("loses", [False, True], ids=["no loss", "one loss"])
@pytest.mark.parametrize("name", CROSSINGS)
@pytest.mark.parametrize("kind", [V2, V1_MAIN], ids=str)
def test_ike_crosses(
    kind: Kind, name: str, loses: bool, row: TellRow, request: pytest.FixtureRequest
) -> None:
    race = Race()
    for seed in many(request, 320, few=20):
        race.run(kind, seed, CROSSINGS[name], loses)
    row(
        "faults", id="F12", fault=name + ", one loss" * loses, moment="traffic", target=kind,
        figure=race.figure(),
    )  # fmt: skip
    assert race.lost == 0


def test_every_case_of_the_exchange_suites_is_accounted_for(row: TellRow) -> None:
    """The ladders themselves are in tests/simulation/exchanges."""
    cases = sum(map(len, SUITES.values()))
    excused = len(NOT_APPLICABLE)
    other = sum("RFC 6311" in reason for reason in NOT_APPLICABLE.values())
    row(
        "faults", id="F12", fault="strongSwan's exchange cases", moment="both roles, every order of nonces",
        target=V2, figure=f"{cases - excused} played, {other} need RFC 6311, {excused - other} RFC 9370",
    )  # fmt: skip
    assert (cases - excused) + other == 54


# ------------------------------------------------------------------------------- F13


@EVERY_KIND
def test_both_initiate_at_once(kind: Kind, row: TellRow, request: pytest.FixtureRequest) -> None:
    """One SA pair within ten seconds, and in the ten minutes after that nothing changes."""
    slowest, ups = 0.0, 0
    seeds = many(request, 500)
    for seed in seeds:
        pair = kind.pair(seed, Weather(delay=(0.005, 0.1)))
        pair.a.initiate()
        pair.world.run_for(0.01 * (seed % 11))
        pair.b.initiate()
        start = pair.world.now
        pair.world.run_until(lambda: one_tunnel(pair.a, pair.b), within=20)  # noqa: B023 (used at once)
        slowest = max(slowest, pair.world.now - start)
        pair.world.run_for(max(0.0, start + 10 - pair.world.now))
        before = len(pair.a.of(ChildUp)) + len(pair.b.of(ChildUp))
        assert one_tunnel(pair.a, pair.b)
        pair.world.run_for(600 if seed % 5 == 0 else 60)
        assert one_tunnel(pair.a, pair.b)
        ups += len(pair.a.of(ChildUp)) + len(pair.b.of(ChildUp)) - before
    row(
        "faults", id="F13", fault="both initiate at once", moment="start", target=kind,
        figure=f"one SA pair after {slowest:.2f} s at most, {ups} changes in the 10 min after",
    )  # fmt: skip
    assert slowest <= 10
    assert ups == 0


# ------------------------------------------------------------------------------- F14

QUICK_MODE, CREATE_CHILD_SA = 32, 36
RESPONSE_FLAG = 0x20
SHORT_LIVED = Recipe(child_lifetime=3600, ike_lifetime=86_400)


@pytest.mark.parametrize("kind", [V2, V1_MAIN], ids=str)
def test_the_answer_to_a_rekey_never_comes(kind: Kind, full: bool, row: TellRow) -> None:
    """The peer is there, and its answer is lost again and again: a new IKE SA comes before the hard end."""
    gap, packets, lost, margin = 0.0, 0, 0, float("inf")
    for seed in SEEDS if full else SEEDS[::4]:
        world, a, b = kind.lives(seed, SHORT_LIVED)
        world.run_until(lambda: send_alike(a, b), within=10)  # noqa: B023 (used at once)
        (ike,) = a.ike_sas()
        hard = world.now + SHORT_LIVED.child_lifetime
        mute(world, ike.spi_i)
        world.run_for(0.78 * SHORT_LIVED.child_lifetime)
        stream = Stream(world, interval=0.5)
        stream.start()
        old = a.child().spi_in
        world.run_until(lambda: send_alike(a, b) and a.child().spi_in != old, within=1000)  # noqa: B023 (called within this turn)
        margin = min(margin, hard - world.now)
        world.run_for(20)
        stream.stop()
        gap, packets, lost = (
            max(gap, stream.gap),
            packets + stream.sent,
            lost + len(stream.lost) + stream.kept,
        )
    row(
        "faults", id="F14", fault="rekey never answered", moment="soft to hard lifetime, traffic",
        target=kind,
        figure=f"replaced {margin:.0f} s before the hard end, gap {gap:.2f} s, {lost} of {packets} lost",
    )  # fmt: skip
    assert gap <= 3.0
    assert margin > 0


def mute(world: World, spi_i: bytes) -> None:
    """What `b` answers to CREATE_CHILD_SA and quick mode under this IKE SA is lost."""

    def silence(datagram: Datagram) -> list[tuple[float, bytes]] | None:
        data = datagram.data
        answer = data[EXCHANGE_TYPE] == QUICK_MODE or (
            data[EXCHANGE_TYPE] == CREATE_CHILD_SA and data[FLAGS] & RESPONSE_FLAG
        )
        return [] if answer and datagram.sender == "b" and data[:8] == spi_i else None

    world.interceptors.append(silence)
