"""The tunnels that were made through the API: a file each in the state directory, the key beside it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vpnd.config import toml
from vpnd.config.configuration import Source
from vpnd.config.load import TUNNELS_DIRECTORY
from vpnd.config.secrets import write_private
from vpnd.model.secret import Secret

REQUEST = "request"
"""What stands for the file in problems of a tunnel that is not on disk yet."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A tunnel as it would be stored. Check `source` with `load.load_with`, then `TunnelStore.write`."""

    name: str
    source: Source
    key: Secret | None


class TunnelStore:
    """The `tunnels.d` of a state directory."""

    def __init__(self, state: Path) -> None:
        self._directory = state / TUNNELS_DIRECTORY

    def path(self, name: str) -> Path:
        """The file of a tunnel; its key's has `.psk` in place of `.toml`."""
        return self._directory / f"{_file_name(name)}.toml"

    def key_path(self, name: str) -> Path:
        """The file of a tunnel's key."""
        return self._directory / f"{_file_name(name)}.psk"

    def holds(self, name: str) -> bool:
        """Whether this tunnel was made through the API."""
        return self.path(name).exists()

    def propose(self, name: str, table: Mapping[str, object]) -> Proposed:
        """The tunnel as it would be stored; nothing is written yet.

        A `plain:` key goes into a file of its own. A tunnel that exists keeps its key if `table` has none:
        keys are write-only, so whoever changes a tunnel need not know it.
        """
        stored = dict(table)
        reference = stored.get("pre_shared_key")
        key = None
        if reference is None:
            kept = self._stored_reference(name)
            if kept is not None:
                stored["pre_shared_key"] = kept
        elif isinstance(reference, str) and reference.startswith("plain:") and reference != "plain:":
            key = Secret(reference.removeprefix("plain:").encode("utf-8", "replace"))
            stored["pre_shared_key"] = f"file:{self.key_path(name).name}"
        source = Source(
            label=REQUEST,
            tables={"tunnels": {name: stored}},
            path=self.path(name),
            from_api=True,
            keys={name: key} if key is not None else {},
        )
        return Proposed(name, source, key)

    def write(self, proposed: Proposed) -> None:
        """Keep a tunnel that was checked: its key first, then its file. Raises OSError."""
        name = proposed.name
        text = toml.dump(proposed.source.tables)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if proposed.key is not None:
            write_private(self.key_path(name), proposed.key.reveal() + b"\n")
        write_private(self.path(name), text.encode())
        if f"file:{self.key_path(name).name}" not in text:
            self.key_path(name).unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Forget a tunnel and its key. Raises OSError."""
        self.path(name).unlink(missing_ok=True)
        self.key_path(name).unlink(missing_ok=True)

    def _stored_reference(self, name: str) -> str | None:
        try:
            tables = tomllib.loads(self.path(name).read_text())
            reference = tables["tunnels"][name]["pre_shared_key"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return reference if isinstance(reference, str) else None


def _file_name(name: str) -> str:
    """A file name for any tunnel name: everything unusual is percent-encoded."""
    return quote(name, safe="")
