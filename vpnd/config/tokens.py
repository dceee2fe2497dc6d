"""Tokens by which programs and people are let in: shown once, kept as a hash, compared in equal time.

A token has 256 random bits, so that a plain SHA-256 of it tells nothing and needs no salt.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import TypeVar

MAX_TOKEN = 256
"""Ours: characters of a token that is looked at."""

T = TypeVar("T")


def new_token() -> str:
    """A new one, of letters, digits, `-` and `_`."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def whose(token: str, kept: Iterable[tuple[str, T]]) -> T | None:
    """What is kept with the digest of this token; None: there is none. It takes the same time for each."""
    given, found = digest(token[:MAX_TOKEN]), None
    for known, value in kept:
        if hmac.compare_digest(known, given):
            found = value
    return found
