"""The program where others can reach it: with TLS alone, and under the names that it was given."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.lab.process import wait_until
from vpnd.console.tokens import Role, Tokens

NAME = "gw.example"


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for NAME, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "console.crt", directory / "console.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return paths


@dataclass
class Secure:
    """`vpnd console` at every address of this machine."""

    port: int
    certificate: Path
    token: str

    def ask(
        self, method: str, path: str, host: str, body: str = "", **headers: str
    ) -> http.client.HTTPResponse:
        """One request, to NAME by its certificate, whatever Host says."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        plain = socket.create_connection(("127.0.0.1", self.port), 60)
        connection = http.client.HTTPSConnection(NAME, self.port)
        connection.sock = context.wrap_socket(plain, server_hostname=NAME)
        connection.request(method, path, body, {"Host": host, **headers})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[Secure]:
    certificate, key = make_certificate(tmp_path)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tls = ["--certificate", str(certificate), "--key", str(key), "--host", NAME]
    command = [sys.executable, "-m", "vpnd.daemon.main", "console", "--listen", f"0.0.0.0:{port}", *tls]
    token = Tokens(tmp_path).new(Role.READ)
    process = subprocess.Popen([*command, "--state", str(tmp_path), "--socket", str(tmp_path / "nobody")])

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(answers, "the console answers", 60.0)
        yield Secure(port, certificate, token)
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_tls_alone_and_under_its_own_names(secure: Secure) -> None:
    host = f"{NAME}:{secure.port}"
    page = secure.ask("GET", "/sign-in", host)
    assert (page.status, page.headers["strict-transport-security"]) == (200, "max-age=31536000")
    for foreign in ("evil.example", f"evil.example:{secure.port}", "192.0.2.1"):
        assert secure.ask("GET", "/sign-in", foreign).status == 403, foreign
    form = urlencode({"token": secure.token})
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    for origin in ("https://evil.example", f"http://{host}", "null"):
        assert secure.ask("POST", "/sign-in", host, form, Origin=origin, **kind).status == 403, origin
    signed_in = secure.ask("POST", "/sign-in", host, form, Origin=f"https://{host}", **kind)
    cookie = signed_in.headers["set-cookie"].lower()
    assert (signed_in.status, cookie.startswith("__host-vpnd=")) == (303, True)
    assert all(word in cookie for word in ("secure", "httponly", "samesite=strict", "path=/"))
    connection = http.client.HTTPConnection("127.0.0.1", secure.port, timeout=60)
    connection.request("GET", "/sign-in", headers={"Host": NAME})
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.getresponse()
    connection.close()
