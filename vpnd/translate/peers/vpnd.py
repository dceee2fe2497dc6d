"""vpnd's own TOML: the same tunnel with the ends exchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vpnd.model.numbers import DEFAULT_NUMBERS
from vpnd.translate.sheet import Sheet, about, key_line
from vpnd.translate.side import Side

LEFT_OUT = frozenset({"local_id", "remote_id", "rekey_margin", "rekey_fuzz"})
"""Keys of `ike` and `ipsec` that are written elsewhere, or are each end's own."""


def write(side: Side, sheet: Sheet) -> list[str]:
    """Fill the sheet; returns its first lines."""
    key = f"/etc/vpnd/psk/{side.name}"
    where = (
        f"Put [gateway] into /etc/vpnd/vpnd.toml where there is none, the rest into"
        f" /etc/vpnd/tunnels.d/{side.name}.toml, and the key into {key}, with mode 0600."
        "\nCheck it with vpnd check, load it with: vpnctl reload"
    )
    head = about(side, sheet, where)
    peer = "any" if side.remote_address is None else str(side.remote_address)
    sheet.lines("[gateway]", f"name = {_value(f'peer-of-{side.gateway}'[:60])}")
    sheet.lines(f"address = {_value(str(side.local_address or 'auto'))}", "")
    sheet.lines(f"[customer_gateways.{_value(side.gateway)}]", f"address = {_value(peer)}", "")
    sheet.lines(f"[tunnels.{_value(side.tunnel)}]", f"customer_gateway = {_value(side.gateway)}")
    sheet.why(key_line(side))
    sheet.lines(f"pre_shared_key = {_value(f'file:{key}')}")
    _life(side, sheet)
    if not side.routed:
        _rules(side, sheet)
    _tables(side, sheet)
    return head


def _life(side: Side, sheet: Sheet) -> None:
    """Who begins, what is sent into the tunnel."""
    if side.remote_address is None or side.settings["negotiation"] == "active":
        negotiation = "passive"
    else:
        negotiation = "active" if side.begins else "traffic-triggered"
    communication = "destination-route" if side.routed else "spd-policy"
    sheet.lines(f"negotiation = {_value(negotiation)}", f"communication = {_value(communication)}")
    sheet.lines(f"priority = {side.settings['priority']}")
    if side.routed:
        sheet.why(f"The networks behind {side.gateway}, which are known at this end only:")
        sheet.lines("routes = []")


def _rules(side: Side, sheet: Sheet) -> None:
    for one in side.traffic:
        sheet.lines("", f"[[tunnels.{_value(side.tunnel)}.spd]]")
        sheet.lines(f"local = [{_value(str(one.local))}]", f"remote = [{_value(str(one.remote))}]")
        for key in ("protocol", "local_port", "remote_port"):
            if (word := getattr(one, key)) is not None:
                sheet.lines(f"{key} = {_value(word)}")


def _tables(side: Side, sheet: Sheet) -> None:
    tunnel, settings = _value(side.tunnel), side.settings
    ike = {**_rest(settings["ike"]), "local_id": str(side.local_id), "remote_id": str(side.remote_id)}
    dpd = dict(settings["dpd"])
    tables: list[tuple[str, Mapping[str, Any]]] = [
        ("ike", ike),
        ("ipsec", _rest(settings["ipsec"])),
        ("dpd", dpd),
    ]
    if side.health is not None:
        check = settings["health_check"]
        local, remote = (str(address) for address in side.health)
        tables.append(("health_check", {**check, "local": local, "remote": remote}))
    if side.numbers != DEFAULT_NUMBERS:
        tables.append(("sm_numbers", settings["sm_numbers"]))
    for name, table in tables:
        sheet.lines("", f"[tunnels.{tunnel}.{name}]")
        sheet.lines(*(f"{key} = {_value(value)}" for key, value in table.items()))


def _rest(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in LEFT_OUT and value is not None}


def _value(value: object) -> str:
    """A value as TOML has it, which for words, numbers and lists of them is JSON."""
    return json.dumps(value, ensure_ascii=False)
