"""Every row of the specification's tables can be set, and every limit refuses at its field."""

from __future__ import annotations

import re

from tests.unit.console import checklist
from tests.unit.console.checklist import BASE, KEY, LIMITS, ROWS, SHOWN, STEP, SWEEPS, WORDS, form_of, sweep
from tests.unit.console.conftest import Browser
from tests.unit.console.test_editing import begin, go, said
from vpnd.console import drafts
from vpnd.console.fields import FIELDS, STEPS, Kind


def test_the_checklist_is_complete() -> None:
    """Every choice is in a sweep, every field has a value there that is no default, every number a limit."""
    sweeps = [sweep(number) for number in range(SWEEPS)]
    for key, words in WORDS.items():
        assert set(words) <= set(FIELDS[key].choices), key
    for key, one in FIELDS.items():
        values = [values[key] for values in sweeps if key in values]
        chosen = {word for value in values for word in (value if isinstance(value, list) else [value])}
        assert set(one.choices) <= chosen, key
        usual = checklist.kept(drafts.defaults("default"), key)
        assert any(value != usual for value in values), f"{key} is never another than {usual}"
    assert {key for keys in ROWS.values() for key in keys} <= {key for values in sweeps for key in values}
    numbers = {key for key, one in FIELDS.items() if one.kind is Kind.NUMBER}
    assert numbers <= {limit.field for limit in LIMITS if limit.code == "E-RANGE"}


async def test_every_row_has_its_field_or_is_shown(browser: Browser) -> None:
    draft = await begin(browser)
    pages = {}
    for step in STEPS:
        pages[step.name] = (await browser.get(f"{draft}&step={step.name}")).text
        await go(browser, draft, step.name, form_of(step, BASE))
    everything = "".join(pages.values())
    routed = await begin(browser)
    everything += (await browser.get(f"{routed}&step=communication")).text
    for row, keys in ROWS.items():
        for key in keys:
            assert f'name="{key}"' in everything, row
    for row, step_name in SHOWN.items():
        assert row in pages[step_name], row


async def test_every_parameter_is_sent_as_it_was_set(browser: Browser) -> None:
    for number in range(SWEEPS):
        values, draft = sweep(number), await begin(browser)
        for step in STEPS:
            answer = await go(browser, draft, step.name, form_of(step, values))
            assert answer.status == 303, (number, step.name, re.findall(r'class="bad".*', answer.text))
        answer = await browser.post(draft.replace("/draft", "/draft/finish"))
        assert answer.status == 303, answer.text
        table = dict(browser.operations.received[values["name"]])
        assert table.pop("pre_shared_key") == f"plain:{KEY}"
        for key, value in values.items():
            if key in FIELDS:
                sent = drafts.value(table, key)
                assert checklist.kept({**table, **_nested(key, sent)}, key) == value, (number, key)
        gateway = {"address": values["customer_gateway.address"]}
        named = values["customer_gateway.name"]
        assert table["customer_gateway"] == (named or gateway)
        assert not named or browser.operations.customer_gateway(named).address == gateway["address"]


def _nested(key: str, value: object) -> dict[str, object]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


async def test_every_limit_refuses_at_its_field_and_loses_nothing(browser: Browser) -> None:
    draft = await begin(browser)
    for step in STEPS:
        assert (await go(browser, draft, step.name, form_of(step, BASE))).status == 303, step.name
    for limit in LIMITS:
        # A key that was set is kept; a new tunnel has none.
        other = await begin(browser) if limit.field == "pre_shared_key" else draft
        answer = await go(browser, other, limit.step, form_of(STEP[limit.step], {**BASE, **limit.values}))
        assert answer.status == 422, (str(limit), answer.header("location"))
        found = re.findall(r'class="bad"><code>([^<]*)</code>(.*?)</p>', said(answer, limit.field))
        assert any(code == limit.code and limit.words in unescaped(text) for code, text in found), (
            limit,
            found,
            answer.text,
        )
        assert KEY not in answer.text
        for name, given in limit.values.items():
            if isinstance(given, str) and given and not name.startswith("key"):
                assert given in unescaped(answer.text), "what was typed is there still"
        good = await go(browser, draft, limit.step, form_of(STEP[limit.step], BASE))
        assert good.status == 303, (limit, good.text)
    assert browser.operations.received == {}


def unescaped(text: str) -> str:
    return text.replace("&#34;", '"').replace("&#39;", "'")
