"""A configuration that waits to be confirmed, or was rolled back: said on every page, and decided there."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vpnd.console.requests import Pages, one, own_path, redirect, refusal_text
from vpnd.console.standing import stands
from vpnd.console.watch import Watch
from vpnd.console.words import translator
from vpnd.sdk import AsyncClient, Refused


class ConfigurationPages:
    """The part of every page that says how the configuration stands, and what its buttons do."""

    def __init__(self, vpnd: AsyncClient, pages: Pages, watch: Watch) -> None:
        self._vpnd = vpnd
        self._pages = pages
        self._watch = watch

    def routes(self) -> list[Route]:
        """Everybody sees it; who may change something decides."""
        see, change = self._pages.signed_in, self._pages.admin
        return [
            Route("/configuration", see(self.show)),
            Route("/configuration", change(self.decide), methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """The part as it is now. Where it says what the page has, only the seconds are put in their place.

        So nobody's button goes away beneath the hand.
        """
        gateway = (await self._watch.look()).status.gateway
        same = request.query_params.get("seen") == stands(gateway)
        answer = self._pages.render(
            request,
            "configuration.html",
            gateway_now=gateway,
            only_seconds=same,
            back=own_path(request.query_params.get("page", "")),
        )
        if same:
            answer.headers["HX-Reswap"] = "none"
        return answer

    async def decide(self, request: Request) -> Response:
        """Confirm what waits, or let the confirmed one come back, which is asked first."""
        form, _ = request.state.form, translator(self._pages.language(request))
        action, back = one(form, "action"), own_path(one(form, "back"))
        notices = request.state.session.notices
        if action == "roll-back" and one(form, "confirmed") != "yes":
            return self._pages.render(request, "roll_back.html", back=back)
        try:
            if action == "confirm":
                await self._vpnd.confirm()
                notices.append(("good", _("The configuration is confirmed.")))
            elif action == "roll-back":
                await self._vpnd.rollback()
                notices.append(("good", _("The confirmed configuration is in force again.")))
            else:
                raise HTTPException(400, "there is no such action")
        except Refused as refusal:
            notices.append(("bad", refusal_text(refusal)))
        self._watch.forget()
        return redirect(back)
