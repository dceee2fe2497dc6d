"""A configuration without its keys, as it is kept: the tables of every file, fingerprints in place of keys.

What is kept can be used again together with keys: those of the moment, or of the confirmed configuration,
which comes back with its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from functools import partial
from pathlib import Path
from typing import Any

from vpnd.config.configuration import Source, dotted
from vpnd.config.places import NOWHERE
from vpnd.config.secrets import KEYS
from vpnd.model.secret import Secret

PLAIN = "plain:"
"""How a key begins that stands in the file itself."""

FINGERPRINT = "fingerprint:"
"""How what stands in its place begins."""

Keys = tuple[Secret, Secret | None]
"""The key of a tunnel, and the next one if there is one."""

_TIME = "$time"
"""What a date or time of TOML is in JSON: a table with this key alone, which no table of ours has."""


class Unreadable(Exception):
    """What was kept is no snapshot of this version."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of a configuration, in their order. No source holds a key."""

    sources: tuple[Source, ...]

    @classmethod
    def of(cls, sources: Iterable[Source]) -> Snapshot:
        """What is to be kept of these files."""
        return cls(tuple(source.once("snapshot", (), partial(_without_keys, source)) for source in sources))

    @property
    def digest(self) -> str:
        """The same for the same tables of the same files, whatever the keys in them."""
        hidden = [_with_each_key(source, lambda name, key, text: _hidden(text)) for source in self.sources]
        return hashlib.sha256(_text([_document(source) for source in hidden]).encode()).hexdigest()

    def text(self) -> str:
        """As JSON; the same for the same configuration."""
        return f"[{', '.join(source.once('text', (), partial(_text_of, source)) for source in self.sources)}]"

    @classmethod
    def from_document(cls, document: object) -> Snapshot:
        """The snapshot that `document` came from. Raises Unreadable."""
        try:
            found = json.loads(json.dumps(document), object_hook=_timed)
            return cls(tuple(_source(one) for one in found))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unreadable(f"what was kept is no configuration of this version: {error}") from None

    def with_keys(
        self,
        files: Sequence[Source],
        keys: Mapping[str, Keys] | None = None,
        disabled: frozenset[str] = frozenset(),
    ) -> tuple[Source, ...]:
        """The files of the snapshot with the keys that `files` has of the same tunnels.

        `keys` are those of tunnels for which that is not enough. A tunnel whose key is nowhere has its
        fingerprint, which is no key. `disabled`: what an operator has disabled is not rolled back either.
        """
        known = keys or {}

        def find(name: str, key: str, text: str) -> str:
            if not text.startswith(FINGERPRINT):
                return text
            for source in files:
                found = _tunnels(source).get(name, {}).get(key)
                if isinstance(found, str) and not found.startswith(FINGERPRINT):
                    return _absolute(found, source)
            return text

        def whole(source: Source) -> Source:
            own = {name: known[name] for name in _tunnels(source) if name in known}
            first = {name: key for name, (key, _) in own.items()}
            following = {name: key for name, (_, key) in own.items() if key is not None}
            filled = _with_each_key(source, find)
            return replace(filled, keys=first, next_keys=following, disabled=disabled)

        return tuple(whole(source) for source in self.sources)

    def without(self, tunnels: Iterable[str]) -> Snapshot:
        """The same but for these tunnels."""
        left_out = frozenset(tunnels)
        return Snapshot(tuple(_without(source, left_out) for source in self.sources))


# ---------------------------------------------------------------------------------------- keys


def _without_keys(source: Source) -> Source:
    def hide(name: str, key: str, text: str) -> str:
        if not text.startswith(PLAIN):
            return text
        secret = Secret(text.removeprefix(PLAIN).encode(errors="backslashreplace"))
        return FINGERPRINT + secret.fingerprint()

    return replace(_with_each_key(source, hide), places=NOWHERE, keys={}, next_keys={}, private=True)


def _with_each_key(source: Source, change: Callable[[str, str, str], str]) -> Source:
    """The source with another reference for each key: `change` gets tunnel, key of the table, and text."""
    tunnels = {
        name: {
            key: change(name, key, value) if key in KEYS and isinstance(value, str) else value
            for key, value in table.items()
        }
        for name, table in _tunnels(source).items()
    }
    return replace(source, tables={**source.tables, "tunnels": tunnels}) if tunnels else source


def _hidden(text: str) -> str:
    return FINGERPRINT if text.startswith((FINGERPRINT, PLAIN)) else text


def _absolute(reference: str, source: Source) -> str:
    """A key's reference as it is understood in any file."""
    kind, _, path = reference.partition(":")
    return f"file:{source.beside(path)}" if kind == "file" else reference


def _tunnels(source: Source) -> Mapping[str, Mapping[str, Any]]:
    found = source.tables.get("tunnels")
    whole = isinstance(found, Mapping) and all(isinstance(table, Mapping) for table in found.values())
    return found if whole and isinstance(found, Mapping) else {}


def _without(source: Source, names: frozenset[str]) -> Source:
    tunnels = {name: table for name, table in _tunnels(source).items() if name not in names}
    others = {key: value for key, value in source.tables.items() if key != "tunnels"}
    return replace(source, tables={**others, "tunnels": tunnels} if tunnels else others)


def tunnel_of(key: str | None, names: Iterable[str]) -> str | None:
    """The tunnel among `names` whose table a problem's dotted key is in."""
    return next((name for name in names if f"{key}.".startswith(f"{dotted(('tunnels', name))}.")), None)


# ---------------------------------------------------------------------------------------- JSON


def _text_of(source: Source) -> str:
    return _text(_document(source))


def _document(source: Source) -> dict[str, Any]:
    return {
        "file": source.label,
        "path": str(source.path) if source.path is not None else None,
        "main": source.main,
        "from_api": source.from_api,
        "tables": source.tables,
    }


def _source(document: Mapping[str, Any]) -> Source:
    path = document["path"]
    if not isinstance(document["tables"], dict):
        raise TypeError("tables")
    return Source(
        label=str(document["file"]),
        tables=document["tables"],
        path=Path(path) if path is not None else None,
        main=bool(document["main"]),
        from_api=bool(document["from_api"]),
        private=True,
    )


def _text(value: object) -> str:
    return json.dumps(value, default=_tagged, sort_keys=False)


def _tagged(value: object) -> dict[str, str]:
    if isinstance(value, datetime | date | time):
        return {_TIME: value.isoformat()}
    raise TypeError(f"a configuration holds no {type(value).__name__}")


def _timed(table: dict[str, Any]) -> Any:
    text = table.get(_TIME)
    if not isinstance(text, str) or len(table) != 1:
        return table
    if "T" in text:
        return datetime.fromisoformat(text)
    return date.fromisoformat(text) if "-" in text else time.fromisoformat(text)
