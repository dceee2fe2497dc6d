"""The pages for watching, and the actions on a tunnel."""

from __future__ import annotations

import asyncio
import inspect
import re
from dataclasses import fields

import pytest

from tests.unit.console.conftest import Browser
from tests.unit.control.fakes import AT, mapping_up, tunnel_failed, tunnel_up
from vpnd.console import shapes, watch, words
from vpnd.console.standing import BLOCKED
from vpnd.console.watch import Watch
from vpnd.control.schema import Event, Fault, HealthStatus
from vpnd.daemon.events import event_text
from vpnd.sdk import AsyncClient
from vpnd.sdk.models import DropCounts, HealthSample
from vpnd.sdk.models import Event as Heard


async def test_the_list(browser: Browser) -> None:
    page = await browser.get("/")
    assert page.status == 200
    assert re.findall(r'href="/tunnel\?name=([\w-]+)"', page.text) == ["branch-a", "branch-b"]
    assert "E-PSK" in page.text
    assert 'hx-get="/rows"' in page.text
    rows = await browser.get("/rows?q=&state=")
    assert "<html" not in rows.text
    assert re.findall(r"<tr id=", rows.text) == ["<tr id="] * 2


async def test_the_list_keeps_its_order_and_can_be_filtered(browser: Browser) -> None:
    names = ["z", "a", "m"]
    browser.operations.begin_again(
        tunnel_up("z"), tunnel_failed("a"), tunnel_up("m", description="Über der Bank")
    )
    assert re.findall(r"\?name=(\w)\"", (await browser.get("/")).text) == names
    for query, shown in (
        ("q=BANK", ["m"]),
        ("state=up", ["z", "m"]),
        ("q=198.51.100.1", ["z", "m"]),
        ("q=x%3C", []),
    ):
        assert re.findall(r"\?name=(\w)\"", (await browser.get(f"/rows?{query}")).text) == shown


async def test_rates_and_one_question_however_many_look(browser: Browser) -> None:
    def carrying(bytes_in: int, spi: str) -> None:
        mapping = mapping_up().model_copy(update={"bytes_in": bytes_in, "spi_in": spi})
        browser.operations.begin_again(tunnel_up("branch-a", mappings=[mapping]))

    carrying(1_000_000, "00000001")
    await asyncio.gather(*(browser.get("/rows") for _ in range(5)))
    assert browser.wire.asked == ["GET /v1/status"]
    browser.clock.now += 2
    carrying(2_000_000, "00000001")
    assert "4.0 Mbit/s" in (await browser.get("/rows")).text
    browser.clock.now += 2
    carrying(250_000, "00000002")
    assert "1.0 Mbit/s" in (await browser.get("/rows")).text, "a rekeyed SA counts from zero"
    browser.clock.now += watch.RATE_WITHIN + 1
    assert "bit/s" not in (await browser.get("/rows")).text


async def test_a_tunnel(browser: Browser) -> None:
    page = (await browser.get("/tunnel?name=branch-a")).text
    for shown in ("10.1.0.0/24", "df39ebcd", "81aaf615053ac3d0", "51 min 40 s", "3f9a-77c1", "IKE_SA_INIT 0"):
        assert shown in page
    assert "secret = " in page, "the other side's configuration"
    assert "PUT-THE-PRE-SHARED-KEY-HERE" in page
    live = (await browser.get("/tunnel/live?name=branch-a")).text
    assert "<html" not in live
    assert (await browser.get("/tunnel/peer-config?name=branch-a")).header("content-disposition")


async def test_why_in_full(browser: Browser) -> None:
    page = (await browser.get("/tunnel?name=branch-b")).text
    why = browser.operations.why("branch-b").explanation
    assert why is not None
    for text in (why.what, why.peer_said, why.we_have, why.change, *why.also_possible, *why.try_):
        if text:
            assert text.replace("&", "&amp;").replace("'", "&#39;").replace('"', "&#34;") in page
    assert "attempts: 6" in page


async def test_a_tunnel_that_is_up_and_carries_nothing(browser: Browser) -> None:
    stuck = Fault(code="E-ONEWAY", message="we send, and nothing comes back", at=AT)
    browser.operations.begin_again(tunnel_up("branch-a", impaired=stuck))
    for target in ("/", "/rows"):
        page = (await browser.get(target)).text
        assert "E-ONEWAY" in page
        assert "we send, and nothing comes back" in page
    page = (await browser.get("/tunnel?name=branch-a")).text
    assert 'id="field-why"' in page, "it is no failure that is over"


