"""What schemathesis does not know of this API: streams end when asked, and nothing is waited for long."""

from __future__ import annotations

from typing import Any

import schemathesis

KNOWN = ("branch-a", "other", "made")
"""Names that half of the requests have: of the tunnel, of its customer gateway, and one that they make."""

WAITS = ("/up", "/reset", "/rekey")
BRIEFLY = 0.05
"""Seconds in place of any valid `timeout_s`: the peers of made-up tunnels never answer."""

UNCONFIRMED = 1
"""Seconds in place of any valid `confirm_s`: until then every other change is refused."""


@schemathesis.hook  # type: ignore[untyped-decorator,unused-ignore] # it is there only for its own run
def before_call(context: Any, case: Any, *arguments: Any) -> None:
    """Change what would never end, and leave alone what is to be refused."""
    name = (case.path_parameters or {}).get("name")
    if isinstance(name, str) and (at := sum(name.encode("utf-8", "replace"))) % 2:
        case.path_parameters = {**case.path_parameters, "name": KNOWN[at % len(KNOWN)]}
    if case.path == "/v1/events" and case.method == "GET":
        query = dict(case.query or {})
        if str(query.get("follow", "true")).lower() in ("true", "1", "yes", "on", "t", "y"):
            query["follow"] = "false"
        case.query = query
    if case.path.endswith(WAITS) and case.method == "POST":
        body = case.body if isinstance(case.body, dict) else None
        if body is None and not case.body:
            case.body = {"timeout_s": BRIEFLY}
            case.media_type = "application/json"
        elif body is not None and _is_valid(body.get("timeout_s", 30), 600):
            case.body = {**body, "timeout_s": BRIEFLY}
    waits = isinstance(case.body, dict) and _is_valid(case.body.get("confirm_s"), 86400)
    if case.path == "/v1/apply" and waits:
        case.body = {**case.body, "confirm_s": UNCONFIRMED}


def _is_valid(seconds: object, most: float) -> bool:
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds <= most
