"""The state directory: tunnels made through the API, one TOML file each, with their keys beside them.

    STATE/tunnels.d/NAME.toml    mode 0600, what `vpnd check` reads as well
    STATE/tunnels.d/NAME.psk     mode 0600, the key

A file is written beside its place and renamed over it, so that a crash leaves the old one or the new one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from vpnd.config.load import TUNNELS_DIRECTORY
from vpnd.model.secret import Secret

KEY_SUFFIX = ".psk"


class StateFailed(Exception):
    """A file could not be written or removed; `str` says which and why."""


class StateDirectory:
    """Reads nothing: the configuration's loader does. Writes and removes the API's tunnels."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tunnels = path / TUNNELS_DIRECTORY

    def tunnel_file(self, name: str) -> Path:
        """Where the tunnel of this name is kept."""
        return self.tunnels / f"{_file_name(name)}.toml"

    def key_file(self, name: str) -> Path:
        """Where its key is kept."""
        return self.tunnels / f"{_file_name(name)}{KEY_SUFFIX}"

    def write(self, name: str, text: str, key: Secret | None) -> None:
        """Keep a tunnel, its key first; `key` None leaves the key as it is. Raises StateFailed."""
        try:
            self.tunnels.mkdir(mode=0o700, parents=True, exist_ok=True)
            if key is not None:
                _replace(self.key_file(name), key.reveal() + b"\n")
            _replace(self.tunnel_file(name), text.encode())
        except OSError as error:
            raise StateFailed(f"{error.filename or self.tunnels}: {error.strerror}") from None

    def remove(self, name: str) -> None:
        """Forget a tunnel and its key; what is not there is fine. Raises StateFailed."""
        for path in (self.tunnel_file(name), self.key_file(name)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StateFailed(f"{path}: {error.strerror}") from None


def to_toml(name: str, table: Mapping[str, object]) -> str:
    """The text of a file with this one tunnel. Raises ValueError for a value that TOML does not have."""
    return "\n".join(_table(("tunnels", name), table)) + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, object]) -> list[str]:
    """A table: its plain values, then its tables, then its arrays of tables, as TOML wants them."""
    lines = ["[" + ".".join(_key(part) for part in path) + "]"]
    lines += [f"{_key(k)} = {_value(v)}" for k, v in table.items() if not _is_tables(v) and v is not None]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", *_table((*path, key), value)]
        elif _is_tables(value) and isinstance(value, list):
            for entry in value:
                first, *rest = _table((*path, key), entry)
                lines += ["", f"[{first}]", *rest]
    return lines


def _is_tables(value: object) -> bool:
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    raise ValueError(f"a configuration holds no {type(value).__name__}")


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _text(key)


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _file_name(name: str) -> str:
    """The name as one path component: everything but letters, digits, '-', '_' and '.' is escaped."""
    return quote(name, safe="").replace("~", "%7E")


def _replace(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 beside `path`, then rename it over `path`."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".new", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
