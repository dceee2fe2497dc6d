"""A small set of combinations in which every pair of values of two different axes meets at least once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product


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
