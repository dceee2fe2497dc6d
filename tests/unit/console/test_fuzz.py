"""Forms with anything in them: an answer at the field, nothing lost, no key shown, never a fault of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.console.conftest import Answer, Browser, browser_of
from tests.unit.console.test_editing import WAY, begin, said
from vpnd.console.drafts import MAX_RANGES
from vpnd.console.fields import FIELDS, STEPS, Kind

KEY = "a-key-that-nobody-may-see-again"
EXAMPLES = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Here:
    """A browser that is signed in, and the loop that it lives in: one for all examples, as a console has."""

    def __init__(self, directory: Path) -> None:
        self.runner = asyncio.Runner()
        self.browser = browser_of(directory)
        self.run(self.browser.sign_in())

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(what)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    found = Here(tmp_path_factory.mktemp("console"))
    yield found
    found.runner.close()


class Form(HTMLParser):
    """What stands in the fields of a page, by name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._area: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        name = found.get("name") or ""
        if tag == "input" and found.get("type") in ("text", "password"):
            self.fields[name] = found.get("value") or ""
        if tag == "textarea":
            self._area, self.fields[name] = name, ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            # The line end after the tag belongs to none (HTML section 13.2.6.4.7).
            self.fields[self._area or ""] = self.fields[self._area or ""].removeprefix("\n")
            self._area = None

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            self.fields[self._area] += data


# A carriage return and NUL cannot be in a page (HTML section 13.2.3), nor come from a field of one.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=80) | st.sampled_from(
    [
        *("", " ", "0", "-1", "9" * 17, "9" * 40, "1e9", "٣", "0x10", "any", "::1", "10.0.0.0/24", "a b"),
        *("<script>alert(1)</script>", '"><b>', "{{ 7 * 7 }}", "\x1b[2J", "\u202e", "x" * 30_000, "\ud7ff"),
        *("10.0.0.0/24\n10.0.1.0/24", "\n" * 500, "yes", "disable", "2", "des", "ikev1", "+"),
    ]
)
NAMES = (
    st.sampled_from(
        [
            *FIELDS,
            *("name", "customer_gateway", "customer_gateway.address", "key", "key_again", "generate", "go"),
        ]
        + [f"spd.{number}.{end}" for number in (0, 1, 3, 199, 200) for end in ("local", "remote", "protocol")]
    )
    | TEXTS
)
FORMS = st.dictionaries(NAMES, st.lists(TEXTS, min_size=1, max_size=3), max_size=12)
STEP = st.sampled_from(WAY)


@EXAMPLES
@given(
    step=STEP, changes=FORMS, left_out=st.booleans(), go=st.sampled_from(["next", "back", "rule", "ike", "x"])
)
def test_any_form(here: Here, step: Any, changes: dict[str, list[str]], left_out: bool, go: str) -> None:
    name, usual = step
    form = {"go": [go], **({} if left_out else usual), **changes, "csrf": here.browser.csrf}
    here.run(_any_form(here.browser, name, form))


async def _any_form(browser: Browser, step: str, form: dict[str, Any]) -> None:
    draft = await begin(browser)
    form["csrf"] = browser.csrf
    checked = await browser.post(f"{draft.replace('/draft', '/draft/check')}&step={step}", form)
    assert checked.status in (200, 400)
    kept = await browser.post(f"{draft}&step={step}", form)
    assert kept.status in (303, 400, 422)
    if kept.status == 422:
        assert 'class="bad"' in kept.text, "it says what is wrong"
    for page in (kept, await browser.get(f"{draft}&step={step}"), await browser.get(f"{draft}&step=summary")):
        _nothing_dangerous(page)
    if kept.status != 400:
        page = kept if kept.status == 422 else await browser.get(f"{draft}&step={step}")
        _nothing_lost(page, form, step)
    done = await browser.post(draft.replace("/draft", "/draft/finish"), {"csrf": browser.csrf})
    assert done.status in (303, 422)


def _nothing_dangerous(page: Answer) -> None:
    assert "<script>alert" not in page.text
    assert 'type="password" value' not in page.text


def _first(values: Any) -> str:
    return values[0].strip() if isinstance(values, list) else str(values)


def _nothing_lost(page: Answer, form: dict[str, Any], step: str) -> None:
    shown = Form(page.text).fields
    for one in next(known for known in STEPS if known.name == step).fields:
        typed = form.get(one.key)
        if typed is None or one.key not in shown or one.kind not in (Kind.TEXT, Kind.NUMBER, Kind.LINES):
            continue
        if one.when is not None and _first(form.get(one.when[0])) != one.when[1]:
            continue  # which means nothing, and is not shown
        text = typed[0] if isinstance(typed, list) else typed
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        assert shown[one.key].split() == text.split() or not text.strip() or one.kind is Kind.NUMBER, one.key
        if one.kind is Kind.LINES:
            assert shown[one.key].split("\n") == (lines or [""])
    for key in ("key", "key_again"):
        assert shown.get(key, "") == "", "what was typed as a key is not shown again"


@EXAMPLES
@given(body=st.binary(max_size=300))
def test_any_bytes(here: Here, body: bytes) -> None:
    here.run(_any_bytes(here.browser, body))


async def _any_bytes(browser: Browser, body: bytes) -> None:
    draft = await begin(browser)
    for prefix in (b"", f"csrf={quote_plus(browser.csrf)}&".encode()):
        for target in (
            f"{draft}&step=basic",
            "/new",
            "/tunnel/act",
            "/tunnel/delete",
            "/sign-in",
            "/preferences",
        ):
            answer = await browser.send(target, prefix + body)
            assert answer.status < 500, (target, answer.status)
            assert answer.status not in (200, 303) or prefix or target in ("/sign-in", "/preferences")


def test_a_rule_of_more_ranges_than_there_can_be_is_refused_here(here: Here) -> None:
    """Each local with each peer range is a mapping: the daemon would have to make millions of them."""

    async def refused() -> None:
        draft = await begin(here.browser)
        form = dict(WAY)["basic"]
        assert (await here.browser.post(f"{draft}&step=basic", form)).status == 303
        many = "\n".join(f"10.{n // 256}.{n % 256}.0/24" for n in range(MAX_RANGES + 1))
        for local, remote, at in ((many, many, "local"), ("10.0.0.0/24", many, "remote")):
            here.browser.wire.asked.clear()
            form = {"spd.0.local": local, "spd.0.remote": remote}
            answer = await here.browser.post(f"{draft}&step=communication", form)
            assert (answer.status, "E-LIMIT" in said(answer, f"spd.0.{at}")) == (422, True)
            assert Form(answer.text).fields[f"spd.0.{at}"] == many
            assert not [call for call in here.browser.wire.asked if "check" in call]

    here.run(refused())


def test_a_key_is_never_shown_again(here: Here) -> None:
    async def typed() -> None:
        draft = await begin(here.browser)
        for again, name in ((KEY, "branch-c"), (KEY, "a/b"), ("x", "branch-c")):
            form = {**dict(WAY)["basic"], "name": name, "key": KEY, "key_again": again}
            pages = [
                await here.browser.post(f"{draft}&step=basic", form),
                await here.browser.post(f"{draft.replace('/draft', '/draft/check')}&step=basic", form),
            ]
            pages += [await here.browser.get(f"{draft}&step={step}") for step in ("basic", "summary")]
            assert all(KEY not in page.text for page in pages)

    here.run(typed())
