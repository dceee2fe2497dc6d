"""Which pre-shared keys the ends of each tunnel have proved themselves with, kept over restarts.

    STATE/keys.json   mode 0600, fingerprints and times by the tunnel's name, no key

While two keys stand beside each other a start goes on with the one that the peer was seen with last. In
aggressive mode there is no other way to know: the responder proves itself before it sees the peer's key.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Container
from datetime import datetime
from pathlib import Path
from typing import Any

from vpnd.daemon.service import Service
from vpnd.daemon.state import replace_files
from vpnd.host.clock import Clock, at_wall
from vpnd.ike.shared_keys import KeyInUse, KeysInUse
from vpnd.model.secret import Secret

FILE = "keys.json"

FORMAT = 1
"""Of the file; another one is not read."""

BETWEEN = 0.2
"""Ours: seconds between two writes, so that a start with a thousand tunnels makes few of them."""


class KnownKeys:
    """Reads the file at the start, and writes it when something has changed."""

    def __init__(self, state: Path, service: Service) -> None:
        self.path = state / FILE
        self._service = service
        self._gateway = service.gateway
        self._told = False

    def restore(self, configured: Container[str]) -> None:
        """What is known of the tunnels that are configured. A file that cannot be read is as none."""
        try:
            document = json.loads(self.path.read_bytes())
            if document["format"] != FORMAT:
                return
            clock = self._gateway.clock
            known = {name: _read(clock, both) for name, both in document["tunnels"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        self._gateway.endpoint.remember_keys({n: keys for n, keys in known.items() if n in configured})

    async def keep(self) -> None:
        """Without end; what has changed when it is cancelled is written all the same."""
        changed = self._gateway.keys_changed
        try:
            while True:
                await changed.wait()
                changed.clear()
                self._report(await self._service.in_thread(self._write, self._document()))
                await asyncio.sleep(BETWEEN)
        finally:
            if changed.is_set():
                self._report(self._write(self._document()))

    def _document(self) -> dict[str, Any]:
        clock, known = self._gateway.clock, self._gateway.endpoint.known_keys()
        tunnels = {
            name: {"ours": _written(clock, keys.ours), "theirs": _written(clock, keys.theirs)}
            for name, keys in known.items()
        }
        return {"format": FORMAT, "tunnels": tunnels}

    def _write(self, document: dict[str, Any]) -> OSError | None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_files({self.path: Secret(json.dumps(document).encode() + b"\n")})
        except OSError as failure:
            return failure
        return None

    def _report(self, failure: OSError | None) -> None:
        """Once, until it is written again."""
        if failure is not None and not self._told:
            why = failure.strerror or failure
            text = f"which pre-shared keys are in use cannot be kept over a restart: {why}"
            self._service.journal.event(None, "not-kept", text, "E-STATE")
        self._told = failure is not None


def _written(clock: Clock, used: KeyInUse) -> dict[str, str]:
    since = at_wall(clock, clock.now(), used.since)
    return {"fingerprint": used.fingerprint, "since": since.isoformat()}


def _read(clock: Clock, both: dict[str, Any]) -> KeysInUse:
    def end(kept: dict[str, Any]) -> KeyInUse:
        ago = (clock.wall() - datetime.fromisoformat(kept["since"])).total_seconds()
        return KeyInUse(str(kept["fingerprint"]), clock.now() - max(0.0, ago))

    return KeysInUse(end(both["ours"]), end(both["theirs"]))
