"""Stateless cookies: a responder under load asks for proof of the address (RFC 7296 2.6, RFC 8019)."""

from __future__ import annotations

import hmac

from vpnd.crypto.entropy import Entropy
from vpnd.model.child import Path

SECRET_LENGTH = 32
SECRET_IN_USE = 60.0
"""Seconds that cookies are made with one secret."""
SECRET_LIFETIME = 120.0
"""Seconds since it was drawn that a secret is good for, the time after it was replaced included: what
has been collected under it is worth nothing afterwards (RFC 7296 section 2.6: change it frequently)."""
COOKIE_LENGTH = 16
"""Bytes of the HMAC that are kept, behind one byte that says which secret made it."""


class Cookies:
    """Cookie = version | HMAC(secret, Ni | IPi | SPIi). No state is kept for the address that is sent one."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._version = 0
        self._drawn_at: float | None = None
        self._secret = b""
        self._previous: tuple[bytes, float] | None = None
        """The secret before, and when it was drawn."""

    def make(self, now: float, path: Path, spi_i: bytes, nonce_i: bytes) -> bytes:
        """The cookie for a request from the peer of `path`."""
        self._rotate(now)
        return self._cookie(self._version, self._secret, path, spi_i, nonce_i)

    def verify(self, now: float, cookie: bytes, path: Path, spi_i: bytes, nonce_i: bytes) -> bool:
        """Whether `cookie` is one that this responder sent to that address for that request, not long ago."""
        self._rotate(now)
        previous = None if self._previous is None else self._previous[0]
        for version, secret in ((self._version, self._secret), ((self._version - 1) % 256, previous)):
            if secret is not None and cookie[:1] == bytes((version,)):
                expected = self._cookie(version, secret, path, spi_i, nonce_i)
                return hmac.compare_digest(cookie, expected)
        return False

    def _cookie(self, version: int, secret: bytes, path: Path, spi_i: bytes, nonce_i: bytes) -> bytes:
        # The library's short way: a flood costs one for each of its messages.
        digest = hmac.digest(secret, nonce_i + path.remote.packed + spi_i, "sha256")
        return bytes((version,)) + digest[:COOKIE_LENGTH]

    def _rotate(self, now: float) -> None:
        """A new secret when the present one is old; one that was replaced is forgotten in time."""
        if self._drawn_at is None or now - self._drawn_at >= SECRET_IN_USE:
            self._previous = None if self._drawn_at is None else (self._secret, self._drawn_at)
            self._secret = self._entropy.bytes(SECRET_LENGTH)
            self._version = (self._version + 1) % 256
            self._drawn_at = now
        if self._previous is not None and now - self._previous[1] >= SECRET_LIFETIME:
            self._previous = None
