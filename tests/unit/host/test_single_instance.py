"""Two daemons in one network namespace."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vpnd.host import single_instance
from vpnd.host.single_instance import AnotherRuns


def test_the_second_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    first = single_instance.acquire(tmp_path)
    with pytest.raises(AnotherRuns, match="another vpnd runs"):
        single_instance.acquire(tmp_path)
    first.close()
    single_instance.acquire(tmp_path).close()


def test_one_that_was_killed_leaves_nothing_that_counts(tmp_path: Path) -> None:
    killed = "import os, signal, sys; from pathlib import Path; from vpnd.host import single_instance; "
    killed += "kept = single_instance.acquire(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert list(tmp_path.iterdir())
    single_instance.acquire(tmp_path).close()


def test_no_other_user_can_take_its_place(tmp_path: Path) -> None:
    """The name of a Unix socket in the abstract namespace is anybody's; this lock is in a file of our own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as squatter:
        squatter.bind("\0vpnd")
        directory = tmp_path / "run"
        alone = single_instance.acquire(directory)
    (lock,) = directory.iterdir()
    assert lock.stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o755
    assert lock.stat().st_uid == os.geteuid()
    alone.close()
    assert list(directory.iterdir()) == []


def test_a_lock_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AnotherRuns, match="keeps two vpnd apart: Not a directory"):
        single_instance.acquire(tmp_path / "file" / "run")
    alone = single_instance.acquire(tmp_path)
    (lock,) = (path for path in tmp_path.iterdir() if path.suffix == ".lock")
    alone.close()
    lock.symlink_to(tmp_path / "file")
    with pytest.raises(AnotherRuns, match="keeps two vpnd apart"):
        single_instance.acquire(tmp_path)


def test_a_file_that_was_removed_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before removes it at its end; a third one makes it again while the second still opens it."""
    real = fcntl.flock

    def removed(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        (lock,) = tmp_path.iterdir()
        lock.unlink()
        lock.touch()

    monkeypatch.setattr(fcntl, "flock", removed)
    with pytest.raises(AnotherRuns):
        single_instance.acquire(tmp_path)
