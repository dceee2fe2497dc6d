"""ipsec.secrets: `OWNERS : PSK "KEY"`, with includes."""

from __future__ import annotations

import re
from pathlib import Path

from vpnd.model.secret import Secret
from vpnd.translate.imports import words
from vpnd.translate.imports.files import Reader
from vpnd.translate.imports.model import Broken, Found, Key, Place
from vpnd.translate.imports.swanctl import secret_of

KINDS = "RSA|ECDSA|BLISS|PKCS8|PKCS12|PIN|EAP|NTLM|XAUTH|PPKS|P12|PUBKEY"


def read(path: Path, reader: Reader) -> Found:
    """All keys of a file and of what it includes. Raises Broken; no message repeats what may be a key."""
    found = Found(remarks=reader.remarks)
    _read(path, reader, found, 0)
    return found


def _read(path: Path, reader: Reader, found: Found, depth: int) -> None:
    for place, entry in _entries(reader.text(path), str(path)):
        words_ = entry.split(None, 1)
        if words_[0] == "include" and len(words_) == 2:
            for inner in reader.included(words_[1].strip().strip('"'), place, depth):
                _read(inner, reader, found, depth + 1)
            continue
        matched = re.match(r"(?s)(.*?)(?:^|\s|(?<=\S)):\s*(\w+)\s*(.*)$", entry)
        owners, kind, rest = _split(entry) if matched is not None else ("", "", "")
        if not kind:
            raise Broken(place, 'an entry is `OWNERS : PSK "KEY"`')
        if kind.upper() != "PSK":
            text = (
                "vpnd has pre-shared keys alone"
                if re.fullmatch(KINDS, kind, re.I)
                else "this kind is not known"
            )
            found.remarks.add(place, f": {kind} ...", f"{text}: left out")
            continue
        found.count_owners(len(owners.split()), place)
        named = tuple(words.identity(owner) or owner for owner in owners.split())
        found.add_key(Key(named, _key(rest, place, reader), place))


def _split(entry: str) -> tuple[str, str, str]:
    """Owners, kind, and the rest. A colon in an IPv6 address is no separator."""
    matched = re.search(r"(?:^|\s):\s*([A-Za-z0-9]+)(?:\s+|$)", entry) or re.search(
        rf":\s*(PSK|{KINDS})(?:\s+|$)", entry, re.I
    )
    if matched is None:
        return "", "", ""
    return entry[: matched.start()].strip(), matched[1], entry[matched.end() :].strip()


def _key(rest: str, place: Place, reader: Reader) -> Secret:
    """Within quotes it is the text itself, also where that begins with 0x or 0s (ipsec.secrets(5))."""
    if rest[:1] in ("'", '"'):
        end = rest.find(rest[0], 1)
        if end < 0:
            raise Broken(place, "a quote is not closed")
        return Secret(reader.octets(rest[1:end], place))
    if not rest:
        raise Broken(place, "there is no key")
    return secret_of(rest.split()[0], place, reader)


def _entries(text: str, file: str) -> list[tuple[Place, str]]:
    """The entries: a line that is indented goes on with the one before."""
    found: list[tuple[Place, list[str]]] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = _without_comment(raw)
        if not line.strip():
            continue
        if line[0].isspace() and found:
            found[-1][1].append(line.strip())
        else:
            found.append((Place(file, number), [line.strip()]))
    return [(place, " ".join(lines)) for place, lines in found]


def _without_comment(line: str) -> str:
    quote = ""
    for at, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign == "#" and (at == 0 or line[at - 1].isspace()):
            return line[:at]
    return line
