"""The configurations that were in force, kept in the state directory, and which of them is confirmed.

    STATE/configurations/17.json         mode 0600, the tables of every file, fingerprints in place of keys
    STATE/configurations/standing.json   mode 0600
    STATE/configurations/17.keys         mode 0600, its pre-shared keys, only while it is the confirmed one
                                         and the files hold one that is not, or was rolled back

A file is written beside its place, put on the disk, and renamed over it: a crash leaves the old or the new.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vpnd.config.snapshot import Keys, Snapshot, Unreadable
from vpnd.daemon.standing import Standing
from vpnd.daemon.state import replace_files
from vpnd.model.secret import Secret

DIRECTORY = "configurations"
STANDING = "standing.json"
KEYS_SUFFIX = ".keys"

KEPT = 20
"""How many configurations are kept."""

FORMAT = 1
"""Of the files; another one is not read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A configuration that was in force: since when, and what brought it."""

    number: int
    at: datetime
    what: str
    snapshot: Snapshot


class History:
    """Reads and writes what is kept. Each method that writes raises OSError."""

    def __init__(self, state: Path) -> None:
        self.path = state / DIRECTORY
        self._last: tuple[Entry, bytes] | None = None
        """What was kept last, and the hash of its text: it need not be read to be compared."""

    def standing(self) -> Standing:
        """Which configuration counts; the beginning where nothing is kept that can be read."""
        try:
            return Standing.from_document(json.loads((self.path / STANDING).read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return Standing()

    def keep_standing(self, standing: Standing) -> None:
        """From now on a start goes by this."""
        self._write(self.path / STANDING, json.dumps(standing.document(), indent=1))

    def numbers(self) -> list[int]:
        """Those that are kept, the newest first."""
        try:
            names = [path.stem for path in self.path.iterdir() if path.suffix == ".json"]
        except OSError:
            return []
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def read(self, number: int) -> Entry:
        """One of them. Raises Unreadable, also where it is not kept."""
        try:
            document = json.loads(self._path(number).read_bytes())
            if document["format"] != FORMAT:
                raise Unreadable(f"the configuration {number} was kept by another version of vpnd")
            snapshot = Snapshot.from_document(document["files"])
            at = datetime.fromisoformat(document["at"])
            return Entry(number, at, str(document["what"]), snapshot)
        except OSError as error:
            raise Unreadable(f"the configuration {number} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise Unreadable(f"the configuration {number} cannot be read: {error}") from None

    def same(self, number: int, snapshot: Snapshot) -> Entry | None:
        """The one that is kept by this number, if it is `snapshot`. Raises Unreadable."""
        text = snapshot.text()
        if self._last is not None and self._last[0].number == number and os.path.exists(self._path(number)):
            return self._last[0] if self._last[1] == _hash(text) else None
        entry = self.read(number)
        return entry if entry.snapshot.text() == text else None

    def keep(self, snapshot: Snapshot, at: datetime, what: str, confirmed: int | None) -> Entry:
        """Keep one more. The oldest go, but for the confirmed one."""
        numbers = self.numbers()
        entry = Entry(max(numbers, default=0) + 1, at, what, snapshot)
        text = snapshot.text()
        about = json.dumps({"format": FORMAT, "at": at.isoformat(), "what": what})
        self._write(self._path(entry.number), f'{about[:-1]}, "files": {text}}}')
        self._last = entry, _hash(text)
        for number in numbers[KEPT - 1 :]:
            if number != confirmed:
                self.forget(number)
        return entry

    def forget(self, number: int) -> None:
        """It is not kept any more; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            self._path(number).unlink()

    def keep_keys(self, number: int, keys: Mapping[str, Keys]) -> None:
        """The keys that this configuration comes back with."""
        tunnels = {
            name: [base64.b64encode(one.reveal()).decode() for one in own if one is not None]
            for name, own in keys.items()
        }
        self._write(self._keys_path(number), json.dumps({"format": FORMAT, "tunnels": tunnels}))

    def keys(self, number: int | None) -> dict[str, Keys]:
        """Those keys; none where none can be read."""
        if number is None:
            return {}
        try:
            document = json.loads(self._keys_path(number).read_bytes())
            if document["format"] != FORMAT:
                return {}
            found = {
                name: [Secret(base64.b64decode(text, validate=True)) for text in own]
                for name, own in document["tunnels"].items()
            }
            return {name: (own[0], own[1] if len(own) > 1 else None) for name, own in found.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError):
            return {}

    def forget_keys(self, but: int | None) -> None:
        """No keys are kept any more, but those of one configuration; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            for path in self.path.glob(f"*{KEYS_SUFFIX}"):
                if but is None or path != self._keys_path(but):
                    path.unlink()

    def _keys_path(self, number: int) -> Path:
        return self.path / f"{number}{KEYS_SUFFIX}"

    def _path(self, number: int) -> Path:
        return self.path / f"{number}.json"

    def _write(self, path: Path, text: str) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_files({path: Secret(f"{text}\n".encode())})


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
