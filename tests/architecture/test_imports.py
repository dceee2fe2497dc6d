"""What a program imports before it is of use: a second of imports is a second without tunnels."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from tests.unit.control.fakes import FakeOperations

ROOT = Path(__file__).parents[2]
REPORT = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
IMPORTED = "import {}; " + REPORT
CALLED = """
import atexit, sys
atexit.register(lambda: exec({report!r}))
sys.argv = {line!r}
from {module} import main
main()
"""

API = frozenset({"fastapi", "starlette", "uvicorn", "anyio", "opentelemetry"})
"""A third of all that the daemon imports."""
COMMANDS = frozenset({"typer", "click", "rich", "pygments", "markdown_it", "shellingham"})
VALIDATION = frozenset(
    {"pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions"}
)
GATEWAY = frozenset({"cryptography", "pyroute2", "asyncio_dgram"})
OTHERS = frozenset({"aiohttp", "attr", "jinja2", "multiprocessing", "scapy", "structlog", "unittest"})
PARTS = frozenset({"multiprocessing"})
"""What the messages of pyroute2 take along."""
LOOP = frozenset({"asyncio", "ssl"})
HEAVY = API | COMMANDS | VALIDATION | GATEWAY | OTHERS | LOOP | {"h11"}
RUN = "vpnd.daemon.main, vpnd.daemon.events.logs, vpnd.daemon.run"
"""The modules of `vpnd run` until the tunnels have begun."""
OURS = frozenset({"vpnd.control.api", "vpnd.control.schema", "vpnd.control.server", "vpnd.daemon.service"})
NOBODYS = frozenset({"pyroute2.iproute"})


def heavy(done: subprocess.CompletedProcess[str]) -> set[str]:
    """What of all this it had imported at its end."""
    modules = json.loads(done.stderr.splitlines()[-1])
    return {module.partition(".")[0] for module in modules} & HEAVY | set(modules) & (OURS | NOBODYS)


def python(program: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=timeout)


@pytest.mark.parametrize(
    ("modules", "allowed"),
    [
        pytest.param("vpnd.daemon.main", LOOP, id="vpnd"),
        pytest.param("vpnd.config.compile, vpnd.control.check", VALIDATION | GATEWAY | LOOP, id="vpnd-check"),
        pytest.param(
            "vpnd.config.compile, vpnd.control.check, vpnd.daemon.guarding",
            VALIDATION | GATEWAY | LOOP | PARTS | {"vpnd.control.schema"},
            id="vpnd-guard",
        ),
        pytest.param(
            RUN,
            VALIDATION | GATEWAY | LOOP | PARTS | OURS - {"vpnd.control.api", "vpnd.control.server"},
            id="vpnd-run-before-the-api",
        ),
        pytest.param(
            f"{RUN}, vpnd.control.api, vpnd.control.server",
            VALIDATION | GATEWAY | LOOP | API | OURS | PARTS | {"click", "h11"},
            id="vpnd-run-with-the-api",
        ),
        pytest.param("vpnd.control.cli", frozenset[str](), id="vpnctl"),
        pytest.param("vpnd.sdk", frozenset[str](), id="sdk-until-used"),
        pytest.param("vpnd.sdk.client", {"h11"}, id="sdk"),
    ],
)
def test_what_is_imported_for_nothing_is_not(modules: str, allowed: frozenset[str]) -> None:
    assert heavy(python(IMPORTED.format(modules))) <= allowed


class Daemon(Thread):
    """Answers one request over a Unix socket with a document."""

    def __init__(self, path: Path, document: object) -> None:
        super().__init__(daemon=True)
        self._body = json.dumps(document).encode()
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(str(path))
        self._listening.listen()

    def run(self) -> None:
        connection, _ = self._listening.accept()
        with connection, self._listening:
            while b"\r\n\r\n" not in connection.recv(65536, socket.MSG_PEEK):
                pass
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self._body)}\r\n\r\n"
            connection.sendall(head.encode() + self._body)


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        (("--json", "status"), {"h11"}),
        (("status",), {"h11", "rich"}),
        (("--json", "show", "branch-a"), {"h11"}),
        (("--json", "down", "branch-a"), {"h11"}),
        (("--json", "why", "branch-a"), {"h11"}),
        (("why", "branch-a"), {"h11", "rich"}),
    ],
    ids=lambda value: "-".join(value).strip("-") if isinstance(value, tuple) else "",
)
def test_a_command_of_vpnctl_imports_what_it_needs(
    line: tuple[str, ...], allowed: set[str], tmp_path: Path
) -> None:
    said = FakeOperations().why("branch-a") if "why" in line else FakeOperations().status()
    Daemon(tmp_path / "sock", said.model_dump(mode="json", by_alias=True)).start()
    words = ["vpnctl", "--socket", str(tmp_path / "sock"), *line]
    done = python(CALLED.format(report=REPORT, line=words, module="vpnd.control.cli"))
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert heavy(done) <= allowed


@pytest.mark.parametrize("module", ["vpnd.control.cli", "vpnd.daemon.main"])
def test_help_imports_nothing_of_the_daemon(module: str) -> None:
    done = python(CALLED.format(report=REPORT, line=["program", "--help"], module=module))
    assert done.returncode == 0, done.stderr
    assert heavy(done) <= COMMANDS | VALIDATION | LOOP | OTHERS


def test_a_check_of_the_configuration_needs_no_typer(tmp_path: Path) -> None:
    config = tmp_path / "vpnd.toml"
    config.write_text('[gateway]\nname = "hq"\naddress = "192.0.2.1"\n')
    line = ["vpnd", "check", str(config)]
    done = python(CALLED.format(report=REPORT, line=line, module="vpnd.daemon.main"))
    assert done.returncode == 0, done.stderr
    assert heavy(done) <= VALIDATION | GATEWAY | LOOP
