"""A person's way through the steps, what is refused at its field, and that a key is never shown again."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.unit.console.conftest import Answer, Browser
from tests.unit.control.fakes import AT, CONFIGURATION
from vpnd.console import drafts, suggestions
from vpnd.console.fields import BY_NAME, STEPS
from vpnd.control.diagnoses import explain
from vpnd.control.schema import Fault, TunnelChange, Why
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.sdk.models import Explanation, Problem

ENDS = ("local", "remote")
KEY = "pKz8wTq2mB5vX9cL4nR7jH3gpKz8wTq2"
BASIC: dict[str, Any] = {
    "name": "branch-c",
    "customer_gateway": "+",
    "customer_gateway.address": "203.0.113.9",
    "key": KEY,
    "key_again": KEY,
    "profile": "default",
    "negotiation": "active",
    "communication": "spd-policy",
    "priority": "0",
}
ADVANCED = {"dpd.enabled": "yes", "dpd.timeout": "45", "dpd.action": "disconnect"}
RULES = {"spd.0.local": "10.0.0.0/24", "spd.0.remote": "192.168.0.0/24\r\n 192.168.1.0/24 \r\n"}
IKE: dict[str, Any] = {
    "ike.version": "ikev1",
    "ike.negotiation_mode": "main",
    "ike.encryption": ["aes-256", "aes-128"],
    "ike.integrity": "sha256",
    "ike.dh_group": "14",
    "ike.local_id": "",
    "ike.remote_id": "gw.example",
    "ike.lifetime": "86400",
}
IPSEC = {
    "ipsec.encryption": "aes-128-gcm",
    "ipsec.integrity": "sha256",
    "ipsec.pfs": ["14"],
    "ipsec.lifetime": "1800",
    "ipsec.lifetime_kb": "1843200",
    "ipsec.encapsulation": "udp",
}
WAY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("basic", BASIC),
    ("advanced", ADVANCED),
    ("communication", RULES),
    ("ike", IKE),
    ("ipsec", IPSEC),
)


async def begin(browser: Browser, **form: str) -> str:
    """The address of a new draft, without its step."""
    answer = await browser.post("/new", form)
    assert answer.status == 303, answer.text
    return (answer.header("location") or "").partition("&")[0]


async def go(browser: Browser, draft: str, step: str, form: dict[str, Any], button: str = "next") -> Answer:
    return await browser.post(f"{draft}&step={step}", {**form, "go": button})


async def all_steps(browser: Browser, **changes: str) -> str:
    draft = await begin(browser)
    for step, form in WAY:
        answer = await go(browser, draft, step, {**form, **(changes if step == "basic" else {})})
        assert answer.status == 303, (step, answer.text)
    return draft


def said(answer: Answer, key: str) -> str:
    found = re.search(rf'id="said-{re.escape(key)}".*?>(.*?)</div>', answer.text, re.DOTALL)
    return found[1] if found else ""


async def test_the_whole_way(browser: Browser) -> None:
    draft = await all_steps(browser)
    summary = await browser.get(f"{draft}&step=summary")
    assert "10.0.0.0/24 – 192.168.1.0/24" in summary.text
    assert "<dd>this gateway&#39;s address</dd>" in summary.text, "what an empty value means"
    assert KEY not in summary.text
    answer = await browser.post(draft.replace("/draft", "/draft/finish"))
    assert answer.header("location") == "/tunnel?name=branch-c"
    assert browser.operations.received["branch-c"] == {
        "customer_gateway": {"address": "203.0.113.9"},
        "pre_shared_key": f"plain:{KEY}",
        "communication": "spd-policy",
        "dpd": {"timeout": 45, "action": "disconnect"},
        "spd": [{"local": ["10.0.0.0/24"], "remote": ["192.168.0.0/24", "192.168.1.0/24"]}],
        "ike": {"version": "ikev1", "encryption": ["aes-128", "aes-256"], "remote_id": "gw.example"},
        "ipsec": {"encryption": ["aes-128-gcm"], "pfs": [14], "lifetime": 1800, "encapsulation": "udp"},
    }, "what is a default is not written"
    assert (await browser.get(f"{draft}&step=basic")).status == 404, "the draft has ended"


async def test_every_step_can_be_left_as_it_is_and_every_value_is_asked_for(browser: Browser) -> None:
    draft = await begin(browser)
    form = {**BASIC, "communication": "destination-route"}
    for step in STEPS:
        page = await browser.get(f"{draft}&step={step.name}")
        for one in step.fields:
            assert f'name="{one.key}"' in page.text, one.key
        answer = await go(browser, draft, step.name, form if step.name == "basic" else {"dpd.enabled": "yes"})
        if step.name in ("ike", "ipsec"):
            break
    kept = {"routes": "10.2.0.0/16"}
    assert (await go(browser, draft, "communication", kept)).status == 303
    assert answer.status in (303, 422)


async def test_while_typing(browser: Browser) -> None:
    draft = await all_steps(browser)
    target = draft.replace("/draft", "/draft/check")
    answer = await browser.post(f"{target}&step=ike", {**IKE, "ike.dh_group": "2", "ike.encryption": "des"})
    assert 'class="warn"' in said(answer, "ike.dh_group"), "a weak choice, with its reason"
    assert "RFC" in said(answer, "ike.dh_group")
    assert "W-" in said(answer, "ike.encryption")
    assert "<html" not in answer.text
    assert 'hx-swap-oob="true"' in answer.text
    rules = {**RULES, "spd.1.local": "10.9.0.0/24", "spd.1.remote": "192.168.9.0/24"}
    more = await browser.post(f"{target}&step=communication", rules)
    assert "10.9.0.0/24 – 192.168.9.0/24" in more.text
    assert "3 of 200" in more.text
    page = await browser.get(f"{draft}&step=ike")
    assert 'value="des" checked' not in page.text, "nothing was kept"


async def test_mappings_that_overlap_are_marked(browser: Browser) -> None:
    draft = await begin(browser)
    await go(browser, draft, "basic", BASIC)
    rules = {**RULES, "spd.1.local": "10.0.0.0/25", "spd.1.remote": "192.168.1.128/25"}
    page = await browser.post(f"{draft.replace('/draft', '/draft/check')}&step=communication", rules)
    marked = re.findall(r'<li class="bad"><code>([^<]*)</code> overlaps</li>', page.text)
    assert marked == ["10.0.0.0/24 – 192.168.1.0/24", "10.0.0.0/25 – 192.168.1.128/25"]
    assert page.text.count("<li><code>") == 1
    assert "(this one)" in said(page, "spd.1.remote")


async def test_more_mappings_than_a_gateway_has_are_not_counted_wrong(browser: Browser) -> None:
    """The daemon names one too many at most; how many they would be it says beside."""
    draft = await begin(browser)
    await go(browser, draft, "basic", BASIC)
    rules = {f"spd.0.{end}": "\n".join(f"10.{n}.{m}.0/24" for m in range(15)) for n, end in enumerate(ENDS)}
    page = await browser.post(f"{draft.replace('/draft', '/draft/check')}&step=communication", rules)
    assert "Mappings (&gt; 200; 225 of 200 used" in page.text
    assert "E-LIMIT" in said(page, "spd.0.remote")


async def test_a_further_pair_of_ranges(browser: Browser) -> None:
    draft = await begin(browser)
    await go(browser, draft, "basic", BASIC)
    assert 'class="bad"' not in (await browser.get(f"{draft}&step=communication")).text, (
        "nothing is typed yet"
    )
    none = await go(browser, draft, "communication", {"spd.0.local": "", "spd.0.remote": ""})
    assert (none.status, "E-COMMUNICATION" in said(none, "spd.0.remote")) == (422, True)
    shown = await browser.follow(await go(browser, draft, "communication", RULES, "rule"))
    assert 'name="spd.1.local"' in shown.text
    assert 'class="bad"' not in shown.text, "it may be left empty"
    assert "2 of 200" in shown.text
    assert "192.168.1.0/24" in shown.text
    again = {**RULES, "spd.1.local": "", "spd.1.remote": ""}
    assert (await go(browser, draft, "communication", again)).status == 303
    page = await browser.get(f"{draft}&step=communication")
    assert 'name="spd.1.local"' not in page.text, "an empty rule is left out"


async def test_a_finding_is_at_its_rule_where_one_before_is_empty(browser: Browser) -> None:
    draft = await begin(browser)
    await go(browser, draft, "basic", BASIC)
    form = {
        "spd.0.local": "",
        "spd.0.remote": "",
        "spd.1.local": "10.0.0.0/24",
        "spd.1.remote": "10.0.0.0/33",
    }
    checked = await browser.post(f"{draft.replace('/draft', '/draft/check')}&step=communication", form)
    assert (said(checked, "spd.0.remote"), "E-PREFIX" in said(checked, "spd.1.remote")) == ("", True)
    kept = await go(browser, draft, "communication", form)
    assert "E-PREFIX" in said(kept, "spd.0.remote"), "the empty one is left out of the page that comes back"


@pytest.mark.parametrize("form", [{}, {"name": "a/b"}, {"name": "branch-c", "key": "", "key_again": ""}])
async def test_what_is_not_finished_is_not_sent(browser: Browser, form: dict[str, str]) -> None:
    draft = await begin(browser)
    if form:
        await go(browser, draft, "basic", {**BASIC, **form})
    answer = await browser.post(draft.replace("/draft", "/draft/finish"))
    assert "step=basic" in (answer.header("location") or ""), answer.text
    assert browser.operations.received == {}


async def test_a_key_that_was_made_is_shown_once(browser: Browser) -> None:
    draft = await all_steps(browser, key="", key_again="", generate="yes")
    page = await browser.get(f"{draft}&step=summary")
    answer = await browser.post(draft.replace("/draft", "/draft/finish"))
    sent = str(browser.operations.received["branch-c"]["pre_shared_key"]).removeprefix("plain:")
    assert len(sent) == 43
    assert sent not in page.text
    shown = await browser.follow(answer)
    assert sent in shown.text
    again = await browser.get("/done?name=branch-c")
    assert again.status == 303
    assert sent not in again.text


async def test_a_refusal_at_the_end_loses_nothing(browser: Browser) -> None:
    draft = await all_steps(browser)

    async def refuse(name: str, table: Any) -> TunnelChange:
        return await browser.operations.delete_tunnel("branch-a")

    put = browser.operations.put_tunnel
    browser.operations.put_tunnel = refuse  # type: ignore[method-assign]  # stands in its place for this test
    answer = await browser.post(draft.replace("/draft", "/draft/finish"))
    assert answer.status == 422
    assert "E-FROM-FILE" in answer.text
    browser.operations.put_tunnel = put  # type: ignore[method-assign]  # stands in its place for this test
    assert (await browser.post(draft.replace("/draft", "/draft/finish"))).status == 303


async def test_editing_changes_what_was_changed_and_nothing_else(browser: Browser) -> None:
    browser.operations.from_api = True
    draft = await begin(browser, name="branch-a", how="edit")
    page = await browser.get(f"{draft}&step=basic")
    assert 'name="name"' not in page.text, "a name stays"
    assert (await go(browser, draft, "advanced", {"dpd.enabled": "yes", "dpd.timeout": "60"})).status == 303
    assert (await browser.post(draft.replace("/draft", "/draft/finish"))).status == 303
    assert browser.operations.received["branch-a"] == {
        "customer_gateway": "branch",
        "routes": ["10.2.0.0/16"],
        "interface": "vpn-branch-a",
        "ike": {
            "encryption": ["aes-128-gcm", "aes-256"],
            "dh_group": [14, 31],
            "remote_id": "gw.branch.example",
        },
        "dpd": {"timeout": 60},
    }, "no key: it keeps its own"


async def test_a_change_that_the_daemon_proposes_is_filled_in(browser: Browser) -> None:
    browser.operations.from_api = True
    page = (await browser.get("/tunnel?name=branch-b")).text
    assert 'name="field" value="pre_shared_key"' in page, "E-PSK leads to the key"

    def why(name: str) -> Why:
        differs = explain(Diagnosis.of(Code.P1_DH, theirs="31", ours="14"), name).body()
        return Why(
            tunnel=name, state="down", error=Fault(code="E-P1-DH", message="", at=AT), explanation=differs
        )

    browser.operations.why = why  # type: ignore[method-assign]  # stands in its place for this test
    page = (await browser.get("/tunnel?name=branch-b")).text
    assert 'name="field" value="ike.dh_group"' in page
    form = {"name": "branch-b", "how": "edit", "field": "ike.dh_group", "propose": "yes"}
    answer = await browser.post("/new", form)
    assert "step=ike#field-ike.dh_group" in (answer.header("location") or "")
    page = (await browser.follow(answer)).text
    assert re.findall(r'name="ike.dh_group" value="(\d+)" checked', page) == ["31"]
    assert "Filled in as proposed" in page
    assert browser.operations.received == {}, "nothing is changed before it is saved"


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ('set ike.version = "ikev1" here, or ikev2 at the peer', ("ike.version", "ikev1")),
        ('set ike.encryption = ["aes-256", "3des"] here if you', ("ike.encryption", ["aes-256", "3des"])),
        ('set ike.encryption = "aes-256" here if you', ("ike.encryption", ["aes-256"])),
        ('set ipsec.pfs = "disable" here, or 14 at the peer', ("ipsec.pfs", "disable")),
        ("set ipsec.pfs = 14 here, or none at the peer", ("ipsec.pfs", [14])),
        ('set ike.remote_id = "a" b" here', None),
        ("set gateway.address = 1 here", None),
        ("set the peer's identity to", None),
        (None, None),
    ],
)
def test_what_is_proposed(change: str | None, value: tuple[str, Any] | None) -> None:
    assert suggestions.proposed(Explanation(code="E-X", what="", change=change)) == value


async def test_a_step_can_be_left_for_any_other_and_what_was_typed_is_kept(browser: Browser) -> None:
    draft = await all_steps(browser)
    answer = await go(browser, draft, "ike", {**IKE, "ike.lifetime": "7"}, "advanced")
    assert "step=advanced" in (answer.header("location") or "")
    assert 'value="7"' in (await browser.get(f"{draft}&step=ike")).text
    refused = await go(browser, draft, "ike", {**IKE, "ike.lifetime": "7"}, "summary")
    assert (refused.status, "E-RANGE" in said(refused, "ike.lifetime")) == (422, True)
    good = await go(browser, draft, "ike", IKE, "summary")
    assert "step=summary" in (good.header("location") or "")


async def test_a_further_pair_is_added_from_the_page_of_the_tunnel(browser: Browser) -> None:
    browser.operations.from_api = True
    answer = await browser.post(
        "/new", {"name": "branch-a", "how": "edit", "field": "spd.0.local", "rule": "yes"}
    )
    assert (answer.header("location") or "").endswith("step=communication#field-spd.0.local")


async def test_a_made_key_that_is_taken_back_is_needed_again(browser: Browser) -> None:
    draft = await begin(browser)
    made = {**BASIC, "key": "", "key_again": ""}
    assert (await go(browser, draft, "basic", {**made, "generate": "yes"})).status == 303
    refused = await go(browser, draft, "basic", made)
    assert "needed" in said(refused, "pre_shared_key")


async def test_the_summary_marks_what_is_changed(browser: Browser) -> None:
    browser.operations.from_api = True
    draft = await begin(browser, name="branch-a", how="edit")
    await go(browser, draft, "advanced", {"dpd.enabled": "yes", "dpd.timeout": "60"})
    page = (await browser.get(f"{draft}&step=summary")).text
    assert re.findall(r'class="changed"><dt>([^<]*)</dt><dd>([^<]*) <span class="soft">([^<]*)', page) == [
        ("DPD timeout (s)", "60", "it was 30")
    ]


async def test_a_tunnel_of_a_file_is_not_edited_and_a_copy_is_a_tunnel_of_its_own(browser: Browser) -> None:
    page = (await browser.get("/tunnel?name=branch-a")).text
    assert 'value="edit"' not in page
    answer = await browser.post("/new", {"name": "branch-a", "how": "edit"})
    assert answer.status == 409
    assert "/etc/vpnd/vpnd.toml:8" in answer.text
    draft = await begin(browser, name="branch-a", how="clone")
    refused = await go(browser, draft, "basic", {**BASIC, "name": "branch-a"})
    assert "E-DUPLICATE" in said(refused, "name")
    form = {**BASIC, "communication": "destination-route", "customer_gateway": "branch"}
    assert (await go(browser, draft, "basic", form)).status == 303
    await browser.post(draft.replace("/draft", "/draft/finish"))
    table = browser.operations.received["branch-c"]
    assert "interface" not in table
    assert table["customer_gateway"] == "branch"


async def test_a_tunnel_is_deleted_when_its_name_was_typed(browser: Browser) -> None:
    page = await browser.post("/tunnel/delete", {"name": "branch-a"})
    assert 'name="typed"' in page.text
    wrong = await browser.post("/tunnel/delete", {"name": "branch-a", "typed": "branch-b"})
    assert "not the tunnel" in wrong.text
    assert not [call for call in browser.wire.asked if call.startswith("DELETE")]
    refused = await browser.post("/tunnel/delete", {"name": "branch-a", "typed": "branch-a"})
    assert (refused.status, "E-FROM-FILE" in refused.text) == (409, True)


async def test_drafts_are_of_one_session_and_few(browser: Browser) -> None:
    first = await begin(browser)
    other = browser.other()
    await other.sign_in()
    browser.cookies = other.cookies
    assert (await browser.get(f"{first}&step=basic")).status == 404
    browser.csrf = other.csrf
    kept = [await begin(browser) for _ in range(drafts.MAX_DRAFTS + 1)]
    assert (await browser.get(f"{kept[0]}&step=basic")).status == 404
    assert (await browser.get(f"{kept[-1]}&step=basic")).status == 200


@pytest.mark.parametrize(
    ("name", "key", "field"),
    [
        ("a", "tunnels.a.ike.encryption[0]", "ike.encryption"),
        ("a.b", 'tunnels."a.b".spd[2].remote[1]', "spd.2.remote"),
        ("a", "tunnels.a.spd[0]", "spd.0.local"),
        ("a", "tunnels.a.interface", None),
        ("a", "tunnels.a.customer_gateway.address", "customer_gateway"),
        ("a", "tunnels.b.routes", None),
        ("a", None, None),
    ],
)
def test_the_field_of_a_problem(name: str, key: str | None, field: str | None) -> None:
    problem = Problem(file="", line=None, code="E", severity="error", message="", key=key)
    assert drafts.place(problem, name) == field


def test_the_profile_decides_what_is_a_default() -> None:
    table: dict[str, Any] = {"profile": "tencent-cloud"}
    assert drafts.value(table, "ike.integrity") == ["md5"]
    drafts.put(table, "ike.integrity", ["sha256"])
    drafts.put(table, "ike.version", "ikev1")
    assert table == {"profile": "tencent-cloud", "ike": {"integrity": ["sha256"]}}
    drafts.put(table, "ike.integrity", ["md5"])
    assert table == {"profile": "tencent-cloud"}
    assert drafts.step_of("spd.3.local") == "communication"
    assert BY_NAME["ike"].title == "IKE options"


async def test_a_peer_of_any_address_is_asked_for_its_identity_in_the_step_that_has_it(
    browser: Browser,
) -> None:
    draft = await begin(browser)
    basic = {**BASIC, "customer_gateway.address": "any", "negotiation": "passive"}
    for step, form in (("basic", basic), *WAY[1:3]):
        answer = await go(browser, draft, step, form)
        assert answer.status == 303, (step, answer.text)
    refused = await go(browser, draft, "ike", {**IKE, "ike.remote_id": ""})
    assert (refused.status, "E-ANY" in said(refused, "ike.remote_id")) == (422, True)
    assert (await go(browser, draft, "ike", IKE)).status == 303
    await go(browser, draft, "ipsec", IPSEC)
    assert (await browser.post(draft.replace("/draft", "/draft/finish"))).status == 303
    assert browser.operations.received["branch-c"]["customer_gateway"] == {"address": "any"}


async def test_the_rule_that_carries_a_health_check_is_asked_for_among_the_rules(browser: Browser) -> None:
    draft = await begin(browser)
    health = {
        "health_check.enabled": "yes",
        "health_check.local": "169.254.128.1",
        "health_check.remote": "169.254.128.2",
    }
    for step, form in (("basic", BASIC), ("advanced", {**ADVANCED, **health})):
        answer = await go(browser, draft, step, form)
        assert answer.status == 303, (step, answer.text)
    refused = await go(browser, draft, "communication", RULES)
    assert (refused.status, "E-HEALTH-MAPPING" in said(refused, "spd.0.remote")) == (422, True)
    probes = {"spd.1.local": "169.254.128.1/32", "spd.1.remote": "169.254.128.2/32"}
    assert (await go(browser, draft, "communication", {**RULES, **probes})).status == 303


async def test_what_is_hidden_is_left_out(browser: Browser) -> None:
    """Aggressive mode is of IKEv1; the timeout belongs to DPD, the addresses to a health check."""
    draft = await all_steps(browser)
    assert (await go(browser, draft, "ike", {**IKE, "ike.negotiation_mode": "aggressive"})).status == 303
    answer = await go(browser, draft, "ike", {**IKE, "ike.version": "ikev2"})
    assert answer.status == 303, answer.text
    assert (
        await go(browser, draft, "advanced", {"dpd.timeout": "45", "health_check.local": "x"})
    ).status == 303
    assert (await browser.post(draft.replace("/draft", "/draft/finish"))).status == 303
    sent = browser.operations.received["branch-c"]
    assert sent["dpd"] == {"enabled": False}
    assert "health_check" not in sent
    assert "negotiation_mode" not in str(sent)


async def test_what_no_field_asks_for_is_said_on_the_page(browser: Browser) -> None:
    """A value of a file or of the API that does not fit any more, such as ESN with IKEv1."""
    browser.operations.from_api = True
    browser.operations.configuration = {
        **CONFIGURATION,
        "ipsec": {**CONFIGURATION["ipsec"], "esn": "yes"},
    }
    draft = await begin(browser, name="branch-a", how="edit")
    ike = {**IKE, "ike.remote_id": "gw.branch.example"}
    await go(browser, draft, "ike", ike)
    page = await browser.get(f"{draft}&step=ipsec")
    assert "E-ESN" in said(page, "")
