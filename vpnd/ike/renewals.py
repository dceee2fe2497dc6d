"""Which peers begin again each SA that is closed here (strongSwan: `close_action = start`).

Of two SAs for the same, one is closed. Such a peer makes another one of it, of which one is closed again, and
so on without end. Nothing on the wire tells of this before; once it has happened, both stay.
"""

from __future__ import annotations

AGAIN = 10.0
"""Seconds after our DELETE within which the peer's next SA is because of it, with a message lost."""
QUIET = 0.5
"""Seconds before it without an attempt of either side: what always begins has another reason."""


class Renewals:
    """What is known of the peer of each tunnel, by the tunnel's name. Times are in seconds."""

    def __init__(self) -> None:
        self._closing: set[str] = set()
        self._closed: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._known: set[str] = set()

    def closing(self, tunnel: str) -> None:
        """An SA is closed by our DELETE because another one has its part."""
        self._closing.add(tunnel)

    def closed(self, now: float, tunnel: str) -> None:
        """The peer has answered a DELETE, so it lives and has known the SA."""
        if tunnel in self._closing:
            self._closing.discard(tunnel)
            if now - self._begun.get(tunnel, float("-inf")) >= QUIET:
                self._closed[tunnel] = now

    def begins_here(self, now: float, tunnel: str) -> None:
        """We begin an SA ourselves: what the peer begins meanwhile may have the same reason."""
        self._begun[tunnel] = now
        self._closed.pop(tunnel, None)

    def begun(self, now: float, tunnel: str) -> bool:
        """The peer has begun an SA beside another one. Whether this is news of such a peer."""
        self._begun[tunnel] = now
        closed = self._closed.pop(tunnel, None)
        if closed is None or now - closed > AGAIN or tunnel in self._known:
            return False
        self._known.add(tunnel)
        return True

    def expects(self, tunnel: str) -> bool:
        """Whether the peer of this tunnel begins again what is closed: nothing redundant is to be."""
        return tunnel in self._known

    def forget(self, tunnel: str) -> None:
        self._closing.discard(tunnel)
        self._closed.pop(tunnel, None)
        self._begun.pop(tunnel, None)
        self._known.discard(tunnel)
