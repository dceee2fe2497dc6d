"""Making, changing, copying and deleting a tunnel, step by step."""

from __future__ import annotations

import asyncio
import re
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vpnd.config.secrets import new_key
from vpnd.config.values import MAX_TUNNEL_NAME, check_name
from vpnd.console import drafts
from vpnd.console.drafts import Draft, step_of
from vpnd.console.fields import BY_NAME, STEPS, Step
from vpnd.console.other_side import other_side
from vpnd.console.requests import Pages, one, redirect
from vpnd.console.suggestions import proposed
from vpnd.console.watch import Watch
from vpnd.console.words import translator
from vpnd.model.secret import Secret
from vpnd.sdk import AsyncClient, Refused
from vpnd.sdk.models import Problem, TunnelCheck

SUMMARY = "summary"
NEW = "+"
"""In place of a customer gateway's name: a new one, by its address."""

GATEWAY_NAME = "customer_gateway.name"
"""The field in which a new one may get a name."""

_OVERLAP = re.compile(r"(?:request: )?(\S+ - \S+) overlaps (\S+ - \S+) of ")

MAX_KEY = 256
"""Ours: characters of a key that is typed."""


@dataclass(slots=True)
class Findings:
    """What is wrong with a draft, by field; the empty name is the tunnel as a whole."""

    by_field: dict[str, list[Problem]] = field(default_factory=dict)
    check: TunnelCheck | None = None

    def add(self, at: str, code: str, message: str, hint: str | None = None) -> None:
        """A finding of the console's own."""
        problem = Problem(file="", line=None, code=code, severity="error", message=message, hint=hint, key=at)
        self.by_field.setdefault(at, []).append(problem)

    def overlapping(self) -> set[str]:
        """The mappings that share packets with another, as `LOCAL - REMOTE`."""
        problems = (problem for found in self.by_field.values() for problem in found)
        pairs = (_OVERLAP.match(problem.message) for problem in problems if problem.code == "E-OVERLAP")
        return {mapping for pair in pairs if pair is not None for mapping in pair.groups()}

    def errors_of(self, step: str) -> bool:
        """Whether something on this page has to be changed."""
        return any(
            problem.severity == "error" and step_of(at or None) == step
            for at, problems in self.by_field.items()
            for problem in problems
            if at or step == "basic"
        )


