"""vpnd as a gateway: `vpnd run` in a namespace, set up by its API, and by vpnctl where that matters."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from threading import current_thread, main_thread
from typing import Any

from typer.testing import CliRunner

from tests.lab import counting
from tests.lab.lab import Lab, Namespace, write
from tests.lab.plan import Agreed, Plan, Suite
from tests.lab.process import PATIENCE, Child, finished, run, wait_until
from vpnd.control import addition, cli
from vpnd.sdk.errors import Refused
from vpnd.sdk.transport import Transport, tunnel_path

PROGRAMS = Path(sys.executable).parent
PROGRAM = (str(PROGRAMS / "vpnd"), "run")
"""The command for a vpnd whose start, memory or time is looked at."""
FORKED = ("vpnd.daemon.main", "run")
OBSERVED = "tests.lab.observed"
START_TIMEOUT = PATIENCE
USAGE = (400, 404, 405, 413, 422)
"""Answers to what no test should have asked."""
BEGINNINGS = ("starting", "tunnel-removed")
"""Events after which nothing is known of a tunnel."""
STATE_TIMEOUT = 10
"""Seconds for the state in the report of a failure: a daemon that hangs does not answer."""

GATEWAY = """[gateway]
name = "{name}"
address = "{address}"
"""


def with_names(hosts: Path, resolver: Path | None = None) -> tuple[str, ...]:
    """The command for a vpnd that finds names in this file, and perhaps its name servers in the other."""
    mounts = [(hosts, "/etc/hosts"), *([(resolver, "/etc/resolv.conf")] if resolver else [])]
    steps = [f"mount --bind {shlex.quote(str(path))} {place}" for path, place in mounts]
    shell = " && ".join([*steps, 'exec "$0" run "$@"'])
    return "unshare", "--mount", "sh", "-c", shell, str(PROGRAMS / "vpnd")


class Vpnd:
    """One vpnd with its configuration, socket, state and log in a directory of the laboratory."""

    kind = "vpnd"

    def __init__(
        self,
        namespace: Namespace,
        address: str,
        command: tuple[str, ...] = (),
        name: str = "",
        plans: Sequence[Plan] = (),
        start_timeout: float = START_TIMEOUT,
        running: bool = True,
        engine: str | None = None,
    ) -> None:
        """Start it, if it shall be `running`, with these plans in its files; `command` is for `vpnd run`.

        `engine` is `gateway.engine`; None: that of the laboratory.
        """
        self.namespace = namespace
        self.directory = namespace.lab.directory / f"vpnd-{namespace.label}"
        self.socket = self.directory / "vpnd.sock"
        self._command = command or (FORKED if Lab.forks else PROGRAM)
        self._child: Child | None = None
        self._starts = 0
        self._start_timeout = start_timeout
        head = GATEWAY.format(name=name or namespace.label, address=address)
        engine = engine or Lab.engine
        write(self.config, head + (f'engine = "{engine}"\n' if engine != "auto" else ""), mode=0o600)
        self.configure(*plans)
        namespace.lab.own_state(f"vpnctl status at {namespace.label}", self._told)
        if running:
            self.start()

    def _told(self) -> str:
        """What its operator sees, if it answers."""
        asked = (self.vpnctl(what, check=False, timeout=STATE_TIMEOUT) for what in ("status", "events"))
        return "\n".join(done.stdout + done.stderr for done in asked)

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.directory / "vpnd.toml"

    @property
    def child(self) -> Child:
        """The running process."""
        if self._child is None:
            raise RuntimeError(f"vpnd {self.namespace.label} does not run")
        return self._child

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        return self.child.pid

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self.launch()
        try:
            interval = 0.02 if self._start_timeout <= START_TIMEOUT else 0.25
            wait_until(self._answers, "vpnd to answer", self._start_timeout, interval)
        except TimeoutError:
            raise TimeoutError(f"vpnd {self.namespace.label} does not answer:\n{self.log()}") from None

    def launch(self) -> None:
        """Start the daemon; what it does next is the caller's to see. Each start has a log of its own."""
        self._starts += 1
        is_counted = counting.DAEMONS in os.environ and self._command == PROGRAM
        command = FORKED if is_counted else self._command  # only a fork is counted
        by_fork = command[0] in (FORKED[0], OBSERVED)
        start = self.namespace.fork if by_fork else self.namespace.spawn
        self._child = start(
            *command,
            "--config", str(self.config),
            "--socket", str(self.socket),
            "--state", str(self.directory / "state"),
            log=f"{self.directory.name}/log.{self._starts}",
        )  # fmt: skip

    @contextmanager
    def started_with(self, command: tuple[str, ...]) -> Iterator[None]:
        """The daemon is another program for the length of the block."""
        try:
            with self.starts_as(command):
                self._restart()
                yield
        finally:
            self._restart()

    @contextmanager
    def starts_as(self, command: tuple[str, ...]) -> Iterator[None]:
        """What is started during the block is another program."""
        usual, self._command = self._command, command
        try:
            yield
        finally:
            self._command = usual

    def _restart(self) -> None:
        self.stop()
        self.start()

    def ctl(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        """vpnctl against this daemon: its command line and its code, in this process.

        The start of a program costs more than what it asks; `vpnctl` is for a test of the program itself, and
        for threads, which share their standard output.
        """
        if current_thread() is not main_thread():
            return self.vpnctl(*arguments, check=check)
        command = ["--socket", str(self.socket), *arguments]
        told = CliRunner().invoke(cli.app.for_typer(), command, prog_name="vpnctl")
        if told.exception is not None and not isinstance(told.exception, SystemExit):
            raise told.exception
        done = CompletedProcess(["vpnctl", *command], told.exit_code, told.stdout, told.stderr)
        return finished(done, check)

    def vpnctl(self, *arguments: str, check: bool = True, timeout: float = 60) -> CompletedProcess[str]:
        """Run the program vpnctl against this daemon."""
        command = [str(PROGRAMS / "vpnctl"), "--socket", str(self.socket), *arguments]
        return run(command, check=check, timeout=timeout)

    def get(self, path: str) -> Any:
        """GET from the management API; None unless the answer is 200."""
        status, content = self.ask("GET", path)
        return json.loads(content) if status == 200 else None

    def post(self, path: str) -> tuple[int, Any]:
        """POST to the management API, without a body: the answer's status and its JSON."""
        status, content = self.ask("POST", path)
        return status, json.loads(content)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request; the answer's JSON. Raises RuntimeError for a refusal, with what was said."""
        status, content = self.ask(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {content.decode(errors='replace')}")
        return json.loads(content) if content else None

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        """One request to the management API; the answer's status and what it holds, whatever that is."""
        connection = _UnixConnection(self.socket)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """What `vpnctl --json status` prints, by the API."""
        status: dict[str, Any] = self.call("GET", "/v1/status")
        return status

    def tunnel(self, name: str) -> dict[str, Any]:
        """One tunnel of the status, by the API: the same document without the start of a program."""
        found: dict[str, Any] | None = next(
            (tunnel for tunnel in self.get("/v1/status")["tunnels"] if tunnel["name"] == name), None
        )
        if found is None:
            raise LookupError(f"vpnd {self.namespace.label} does not list {name}")
        return found

    def events(self, tunnel: str | None = None) -> list[dict[str, Any]]:
        """What it has told of itself, or of one tunnel, oldest first."""
        _, content = self.ask("GET", "/v1/events?follow=false")
        told = [json.loads(line) for line in content.splitlines()]
        return [event for event in told if tunnel in (None, event["tunnel"])]

    def told(self, tunnel: str, before: int = 0) -> list[str]:
        """Kinds and codes of a tunnel's events since there were so many, without commands: what decided."""
        events = [event for event in self.events(tunnel)[before:] if event["event"] != "command"]
        return [word for event in events for word in (event["event"], event["code"]) if word]

    def wait_state(self, name: str, *states: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait until a tunnel is in one of these states; returns it."""
        found: list[dict[str, Any]] = []

        def reached() -> bool:
            found[:] = [self.tunnel(name)]
            return found[0]["state"] in states

        try:
            wait_until(reached, f"{name} to be {states}", timeout, interval=0.05)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is {found[0]['state']}: {found[0]['last_error']}") from None
        return found[0]

    def wait_proved(self, name: str) -> None:
        """Wait until the first rekey of an IKEv2 tunnel, seconds after it came up, is over.

        vpnd proves early, once for a peer and a configuration, that a rekey works; a test that compares
        SAs over time waits for that first.
        """

        def proved() -> bool:
            _, content = self.ask("GET", "/v1/events?follow=false")
            events = [json.loads(line) for line in content.splitlines() if line.strip()]
            kinds = [event["event"] for event in events if event["tunnel"] in (name, None)]
            since = max((at for at, kind in enumerate(kinds) if kind in BEGINNINGS), default=0)
            return "rekeyed" in kinds[since:]

        wait_until(proved, f"the early rekey of {name}", interval=0.1)

    def add(self, plan: Plan) -> None:
        """Create or change a tunnel, as `vpnctl add FILE` does, without the start of a program."""
        (tunnel,) = addition.read(self.write_tunnel(plan, self.directory / f"{plan.name}.toml"))
        self.call("PUT", f"/v1/tunnels/{tunnel.name}", tunnel.table)

    def configure(self, *plans: Plan) -> None:
        """Put tunnels in the files of `tunnels.d`, for the next start or reload."""
        for plan in plans:
            self.write_tunnel(plan, self.directory / "tunnels.d" / f"{plan.name}.toml")

    def replace(self, *plans: Plan) -> None:
        """Have these tunnels and no others in the files, and reload."""
        for path in (self.directory / "tunnels.d").glob("*.toml"):
            path.unlink()
        self.configure(*plans)
        self.call("POST", "/v1/reload")

    def write_tunnel(self, plan: Plan, path: Path) -> Path:
        """Write a tunnel's TOML and its key."""
        key = write(self.directory / "psk" / plan.name, plan.psk, mode=0o600)
        return write(path, tunnel_toml(plan, f"file:{key}"), mode=0o600)

    def remove(self, name: str) -> None:
        """Remove a tunnel that was added, as `vpnctl remove NAME` does."""
        self.call("DELETE", f"/v1/tunnels/{name}")

    def up(self, name: str, timeout: float = 10) -> CompletedProcess[str]:
        """What `vpnctl up NAME` does, without the start of a program: 0, or 1 and why it is not up.

        Raises Refused where there is nothing to bring up.
        """
        asked = ["vpnctl", "up", name]
        try:
            answer = Transport(self.socket).call(
                "POST", tunnel_path(name, "up"), {"timeout_s": timeout}, timeout
            )
        except Refused as refusal:
            if refusal.status in USAGE:
                raise
            return CompletedProcess(asked, 1, "", json.dumps(dict(refusal.error)))
        return CompletedProcess(asked, 0, f"{name} is {answer['state']}\n", "")

    def ike_sas(self, name: str) -> list[dict[str, Any]]:
        """The IKE SAs of one tunnel, established or not."""
        found: list[dict[str, Any]] = self.call("GET", f"/v1/tunnels/{name}")["ike_sas"]
        return found

    def agreed(self, name: str) -> list[Agreed]:
        """The mappings of one tunnel that are up."""
        return agreed_in(self.tunnel(name))

    def agreements(self) -> dict[str, list[Agreed]]:
        """The same of every tunnel, by its name."""
        return {tunnel["name"]: agreed_in(tunnel) for tunnel in self.get("/v1/status")["tunnels"]}

    def log(self) -> str:
        """What this start of the daemon has logged."""
        return self.child.output()

    def cpu_seconds(self) -> float:
        """CPU time of the daemon."""
        return self.child.cpu_seconds()

    def resident_bytes(self) -> int:
        """Memory of the daemon."""
        return self.child.resident_bytes()

    def stop(self) -> int:
        """End it with SIGTERM."""
        return self.child.stop()

    def kill(self) -> int:
        """End it with SIGKILL."""
        return self.child.kill()

    def _answers(self) -> bool:
        if self.child.exit_code is not None:
            raise RuntimeError(f"vpnd {self.namespace.label} ended:\n{self.log()}")
        try:
            progress = self.get("/v1/reload")
        except OSError:
            return False
        # It answers from the first moment on, also while it sets its tunnels up.
        if progress is None or progress["running"]:
            return False
        # The status of a thousand tunnels is not for asking fifty times a second.
        return self.get("/v1/status") is not None


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("vpnd", timeout=PATIENCE)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


def observed_command(keys: Path) -> tuple[str, ...]:
    """The command that starts vpnd with an onlooker who writes the keys of its SAs to a file."""
    return OBSERVED, str(keys), "run"


def agreed_in(tunnel: dict[str, Any]) -> list[Agreed]:
    """The mappings that are up in one tunnel of the status."""
    ike = tunnel["ike"]
    if ike is None:
        return []
    suite = Suite(ike["encryption"], ike["integrity"], ike["dh_group"])
    return [
        Agreed(
            ike["version"],
            suite,
            mapping["encryption"],
            mapping["integrity"],
            int(mapping["spi_in"], 16),
            int(mapping["spi_out"], 16),
            mapping["local"],
            mapping["remote"],
            mapping["encapsulation"] == "udp",
            mapping["pfs"] or 0,
        )
        for mapping in tunnel["mappings"]
        if mapping["state"] == "up"
    ]


def tunnel_toml(plan: Plan, key: str) -> str:
    """One tunnel and its customer gateway as TOML."""
    name, peer = _key(plan.name), f"{plan.name}-peer"
    lines = [
        f"[customer_gateways.{_key(peer)}]",
        f'address = "{plan.remote.address}"',
        f"[tunnels.{name}]",
        f"customer_gateway = {json.dumps(peer, ensure_ascii=False)}",
        f'pre_shared_key = "{key}"',
        f'negotiation = "{plan.negotiation}"',
        f'interface = "{plan.interface}"',
        f"priority = {plan.priority}",
        *plan.lines,
    ]
    if plan.routed:
        lines += ['communication = "destination-route"', f"routes = {json.dumps(plan.remote.networks)}"]
    else:
        lines += ['communication = "spd-policy"']
        for rule in plan.spd:
            lines += [
                f"[[tunnels.{name}.spd]]",
                f"local = {json.dumps(rule.local)}",
                f"remote = {json.dumps(rule.remote)}",
                *rule.lines,
            ]
    lines += [
        f"[tunnels.{name}.ike]",
        f'version = "{plan.version}"',
        *([f'negotiation_mode = "{plan.mode}"'] if plan.version == "ikev1" else []),
        *_suite_lines(plan.ike),
        f"dh_group = {plan.ike.dh_group}",
        f'local_id = "{plan.local.identity}"',
        *([f'remote_id = "{plan.remote.identity}"'] if plan.remote.identity else []),
        f"lifetime = {plan.ike_lifetime}",
        f"[tunnels.{name}.ipsec]",
        *plan.esp_lines,
        *_suite_lines(plan.esp),
        *([f"pfs = {plan.pfs}"] if plan.pfs else []),
        f"lifetime = {plan.lifetime}",
        f"lifetime_kb = {plan.lifetime_kb}",
        f'encapsulation = "{plan.encapsulation}"',
        f"[tunnels.{name}.dpd]",
        f"timeout = {plan.dpd_timeout}",
        f'action = "{plan.dpd_action}"',
    ]
    if plan.sm_numbers:
        lines += [
            f"[tunnels.{name}.sm_numbers]",
            *(f"{key} = {value}" for key, value in plan.sm_numbers),
        ]
    if plan.health is not None:
        lines += [
            f"[tunnels.{name}.health_check]",
            "enabled = true",
            f'local = "{plan.health.local}"',
            f'remote = "{plan.health.remote}"',
            f"interval_ms = {plan.health.interval_ms}",
            f"timeout_ms = {plan.health.timeout_ms}",
            f"failures = {plan.health.failures}",
            f"recoveries = {plan.health.recoveries}",
        ]
    return "\n".join(lines) + "\n"


def _key(text: str) -> str:
    """A name as a key: what is no bare one is quoted, and JSON's strings are TOML's."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else json.dumps(text, ensure_ascii=False)


def _suite_lines(suite: Suite) -> list[str]:
    return [f'encryption = "{suite.encryption}"', f'integrity = "{suite.integrity}"']
