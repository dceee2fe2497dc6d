"""Every parameter is set in Chromium and read back from a real daemon; every limit refuses at its field."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.browser.conftest import Look, Served, Visit, visit_of
from tests.browser.form import NEXT, begin, create, go_through, set_step
from tests.browser.test_real import console, ours, wire
from tests.lab.vpnd import Vpnd
from tests.unit.console import checklist
from tests.unit.console.checklist import BASE, KEY, LIMITS, STEP, SWEEPS, sweep
from vpnd.console.fields import FIELDS
from vpnd.model.secret import Secret

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["console", "ours", "wire"]


@pytest.mark.root
@pytest.mark.slow
def test_every_parameter_is_read_back_from_the_daemon(chromium: Browser, console: Served, ours: Vpnd) -> None:
    context, visit = visit_of(chromium, console, Look(1280, "light", "en"))
    page = visit.page
    visit.sign_in()
    for number in range(SWEEPS):
        values = sweep(number)
        page.goto(console.url)
        begin(page)
        go_through(page, values)
        if number in (0, 1):
            visit.picture(f"every-{number}")
        create(page)
        tunnel = ours.get(f"/v1/tunnels/{quote(values['name'])}")
        for key, value in values.items():
            if key in FIELDS or key.startswith("spd.") or key == "customer_gateway.address":
                assert checklist.kept(tunnel["configuration"], key) == value, (number, key)
        assert tunnel["psk_fingerprint"] == Secret(KEY.encode()).fingerprint()
        visit.check()
    page.goto(console.url)
    assert page.locator("#rows tr").count() == SWEEPS
    context.close()


@pytest.mark.parametrize("step", STEP)
def test_every_limit_refuses_at_its_field(visit: Visit, step: str) -> None:
    """While it is typed, where the daemon can say it, and when one goes on."""
    page = visit.page
    visit.sign_in()
    begin(page)
    go_through(page, BASE)
    page.goto(page.url.replace("step=summary", f"step={step}"))
    limits = [one for one in LIMITS if one.step == step]
    for limit in sorted(limits, key=lambda one: one.field == "pre_shared_key"):
        if limit.field == "pre_shared_key":
            page.goto(visit.served.url)
            begin(page)
        set_step(page, step, {**BASE, **limit.values})
        page.click(NEXT)
        said = page.locator(f"[id='said-{limit.field}'] .bad", has_text=limit.code).filter(
            has_text=limit.words
        )
        said.first.wait_for()
        if limit is limits[-1]:
            visit.picture(f"limit-{step}")
        assert f"step={step}" in page.url
        assert page.locator("[aria-invalid=true]").count(), limit
        shown = page.locator(f"[id='field-{limit.field}']")
        assert shown.is_visible(), limit
        for key, value in limit.values.items():
            if isinstance(value, str) and not key.startswith("key"):
                assert page.input_value(f"[name='{key}']") == value, "what was typed is there still"
    visit.check()
