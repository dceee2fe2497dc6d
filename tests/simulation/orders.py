"""Every order in which messages in flight can arrive, and every single loss among them, one history each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.tables import TellRow
from vpnd.simulate.gateway import Gateway

from .invariants import leaks
from .pair import Pair
from .policies import Recipe
from .weather import Datagram

MOMENT = 0.001
"""Seconds between two arrivals: far less than any timer, so that only the order differs."""

AFTERWARDS = 100.0
"""Seconds for retransmissions to heal what was lost, for duplicates and for lingering IKE SAs."""

UNBOUNDED = 1_000_000

LIFETIME = 3600
RECIPE = Recipe(mappings=2, dpd=False, child_lifetime=LIFETIME, ike_lifetime=LIFETIME)
"""Without signs of life: what heals here is not that a peer is taken for dead."""

EVERY = 10
"""Of so many histories one lives on for two lifetimes, unless all are to."""

TABLE = "exchanges, every order and every single loss"


class Choices:
    """A walk through a tree of choices: follows `script`, then takes the first branch everywhere.

    `taken` and `widths` tell afterwards which branch was taken of how many; `successor` is the script of
    the next walk in depth-first order, None after the last.
    """

    def __init__(self, script: list[int]) -> None:
        self._script = script
        self.taken: list[int] = []
        self.widths: list[int] = []

    def choose(self, width: int) -> int:
        """The branch to take of `width`."""
        place = len(self.taken)
        branch = self._script[place] if place < len(self._script) else 0
        self.taken.append(branch)
        self.widths.append(width)
        return branch

    def successor(self) -> list[int] | None:
        """The script of the next walk."""
        for place in reversed(range(len(self.taken))):
            if self.taken[place] + 1 < self.widths[place]:
                return [*self.taken[:place], self.taken[place] + 1]
        return None


@dataclass(slots=True)
class Tally:
    """How many histories there were, in how many of them a message could be lost, how many were in flight at
    once at most, and how many histories went on for two lifetimes.
    """

    histories: int = 0
    with_loss: int = 0
    in_flight: int = 0
    outlived: int = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What both ends do at once, and what may be left of it: SA pairs of these mappings, and IKE SAs.

    `commands` such as `a initiate 1; b close`: methods of `Gateway`. Nothing arrives between them.
    """

    commands: str
    left: tuple[tuple[int, ...], ...]
    ike_sas: int = 1
    established: bool = True

    def begin(self, pair: Pair) -> None:
        """Give the commands."""
        for command in self.commands.split(";"):
            name, method, *arguments = command.split()
            getattr(pair.world.gateways[name], method)(*map(int, arguments))

    def mirrored(self) -> Scenario:
        """The same with the two sides exchanged: as the other one began the IKE SA."""
        swapped = ((_OTHER[one.split()[0]], one.split()[1:]) for one in self.commands.split(";"))
        return replace(self, commands="; ".join(" ".join((name, *rest)) for name, rest in swapped))

    @property
    def is_its_mirror(self) -> bool:
        """Whether it makes no difference which side is which."""
        return sorted(map(str.strip, self.commands.split(";"))) == sorted(
            map(str.strip, self.mirrored().commands.split(";"))
        )


_OTHER = {"a": "b", "b": "a"}


def histories(
    make: Callable[[], Pair],
    begin: Callable[[Pair], None],
    losses: int = 0,
    tally: Tally | None = None,
    depth: int = UNBOUNDED,
) -> Iterator[Pair]:
    """One Pair for each order of arrival of what `begin` sets going, with up to `losses` messages lost.

    Of long exchanges the first `depth` messages arrive or are lost so; the rest arrives as it was sent.
    When everything in flight has arrived or is lost the Pair is handed out, its sky clear again; the caller
    lets time pass and looks at what has become of it. The choices are the last line of its log.
    """
    tally = tally or Tally()
    script: list[int] | None = []
    while script is not None:
        pair = make()
        choices = Choices(script)
        _live_through(pair, begin, choices, losses, depth, tally)
        tally.histories += 1
        pair.world.log.append(f"choices {choices.taken}")
        yield pair
        script = choices.successor()


