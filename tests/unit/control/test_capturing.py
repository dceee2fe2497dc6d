"""`vpnctl pcap`: who may capture, what is asked for, and the file."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from tests.unit.control.conftest import Remote, vpnctl, vpnctl_process
from vpnd.control import access
from vpnd.sdk import AsyncClient, Client, Refused

FILE = b"the file, in pieces"


@pytest.fixture(autouse=True)
def _may_capture(remote: Remote) -> None:
    """The tests run as root, or as a user that may capture."""
    remote.operations.admins_capture = os.geteuid() != 0


def ask(remote: Remote, *arguments: str) -> tuple[int, dict[str, object]]:
    done = vpnctl("--json", "--socket", str(remote.socket), "pcap", "branch-a", *arguments)
    return done.code, json.loads(done.out)


def test_a_capture_is_a_new_file_that_only_its_owner_reads(remote: Remote, tmp_path: Path) -> None:
    remote.operations.calls.clear()
    file = tmp_path / "t.pcapng"
    code, document = ask(remote, "-w", str(file), "--ike", "--seconds", "5", "--megabytes", "1")
    assert (code, document) == (0, {"tunnel": "branch-a", "file": str(file), "bytes": len(FILE)})
    assert file.read_bytes() == FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    wanted = {"inner": False, "outer": False, "ike": True, "seconds": 5.0, "bytes": 1024 * 1024}
    assert remote.operations.calls[0] == ("capture", "branch-a", wanted)
    code, refused = ask(remote, "-w", str(file))
    assert (code, refused["error"]["code"]) == (1, "E-EXISTS")  # type: ignore[index]  # a problem document
    assert file.read_bytes() == FILE
    code, refused = ask(remote, "-w", str(tmp_path / "none" / "x"))
    assert (code, refused["error"]["code"]) == (1, "E-PCAP")  # type: ignore[index]  # a problem document


def test_all_kinds_without_an_option(remote: Remote, tmp_path: Path) -> None:
    remote.operations.calls.clear()
    ask(remote, "-w", str(tmp_path / "t.pcapng"))
    asked = remote.operations.calls[0][2]
    assert isinstance(asked, dict)
    assert (asked["inner"], asked["outer"], asked["ike"]) == (True, True, True)


@pytest.mark.parametrize("awaited", [False, True])
def test_the_sdk_captures_too(remote: Remote, awaited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def awaits() -> bytes:
        pieces = AsyncClient(remote.socket).capture("branch-a", ike=False, seconds=5)
        return b"".join([piece async for piece in pieces])

    def capture() -> bytes:
        if awaited:
            return asyncio.run(awaits())
        return b"".join(Client(remote.socket).capture("branch-a", ike=False, seconds=5))

    remote.operations.calls.clear()
    assert capture() == FILE
    wanted = {"inner": True, "outer": True, "ike": False, "seconds": 5.0, "bytes": 16 * 1024 * 1024}
    assert remote.operations.calls[0] == ("capture", "branch-a", wanted)
    remote.operations.admins_capture = False
    monkeypatch.setattr(access.Caller, "is_root", property(lambda caller: False))
    with pytest.raises(Refused) as refused:
        capture()
    assert refused.value.code == "E-ROOT"


def test_into_a_pipe(remote: Remote) -> None:
    done = vpnctl_process("--socket", str(remote.socket), "pcap", "branch-a", "-w", "-")
    assert (done.code, done.out.encode()) == (0, FILE)


def test_who_is_not_root_captures_only_where_that_is_configured(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access.Caller, "is_root", property(lambda caller: False))
    remote.operations.admins_capture = False
    code, refused = ask(remote, "-w", str(tmp_path / "t"))
    assert (code, refused["error"]["code"]) == (1, "E-ROOT")  # type: ignore[index]  # a problem document
    assert not (tmp_path / "t").exists()
    remote.operations.admins_capture = True
    assert ask(remote, "-w", str(tmp_path / "t"))[0] == 0
