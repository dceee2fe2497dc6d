"""The console as an application: its pages, and what each of them asks of the daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from vpnd.console import shapes
from vpnd.console.configurations import ConfigurationPages
from vpnd.console.editing import Editing
from vpnd.console.gateways import Gateways
from vpnd.console.keys import Keys
from vpnd.console.other_side import kind_of, other_side
from vpnd.console.protection import Protection
from vpnd.console.requests import THEMES, Pages, form_of, one, own_path, redirect, refusal_text
from vpnd.console.sessions import Sessions, TooMany
from vpnd.console.standing import failed_attempt, waits_for
from vpnd.console.suggestions import field_of
from vpnd.console.tokens import Tokens, TokensUnavailable
from vpnd.console.watch import KEPT_RATES, Watch
from vpnd.console.words import LANGUAGES, translator
from vpnd.sdk import AsyncClient, DaemonUnreachable, Refused, VpndError
from vpnd.translate.kinds import file_name

STATIC = {
    "console.css": "text/css",
    "console.js": "text/javascript",
    "htmx.min.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

STATES = ("up", "connecting", "waiting", "unhealthy", "down")

SHOWN_MESSAGES = 64
"""Ours: IKE messages on a tunnel's page, which is made again every few seconds; `vpnctl trace` has more."""
SHOWN_EVENTS = 100
"""Ours: newest events of a tunnel, or of all."""

ACTION_LIMIT = 15.0
"""Ours, in seconds: how long a page may wait for a tunnel; it goes on trying."""

CONFIRMED = ("down", "disable", "reset")
"""Actions that interrupt traffic: a page asks first."""


