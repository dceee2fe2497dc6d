"""The file that `vpnctl add` takes: its tunnels as the API wants them, and the lines for its problems."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpnd.config.configuration import dotted
from vpnd.config.places import Path as KeyPath
from vpnd.config.places import Places
from vpnd.config.secrets import KEYS, SecretError, read_secret

UNNAMED = "request: "
"""How the daemon begins a message about a tunnel that is in no file of its own."""


class Unusable(Exception):
    """The file cannot be used at all: code, message with the place, hint."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Addition:
    """One tunnel of the file: what is sent, and where in the file it comes from."""

    name: str
    table: dict[str, Any]
    file: Path
    places: Places

    def located(self, error: Mapping[str, Any]) -> dict[str, Any]:
        """The daemon's refusal, with the file and line of each problem instead of "request"."""
        problems = [self._located(problem) for problem in error.get("problems") or []]
        message = str(error.get("message", ""))
        first = next((problem for problem in problems if problem["severity"] == "error"), None)
        if first is not None and first["line"] is not None and message.startswith(UNNAMED):
            message = f"{first['file']}:{first['line']}: {message.removeprefix(UNNAMED)}"
        return {**error, "message": message, "problems": problems}

    def _located(self, problem: Mapping[str, Any]) -> dict[str, Any]:
        key = problem.get("key")
        if problem.get("line") is not None or not key:
            return dict(problem)
        line = self.places.line_of(str(key), dotted)
        return {**problem, "file": str(self.file), "line": line}


def read(file: Path) -> list[Addition]:
    """The tunnels of `file`. Raises Unusable."""
    try:
        text = file.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
        places = Places(text)
    except OSError as error:
        raise Unusable("E-FILE", f"{file} cannot be read: {error.strerror}", "check the path") from None
    except UnicodeDecodeError:
        raise Unusable("E-FILE", f"{file} is not UTF-8 text", "name a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"\(at line (\d+),", str(error))
        place = f"{file}:{line[1]}" if line is not None else file
        raise Unusable("E-TOML", f"{place}: {error}", "correct the TOML syntax") from None
    except RecursionError:
        raise Unusable("E-TOML", f"{file}: it is nested too deeply", "correct the TOML syntax") from None
    for key in tables:
        if key not in ("tunnels", "customer_gateways"):
            message = f"{file}:{places.line((key,))}: [{key}] cannot be added to a running gateway"
            raise Unusable("E-KEY", message, "keep only [tunnels.NAME] and [customer_gateways.NAME]")
    tunnels = tables.get("tunnels")
    if not isinstance(tunnels, dict) or not tunnels:
        raise Unusable("E-MISSING", f"{file} has no tunnel", "add [tunnels.NAME]")
    for name, table in tunnels.items():
        if not isinstance(table, dict):
            path: KeyPath = ("tunnels", name)
            raise Unusable("E-TYPE", f"{file}:{places.line(path)}: tunnels.{name} is not a table", "")
    gateways = tables.get("customer_gateways", {})
    return [
        Addition(name, _complete(("tunnels", name), table, gateways, file, places), file, places)
        for name, table in tunnels.items()
    ]


def _complete(
    path: KeyPath, table: Mapping[str, Any], gateways: object, file: Path, places: Places
) -> dict[str, Any]:
    """The tunnel's table with what stands elsewhere in the file, and with its keys as text. Raises Unusable.

    The key files are read here, with the rights of the caller: the daemon reads none for others than root.
    """
    complete = dict(table)
    named = complete.get("customer_gateway")
    if isinstance(named, str) and isinstance(gateways, dict) and named in gateways:
        complete["customer_gateway"] = gateways[named]
    for key in KEYS:
        reference = complete.get(key)
        if not isinstance(reference, str) or not reference.startswith("file:"):
            continue
        try:
            secret = read_secret(reference, file.absolute(), private=True)
            complete[key] = f"plain:{secret.reveal().decode()}"
        except SecretError as error:
            place = f"{file}:{places.line((*path, key))}"
            raise Unusable(error.code, f"{place}: {error.message}", error.hint) from None
        except UnicodeDecodeError:
            # No text: the daemon may be able to read it, for root.
            complete[key] = f"file:{file.absolute().parent / reference.removeprefix('file:')}"
    return complete
