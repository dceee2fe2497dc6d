"""The page on which a tunnel's pre-shared key is replaced by the next one, step by step."""

from __future__ import annotations

import asyncio
import shlex
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vpnd.config.secrets import new_key
from vpnd.console.editing import MAX_KEY, Findings
from vpnd.console.requests import Pages, one, redirect, refusal_text
from vpnd.console.watch import Watch
from vpnd.console.words import translator
from vpnd.model.secret import Secret
from vpnd.sdk import AsyncClient, Refused

PROOF_LIMIT = 15.0
"""Ours, in seconds: how long the page waits until the peer has shown the next key."""

STEPS = ("begin", "prove", "finish", "cancel")


def _(text: str) -> str:
    """Marks a text of the catalogue."""
    return text


DONE = {
    "begin": _("Both keys are accepted from now on."),
    "prove": _("The peer has shown the next key."),
    "finish": _("The next key is the only one."),
    "cancel": _("The next key is forgotten."),
}


class Keys:
    """The page, its form, and the buttons of the steps."""

    def __init__(self, vpnd: AsyncClient, pages: Pages, watch: Watch) -> None:
        self._vpnd = vpnd
        self._pages = pages
        self._watch = watch

    def routes(self) -> list[Route]:
        """For those who may change something; what is in use stands on the tunnel's page."""
        change = self._pages.admin
        return [
            Route("/tunnel/key", change(self.show), methods=["GET"]),
            Route("/tunnel/key", change(self.step), methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Where the replacement stands, and what can be done next."""
        return await self._show(request, request.query_params.get("name", ""), "", Findings())

    async def _show(
        self, request: Request, name: str, ends: str, findings: Findings, status: int = HTTPStatus.OK
    ) -> Response:
        tunnel, keys = await asyncio.gather(self._vpnd.tunnel(name), self._vpnd.keys_of(name))
        proved = keys.theirs is not None and keys.theirs.fingerprint == keys.next
        values: dict[str, Any] = {"tunnel": tunnel, "keys": keys, "proved": proved, "ends": ends}
        values |= {"findings": findings, "max_key": MAX_KEY}
        values["command"] = f"vpnctl psk rotate {shlex.quote(name)}"
        return self._pages.render(request, "key.html", status, page="tunnels", **values)

    async def step(self, request: Request) -> Response:
        """Take one step; what the daemon refuses is said, and nothing has changed."""
        form, session = request.state.form, request.state.session
        name, asked = one(form, "name"), one(form, "step")
        if asked not in STEPS:
            raise HTTPException(400, "there is no such step")
        step = cast("Literal['begin', 'prove', 'finish', 'cancel']", asked)
        say, findings = translator(self._pages.language(request)), Findings()
        key, ends = None, None
        if step == "begin":
            key, ends = self._key(form, findings, say), _moment(form, findings, say)
            if findings.by_field:
                return await self._show(request, name, one(form, "retire_after"), findings, 422)
        try:
            await self._vpnd.rotate_key(
                name,
                step,
                key=None if key is None else key.reveal().decode(),
                retire_after=ends,
                force=one(form, "force") == "yes",
                timeout_s=PROOF_LIMIT,
            )
        except Refused as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND:
                raise
            session.notices.append(("bad", refusal_text(refusal)))
            return redirect("/tunnel/key", name=name)
        self._watch.forget()
        session.notices.append(("good", f"{name}: {say(DONE[step])}"))
        if key is not None and one(form, "generate") == "yes":
            session.shown_once = (name, key)
            return redirect("/done", name=name)
        return redirect("/tunnel" if step in ("finish", "cancel") else "/tunnel/key", name=name)

    def _key(self, form: dict[str, list[str]], findings: Findings, _: Any) -> Secret | None:
        typed = one(form, "key")
        if one(form, "generate") == "yes":
            return Secret(new_key().encode())
        if not typed:
            text = _("A key is needed: type it twice, or let one be made.")
        elif typed != one(form, "key_again"):
            text = _("The two keys differ.")
        elif len(typed) > MAX_KEY:
            text = _("The key is too long.")
        else:
            return Secret(typed.encode())
        findings.add("next_pre_shared_key", "E-PSK", text)
        return None


def _moment(form: dict[str, list[str]], findings: Findings, _: Any) -> datetime | None:
    """When the current key ends, in UTC; None: when that is asked for."""
    text = one(form, "retire_after").strip()
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        findings.add("retire_after", "E-VALUE", _("This is no day and time."))
        return None
