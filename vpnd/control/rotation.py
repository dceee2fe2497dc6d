"""What `vpnctl psk rotate` sends and prints."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from vpnd.config.problems import quoted
from vpnd.config.secrets import SecretError, new_key, read_secret
from vpnd.model.text import is_like_a_moment


class Unusable(Exception):
    """An option cannot be used: code, message, hint."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def next_key(file: Path | None) -> tuple[str, str | None]:
    """The key of a file, read with the caller's rights, or a new one, to be printed. Raises Unusable."""
    if file is None:
        made = new_key()
        return made, made
    try:
        return read_secret(f"file:{file.absolute()}", None, private=True).reveal().decode(), None
    except SecretError as error:
        raise Unusable(error.code, error.message, error.hint) from None
    except UnicodeDecodeError:
        hint = 'for a key of any bytes: next_pre_shared_key = "file:PATH" in a file of vpnd\'s'
        raise Unusable("E-PSK-FORM", f"the key in {file} is no text", hint) from None


def end_of(moment: str | None) -> dict[str, str]:
    """When the current key ends; where no time zone is written, in that of this machine. Raises Unusable."""
    if moment is None:
        return {}
    try:
        return {"retire_after": datetime.fromisoformat(moment).astimezone().isoformat()}
    except (ValueError, OverflowError):
        hint = "write it as 2026-12-31T00:00:00Z"
        shown = quoted(moment) if is_like_a_moment(moment) else "the value"
        raise Unusable("E-VALUE", f"--retire-after: {shown} is not a moment", hint) from None


def lines(document: Mapping[str, Any]) -> list[str]:
    """The answer: what stands now, or what to write; with the new key, which nothing shows again."""
    if not document["done"]:
        return list(document["lines"])
    keys = document["keys"]
    if keys["next"] is None:
        return [f"{document['tunnel']}: the key is {keys['current']}"]
    found = [f"{document['tunnel']}: {keys['current']} and {keys['next']} are accepted"]
    if keys["theirs"] and keys["theirs"]["fingerprint"] == keys["next"]:
        found.append("the peer was seen with the next one: --finish ends the current one")
    return [*found, *([f"for the other end: {document['key']}"] if "key" in document else [])]
