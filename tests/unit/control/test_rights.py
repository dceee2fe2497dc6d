"""What a caller over the Unix socket may do: by user and group, and which keys a request may name."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.unit.control.conftest import Daemon, running
from tests.unit.control.test_api import ROUTES, ask
from vpnd.control import listening, server
from vpnd.control.access import READING

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEMBER, READER, BOTH, STRANGER = 61001, 61002, 61003, 61004
"""Users that no machine has."""
ADMINS, READERS, OWN = 62001, 62002, 62003
"""Groups likewise."""
GROUPS = {MEMBER: [ADMINS], READER: [READERS], BOTH: [READERS, ADMINS], STRANGER: [OWN]}

ASK = """
import http.client, json, socket, sys
answers = []
for method, path, body in json.load(sys.stdin):
    client = http.client.HTTPConnection("vpnd")
    client.sock = socket.socket(socket.AF_UNIX)
    try:
        client.sock.connect(sys.argv[1])
    except PermissionError:
        answers.append([0, ""])
        continue
    text = json.dumps(body) if body is not None else None
    client.request(method, path, text, {"Content-Type": "application/json"})
    answer = client.getresponse()
    answers.append([answer.status, answer.read().decode()])
    client.close()
print(json.dumps(answers))
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as another user")


async def ask_as(user: int, daemon: Daemon, *requests: tuple[str, str, Any]) -> list[tuple[int, Any]]:
    """What a process of this user, with its groups, is answered; 0: it cannot open the socket."""
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/python3",
        "-c",
        ASK,
        str(daemon.socket),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        user=user,
        group=OWN,
        extra_groups=GROUPS[user],
    )
    out, _ = await process.communicate(json.dumps(requests).encode())
    assert process.returncode == 0
    return [(status, _json(text)) for status, text in json.loads(out)]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that every user can pass, which those of pytest are not."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="vpnd-rights-") as made:
        try:
            os.setxattr(made, "system.posix_acl_access", listening.access_list(READERS))
        except OSError:
            pytest.skip("the file system of /tmp has no access lists")
        os.removexattr(made, "system.posix_acl_access")
        Path(made).chmod(0o755)
        yield Path(made)


@pytest_asyncio.fixture(loop_scope="module")
async def open_to_groups(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Daemon]:
    """A daemon whose socket belongs to a group of admins, with a list for readers."""
    groups = {listening.SOCKET_GROUP: ADMINS, listening.READ_GROUP: READERS}
    monkeypatch.setattr(listening, "group_of", groups.get)
    async with running(directory / "vpnd.sock") as daemon:
        yield daemon


REQUESTS: list[tuple[str, str, Any]] = [
    (
        method.upper(),
        path.replace("{name}", "branch-a") + ("?follow=false" if path == "/v1/events" else ""),
        {} if method in ("put", "post") else None,
    )
    for method, path in sorted(ROUTES)
]


@as_root
async def test_each_group_has_its_right(open_to_groups: Daemon) -> None:
    daemon = open_to_groups
    mode = daemon.socket.stat()
    assert (stat.S_IMODE(mode.st_mode), mode.st_gid) == (0o660, ADMINS)
    status = ("GET", "/v1/status", None)
    down = ("POST", "/v1/tunnels/branch-a/down", None)
    codes = {}
    for user in GROUPS:
        answers = await ask_as(user, daemon, status, down)
        codes[user] = [code for code, _ in answers]
    assert codes == {MEMBER: [200, 200], READER: [200, 403], BOTH: [200, 200], STRANGER: [0, 0]}


@as_root
async def test_a_reader_changes_nothing_by_any_verb(open_to_groups: Daemon) -> None:
    daemon = open_to_groups
    answers = await ask_as(READER, daemon, *REQUESTS)
    for (method, path, _), (status, body) in zip(REQUESTS, answers, strict=True):
        if method in READING:
            assert status not in (0, 401, 403), path
        else:
            assert (status, body["error"]["code"]) == (403, "E-ROLE"), path
            assert "uid 61002 may look and not change" in body["error"]["message"]
    operations = daemon.operations
    assert not operations.received
    assert not operations.commands
    assert all(
        call[0] not in ("up", "down", "reset", "rekey", "switch", "reload") for call in operations.calls
    )