def create_app(
    vpnd: AsyncClient,
    tokens: Tokens,
    hosts: Sequence[str] = (),
    secure: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Starlette:
    """The application. `hosts`: names of ours besides loopback; `secure`: it is served with TLS."""
    console = Console(vpnd, Pages(Sessions(tokens, clock), secure), Watch(vpnd, clock))

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        keeping = asyncio.gather(console.watch.follow(), console.watch.sample())
        try:
            yield
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping

    editing = Editing(vpnd, console.pages, console.watch)
    console.pages.gateway_now = lambda: console.watch.gateway
    parts = (vpnd, console.pages, console.watch)
    others = (Gateways(*parts), ConfigurationPages(*parts), Keys(*parts))
    return Starlette(
        routes=[
            *console.routes(),
            *editing.routes(),
            *(route for pages in others for route in pages.routes()),
        ],
        middleware=[Middleware(Protection, hosts=hosts, secure=secure)],
        exception_handlers={
            VpndError: console.daemon_failed,
            HTTPException: console.refused,
            TokensUnavailable: console.broken,
        },
        lifespan=life,
    )


class Console:
    """The pages for watching, and the actions on a tunnel."""

    def __init__(self, vpnd: AsyncClient, pages: Pages, watch: Watch) -> None:
        self.vpnd = vpnd
        self.pages = pages
        self.watch = watch
        files = resources.files("vpnd.console") / "static"
        self._static = {name: (files / name).read_bytes() for name in STATIC}

    def routes(self) -> list[Route]:
        """Every page; what is not in here does not exist."""
        see, change = self.pages.signed_in, self.pages.admin
        return [
            Route("/static/{name}", self.static),
            Route("/sign-in", self.sign_in, methods=["GET", "POST"]),
            Route("/sign-out", see(self.sign_out), methods=["POST"]),
            Route("/preferences", self.preferences, methods=["POST"]),
            Route("/", see(self.tunnels)),
            Route("/rows", see(self.rows)),
            Route("/events", see(self.events)),
            Route("/events/list", see(self.events_list)),
            Route("/tunnel", see(self.tunnel)),
            Route("/tunnel/live", see(self.live)),
            Route("/tunnel/other-side", see(self.other_side)),
            Route("/tunnel/peer-config", see(self.peer_config)),
            Route("/tunnel/act", change(self.act), methods=["POST"]),
        ]

    # ------------------------------------------------------------------------------- signing in

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404)
        headers = {"Cache-Control": "public, max-age=86400"}
        return Response(self._static[name], media_type=STATIC[name], headers=headers)

    async def sign_in(self, request: Request) -> Response:
        if request.method != "POST":
            if self.pages.session(request) is not None:
                return redirect("/")
            return self.pages.render(request, "sign_in.html", wrong=None)
        _ = translator(self.pages.language(request))
        token = one(await form_of(request), "token")
        try:
            identifier = self.pages.sessions.sign_in(token)
        except TooMany:
            wrong = _("Too many wrong tokens: wait a minute.")
            return self.pages.render(request, "sign_in.html", HTTPStatus.TOO_MANY_REQUESTS, wrong=wrong)
        if identifier is None:
            wrong = _("This token is not valid.")
            return self.pages.render(request, "sign_in.html", HTTPStatus.FORBIDDEN, wrong=wrong)
        self.pages.sessions.end(request.cookies.get(self.pages.cookie))
        answer = redirect("/")
        self.pages.set_session(answer, identifier)
        return answer

    async def sign_out(self, request: Request) -> Response:
        await self.pages.checked_form(request)
        self.pages.sessions.end(request.cookies.get(self.pages.cookie))
        answer = redirect("/sign-in")
        answer.delete_cookie(self.pages.cookie, path="/")
        answer.headers["Clear-Site-Data"] = '"cache"'
        return answer

    async def preferences(self, request: Request) -> Response:
        form = await form_of(request)
        answer = redirect(own_path(one(form, "back")))
        for name, choices in (("language", tuple(LANGUAGES)), ("theme", THEMES)):
            if one(form, name) in choices:
                self.pages.set_preference(answer, name, one(form, name))
        return answer

    # ---------------------------------------------------------------------------------- watching

    async def tunnels(self, request: Request) -> Response:
        return await self._tunnels(request, "tunnels.html")

    async def rows(self, request: Request) -> Response:
        return await self._tunnels(request, "rows.html")

    async def _tunnels(self, request: Request, template: str) -> Response:
        """In the order of the configuration, whatever happens to them."""
        seen = await self.watch.look()
        query, wanted = request.query_params.get("q", ""), request.query_params.get("state", "")
        request.state.session.list_query = {"q": query, "state": wanted} if query or wanted else {}
        low = query.lower()
        shown = [
            tunnel
            for tunnel in seen.status.tunnels
            if wanted in ("", tunnel.state)
            and any(
                low in (text or "").lower() for text in (tunnel.name, tunnel.description, tunnel.peer.address)
            )
        ]
        values: dict[str, Any] = {"status": seen.status, "tunnels": shown, "rates": seen.rates}
        values |= {"query": query, "wanted": wanted, "states": STATES}
        return self.pages.render(request, template, page="tunnels", **values)

    async def events(self, request: Request) -> Response:
        return self._events(request, "events.html")

    async def events_list(self, request: Request) -> Response:
        return self._events(request, "events_list.html")

    def _events(self, request: Request, template: str) -> Response:
        newest = list(self.watch.events)[: -SHOWN_EVENTS - 1 : -1]
        return self.pages.render(request, template, page="events", events=newest, named=True)

    async def tunnel(self, request: Request) -> Response:
        values = await self._about(request)
        other = await other_side(self.vpnd, values["tunnel"].name)
        return self.pages.render(request, "tunnel.html", page="tunnels", **other, **values)

    async def other_side(self, request: Request) -> Response:
        """The part of a page with the other side's configuration, for the product that was chosen."""
        name = request.query_params.get("name", "")
        other = await other_side(self.vpnd, name, kind_of(request))
        return self.pages.render(request, "other_side.html", name=name, **other)

    async def live(self, request: Request) -> Response:
        return self.pages.render(request, "live.html", **await self._about(request))

    async def _about(self, request: Request) -> dict[str, Any]:
        name = request.query_params.get("name", "")
        tunnel, why, trace, keys = await asyncio.gather(
            self.vpnd.tunnel(name),
            self.vpnd.why(name),
            self.vpnd.trace(name, SHOWN_MESSAGES),
            self.vpnd.keys_of(name),
        )
        seen = await self.watch.look()
        events = [event for event in reversed(self.watch.events) if event.tunnel == name]
        return {
            "tunnel": tunnel,
            "why": why if why.error is not None else None,
            "over": tunnel.state == "up" and tunnel.last_error is None and tunnel.impaired is None,
            "attempt": failed_attempt(events) if why.error is None else None,
            "waits_for": waits_for(tunnel, events),
            "trace": trace.lines,
            "keys": keys,
            "rate": seen.rates.get(name),
            "curves": [
                shapes.curve("Rate", "bit/s", self.watch.rates.of(name), KEPT_RATES),
                *(shapes.health_curves(tunnel.health_history) if tunnel.health_history else ()),
            ],
            "field": field_of(why.explanation) if why.explanation is not None else None,
            "events": events[:SHOWN_EVENTS],
            "named": False,
        }

    async def peer_config(self, request: Request) -> Response:
        name, kind = request.query_params.get("name", ""), kind_of(request)
        found = await self.vpnd.peer_config(name, kind)
        headers = {"Content-Disposition": f'attachment; filename="{file_name(kind)}"'}
        return PlainTextResponse(found.configuration, headers=headers)

    # ------------------------------------------------------------------------------------ acting

    async def act(self, request: Request) -> Response:
        form = request.state.form
        name, action = one(form, "name"), one(form, "action")
        if action in CONFIRMED and one(form, "confirmed") != "yes":
            return self._ask(request, name, action)
        _, session = translator(self.pages.language(request)), request.state.session
        calls: dict[str, Callable[[], Any]] = {
            "up": lambda: self.vpnd.up(name, ACTION_LIMIT),
            "down": lambda: self.vpnd.down(name),
            "disable": lambda: self.vpnd.disable(name),
            "enable": lambda: self.vpnd.enable(name),
            "reset": lambda: self.vpnd.reset(name, ACTION_LIMIT),
            "rekey": lambda: self.vpnd.rekey(name, timeout_s=ACTION_LIMIT),
        }
        if action not in calls:
            raise HTTPException(400, "there is no such action")
        try:
            done = await calls[action]()
        except Refused as refusal:
            session.notices.append(("bad", refusal_text(refusal)))
        else:
            session.notices.append(("good", f"{name}: {_(done.state)}"))
        self.watch.forget()
        return redirect("/tunnel", name=name)

    def _ask(self, request: Request, name: str, action: str) -> Response:
        _ = translator(self.pages.language(request))
        words = {
            "down": (
                _("Disconnect"),
                _("Its traffic stops until Connect or a start of vpnd."),
            ),
            "disable": (_("Disable"), _("It stays down until Enable, also after a start of vpnd.")),
            "reset": (_("Reset"), _("The SAs are deleted and negotiated again: traffic is interrupted.")),
        }
        verb, text = words[action]
        values: dict[str, Any] = {
            "heading": f"{verb}: {name}",
            "text": text,
            "verb": verb,
            "name": name,
            "action": action,
        }
        return self.pages.render(request, "confirm.html", **values)

    # ----------------------------------------------------------------------------------- failing

    async def daemon_failed(self, request: Request, failure: Exception) -> Response:
        """The daemon is not there, or does not know what was asked for."""
        _ = translator(self.pages.language(request))
        if isinstance(failure, Refused):
            status = failure.status if failure.status < 500 else HTTPStatus.BAD_GATEWAY
            heading = failure.code
        else:
            status, heading = HTTPStatus.SERVICE_UNAVAILABLE, _("vpnd does not answer")
        hint = failure.hint if isinstance(failure, Refused | DaemonUnreachable) else None
        return self.pages.message(request, status, heading, str(failure), hint)

    async def refused(self, request: Request, failure: Exception) -> Response:
        """What this console does not do."""
        status = failure.status_code if isinstance(failure, HTTPException) else 400
        detail = failure.detail if isinstance(failure, HTTPException) else ""
        return self.pages.message(request, status, HTTPStatus(status).phrase, detail)

    async def broken(self, request: Request, failure: Exception) -> Response:
        """Nobody can sign in."""
        return PlainTextResponse(str(failure), HTTPStatus.INTERNAL_SERVER_ERROR)
