"""A tunnel that is being made or changed: its table, what a form says of it, and the key, never shown."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from vpnd.config.configuration import dotted
from vpnd.config.schema import TunnelTable, with_profile
from vpnd.console.fields import FIELDS, STEPS, Field, Kind, Step
from vpnd.model.secret import Secret
from vpnd.sdk.models import Problem, TunnelDetail

MAX_DRAFTS = 8
"""Ours: of one session; the oldest makes room."""

MAX_RULES = 200
"""As many as there can be mappings."""

NO_RULES = "spd.0.remote"
"""The field at which it is said that there are none, or that one is missing."""

OF_NO_STEP = ("name", "customer_gateway", "pre_shared_key")
"""Further fields of the first step."""

MAX_RANGES = 200
"""Likewise, at one end of a rule: with each of the other end it is a mapping, and thousands make millions."""


@dataclass(slots=True)
class Draft:
    """`editing`: it exists already. The table holds what is not the profile's default."""

    name: str = ""
    table: dict[str, Any] = field(default_factory=dict)
    editing: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    """The table as it was when the form began."""
    gateway: str = ""
    """What a new customer gateway is to be called, for other tunnels too; empty: it is of this one alone."""
    key: Secret | None = None
    generated: bool = False
    """The key was made here, and is shown once when the tunnel is there."""
    identifier: str = field(default_factory=lambda: secrets.token_urlsafe(12))

    def whole(self) -> dict[str, Any]:
        """The table to be sent, with the key where there is a new one."""
        table = deepcopy(self.table)
        if "spd" in table:
            table["spd"] = [table["spd"][number] for number in self.filled()]
        if self.key is not None:
            table["pre_shared_key"] = f"plain:{self.key.reveal().decode()}"
        return table

    def filled(self) -> list[int]:
        """The numbers of the rules that have ranges; the others are left out."""
        rules = enumerate(self.table.get("spd", []))
        return [number for number, rule in rules if rule["local"] or rule["remote"]]

    def place(self, problem: Problem) -> str | None:
        """The field that a problem is about, by the rules of the form."""
        at = place(problem, self.name)
        rule = re.fullmatch(r"spd\.(\d+)\.(\w+)", at or "")
        filled = self.filled()
        if problem.code == "E-HEALTH-MAPPING" and value(self.table, "communication") == "spd-policy":
            # What carries it is a rule, which another step asks for than the health check.
            return f"spd.{filled[-1]}.remote" if filled else NO_RULES
        return f"spd.{filled[int(rule[1])]}.{rule[2]}" if rule is not None and filled else at


def value(table: Mapping[str, Any], key: str) -> Any:
    """What is written at a dotted key, or the default of the table's profile."""
    found = look(table, key)
    return found if found is not None else look(defaults(str(table.get("profile", "default"))), key)


