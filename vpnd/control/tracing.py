"""`vpnctl trace`: the recorded IKE messages as a ladder, with repeats folded, and new ones as they come."""

from __future__ import annotations

import json as jsonlib
import re
import sys
from asyncio import sleep
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from vpnd.control.render import clean, moment
from vpnd.control.session import EXIT_FAILED, Session, print_lines, write
from vpnd.sdk.calls import BUNDLE_LIMIT
from vpnd.sdk.transport import tunnel_path, with_query

if TYPE_CHECKING:
    from vpnd.sdk.transport import AsyncTransport

Json = Mapping[str, Any]

LOOK_EVERY = 0.5
"""Ours: seconds between two looks for new messages."""

LONGEST_REPEAT = 6
"""Ours: messages that repeat together: both of a question for a sign of life, all six of main mode."""

_MESSAGE_ID = re.compile(r"^(\S+) [0-9a-f]+")


def show(session: Session, name: str, wanted: Mapping[str, Any], follow: bool) -> None:
    """Print what matches, and with `follow` each new message; with --json then one object a line."""
    path = tunnel_path(name, "trace")
    if not follow:
        document = session.get(with_query(path, wanted))
        nothing = Text("no IKE message yet")
        if any(wanted.values()):
            nothing = Text(f"no IKE message matches; vpnctl trace {clean(name)} shows all that there are")
        session.show(document, lambda width: ladder(document["lines"]) or [nothing])
        return

    async def read(client: AsyncTransport) -> None:
        known = 0
        while True:
            found = (await client.get(with_query(path, {**wanted, "after": known})))["lines"]
            _print(session, found)
            known = max([known, *(line["id"] for line in found)])
            await sleep(LOOK_EVERY)

    session.ask(read)


def _print(session: Session, found: Sequence[Json]) -> None:
    if session.json:
        for line in found:
            write(jsonlib.dumps(line) + "\n")
    elif found:
        print_lines(lambda width: ladder(found))


def bundle(session: Session, name: str | None, file: Path, yes: bool) -> None:
    """Show what the file would hold, and write it; on a terminal only where that is wanted."""
    from vpnd.control import bundle as bundles

    try:
        bundles.require_new(file)
        path = with_query("/v1/bundle", {"tunnel": name})
        document = session.call("GET", path, None, BUNDLE_LIMIT)
        texts = bundles.gather(document)
        session.note("\n".join(map(clean, bundles.contents(texts, document["left_out"]))))
        if not yes and not session.json and sys.stdin.isatty():
            write(f"write {clean(file)}? [y/N] ")
            if sys.stdin.readline().strip().lower() not in ("y", "yes"):
                raise SystemExit(EXIT_FAILED)
        bundles.write(file, texts)
    except bundles.Unusable as error:
        session.fail({"code": error.code, "message": str(error), "hint": error.hint}, EXIT_FAILED)
    written = {"file": str(file), "bytes": file.stat().st_size, "files": list(texts)}
    session.show(written, lambda width: [Text(f"{clean(file)} is written, {written['bytes']} bytes")])


def ladder(messages: Sequence[Json]) -> list[Text]:
    """An arrow for each message, its decoded attributes below it; what repeats is there once."""
    lines: list[Text] = []
    for block, times in folded(messages):
        for message in block[: len(block) // times]:
            lines += _rungs(message)
        if times > 1:
            what = "it came" if len(block) == times else "these came"
            again = "once more" if times == 2 else f"{times - 1} more times"
            text = f"              {what} {again}, the last at {moment(block[-1]['at'])}"
            lines.append(Text(text, style="yellow"))
    return lines


def _rungs(message: Json) -> Iterator[Text]:
    arrow = "->" if message["direction"] == "out" else "<-"
    text = f"{moment(message['at'])}  {arrow}  {clean(message['text'])}  ({message['size']} bytes)"
    yield Text(text, style="cyan" if arrow == "->" else "")
    for detail in message["detail"]:
        yield Text(f"                {clean(detail)}", style="dim")


def folded(messages: Sequence[Json]) -> Iterator[tuple[Sequence[Json], int]]:
    """The messages in blocks, each with how many times its first part is in it.

    Messages are the same if only their times and message IDs differ.
    """
    same = [_sameness(message) for message in messages]
    at = 0
    while at < len(messages):
        length, times = _repeat(same, at)
        yield messages[at : at + length * times], times
        at += length * times


def _repeat(same: Sequence[object], at: int) -> tuple[int, int]:
    """How long the part is that repeats from here on, and how many times it is there; the most that folds."""
    best = (1, 1)
    for length in range(1, LONGEST_REPEAT + 1):
        times = 1
        part = same[at : at + length]
        while same[at + length * times : at + length * (times + 1)] == part:
            times += 1
        if times > 1 and length * (times - 1) > best[0] * (best[1] - 1):
            best = (length, times)
    return best


def _sameness(message: Json) -> tuple[object, ...]:
    text = _MESSAGE_ID.sub(r"\1", message["text"])
    return (message["direction"], text, message["size"], tuple(message["detail"]))