async def test_health_and_its_curves(browser: Browser) -> None:
    health = HealthStatus(state="healthy", rtt_ms=12.34, loss_percent=1.5, local="169.254.128.1")
    browser.operations.begin_again(tunnel_up("branch-a", health=health))
    page = (await browser.get("/tunnel?name=branch-a")).text
    assert "12.3 ms" in page
    assert "1.5 %" in page
    history = [HealthSample(at=AT, sent=10, lost=n, rtt_ms=n or None) for n in (1, 2, 0, 5)]
    loss, rtt, jitter = shapes.health_curves(history)
    assert (loss.top, loss.now, len(loss.lines[0])) == ("50.0 %", "50.0 %", 1)
    gap = ["569.5,62.8 579.7,47.6", "600.0,2.0 600.0,2.0"]
    assert rtt.lines == (gap,), "the newest at the right end; a minute without an answer is a gap"
    assert (jitter.lines, jitter.top, jitter.now) == (([],), "0.0 ms", "–")


def test_rates_of_the_last_hour() -> None:
    kept = watch.Rates()
    kept.add(["a"], {})
    kept.add(["a", "b"], {"a": watch.Rate(8, 4)})
    kept.gap()
    assert kept.of("a") == ([None, 8, None], [None, 4, None])
    assert kept.of("b") == ([None] * 3, [None] * 3), "a tunnel that came later has gaps before"
    for _ in range(watch.KEPT_RATES):
        kept.add(["b"], {"b": watch.Rate(1, 2)})
    assert kept.of("b") == ([1] * watch.KEPT_RATES, [2] * watch.KEPT_RATES)
    assert kept.of("a") == ([], []), "a tunnel that is gone is forgotten"
    drawn = shapes.curve("Rate", "bit/s", kept.of("b"), watch.KEPT_RATES)
    assert (drawn.top, drawn.now, len(drawn.lines)) == ("2 bit/s", "1 bit/s / 2 bit/s", 2)
    assert drawn.lines[1][0].startswith("0.0,2.0 ")


