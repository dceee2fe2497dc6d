"""Where keys come from, who may read them, and that no message shows one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.config.files import GATEWAY, KEY, write
from vpnd.config.foreign import foreign_line
from vpnd.config.load import load
from vpnd.config.secrets import (
    CredentialUnavailable,
    SecretError,
    read_secret,
    suspicions,
    unreadable_by_service,
)
from vpnd.model.secret import Secret

KEY_TEXT = "s3cret-of-the-branch-office"


def key_file(directory: Path, content: bytes = KEY_TEXT.encode(), mode: int = 0o600) -> Path:
    path = directory / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("content", [b"abc", b"abc\n", b"abc\r\n"])
def test_a_file_without_the_line_end_of_the_editor(tmp_path: Path, content: bytes) -> None:
    path = key_file(tmp_path, content)
    assert read_secret(f"file:{path}", None, False).reveal() == b"abc"


def test_only_one_line_end_is_taken_off(tmp_path: Path) -> None:
    path = key_file(tmp_path, b" abc \n\n")
    assert read_secret(f"file:{path}", None, False).reveal() == b" abc \n"


def test_a_relative_path_is_relative_to_the_configuration(tmp_path: Path) -> None:
    key_file(tmp_path)
    assert read_secret("file:key", tmp_path / "vpnd.toml", False).reveal() == KEY_TEXT.encode()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_a_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, mode=mode)
    with pytest.raises(SecretError) as refused:
        read_secret(f"file:{path}", None, False)
    assert refused.value.code == "E-PSK-MODE"
    assert f"{mode:04o}" in refused.value.message
    assert refused.value.hint == f"chmod 600 {path}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    os.chown(path, 65534, 65534)
    with pytest.raises(SecretError, match="belongs to user 65534") as refused:
        read_secret(f"file:{path}", None, False)
    assert refused.value.code == "E-PSK-MODE"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_who_is_not_root_has_keys_of_their_own_and_of_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: int
) -> None:
    path = key_file(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    for owner in (4242, 0):
        os.chown(path, owner, owner)
        assert read_secret(f"file:{path}", None, False).reveal() == KEY_TEXT.encode()
    os.chown(path, service, service)
    with pytest.raises(SecretError, match=f"belongs to user {service}"):
        read_secret(f"file:{path}", None, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_checks_the_keys_of_the_service(tmp_path: Path, service: int) -> None:
    path = key_file(tmp_path)
    os.chown(path, service, service)
    assert read_secret(f"file:{path}", None, False).reveal() == KEY_TEXT.encode()
    assert unreadable_by_service(f"file:{path}", None) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what the service does not")
@pytest.mark.usefixtures("service")
def test_a_key_of_root_is_none_of_the_service(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    found = unreadable_by_service("file:key", tmp_path / "vpnd.toml")
    assert found is not None
    assert found.code == "W-PSK-OWNER"
    assert f"chown vpnd: {path}" in found.hint
    config = write(tmp_path, f'[tunnels.t]\ncustomer_gateway = "c"\npre_shared_key = "file:{path}"\n')
    assert "W-PSK-OWNER" in {one.code for one in load(config, offline=True).problems}
    assert "W-PSK-OWNER" not in {one.code for one in load(config).problems}, (
        "a daemon that root runs reads it"
    )


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of the service's user, on a machine where it is installed."""
    monkeypatch.setattr("pwd.getpwnam", lambda name: {"vpnd": SimpleNamespace(pw_uid=64123)}[name])
    return 64123


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/null")):
        with pytest.raises(SecretError, match="is not a regular file"):
            read_secret(f"file:{path}", None, False)


def test_an_empty_or_enormous_file_is_refused(tmp_path: Path) -> None:
    for nothing in (b"", b"\n", b"\r\n"):
        with pytest.raises(SecretError, match="is empty"):
            read_secret(f"file:{key_file(tmp_path, nothing)}", None, False)
    with pytest.raises(SecretError, match="no key is so long"):
        read_secret(f"file:{key_file(tmp_path, b'x' * 70000)}", None, False)


