"""The state directory: what was made through the API, one TOML file each, the keys of tunnels beside them.

    STATE/tunnels.d/NAME.toml    mode 0600, what `vpnd check` reads as well
    STATE/tunnels.d/NAME.psk     mode 0600, the key
    STATE/tunnels.d/NAME.next-psk  the same, the key that takes its place
    STATE/customer_gateways.d/NAME.toml
    STATE/gateway.toml           the gateway's labels
    STATE/disabled.toml          which tunnels an operator has disabled
    STATE/recordings/NAME.jsonl  mode 0600, its last IKE messages, decoded (`vpnd.daemon.events.recorder`)

NAME is quoted as in a URL; where that is too long for a file, it is its beginning, `+` and a hash.

A file is written beside its place and renamed over it, so that a crash leaves the old one or the new one.
A key and its tunnel are both written before either is renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import accumulate
from pathlib import Path
from urllib.parse import quote

from vpnd.config.configuration import Configuration, Source
from vpnd.config.load import DISABLED_FILE, GATEWAY_FILE, GATEWAYS_DIRECTORY, TUNNELS_DIRECTORY
from vpnd.config.schema import GatewayLabels
from vpnd.config.secrets import KEYS, is_text
from vpnd.model.secret import Secret

REQUEST = "request"
"""What stands for the file in problems of a tunnel that is not on disk yet."""

PLAIN = "plain:"
KEY_SUFFIXES = {"pre_shared_key": ".psk", "next_pre_shared_key": ".next-psk"}

LONGEST_STEM = 250
"""Linux: a file name has at most 255 bytes (NAME_MAX); `.toml` takes five."""
READABLE = 120
"""Ours: bytes of a longer quoted name that its file name begins with."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A tunnel, a customer gateway or the gateway's labels as they would be kept, in `path`.

    Check `source` with `load_with`, then `StateDirectory.write`.
    """

    path: Path
    source: Source
    keys: Mapping[str, Secret] = field(default_factory=dict)
    """By their names in the table."""


class StateDirectory:
    """Writes and removes the API's tunnels; the configuration's loader reads them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tunnels = path / TUNNELS_DIRECTORY
        self.customer_gateways = path / GATEWAYS_DIRECTORY

    def tunnel_file(self, name: str) -> Path:
        """Where the tunnel of this name is kept."""
        return self.tunnels / f"{file_stem(name)}.toml"

    def key_file(self, name: str, key: str = "pre_shared_key") -> Path:
        """Where its key is kept, and the one that takes its place."""
        return self.tunnel_file(name).with_suffix(KEY_SUFFIXES[key])

    def customer_gateway_file(self, name: str) -> Path:
        """Where the customer gateway of this name is kept."""
        return self.customer_gateways / f"{file_stem(name)}.toml"

    def propose_customer_gateway(self, name: str, table: Mapping[str, object]) -> Proposed:
        """The customer gateway as it would be kept; nothing is written yet."""
        path = self.customer_gateway_file(name)
        tables = {"customer_gateways": {name: dict(table)}}
        return Proposed(path, Source(label=REQUEST, tables=tables, path=path, from_api=True))

    def propose_labels(self, table: Mapping[str, object]) -> Proposed:
        """The gateway's labels as they would be kept, without those that are null; nothing is written yet."""
        path = self.path / GATEWAY_FILE
        labels = GatewayLabels.model_fields
        kept = {key: value for key, value in table.items() if value is not None or key not in labels}
        source = Source(label=REQUEST, tables={"gateway": kept}, path=path, from_api=True)
        return Proposed(path, source)

    def propose(self, name: str, table: Mapping[str, object]) -> Proposed:
        """The tunnel as it would be kept; nothing is written yet.

        A `plain:` key goes into a file of its own. A tunnel that exists keeps its keys if `table` has none:
        keys are write-only, so a caller who changes a tunnel need not know it.
        """
        kept, keys = dict(table), {}
        known = self._known(name) if "pre_shared_key" not in kept else {}
        for key in ("pre_shared_key", "next_pre_shared_key", "retire_after"):
            if key in known and key not in kept:
                kept[key] = known[key]
        for key in KEYS:
            reference = kept.get(key)
            if isinstance(reference, str) and reference.startswith(PLAIN) and _can_be_kept(reference):
                keys[key] = Secret(reference.removeprefix(PLAIN).encode())
                kept[key] = f"file:{self.key_file(name, key).name}"
        return self._proposed(name, kept, keys)

    def propose_next_key(self, name: str, key: str | None, retire_after: str | None) -> Proposed:
        """A tunnel that is kept, with this next key (`plain:TEXT`) beside its own; None: without one."""
        table = self._known(name)
        table |= {"next_pre_shared_key": key, "retire_after": retire_after}
        return self.propose(name, {part: value for part, value in table.items() if value is not None})

    def propose_next_alone(self, name: str, following: Secret) -> Proposed:
        """A tunnel that is kept, with its next key, which is this one, in place of its own."""
        table = self._known(name)
        reference, own = (
            table.pop("next_pre_shared_key", None),
            self.key_file(name, "next_pre_shared_key").name,
        )
        table.pop("retire_after", None)
        if reference != f"file:{own}":
            return self._proposed(name, table | {"pre_shared_key": reference}, {})
        table["pre_shared_key"] = f"file:{self.key_file(name).name}"
        return self._proposed(name, table, {"pre_shared_key": following})

    def _proposed(self, name: str, table: Mapping[str, object], keys: Mapping[str, Secret]) -> Proposed:
        source = Source(
            label=REQUEST,
            tables={"tunnels": {name: table}},
            path=self.tunnel_file(name),
            from_api=True,
            keys={name: keys["pre_shared_key"]} if "pre_shared_key" in keys else {},
            next_keys={name: keys["next_pre_shared_key"]} if "next_pre_shared_key" in keys else {},
        )
        return Proposed(self.tunnel_file(name), source, keys)

    def write(self, proposed: Proposed) -> Callable[[], None]:
        """Keep what was checked, with its key; returns what puts back the files that were there.

        Both raise OSError. Where this does, the files are as they were: a new key with the old table would
        fail only at the next start.
        """
        table = proposed.path
        text = to_toml(proposed.source.tables)
        table.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files: dict[Path, Secret | None] = {}
        for key, secret in proposed.keys.items():
            files[table.with_suffix(KEY_SUFFIXES[key])] = Secret(secret.reveal() + b"\n")
        files[table] = Secret(text.encode())
        for file in map(table.with_suffix, KEY_SUFFIXES.values()):
            if f"file:{file.name}" not in text:
                files[file] = None
        before = {path: _content(path) for path in files}
        try:
            replace_files(files)
        except OSError:
            with contextlib.suppress(OSError):  # the first error says why
                replace_files(before)
            raise
        return partial(replace_files, before)

    def remove(self, path: Path) -> None:
        """Forget what is kept in this file, and its key; what is not there is fine. Raises OSError."""
        path.unlink(missing_ok=True)
        for suffix in KEY_SUFFIXES.values():
            path.with_suffix(suffix).unlink(missing_ok=True)

    def write_disabled(self, names: Iterable[str]) -> None:
        """These tunnels, and no others, are disabled, also after a start. Raises OSError."""
        path = self.path / DISABLED_FILE
        listed = sorted(names)
        if listed:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_files({path: Secret(to_toml({"disabled": listed}).encode())})
        else:
            path.unlink(missing_ok=True)

    def _known(self, name: str) -> dict[str, object]:
        try:
            table = tomllib.loads(self.tunnel_file(name).read_text())["tunnels"][name]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return table if isinstance(table, dict) else {}


