"""A small set of combinations in which every pair of values of two different axes meets at least once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations, product


def pairs_of(row: Sequence[Hashable]) -> set[tuple[tuple[int, Hashable], tuple[int, Hashable]]]:
    """Every pair of (axis, value) that meets in one combination."""
    return set(combinations(enumerate(row), 2))


def pairwise(*axes: Sequence[Hashable]) -> list[tuple[Hashable, ...]]:
    """Greedily take what covers most pairs not met yet; of equals, what has been used least. It never varies."""
    candidates = list(product(*axes))
    missing = set().union(*map(pairs_of, candidates))
    used: Counter[tuple[int, Hashable]] = Counter()
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
