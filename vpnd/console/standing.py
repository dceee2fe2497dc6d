"""How the configuration stands, what a tunnel that carries nothing waits for, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterable

from vpnd.sdk.models import Event, GatewayStatus, TunnelDetail

BLOCKED = "down until this machine can carry it again"
"""The text of an event: nobody has closed the tunnel."""

ATTEMPTS = ("attempt-failed", "peer-throttled")
STATES = ("tunnel-up", "tunnel-down", "tunnel-waiting", "tunnel-connecting", "tunnel-unhealthy")
"""Kinds of events."""


def _(text: str) -> str:
    """Marks a text of the catalogue."""
    return text


def stands(gateway: GatewayStatus | None) -> str:
    """In one word what every page says of the configuration; empty: nothing."""
    if gateway is not None and gateway.confirm_in_s is not None:
        return "waits"
    return "differs" if gateway is not None and gateway.rolled_back is not None else ""


def waits_for(tunnel: TunnelDetail, events: Iterable[Event]) -> str | None:
    """A text of the catalogue; `events`: those of the tunnel, the newest first."""
    match tunnel.state:
        case "down" if not tunnel.enabled:
            return _("It is disabled: it stays down until Enable, or enabled = true in its table.")
        case "down":
            last = next((event.text for event in events if event.event in STATES), None)
            if last == BLOCKED:
                return _("This machine cannot carry it now: it comes up by itself when it can.")
            return _("It stays down until Connect or a start of vpnd.")
        case "waiting" if tunnel.negotiation == "passive":
            return _("It waits for the peer to begin.")
        case "waiting" if tunnel.negotiation == "active":
            return _(
                "The peer was found dead, and the DPD action is disconnect: the peer begins, or Connect."
            )
        case "waiting":
            return _("It waits for the first packet.")
        case "unhealthy":
            return _("The health check fails: no traffic is led into it.")
        case _:
            return None


def failed_attempt(events: Iterable[Event]) -> Event | None:
    """The peer's last attempt, if it was refused since the tunnel is as it is; `events`: the newest first."""
    for event in events:
        if event.event in ATTEMPTS:
            return event
        if event.event in STATES:
            return None
    return None
