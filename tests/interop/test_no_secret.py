"""No key in anything that vpnctl prints, that a daemon logs, or that its process shows of itself."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.lab.lab import Lab, write
from tests.lab.plan import PSK, A, B, Plan
from tests.lab.topology import two_gateways
from tests.lab.vpnd import PROGRAMS, Vpnd
from vpnd.control import cli
from vpnd.control.doctor import run as doctors

pytestmark = [pytest.mark.root, pytest.mark.slow]

NEXT = "the-key-from-now-on-0123456789abcdef"
OTHER = "the-key-of-another-tunnel-0123456789"
ADDED = f"""[customer_gateways.lab]
address = "203.0.113.50"
[tunnels.made]
customer_gateway = "lab"
pre_shared_key = "plain:{OTHER}"
routes = ["10.7.0.0/16"]
negotiation = "passive"
"""
BADLY_ADDED = ADDED.replace("plain:", "")

TYPED = (
    "add {added}", "add {badly}", "status", "top", "nqa branch-a", "help status", "show branch-a",
    "doctor branch-a", "pcap branch-a -w {capture} --seconds 0.1", "trace --bundle {bundle}",
    "why branch-a", "why made", "trace branch-a",
    "config branch-a", "config made", "export branch-a", "export made",
    "peer-config branch-a --for strongswan", "peer-config made --for strongswan",
    "psk status", "psk fingerprint made", "psk rotate made --key {next}", "psk status", "config made",
    "export made", "psk rotate made --prove --timeout 0.1", "psk rotate made --finish --force",
    "psk rotate branch-a --key {next}", "psk rotate branch-a --key {open}",
    "rekey branch-a", "disable made", "enable made", "down made", "up made --timeout 0.1",
    "reset branch-a", "switch made", "gateway --region eu-1", "gateway",
    "plan {other}", "diff", "reload --dry-run", "apply --confirm 60", "add {added}", "rollback",
    "apply --confirm 60", "confirm", "rollback --list", "plan 1", "diff 1", "rollback 1", "reload",
    "token create backup", "token list", "token revoke backup", "remove made", "events",
)  # fmt: skip
"""Each command in an order in which it does something; a key that it makes itself is not asked for."""
SHOWS_A_KEY_ONCE = {"psk generate"}
WITHOUT_END = 10.0
"""Seconds for a command that is not typed above: what it has printed by then is looked at."""


def commands(group: Any, before: tuple[str, ...] = ()) -> set[str]:
    """Every command that there is."""
    found = getattr(group, "commands", None)
    if found is None:
        return {" ".join(before)}
    return {name for word, one in found.items() for name in commands(one, (*before, word))}


def test_no_command_prints_one(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctors, "LOOKED", 0.0)
    wire = two_gateways(lab)
    plan = Plan(name="branch-a", routed=True)
    peer = Vpnd(wire.b.gateway, B.address, plans=[plan.other()])
    ours = Vpnd(wire.a.gateway, A.address, plans=[plan])
    files = {
        "added": write(lab.directory / "added.toml", ADDED, mode=0o600),
        "badly": write(lab.directory / "badly.toml", BADLY_ADDED, mode=0o600),
        "capture": lab.directory / "capture.pcapng",
        "bundle": lab.directory / "bundle.tar.gz",
        "next": write(lab.directory / "next.psk", NEXT, mode=0o600),
        "open": write(lab.directory / "open.psk", NEXT, mode=0o644),
    }
    assert ours.ctl("up", "branch-a").returncode == 0
    said, done = [], SHOWS_A_KEY_ONCE
    every = commands(typer.main.get_command(cli.app.for_typer()))
    for typed in TYPED:
        if "{other}" in typed:
            # From now on the file has another key than what runs.
            write(ours.directory / "psk/branch-a", NEXT, mode=0o600)
        words = typed.replace(" {other}", "").format(**files).split()
        said += [
            (typed, told.stdout + told.stderr)
            for told in (ours.ctl(*words, check=False), ours.ctl("--json", *words, check=False))
        ]
        done = done | {name for name in every if f"{' '.join(words)} ".startswith(f"{name} ")}
    for command in sorted(every - done):
        said += [(command, printed(ours, *command.split(), *name)) for name in ((), ("branch-a",))]
    said += [("its log", ours.log()), ("the log of its peer", peer.log())]
    said += [(what, Path(f"/proc/{ours.pid}/{what}").read_text()) for what in ("cmdline", "environ")]
    for key in (PSK, NEXT, OTHER):
        assert [where for where, text in said if key in text] == []


def printed(vpnd: Vpnd, *words: str) -> str:
    """What a command prints of which this test knows nothing, not even that it ends."""
    command = [str(PROGRAMS / "vpnctl"), "--socket", str(vpnd.socket), *words]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=WITHOUT_END,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        return (expired.output or b"").decode(errors="replace")
    return done.stdout.decode(errors="replace")
