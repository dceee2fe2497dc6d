"""Asks the daemon, makes the checks one after the other, and prints each as it is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from vpnd.control.doctor import firewall
from vpnd.control.doctor.checks import CHECKS
from vpnd.control.doctor.verdicts import Finding, Machine, Subject, ThisMachine, Verdict
from vpnd.control.render import clean
from vpnd.control.session import EXIT_FAILED, Session, print_lines
from vpnd.sdk.transport import tunnel_path

if TYPE_CHECKING:
    from vpnd.sdk.transport import AsyncTransport

MARKS = {Verdict.GOOD: ("ok", "green"), Verdict.NOTE: ("look", "yellow"), Verdict.BAD: ("BAD", "bold red")}
UNKNOWN_MARK = ("?", "dim")

LOOKED = 3.0
"""Ours: seconds between the two looks at the firewall at least: an IKE message that is lost is sent again."""


def run(session: Session, name: str | None, machine: Machine | None = None) -> None:
    """Every check of one tunnel, or of each that has trouble; exit code 1 where one is bad."""
    machine = machine or ThisMachine()
    subjects = session.ask(lambda client: gather(client, name))
    document: list[dict[str, Any]] = []
    bad = False
    for subject in subjects:
        tunnel = str(subject.tunnel["name"])
        if not session.json:
            print_lines(lambda width, tunnel=tunnel: [Text(clean(tunnel), style="bold")])  # type: ignore[misc] # the loop's own
        found = []
        for finding in examine(subject, machine, lambda check: _progress(session, check)):
            found.append(finding)
            if not session.json:
                print_lines(lambda width, finding=finding: lines(finding))  # type: ignore[misc] # the loop's own
        bad = bad or any(finding.verdict is Verdict.BAD for finding in found)
        document.append({"tunnel": tunnel, "checks": [finding.document() for finding in found]})
    if session.json:
        session.show({"tunnels": document, "bad": bad}, lambda width: ())
    if bad:
        raise SystemExit(EXIT_FAILED)


async def gather(client: AsyncTransport, name: str | None) -> list[Subject]:
    """What the daemon says of this tunnel, or of those with trouble, or else of all."""
    status = await client.get("/v1/status")
    others = status["tunnels"]
    if name is not None:
        wanted = [name]
    else:
        troubled = [one["name"] for one in others if one["last_error"] or one.get("impaired")]
        wanted = troubled or [one["name"] for one in others]
    subjects = []
    for one in wanted:
        tunnel = await client.get(tunnel_path(one))
        keys = await client.get(tunnel_path(one, "psk"))
        trace = (await client.get(tunnel_path(one, "trace")))["lines"]
        subjects.append(Subject(tunnel, keys, trace, others))
    return subjects


def examine(
    subject: Subject, machine: Machine, progress: Any = None, wait: Any = time.sleep
) -> Iterator[Finding]:
    """Each finding as soon as it is made. `progress` hears the name of a check before it is made."""
    began, before = time.monotonic(), firewall.counters(machine)
    troubled = not subject.is_up
    for check in CHECKS:
        if progress is not None:
            progress(check.__name__)
        for finding in check(subject, machine):
            troubled = troubled or finding.verdict is Verdict.BAD
            yield finding
    if progress is not None:
        progress("firewall")
    wait(max(0.0, LOOKED - (time.monotonic() - began)))
    yield from firewall.compare(before, machine, troubled)


def lines(finding: Finding) -> Sequence[Text]:
    """A line for the verdict, and one for the next step."""
    word, style = MARKS.get(finding.verdict, UNKNOWN_MARK)
    head = Text.assemble((f"  {word:<5}", style), f"{finding.check}: {clean(finding.text)}")
    return [head] if finding.next is None else [head, Text(f"         {clean(finding.next)}", style="dim")]


def _progress(session: Session, check: str) -> None:
    """What is looked at now, on a terminal; the next line is written over it."""
    if not session.json and sys.stderr.isatty():
        sys.stderr.write(f"\r  ...  {check.replace('_', ' ')}\x1b[K\r")
        sys.stderr.flush()