def look(table: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted key, or None."""
    inner: Any = table
    for part in key.split("."):
        inner = inner.get(part) if isinstance(inner, Mapping) else None
    return inner


def defaults(profile: str) -> dict[str, Any]:
    """What each value is where the table says nothing; not to be changed."""
    return _defaults(profile if profile in ("default", "tencent-cloud") else "default")


@cache
def _defaults(profile: str) -> dict[str, Any]:
    least = {"profile": profile, "customer_gateway": "x", "pre_shared_key": "plain:x"}
    model = TunnelTable.model_validate(with_profile(least))
    made = model.model_dump(mode="json", exclude={"customer_gateway", "pre_shared_key"})
    made["ipsec"]["pfs"] = made["ipsec"]["pfs"] or "disable"
    return made


def put(table: dict[str, Any], key: str, new: Any) -> None:
    """Write a value, or take it out where it is the default or nothing."""
    *above, last = key.split(".")
    inner = table
    for part in above:
        inner = inner.setdefault(part, {})
    usual = "default" if key == "profile" else look(defaults(str(table.get("profile", "default"))), key)
    inner[last] = new
    if new in (None, "", usual):
        del inner[last]
        if above and not inner:
            del table[above[0]]


def is_shown(one: Field, table: Mapping[str, Any]) -> bool:
    """Whether the field means anything as the others are."""
    return one.when is None or text_of(value(table, one.when[0])) == one.when[1]


def text_of(found: Any) -> str:
    """A value as a form has it."""
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, list):
        return "\n".join(map(str, found))
    return "" if found is None else str(found)


def words_of(found: Any) -> list[str]:
    """The words of a value that may be several."""
    if found is None or found == "disable":
        return []
    return [str(one) for one in found] if isinstance(found, list) else [str(found)]


def take(table: dict[str, Any], step: Step, form: Mapping[str, list[str]], typing: bool = False) -> None:
    """Write what a step's form says. What is no number stays text: the check says so at its place.

    `typing`: the form stays as it is, so its empty rules keep their places.
    """
    for one in step.fields:
        if not is_shown(one, table):
            # What means nothing any more is not refused at a field that nobody sees.
            put(table, one.key, None)
        elif one.key in form or one.kind in (Kind.YES, Kind.SEVERAL):
            put(table, one.key, _parsed(one, form.get(one.key, []), value(table, one.key)))
    if step.name == "communication":
        if value(table, "communication") == "spd-policy":
            table["spd"] = _rules(form, table.get("spd", []), typing)
        else:
            table.pop("spd", None)


def _parsed(one: Field, given: list[str], before: Any) -> Any:
    first = given[0].strip() if given else ""
    if one.kind is Kind.YES:
        return first == "yes"
    if one.kind is Kind.LINES:
        return [line.strip() for line in first.split("\n") if line.strip()]
    if one.kind is Kind.NUMBER:
        return int(first) if re.fullmatch(r"[0-9]{1,18}", first) else first
    if one.kind is Kind.SEVERAL:
        # Those that were there keep their order, which is that of preference.
        known = [word for word in words_of(before) if word in given]
        chosen = known + [word for word in one.choices if word in given and word not in known]
        numbers: list[Any] = [int(word) if word.isdecimal() else word for word in chosen]
        return numbers or ("disable" if one.key == "ipsec.pfs" else [])
    return first


def _rules(
    form: Mapping[str, list[str]], before: list[dict[str, Any]], with_empty: bool
) -> list[dict[str, Any]]:
    """The SPD rules of a form; one without ranges is left out, and what the form does not ask for stays."""
    rules = []
    for number in range(MAX_RULES):
        if f"spd.{number}.local" not in form:
            break
        rule = dict(before[number]) if number < len(before) else {}
        for end in ("local", "remote"):
            lines = form.get(f"spd.{number}.{end}", [""])[0].split("\n")
            rule[end] = [line.strip() for line in lines if line.strip()]
        if with_empty or rule["local"] or rule["remote"]:
            rules.append(rule)
    return rules


def too_many(table: Mapping[str, Any]) -> list[tuple[str, int]]:
    """The ends of rules with more ranges than there can be mappings, and how many they have."""
    return [
        (f"spd.{number}.{end}", len(rule[end]))
        for number, rule in enumerate(table.get("spd", []))
        for end in ("local", "remote")
        if len(rule[end]) > MAX_RANGES
    ]


def of_tunnel(tunnel: TunnelDetail, named: Mapping[str, str], clone: bool = False) -> Draft:
    """A draft of a tunnel that exists, without what is a default; `named`: gateways and their addresses."""
    table = {key: deepcopy(one) for key, one in tunnel.configuration.items() if one is not None}
    peer = table.pop("customer_gateway", {})
    known = named.get(peer.get("name", "")) == peer.get("address")
    table["customer_gateway"] = peer["name"] if known else {"address": peer.get("address", "")}
    ike = table.get("ike", {})
    if ike.get("local_id") == tunnel.local_address:
        del ike["local_id"]
    if ike.get("remote_id") == peer.get("address"):
        del ike["remote_id"]
    if clone:
        # Each is this tunnel's own; a copy with the same would not come up.
        table.pop("interface", None)
        for end in ("local", "remote"):
            table.get("health_check", {}).pop(end, None)
    usual = defaults(str(table.get("profile", "default")))
    slim = {key: _without(one, usual.get(key)) for key, one in table.items()}
    slim = {
        key: one
        for key, one in slim.items()
        if one not in (None, {}, [], "") and (key == "profile" or one != usual.get(key))
    }
    if slim.get("profile") == "default":
        del slim["profile"]
    return Draft("", slim) if clone else Draft(tunnel.name, slim, editing=True, before=deepcopy(slim))


def _without(one: Any, usual: Any) -> Any:
    if isinstance(one, dict) and isinstance(usual, dict):
        return {key: inner for key, inner in one.items() if inner is not None and inner != usual.get(key)}
    return one


def place(problem: Problem, name: str) -> str | None:
    """The field that a problem is about, `ike.lifetime` or `spd.0.remote`; None for none of the form."""
    prefix = dotted(("tunnels", name)) + "."
    if problem.key is None or not problem.key.startswith(prefix):
        return None
    key = problem.key.removeprefix(prefix)
    if problem.code == "E-COMMUNICATION":
        # The rules are missing, which another step asks for than the mode.
        return NO_RULES
    if problem.code == "E-ANY" and key == "customer_gateway":
        # Likewise its identity.
        return "ike.remote_id"
    rule = re.fullmatch(r"spd\[(\d+)\](?:\.(\w+).*)?", key)
    if rule is not None:
        return f"spd.{rule[1]}.{'remote' if rule[2] == 'remote' else 'local'}"
    key = re.sub(r"\[\d+\].*$", "", key)
    if key.startswith("customer_gateway"):
        return "customer_gateway"
    return key if key in FIELDS or key in OF_NO_STEP else None


def step_of(key: str | None) -> str:
    """The step that asks for a field; what no step asks for is shown with the first."""
    if key is not None and key.partition(".")[0] in ("spd", "routes"):
        return "communication"
    return next((step.name for step in STEPS for one in step.fields if one.key == key), "basic")