@as_root
async def test_a_reader_may_ask_what_a_change_would_do(open_to_groups: Daemon) -> None:
    """A plan changes nothing: it says of the files what status says of what runs."""
    daemon = open_to_groups
    plans = ("GET", "/v1/plan", None), ("GET", "/v1/plan?back=1", None), ("GET", "/v1/plan?back=20", None)
    (now, body), (older, _), (wrong, refusal) = await ask_as(READER, daemon, *plans)
    assert (now, older, wrong, refusal["error"]["code"]) == (200, 200, 422, "E-REQUEST")
    assert body["tunnels"][0]["class"] == "next SA"
    assert ("plan", 1) in daemon.operations.calls


@as_root
async def test_whom_an_operator_lets_in_by_hand_may_look(open_to_groups: Daemon) -> None:
    """Nothing proves that they may do more."""
    daemon = open_to_groups
    os.removexattr(daemon.socket, "system.posix_acl_access")
    daemon.socket.chmod(0o666)
    asked = ("GET", "/v1/status", None), ("POST", "/v1/reload", None)
    assert [status for status, _ in await ask_as(STRANGER, daemon, *asked)] == [200, 403]
    os.chown(daemon.socket, -1, READERS)
    assert [status for status, _ in await ask_as(READER, daemon, *asked)] == [200, 403], (
        "readers stay readers"
    )
    assert [status for status, _ in await ask_as(MEMBER, daemon, *asked)] == [200, 403], (
        "the file's group counts"
    )


async def test_every_verb_that_changes_needs_the_right(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, for those who are not root and cannot be another user."""
    monkeypatch.setattr(server, "role_of", lambda _: "read")
    for method, path, body in REQUESTS:
        status, answer, _ = await ask(daemon, method, path, json=body)
        assert (status == 403) == (method not in READING), (method, path, answer)


async def test_the_daemon_s_own_user_may_do_everything(daemon: Daemon) -> None:
    assert (await ask(daemon, "POST", "/v1/tunnels/branch-a/down"))[0] == 200


# ------------------------------------------------------------------------------------------ keys

UNREADABLE = (
    "/etc/shadow",
    "/etc/gshadow",
    "/root",
    "/root/.ssh/id_ed25519",
    "/root/nothing-here",
    "/nowhere",
    "/nowhere/at/all",
    "/etc/vpnd/psk/branch-a",
    "/var/lib/vpnd/tunnels.d/other.psk",
    "/proc/1/environ",
    "/proc/self/environ",
    "/proc/self/mem",
    "/dev/zero",
    "/dev/stdin",
    "/etc/passwd",
    "/etc/shadow/",
    "../other.psk",
    "other.psk",
    "",
    "/etc/" + "x" * 5000,
    "/etc/\x00shadow",
)
"""Paths that a caller may not read, or that are none, or no file: nothing must tell which."""


@pytest.mark.parametrize("kind", ["file", "credential"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_no_path_tells_anything(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, kind: str, method: str
) -> None:
    monkeypatch.setattr(server, "user_of", lambda _: MEMBER)
    daemon.operations.references["has-one"] = f"{kind}:known"
    answers = set()
    for name in ("x", "has-one", "branch-a"):
        for path in UNREADABLE:
            table = {"customer_gateway": "branch", "pre_shared_key": f"{kind}:{path}"}
            where = f"/v1/tunnels/{name}" + ("/check" if method == "POST" else "")
            status, body, _ = await ask(daemon, method, where, json=table)
            answers.add((status, json.dumps(body)))
    assert len(answers) == 1, answers
    status, text = answers.pop()
    assert (status, json.loads(text)["error"]["code"]) == (403, "E-KEY-SOURCE")
    assert not daemon.operations.received


async def test_the_tunnel_s_own_key_may_be_repeated(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "user_of", lambda _: MEMBER)
    daemon.operations.references["x"] = "file:known"
    table = {"pre_shared_key": "file:known", "routes": ["10.2.0.0/16"]}
    assert (await ask(daemon, "PUT", "/v1/tunnels/x", json=table))[0] == 200
    assert daemon.operations.received["x"] == {"routes": ["10.2.0.0/16"]}, (
        "which keeps the key that is there then"
    )
    assert (await ask(daemon, "PUT", "/v1/tunnels/y", json=table))[0] == 403, "of another tunnel"
    monkeypatch.setattr(server, "user_of", lambda _: 0)
    assert (await ask(daemon, "PUT", "/v1/tunnels/y", json=table))[0] == 200
    assert daemon.operations.received["y"] == table
