"""What a browser sent: the session, the form, the preferences; and the ways to answer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from vpnd import __version__
from vpnd.console import shapes
from vpnd.console.sessions import Session, Sessions
from vpnd.console.standing import stands
from vpnd.console.tokens import Role
from vpnd.console.words import LANGUAGES, preferred, teller, translator
from vpnd.model.text import printable
from vpnd.sdk import Refused
from vpnd.sdk.models import GatewayStatus

MAX_FORM = 256 * 1024
"""Ours, in bytes: a tunnel with 200 mappings takes 20 KB."""

MAX_FIELDS = 1000
"""Ours: fields of one form."""

MAX_TEXT = 300
"""Ours: characters of a field, longer than each limit that the daemon then names."""

MAX_LINES = 20_000
"""Ours: characters of a field of lines: 200 ranges and some."""

THEMES = ("light", "dark")
PREFERENCE_SECONDS = 365 * 86400

Handler = Callable[[Request], Awaitable[Response]]


class Pages:
    """The templates, and what each of them can use."""

    def __init__(self, sessions: Sessions, secure: bool) -> None:
        self.sessions = sessions
        self._secure = secure
        # __Host-: no other port or name can set it, where the browser can know that (RFC 6265bis).
        self.cookie = "__Host-vpnd" if secure else "vpnd-console"
        self._templates = Environment(
            loader=PackageLoader("vpnd.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(
            version=__version__,
            languages=LANGUAGES,
            duration=shapes.duration,
            amount=shapes.amount,
            clock_time=shapes.clock_time,
            mappings_up=shapes.mappings_up,
            printable=printable,
            drops=shapes.drops,
            stands=stands,
        )
        self.gateway_now: Callable[[], GatewayStatus | None] = lambda: None
        """What is known of the gateway, as it was seen last."""

    # ------------------------------------------------------------------------------ who asks

    def session(self, request: Request) -> Session | None:
        """Who is signed in. What a page asks for by itself does not keep the session."""
        by_itself = request.headers.get("hx-request") == "true" and request.method == "GET"
        return self.sessions.find(request.cookies.get(self.cookie), not by_itself)

    def signed_in(self, handler: Handler) -> Handler:
        """For those who have a session; the others are sent to sign in."""

        async def guarded(request: Request) -> Response:
            session = self.session(request)
            if session is None:
                if request.headers.get("hx-request") == "true":
                    return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": "/sign-in"})
                return redirect("/sign-in")
            request.state.session = session
            return await handler(request)

        return guarded

    def admin(self, handler: Handler) -> Handler:
        """For those who may change something, with their form's token where something is changed."""

        async def guarded(request: Request) -> Response:
            if request.state.session.role is not Role.ADMIN:
                raise HTTPException(403, "this token is for reading only")
            if request.method not in ("GET", "HEAD"):
                await self.checked_form(request)
            return await handler(request)

        return self.signed_in(guarded)

    async def checked_form(self, request: Request) -> dict[str, list[str]]:
        """The form, if it is one that we gave to this session. Raises HTTPException."""
        form = await form_of(request)
        if form.get("csrf") != [request.state.session.csrf]:
            raise HTTPException(403, "this form is of another session: load the page again")
        request.state.form = form
        return form

    # ------------------------------------------------------------------------------- answers

    def language(self, request: Request) -> str:
        """The one that was chosen, or the browser's."""
        return preferred(request.cookies.get("language"), request.headers.get("accept-language", ""))

    def render(self, request: Request, template: str, http_status: int = 200, **values: Any) -> Response:
        """A page, or a part of one."""
        language, theme = self.language(request), request.cookies.get("theme")
        about = {"gateway_now": self.gateway_now(), "only_seconds": False, "back": _here(request)}
        text = self._templates.get_template(template).render(
            _=translator(language),
            told=teller(language),
            max_text=MAX_TEXT,
            max_lines=MAX_LINES,
            language=language,
            theme=theme if theme in THEMES else None,
            nonce=request.scope["state"]["nonce"],
            session=getattr(request.state, "session", None),
            here=_here(request),
            page=values.pop("page", ""),
            **(about | values),
        )
        return HTMLResponse(text, http_status)

    def message(
        self, request: Request, status: int, heading: str, text: str, hint: str | None = None
    ) -> Response:
        """A page that says one thing."""
        return self.render(request, "message.html", status, heading=heading, text=text, hint=hint)

    def set_session(self, response: Response, identifier: str) -> None:
        """Sign the browser in; no script sees the cookie, and no other site sends it."""
        response.set_cookie(
            self.cookie, identifier, httponly=True, samesite="strict", secure=self._secure, path="/"
        )

    def set_preference(self, response: Response, name: str, value: str) -> None:
        """Keep a choice in the browser."""
        response.set_cookie(
            name, value, PREFERENCE_SECONDS, httponly=True, samesite="lax", secure=self._secure
        )


def _here(request: Request) -> str:
    """The page, to come back to; that of a form is where the form was."""
    if request.method not in ("GET", "HEAD"):
        return "/"
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def redirect(path: str, place: str = "", **query: str) -> Response:
    """To another page of ours, by GET; `place` is an element on it."""
    target = f"{path}?{urlencode(query)}" if query else path
    return RedirectResponse(f"{target}#{quote(place)}" if place else target, HTTPStatus.SEE_OTHER)


def refusal_text(refusal: Refused) -> str:
    """What the daemon says to what it does not do, in one line."""
    text = f"{refusal.code}: {refusal.message}"
    return f"{text} – {refusal.hint}" if refusal.hint else text


def own_path(text: str) -> str:
    """A path of this console, or `/` for anything else: `//elsewhere` and `/\\elsewhere` lead away."""
    fine = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if fine else "/"


async def form_of(request: Request) -> dict[str, list[str]]:
    """The fields of a form, by name. Raises HTTPException for what is too large or no form."""
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_FORM:
            raise HTTPException(413, f"the form has more than {MAX_FORM} bytes")
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "this takes forms only")
    try:
        pairs = parse_qsl(
            content.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return form


def one(form: Mapping[str, list[str]], name: str) -> str:
    """The only value of a field, or the empty text."""
    return form.get(name, [""])[0]
