"""What every format is read into: connections in vpnd's words, and remarks on what was not taken over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vpnd.model.secret import Secret
from vpnd.model.text import printable

MAX_SHOWN = 200
"""Ours: characters of a line that a remark repeats."""


class Place(NamedTuple):
    """Where something stands."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class Broken(Exception):
    """A file that cannot be read as its format; `place` says where."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(f"{place}  {printable(message)}")
        self.place = place
        self.message = printable(message)


@dataclass(frozen=True, slots=True)
class Remark:
    """A line that was not taken over: what it means, and what to do."""

    place: Place
    line: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}  {printable(self.line[:MAX_SHOWN])}\n    {printable(self.text)}"


@dataclass(slots=True)
class Remarks:
    """They are collected in the order of the files, each once."""

    found: list[Remark] = field(default_factory=list)

    def add(self, place: Place, line: str, text: str) -> None:
        """Say it once."""
        remark = Remark(place, line, text)
        if remark not in self.found:
            self.found.append(remark)


@dataclass(slots=True)
class Rule:
    """Ranges of both ends, perhaps for a protocol and ports, in vpnd's words."""

    local: list[str]
    remote: list[str]
    protocol: str | None = None
    local_port: str | None = None
    remote_port: str | None = None


@dataclass(slots=True)
class Algorithms:
    """vpnd's words, the preferred first."""

    encryption: list[str] = field(default_factory=list)
    integrity: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    esn: set[bool] = field(default_factory=set)


@dataclass(slots=True)
class Connection:
    """One tunnel to be. None: not said. `dpd` is the timeout, 0: off; lifetimes are in seconds."""

    name: str
    place: Place
    ikev2: bool = True
    aggressive: bool = False
    local_address: str | None = None
    remote_address: str | None = None
    local_id: str | None = None
    remote_id: str | None = None
    ike: Algorithms = field(default_factory=Algorithms)
    esp: Algorithms = field(default_factory=Algorithms)
    ike_lifetime: int | None = None
    esp_lifetime: int | None = None
    kilobytes: int | None = None
    negotiation: str = "passive"
    rules: list[Rule] = field(default_factory=list)
    udp: bool = False
    dpd: int | None = None
    dpd_action: str | None = None
    replay_window: int | None = None
    sha256_96: bool = False
    health: tuple[str, str] | None = None
    secret: Secret | None = None
    interface: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A pre-shared key and for whom it is: identities or addresses; none: for everyone."""

    owners: tuple[str, ...]
    secret: Secret
    place: Place


@dataclass(slots=True)
class Found:
    """All that was read."""

    connections: list[Connection] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    remarks: Remarks = field(default_factory=Remarks)


EVERYONE = frozenset({"%any", "%any6", "0.0.0.0", "::", ""})  # noqa: S104 (read, never bound)


def key_for(connection: Connection, keys: Sequence[Key]) -> Secret | None:
    """The key whose owners fit best: both ends, then the peer, then everyone's."""
    ours = {text.lower() for text in (connection.local_id, connection.local_address) if text}
    theirs = {text.lower() for text in (connection.remote_id, connection.remote_address) if text}
    best: tuple[int, Key | None] = (0, None)
    for key in keys:
        owners = {owner.lower().lstrip("@") for owner in key.owners}
        named = owners - EVERYONE
        mine, others = named & {one.lstrip("@") for one in ours}, named & {one.lstrip("@") for one in theirs}
        if named - mine - others and not others:
            continue
        rank = 4 * bool(others) + 2 * bool(mine) + 1
        if rank > best[0]:
            best = rank, key
    return best[1].secret if best[1] is not None else None
