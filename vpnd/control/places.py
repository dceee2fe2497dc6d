"""Who may have how many requests under way: what lasts never takes the place of what is answered at once.

Followers, actions and questions have places of their own, and of each no user has more than half; root,
who has to be able to see what is wrong and to mend it, has as many again that nobody else gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any
from urllib.parse import parse_qs

ROOT = 0
UNKNOWN_USER = -1
"""Who is on the other end of a socket that does not say."""


class Kind(Enum):
    """What a request does, with the places that there are. The numbers are ours: more is not an operator."""

    FOLLOW = "followers of events", 8
    """It lasts until the client goes."""
    ACT = "actions under way", 16
    """It may wait for a peer, up to ten minutes. `vpnctl up --all` has eight at once."""
    ASK = "questions", 16
    """It is answered at once, unless the client does not read."""

    def __init__(self, words: str, places: int) -> None:
        self.words = words
        self.places = places


ALL_PLACES = 2 * sum(kind.places for kind in Kind)


class Full(Exception):
    """No place is left for this user; the text says of what."""


class Places:
    """Counts what is under way."""

    def __init__(self) -> None:
        self._taken: Counter[tuple[Kind, Hashable]] = Counter()

    @contextmanager
    def take(self, kind: Kind, user: Hashable) -> Iterator[None]:
        """A place while the block runs. Raises Full."""
        mine = self._taken[kind, user]
        others = sum(self._taken[other] for other in self._taken if other[0] is kind and other[1] != ROOT)
        if user == ROOT and mine >= kind.places:
            raise Full(f"root has {mine} {kind.words}")
        if user != ROOT and others >= kind.places:
            raise Full(f"there are {others} {kind.words}")
        if user != ROOT and mine >= kind.places // 2:
            raise Full(f"this user has {mine} {kind.words}")
        self._taken[kind, user] += 1
        try:
            yield
        finally:
            self._taken[kind, user] -= 1
            if not self._taken[kind, user]:
                del self._taken[kind, user]


def kind_of(scope: Mapping[str, Any]) -> Kind:
    """What an HTTP request does."""
    if scope["method"] not in ("GET", "HEAD"):
        return Kind.ACT
    if scope["path"] != "/v1/events":
        return Kind.ASK
    follow = parse_qs(scope["query_string"].decode("ascii", "replace")).get("follow", ["true"])[-1]
    return Kind.ASK if follow.lower() in _NO else Kind.FOLLOW


_NO = ("false", "0", "no", "off", "f", "n")
"""What pydantic takes for false."""
