"""What every format is read into: connections in vpnd's words, and remarks on what was not taken over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vpnd.config.mappings import MAX_MAPPINGS
from vpnd.model.secret import Secret
from vpnd.model.text import printable

MAX_SHOWN = 200
"""Ours: characters of a line that a remark repeats."""

MAX_RANGES = 1000
"""Ours: of one value, and rules of one connection; `vpnd check` names the 200 that a gateway may have."""

MAX_CONNECTIONS = 2000
"""Ours: of one import, and as many keys; vpnd is tested with a thousand tunnels."""

MAX_OWNERS = 10 * MAX_CONNECTIONS
"""Ours: identities and addresses of all keys."""


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

    _said: dict[Remark, None] = field(default_factory=dict)

    @property
    def found(self) -> list[Remark]:
        """All of them."""
        return list(self._said)

    def add(self, place: Place, line: str, text: str) -> None:
        """Say it once."""
        self._said.setdefault(Remark(place, line, text))


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
    _owners: int = 0

    def add(self, connection: Connection) -> None:
        """One more. Raises Broken where there are too many, or it has too many rules."""
        bounded(connection.rules, connection.place, connection.name)
        if len(self.connections) == MAX_CONNECTIONS:
            raise Broken(connection.place, f"there are more than {MAX_CONNECTIONS} connections: {IN_PARTS}")
        self.connections.append(connection)

    def add_key(self, key: Key) -> None:
        """One more. Raises Broken where there are too many."""
        if len(self.keys) == MAX_CONNECTIONS:
            raise Broken(key.place, f"there are more than {MAX_CONNECTIONS} keys: {IN_PARTS}")
        self.keys.append(key)

    def count_owners(self, number: int, place: Place) -> None:
        """So many owners of a key follow. Raises Broken where there are too many of all keys."""
        self._owners += number
        if self._owners > MAX_OWNERS:
            raise Broken(place, f"the keys have more than {MAX_OWNERS} owners: {IN_PARTS}")


IN_PARTS = "import a part of them at a time"


def bounded(ranges: Sequence[object], place: Place, where: str) -> None:
    """Raises Broken if one value or one connection has more ranges than any gateway takes."""
    if len(ranges) > MAX_RANGES:
        text = f"{where[:MAX_SHOWN]} has {len(ranges)} ranges, and vpnd takes at most {MAX_MAPPINGS} mappings"
        raise Broken(place, f"{text}: write larger ranges that hold them")


EVERYONE = frozenset({"%any", "%any6", "0.0.0.0", "::", ""})  # noqa: S104 (read, never bound)


class Keyring:
    """The keys of an import, found by whom they are for."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._for_everyone: Secret | None = None
        self._by_owner: dict[str, list[tuple[int, frozenset[str], Secret]]] = {}
        for number, key in enumerate(keys):
            named = frozenset({owner.lower().lstrip("@") for owner in key.owners} - EVERYONE)
            if not named and self._for_everyone is None:
                self._for_everyone = key.secret
            for owner in named:
                self._by_owner.setdefault(owner, []).append((number, named, key.secret))

    def key_for(self, connection: Connection) -> Secret | None:
        """The key whose owners fit best: both ends, the peer, we, everyone; of equals the first."""
        ours = _names(connection.local_id, connection.local_address)
        theirs = _names(connection.remote_id, connection.remote_address)
        fitting = [
            (-4 * bool(named & theirs) - 2 * bool(named & ours), number, secret)
            for name in ours | theirs
            for number, named, secret in self._by_owner.get(name, ())
            if named & theirs or named <= ours
        ]
        if not fitting:
            return self._for_everyone
        return min(fitting, key=lambda one: one[:2])[2]


def _names(*texts: str | None) -> set[str]:
    return {text.lower().lstrip("@") for text in texts if text}
