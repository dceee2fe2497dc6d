"""The page of the gateways: labels of this one, and the customer gateways that are made, changed, deleted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.console.conftest import Answer, Browser
from vpnd.config.configuration import Findings, Source
from vpnd.config.load import check
from vpnd.console.tokens import Role
from vpnd.control.operations import Conflict, InvalidConfiguration
from vpnd.control.schema import CustomerGatewayChange, CustomerGatewayStatus, ProblemBody


def errors(answer: Answer, key: str) -> list[str]:
    """The codes that stand at a field."""
    said = re.search(rf'id="said-{re.escape(key)}".*?</div>', answer.text, re.DOTALL)
    assert said is not None, key
    return re.findall(r'class="bad"><code>([^<]*)</code>', said[0])


async def test_the_labels_are_shown_and_set(browser: Browser) -> None:
    page = await browser.get("/gateways")
    assert 'value="eu-1"' in page.text
    done = await browser.post("/gateways", {"region": " eu-2 ", "type": "vpc", "vpc": "vpc-1"})
    assert "VPN gateway: changed" in (await browser.follow(done)).text
    assert browser.operations.labels == {"region": "eu-2", "type": "vpc", "vpc": "vpc-1"}
    assert "eu-2" in (await browser.get("/")).text
    # A VPC is asked for where the type is one alone.
    await browser.post("/gateways", {"region": "", "type": "ccn", "vpc": "vpc-1"})
    assert browser.operations.labels == {"type": "ccn"}
    # A type that there is not, at its field; what was typed is there still.
    wrong = await browser.post("/gateways", {"region": "typed", "type": "idc"})
    assert (wrong.status, errors(wrong, "type")) == (422, ["E-VALUE"])
    assert 'value="typed"' in wrong.text
    assert browser.operations.labels == {"type": "ccn"}


async def test_labels_of_a_file_are_changed_there(browser: Browser) -> None:
    browser.operations.labels_from_api = False
    page = await browser.get("/gateways")
    assert "set in vpnd.toml:1" in page.text
    assert 'action="/gateways"' not in page.text
    refused = await browser.post("/gateways", {"region": "eu-2"})
    assert refused.status == 422
    assert browser.operations.labels == {"region": "eu-1"}


async def test_who_may_only_look_sees_them(stranger: Browser) -> None:
    await stranger.sign_in(Role.READ)
    page = (await stranger.get("/gateways")).text
    assert "eu-1" in page
    assert "198.51.100.1" in page
    assert "Create a customer gateway" not in page


async def test_one_is_made_changed_and_deleted(browser: Browser) -> None:
    assert (await browser.get("/customer-gateway")).status == 200
    made = await browser.post("/customer-gateway", {"name": " site ", "address": " 203.0.113.9 "})
    assert "site: created" in (await browser.follow(made)).text
    assert browser.operations.gateways == {"site": "203.0.113.9"}
    assert 'value="203.0.113.9"' in (await browser.get("/customer-gateway?name=site")).text
    changed = await browser.post(
        "/customer-gateway", {"known": "yes", "name": "site", "address": "203.0.113.10"}
    )
    assert "site: changed" in (await browser.follow(changed)).text
    assert browser.operations.gateways == {"site": "203.0.113.10"}
    asked = await browser.post("/customer-gateway/delete", {"name": "site"})
    assert (asked.status, browser.operations.gateways) == (200, {"site": "203.0.113.10"})
    gone = await browser.post("/customer-gateway/delete", {"name": "site", "confirmed": "yes"})
    assert "site: removed" in (await browser.follow(gone)).text
    assert browser.operations.gateways == {}


@pytest.mark.parametrize(
    ("form", "field", "code"),
    [
        ({"name": "", "address": "192.0.2.9"}, "name", "E-NAME"),
        ({"name": "x" * 61, "address": "192.0.2.9"}, "name", "E-NAME"),
        ({"name": "a/b", "address": "192.0.2.9"}, "name", "E-NAME"),
        ({"name": "branch", "address": "192.0.2.9"}, "name", "E-DUPLICATE"),
        ({"name": "site", "address": "not an address"}, "address", "E-ADDRESS"),
        ({"name": "a site", "address": ""}, "address", "E-ADDRESS"),
    ],
)
async def test_what_is_wrong_is_said_at_its_field(
    browser: Browser, form: dict[str, str], field: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put(name: str, table: Mapping[str, Any]) -> CustomerGatewayChange:
        tables = {"gateway": {"name": "hq", "address": "192.0.2.1"}, "customer_gateways": {name: dict(table)}}
        found = check([Source("request", tables, main=True, private=True)], Findings())
        problems = [
            ProblemBody(
                file="request", line=None, code=one.code, severity="error", message=one.message, key=one.key
            )
            for one in found.errors
        ]
        assert problems
        raise InvalidConfiguration(problems[0].code, problems[0].message, None, problems)

    monkeypatch.setattr(browser.operations, "put_customer_gateway", put)
    wrong = await browser.post("/customer-gateway", form)
    assert (wrong.status, errors(wrong, field)) == (422, [code])
    assert f'value="{form["address"]}"' in wrong.text
    assert f'value="{form["name"]}"' in wrong.text


async def test_one_that_tunnels_use_stays_and_they_are_named(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = CustomerGatewayStatus(name="site", address="203.0.113.9", tunnels=["t-1", "t&2"], from_api=True)
    monkeypatch.setattr(browser.operations, "customer_gateways", lambda: [used])
    listed = (await browser.get("/gateways")).text
    assert '<a href="/tunnel?name=t%262">t&amp;2</a>' in listed
    assert "negotiated again" in (await browser.get("/customer-gateway?name=site")).text
    page = await browser.post("/customer-gateway/delete", {"name": "site"})
    assert "It cannot be deleted" in page.text
    assert '<a href="/tunnel?name=t-1">t-1</a>' in page.text
    assert 'name="confirmed"' not in page.text

    async def delete(name: str) -> CustomerGatewayChange:
        raise Conflict("E-IN-USE", "site is the customer gateway of t-1, t&2", "delete these tunnels first")

    monkeypatch.setattr(browser.operations, "delete_customer_gateway", delete)
    refused = await browser.post("/customer-gateway/delete", {"name": "site", "confirmed": "yes"})
    assert refused.status == 409
    assert "<code>E-IN-USE</code> site is the customer gateway of t-1, t&amp;2" in refused.text


async def test_those_of_a_file_are_read_only(browser: Browser) -> None:
    for answer in (
        await browser.get("/customer-gateway?name=branch"),
        await browser.post("/customer-gateway", {"known": "yes", "name": "branch", "address": "192.0.2.9"}),
        await browser.post("/customer-gateway/delete", {"name": "branch", "confirmed": "yes"}),
    ):
        assert answer.status == 409
        assert "branch is defined in vpnd.toml" in answer.text
    assert browser.operations.gateways == {}
