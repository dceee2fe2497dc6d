"""A tunnel's key is replaced over the API and in files, step by step, by two whole daemons."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.daemon.fakes import KEY, Machine
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED, TABLE
from vpnd.control.operations import Conflict, InvalidConfiguration, NegotiationFailed
from vpnd.control.schema import RotateRequest
from vpnd.model.secret import Secret

NEXT = "the key from now on, of some length"
OLD, NEW = Secret(KEY.encode()).fingerprint(), Secret(NEXT.encode()).fingerprint()
NEXT_LINE = f'next_pre_shared_key = "plain:{NEXT}"\n'


async def made(pair: Pair) -> None:
    """The tunnel of `hq` is made over the API, that of `branch` is in its file."""
    pair.configure({}, {"t": BACK})
    await pair.start()
    await pair.hq.operator.put_tunnel("t", TABLE)
    await pair.until(lambda: pair.state() == ("up", "up"))


async def step(machine: Machine, step: Any, **more: Any) -> None:
    await machine.operator.rotate_key("t", RotateRequest(step=step, **more))


async def give_branch(pair: Pair, lines: str) -> None:
    """Its file has these lines from now on."""
    pair.configure({}, {"t": lines})
    await pair.branch.operator.reload()


def kinds(machine: Machine) -> list[str]:
    return [event.event for event in machine.service.journal.events.recent()]


def use(machine: Machine) -> tuple[str, str | None, str, str]:
    """What status says: the current key, the next, what we use, what the peer uses."""
    found = machine.operator.keys_of("t")
    assert found.ours is not None
    assert found.theirs is not None
    assert found.ours.since <= datetime(2031, 1, 1, tzinfo=UTC)
    return found.current, found.next, found.ours.fingerprint, found.theirs.fingerprint


@with_pair
async def test_step_by_step_over_the_api(pair: Pair) -> None:
    await made(pair)
    assert use(pair.hq) == (OLD, None, OLD, OLD)
    interface = pair.hq.host.interfaces
    await step(pair.hq, "begin", key=f"plain:{NEXT}")
    assert use(pair.hq) == (OLD, NEW, OLD, OLD)
    assert sorted(path.name for path in (pair.hq.state / "tunnels.d").iterdir()) == [
        "t.next-psk",
        "t.psk",
        "t.toml",
    ]
    assert NEXT not in (pair.hq.state / "tunnels.d/t.toml").read_text()
    with pytest.raises(Conflict, match="was not seen with the next key"):
        await step(pair.hq, "finish")
    with pytest.raises(NegotiationFailed, match="has not shown the next key"):
        await step(pair.hq, "prove", timeout_s=20)
    await give_branch(pair, NEXT_LINE + BACK)
    await step(pair.hq, "prove", timeout_s=20)
    assert use(pair.hq) == (OLD, NEW, NEW, NEW)
    await pair.until(lambda: use(pair.branch) == (OLD, NEW, NEW, NEW))
    await step(pair.hq, "finish")
    assert use(pair.hq) == (NEW, None, NEW, NEW)
    assert sorted(path.name for path in (pair.hq.state / "tunnels.d").iterdir()) == ["t.psk", "t.toml"]
    await pair.hq.operator.rekey("t", True, False, 20)
    assert pair.state() == ("up", "up")
    assert interface == pair.hq.host.interfaces
    for machine in (pair.hq, pair.branch):
        assert "tunnel-lost" not in kinds(machine)
        assert "next-key-proved" in kinds(machine)
        text = str([event.text for event in machine.service.journal.events.recent()])
        assert KEY not in text
        assert NEXT not in text


@with_pair
async def test_the_end_of_a_key_comes_by_itself(pair: Pair) -> None:
    await made(pair)
    end = pair.hq.clock.wall() + timedelta(seconds=30)
    await step(pair.hq, "begin", key=f"plain:{NEXT}", retire_after=end)
    await give_branch(pair, f"{NEXT_LINE}retire_after = {end.isoformat()}\n{BACK}")
    assert pair.hq.operator.keys_of("t").retire_after == end
    await pair.until(lambda: "key-retired" in kinds(pair.hq) and "key-retired" in kinds(pair.branch))
    for machine in (pair.hq, pair.branch):
        keys = machine.operator.keys_of("t")
        assert (keys.current, keys.next, keys.retire_after) == (NEW, None, None)
        assert machine.service.gateway.tunnels["t"].policy.peer.keys == (Secret(NEXT.encode()),)
    (by_api,) = [e.text for e in pair.hq.service.journal.events.recent() if e.event == "key-retired"]
    (by_file,) = [e.text for e in pair.branch.service.journal.events.recent() if e.event == "key-retired"]
    assert by_api == f"the key {OLD} has ended, {NEW} is in force"
    assert "make next_pre_shared_key the pre_shared_key" in by_file
    assert sorted(path.name for path in (pair.hq.state / "tunnels.d").iterdir()) == ["t.psk", "t.toml"]
    await pair.hq.operator.reset("t", 30)
    assert use(pair.hq) == (NEW, None, NEW, NEW)
    await pair.branch.operator.reload()
    assert pair.state() == ("up", "up"), "the file still has both"


@with_pair
async def test_a_change_of_the_tunnel_keeps_both_keys_and_cancel_forgets_one(pair: Pair) -> None:
    await made(pair)
    await step(pair.hq, "begin", key=f"plain:{NEXT}")
    without = {key: value for key, value in TABLE.items() if key != "pre_shared_key"}
    await pair.hq.operator.put_tunnel("t", {**without, "priority": 7})
    assert use(pair.hq)[:2] == (OLD, NEW)
    with pytest.raises(Conflict, match="has a next key already"):
        await step(pair.hq, "begin", key="plain:a third one of some length")
    await step(pair.hq, "cancel")
    assert use(pair.hq)[:2] == (OLD, None)
    with pytest.raises(Conflict, match="has no next key"):
        await step(pair.hq, "finish")
    with pytest.raises(InvalidConfiguration, match="is the current one"):
        await step(pair.hq, "begin", key=f"plain:{KEY}")
    with pytest.raises(InvalidConfiguration, match="the next key is missing"):
        await step(pair.hq, "begin")


@with_pair
async def test_of_a_tunnel_in_a_file_the_lines_are_said(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    ends = datetime(2031, 1, 1, tzinfo=UTC)
    said = await pair.hq.operator.rotate_key("t", RotateRequest(key="plain:unused", retire_after=ends))
    assert not said.done
    assert 'next_pre_shared_key = "file:/etc/vpnd/psk/t.next"' in said.lines
    assert "retire_after = 2031-01-01T00:00:00+00:00" in said.lines
    assert "unused" not in str(said)
    pair.configure({"t": NEXT_LINE + ROUTED}, {"t": BACK})
    await pair.hq.operator.reload()
    assert pair.hq.operator.keys_of("t").next == NEW
    for name in ("finish", "cancel"):
        said = await pair.hq.operator.rotate_key("t", RotateRequest(step=name, force=True))
        assert not said.done
        assert NEXT not in str(said)
        assert "# remove next_pre_shared_key and retire_after" in said.lines


@with_pair
async def test_a_negotiation_begins_with_the_current_key_while_both_stand(pair: Pair) -> None:
    """A new negotiation needs nothing that was remembered."""
    both = NEXT_LINE + ROUTED
    pair.configure({"t": both}, {"t": BACK})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    pair.configure({"t": both}, {"t": NEXT_LINE + BACK})
    await pair.branch.operator.reload()
    assert use(pair.branch)[:2] == (OLD, NEW)
    await pair.hq.operator.reset("t", 30)
    assert use(pair.hq) == (OLD, NEW, OLD, OLD), "the current one, until the peer was seen with the next"
