"""Who is signed in: sessions in memory, which end by themselves."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from vpnd.console.tokens import Role, Tokens
from vpnd.model.secret import Secret

IDLE_LIMIT = 30 * 60.0
"""Ours, in seconds: a page that only refreshes itself keeps nobody signed in."""

WHOLE_LIMIT = 12 * 3600.0
"""Ours, in seconds: a working day."""

MAX_SESSIONS = 64
"""Ours: the longest unused one makes room."""

FAILURES, FAILURES_WITHIN = 20, 60.0
"""Ours: wrong tokens in so many seconds, of everybody, until no more are looked at; none can be guessed."""


@dataclass(slots=True)
class Session:
    """One browser that is signed in. `csrf` is in each of its forms."""

    role: Role
    token_hash: str
    began: float
    used: float
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    drafts: dict[str, object] = field(default_factory=dict, repr=False)
    """Tunnels that are being made or changed, the oldest first."""
    list_query: dict[str, str] = field(default_factory=dict)
    """How the list was filtered, to come back to it."""
    shown_once: tuple[str, Secret] | None = field(default=None, repr=False)
    """A tunnel and the key that was made for it."""
    notices: list[tuple[str, str]] = field(default_factory=list)
    """Kind (`good`, `bad`) and text of what the next page shows once."""

    def take_notices(self) -> list[tuple[str, str]]:
        """What is to be shown now, and not again."""
        shown, self.notices = self.notices, []
        return shown


class TooMany(Exception):
    """There were too many wrong tokens lately."""


class Sessions:
    """All of them; `clock` gives seconds that only grow."""

    def __init__(self, tokens: Tokens, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._failures: list[float] = []

    def sign_in(self, token: str) -> str | None:
        """The identifier of a new session, or None for a wrong token. Raises TooMany."""
        now = self._clock()
        self._failures = [at for at in self._failures if now - at < FAILURES_WITHIN]
        if len(self._failures) >= FAILURES:
            raise TooMany
        found = self._tokens.role_of(token)
        if found is None:
            self._failures.append(now)
            return None
        if len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[min(self._sessions, key=lambda one: self._sessions[one].used)]
        identifier = secrets.token_urlsafe(32)
        self._sessions[identifier] = Session(*found, now, now)
        return identifier

    def find(self, identifier: str | None, asked_by_person: bool = True) -> Session | None:
        """The session, unless it has ended or its token is not valid any more."""
        session = self._sessions.get(identifier or "")
        if session is None or identifier is None:
            return None
        now = self._clock()
        ended = now - session.used > IDLE_LIMIT or now - session.began > WHOLE_LIMIT
        if ended or (session.role, session.token_hash) not in self._tokens.valid():
            del self._sessions[identifier]
            return None
        if asked_by_person:
            session.used = now
        return session

    def end(self, identifier: str | None) -> None:
        """Sign out."""
        self._sessions.pop(identifier or "", None)
