"""`vpnd console`: a token, or the server."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vpnd.config.paths import DEFAULT_CONSOLE_STATE
from vpnd.console.tokens import Role, Tokens, TokensUnavailable
from vpnd.control.severity import INFO, WARNING, complain

DEFAULT_LISTEN = "127.0.0.1:8642"
SERVICE_USER = "vpnd-console"

MAX_CONNECTIONS = 200
"""Ours: connections at once; a browser has six."""

IDLE_SECONDS = 30
"""Ours: how long a connection may rest between two requests."""


class Unusable(Exception):
    """It cannot be started so. The text says why, `hint` what to change."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    socket: Path
    listen: str = DEFAULT_LISTEN
    certificate: Path | None = None
    key: Path | None = None
    hosts: Sequence[str] = ()
    state: Path = DEFAULT_CONSOLE_STATE


def print_token(state: Path, role: Role) -> None:
    """A new token for people of this role. Raises TokensUnavailable."""
    _make_directory(state)
    sys.stdout.write(Tokens(state).new(role) + "\n")


def serve(options: Options) -> None:
    """Answer until a signal ends it. Raises Unusable."""
    host, port = address(options.listen)
    secure = options.certificate is not None
    check(options, host)
    try:
        import uvicorn

        from vpnd.console.app import create_app
    except ImportError as missing:
        raise Unusable(f"the console needs {missing.name}", "pip install 'vpnd[console]'") from None
    from vpnd.sdk import AsyncClient

    given = os.environ.get("CREDENTIALS_DIRECTORY")
    tokens = Tokens(options.state, Path(given) if given else None)
    try:
        if not tokens.valid():
            complain("vpnd: nobody can sign in yet; a token: sudo vpnd console --token", WARNING)
    except TokensUnavailable as error:
        raise Unusable(str(error), "correct its owner and mode") from None
    names = [*options.hosts, *([] if host in ("0.0.0.0", "::") else [host])]  # noqa: S104 # it is compared
    app = create_app(AsyncClient(options.socket), tokens, names, secure)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        ws="none",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=2,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )
    scheme = "https" if secure else "http"
    complain(f"vpnd: the console is at {scheme}://{options.listen}/", INFO)
    uvicorn.Server(config).run()


def address(listen: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8642` or `[::1]:8642`. Raises Unusable."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Unusable(f"{listen!r} is no address and port", f"such as {DEFAULT_LISTEN}")
    return host.strip("[]"), int(port)


def check(options: Options, host: str) -> None:
    """What would be unsafe, or fail later. Raises Unusable."""
    from vpnd.console.protection import is_loopback

    if (options.certificate is None) is not (options.key is None):
        raise Unusable("TLS needs a certificate and its key", "give --certificate and --key")
    if options.certificate is None and not is_loopback(host) and host != "localhost":
        raise Unusable(
            f"{host} can be reached from elsewhere, and there is no TLS",
            "give --certificate and --key, or listen on 127.0.0.1 and come by ssh -L",
        )
    if options.certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.key)
        except (OSError, ssl.SSLError) as error:
            raise Unusable(f"the certificate cannot be used: {error}", "name PEM files of one pair") from None


def _make_directory(state: Path) -> None:
    """The directory, for the service's user where root makes it."""
    if os.path.exists(state):
        return
    try:
        state.mkdir(mode=0o700, parents=True)
        if os.geteuid() == 0:
            import pwd

            try:
                user = pwd.getpwnam(SERVICE_USER)
            except KeyError:
                return
            os.chown(state, user.pw_uid, user.pw_gid)
    except OSError as error:
        raise TokensUnavailable(f"{state} cannot be made: {error.strerror}") from None
