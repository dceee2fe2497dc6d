"""`vpnctl why`: asks the daemon, or reads what it has kept, and finds the tunnel that needs it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpnd.config.kept import REASONS_FILE
from vpnd.control.session import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, Session
from vpnd.model.text import printable

if TYPE_CHECKING:
    from rich.text import Text

Json = dict[str, Any]

NAMED = 10
"""Ours: tunnels with trouble that are listed where no name was given."""


def why(session: Session, name: str | None, state: Path) -> None:
    """Print why a tunnel is as it is; ends the program where that cannot be said."""
    from vpnd.sdk.errors import DaemonUnreachable

    try:
        document = _ask(session, name)
    except DaemonUnreachable as unreachable:
        document = _kept(session, name, state, unreachable)

    def lines(width: int) -> Iterable[Text]:
        from vpnd.control import render

        return render.why(document, width)

    session.show(document, lines)


def _ask(session: Session, name: str | None) -> Json:
    from vpnd.sdk.transport import tunnel_path

    if name is None:
        status = session.get("/v1/status", can_do_without=True)
        name = _only(session, [(one["name"], one["state"], _code(one)) for one in status["tunnels"]])
    return session.get(tunnel_path(name, "why"), can_do_without=True)


def needs_a_word(tunnel: Json) -> bool:
    """Whether something is wrong with a tunnel, as its entry of the status says."""
    reasons = any(mapping["reason"] for mapping in tunnel["mappings"])
    trouble = tunnel["last_error"] is not None or tunnel.get("impaired") is not None or reasons
    return tunnel["state"] in ("connecting", "unhealthy") or trouble


def _code(tunnel: Json) -> str | None:
    """Under which code something is wrong with a tunnel, as its entry of the status says; "" without one."""
    if not needs_a_word(tunnel):
        return None
    faults = (tunnel.get("impaired"), tunnel["last_error"], *(one["reason"] for one in tunnel["mappings"]))
    return next((str(fault["code"]) for fault in faults if fault), "")


def _only(session: Session, tunnels: list[tuple[str, str, str | None]]) -> str:
    """The one tunnel that needs it, of these with their states and codes; else the one that waits."""
    needy = [(name, code) for name, _, code in tunnels if code is not None]
    waiting = [name for name, state, _ in tunnels if state == "waiting"]
    if not needy and len(waiting) == 1:
        return waiting[0]
    if not needy:
        hint = "vpnctl why NAME shows the last failure"
        session.fail({"code": "E-USAGE", "message": "no tunnel needs it", "hint": hint}, EXIT_FAILED)
    if len(needy) > 1:
        shown = [f"{name} ({code})" if code else name for name, code in needy[:NAMED]]
        more = f" and {len(needy) - NAMED} more" if len(needy) > NAMED else ""
        message = f"{len(needy)} tunnels need it: {', '.join(shown)}{more}"
        error = {"code": "E-USAGE", "message": message, "hint": "vpnctl why NAME"}
        session.fail({**error, "tunnels": [name for name, _ in needy]}, EXIT_USAGE)
    return needy[0][0]


def _kept(session: Session, name: str | None, state: Path, unreachable: Exception) -> Json:
    """What the daemon said last."""
    path = state / REASONS_FILE
    try:
        kept = json.loads(path.read_bytes())
        at, tunnels = str(kept["at"]), dict(kept["tunnels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it cannot be read"
        hint = f"{getattr(unreachable, 'hint', '')}; {path}: {reason}"
        session.fail(
            {"code": "E-UNREACHABLE-DAEMON", "message": str(unreachable), "hint": hint}, EXIT_UNREACHABLE
        )
    from vpnd.control.render import moment

    hint = getattr(unreachable, "hint", "")
    session.note(f"{unreachable}; {hint}\nThis is what vpnd knew at {moment(at)}:\n")
    if name is None:
        name = _only(session, [(one, why["state"], _kept_code(why)) for one, why in tunnels.items()])
    if name not in tunnels:
        message = f"no tunnel was called {printable(name)} then"
        near = difflib.get_close_matches(name, tunnels, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        more = f" and {len(tunnels) - NAMED} more" if len(tunnels) > NAMED else ""
        listed = f"tunnels: {', '.join(list(tunnels)[:NAMED])}{more}" if tunnels else "there was none"
        unknown = {"code": "E-UNKNOWN-TUNNEL", "message": message, "hint": f"{meant}{listed}"}
        session.fail(unknown, EXIT_USAGE)
    found: Json = tunnels[name]
    return {**found, "kept_at": at}


def _kept_code(why: Json) -> str | None:
    return str(why["error"]["code"]) if why.get("standing") and why.get("error") else None
