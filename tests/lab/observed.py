"""vpnd with an onlooker: the keys of every SA that is installed go to a file, for scapy to decrypt with.

`main` with KEYFILE run ... is that of `vpnd run ...`. This is the tests' own way in: the daemon has none.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from vpnd.daemon import main as daemon
from vpnd.daemon import run
from vpnd.datapath.engines import Maker
from vpnd.datapath.interface import Engine
from vpnd.model.child import ChildSa, EspKeys
from vpnd.model.policy import EngineChoice


@dataclass(frozen=True)
class Keys:
    """The keys of one direction of a CHILD_SA."""

    spi: int
    encryption_word: str
    integrity_word: str | None
    encryption: bytes
    integrity: bytes
    salt: bytes
    esn: bool = False


def read_keys(path: Path) -> dict[int, Keys]:
    """Every SA in a key file, by SPI."""
    found = {}
    for line in path.read_text().splitlines():
        spi, encryption_word, integrity_word, esn, *secrets = json.loads(line)
        encryption, integrity, salt = map(bytes.fromhex, secrets)
        found[spi] = Keys(spi, encryption_word, integrity_word, encryption, integrity, salt, esn)
    return found


def observe(path: Path) -> None:
    """From now on append the keys of each SA that the engine installs to a file that only root reads."""
    chosen = vars(run)["choose"]

    def choose(choice: EngineChoice) -> Maker:
        make = chosen(choice)
        return lambda *arguments: cast(Engine, Observed(make(*arguments), path))

    vars(run)["choose"] = choose


class Observed:
    """An engine, whichever it is, whose SAs are written down."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def install(self, child: ChildSa, outbound: bool = True) -> None:
        lines = [_line(child, child.spi_in, child.keys_in), _line(child, child.spi_out, child.keys_out)]
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("".join(lines))
        self._engine.install(child, outbound)


def _line(child: ChildSa, spi: int, keys: EspKeys) -> str:
    secrets = [secret.reveal().hex() for secret in (keys.encryption, keys.integrity, keys.salt)]
    return json.dumps([spi, child.suite.encryption, child.suite.integrity, child.suite.esn, *secrets]) + "\n"


def main() -> None:
    """vpnd's, with the key file before its arguments."""
    observe(Path(sys.argv.pop(1)))
    daemon.main()
