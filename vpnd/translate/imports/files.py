"""Reading of files and of what they include, with bounds: a file may be hostile, or include itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from vpnd.translate.imports.model import Broken, Place, Remarks

MAX_BYTES = 1024 * 1024
"""Ours: of one file; a thousand connections take a fifth of it."""

MAX_FILES = 1000
"""Ours: of one import, with all that is included."""

MAX_TOTAL = 8 * MAX_BYTES
"""Ours: of all files of one import."""

MAX_INHERITED = 200_000
"""Ours: values that the sections of one import take from others; a thousand of thirty take 30,000."""

MAX_DEPTH = 10
"""Ours: files that include each other, one inside the other."""


class Reader:
    """Reads the files of one import, and counts them."""

    def __init__(self, remarks: Remarks) -> None:
        self.remarks = remarks
        self._read = 0
        self._bytes = 0
        self._inherited = 0
        self._in_latin_1: set[str] = set()

    def inherits(self, place: Place, values: int) -> None:
        """Count what a section takes from others. Raises Broken where a small file becomes a large one."""
        self._inherited += values
        if self._inherited > MAX_INHERITED:
            text = f"sections take more than {MAX_INHERITED} values from each other: write them where they"
            raise Broken(place, f"{text} hold, or import a part at a time")

    def text(self, path: Path) -> str:
        """The file as text with LF. Raises Broken where it cannot be read."""
        place = Place(str(path), 0)
        self._read += 1
        if self._read > MAX_FILES:
            raise Broken(place, f"more than {MAX_FILES} files are included")
        try:
            if not path.is_file():
                raise Broken(place, "there is no such file" if not path.exists() else "it is no regular file")
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise Broken(place, f"the file cannot be read: {error.strerror}") from None
        if len(data) > MAX_BYTES:
            raise Broken(place, f"it has more than {MAX_BYTES} bytes")
        self._bytes += len(data)
        if self._bytes > MAX_TOTAL:
            raise Broken(place, f"with it the files of this import have more than {MAX_TOTAL} bytes")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
            self._in_latin_1.add(str(path))
        if "\0" in text:
            raise Broken(place, "it is no text")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def octets(self, text: str, place: Place) -> bytes:
        """What stands in the file for this text of it: a key is octets, and the file need not be UTF-8."""
        return text.encode("latin-1" if place.file in self._in_latin_1 else "utf-8")

    def included(self, pattern: str, place: Place, depth: int) -> Iterator[Path]:
        """The files that an `include` names, in order; a relative name is beside the file it stands in."""
        if depth >= MAX_DEPTH:
            raise Broken(place, f"files include each other more than {MAX_DEPTH} deep")
        # `**` would go through all that is below a directory.
        pattern = re.sub(r"\*+", "*", pattern)
        whole = Path(pattern) if pattern.startswith("/") else Path(place.file).parent / pattern
        try:
            if any(sign in pattern for sign in "*?["):
                found = sorted(whole.parent.glob(whole.name)) if "/" not in whole.name else []
                found = [path for path in found if path.is_file()]
            else:
                found = [whole] if whole.is_file() else []
        except (OSError, ValueError):
            found = []
        if not found:
            text = "there is no such file here: import it too, or leave the line out if it is not needed"
            self.remarks.add(place, f"include {pattern}", text)
        yield from found
