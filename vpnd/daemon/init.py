"""`vpnd init`: asks for what a first tunnel needs, and writes a configuration that `vpnd check` accepts.

Each answer is checked as `vpnd check` checks it, and asked for again where it has an error. Nothing is
written before the last question, and nothing that exists is written over.
"""

from __future__ import annotations

import os
import pwd
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import typer

from vpnd.config.configuration import Findings, Source
from vpnd.config.load import check
from vpnd.config.problems import Problem
from vpnd.config.secrets import SERVICE_USER, new_key
from vpnd.daemon.state import to_toml
from vpnd.model.secret import Secret

EXIT_CONFIGURATION = 2

KINDS: dict[str, dict[str, Any]] = {
    "ikev2": {},
    "ikev1": {"ike": {"version": "ikev1"}},
    "tencent-cloud": {"profile": "tencent-cloud"},
}
"""What the other side is, and what that means for the tunnel's table."""

INTRODUCTION = """This writes {file} with one tunnel. Enter takes the value in brackets; Ctrl-C leaves
everything as it is.
"""

DONE = """
Written: {config}
         {key}{generated}

Next:
  vpnd check                                       every warning, with what to change
  systemctl enable --now vpnd                      start, and at every boot
  vpnctl status                                    is it up?
  vpnctl peer-config {name} --for strongswan       what the other side has to have
"""


@dataclass
class Answers:
    """What has been answered so far, as the tables of the file."""

    gateway: dict[str, Any] = field(default_factory=dict)
    peer: dict[str, Any] = field(default_factory=dict)
    tunnel: dict[str, Any] = field(default_factory=dict)
    name: str = "tunnel"
    key: Secret = field(default_factory=lambda: Secret(new_key().encode()))

    def tables(self, key_file: str) -> dict[str, Any]:
        """The file, with placeholders for what has not been asked yet."""
        return {
            "gateway": {"name": "gateway", "address": "auto", **self.gateway},
            "customer_gateways": {self.name: {"address": "198.51.100.1", **self.peer}},
            "tunnels": {
                self.name: {
                    "customer_gateway": self.name,
                    "pre_shared_key": f"file:{key_file}",
                    "routes": ["203.0.113.0/24"],
                    **self.tunnel,
                }
            },
        }

    def errors(self) -> list[Problem]:
        """What `vpnd check` would call an error."""
        findings = Findings()
        source = Source("answer", self.tables("psk"), main=True, private=True, keys={self.name: self.key})
        return list(check([source], findings, offline=True).errors)


def init(config: Path) -> None:
    """Ask, check and write. Raises typer.Exit where that is not possible, with the reason printed."""
    if os.path.lexists(config):
        _refuse(f"{config} exists: vpnd init writes a first configuration and changes none")
    if not os.access(_existing(config.parent), os.W_OK):
        _refuse(f"{config.parent} cannot be written to: use sudo, or name another file with --config")
    typer.echo(INTRODUCTION.format(file=config))
    answers = Answers()
    generated = _ask_all(answers)
    key_file = config.parent / "psk" / answers.name
    if os.path.lexists(key_file):
        _refuse(f"{key_file} exists: give the tunnel another name, or remove the key")
    _write(config, key_file, answers)
    typer.echo(
        DONE.format(
            config=config,
            key=key_file,
            name=answers.name,
            generated="  (a new key: the other side needs the same)" if generated else "",
        )
    )


def _ask_all(answers: Answers) -> bool:
    """Every question; whether the key was made here."""

    def put(table: dict[str, Any], key: str) -> Callable[[str], None]:
        return lambda text: table.__setitem__(key, text)

    def routes(text: str) -> None:
        answers.tunnel["routes"] = [part.strip() for part in text.split(",") if part.strip()]

    def kind(text: str) -> None:
        if text not in KINDS:
            raise ValueError(f"one of: {', '.join(KINDS)}")
        answers.tunnel.update(KINDS[text])

    def name(text: str) -> None:
        if "/" in text or text in ("", ".", "..") or text.startswith("."):
            raise ValueError("a name without a slash: its key is kept in a file of this name")
        answers.name = text

    _ask(answers, "Name of this gateway", socket.gethostname(), put(answers.gateway, "name"))
    _ask(answers, "Name of the tunnel", "branch", name)
    _ask(answers, "The peer: its IP address or domain name", None, put(answers.peer, "address"))
    own = _own_address(answers.peer["address"])
    _ask(answers, "Our address towards the peer", own, put(answers.gateway, "address"))
    _ask(answers, f"What the peer speaks ({', '.join(KINDS)})", "ikev2", kind)
    _ask(answers, "Networks behind the peer, with commas between them", None, routes)
    _ask(
        answers,
        "Who begins: active (we), passive (the peer), traffic-triggered (we, when there is traffic)",
        "active",
        put(answers.tunnel, "negotiation"),
    )
    typed = _secret("Pre-shared key (Enter makes a new one)")
    if typed:
        if typed != _secret("The same key again"):
            _refuse("the two keys differ: nothing is written")
        answers.key = Secret(typed.encode("utf-8", "surrogateescape"))
    for problem in answers.errors():
        _refuse(f"{problem.message}: nothing is written")
    return not typed


def _ask(answers: Answers, question: str, default: str | None, put: Callable[[str], None]) -> None:
    """One question, until its answer has no error; who does not sit at a terminal is asked once."""
    while True:
        text: str = typer.prompt(question, default=default)
        try:
            put(text.strip())
        except ValueError as error:
            reasons = [str(error)]
        else:
            reasons = [_sentence(problem) for problem in answers.errors()]
        if not reasons:
            return
        for reason in reasons:
            typer.echo(f"  {reason}", err=True)
        if not sys.stdin.isatty():
            raise typer.Exit(EXIT_CONFIGURATION)


def _secret(question: str) -> str:
    """An answer that no terminal shows."""
    if sys.stdin.isatty():
        text: str = typer.prompt(question, default="", show_default=False, hide_input=True)
        return text
    typer.echo(f"{question}: ", nl=False)
    return sys.stdin.readline().rstrip("\n")


def _sentence(problem: Problem) -> str:
    return problem.message if not problem.hint else f"{problem.message}: {problem.hint}"


def _own_address(peer: str) -> str | None:
    """The address from which this machine would send to the peer; nothing is sent."""
    try:
        family = socket.AF_INET6 if ip_address(peer).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((peer, 500))
            return str(probe.getsockname()[0])
    except (ValueError, OSError):
        return None


def _write(config: Path, key_file: Path, answers: Answers) -> None:
    """The key first: a configuration without it would be one with an error."""
    owner = _service() if os.geteuid() == 0 else None
    try:
        config.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not key_file.parent.exists():
            key_file.parent.mkdir(mode=0o700)
            _give(key_file.parent, owner)
        _create(key_file, answers.key.reveal() + b"\n", 0o600)
        _give(key_file, owner)
        text = f"# Every key is explained in vpnd.toml(5).\n\n{to_toml(answers.tables(str(key_file)))}"
        _create(config, text.encode(), 0o644)
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}")


def _create(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _give(path: Path, owner: pwd.struct_passwd | None) -> None:
    if owner is not None:
        os.chown(path, owner.pw_uid, owner.pw_gid)


def _service() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return None


def _existing(directory: Path) -> Path:
    """The directory, or the nearest one above it that exists."""
    while not os.path.exists(directory) and directory != directory.parent:
        directory = directory.parent
    return directory


def _refuse(reason: str) -> None:
    typer.echo(f"vpnd init: {reason}", err=True)
    raise typer.Exit(EXIT_CONFIGURATION)
