"""This gateway and the customer gateways: what they are, and forms that change those made here."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vpnd.config.configuration import dotted
from vpnd.config.values import MAX_TUNNEL_NAME, check_name
from vpnd.console.editing import Findings
from vpnd.console.requests import Pages, one, redirect
from vpnd.console.watch import Watch
from vpnd.console.words import translator
from vpnd.sdk import AsyncClient, Refused
from vpnd.sdk.models import CustomerGatewayStatus

TYPES = ("vpc", "ccn")

LABELS = ("type", "vpc", "region")


class Gateways:
    """The pages of both kinds of gateway."""

    def __init__(self, vpnd: AsyncClient, pages: Pages, watch: Watch) -> None:
        self._vpnd = vpnd
        self._pages = pages
        self._watch = watch

    def routes(self) -> list[Route]:
        """Every page; forms are for those who may change something."""
        see, change = self._pages.signed_in, self._pages.admin
        return [
            Route("/gateways", see(self.show)),
            Route("/gateways", change(self.save_labels), methods=["POST"]),
            Route("/customer-gateway", change(self.form), methods=["GET"]),
            Route("/customer-gateway", change(self.save), methods=["POST"]),
            Route("/customer-gateway/delete", change(self.delete), methods=["POST"]),
        ]

    # ------------------------------------------------------------------------------ this gateway

    async def show(self, request: Request) -> Response:
        return await self._show(request, {}, Findings())

    async def _show(
        self, request: Request, typed: dict[str, str], findings: Findings, status: int = 200
    ) -> Response:
        gateway, listed = await asyncio.gather(self._vpnd.gateway(), self._vpnd.customer_gateways())
        labels = {label: getattr(gateway, label) or "" for label in LABELS} | typed
        return self._pages.render(
            request,
            "gateways.html",
            status,
            page="gateways",
            gateway=gateway,
            gateways=listed.customer_gateways,
            labels=labels,
            types=TYPES,
            findings=findings,
        )

    async def save_labels(self, request: Request) -> Response:
        """Set what the form has; a VPC belongs to the type VPC alone."""
        form, _ = request.state.form, translator(self._pages.language(request))
        typed = {label: one(form, label).strip() for label in LABELS}
        if typed["type"] != "vpc":
            typed["vpc"] = ""
        try:
            done = await self._vpnd.put_gateway({label: text or None for label, text in typed.items()})
        except Refused as refusal:
            return await self._show(request, typed, _findings(refusal, "gateway."), 422)
        self._watch.forget()
        request.state.session.notices.append(("good", f"{_('VPN gateway')}: {_(done.change)}"))
        return redirect("/gateways")

    # -------------------------------------------------------------------------- customer gateways

    async def form(self, request: Request) -> Response:
        """An empty form, or that of a customer gateway which was made here."""
        name = request.query_params.get("name", "")
        known = await self._own(name) if name else None
        return self._form(request, known, name, known.address if known else "", Findings())

    def _form(
        self,
        request: Request,
        known: CustomerGatewayStatus | None,
        name: str,
        address: str,
        findings: Findings,
        status: int = 200,
    ) -> Response:
        values: dict[str, Any] = {"known": known, "name": name, "address": address, "findings": findings}
        return self._pages.render(
            request, "customer_gateway.html", status, page="gateways", max_name=MAX_TUNNEL_NAME, **values
        )

    async def save(self, request: Request) -> Response:
        """Make it, or change its address; where the daemon refuses, nothing is lost."""
        form, _ = request.state.form, translator(self._pages.language(request))
        name, address = one(form, "name").strip(), one(form, "address").strip()
        known = await self._own(name) if one(form, "known") == "yes" else None
        findings = Findings()
        if known is None:
            await self._is_free(request, name, findings)
        if not findings.by_field:
            try:
                done = await self._vpnd.put_customer_gateway(name, {"address": address})
            except Refused as refusal:
                findings = _findings(refusal, dotted(("customer_gateways", name)) + ".")
        if findings.by_field:
            return self._form(request, known, name, address, findings, 422)
        self._watch.forget()
        request.state.session.notices.append(("good", f"{name}: {_(done.change)}"))
        return redirect("/gateways")

    async def _is_free(self, request: Request, name: str, findings: Findings) -> None:
        """A new one takes no name that there is: it would change that one."""
        _ = translator(self._pages.language(request))
        wrong = check_name(name)
        if wrong is not None:
            findings.add("name", "E-NAME", wrong)
        elif any(one.name == name for one in (await self._vpnd.customer_gateways()).customer_gateways):
            findings.add("name", "E-DUPLICATE", _("There is a customer gateway of this name."))

    async def delete(self, request: Request) -> Response:
        """Forget it, once that was confirmed; one that tunnels name stays, and the page names them."""
        form, _ = request.state.form, translator(self._pages.language(request))
        known, refusal = await self._own(one(form, "name")), None
        if one(form, "confirmed") == "yes":
            try:
                await self._vpnd.delete_customer_gateway(known.name)
            except Refused as refused:
                refusal = refused
            else:
                self._watch.forget()
                request.state.session.notices.append(("good", f"{known.name}: {_('removed')}"))
                return redirect("/gateways")
        status = 200 if refusal is None else 409
        values = {"known": known, "refusal": refusal}
        return self._pages.render(request, "delete_gateway.html", status, page="gateways", **values)

    async def _own(self, name: str) -> CustomerGatewayStatus:
        """One that can be changed here. Raises HTTPException."""
        known = await self._vpnd.customer_gateway(name)
        if not known.from_api:
            raise HTTPException(409, f"{name} is defined in {known.source}: change that file, then reload")
        return known


def _findings(refusal: Refused, prefix: str) -> Findings:
    """What the daemon says, by field; what is about none of them stands above the form."""
    found = Findings()
    for problem in refusal.problems:
        key = problem.key or ""
        found.by_field.setdefault(key.removeprefix(prefix) if key.startswith(prefix) else "", []).append(
            problem
        )
    if not found.by_field:
        found.add("", refusal.code, refusal.message, refusal.hint)
    return found
