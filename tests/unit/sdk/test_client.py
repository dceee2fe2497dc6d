"""The typed clients, before a daemon that answers and one that comes and goes; and their documentation."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from contrib import sdk_models
from tests.unit.control.conftest import Remote
from tests.unit.control.fakes import AT
from vpnd.control.eventlog import EventLog
from vpnd.control.schema import Event
from vpnd.sdk import AsyncClient, Client, DaemonUnreachable, Refused, UnexpectedAnswer, client, transport
from vpnd.sdk.decoding import decode
from vpnd.sdk.models import Status, Why
from vpnd.sdk.transport import Transport

ROOT = Path(__file__).parents[3]


def test_the_models_are_those_of_the_openapi_document(tmp_path: Path) -> None:
    made = tmp_path / "models.py"
    made.write_text(sdk_models.models(sdk_models.document()))
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(made)], check=True, cwd=ROOT)
    assert made.read_text() == sdk_models.TARGET.read_text(), "run: python contrib/sdk_models.py"


class Both:
    """Either client, called the same way."""

    def __init__(self, remote: Remote, awaited: bool) -> None:
        self._client = AsyncClient(remote.socket) if awaited else Client(remote.socket)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            answer = getattr(self._client, name)(*arguments, **named)
            return asyncio.run(_wait(answer)) if isinstance(self._client, AsyncClient) else answer

        return call


async def _wait(answer: Any) -> Any:
    return await answer


@pytest.fixture(params=[False, True], ids=["waits", "awaited"])
def vpnd(remote: Remote, request: pytest.FixtureRequest) -> Both:
    remote.operations.begin_again()
    return Both(remote, request.param)


def test_what_is_asked_is_typed(vpnd: Both) -> None:
    status = vpnd.status()
    assert [tunnel.name for tunnel in status.tunnels] == ["branch-a", "branch-b"]
    assert status.tunnels[0].mappings[0].bytes_in == 3_400_000
    assert status.tunnels[1].last_error.at == AT
    assert status.tunnels[1].last_error.at.tzinfo == UTC
    assert vpnd.tunnel("branch-a").configuration["ike"]["dh_group"] == [14, 31]
    assert vpnd.why("branch-b").explanation.try_
    assert [line.direction for line in vpnd.trace("branch-a").lines] == ["out", "in"]
    assert not vpnd.reload_progress().running
    key, encryption = vpnd.settings("branch-a").settings
    assert (key.value, key.place, encryption.value) == ("3f9a-77c1", "vpnd.toml:9", ["aes-128"])
    assert [one.next for one in vpnd.keys().keys] == ["51b2-0e9d"] * len(vpnd.status().tunnels)
    assert vpnd.keys_of("branch-a").theirs == vpnd.keys_of("branch-a").ours
    assert vpnd.rotate_key("branch-a", "begin", key="a key of some length").done
    assert not vpnd.rotate_key("branch-b", "finish").done
    assert vpnd.export("branch-a").toml == "[tunnels.branch-a]\n"


def test_actions(vpnd: Both, remote: Remote) -> None:
    assert vpnd.up("branch-a", timeout_s=5).state == "up"
    assert vpnd.down("branch-a").state == "down"
    assert (vpnd.disable("branch-a").action, vpnd.enable("branch-a").action) == ("disable", "enable")
    vpnd.reset("branch-a")
    vpnd.rekey("branch-a", child=True)
    assert vpnd.switch("branch-a", "branch-b").by_hand == "branch-b"
    assert vpnd.reload().changed == ("branch-a",)
    assert vpnd.put_tunnel("new", {"routes": ["10.0.0.0/8"]}).change == "created"
    assert remote.operations.received["new"] == {"routes": ["10.0.0.0/8"]}
    assert [call[0] for call in remote.operations.calls] == [
        "up",
        "down",
        "disable",
        "enable",
        "reset",
        "rekey",
        "switch",
        "reload",
    ]


def test_changes_with_a_way_back(vpnd: Both, remote: Remote) -> None:
    (changed, added) = vpnd.plan().tunnels
    assert (changed.class_, changed.keys[0].before, changed.keys[0].after) == ("next SA", 86400, 28800)
    assert (added.tunnel, added.change) == ("branch-c", "added")
    assert vpnd.plan(1).tunnels == ()
    assert vpnd.apply(120).confirm_in_s == 120
    assert vpnd.apply().confirm_in_s is None
    assert vpnd.confirm().configuration == 2
    assert vpnd.rollback(3).configuration == 3
    assert [one.back for one in vpnd.configurations().configurations] == [0, 1]
    with pytest.raises(Refused) as refused:
        vpnd.plan(19)
    assert (refused.value.status, refused.value.code) == (409, "E-NO-CONFIGURATION")
    assert remote.operations.calls[-2:] == [("rollback", 3), ("plan", 19)]


def test_lists(vpnd: Both) -> None:
    assert [one.name for one in vpnd.status(state=["down"]).tunnels] == ["branch-b"]
    found = vpnd.tunnels(negotiation=["active", "passive"], carries_traffic=True, limit=5)
    assert ([one.name for one in found.tunnels], found.total) == (["branch-a"], 1)
    assert vpnd.tunnels(limit=1).total == 2
    assert vpnd.tunnels(text="&state=up").total == 0
    assert [line.direction for line in vpnd.trace("branch-a", limit=1).lines] == ["in"]
    assert [line.direction for line in vpnd.trace("branch-a", after=1, since=AT).lines] == ["in"]
    assert not vpnd.trace("branch-a", exchange=["IKE_AUTH"]).lines
    assert [file.name for file in vpnd.bundle("branch-a").files] == [
        "versions.json",
        "tunnels/branch-a/trace.json",
    ]


def test_the_gateway(vpnd: Both) -> None:
    assert (vpnd.gateway().region, vpnd.gateway().from_api) == ("eu-1", True)
    assert vpnd.put_gateway({"type": "vpc", "vpc": "vpc-1", "region": "eu"}).change == "changed"
    found = vpnd.gateway()
    assert (found.name, found.type, found.vpc, found.region) == ("hq", "vpc", "vpc-1", "eu")
    assert vpnd.put_gateway({"region": "eu"}).change == "changed"
    assert vpnd.gateway().vpc is None
    with pytest.raises(Refused) as refused:
        vpnd.put_gateway({"type": "idc"})
    assert refused.value.field == "gateway.type"
    assert vpnd.put_gateway({}).change == "changed"


def test_customer_gateways(vpnd: Both) -> None:
    assert vpnd.put_customer_gateway("分 支", {"address": "203.0.113.9"}).change == "created"
    made = vpnd.customer_gateway("分 支")
    assert (made.address, made.from_api, made.tunnels) == ("203.0.113.9", True, ())
    assert [one.name for one in vpnd.customer_gateways(from_api=False).customer_gateways] == ["branch"]
    assert vpnd.delete_customer_gateway("分 支").change == "removed"
    with pytest.raises(Refused) as refused:
        vpnd.customer_gateway("分 支")
    assert refused.value.code == "E-UNKNOWN-CUSTOMER-GATEWAY"


def test_events_that_match(remote: Remote) -> None:
    remote.operations.begin_again()
    for number in range(4):
        remote.operations.log.publish(Event(at=AT, tunnel=f"t{number % 2}", event="x", text=str(number)))
    one = Client(remote.socket)
    assert [event.text for event in one.events(follow=False, tunnel=["t1"])] == ["1", "3"]
    assert [event.text for event in one.events(limit=3, code=[], text="")] == ["0", "1", "2"]

    async def awaited() -> list[str]:
        return [event.text async for event in AsyncClient(remote.socket).events(limit=1, tunnel=["t1"])]

    assert asyncio.run(awaited()) == ["1"]


def test_a_refusal_has_code_field_and_hint(vpnd: Both) -> None:
    with pytest.raises(Refused) as refused:
        vpnd.put_tunnel("x", {"routes": ["nonsense"]})
    assert (refused.value.status, refused.value.code) == (422, "E-CONFIG")
    assert refused.value.field == "tunnels.x.routes[0]"
    assert refused.value.problems[0].code == "E-PREFIX"
    with pytest.raises(Refused) as refused:
        vpnd.delete_tunnel("branch-a")
    assert (refused.value.code, refused.value.field) == ("E-FROM-FILE", None)
    assert refused.value.hint == "remove it there, then vpnctl reload"


def test_nobody_there(tmp_path: Path) -> None:
    for call in (Client(tmp_path / "s").status, lambda: next(Client(tmp_path / "s").events())):
        with pytest.raises(DaemonUnreachable) as unreachable:
            call()
        assert "--socket" in unreachable.value.hint


def test_a_newer_and_an_older_daemon() -> None:
    why = {"tunnel": "a", "state": "up", "more": 1}
    assert decode(Why, why) == Why(tunnel="a", state="up")
    with pytest.raises(UnexpectedAnswer, match="Status"):
        decode(Status, {"gateway": {}})
    with pytest.raises(UnexpectedAnswer):
        decode(Status, {"gateway": None, "tunnels": [None]})


# --------------------------------------------------------------------------------------- a client that waits


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def answering(path: Path, *answers: bytes, requests: list[str] | None = None) -> Iterator[Path]:
    """A server that gives one raw answer to each connection, and stops after the last."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    asked = connection.recv(65536).decode()
                    if requests is not None:
                        requests.append(asked.partition("\r\n")[0])
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        thread.join(60)


