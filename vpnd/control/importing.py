"""`vpnctl import FILE...`: other daemons' configuration files become new ones of vpnd."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from vpnd.config.configuration import Findings, Source
from vpnd.config.load import Loaded, check, parsed
from vpnd.config.secrets import is_text
from vpnd.control.check import as_body
from vpnd.control.check import lines as problem_lines
from vpnd.model.secret import Secret
from vpnd.translate.imports.importer import FORMATS, Broken, read
from vpnd.translate.imports.model import Place, Remark
from vpnd.translate.imports.writing import CONFIGURATION, Written, write

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["FORMATS", "Broken", "Exists", "Imported", "import_files", "loaded_of"]


class Exists(Exception):
    """A file that would be written is there already; nothing was written."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(", ".join(map(str, paths)))


@dataclass(frozen=True, slots=True)
class Imported:
    """What was made, and what is to be said."""

    written: Written
    files: tuple[Path, ...]
    remarks: tuple[Remark, ...]
    loaded: Loaded
    dry_run: bool

    @property
    def tunnels(self) -> tuple[str, ...]:
        """The names of the tunnels."""
        return self.written.tunnels


def import_files(
    paths: Sequence[Path],
    output: Path,
    kind: str | None = None,
    local: str | None = None,
    dry_run: bool = False,
) -> Imported:
    """Read, translate and write. Raises Broken, Exists, and OSError where a file cannot be written."""
    place = os.path.realpath(output)
    if not is_text(place):
        raise Broken(Place(place, 0), "its name is not UTF-8, and a configuration has no other text")
    found = read(paths, kind, local)
    written = write(found, PurePosixPath(place))
    contents = {CONFIGURATION: written.text.encode()}
    contents |= {name: secret.reveal() for name, secret in written.keys.items()}
    files = tuple(output / name for name in contents)
    if not dry_run and written.tunnels:
        if there := [path for path in files if path.exists() or path.is_symlink()]:
            raise Exists(there)
        for path, content in zip(files, contents.values(), strict=True):
            _write(path, content)
    loaded = _checked(written, str(output / CONFIGURATION))
    return Imported(written, files, tuple(found.remarks.found), loaded, dry_run)


def loaded_of(path: Path, local: str | None = None) -> Loaded:
    """The configuration that a foreign file becomes, in memory. Raises Broken."""
    return _checked(write(read([path], None, local), PurePosixPath("/")), str(path))


def _checked(written: Written, label: str) -> Loaded:
    """As `vpnd check` finds it, with the keys that were read."""
    findings = Findings()
    keys = {
        name: secret
        for name, secret in zip(written.tunnels, _keys_in_order(written), strict=True)
        if secret is not None
    }
    source = parsed(written.text, Source(label, {}, main=True, private=True, keys=keys), findings)
    return check([] if source is None else [source], findings, offline=True)


def _keys_in_order(written: Written) -> list[Secret | None]:
    return [written.keys.get(name) for name in written.key_files]


def _write(path: Path, content: bytes) -> None:
    """A new file that its owner alone reads."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def document(imported: Imported) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "tunnels": list(imported.tunnels),
        "written": [] if imported.dry_run else [str(path) for path in imported.files],
        "configuration": imported.written.text,
        "remarks": [
            {"place": str(one.place), "line": one.line, "text": one.text} for one in imported.remarks
        ],
        "problems": [as_body(problem) for problem in imported.loaded.problems],
    }


def lines(imported: Imported) -> Iterable[Text]:
    """The same for people."""
    from rich.text import Text

    if imported.dry_run:
        yield from (Text(line) for line in imported.written.text.splitlines())
        yield Text("")
    for remark in imported.remarks:
        yield Text(str(remark))
    for line in problem_lines(imported.loaded.problems):
        yield Text(line)
    names = ", ".join(imported.tunnels)
    if not imported.tunnels:
        yield Text("nothing was found that becomes a tunnel, and nothing was written")
    elif imported.dry_run:
        yield Text(f"nothing was written: this would be {len(imported.files)} files for {names}")
    else:
        yield Text(f"written: {', '.join(map(str, imported.files))}")
        yield Text(f"nothing was started. Next: vpnd check {imported.files[0]}")
