"""Which keys are in use is known again after a start, by two whole daemons; no key is kept for that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.daemon.fakes import KEY, Machine
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_key_rotation import NEW, NEXT, NEXT_LINE, OLD, use
from tests.unit.daemon.test_operations import BACK, ROUTED

SPOKEN = {
    "ikev2": "",
    "main": '[tunnels.t.ike]\nversion = "ikev1"\n',
    "aggressive": '[tunnels.t.ike]\nversion = "ikev1"\nnegotiation_mode = "aggressive"\n',
}
NEW_LINE = f'pre_shared_key = "plain:{NEXT}"\n'


def configure(pair: Pair, spoken: str, hq: str, branch: str) -> None:
    """The tunnel of both, with these lines about keys."""
    pair.configure({"t": f"{hq}{ROUTED}\n{SPOKEN[spoken]}"}, {"t": f"{branch}{BACK}\n{SPOKEN[spoken]}"})


def only_the_new_key(machine: Machine) -> None:
    machine.write(machine.config.read_text().replace(KEY, NEXT).replace(NEXT_LINE, ""))


async def restart(pair: Pair, name: str) -> None:
    """The daemon ends and another one begins with its files."""
    old: Machine = getattr(pair, name)
    await old.stop()
    new = Machine(old.wire, old.directory, str(old.address), 7)
    setattr(pair, name, new)
    await new.start()


def failures(pair: Pair) -> list[str]:
    """What either was told of an attempt that failed."""
    return [
        event.text
        for machine in (pair.hq, pair.branch)
        for event in machine.journal.events.recent()
        if event.event == "attempt-failed"
    ]


@pytest.mark.parametrize("restarted", ["hq", "branch"])
@pytest.mark.parametrize("spoken", SPOKEN)
@with_pair
async def test_a_start_goes_on_with_the_key_that_was_in_use(pair: Pair, spoken: str, restarted: str) -> None:
    """One has both keys, the other the next one alone: nothing fails when the first is started again."""
    configure(pair, spoken, NEXT_LINE, NEXT_LINE)
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert use(pair.hq) == (OLD, NEW, OLD, OLD)
    machine, other = (pair.hq, pair.branch) if restarted == "hq" else (pair.branch, pair.hq)
    only_the_new_key(other)
    await other.operator.reload()
    await pair.hq.operator.reset("t", 30)
    await pair.until(lambda: use(machine) == (OLD, NEW, NEW, NEW))
    before = machine.operator.keys_of("t")
    assert before.theirs is not None
    await restart(pair, restarted)
    after = getattr(pair, restarted).operator.keys_of("t")
    assert after.theirs is not None
    assert (after.current, after.next) == (OLD, NEW)
    assert after.theirs.fingerprint == NEW, "it is known before anything is negotiated"
    assert abs((after.theirs.since - before.theirs.since).total_seconds()) <= 1
    failed = failures(pair)
    await pair.hq.operator.reset("t", 30)
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert use(pair.hq)[2:] == use(pair.branch)[2:] == (NEW, NEW)
    assert failures(pair) == failed


@with_pair
async def test_no_key_is_kept_and_what_is_not_configured_is_forgotten(pair: Pair) -> None:
    configure(pair, "ikev2", NEXT_LINE, "")
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    await pair.until(pair.hq.known_keys.path.exists)
    path = pair.hq.known_keys.path
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert KEY not in text
    assert NEXT not in text
    assert json.loads(text)["tunnels"]["t"]["theirs"]["fingerprint"] == OLD
    await pair.hq.operator.down("t")
    assert use(pair.hq) == (OLD, NEW, OLD, OLD), "it is down, and the key is known"
    pair.configure({}, {"t": BACK})
    await pair.hq.operator.reload()
    await pair.until(lambda: json.loads(path.read_text())["tunnels"] == {})
    await restart(pair, "hq")


ONE = {"fingerprint": "0000-0000", "since": "2029-12-31T00:00:00+00:00"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        '{"format": 2, "tunnels": {}}',
        '{"format": 1, "tunnels": 5}',
        '{"format": 1, "tunnels": {"t": 5}}',
        json.dumps({"format": 1, "tunnels": {"t": {"ours": ONE}}}),
        json.dumps({"format": 1, "tunnels": {"t": {"ours": ONE, "theirs": {**ONE, "since": "noon"}}}}),
        json.dumps({"format": 1, "tunnels": {"t": {"ours": ONE, "theirs": {**ONE, "since": "2029-12-31"}}}}),
        json.dumps({"format": 1, "tunnels": {"gone": {"ours": ONE, "theirs": ONE}}}),
    ],
)
@with_pair
async def test_what_cannot_be_read_is_as_nothing(pair: Pair, content: str) -> None:
    configure(pair, "ikev2", "", "")
    pair.hq.state.mkdir()
    pair.hq.known_keys.path.write_text(content)
    await pair.start()
    assert "gone" not in pair.hq.service.gateway.endpoint.known_keys()
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert use(pair.hq) == (OLD, None, OLD, OLD)


@with_pair
async def test_a_time_that_is_yet_to_come_is_now(pair: Pair) -> None:
    """The calendar was set back meanwhile."""
    configure(pair, "ikev2", "", "")
    pair.hq.state.mkdir()
    later: Any = {**ONE, "since": "2040-01-01T00:00:00+00:00"}
    kept = {"format": 1, "tunnels": {"t": {"ours": later, "theirs": later}}}
    pair.hq.known_keys.path.write_text(json.dumps(kept))
    pair.hq.known_keys.restore({"t"})
    found = pair.hq.service.gateway.endpoint.keys_in_use("t")
    assert found is not None
    assert found.theirs.since == pair.hq.clock.now()


@with_pair
async def test_that_it_cannot_be_kept_is_said_once(pair: Pair) -> None:
    configure(pair, "ikev2", "", "")
    pair.hq.known_keys.path.mkdir(parents=True)
    await pair.start()
    await pair.until(lambda: (None, "not-kept") in pair.hq.events())
    pair.hq.service.gateway.keys_changed.set()
    await pair.until(lambda: not pair.hq.service.gateway.keys_changed.is_set())
    said = [event.text for event in pair.hq.journal.events.recent() if event.event == "not-kept"]
    assert said == ["which pre-shared keys are in use cannot be kept over a restart: Is a directory"]
    assert pair.hq.operator.status().tunnels