async def test_rates_are_kept_whether_anyone_looks_or_not(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SAMPLE", 0)
    seen = Watch(AsyncClient(browser.wire), browser.clock)  # type: ignore[arg-type]  # in place of a socket
    keeping = asyncio.ensure_future(seen.sample())
    while len(seen.rates.of("branch-a")[0]) < 2:  # noqa: ASYNC110 (the loop has nothing to wait on)
        await asyncio.sleep(0)
    browser.wire.down = True
    seen.forget()
    known = len(seen.rates.of("branch-a")[0])
    while len(seen.rates.of("branch-a")[0]) == known:  # noqa: ASYNC110 (the loop has nothing to wait on)
        await asyncio.sleep(0)
    keeping.cancel()
    assert seen.rates.of("branch-a")[0][-1] is None


async def has_seen(seen: Watch, count: int) -> None:
    """Nothing says when the next event has come but its being there."""
    while len(seen.events) < count:  # noqa: ASYNC110 (the loop has nothing to wait on)
        await asyncio.sleep(0)


async def test_events_are_followed(browser: Browser) -> None:
    browser.operations.log.publish(Event(at=AT, tunnel="branch-a", event="tunnel-up", text="it is <up>"))
    browser.operations.log.publish(Event(at=AT, event="reloaded", text="another"))
    seen = Watch(AsyncClient(browser.wire), browser.clock)  # type: ignore[arg-type]  # in place of a socket
    following = asyncio.ensure_future(seen.follow())
    await has_seen(seen, 2)
    following.cancel()
    console = browser.app.routes[0].endpoint.__self__  # type: ignore[attr-defined]  # the console is behind each route
    console.watch.events.extend(seen.events)
    page = (await browser.get("/events")).text
    assert page.index("another") < page.index("it is &lt;up&gt;"), "the newest first"
    one = (await browser.get("/tunnel?name=branch-a")).text
    assert "it is &lt;up&gt;" in one
    assert "another" not in one


async def test_events_go_on_where_they_were(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "AGAIN", 0)
    seen = Watch(AsyncClient(browser.wire), browser.clock)  # type: ignore[arg-type]  # in place of a socket
    following = asyncio.ensure_future(seen.follow())
    for number in range(3):
        browser.operations.log.publish(Event(at=AT, event="x", text=str(number)))
        await has_seen(seen, number + 1)
    following.cancel()
    assert [event.text for event in seen.events] == ["0", "1", "2"]


async def test_without_the_daemon(browser: Browser) -> None:
    browser.wire.down = True
    for path in ("/", "/rows", "/tunnel?name=a", "/tunnel/live?name=a"):
        answer = await browser.get(path)
        assert answer.status == 503
        assert "nobody listens" in answer.text
        assert "start vpnd" in answer.text


# ---------------------------------------------------------------------------------------------- standing


WAITING = [
    ("down", "active", "tunnel-down", "down, as asked", "until Connect or a start"),
    ("down", "active", "tunnel-down", BLOCKED, "This machine cannot carry it"),
    ("waiting", "passive", "tunnel-waiting", "waiting for the peer", "for the peer to begin"),
    ("waiting", "traffic-triggered", "tunnel-waiting", "waiting for traffic", "the first packet"),
    ("waiting", "active", "tunnel-waiting", "disconnected", "found dead"),
    ("unhealthy", "active", "tunnel-unhealthy", "unhealthy", "no traffic is led into it"),
]


@pytest.mark.parametrize(("state", "negotiation", "event", "text", "shown"), WAITING)
async def test_a_tunnel_that_carries_nothing_says_what_it_waits_for(
    browser: Browser, state: str, negotiation: str, event: str, text: str, shown: str
) -> None:
    browser.operations.begin_again(tunnel_up("branch-a", state=state, negotiation=negotiation))
    hear(browser, "branch-a", event, text)
    assert shown in (await browser.get("/tunnel?name=branch-a")).text


def test_what_the_daemon_says_of_a_tunnel_that_it_cannot_carry() -> None:
    assert BLOCKED in inspect.getsource(event_text)


def hear(browser: Browser, tunnel: str, event: str, text: str, code: str | None = None) -> None:
    """The console has heard of it."""
    watching: Watch = browser.app.routes[0].endpoint.__self__.watch  # type: ignore[attr-defined]  # the console is behind each route
    watching.events.append(Heard(at=AT, tunnel=tunnel, event=event, text=text, code=code))


async def test_a_refused_attempt_of_the_peer_is_on_the_page_of_a_tunnel_that_only_waits(
    browser: Browser,
) -> None:
    """`why` may have nothing of it: the peer has not proved itself."""
    browser.operations.begin_again(tunnel_up("branch-a", state="waiting", negotiation="passive"))
    hear(browser, "branch-a", "tunnel-waiting", "waiting for the peer")
    refused = "the peer says it is stranger.example"
    hear(browser, "branch-a", "attempt-failed", refused, "E-ID")
    hear(browser, "branch-b", "tunnel-up", "up")
    page = (await browser.get("/tunnel/live?name=branch-a")).text
    assert re.search(r'<h2 id="why">[^<]*attempt was refused: E-ID</h2>\s*<p>' + refused, page)
    hear(browser, "branch-a", "tunnel-up", "up")
    assert 'id="why"' not in (await browser.get("/tunnel/live?name=branch-a")).text, "it is over"


async def test_a_failure_that_is_over_is_not_shown_as_one_that_stands(browser: Browser) -> None:
    failed = browser.operations.why("branch-b")
    browser.operations.why = lambda name: failed.model_copy(update={"tunnel": name})  # type: ignore[method-assign]  # stands in its place for this test
    page = (await browser.get("/tunnel?name=branch-a")).text
    assert 'id="why"' not in page
    assert "Last failure, which is over" in page


async def test_the_list_is_where_it_was_when_one_comes_back(browser: Browser) -> None:
    assert 'href="/#link-branch-a"' in (await browser.get("/tunnel?name=branch-a")).text
    await browser.get("/rows?q=branch&state=up")
    page = (await browser.get("/tunnel?name=branch-a")).text
    assert 'href="/?q=branch&amp;state=up#link-branch-a"' in page
    assert 'id="link-branch-a"' in (await browser.get("/?q=branch&state=up")).text


# ------------------------------------------------------------------------------------------------ acting


@pytest.mark.parametrize("action", ["up", "rekey", "down", "reset", "disable", "enable"])
async def test_an_action_asks_where_it_interrupts(browser: Browser, action: str) -> None:
    page = await browser.post("/tunnel/act", {"name": "branch-a", "action": action})
    if action in ("down", "reset", "disable"):
        assert page.status == 200
        assert browser.operations.calls == []
        assert 'name="confirmed" value="yes"' in page.text
        form = {"name": "branch-a", "action": action, "confirmed": "yes"}
        page = await browser.post("/tunnel/act", form)
    assert [call[:2] for call in browser.operations.calls] == [(action, "branch-a")]
    shown = await browser.follow(page)
    assert 'class="notice good"' in shown.text
    assert 'class="notice good"' not in (await browser.get("/tunnel?name=branch-a")).text, "shown once"


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_disabled_tunnel_is_enabled_and_nothing_else(browser: Browser, enabled: bool) -> None:
    tunnel = browser.operations.tunnel("branch-a").model_copy(update={"enabled": enabled})
    browser.operations.tunnel = lambda name: tunnel  # type: ignore[method-assign]  # stands in its place for this test
    page = (await browser.get("/tunnel?name=branch-a")).text
    actions = re.findall(r'name="action" value="(\w+)"', page)
    assert actions == (["up", "rekey", "reset", "down", "disable"] if enabled else ["enable"])


async def test_an_action_that_fails_says_why(browser: Browser) -> None:
    shown = await browser.follow(await browser.post("/tunnel/act", {"name": "branch-b", "action": "up"}))
    assert re.search(r'class="notice bad"[^>]*>E-PSK: ', shown.text)
    unknown = await browser.post("/tunnel/act", {"name": "branch-a", "action": "explode"})
    assert unknown.status == 400


# ------------------------------------------------------------------------------------------------- words

ROOT = words.CATALOGUES.parent
USED = re.compile(r"""\b_\(\s*(?:"([^"]+)"|'([^']+)')\s*,?\s*\)""")
SAID_BY_THE_DAEMON = {
    *("up", "down", "connecting", "waiting", "unhealthy", "healthy", "unknown"),
    *("active", "passive", "traffic-triggered", "destination-route", "spd-policy"),
    *("Loss", "Round trip", "Jitter"),
    *("created", "changed", "unchanged", "yes", "no", "main", "aggressive", "retry", "disconnect"),
    *("auto", "default", "disable", "Rate"),
    *(field.name.replace("_", " ") for field in fields(DropCounts)),
}


def used() -> set[str]:
    found = set(SAID_BY_THE_DAEMON)
    for file in (*ROOT.glob("templates/*.html"), *ROOT.glob("*.py")):
        found |= {double or single for double, single in USED.findall(file.read_text())}
    return found


@pytest.mark.parametrize("language", [code for code in words.LANGUAGES if code != "en"])
def test_the_catalogue_has_every_text_and_no_other(language: str) -> None:
    known = words.catalogue(language)
    assert used() == set(known)
    for english, other in known.items():
        assert english.count("%s") == other.count("%s"), english


@pytest.mark.parametrize(
    ("chosen", "accepted", "language"),
    [
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "en-GB,zh;q=0.9", "en"),
        (None, "de,zh;q=0.1,en;q=0.5", "en"),
        (None, "", "en"),
        (None, "zh;q=x,*", "en"),
        ("zh", "en", "zh"),
        ("xx", "en", "en"),
    ],
)
def test_the_language(chosen: str | None, accepted: str, language: str) -> None:
    assert words.preferred(chosen, accepted) == language


async def test_the_pages_in_chinese(browser: Browser) -> None:
    browser.extra = {"Accept-Language": "zh-CN"}
    page = (await browser.get("/tunnel?name=branch-b")).text
    assert '<html lang="zh"' in page
    assert "对端网关" in page
    await browser.post("/preferences", {"back": "/", "language": "en"})
    assert '<html lang="en"' in (await browser.get("/")).text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90061, "1 d 1 h")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert shapes.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (3_400_000, "3.4 MB"), (5e15, "5000.0 TB")]
)
def test_amounts(number: float, text: str) -> None:
    assert shapes.amount(number, "B") == text
