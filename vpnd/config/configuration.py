"""A configuration as it was read and validated: which table, from which file, at which line."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from vpnd.config.places import NOWHERE, Places
from vpnd.config.places import Path as KeyPath
from vpnd.config.problems import Problem, Severity
from vpnd.config.schema import (
    ApiTable,
    CustomerGatewayTable,
    GatewayLabels,
    GatewayTable,
    MetricsTable,
    TunnelTable,
)
from vpnd.config.stamps import Stamp
from vpnd.config.values import check_name
from vpnd.model.secret import Secret
from vpnd.model.text import MASKED, may_be_a_key, printable

NAMED: tuple[KeyPath, ...] = (("tunnels",), ("customer_gateways",))
"""Tables whose keys are names that an operator gives."""


T = TypeVar("T")


class Tables(dict[str, object]):
    """The tables of a file, as TOML has them. They are never changed, so what was valid once stays so."""

    __slots__ = ("digest", "stamp", "valid")

    def __init__(self, tables: Mapping[str, object], digest: bytes, stamp: Stamp | None = None) -> None:
        super().__init__(tables)
        self.digest = digest
        """SHA-256 of the file's content."""
        self.stamp = stamp
        """The file's when it was read last; None where the content may change under it."""
        self.valid: dict[tuple[type[BaseModel], KeyPath], BaseModel] = {}
        """The tables that were found to be valid by themselves."""

    def read_again(self, stamp: Stamp | None) -> Tables:
        """The same tables, of a file whose mode has changed or that is used in another way."""
        again = Tables(self, self.digest, stamp)
        again.valid = self.valid
        return again


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or one tunnel that came through the API before it is a file.

    `private`: only its owner can read it. `keys` and `next_keys` are keys of tunnels that are not on disk
    yet, by tunnel.
    """

    label: str
    tables: Mapping[str, object]
    places: Places = NOWHERE
    path: Path | None = None
    main: bool = False
    from_api: bool = False
    private: bool = False
    keys: Mapping[str, Secret] = field(default_factory=dict)
    next_keys: Mapping[str, Secret] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    """Tunnels of whatever file that an operator has disabled, as the state directory says."""
    _found: dict[Hashable, tuple[tuple[Any, ...], Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def once(self, what: Hashable, of: tuple[Any, ...], find: Callable[[], T]) -> T:
        """What `find` says of this source, which never changes, and of the values `of`.

        It is asked once, and again only where they are others than the last time.
        """
        known = self._found.get(what)
        if known is not None and known[0] == of:
            found: T = known[1]
            return found
        found = find()
        self._found[what] = of, found
        return found

    def beside(self, path: str) -> Path:
        """A path that stands in this file: a relative one is relative to the file's directory."""
        return Path(path) if self.path is None else self.path.parent / path

    def place(self, path: KeyPath) -> str:
        """`FILE:LINE` of what stands at `path`, or `FILE` where no line is known."""
        line = self.places.line(path)
        return self.label if line is None else f"{self.label}:{line}"