def file_stem(name: str) -> str:
    """What the files of a tunnel are called, but for their ending.

    It is the name, quoted; of a long one the beginning and a hash.

    A quoted name has no `+`, so none is taken for the other kind.
    """
    quoted = quote(name, safe="", errors="backslashreplace")
    if len(quoted) <= LONGEST_STEM:
        return quoted
    characters = (quote(c, safe="", errors="backslashreplace") for c in name)
    begins = [whole for whole in accumulate(characters) if len(whole) <= READABLE]
    return f"{begins[-1]}+{hashlib.sha256(quoted.encode()).hexdigest()}"


def _can_be_kept(reference: str) -> bool:
    """Whether a `plain:` key has bytes; the loader says what is wrong with one that has none."""
    return reference != PLAIN and is_text(reference)


def exported(configuration: Configuration, name: str, fingerprint: str) -> str:
    """The text of a file that `vpnctl add` takes: the tunnel and what it names, as written, without its key.

    Raises KeyError for a tunnel that there is not.
    """
    tunnel = configuration.tunnels[name]
    table = {key: value for key, value in tunnel.written.items() if key not in KEYS}
    tables: dict[str, object] = {"tunnels": {name: table}}
    peer = configuration.customer_gateway(tunnel)
    if peer is not None and peer.path[0] == "customer_gateways":
        tables = {"customer_gateways": {peer.name: peer.table.model_dump(mode="json")}} | tables
    note = f"# The key is not here; its fingerprint is {fingerprint}. A tunnel that exists keeps its own.\n"
    return f"{note}\n{to_toml(tables)}"


def to_toml(tables: Mapping[str, object]) -> str:
    """The text of a file with these tables. Raises ValueError for a value that TOML does not have."""
    return "\n".join(_table((), tables)).strip("\n") + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, object]) -> list[str]:
    """A table: its plain values, then its tables, then its arrays of tables, as TOML wants them."""
    plain = {key: value for key, value in table.items() if not _is_tables(value) and value is not None}
    lines = ["", "[" + ".".join(_key(part) for part in path) + "]"] if path and (plain or not table) else []
    lines += [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _table((*path, key), value)
        elif _is_tables(value) and isinstance(value, list):
            for entry in value:
                header = ".".join(_key(part) for part in (*path, key))
                lines += ["", f"[[{header}]]", *_without_header(_table((*path, key), entry))]
    return lines


def _without_header(lines: list[str]) -> list[str]:
    """The lines of a table whose header is another."""
    return lines[2:] if lines[:1] == [""] and lines[1].startswith("[") else lines


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
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    raise ValueError(f"a configuration holds no {type(value).__name__}")


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else _text(key)


def _text(text: str) -> str:
    if not is_text(text):
        raise ValueError("a configuration holds no half a surrogate pair")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def _content(path: Path) -> Secret | None:
    """What a file holds; None: there is none."""
    try:
        return Secret(path.read_bytes())
    except FileNotFoundError:
        return None


def replace_files(files: Mapping[Path, Secret | None]) -> None:
    """Give files of one directory their content, or remove them (None), in this order.

    All is on the disk before the first is renamed over its place: where there is no room, nothing changes.
    """
    written: dict[Path, str] = {}
    try:
        for path, content in files.items():
            if content is not None:
                descriptor, written[path] = tempfile.mkstemp(prefix=".", suffix=".new", dir=path.parent)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content.reveal())
                    file.flush()
                    os.fsync(file.fileno())
        for path in files:
            if path in written:
                os.replace(written[path], path)
            else:
                path.unlink(missing_ok=True)
    except OSError:
        for name in written.values():
            Path(name).unlink(missing_ok=True)
        raise
    for parent in {path.parent for path in files}:
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
