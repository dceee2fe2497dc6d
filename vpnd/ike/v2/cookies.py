"""Stateless cookies: a responder under load asks for proof of the address (RFC 7296 2.6, RFC 8019)."""

from __future__ import annotations

import hmac

from vpnd.crypto.entropy import Entropy
from vpnd.crypto.prf import Prf
from vpnd.model.child import Path

SECRET_LENGTH = 32
SECRET_LIFETIME = 120.0
"""Seconds after which the secret is drawn anew; the one before it stays good as long again at most."""
COOKIE_LENGTH = 16
"""Bytes of the HMAC that are kept, behind one byte that says which secret made it."""


class Cookies:
    """Cookie = version | HMAC(secret, Ni | IPi | SPIi). No state is kept for whoever is sent one."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._mac = Prf("sha256")
        self._version = 0
        self._drawn_at: float | None = None
        self._secrets: tuple[bytes, bytes | None] = (b"", None)

    def make(self, now: float, path: Path, spi_i: bytes, nonce_i: bytes) -> bytes:
        """The cookie for a request from the peer of `path`."""
        self._rotate(now)
        return self._cookie(self._version, self._secrets[0], path, spi_i, nonce_i)

    def verify(self, now: float, cookie: bytes, path: Path, spi_i: bytes, nonce_i: bytes) -> bool:
        """Whether `cookie` is one that this responder sent to that address for that request, not long ago."""
        self._rotate(now)
        current, previous = self._secrets
        for version, secret in ((self._version, current), (self._previous_version, previous)):
            if secret is not None and cookie[:1] == bytes((version,)):
                expected = self._cookie(version, secret, path, spi_i, nonce_i)
                return hmac.compare_digest(cookie, expected)
        return False

    @property
    def _previous_version(self) -> int:
        return (self._version - 1) % 256

    def _cookie(self, version: int, secret: bytes, path: Path, spi_i: bytes, nonce_i: bytes) -> bytes:
        digest = self._mac(secret, nonce_i, path.remote.packed, spi_i)
        return bytes((version,)) + digest[:COOKIE_LENGTH]

    def _rotate(self, now: float) -> None:
        """A new secret when the present one is old; both are gone after a silence of two lifetimes."""
        if self._drawn_at is not None and now - self._drawn_at < SECRET_LIFETIME:
            return
        fresh = self._drawn_at is not None and now - self._drawn_at < 2 * SECRET_LIFETIME
        self._secrets = (self._entropy.bytes(SECRET_LENGTH), self._secrets[0] if fresh else None)
        self._version = (self._version + 1) % 256
        self._drawn_at = now
