"""`vpnctl why`: asks the daemon, or reads what it has kept, and finds the tunnel that needs it."""

from __future__ import annotations

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
        name = _only(session, [one["name"] for one in status["tunnels"] if needs_a_word(one)])
    return session.get(tunnel_path(name, "why"), can_do_without=True)


def needs_a_word(tunnel: Json) -> bool:
    """Whether something is wrong with a tunnel, as its entry of the status says."""
    reasons = any(mapping["reason"] for mapping in tunnel["mappings"])
    trouble = tunnel["last_error"] is not None or tunnel.get("impaired") is not None or reasons
    return tunnel["state"] in ("connecting", "unhealthy") or trouble


def _only(session: Session, names: list[str]) -> str:
    """The one tunnel that needs it."""
    if not names:
        hint = "vpnctl why NAME shows the last failure"
        session.fail({"code": "E-USAGE", "message": "no tunnel needs it", "hint": hint}, EXIT_FAILED)
    if len(names) > 1:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        message = f"{len(names)} tunnels need it: {', '.join(names[:NAMED])}{more}"
        session.fail({"code": "E-USAGE", "message": message, "hint": "vpnctl why NAME"}, EXIT_USAGE)
    return names[0]


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
    if name is None:
        name = _only(session, [one for one, why in tunnels.items() if why.get("standing")])
    if name not in tunnels:
        message = f"no tunnel was called {printable(name)} when vpnd ended"
        session.fail({"code": "E-UNKNOWN-TUNNEL", "message": message, "hint": ", ".join(tunnels)}, EXIT_USAGE)
    session.note(f"vpnd does not run; this is what it knew at {at}")
    found: Json = tunnels[name]
    return {**found, "kept_at": at}
