"""Where a change is made that the daemon proposes after a failure, and the value if it names one."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from vpnd.console.fields import FIELDS, Kind
from vpnd.model.diagnosis import Code
from vpnd.sdk.models import Explanation

_SET = re.compile(r"set ([a-z_.]+) = (.+?) here\b.*", re.DOTALL)
"""`set ike.encryption = "aes-256" here if ...`: the value is written as in the file."""

_KEY = re.compile(r"\b(?:ike|ipsec|dpd|health_check)\.[a-z_]+")

_ABOUT = {
    **dict.fromkeys((Code.PSK, Code.FLOOD), "pre_shared_key"),
    **dict.fromkeys(
        (
            Code.SILENT,
            Code.PORT_CLOSED,
            Code.UNREACHABLE,
            Code.RESOLVE,
            Code.PEER_BEGINS,
            Code.UNKNOWN_PEER,
        ),
        "customer_gateway",
    ),
    **dict.fromkeys((Code.TRAFFIC_SELECTORS, Code.NARROWED), "spd.0.remote"),
}
"""Failures whose change names no key of the form, or another one first."""


def field_of(explanation: Explanation) -> str | None:
    """The field of the form in which to make the change, or None if it is made elsewhere."""
    for code, key in _ABOUT.items():
        if explanation.code == code.value:
            return key
    named = _KEY.findall(explanation.change or "")
    return next((key for key in named if key in FIELDS), None)


def proposed(explanation: Explanation) -> tuple[str, Any] | None:
    """The key and the value that the change names for this side, as the form has it."""
    found = _SET.fullmatch(explanation.change or "")
    if found is None or found[1] not in FIELDS:
        return None
    try:
        value = tomllib.loads(f"value = {found[2]}")["value"]
    except tomllib.TOMLDecodeError:
        return None
    several = FIELDS[found[1]].kind is Kind.SEVERAL and value != "disable" and not isinstance(value, list)
    return found[1], [value] if several else value
