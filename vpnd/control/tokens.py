"""Tokens for the API over TCP: each has a name and a role, is shown once, and is kept as a hash."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vpnd.config.tokens import digest, new_token, whose
from vpnd.config.values import check_name
from vpnd.control.operations import Conflict, InvalidConfiguration, OperationError
from vpnd.control.schema import Role, TokenStatus
from vpnd.model.text import named

TOKENS_FILE = "tokens.json"

PREFIX = "vpnd_"
"""What each token begins with, so that programs that look for secrets know one."""

MAX_TOKENS = 100
"""Ours: each is compared at each request over TCP."""


class UnknownToken(OperationError):
    """No token has this name."""

    http_status = 404

    def __init__(self, name: str) -> None:
        super().__init__("E-UNKNOWN-TOKEN", f"no token is called {named(name)}", "vpnctl token list")


class Kept(BaseModel):
    """One token as it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    sha256: str
    created: datetime


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tokens: dict[str, Kept]


class Tokens:
    """The tokens of a state directory; without one they end with the process. Belongs to one event loop."""

    def __init__(self, state: Path | None = None) -> None:
        self._file = state / TOKENS_FILE if state is not None else None
        self._ends: dict[str, asyncio.Event] = {}
        self._kept: dict[str, Kept] = {}
        self.trouble: str | None = None
        """Why none is valid, if the file cannot be read."""
        try:
            self._kept = self._read()
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not what was written"
            self.trouble = f"{self._file} cannot be read: {reason}"

    def list(self) -> list[TokenStatus]:
        """Every token but what it is, by name."""
        return [
            TokenStatus(name=name, role=kept.role, created=kept.created)
            for name, kept in sorted(self._kept.items())
        ]

    def create(self, name: str, role: Role) -> str:
        """A new token, which nothing shows again. Raises InvalidConfiguration, Conflict, OperationError."""
        wrong = check_name(name)
        if wrong is not None:
            hint = "printable characters without '/', at most 60"
            raise InvalidConfiguration("E-NAME", f"the token's name: {wrong}", hint)
        if name in self._kept:
            raise Conflict(
                "E-EXISTS", f"a token is called {named(name)} already", f"vpnctl token revoke {name}"
            )
        if len(self._kept) >= MAX_TOKENS:
            raise Conflict("E-TOO-MANY", f"there are {MAX_TOKENS} tokens", "revoke those that nobody uses")
        token = PREFIX + new_token()
        made = Kept(role=role, sha256=digest(token), created=datetime.now(UTC).replace(microsecond=0))
        self._write({**self._kept, name: made})
        return token

    def revoke(self, name: str) -> None:
        """The token is of no use from now on, and what follows events with it ends. Raises UnknownToken."""
        if name not in self._kept:
            raise UnknownToken(name)
        self._write({one: kept for one, kept in self._kept.items() if one != name})
        end = self._ends.pop(name, None)
        if end is not None:
            end.set()

    def find(self, token: str) -> tuple[str, Role] | None:
        """Name and role of a token, None if there is no such token; it takes the same time for each."""
        return whose(token, ((kept.sha256, (name, kept.role)) for name, kept in self._kept.items()))

    def end_of(self, name: str) -> asyncio.Event:
        """Set when the token of this name is revoked."""
        return self._ends.setdefault(name, asyncio.Event())

    def _read(self) -> dict[str, Kept]:
        try:
            text = self._file.read_bytes() if self._file is not None else None
        except FileNotFoundError:
            text = None
        return {} if text is None else dict(_File.model_validate_json(text).tokens)

    def _write(self, tokens: dict[str, Kept]) -> None:
        """In one step, for the daemon's user and nobody else. Raises OperationError, with all as it was."""
        if self.trouble is not None:
            raise OperationError("E-STATE", self.trouble, "correct it, or remove it: then no token is valid")
        if self._file is not None:
            try:
                _replace(self._file, _File(tokens=tokens).model_dump_json(indent=2))
            except OSError as error:
                raise OperationError("E-STATE", f"{self._file} cannot be written: {error.strerror}") from None
        self._kept = tokens


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, fresh = tempfile.mkstemp(prefix=".", suffix=".new", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
