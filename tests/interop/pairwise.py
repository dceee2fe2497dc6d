"""A small set of combinations in which every pair of values of two different axes meets at least once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, combinations_with_replacement, product


def pairs_of(row: Sequence[str]) -> set[tuple[tuple[int, str], tuple[int, str]]]:
    """Every pair of (axis, value) that meets in one combination."""
    return set(combinations(enumerate(row), 2))


def pairwise(*axes: Sequence[str]) -> list[tuple[str, ...]]:
    """Greedily take what covers most pairs not met yet; of equals, what is used least. It never varies."""
    candidates = list(product(*axes))
    missing = set().union(*map(pairs_of, candidates))
    used: Counter[tuple[int, str]] = Counter()
    chosen = []
    while missing:
        best = max(
            candidates,
            key=lambda row: (len(pairs_of(row) & missing), -sum(used[place] for place in enumerate(row))),
        )
        missing -= pairs_of(best)
        used.update(enumerate(best))
        chosen.append(best)
    return chosen


def left_out(chosen: Iterable[Sequence[str]], *axes: Sequence[str]) -> list[set[tuple[int, str]]]:
    """The pairs of (axis, value) of the whole product, and the single ones, that no chosen row has."""
    places = [(axis, value) for axis, values in enumerate(axes) for value in values]
    pairs = [{one, other} for one, other in combinations_with_replacement(places, 2)]
    meetings = [frozenset(enumerate(row)) for row in chosen]
    possible = [pair for pair in pairs if len(pair) == len({axis for axis, _ in pair})]
    return [pair for pair in possible if not any(pair <= meeting for meeting in meetings)]
