"""How a person fills in the steps: each value in its field, then the button."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tests.unit.console.checklist import STEP, kind_of, of_step
from vpnd.console.drafts import text_of
from vpnd.console.fields import STEPS, Kind

if TYPE_CHECKING:
    from playwright.sync_api import Page

NEXT = "p button.main"


def set_value(page: Page, key: str, value: Any) -> None:
    """One field: text, a choice, a list of the boxes that are checked, True or False."""
    kind = kind_of(key)
    if kind is Kind.SEVERAL:
        boxes = page.locator(f"[name='{key}']")
        for place in range(boxes.count()):
            box = boxes.nth(place)
            box.set_checked(box.get_attribute("value") in value)
    elif kind is Kind.YES:
        page.set_checked(f"[name='{key}']", value)
    elif kind is Kind.CHOICE:
        page.select_option(f"[name='{key}']", value)
    else:
        page.fill(f"[name='{key}']", value)


def set_step(page: Page, step: str, values: Mapping[str, Any]) -> None:
    """Those of a step's fields that have a value."""
    page.wait_for_url(f"**step={step}*")
    for key, value in of_step(STEP[step], values):
        set_value(page, key, value)
    for one in STEP[step].fields:
        if one.when is not None and one.when[0] in values and text_of(values[one.when[0]]) != one.when[1]:
            assert page.is_hidden(f"[name='{one.key}']"), f"{one.key} means nothing as the others are"


def begin(page: Page) -> None:
    """From the list to the first step."""
    page.click("main form button.main")
    page.wait_for_url("**step=basic*")


def go_through(page: Page, values: Mapping[str, Any], steps: Iterable[str] = tuple(STEP)) -> None:
    """Fill in these steps, the page on the first of them; the page is on the one after the last then."""
    names = [step.name for step in STEPS] + ["summary"]
    for step in steps:
        set_step(page, step, values)
        page.click(NEXT)
        page.wait_for_url(f"**step={names[names.index(step) + 1]}*")


def create(page: Page) -> None:
    """From the summary to the tunnel's page."""
    page.click("form[action*=finish] button.main")
    page.wait_for_selector("#live")
