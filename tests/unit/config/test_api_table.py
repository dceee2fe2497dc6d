"""`[api]`: where the API is served over TCP, and what keeps TLS from being served with its files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.unit.config.files import GATEWAY, ROUTES, TUNNEL, load_text
from tests.unit.control import certificates
from vpnd.control.remote import Wanted
from vpnd.model.secret import Secret

BASE = GATEWAY + TUNNEL + ROUTES
API = '[api]\nlisten = "192.0.2.1:8443"\ncertificate = "tls/certificate.pem"\nkey = "tls/key.pem"\n'


def test_it_is_off_without_the_table(tmp_path: Path) -> None:
    assert Wanted.of(load_text(tmp_path, BASE).configuration) is None


def test_paths_are_beside_the_file(tmp_path: Path) -> None:
    pair = certificates.make(tmp_path / "tls")
    loaded = load_text(tmp_path, BASE + API)
    assert loaded.problems == ()
    wanted = Wanted.of(loaded.configuration)
    assert wanted is not None
    assert (str(wanted.at), wanted.certificate, wanted.key) == ("192.0.2.1:8443", pair.certificate, pair.key)


def _missing(pair: certificates.Pair, directory: Path) -> None:
    pair.key.unlink()


def _open_to_all(pair: certificates.Pair, directory: Path) -> None:
    pair.key.chmod(0o604)


def _of_another(pair: certificates.Pair, directory: Path) -> None:
    certificates.make(directory / "other").key.replace(pair.key)


def _no_certificate(pair: certificates.Pair, directory: Path) -> None:
    pair.certificate.write_text("nonsense")


def _with_password(pair: certificates.Pair, directory: Path) -> None:
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret words"),
        )
    )


@pytest.mark.parametrize(
    ("spoil", "code", "key"),
    [
        (_missing, "E-TLS-FILE", "api.key"),
        (_open_to_all, "E-TLS-MODE", "api.key"),
        (_of_another, "E-TLS-PAIR", "api.certificate"),
        (_no_certificate, "E-TLS-PAIR", "api.certificate"),
        (_with_password, "E-TLS-PAIR", "api.certificate"),
    ],
)
def test_files_that_serve_no_tls(tmp_path: Path, spoil: object, code: str, key: str) -> None:
    pair = certificates.make(tmp_path / "tls")
    assert callable(spoil)
    spoil(pair, tmp_path)
    (problem,) = load_text(tmp_path, BASE + API).problems
    assert (problem.code, problem.key) == (code, key)
    assert problem.line is not None
    assert problem.hint


def test_a_key_that_a_group_reads_is_as_debian_has_it(tmp_path: Path) -> None:
    certificates.make(tmp_path / "tls").key.chmod(0o640)
    assert load_text(tmp_path, BASE + API).problems == ()


def test_a_certificate_that_has_ended_is_named(tmp_path: Path) -> None:
    certificates.make(tmp_path / "tls", ends_in=timedelta(days=-3))
    (problem,) = load_text(tmp_path, BASE + API).problems
    assert (problem.code, problem.key) == ("W-TLS-EXPIRED", "api.certificate")


def test_a_key_that_the_service_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, who checks, can."""
    pair = certificates.make(tmp_path / "tls")
    monkeypatch.setattr("vpnd.config.secrets._service_uid", lambda: 12345)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    (problem,) = [one for one in load_text(tmp_path, BASE + API).problems if one.code != "E-PSK-MODE"]
    assert (problem.code, problem.key) == ("W-TLS-OWNER", "api.key")
    pair.key.chmod(0o640)
    assert "W-TLS-OWNER" not in [one.code for one in load_text(tmp_path, BASE + API).problems]


@pytest.mark.parametrize("key", ["listen", "certificate", "key"])
def test_each_key_is_needed(tmp_path: Path, key: str) -> None:
    certificates.make(tmp_path / "tls")
    text = "".join(line for line in API.splitlines(keepends=True) if not line.startswith(key))
    (problem,) = load_text(tmp_path, BASE + text).problems
    assert (problem.code, problem.key) == ("E-MISSING", f"api.{key}")


def test_metrics_have_another_port(tmp_path: Path) -> None:
    certificates.make(tmp_path / "tls")
    found = load_text(tmp_path, f'{BASE}{API}[metrics]\nlisten = "192.0.2.1:8443"\n').errors
    assert [(one.code, one.key) for one in found] == [("E-DUPLICATE", "api.listen")]


def test_no_message_has_a_key(tmp_path: Path) -> None:
    pair = certificates.make(tmp_path / "tls")
    key = Secret(pair.key.read_bytes())
    pair.certificate.write_bytes(key.reveal())
    for problem in load_text(tmp_path, BASE + API).problems:
        assert "PRIVATE" not in f"{problem.message}{problem.hint}"
