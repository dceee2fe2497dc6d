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

__all__ = ["FORMATS", "Broken", "format_of", "read", "secret_of"]


def format_of(path: Path) -> str | None:
    """The format that the content has, else the one that the name says; None for neither."""
    text = Reader(Remarks()).text(path)
    plain = re.sub(r"(?m)^\s*#.*$", "", text)
    if (plain.lstrip()[:1] in ("{", "[") and '"' in plain) or "<<'END'" in text:
        return "tencent-cloud.json"
    if re.search(
        r"(?m)^\s*(connections|secrets|pools|authorities|include [^\n]*swanctl)[^\n=]*\{?", plain
    ) and ("{" in plain):
        return "swanctl.conf"
    if re.search(r"(?m)^(conn\s+\S|config\s+setup)", plain):
        return "ipsec.conf"
    if re.search(rf"(?im)(^|\s|:):?\s*(PSK|{ipsec_secrets.KINDS})\s+\S", plain) and ":" in plain:
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
        found.connections += one.connections
        found.keys += one.keys
    return found