BUSY = http("503 Service Unavailable", b'{"error": {"code": "E-BUSY", "message": "full"}}')


def test_it_comes_back_to_a_busy_daemon(tmp_path: Path) -> None:
    with answering(tmp_path / "s", BUSY, http("200 OK", b'{"a": 1}')) as path:
        assert Transport(path).call("GET", "/v1/status") == {"a": 1}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http("200 OK", b"<html>"), "not vpnd's"),
        (http("200 OK", b"[1]"), "not vpnd's"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not vpnd's"),
        (b"", "the connection ended"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "the connection ended"),
    ],
)
def test_what_does_not_answer_as_vpnd_does(tmp_path: Path, answer: bytes, reason: str) -> None:
    with answering(tmp_path / "s", answer) as path, pytest.raises(DaemonUnreachable, match=reason):
        Transport(path).call("GET", "/v1/status")


def test_a_daemon_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_LIMIT", 0.05)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with pytest.raises(DaemonUnreachable, match="no answer in time"):
            Client(tmp_path / "s").status()


# ------------------------------------------------------------------------------------------- events


def event(number: int) -> bytes:
    body = {"id": f"life-{number}", "at": "2026-03-01T14:02:11Z", "event": "x", "text": str(number)}
    return json.dumps(body).encode() + b"\n"


STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def test_events_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off within a line, then at the end of an answer, then with none at all."""
    monkeypatch.setattr(client, "FIRST_WAIT", 0.0)
    requests: list[str] = []
    answers = (
        STREAM + chunk(event(1) + event(2)[:20]),
        STREAM + chunk(event(2)) + b"0\r\n\r\n",
        b"",
        BUSY,
        STREAM + chunk(event(3)),
    )
    with answering(tmp_path / "s", *answers, requests=requests) as path:
        following = Client(path).events()
        assert [next(following).text for _ in range(3)] == ["1", "2", "3"]
        following.close()
    asked = [line.partition("follow=true")[2].removesuffix(" HTTP/1.1") for line in requests]
    assert asked == ["", "&after=life-1", "&after=life-2", "&after=life-2", "&after=life-2"]


async def test_events_that_are_awaited_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.0)
    requests: list[str] = []
    answers = (STREAM + chunk(event(1)), STREAM + chunk(event(2)))
    with answering(tmp_path / "s", *answers, requests=requests) as path:
        following = AsyncClient(path).events()
        assert [(await anext(following)).text for _ in range(2)] == ["1", "2"]
        await following.aclose()
    assert "after=life-1" in requests[1]


def test_a_limit_counts_over_a_stream_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.0)
    requests: list[str] = []
    answers = (STREAM + chunk(event(1) + event(2)), STREAM + chunk(event(3)))
    with answering(tmp_path / "s", *answers, requests=requests) as path:
        assert [one.text for one in Client(path).events(limit=3)] == ["1", "2", "3"]
    assert ["limit=3" in requests[0], "limit=1" in requests[1]] == [True, True]


def test_events_without_resume_end_with_the_connection(tmp_path: Path) -> None:
    with answering(tmp_path / "s", STREAM + chunk(event(1))) as path:
        following = Client(path).events(resume=False)
        assert next(following).text == "1"
        with pytest.raises(DaemonUnreachable, match="the connection ended"):
            next(following)


def test_the_log_gives_what_came_after() -> None:
    log = EventLog()
    for number in range(4):
        log.publish(Event(at=AT, event="x", text=str(number)), unproven=number == 1)
    kept = log.recent()
    assert [one.text for one in log.recent(kept[1].id)] == ["2", "3"]
    for foreign in ("other-2", "nonsense", "", f"{kept[0].id}x"):
        assert log.recent(foreign) == kept


# ------------------------------------------------------------------------------------------ documentation


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/sdk.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(examples())))
def test_an_example_of_the_documentation(
    number: int, remote: Remote, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    remote.operations.begin_again()
    log = remote.operations.log
    log.publish(Event(at=AT, event="tunnel-up", text="an old one"))

    def events(follow: bool, after: str | None) -> AsyncIterator[Event]:
        if follow:
            log.publish(Event(at=AT, event="tunnel-up", text="a new one"))
        return log.stream(follow, after)

    text = examples()[number]
    monkeypatch.setattr(remote.operations, "events", events)
    monkeypatch.setattr(client.Client.__init__, "__defaults__", (remote.socket,))
    monkeypatch.setattr(client.AsyncClient.__init__, "__defaults__", (remote.socket,))
    exec(text, {"__name__": "example"})
    printed = capsys.readouterr().out
    for expected in re.findall(r"# ([\w.\[\]-]+)(?: \.\.\.)?$", text, re.MULTILINE):
        assert expected in printed
    assert printed
