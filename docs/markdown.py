"""Pieces of Markdown that several generated pages need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a line break or a bar in a cell cannot end it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: object) -> str:
    """Text as it is written in a file or a command; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def page(title: str, *parts: str) -> str:
    """A page from its paragraphs."""
    return "\n\n".join([f"# {title}", *filter(None, parts)]) + "\n"