def test_a_credential_of_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_file(tmp_path, mode=0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_secret("credential:key", None, False).reveal() == KEY_TEXT.encode()
    with pytest.raises(SecretError, match="not a path"):
        read_secret("credential:../key", None, False)


def test_a_credential_outside_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(CredentialUnavailable):
        read_secret("credential:key", None, False)
    text = GATEWAY + '[tunnels.a]\ncustomer_gateway = "branch"\npre_shared_key = "credential:key"\n'
    path = write(tmp_path, text)
    assert [p.code for p in load(path).errors] == ["E-PSK-CREDENTIAL"]
    assert [p.code for p in load(path, offline=True).problems] == ["W-NO-ROUTES", "W-PSK-CREDENTIAL"]


def test_plain_only_where_others_cannot_read(tmp_path: Path) -> None:
    text = GATEWAY + f'[tunnels.a]\ncustomer_gateway = "branch"\n{KEY}\n'
    assert load(write(tmp_path, text, mode=0o600)).ok
    for mode in (0o644, 0o640, 0o604):
        (error,) = load(write(tmp_path, text, mode=mode)).errors
        assert (error.code, error.line) == ("E-PSK-MODE", 12)


@pytest.mark.parametrize(
    ("key", "codes"),
    [
        (b"x" * 20, []),
        (b"x" * 19, ["W-PSK-SHORT"]),
        (b" " + b"x" * 20, ["W-PSK-SPACE"]),
        (b"x" * 20 + b"\t", ["W-PSK-SPACE"]),
        (b'"' + b"x" * 20 + b'"', ["W-PSK-QUOTES"]),
        (b"x" * 20 + b"\n" + b"y", ["W-PSK-LINES"]),
        (b"0x" + b"a" * 20, ["W-PSK-PREFIX"]),
        ("ü".encode() * 20, ["W-PSK-ASCII"]),
        ("\u201c".encode() + b"x" * 20 + "\u201d".encode(), ["W-PSK-QUOTES", "W-PSK-ASCII"]),
    ],
)
def test_what_is_suspicious_about_a_key(key: bytes, codes: list[str]) -> None:
    assert [s.code for s in suspicions(Secret(key))] == codes


ONLY = "write only what stands between the quotes"
FOREIGN = [
    (': PSK "KEYTEXT"', "ipsec.secrets", ONLY),
    ("192.0.2.1 198.51.100.1 : PSK 'KEYTEXT'", "ipsec.secrets", ONLY),
    ('@hq.example %any: PSK "KEYTEXT"\n', "ipsec.secrets", ONLY),
    ("2001:db8::1 @gw.example : psk KEYTEXT", "ipsec.secrets", "write only the key itself"),
    ("a b : PSK 0x0123456789abcdefKEYTEXT", "ipsec.secrets", "xxd -r -p"),
    ("a b : PSK 0sKEYTEXT=", "ipsec.secrets", "base64 -d"),
    ('# of the branch\n\ninclude /var/lib/x\n192.0.2.1 : PSK "KEYTEXT"', "ipsec.secrets", ONLY),
    ('secret = "KEYTEXT"', "swanctl.conf", ONLY),
    ("        secret = 0sKEYTEXT", "swanctl.conf", "base64 -d"),
    ('ike-1 {\n  id = x\n  secret = "KEYTEXT"\n}', "swanctl.conf", ONLY),
    ('pre_shared_key = "plain:KEYTEXT"', "a setting of a configuration", ONLY),
    ('PSK "KEYTEXT"', "the word PSK", ONLY),
    ("psk KEYTEXT", "the word PSK", "write only the key itself"),
    ("pre-shared-key KEYTEXT", "the word PSK", "write only the key itself"),
    ("198.51.100.1\tKEYTEXT", "psk.txt", "write only the key itself"),
]


@pytest.mark.parametrize(("content", "what", "instead"), FOREIGN)
@pytest.mark.parametrize("form", ["file", "plain"])
def test_a_line_of_another_configuration_is_named(
    tmp_path: Path, content: str, what: str, instead: str, form: str
) -> None:
    text = content.replace("KEYTEXT", KEY_TEXT)
    path = key_file(tmp_path, text.encode())
    reference = f"file:{path}" if form == "file" else f"plain:{text}"
    table = f"[tunnels.a]\ncustomer_gateway = 'branch'\npre_shared_key = {json.dumps(reference)}\n"
    (error,) = load(write(tmp_path, GATEWAY + table)).errors
    assert (error.code, error.line) == ("E-PSK-LINE", 12)
    assert what in error.message
    assert error.hint is not None
    assert instead in error.hint
    assert KEY_TEXT not in repr(error)


@pytest.mark.parametrize(
    "key",
    [
        "correct horse battery staple",
        "psk-of-the-branch-office",
        "secret=",
        "PSKs are not for people to read",
        "a:PSKb and so on and so on",
        "192.0.2.1-and-more-than-that",
    ],
)
def test_a_key_that_only_looks_a_little_like_one_is_a_key(key: str) -> None:
    assert foreign_line(Secret(key.encode())) is None


def test_the_bytes_of_a_hex_key_are_written_as_the_hint_says(tmp_path: Path) -> None:
    path = key_file(tmp_path, b"\x00\x01\n\n")
    assert read_secret(f"file:{path}", None, False).reveal() == b"\x00\x01\n"


SECRETS = [
    'pre_shared_key = "KEYTEXT"',
    'pre_shared_key = "plain:KEYTEXT"',
    'pre_shared_key = " plain:KEYTEXT"',
    'pre_shared_key = "palin:KEYTEXT"',
    'pre_shared_key = ["KEYTEXT"]',
    'pre_shared_key = { plain = "KEYTEXT" }',
    'pre_shared_key = "plain:KEYTEXT',
    'pre_shared_key = "plain:KEYTEXT"\npre_shared_key = "plain:KEYTEXT"',
    'pre_shared_key = "plain:KEYTEXT" KEYTEXT',
]


@pytest.mark.parametrize("line", SECRETS)
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_no_problem_shows_a_key(tmp_path: Path, line: str, mode: int) -> None:
    text = GATEWAY + f'[tunnels.a]\ncustomer_gateway = "branch"\n{line.replace("KEYTEXT", KEY_TEXT)}\n'
    loaded = load(write(tmp_path, text, mode=mode))
    assert KEY_TEXT not in repr(loaded.problems)
    assert KEY_TEXT not in str([t.secret for t in loaded.configuration.tunnels.values()])
    assert "KEYTEXT" not in repr([t.table for t in loaded.configuration.tunnels.values()])
