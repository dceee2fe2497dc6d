"""What the service manager hears."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

import pytest

from vpnd.host.systemd import EXTENSION, SIGN_OF_LIFE, Supervisor


def test_each_stage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.setblocking(False)
        supervisor = Supervisor(str(path))
        supervisor.ready("Running")
        supervisor.reloading()
        supervisor.status("1 of 2 tunnels up\nREADY=0")
        supervisor.ready("Running")
        supervisor.alive()
        supervisor.stopping()
        told = [listening.recv(1000).decode().split("\n") for _ in range(6)]
        supervisor.close()
        supervisor.alive()
        with pytest.raises(BlockingIOError):
            listening.recv(1000)
    assert told[0] == ["READY=1", "STATUS=Running"]
    assert told[1][0] == "RELOADING=1"
    assert told[1][1].startswith("MONOTONIC_USEC=")
    assert told[2] == ["STATUS=1 of 2 tunnels up READY=0"]
    assert told[4] == ["WATCHDOG=1"]
    assert told[5][0] == "STOPPING=1"


def test_what_takes_long_is_not_taken_for_stuck(tmp_path: Path) -> None:
    """The manager waits for the end of a start, a reload and a stop as long as there are signs of life."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.setblocking(False)
        supervisor = Supervisor(str(path))
        ready = partial(supervisor.ready, "Running")
        for stage in (ready, supervisor.reloading, ready, supervisor.stopping):
            supervisor.alive()
            stage()
        supervisor.alive()
        told = [listening.recv(1000).decode() for _ in range(9)][::2]
        supervisor.close()
    longer = f"WATCHDOG=1\nEXTEND_TIMEOUT_USEC={EXTENSION}000000"
    assert told == [longer, "WATCHDOG=1", longer, "WATCHDOG=1", longer]
    assert SIGN_OF_LIFE * 2 < EXTENSION


def test_a_manager_may_listen_on_an_abstract_name() -> None:
    name = f"vpnd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.setblocking(False)
        supervisor = Supervisor(f"@{name}")
        supervisor.alive()
        assert listening.recv(1000).startswith(b"WATCHDOG=1")
        supervisor.close()


def test_without_a_manager_or_with_one_that_is_gone_nothing_happens(tmp_path: Path) -> None:
    Supervisor(None).ready("Running")
    gone = Supervisor(str(tmp_path / "nobody"))
    gone.ready("Running")
    gone.close()


@pytest.mark.parametrize(
    ("pid", "interval"),
    [("", 5.0), (str(os.getpid()), 5.0), ("1", SIGN_OF_LIFE)],
    ids=("none", "ours", "another"),
)
def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch, pid: str, interval: float) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@vpnd-test")
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.setenv("WATCHDOG_PID", pid)
    supervisor = Supervisor.from_environment()
    assert supervisor.interval == interval
    assert "NOTIFY_SOCKET" not in os.environ
    assert "WATCHDOG_USEC" not in os.environ
    supervisor.close()
