"""strongSwan's settings format: sections in braces, `key = value`, includes, and sections that inherit.

connections {
  base { version = 2 }
  home : connections.base { remote_addrs = 192.0.2.1 }   # inherits what it does not set itself
}
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vpnd.translate.imports.files import Reader
from vpnd.translate.imports.model import Broken, Place

MAX_NESTING = 40
"""Ours: sections inside each other, and references that lead to references."""


def is_secret(key: str) -> bool:
    """Whether the value of such a setting is nobody's business."""
    return any(word in key.lower() for word in ("secret", "pass", "psk", "pin", "key"))


@dataclass(frozen=True, slots=True)
class Entry:
    """`key = value`, and where it stands."""

    key: str
    value: str
    place: Place

    @property
    def line(self) -> str:
        """As it was written, about; what may be a key is not repeated."""
        return f"{self.key} = {'...' if is_secret(self.key) else self.value}"


@dataclass(slots=True, eq=False)
class Section:
    """What stands in braces; `references` are the paths of sections that it inherits from."""

    name: str
    place: Place
    entries: dict[str, Entry] = field(default_factory=dict)
    sections: dict[str, Section] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)


class Settings:
    """A whole configuration, with what it includes."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.root = Section("", Place("", 0))

    def read(self, path: Path, depth: int = 0, into: Section | None = None) -> None:
        """Add a file. Raises Broken at the first line that has no meaning."""
        text = self.reader.text(path)
        _Parser(self, text, str(path), depth).section(into or self.root, 0)

    def include(self, pattern: str, place: Place, depth: int, into: Section) -> None:
        """Add the files that a line includes."""
        for path in self.reader.included(pattern, place, depth):
            self.read(path, depth + 1, into)

    # ------------------------------------------------------------------------------ looking

    def merged(self, section: Section, depth: int = 0) -> Section:
        """The section with what it inherits: its own values win, then those of the first reference."""
        if depth > MAX_NESTING:
            raise Broken(section.place, "sections refer to each other in a circle, or too deep")
        if depth:
            self.reader.inherits(section.place, 1 + len(section.entries) + len(section.sections))
        found = Section(section.name, section.place, dict(section.entries), dict(section.sections))
        for reference in section.references:
            other = self._at(reference)
            if other is None:
                self.reader.remarks.add(
                    section.place, f"{section.name} : {reference}", f"there is no section {reference}"
                )
                continue
            parent = self.merged(other, depth + 1)
            for key, entry in parent.entries.items():
                found.entries.setdefault(key, entry)
            for name, inner in parent.sections.items():
                own = found.sections.get(name)
                found.sections[name] = inner if own is None else _joined(own, inner)
        return found

    def _at(self, path: str) -> Section | None:
        section: Section | None = self.root
        for name in path.split("."):
            section = section.sections.get(name) if section is not None else None
        return section


def _joined(own: Section, inherited: Section) -> Section:
    """A section of both: what is set in the own one wins."""
    sections = dict(own.sections)
    for name, inner in inherited.sections.items():
        sections[name] = _joined(sections[name], inner) if name in sections else inner
    references = [*own.references, *inherited.references]
    return Section(own.name, own.place, {**inherited.entries, **own.entries}, sections, references)


class _Parser:
    """One file, character by character."""

    def __init__(self, settings: Settings, text: str, file: str, depth: int) -> None:
        self._settings, self._text, self._file, self._depth = settings, text, file, depth
        self._at, self._line = 0, 1

    @property
    def _place(self) -> Place:
        return Place(self._file, self._line)

    def section(self, into: Section, nesting: int) -> None:
        """Everything up to the closing brace, or to the end of the file."""
        if nesting > MAX_NESTING:
            raise Broken(self._place, f"sections are nested more than {MAX_NESTING} deep")
        while True:
            self._blank("\n")
            sign = self._peek()
            if sign == "":
                if nesting:
                    raise Broken(self._place, f"the section {into.name!r} has no closing brace")
                return
            if sign == "}":
                self._take()
                if not nesting:
                    raise Broken(self._place, "a brace is closed that was not opened")
                return
            self._statement(into, nesting)

    def _statement(self, into: Section, nesting: int) -> None:
        place = self._place
        word = self._word()
        if not word:
            raise Broken(place, "a name is expected here")
        self._blank()
        if word == "include" and self._peek() not in ("=", "{", ":"):
            pattern = self._value()
            self._settings.include(pattern, place, self._depth, into)
            return
        references: list[str] = []
        if self._peek() == ":":
            self._take()
            references = self._references()
        self._blank("\n")
        match self._peek():
            case "{":
                self._take()
                section = into.sections.setdefault(word, Section(word, place))
                section.references += references
                self.section(section, nesting + 1)
            case "=" if not references:
                self._take()
                self._blank()
                into.entries[word] = Entry(word, self._value(), place)
            case _:
                # What stands there may be a part of a key.
                raise Broken(place, "neither = nor an opening brace follows the name")

    def _references(self) -> list[str]:
        found = []
        while True:
            self._blank("\n")
            word = self._word()
            if word:
                found.append(word)
            self._blank("\n")
            if self._peek() != ",":
                return found
            self._take()

    def _word(self) -> str:
        """A name: up to white space or a sign that means something."""
        if self._peek() == '"':
            return self._quoted()
        start = self._at
        while self._peek() not in ("", " ", "\t", "\n", "=", "{", "}", "#", ":", ",", '"'):
            self._take()
        return self._text[start : self._at]

    def _value(self) -> str:
        """Up to the end of the line, a comment or a brace; quotes may hold all of these."""
        pieces: list[str] = []
        while (sign := self._peek()) not in ("", "\n", "#", "}", "{"):
            pieces.append(self._quoted() if sign == '"' else self._take())
        return "".join(pieces).strip() if '"' not in "".join(pieces) else "".join(pieces)

    def _quoted(self) -> str:
        place = self._place
        self._take()
        pieces: list[str] = []
        while (sign := self._peek()) != '"':
            if sign == "":
                raise Broken(place, "a quote is not closed")
            self._take()
            if sign == "\\" and self._peek():
                sign = {"n": "\n", "t": "\t", "r": "\r", "\n": ""}.get(self._peek(), self._peek())
                self._take()
            pieces.append(sign)
        self._take()
        return "".join(pieces)

    def _blank(self, more: str = "") -> None:
        """Skip white space and comments; over the ends of lines where `more` has them."""
        while (sign := self._peek()) and (sign in " \t" + more or (sign == "#" and more)):
            if sign == "#":
                while self._peek() not in ("", "\n"):
                    self._take()
            else:
                self._take()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        sign = self._text[self._at]
        self._at += 1
        self._line += sign == "\n"
        return sign


def walk(section: Section) -> Iterator[Entry]:
    """Every entry of a section and of those in it."""
    yield from section.entries.values()
    for inner in section.sections.values():
        yield from walk(inner)
