"""Which program has a UDP port: by /proc as the kernel has it, and by one made of files."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from vpnd.host.port_owner import port_owner

HOLDS = (
    "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0));"
    "print(s.getsockname()[1], flush=True); sys.stdin.read()"
)


def test_another_program_is_named_with_its_process_id() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        found = port_owner(int(program.stdout.readline()))
        assert found == f"{Path(f'/proc/{program.pid}/comm').read_text().strip()} (pid {program.pid})"
        program.communicate()


def test_what_is_ours_and_what_nobody_has_is_no_other_program() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        port = ours.getsockname()[1]
        assert port_owner(port) is None
    assert port_owner(port) is None


def test_what_is_not_ours_to_see_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    line = "  1: 00000000:01F4 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0 0"
    (tmp_path / "net" / "udp").write_text(f"  sl  local_address ...\n{line}\n short 1\n")
    for process in ("12", "13", "self"):
        (tmp_path / process).mkdir()
    (tmp_path / "13" / "fd").mkdir()
    (tmp_path / "13" / "fd" / "3").symlink_to("socket:[4711]")
    (tmp_path / "13" / "comm").write_text("charon\n")
    assert port_owner(500, tmp_path) == "charon (pid 13)"
    assert port_owner(4500, tmp_path) is None
    (tmp_path / "13" / "comm").unlink()
    assert port_owner(500, tmp_path) is None
