"""The sessions of one gateway, by what finds them: an SPI, a first message, a tunnel, a deadline."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from vpnd.ike.deadlines import Deadlines
from vpnd.ike.session import Phase, Session
from vpnd.model.selectors import Address


@dataclass(frozen=True, slots=True)
class InitKey:
    """What a repeated first message has in common with the first: the peer's SPI, address and port."""

    peer_spi: bytes
    remote: Address
    remote_port: int


class Sessions:
    """The index. What it returns is a copy: the caller may end sessions meanwhile."""

    def __init__(self) -> None:
        self.changed: deque[Session] = deque()
        """Those that Endpoint looks at after the present input."""
        self.deadlines: Deadlines[Session] = Deadlines()
        self._by_spi: dict[bytes, Session] = {}
        self._by_tunnel: dict[str, dict[Session, None]] = {}
        self._tunnel_of: dict[Session, str] = {}
        self._attempts: dict[Session, None] = {}
        self._init_of: dict[Session, InitKey] = {}
        self._by_init: dict[InitKey, Session] = {}

    def add(self, session: Session, init_key: InitKey | None = None) -> None:
        """Messages to its own SPI are the session's from now on, and repeats of its first message."""
        self._by_spi[session.sa.local_spi] = session
        self._file(session)
        if session.sa.initiator and session.sa.phase is Phase.CONNECTING:
            self._attempts[session] = None
        if init_key is not None:
            self._by_init[init_key] = session
            self._init_of[session] = init_key

    def forget(self, session: Session) -> None:
        """The session is gone: no message and no timer reaches it any more."""
        self._by_spi.pop(session.sa.local_spi, None)
        self.deadlines.disarm(session)
        self._attempts.pop(session, None)
        self._unfile(session)
        key = self._init_of.pop(session, None)
        if key is not None and self._by_init.get(key) is session:
            del self._by_init[key]

    def find(self, local_spi: bytes) -> Session | None:
        return self._by_spi.get(local_spi)

    def find_init(self, key: InitKey) -> Session | None:
        """The session that a first message with this key has made."""
        return self._by_init.get(key)

    def forget_init(self, key: InitKey) -> None:
        """A first message with this key begins again; the session of an earlier one is found by SPI only."""
        self._by_init.pop(key, None)

    def all(self) -> tuple[Session, ...]:
        """Oldest first."""
        return tuple(self._by_spi.values())

    def of(self, tunnel: str) -> Iterator[Session]:
        """Those of one tunnel, oldest first."""
        return iter(tuple(self._by_tunnel.get(tunnel, ())))

    def attempts(self) -> Iterator[Session]:
        """Our own attempts that are under way, oldest first."""
        return iter(tuple(self._attempts))

    def established(self, tunnel: str) -> Session | None:
        """The newest established session of a tunnel."""
        found = [s for s in self.of(tunnel) if s.sa.phase is Phase.ESTABLISHED]
        return found[-1] if found else None

    def phase_changed(self, session: Session) -> None:
        """Its tunnel may have changed as well."""
        if session.sa.phase is not Phase.CONNECTING:
            self._attempts.pop(session, None)
        if self._tunnel_of.get(session, session.sa.tunnel) != session.sa.tunnel:
            self._unfile(session)
            self._file(session)
        self.changed.append(session)

    def arm(self, session: Session) -> None:
        """Take note of the session's next deadline; called after everything that may have moved it."""
        self.deadlines.arm(session, None if session.sa.phase is Phase.GONE else session.next_timeout())

    @property
    def first_messages(self) -> int:
        """How many are known, so that a repeat finds its session."""
        return len(self._by_init)

    def _file(self, session: Session) -> None:
        self._tunnel_of[session] = session.sa.tunnel
        self._by_tunnel.setdefault(session.sa.tunnel, {})[session] = None

    def _unfile(self, session: Session) -> None:
        tunnel = self._tunnel_of.pop(session)
        filed = self._by_tunnel[tunnel]
        del filed[session]
        if not filed:
            del self._by_tunnel[tunnel]