def _live_through(
    pair: Pair, begin: Callable[[Pair], None], choices: Choices, losses: int, depth: int, tally: Tally
) -> None:
    held: list[Datagram] = []

    def hold(datagram: Datagram) -> list[tuple[float, bytes]]:
        held.append(datagram)
        return []

    pair.world.interceptors.append(hold)
    begin(pair)
    while held:
        # The first branches deliver a message, the others lose one.
        arrivals = len(held)
        tally.in_flight = max(tally.in_flight, arrivals)
        free = len(choices.taken) < depth
        branch = choices.choose(2 * arrivals if losses else arrivals) if free else 0
        datagram = held.pop(branch % arrivals)
        pair.world.run_for(MOMENT)
        if branch < arrivals:
            pair.world.deliver(datagram)
        else:
            losses -= 1
    pair.world.clear_sky()


@dataclass(frozen=True, slots=True)
class Case:
    """One way to play a scenario: the world before it, the commands, and how many messages are lost.

    Of `every` so many histories one lives on for two lifetimes.
    """

    scenario: Scenario
    what: str
    make: Callable[[], Pair]
    begin: Callable[[Pair], None]
    losses: int
    every: int
    depth: int = UNBOUNDED


def live_all(case: Case, tally: Tally, assert_healed: Callable[[Pair, Scenario], None] | None = None) -> None:
    """Every history of a case: what is left at its end, and of some after two lifetimes.

    `assert_healed`: what holds at the end, where that is less than what holds two lifetimes later.
    """
    first = True
    for pair in histories(case.make, case.begin, case.losses, tally, case.depth):
        pair.world.log.append(f"{case.scenario.commands}, {case.what}")
        tally.with_loss += case.losses
        pair.world.run_for(AFTERWARDS)
        (assert_healed or assert_left)(pair, case.scenario)
        if first or tally.histories % case.every == 0:
            outlive(pair, case.scenario)
            tally.outlived += 1
        first = False


def tell(row: TellRow, version: str, name: str, scenario: Scenario, tally: Tally) -> None:
    """The row of a scenario in the table."""
    row(
        TABLE,
        version=version,
        scenario=name,
        commands=scenario.commands,
        histories=tally.histories,
        with_losses=tally.with_loss,
        in_flight=tally.in_flight,
        outlived=tally.outlived,
    )


def assert_left(pair: Pair, scenario: Scenario) -> None:
    """Both sides hold the same, each no more than the scenario leaves and what it uses, and send alike."""
    pair.assert_agreement()
    held = mappings_of(pair.a)
    if len(pair.a.ike_sas()) != scenario.ike_sas or held not in scenario.left:
        pair.world.fail(f"left: {len(pair.a.ike_sas())} IKE SAs, SA pairs for mappings {held}")
    assert_sending_alike(pair, held)
    if wrong := leaks(pair.a) + leaks(pair.b):
        pair.world.fail("; ".join(wrong))


def assert_sending_alike(pair: Pair, mappings: tuple[int, ...]) -> None:
    """Both sides send on the two halves of one SA pair."""
    for mapping in mappings:
        one, two = pair.a.child(mapping), pair.b.child(mapping)
        if (one.spi_in, one.spi_out) != (two.spi_out, two.spi_in):
            pair.world.fail(f"the two sides send on different SA pairs of mapping {mapping}")


def outlive(pair: Pair, scenario: Scenario) -> None:
    """Two lifetimes later nothing of today is left, and the same mappings are up."""
    today = [set(gateway.installed) for gateway in (pair.a, pair.b)]
    pair.world.run_for(2 * LIFETIME)
    come_to_rest(pair)
    assert_left(pair, scenario)
    for gateway, then in zip((pair.a, pair.b), today, strict=True):
        if left := then & set(gateway.installed):
            spis = [f"{spi:08x}" for spi in sorted(left)]
            pair.world.fail(f"{gateway.name} still holds SAs of two lifetimes ago: {spis}")


def come_to_rest(pair: Pair) -> None:
    """Until no succession is under way; at most a lifetime."""
    for _ in range(100):
        if at_rest(pair.a) and at_rest(pair.b):
            return
        pair.world.run_for(LIFETIME / 100)


def at_rest(gateway: Gateway) -> bool:
    """Whether it holds one SA pair for each mapping, and nothing that it does not use."""
    held = mappings_of(gateway)
    return len(held) == len(set(held)) and not leaks(gateway)


def mappings_of(gateway: Gateway) -> tuple[int, ...]:
    """The mapping of each SA pair that it holds."""
    return tuple(sorted(child.mapping for child in gateway.children()))
