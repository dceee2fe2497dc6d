"""The tokens that people sign in with: one that may change things, one that may look. Kept as hashes."""

from __future__ import annotations

import contextlib
import json
import os
from enum import StrEnum
from pathlib import Path

from vpnd.config.paths import DEFAULT_CONSOLE_STATE
from vpnd.config.tokens import digest, new_token, whose

TOKENS_FILE = "tokens.json"
CREDENTIALS = {"console-token": "admin", "console-read-token": "read"}
"""Systemd credentials that hold a token each, and what it is for."""


class Role(StrEnum):
    """What a session may do."""

    ADMIN = "admin"
    READ = "read"


class TokensUnavailable(Exception):
    """The file of tokens cannot be read or written. The text says why."""


class Tokens:
    """The tokens in a directory of ours, and those of systemd's credentials."""

    def __init__(self, directory: Path = DEFAULT_CONSOLE_STATE, credentials: Path | None = None) -> None:
        self._file = directory / TOKENS_FILE
        self._credentials = credentials

    def new(self, role: Role) -> str:
        """A new token of this role; the one before it is of no use any more. Raises TokensUnavailable."""
        token = new_token()
        kept = {**self._kept(), role.value: digest(token)}
        try:
            self._write(json.dumps(kept))
        except OSError as error:
            raise TokensUnavailable(f"{self._file} cannot be written: {error.strerror}") from None
        return token

    def role_of(self, token: str) -> tuple[Role, str] | None:
        """What the token is for, with the hash by which it is known; None for one that is not valid."""
        return whose(token.strip(), ((known, (role, known)) for role, known in self.valid()))

    def valid(self) -> tuple[tuple[Role, str], ...]:
        """Every hash that is valid now, with its role."""
        found = [(Role(role), known) for role, known in self._kept().items() if role in list(Role)]
        for name, role in CREDENTIALS.items():
            if self._credentials is None:
                break
            with contextlib.suppress(OSError, UnicodeDecodeError):
                token = (self._credentials / name).read_text().strip()
                found += [(Role(role), digest(token))] if token else []
        return tuple(found)

    def _kept(self) -> dict[str, str]:
        try:
            kept = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not what was written"
            raise TokensUnavailable(f"{self._file} cannot be read: {reason}") from None
        known = kept.items() if isinstance(kept, dict) else ()
        return {role: digest for role, digest in known if isinstance(digest, str)}

    def _write(self, text: str) -> None:
        """In one step, for the owner of the directory and nobody else."""
        directory = self._file.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = directory.stat()
        fresh = self._file.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        fresh.replace(self._file)