@dataclass(frozen=True, slots=True)
class CustomerGateway:
    """One `[customer_gateways.NAME]`, or the table that a tunnel has in its place."""

    name: str
    table: CustomerGatewayTable
    source: Source
    path: KeyPath

    @property
    def place(self) -> str:
        """`FILE:LINE` of its table."""
        return self.source.place(self.path)

    @property
    def from_api(self) -> bool:
        """Whether it was made over the API as a resource of its own: its file holds no tunnel."""
        return self.source.from_api and "tunnels" not in self.source.tables


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One `[tunnels.NAME]`, validated by itself; `secret` is None if it could not be read.

    So is `next_secret`, the key that takes its place, or if there is none.
    `disabled`: an operator has disabled it, whatever its table says.
    """

    name: str
    table: TunnelTable
    source: Source
    secret: Secret | None = None
    next_secret: Secret | None = None
    disabled: bool = False

    @property
    def path(self) -> KeyPath:
        """Where its table stands."""
        return ("tunnels", self.name)

    @property
    def written(self) -> Mapping[str, object]:
        """Its table as it stands in the file, without any default."""
        tunnels = self.source.tables.get("tunnels")
        table = tunnels.get(self.name) if isinstance(tunnels, Mapping) else None
        return table if isinstance(table, Mapping) else {}

    @property
    def place(self) -> str:
        """`FILE:LINE` of its table."""
        return self.source.place(self.path)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that is valid by itself, in the order of the files. `gateway` is None if it is not."""

    gateway: GatewayTable | None
    gateway_source: Source | None
    customer_gateways: Mapping[str, CustomerGateway]
    tunnels: Mapping[str, Tunnel]
    metrics: MetricsTable | None = None
    metrics_source: Source | None = None
    api: ApiTable | None = None
    api_source: Source | None = None
    labels_source: Source | None = None
    """What holds the gateway's labels, where that is not its own file but what the API has kept."""

    @property
    def labels_in_file(self) -> KeyPath | None:
        """The first label in the gateway's own file; what the API has kept holds where there is none."""
        table = self.gateway_source.tables.get("gateway") if self.gateway_source is not None else None
        written = table if isinstance(table, Mapping) else {}
        return next((("gateway", key) for key in GatewayLabels.model_fields if key in written), None)

    def customer_gateway(self, tunnel: Tunnel) -> CustomerGateway | None:
        """The customer gateway that a tunnel names, or None if there is none of that name."""
        return self.customer_gateways.get(tunnel.table.customer_gateway)

    @property
    def tables(self) -> dict[str, TunnelTable]:
        """The tunnels' tables, by name."""
        return {name: tunnel.table for name, tunnel in self.tunnels.items()}

    @property
    def spd_mappings(self) -> int:
        """How many mappings the spd-policy tunnels have together."""
        tables = (t.table for t in self.tunnels.values() if t.table.communication == "spd-policy")
        return sum(len(rule.local) * len(rule.remote) for table in tables for rule in table.spd)


class Findings:
    """Collects problems; the order of the files and lines is made at the end."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def error(
        self,
        source: Source,
        path: KeyPath,
        code: str,
        message: str,
        hint: str,
        *,
        at: int | None = None,
    ) -> None:
        """An error at the line of `path`, or at line `at` where the text cannot be parsed."""
        self._add(source, path, code, Severity.ERROR, message, hint, at)

    def add(self, problems: Iterable[Problem]) -> None:
        """What others have collected."""
        self._found.extend(problems)

    def warn(self, source: Source, path: KeyPath, code: str, message: str, hint: str) -> None:
        """A warning at the line of `path`."""
        self._add(source, path, code, Severity.WARNING, message, hint, None)

    def _add(
        self,
        source: Source,
        path: KeyPath,
        code: str,
        severity: Severity,
        message: str,
        hint: str,
        at: int | None,
    ) -> None:
        line = at if at is not None else source.places.line(path)
        key = dotted(tuple(_shown(place, path[:n]) for n, place in enumerate(path))) or None
        self._found.append(Problem(source.label, line, code, severity, message, hint, key))

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def in_order(self, files: list[str]) -> tuple[Problem, ...]:
        """By file in the order of `files`, then by line, without repeats."""
        rank = {printable(label): index for index, label in enumerate(files)}
        unique = dict.fromkeys(self._found)
        return tuple(sorted(unique, key=lambda p: (rank.get(p.file, -1), p.line or 0)))


def _shown(place: str | int, table: KeyPath) -> str | int:
    """A step of a path, as a problem shows it: a name that a tunnel may have, nothing that may be a key."""
    if not isinstance(place, str) or (table in NAMED and check_name(place) is None):
        return place
    return MASKED if may_be_a_key(place) else place


def dotted(path: KeyPath) -> str:
    """`tunnels.branch-a.spd[0].local[1]`; a key that is not bare is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = part.replace("-", "").replace("_", "").isalnum() and part.isascii()
            text += ("." if text else "") + (part if bare else f'"{part}"')
    return text
