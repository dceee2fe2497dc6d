"""What strangers can have told: a line a minute, and nothing that an operator needs is lost by it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from tests.unit.daemon.pairs import PROVED, Pair, with_pair
from tests.unit.daemon.test_stories import BACK, ROUTED, kinds, story, up
from vpnd.ike.endpoint import NO_MESSAGE
from vpnd.ike.limits import UNREADABLE_BY_ADDRESS
from vpnd.ike.outputs import Failed
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis

CODES = (Code.P1_PROPOSAL, Code.SYNTAX, Code.VERSION, Code.MODE, Code.IDENTITY, Code.PSK, Code.FLOOD)


def refused(pair: Pair, code: Code, detail: object) -> None:
    """A stranger's attempt at the tunnel is refused, with a value of its choice in the text."""
    gateway = pair.hq.service.gateway
    diagnosis = Diagnosis.of(code, theirs=detail, ours="aes-128", detail=detail, peer="192.0.2.2")
    with gateway.turn():
        gateway.endpoint.outputs.append(Failed("t", diagnosis, False, unproven=True))


@with_pair
async def test_a_stranger_has_one_line_a_minute_whatever_the_text(pair: Pair) -> None:
    await up(pair)
    for number in range(2000):
        refused(pair, CODES[number % len(CODES)], number)
    assert len(story(pair.hq)) == len(CODES)
    assert {event.code for event in story(pair.hq)} == {code.value for code in CODES}
    await asyncio.sleep(61)
    refused(pair, Code.P1_PROPOSAL, "again")
    assert len(story(pair.hq)) == len(CODES) + 1
    assert story(pair.hq)[-1].text.endswith("(285 more times meanwhile)")


@with_pair
async def test_a_stranger_has_no_further_line_because_the_peer_begins_again(pair: Pair) -> None:
    """What the peer's success makes news again are the failures of the tunnel, not what anyone can send."""
    await up(pair)
    for _ in range(3):
        refused(pair, Code.SYNTAX, "x")
        await pair.branch.operator.reset("t", 60)
        await asyncio.sleep(PROVED)
        refused(pair, Code.SYNTAX, "y")
    told = [event for event in story(pair.hq) if event.code == Code.SYNTAX.value]
    assert len(told) == 1
    await asyncio.sleep(61)
    refused(pair, Code.SYNTAX, "z")
    assert story(pair.hq)[-1].text.endswith("(5 more times meanwhile)")


@with_pair
@pytest.mark.parametrize("port", [500, 4500])
async def test_a_flood_that_is_no_ike_is_counted_before_anything_is_made_of_it(pair: Pair, port: int) -> None:
    """And what it is stands in the trace, with one line in the log."""
    await up(pair)
    gateway, served = pair.hq.service.gateway, 0
    handle = gateway.endpoint.handle_datagram

    def handle_and_count(now: float, path: Path, data: bytes) -> None:
        nonlocal served
        served += 1
        handle(now, path, data)

    gateway.endpoint.handle_datagram = handle_and_count  # type: ignore[method-assign]  # stands in its place for this test
    path = Path(ip_address("192.0.2.1"), port, ip_address("192.0.2.2"), port)
    for number in range(5000):
        pair.hq.receive(path, bytes(number % 200 + 1))
    assert served == UNREADABLE_BY_ADDRESS.most
    assert gateway.endpoint.counters[NO_MESSAGE] == 5000 - served
    assert [event.code for event in story(pair.hq)].count(Code.SYNTAX.value) == 1
    assert "that cannot be read" in str(pair.hq.operator.trace("t"))


@with_pair
async def test_a_stranger_displaces_nothing(pair: Pair) -> None:
    """Neither what stands in `why` and `show`, nor the events, for as long as it goes on."""
    await up(pair)
    pair.wire.cut = True
    await asyncio.sleep(75)
    known = kinds(pair.hq)
    before, listed = pair.hq.operator.why("t"), pair.hq.operator.tunnel("t").errors
    assert before.error is not None
    for number in range(2000):
        refused(pair, CODES[number % len(CODES)], number)
    after = pair.hq.operator.why("t")
    assert after.error is not None
    assert after.error.code == before.error.code
    assert pair.hq.operator.status().tunnels[0].last_error is not None
    codes = {error.code for error in pair.hq.operator.tunnel("t").errors}
    assert {error.code for error in listed} <= codes
    assert len(pair.hq.operator.tunnel("t").errors) == len(listed) + len(CODES)
    assert kinds(pair.hq)[: len(known)] == known


@with_pair
async def test_a_stranger_ends_no_command(pair: Pair) -> None:
    await up(pair)
    rekey = asyncio.ensure_future(pair.hq.operator.rekey("t", ike=True, child=False, timeout=9))
    await asyncio.sleep(0)
    refused(pair, Code.PSK, "x")
    await rekey
    pair.wire.cut = True
    coming = asyncio.ensure_future(pair.hq.operator.reset("t", 60))
    await asyncio.sleep(1)
    refused(pair, Code.VERSION, "x")
    pair.wire.cut = False
    await coming


@with_pair
async def test_who_only_answers_still_hears_why_its_peer_is_refused(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    pair.hq.write(pair.hq.config.read_text().replace("nobody has to guess", "an attacker has guessed"))
    await pair.start()
    await asyncio.sleep(5)
    last = pair.branch.operator.status().tunnels[0].last_error
    assert last is not None
    assert last.code == "E-PSK"
    explained = pair.branch.operator.why("t")
    assert explained.error == last
    assert [error.code for error in pair.branch.operator.tunnel("t").errors] == ["E-PSK"]


@pytest.mark.parametrize("version", ["ikev2", "ikev1"])
@with_pair
async def test_every_spoofed_first_message_is_of_an_unproven_peer(pair: Pair, version: str) -> None:
    """The real messages: another version, another mode, no common proposal."""
    theirs = '\n[tunnels.t.ike]\nversion = "' + version + '"\nencryption = "aes-256"'
    ours = ROUTED + '\ndiagnose = "off"' + theirs
    pair.configure({"t": ours}, {"t": BACK + theirs.replace("aes-256", "aes-128")})
    await pair.start()
    await asyncio.sleep(20)
    branch = pair.branch.service.gateway.tunnels["t"]
    assert set(branch.standing.refused) == {Code.P1_ENCRYPTION}
    assert branch.standing.error is None
    assert not branch.standing.faults
    assert len([event for event in story(pair.branch) if event.code == "E-P1-ENC"]) == 1
