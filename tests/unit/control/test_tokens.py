"""Tokens: shown once, kept as hashes in a file of the daemon's, and made over the socket."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.unit.control.conftest import Daemon
from tests.unit.control.test_api import ask
from vpnd.config.tokens import MAX_TOKEN
from vpnd.control import tokens
from vpnd.control.operations import Conflict, InvalidConfiguration, OperationError
from vpnd.control.tokens import Tokens, UnknownToken

pytestmark = pytest.mark.asyncio(loop_scope="module")


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_a_token_is_kept_as_a_hash_that_only_its_owner_reads(tmp_path: Path) -> None:
    made = Tokens(tmp_path)
    token = made.create("monitoring", "read")
    assert re.fullmatch(r"vpnd_[\w-]{43}", token), "256 bits"
    file = tmp_path / tokens.TOKENS_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert token not in file.read_text()
    assert token.removeprefix("vpnd_") not in file.read_text()
    assert names(tmp_path) == [file.name]
    again = Tokens(tmp_path)
    assert again.find(token) == ("monitoring", "read")
    assert again.list() == made.list()


async def test_what_is_no_token(tmp_path: Path) -> None:
    made = Tokens(tmp_path)
    token = made.create("a", "admin")
    assert made.create("b", "admin") != token
    for wrong in ("", token[:-1], token.upper(), f"{token} ", token + "x" * MAX_TOKEN, "a", "\ud800"):
        assert made.find(wrong) is None


async def test_a_revoked_token_stays_revoked(tmp_path: Path) -> None:
    made = Tokens(tmp_path)
    token = made.create("a", "admin")
    end = made.end_of("a")
    made.revoke("a")
    assert end.is_set()
    assert made.find(token) is Tokens(tmp_path).find(token) is None
    with pytest.raises(UnknownToken):
        made.revoke("a")
    made.create("a", "read")
    assert not made.end_of("a").is_set()


@pytest.mark.parametrize("name", ["", "a/b", "x" * 61, "a\nb"])
async def test_a_name_is_as_that_of_a_tunnel(name: str) -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        Tokens().create(name, "read")
    assert refused.value.code == "E-NAME"


async def test_there_is_one_of_a_name_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_TOKENS", 2)
    made = Tokens()
    made.create("a", "read")
    with pytest.raises(Conflict) as refused:
        made.create("a", "admin")
    assert refused.value.code == "E-EXISTS"
    made.create("b", "read")
    with pytest.raises(Conflict) as refused:
        made.create("c", "read")
    assert refused.value.code == "E-TOO-MANY"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tokens": {"a": {"role": "king"}}}'])
async def test_a_file_that_is_wrong_gives_no_rights_and_is_not_overwritten(tmp_path: Path, text: str) -> None:
    file = tmp_path / tokens.TOKENS_FILE
    file.write_text(text)
    made = Tokens(tmp_path)
    assert (made.list(), made.trouble) == ([], f"{file} cannot be read: it is not what was written")
    with pytest.raises(OperationError) as refused:
        made.create("a", "read")
    assert refused.value.code == "E-STATE"
    assert file.read_text() == text


async def test_what_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Tokens(tmp_path)
    token = made.create("a", "admin")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OperationError, match="No space left on device"):
        made.revoke("a")
    with pytest.raises(OperationError, match="No space left on device"):
        made.create("b", "admin")
    assert [one.name for one in made.list()] == ["a"]
    assert made.find(token) == ("a", "admin")
    assert names(tmp_path) == [tokens.TOKENS_FILE]


# ------------------------------------------------------------------------------------ over the socket


async def test_they_are_made_listed_and_revoked_over_the_socket(daemon: Daemon) -> None:
    code, made, _ = await ask(daemon, "POST", "/v1/tokens", json={"name": "分支", "role": "admin"})
    assert (code, made["name"], made["role"]) == (200, "分支", "admin")
    _, listed, _ = await ask(daemon, "GET", "/v1/tokens")
    assert [(one["name"], one["role"]) for one in listed["tokens"]] == [("分支", "admin")]
    assert made["token"] not in json.dumps(listed)
    _, revoked, _ = await ask(daemon, "DELETE", "/v1/tokens/分支")
    assert revoked == {"name": "分支", "revoked": True}
    code, body, _ = await ask(daemon, "DELETE", "/v1/tokens/分支")
    assert (code, body["error"]["code"]) == (404, "E-UNKNOWN-TOKEN")
    said = [text for _, text, _ in daemon.operations.commands]
    assert said == ["token 分支 for admin created", "token 分支 revoked"]
    assert made["token"] not in json.dumps(daemon.operations.commands)


async def test_every_change_says_who_asked_for_it(daemon: Daemon) -> None:
    who = f"uid {os.getuid()}"
    for method, path, body in (
        ("POST", "/v1/tunnels/branch-a/up", None),
        ("POST", "/v1/tunnels/branch-b/up", None),
        ("POST", "/v1/tunnels/branch-a/down", None),
        ("POST", "/v1/tunnels/branch-a/reset", None),
        ("POST", "/v1/tunnels/branch-a/rekey", None),
        ("POST", "/v1/tunnels/branch-b/rekey", None),
        ("POST", "/v1/switch", {"group": "branch-a", "tunnel": "branch-b"}),
        ("POST", "/v1/switch", {"group": "branch-a"}),
        ("PUT", "/v1/tunnels/new", {}),
        ("PUT", "/v1/tunnels/new", {"routes": ["nonsense"]}),
        ("POST", "/v1/tunnels/new/check", {}),
        ("PUT", "/v1/gateway", {"region": "eu-2"}),
        ("PUT", "/v1/customer-gateways/new", {"address": "203.0.113.9"}),
        ("DELETE", "/v1/customer-gateways/new", None),
        ("DELETE", "/v1/tunnels/branch-a", None),
        ("POST", "/v1/reload", None),
        ("GET", "/v1/status", None),
    ):
        await ask(daemon, method, path, json=body)
    assert daemon.operations.commands == [
        (who, "up", "branch-a"),
        (who, "up", "branch-b"),
        (who, "down", "branch-a"),
        (who, "reset", "branch-a"),
        (who, "rekey", "branch-a"),
        (who, "switch of branch-a to branch-b", None),
        (who, "switch of branch-a back to health and priority", None),
        (who, "tunnel created", "new"),
        (who, "labels of the gateway changed", None),
        (who, "customer gateway new created", None),
        (who, "customer gateway new removed", None),
        (who, "reload", None),
    ], "an attempt that failed has changed something; what was refused, or asked, has not"
