"""Who asks the API, and what they may do.

A caller may read, or do everything. Over the Unix socket that depends on user and groups; over TCP each
request has a token (RFC 6750) for one or the other, and who tries tokens that are not valid is soon not heard
any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from time import monotonic

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from vpnd.control.limits import answer
from vpnd.control.schema import ErrorBody, ErrorResponse, Role
from vpnd.control.tokens import Tokens

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 section 9.2.1)."""

TRIES = 10
"""Ours: tokens that are not valid, of one address at once, before it is not heard for a while."""

TRY_EVERY = 6.0
"""Ours, in seconds: until it may try one more."""

KNOWN_GUESSERS = 1000
"""Ours: addresses that are remembered; the one that was quiet longest is forgotten first."""

IPV6_OF_ONE = 64
"""Bits of an IPv6 address that name a network (RFC 4291 section 2.5.4): its owner has all in it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `place` is whose places a request takes; `token` the token's name, None over the socket."""

    words: str
    role: Role
    place: Hashable
    token: str | None = None

    @property
    def is_root(self) -> bool:
        """Whether it is root, over the socket."""
        return self.token is None and self.place == 0


class Access:
    """Says in `scope["state"]["caller"]` who asks, and refuses who may not.

    The server says in `scope["state"]` who is at the other end: `user`, the uid of a Unix socket's, and
    `role`, or else `peer`, an address. `on_guess` gets each address that has sent a token that is not valid.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens, on_guess: Callable[[str], None]) -> None:
        self._app = app
        self._tokens = tokens
        self._on_guess = on_guess
        self._guesses = Guesses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        user = state.get("user")
        try:
            if user is None:
                caller = self._by_token(Headers(scope=scope), str(state.get("peer", "unknown")))
            else:
                caller = Caller(f"uid {user}", state.get("role", "read"), user)
            _require(caller, scope)
        except _Refused as refused:
            body = ErrorBody(code=refused.code, message=refused.message, hint=refused.hint)
            await answer(send, ErrorResponse.of(refused.status, body), *refused.headers)
            return
        state["caller"], state["user"] = caller, caller.place
        await self._app(scope, receive, send)

    def _by_token(self, headers: Headers, peer: str) -> Caller:
        wait = self._guesses.wait(peer)
        if wait > 0:
            raise _too_fast(wait)
        given = headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token.strip():
            raise _unknown("this needs a token: Authorization: Bearer TOKEN", b'Bearer realm="vpnd"')
        found = self._tokens.find(token.strip())
        if found is None:
            self._guesses.add(peer)
            self._on_guess(peer)
            raise _unknown("the token is not valid", b'Bearer realm="vpnd", error="invalid_token"')
        name, role = found
        return Caller(f"token {name} from {peer}", role, ("token", name), name)


def _require(caller: Caller, scope: Scope) -> None:
    """Raises _Refused for what this caller may not do."""
    if caller.role == "admin" or scope["method"] in READING:
        return
    if caller.token is None:
        hint = "members of the group vpnd may change things, and root"
        raise _Refused(403, "E-ROLE", f"{caller.words} may look and not change", hint)
    raise _Refused(
        403,
        "E-ROLE",
        f"the token {caller.token} is for reading only",
        "vpnctl token create NAME --role admin makes one for changes",
        ((b"www-authenticate", b'Bearer realm="vpnd", error="insufficient_scope"'),),
    )


class Guesses:
    """How often each address has sent a token that is not valid: a bucket of tries that fills again."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """By network: when it will have all its tries again."""

    def wait(self, peer: str) -> float:
        """Seconds until this address is heard again; 0 if it is."""
        full_at = self._full_at.get(network_of(peer), 0.0)
        return max(0.0, full_at - self._now() - (TRIES - 1) * TRY_EVERY)

    def add(self, peer: str) -> None:
        """One more token that is not valid."""
        network = network_of(peer)
        self._full_at[network] = max(self._full_at.get(network, 0.0), self._now()) + TRY_EVERY
        self._full_at.move_to_end(network)
        if len(self._full_at) > KNOWN_GUESSERS:
            self._full_at.popitem(last=False)


def network_of(peer: str) -> str:
    """What stands for who is at an address: the address itself, of IPv6 its network."""
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if address.version == 4:
        return str(address)
    return str(address.ipv4_mapped or ip_network((address, IPV6_OF_ONE), strict=False))


class _Refused(Exception):
    def __init__(
        self, status: int, code: str, message: str, hint: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint
        self.headers = headers


def _unknown(message: str, challenge: bytes) -> _Refused:
    hint = "vpnctl token create NAME makes one"
    return _Refused(401, "E-TOKEN", message, hint, ((b"www-authenticate", challenge),))


def _too_fast(wait: float) -> _Refused:
    seconds = int(wait) + 1
    message = "too many tokens that are not valid came from this address"
    headers = ((b"retry-after", str(seconds).encode()),)
    return _Refused(429, "E-TOO-FAST", message, f"wait {seconds} s", headers)
