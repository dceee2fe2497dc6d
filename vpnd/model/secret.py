"""`Secret`: bytes that do not print."""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn, final

MASK = "***"


@final
class Secret:
    """Key bytes that neither `repr`, `str`, `format`, pickling nor JSON reveal.

    `reveal()` is the one way to the bytes, so that every use can be found by searching for it. Equality is
    constant-time. Python keeps copies of bytes that cannot be overwritten; this guards against printing,
    not against a reader of the process's memory.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves, for a primitive of `vpnd.crypto` and nothing else."""
        return self._value

    def fingerprint(self) -> str:
        """Eight hex digits of SHA-256 over a fixed label and the bytes, to compare over the phone."""
        digest = hashlib.sha256(b"vpnd key fingerprint\0" + self._value).hexdigest()
        return f"{digest[:4]}-{digest[4:8]}"

    def __len__(self) -> int:
        return len(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")
