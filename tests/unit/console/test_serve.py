"""`vpnd console`: what it refuses to start with, and a server that answers until it is ended."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import uvicorn

from vpnd.console import serve
from vpnd.console.serve import Options, Unusable
from vpnd.console.tokens import Role, Tokens, TokensUnavailable


@pytest.mark.parametrize(
    "listen", ["8642", ":8642", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1:²"]
)
def test_what_is_no_address_and_port_is_refused(listen: str) -> None:
    with pytest.raises(Unusable, match="is no address and port") as refused:
        serve.address(listen)
    assert refused.value.hint == "such as 127.0.0.1:8642"


@pytest.mark.parametrize("listen", ["0.0.0.0:8642", "[::]:8642", "192.0.2.1:8642", "console.example:8642"])
def test_nothing_is_served_in_clear_to_others(tmp_path: Path, listen: str) -> None:
    with pytest.raises(Unusable, match="there is no TLS"):
        serve.serve(Options(tmp_path / "socket", listen, state=tmp_path))


def test_a_certificate_is_a_pair_that_can_be_read(tmp_path: Path) -> None:
    pem = tmp_path / "pem"
    with pytest.raises(Unusable, match="TLS needs a certificate and its key"):
        serve.serve(Options(tmp_path, certificate=pem, state=tmp_path))
    with pytest.raises(Unusable, match="the certificate cannot be used"):
        serve.serve(Options(tmp_path, certificate=pem, key=pem, state=tmp_path))
    pem.write_text("this is no certificate")
    with pytest.raises(Unusable, match="the certificate cannot be used"):
        serve.serve(Options(tmp_path, certificate=pem, key=pem, state=tmp_path))


def test_a_token_makes_the_directory_for_its_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "var" / "console"
    serve.print_token(state, Role.READ)
    assert state.stat().st_mode & 0o777 == 0o700
    token = capsys.readouterr().out.strip()
    whose = Tokens(state).role_of(token)
    assert whose is not None
    assert whose[0] is Role.READ
    (tmp_path / "file").write_text("")
    with pytest.raises(TokensUnavailable, match="cannot be made"):
        serve.print_token(tmp_path / "file" / "console", Role.READ)
    with pytest.raises(TokensUnavailable, match="cannot be made: File name too long"):
        serve.print_token(tmp_path / ("n" * 300), Role.READ)


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[int]:
    """A console that runs, without a daemon behind it; what it says is captured from its start on."""
    servers: list[uvicorn.Server] = []
    run = uvicorn.Server.run

    def noted(server: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        servers.append(server)
        run(server, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", noted)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = Options(tmp_path / "no.sock", f"127.0.0.1:{port}", state=tmp_path / "state")
    thread = threading.Thread(target=serve.serve, args=(options,))
    thread.start()
    try:
        while not (servers and servers[0].started):
            assert thread.is_alive()
            thread.join(0.01)
        yield port
    finally:
        for server in servers:
            server.should_exit = True
        thread.join()


def ask(port: int, path: str, host: str) -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}


def test_a_console_without_tokens_says_so_and_lets_nobody_in(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    status, headers = ask(port, "/", f"127.0.0.1:{port}")
    assert (status, headers["location"]) == (303, "/sign-in")
    assert "server" not in headers
    assert ask(port, "/sign-in", f"127.0.0.1:{port}")[0] == 200
    assert ask(port, "/sign-in", "elsewhere.example")[0] == 403
    said = capfd.readouterr().err
    assert "nobody can sign in yet" in said
    assert f"the console is at http://127.0.0.1:{port}/" in said
