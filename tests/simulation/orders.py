"""Every order in which messages in flight can arrive, and every single loss among them, one history each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .pair import Pair
from .weather import Datagram

MOMENT = 0.001
"""Seconds between two arrivals: far less than any timer, so that only the order differs."""


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


def histories(make: Callable[[], Pair], begin: Callable[[Pair], None], losses: int = 0) -> Iterator[Pair]:
    """One Pair for each order of arrival of what `begin` sets going, with up to `losses` messages lost.

    When everything in flight has arrived or is lost the Pair is handed out, its sky clear again; the caller
    lets time pass and looks at what has become of it. The choices are the last line of its log.
    """
    script: list[int] | None = []
    while script is not None:
        pair = make()
        choices = Choices(script)
        _live_through(pair, begin, choices, losses)
        pair.world.log.append(f"choices {choices.taken}")
        yield pair
        script = choices.successor()


def _live_through(pair: Pair, begin: Callable[[Pair], None], choices: Choices, losses: int) -> None:
    held: list[Datagram] = []

    def hold(datagram: Datagram) -> list[tuple[float, bytes]]:
        held.append(datagram)
        return []

    pair.world.interceptors.append(hold)
    begin(pair)
    while held:
        # The first branches deliver a message, the others lose one.
        arrivals = len(held)
        branch = choices.choose(2 * arrivals if losses else arrivals)
        datagram = held.pop(branch % arrivals)
        pair.world.run_for(MOMENT)
        if branch < arrivals:
            pair.world.deliver(datagram)
        else:
            losses -= 1
    pair.world.clear_sky()
