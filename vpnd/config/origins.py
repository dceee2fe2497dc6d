"""The effective values of a tunnel, and where each of them comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vpnd.config.compile import describe
from vpnd.config.configuration import Tunnel, dotted
from vpnd.config.load import Loaded
from vpnd.config.places import Path as KeyPath
from vpnd.config.schema import PROFILES
from vpnd.config.secrets import KEYS


class Origin(StrEnum):
    """What decided a value."""

    FILE = "file"
    PROFILE = "profile"
    DEFAULT = "default"
    DERIVED = "derived"
    """From another value: an identity from an address, the interface from the tunnel's name."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value: its dotted key within the tunnel's table, and where it comes from.

    `place` is `FILE:LINE` of what was written, or of the value that it is derived from; None: of nothing.
    """

    key: str
    value: object
    origin: Origin
    place: str | None = None


def settings(loaded: Loaded, name: str, local_id: str | None = None) -> list[Setting]:
    """Every value of a tunnel in the order of its table; fingerprints in place of keys.

    `local_id`: as of `describe`. Raises KeyError for a tunnel that there is not.
    """
    tunnel = loaded.configuration.tunnels[name]
    table = describe(loaded, name, local_id)
    found = [_named_gateway(loaded, tunnel)]
    found += [_key(tunnel, key) for key in KEYS if key in tunnel.written]
    del table["customer_gateway"]
    return found + [_setting(loaded, tunnel, path, value) for path, value in _leaves((), table)]


def _leaves(path: KeyPath, value: object) -> Iterator[tuple[KeyPath, object]]:
    """The values of a table and of its tables; of a list of tables those of each."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves((*path, key), inner)
    elif isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        for index, entry in enumerate(value):
            yield from _leaves((*path, index), entry)
    else:
        yield path, value


def _setting(loaded: Loaded, tunnel: Tunnel, path: KeyPath, value: object) -> Setting:
    key = dotted(path)
    if _at(tunnel.written, path) is not None:
        return Setting(key, value, Origin.FILE, tunnel.source.place((*tunnel.path, *path)))
    if _at(PROFILES[tunnel.table.profile], path) is not None:
        return Setting(key, value, Origin.PROFILE, tunnel.source.place((*tunnel.path, "profile")))
    derived, place = _derived(loaded, tunnel, key)
    if derived and value is not None:
        return Setting(key, value, Origin.DERIVED, place)
    return Setting(key, value, Origin.DEFAULT)


def _derived(loaded: Loaded, tunnel: Tunnel, key: str) -> tuple[bool, str | None]:
    """Whether a value that is left out is made of another, and the place of that one."""
    configuration = loaded.configuration
    if key == "ike.local_id" and configuration.gateway_source is not None:
        return True, configuration.gateway_source.place(("gateway", "address"))
    peer = configuration.customer_gateway(tunnel)
    if key == "ike.remote_id" and peer is not None:
        return True, peer.source.place((*peer.path, "address"))
    return key in ("interface", "health_check.local", "health_check.remote"), None


def _named_gateway(loaded: Loaded, tunnel: Tunnel) -> Setting:
    """The address of the customer gateway; its place is that of the address."""
    peer = loaded.configuration.customer_gateway(tunnel)
    if peer is None:
        return Setting("customer_gateway", None, Origin.DEFAULT)
    value = {"name": peer.name, "address": peer.table.address}
    return Setting("customer_gateway", value, Origin.FILE, peer.source.place((*peer.path, "address")))


def _key(tunnel: Tunnel, key: str) -> Setting:
    secret = tunnel.secret if key == "pre_shared_key" else tunnel.next_secret
    fingerprint = secret.fingerprint() if secret is not None else None
    return Setting(key, fingerprint, Origin.FILE, tunnel.source.place((*tunnel.path, key)))


def _at(table: object, path: KeyPath) -> Any:
    """What stands at `path`; None where nothing does."""
    for part in path:
        if isinstance(table, Mapping):
            table = table.get(part)
        elif isinstance(table, list) and isinstance(part, int) and part < len(table):
            table = table[part]
        else:
            return None
    return table