class Editing:
    """The pages with forms. A draft is kept on the server, with its key, and ends with the session."""

    def __init__(self, vpnd: AsyncClient, pages: Pages, watch: Watch) -> None:
        self._vpnd = vpnd
        self._pages = pages
        self._watch = watch

    def routes(self) -> list[Route]:
        """Every page; all of them are for those who may change something."""
        change = self._pages.admin
        return [
            Route("/new", change(self.new), methods=["POST"]),
            Route("/draft", change(self.show), methods=["GET"]),
            Route("/draft", change(self.save), methods=["POST"]),
            Route("/draft/check", change(self.check), methods=["POST"]),
            Route("/draft/finish", change(self.finish), methods=["POST"]),
            Route("/done", change(self.done), methods=["GET"]),
            Route("/tunnel/delete", change(self.delete), methods=["POST"]),
        ]

    # ----------------------------------------------------------------------------------- drafts

    async def new(self, request: Request) -> Response:
        """Begin: empty, or from a tunnel, to change it (`edit`) or to make another like it (`clone`)."""
        form = request.state.form
        name, clone = one(form, "name"), one(form, "how") == "clone"
        draft = Draft()
        if name:
            tunnel = await self._vpnd.tunnel(name)
            if not clone and not tunnel.from_api:
                raise HTTPException(
                    409, f"{name} is defined in {tunnel.source}: change that file, then reload"
                )
            draft = drafts.of_tunnel(tunnel, await self._named(), clone)
        kept = request.state.session.drafts
        kept[draft.identifier] = draft
        while len(kept) > drafts.MAX_DRAFTS:
            del kept[next(iter(kept))]
        return await self._begin(request, draft)

    async def _begin(self, request: Request, draft: Draft) -> Response:
        """The first step, or the one with the field in which a proposed change is made."""
        form, _ = request.state.form, translator(self._pages.language(request))
        wanted = one(form, "field")
        if one(form, "propose") == "yes":
            explanation = (await self._vpnd.why(draft.name)).explanation
            found = proposed(explanation) if explanation is not None else None
            if found is not None:
                drafts.put(draft.table, *found)
                text = _("Filled in as proposed: look at it, then go to the summary and save.")
                request.state.session.notices.append(("good", text))
        step = drafts.step_of(wanted)
        if step == "communication" and one(form, "rule") == "yes":
            draft.table.setdefault("spd", []).append({"local": [], "remote": []})
            wanted = f"spd.{len(draft.table['spd']) - 1}.local"
        return redirect("/draft", f"field-{wanted}" if wanted else "", id=draft.identifier, step=step)

    def _draft(self, request: Request) -> Draft:
        draft = request.state.session.drafts.get(request.query_params.get("id", ""))
        if not isinstance(draft, Draft):
            raise HTTPException(404, "this form has ended: begin again")
        return draft

    async def _named(self) -> dict[str, str]:
        listed = await self._vpnd.customer_gateways()
        return {gateway.name: gateway.address for gateway in listed.customer_gateways}

    # ------------------------------------------------------------------------------------ steps

    async def show(self, request: Request) -> Response:
        draft, step = self._draft(request), request.query_params.get("step", "basic")
        if step == SUMMARY:
            return await self._summary(request, draft)
        findings = await self._findings(request, draft) if draft.name else Findings()
        if not draft.whole().get("spd"):
            # They are asked for on this page: that there are none yet is no news.
            findings.by_field.pop(drafts.NO_RULES, None)
        return await self._step(request, draft, _step(step), findings)

    async def save(self, request: Request) -> Response:
        """Keep a step; go on if nothing on it has to be changed."""
        draft, form = self._draft(request), request.state.form
        step = _step(request.query_params.get("step", "basic"))
        findings = Findings()
        self._take(request, draft, step, findings)
        if one(form, "go") == "rule":
            draft.table.setdefault("spd", []).append({"local": [], "remote": []})
            return redirect("/draft", id=draft.identifier, step=step.name)
        if step.name == "basic":
            await self._are_free(request, draft, findings)
        if not findings.errors_of(step.name):
            findings = await self._findings(request, draft)
        names, wanted = [*BY_NAME, SUMMARY], one(form, "go")
        place = names.index(step.name)
        if wanted not in names:
            wanted = names[max(0, place - 1) if wanted == "back" else place + 1]
        if findings.errors_of(step.name) and names.index(wanted) > place:
            return await self._step(request, draft, step, findings, 422)
        return redirect("/draft", id=draft.identifier, step=wanted)

    async def check(self, request: Request) -> Response:
        """What the daemon says of a form that is being filled in; nothing is kept."""
        kept, step = self._draft(request), _step(request.query_params.get("step", "basic"))
        draft = replace(kept, table=deepcopy(kept.table))
        findings = Findings()
        self._take(request, draft, step, findings, typing=True)
        if not findings.errors_of(step.name):
            findings = await self._findings(request, draft)
        return await self._step(request, draft, step, findings, template="findings.html")

    def _take(
        self, request: Request, draft: Draft, step: Step, findings: Findings, typing: bool = False
    ) -> None:
        form, _ = request.state.form, translator(self._pages.language(request))
        drafts.take(draft.table, step, form, typing)
        if step.name != "basic":
            return
        if not draft.editing:
            draft.name = one(form, "name").strip()
            wrong = check_name(draft.name)
            if wrong is not None:
                findings.add("name", "E-NAME", wrong)
        chosen = one(form, "customer_gateway")
        address = one(form, "customer_gateway.address").strip()
        draft.table["customer_gateway"] = {"address": address} if chosen in (NEW, "") else chosen
        draft.gateway = one(form, "customer_gateway.name").strip() if chosen in (NEW, "") else ""
        wrong = check_name(draft.gateway) if draft.gateway else None
        if wrong is not None:
            findings.add(GATEWAY_NAME, "E-NAME", wrong)
        if not typing:
            self._take_key(draft, form, findings, _)

    def _take_key(self, draft: Draft, form: dict[str, list[str]], findings: Findings, _: Any) -> None:
        typed, again = one(form, "key"), one(form, "key_again")
        if one(form, "generate") == "yes":
            draft.key, draft.generated = Secret(new_key().encode()), True
        elif typed or again:
            if typed != again:
                findings.add("pre_shared_key", "E-PSK", _("The two keys differ."))
            elif len(typed) > MAX_KEY:
                findings.add("pre_shared_key", "E-PSK", _("The key is too long."))
            else:
                draft.key, draft.generated = Secret(typed.encode()), False
        elif draft.generated:
            draft.key, draft.generated = None, False
            self._take_key(draft, form, findings, _)
        elif draft.key is None and not draft.editing:
            findings.add("pre_shared_key", "E-PSK", _("A key is needed: type it twice, or let one be made."))

    async def _are_free(self, request: Request, draft: Draft, findings: Findings) -> None:
        """A new tunnel or customer gateway takes no name that there is: it would change that one."""
        _ = translator(self._pages.language(request))
        self._watch.forget()
        tunnels = [tunnel.name for tunnel in (await self._watch.look()).status.tunnels]
        if not draft.editing and draft.name in tunnels:
            findings.add("name", "E-DUPLICATE", _("There is a tunnel of this name."))
        if draft.gateway and draft.gateway in await self._named():
            wrong = _("There is a customer gateway of this name: choose it above.")
            findings.add(GATEWAY_NAME, "E-DUPLICATE", wrong)

    async def _findings(self, request: Request, draft: Draft) -> Findings:
        """What `vpnd check` says, by field."""
        findings = Findings()
        if check_name(draft.name) is not None:
            return findings
        for at, count in drafts.too_many(draft.table):
            text = f"an end of a rule has {count} ranges; a gateway has at most {drafts.MAX_RANGES} mappings"
            findings.add(at, "E-LIMIT", text)
        if findings.by_field:
            return findings
        try:
            findings.check = await self._vpnd.check_tunnel(draft.name, draft.whole())
        except Refused as refusal:
            findings.add("", refusal.code, refusal.message, refusal.hint)
            return findings
        for problem in findings.check.problems:
            findings.by_field.setdefault(draft.place(problem) or "", []).append(problem)
        return findings

    async def _step(
        self,
        request: Request,
        draft: Draft,
        step: Step,
        findings: Findings,
        status: int = 200,
        template: str = "step.html",
    ) -> Response:
        seen, named = await asyncio.gather(self._watch.look(), self._named())
        rules = draft.table.get("spd", []) or [{"local": [], "remote": []}]
        chosen = draft.table.get("customer_gateway", next(iter(named), NEW))
        return self._pages.render(
            request,
            template,
            status,
            page="tunnels",
            draft=draft,
            step=step,
            steps=STEPS,
            gateway=seen.status.gateway,
            named=named,
            chosen=chosen if isinstance(chosen, str) else NEW,
            address=chosen.get("address", "") if isinstance(chosen, dict) else "",
            rules=rules,
            findings=findings,
            overlapping=findings.overlapping(),
            spd=drafts.value(draft.table, "communication") == "spd-policy",
            value=lambda key: drafts.value(draft.table, key),
            text_of=drafts.text_of,
            words_of=drafts.words_of,
            max_name=MAX_TUNNEL_NAME,
            max_key=MAX_KEY,
        )

    # ---------------------------------------------------------------------------------- the end

    async def _summary(
        self, request: Request, draft: Draft, refusal: Refused | None = None, status: int = 200
    ) -> Response:
        findings = await self._findings(request, draft)
        problems = [problem for found in findings.by_field.values() for problem in found]
        return self._pages.render(
            request,
            "summary.html",
            status,
            page="tunnels",
            draft=draft,
            steps=STEPS,
            problems=problems,
            refusal=refusal,
            check=findings.check,
            ready=bool(draft.name) and (draft.editing or draft.key is not None),
            value=lambda key: drafts.value(draft.table, key),
            before=lambda key: drafts.value(draft.before, key) if draft.editing else None,
            rules=draft.table.get("spd", []),
            shown=lambda one: drafts.is_shown(one, draft.table),
            text_of=drafts.text_of,
            peer=draft.table.get("customer_gateway", ""),
        )

    async def finish(self, request: Request) -> Response:
        """Make or change it; where the daemon refuses, nothing is lost."""
        draft, _ = self._draft(request), translator(self._pages.language(request))
        session = request.state.session
        findings = Findings()
        await self._are_free(request, draft, findings)
        unfinished = check_name(draft.name) is not None or (draft.key is None and not draft.editing)
        if unfinished or findings.by_field or drafts.too_many(draft.table):
            step = "communication" if drafts.too_many(draft.table) else "basic"
            return redirect("/draft", id=draft.identifier, step=step)
        try:
            if draft.gateway:
                await self._vpnd.put_customer_gateway(draft.gateway, draft.table["customer_gateway"])
                draft.table["customer_gateway"], draft.gateway = draft.gateway, ""
            done = await self._vpnd.put_tunnel(draft.name, draft.whole())
        except Refused as refusal:
            return await self._summary(request, draft, refusal, 422)
        del session.drafts[draft.identifier]
        self._watch.forget()
        session.notices.append(("good", f"{draft.name}: {_(done.change)}"))
        if draft.generated and draft.key is not None:
            session.shown_once = (draft.name, draft.key)
            return redirect("/done", name=draft.name)
        return redirect("/tunnel", name=draft.name)

    async def done(self, request: Request) -> Response:
        """The key that was made, once; a second visit shows the tunnel."""
        session, name = request.state.session, request.query_params.get("name", "")
        shown, session.shown_once = session.shown_once, None
        if shown is None or shown[0] != name:
            return redirect("/tunnel", name=name)
        values = {"name": name, "key": shown[1].reveal().decode(), **await other_side(self._vpnd, name)}
        return self._pages.render(request, "done.html", page="tunnels", **values)

    async def delete(self, request: Request) -> Response:
        """Close and forget a tunnel, once its name was typed."""
        form, _ = request.state.form, translator(self._pages.language(request))
        name = one(form, "name")
        if one(form, "typed") != name:
            wrong = _("This is not the tunnel's name.") if "typed" in form else None
            return self._pages.render(request, "delete.html", page="tunnels", name=name, wrong=wrong)
        await self._vpnd.delete_tunnel(name)
        self._watch.forget()
        request.state.session.notices.append(("good", f"{name}: {_('removed')}"))
        return redirect("/", **request.state.session.list_query)


def _step(name: str) -> Step:
    if name not in BY_NAME:
        raise HTTPException(404, "there is no such step")
    return BY_NAME[name]
