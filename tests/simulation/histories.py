"""Every message of every simulated test, as one digest a test: two versions of the code, compared.

    python -m pytest tests/simulation tests/unit/ike --record before.txt     # on one commit
    python -m pytest tests/simulation tests/unit/ike --record after.txt      # on the other
    diff <(sort before.txt) <(sort after.txt)

A test that differs is run alone with `--record-whole`, which writes its ladder line by line.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from vpnd.ike.outputs import LadderLine


class History:
    """The ladder lines of one test: how many, and a digest of them; with a path also the lines themselves."""

    def __init__(self, whole: Path | None = None) -> None:
        self._whole = whole
        self._count = 0
        self._digest = blake2b(digest_size=16)

    def note(self, where: str, line: LadderLine) -> None:
        """One message, as it was drawn: `where` is the moment and the gateway."""
        text = f"{where} {'->' if line.outbound else '<-'} {line.tunnel} {line.text} {line.size}"
        text = "\n    ".join((text, *line.detail))
        self._count += 1
        self._digest.update(text.encode())
        if self._whole is not None:
            with self._whole.open("a", encoding="utf-8") as lines:
                lines.write(text + "\n")

    def __str__(self) -> str:
        return f"{self._count} {self._digest.hexdigest()}"
