"""Rules of nftables that drop: their counters before and after, while IKE or a ping is under way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vpnd.control.doctor.verdicts import Finding, Machine, Verdict

REFUSING = ("drop", "reject")

OURS = ("inet", "vpnd")
"""The table that keeps protected traffic in: what it drops, it drops for a reason of its own."""


def counters(machine: Machine) -> dict[str, int] | None:
    """Packets that each rule with a counter has dropped so far; None where nftables cannot be read."""
    text = machine.run("nft", "--json", "list", "ruleset")
    if text is None:
        return None
    try:
        entries = json.loads(text)["nftables"]
    except (ValueError, KeyError, TypeError):
        return None
    found: dict[str, int] = {}
    for entry in entries:
        rule = entry.get("rule") if isinstance(entry, dict) else None
        if rule and (rule.get("family"), rule.get("table")) != OURS and (count := _dropped(rule)) is not None:
            place = f"{rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}"
            found[place] = count
    return found


def _dropped(rule: Mapping[str, Any]) -> int | None:
    """How many packets a rule has dropped; None where it drops none, or does not count."""
    parts = [part for part in rule.get("expr") or () if isinstance(part, dict)]
    if not any(word in part for part in parts for word in REFUSING):
        return None
    return next((int(p["counter"]["packets"]) for p in parts if isinstance(p.get("counter"), dict)), None)


def policies(machine: Machine) -> list[str]:
    """Base chains that drop what no rule of theirs takes."""
    try:
        entries = json.loads(machine.run("nft", "--json", "list", "chains") or "{}").get("nftables", [])
    except ValueError:
        return []
    chains = [entry["chain"] for entry in entries if isinstance(entry, dict) and "chain" in entry]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("policy") == "drop" and (chain["family"], chain["table"]) != OURS
    ]


def compare(before: Mapping[str, int] | None, machine: Machine, troubled: bool) -> Iterator[Finding]:
    """What was dropped since `before`. `troubled`: something fails, and a suspicion is worth a word."""
    after = counters(machine)
    if before is None or after is None:
        text = "nftables cannot be read: sudo, and is nft installed?"
        yield Finding("firewall", Verdict.UNKNOWN, text)
        return
    grown = {place: count - before.get(place, 0) for place, count in after.items()}
    for place, count in sorted(grown.items(), key=lambda one: -one[1]):
        if count > 0:
            text = f"the rule {place} has dropped {count} packets meanwhile"
            table, chain = place.split(" handle ")[0].rsplit(" ", 1)
            verdict = Verdict.BAD if troubled else Verdict.NOTE
            yield Finding("firewall", verdict, text, f"nft -a list chain {table} {chain}")
    if any(count > 0 for count in grown.values()):
        return
    closed = policies(machine)
    if troubled and closed:
        text = f"no counted rule has dropped anything; of {', '.join(closed)} the policy is drop"
        hint = "let UDP 500, UDP 4500 and IP protocol 50 in, and the tunnel's interface forward"
        yield Finding("firewall", Verdict.NOTE, text, hint)
    else:
        yield Finding("firewall", Verdict.GOOD, "no rule of nftables has dropped anything meanwhile")
