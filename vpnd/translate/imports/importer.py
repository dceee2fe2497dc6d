"""Which format a file has, and all of them read together: keys stand in one, connections in another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vpnd.translate.imports import ipsec_conf, ipsec_secrets, swanctl, tencent
from vpnd.translate.imports.files import Reader
from vpnd.translate.imports.model import Broken, Found, Place, Remarks
from vpnd.translate.imports.swanctl import secret_of

FORMATS = ("swanctl.conf", "ipsec.conf", "ipsec.secrets", "tencent-cloud.json")
"""What `--format` takes."""

LOOKED_AT = 1000
"""Ours: characters of a line that tell the format."""

_SWANCTL = re.compile(r"connections|secrets|pools|authorities|include .*swanctl")
_IPSEC = re.compile(r"conn\s+\S|config\s+setup")
_SECRETS = re.compile(rf"(?i)(?:^|[\s:])(?:PSK|{ipsec_secrets.KINDS})\s+\S")

__all__ = ["FORMATS", "Broken", "format_of", "read", "secret_of"]


def format_of(path: Path) -> str | None:
    """The format that the content has, else the one that the name says; None for neither."""
    text = Reader(Remarks()).text(path)
    # Line by line, and of a line its beginning: a pattern over the whole could look at it again and again.
    lines = [line.strip()[:LOOKED_AT] for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if (lines and lines[0][:1] in ("{", "[") and any('"' in one for one in lines)) or "<<'END'" in text:
        return "tencent-cloud.json"
    if "{" in text and any(_SWANCTL.match(line) for line in lines):
        return "swanctl.conf"
    if any(_IPSEC.match(line) for line in lines):
        return "ipsec.conf"
    if any(_SECRETS.search(line) for line in lines if ":" in line):
        return "ipsec.secrets"
    by_name = {
        "swanctl": "swanctl.conf",
        "secrets": "ipsec.secrets",
        "ipsec": "ipsec.conf",
        ".json": "tencent-cloud.json",
    }
    return next((kind for word, kind in by_name.items() if word in path.name), None)


def read(paths: Sequence[Path], kind: str | None = None, local: str | None = None) -> Found:
    """All files. Raises Broken for one that is none of the formats, or cannot be read as its own.

    `local`: this machine's address, for an ipsec.conf that does not say which end it is.
    """
    remarks = Remarks()
    reader, found = Reader(remarks), Found(remarks=remarks)
    for path in paths:
        match kind or format_of(path):
            case "swanctl.conf":
                one = swanctl.read(path, reader)
            case "ipsec.conf":
                one = ipsec_conf.read(path, reader, local)
            case "ipsec.secrets":
                one = ipsec_secrets.read(path, reader)
            case "tencent-cloud.json":
                one = tencent.read(path, reader)
            case _:
                raise Broken(Place(str(path), 0), f"it is none of {', '.join(FORMATS)}; --format names one")
        for connection in one.connections:
            found.add(connection)
        for key in one.keys:
            found.add_key(key)
    return found
