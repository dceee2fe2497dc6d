"""What an explanation advises, made in a copy of the configuration that it is about."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vpnd.config.load import load
from vpnd.control.explanation import Explanation
from vpnd.control.schema import ExplanationBody

ADVISED = re.compile(r'\b((?:ike|ipsec|dpd)\.[a-z0-9_]+|mtu|diagnose) = ("[^"]*"|\[[^\]]*\]|\d+|true|false)')
"""A value to set, as a file has it."""


def advised(explanation: Explanation | ExplanationBody) -> Iterator[tuple[str, Any]]:
    """Every key with a value that is to be set here, or may be."""
    texts = (explanation.change or "", *explanation.also_possible, *explanation.try_)
    for key, value in (found for text in texts for found in ADVISED.findall(text)):
        yield key, tomllib.loads(f"value = {value}")["value"]


Seen = set[tuple[str, str]]


def is_new_and_possible(
    path: Path, tunnel: str, explanation: Explanation | ExplanationBody, seen: Seen | None = None
) -> None:
    """Each advice, made in a copy of this file, is a change that the check accepts; once for all `seen`."""
    seen = set() if seen is None else seen
    for key, value in advised(explanation):
        if (key, repr(value)) in seen:
            continue
        seen.add((key, repr(value)))
        document = tomllib.loads(path.read_text())
        table = document["tunnels"][tunnel]
        *tables, name = key.split(".")
        for one in tables:
            table = table.setdefault(one, {})
        several = value if isinstance(value, list) else [value]
        set_now = table.get(name)
        assert set_now not in (value, several), f"{key} = {value} is set already"
        assert effective(path, tunnel, key) not in (value, several), f"{key} = {value} is the default"
        table[name] = value
        if key == "ike.version":
            without_the_others(document["tunnels"][tunnel], value, explanation.change or "")
        copy = path.with_name(f"advised-{path.name}")
        copy.write_text(as_toml(document))
        copy.chmod(0o600)
        assert not load(copy).errors, (key, value, load(copy).errors)


def without_the_others(table: dict[str, Any], version: str, change: str) -> None:
    """What else the change of the version names is made as well."""
    if "take ike.negotiation_mode out" in change:
        del table["ike"]["negotiation_mode"]
    lacking = change.partition("what IKEv1 does not have: ")[2]
    for key, _ in (one.split(": ") for one in lacking.split(", ") if one):
        section, name = key.split(".")
        if section == "spd":
            for rule in table["spd"]:
                rule.pop(name)
        else:
            del table[section][name]


def effective(path: Path, tunnel: str, key: str) -> object:
    """The value in force, also where nothing is written."""
    table: Any = load(path).configuration.tunnels[tunnel].table
    for part in key.split("."):
        table = getattr(table, part)
    return table


def as_toml(document: dict[str, Any]) -> str:
    """A file with these tables, all inline."""
    return "\n".join(f"{key} = {inline(value)}" for key, value in document.items())


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value)


OTHER_VERSION = {
    "ikev2": re.compile(r"\b(IKEv1|ISAKMP|(main|aggressive|quick) mode|negotiation_mode)\b"),
    "ikev1": re.compile(r"\b(IKEv2|CHILD_SA|IKE_AUTH|IDr|RFC 9370|RFC 7296|ipsec\.esn)"),
}
"""What there is in the other version alone."""


def of_the_other(version: str, explanation: Explanation | ExplanationBody) -> list[str]:
    """What else is said to be possible, and is not in this version."""
    return [text for text in explanation.also_possible if OTHER_VERSION[version].search(text)]
