"""Ladders: the messages of an exchange as the RFCs draw them, one line each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rung:
    """One message: `text` is the exchange, message ID and payloads as `LadderLine` gives them."""

    at: float
    sender: str
    receiver: str
    text: str


class Ladder(str):
    """A ladder as text. Two are equal if their lines are, whatever the indentation and the alignment."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and plain(self) == plain(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(plain(self)))

    @property
    def steps(self) -> list[str]:
        """Its lines, with single spaces."""
        return plain(self)


def plain(text: str) -> list[str]:
    """The lines that are not blank, without indentation, every run of spaces made one."""
    return [" ".join(line.split()) for line in str.splitlines(text) if line.strip()]


def draw(rungs: list[Rung], left: str) -> Ladder:
    """The rungs in order, the payloads aligned; `left` is the gateway that stands on the left."""
    rows = [(_arrow(rung, left), *_parts(rung.text)) for rung in rungs]
    width = max((len(head) for _, head, _ in rows), default=0)
    return Ladder("".join(f"\n{arrow}  {head:{width}}  {body}".rstrip() for arrow, head, body in rows))


def _arrow(rung: Rung, left: str) -> str:
    if rung.receiver == left:
        return f"{rung.receiver} <- {rung.sender}"
    return f"{rung.sender} -> {rung.receiver}"


def _parts(text: str) -> tuple[str, str]:
    head, brace, body = text.partition("{")
    return head.strip(), brace + body
