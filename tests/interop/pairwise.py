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
    candidates = {row: pairs_of(row) for row in product(*axes)}
    missing = set().union(*candidates.values())
    used: Counter[tuple[int, str]] = Counter()
    chosen = []
    while missing:
        news = {row: len(pairs & missing) for row, pairs in candidates.items()}
        most = max(news.values())
        equals = (row for row, new in news.items() if new == most)
        best = min(equals, key=lambda row: sum(used[place] for place in enumerate(row)))
        missing -= candidates[best]
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
