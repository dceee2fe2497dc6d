"""Every message of every simulated test, as one digest a test: two versions of the code, compared.

    python -m pytest tests/simulation tests/unit/ike --record before.txt     # on one commit
    python -m pytest tests/simulation tests/unit/ike --record after.txt      # on the other
    python -m tests.simulation.histories before.txt after.txt

The last says how many tests are equal, and names those that are not. With `--record-whole` the ladder of each
test is written too, line by line, to a file of its own in the directory `before.ladders`: `diff -r
before.ladders after.ladders` shows what differs. Tests may run in any order and in several processes.
"""

from __future__ import annotations

import re
import sys
from hashlib import blake2b
from pathlib import Path

from vpnd.ike.outputs import LadderLine

LONGEST_NAME = 120
"""Characters of a test's name in the name of its file; some have a whole message as a parameter."""


class History:
    """The ladder lines of one test: how many, and a digest of them; with a path also the lines themselves."""

    def __init__(self, whole: Path | None = None) -> None:
        self._whole = whole
        self._count = 0
        self._digest = blake2b(digest_size=16)
        self._lines: list[str] = []

    def note(self, where: str, line: LadderLine) -> None:
        """One message, as it was drawn: `where` is the moment and the gateway."""
        text = f"{where} {'->' if line.outbound else '<-'} {line.tunnel} {line.text} {line.size}"
        text = "\n    ".join((text, *line.detail))
        self._count += 1
        self._digest.update(text.encode())
        if self._whole is not None:
            self._lines.append(text)

    def write(self, file: Path, test: str) -> None:
        """Add the line of this test to the file, and its ladder to the directory of ladders."""
        with file.open("a", encoding="utf-8") as lines:
            lines.write(f"{test} {self}\n")
        if self._whole is not None:
            self._whole.mkdir(exist_ok=True)
            self._whole.joinpath(file_name(test)).write_text("".join(f"{one}\n" for one in self._lines))

    def __str__(self) -> str:
        return f"{self._count} {self._digest.hexdigest()}"


def file_name(test: str) -> str:
    """Where the ladder of a test is written; two tests never share one."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", test.removeprefix("tests/"))
    return f"{readable[:LONGEST_NAME]}.{blake2b(test.encode(), digest_size=4).hexdigest()}.txt"


def read(file: Path) -> dict[str, str]:
    """What a record has of each test: how many messages, and their digest."""
    lines = (line.rsplit(maxsplit=2) for line in file.read_text(encoding="utf-8").splitlines())
    return {test: f"{count} {digest}" for test, count, digest in lines}


def compared(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The tests of two records: how many are in both and equal, and the name of each that is not."""
    both = [test for test in before if test in after]
    differ = [test for test in both if before[test] != after[test]]
    lines = [f"{len(both) - len(differ)} of {len(both)} tests are equal"]
    lines += [f"differs  {test}" for test in sorted(differ)]
    lines += [f"gone     {test}" for test in sorted(before.keys() - after.keys())]
    return lines + [f"new      {test}" for test in sorted(after.keys() - before.keys())]


if __name__ == "__main__":
    print(*compared(*(read(Path(name)) for name in sys.argv[1:3])), sep="\n")
