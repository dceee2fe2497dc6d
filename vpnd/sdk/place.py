"""Where a daemon answers: on a Unix socket, or at `https://HOST:PORT` to who has a token."""

from __future__ import annotations

import socket
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import asyncio
    import ssl

HTTPS = "https://"
DEFAULT_PORT = 8443


class Place:
    """One daemon. `token` and `certificate`, a file with whom to trust, are for one over TCP.

    Raises ValueError for a URL that is no `https://HOST:PORT`, or that has no token.
    """

    def __init__(self, where: Path | str, token: str | None = None, certificate: Path | None = None) -> None:
        self._socket = None if isinstance(where, str) and "://" in where else Path(where)
        self._token = token
        self._certificate = certificate
        self._host, self._port = "vpnd", 0
        self.name = str(where)
        if self._socket is not None:
            return
        url = urlsplit(str(where))
        if url.scheme != "https" or url.hostname is None or url.path.strip("/") or url.username is not None:
            raise ValueError(f"{where!r} is no socket and no {HTTPS}HOST:PORT")
        if not token:
            raise ValueError("over TCP a token is needed: vpnctl token create NAME makes one")
        self._host, self._port = url.hostname, url.port or DEFAULT_PORT

    @property
    def is_remote(self) -> bool:
        """Whether it is reached over TCP."""
        return self._socket is None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """What each request says of where it goes and who asks."""
        if self._token is None or not self.is_remote:
            return [("Host", self._host)]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return [("Host", f"{host}:{self._port}"), ("Authorization", f"Bearer {self._token}")]

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        import ssl

        context = ssl.create_default_context(cafile=self._certificate)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def connect(self, seconds: float) -> socket.socket:
        """A connection that gives up after so many seconds of silence. Raises OSError."""
        if self._socket is None:
            plain = socket.create_connection((self._host, self._port), seconds)
            try:
                return self._tls.wrap_socket(plain, server_hostname=self._host)
            except OSError:
                plain.close()
                raise
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            local.settimeout(seconds)
            local.connect(str(self._socket))
        except OSError:
            local.close()
            raise
        return local

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Likewise for asyncio, without a limit on silence."""
        import asyncio

        if self._socket is None:
            return await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        return await asyncio.open_unix_connection(self._socket)
