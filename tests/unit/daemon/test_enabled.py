"""`enabled` in a tunnel's table, and `vpnctl disable` and `enable`: down at once, and after each start."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.daemon.fakes import KEY, Machine
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_long_change import BACK, ROUTED
from vpnd.config.load import DISABLED_FILE
from vpnd.control.operations import Conflict, InvalidConfiguration

OFF = f"{ROUTED}\nenabled = false"


async def begin(pair: Pair, hq: str = ROUTED) -> None:
    pair.configure({"t": hq}, {"t": BACK})
    await pair.start()
    if hq == ROUTED:
        await pair.until(lambda: pair.state() == ("up", "up"))


async def again(pair: Pair) -> None:
    """hq starts once more, with the files that it has."""
    await pair.hq.service.stop()
    pair.hq = Machine(pair.wire, pair.hq.directory, "192.0.2.1", 3)
    await pair.hq.start()


@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
@with_pair
async def test_a_tunnel_that_is_disabled_says_delete_and_stays_down(pair: Pair, version: str) -> None:
    line = f'\nike.version = "{version}"'
    pair.configure({"t": ROUTED + line}, {"t": BACK + line})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    descriptor = pair.hq.engine.tunnels["t"]
    pair.configure({"t": OFF + line}, {"t": BACK + line})
    assert (await pair.hq.operator.reload()).changed == ["t"]
    await pair.until(lambda: pair.state() == ("down", "waiting"))
    assert pair.hq.engine.installed == {}
    assert pair.hq.engine.tunnels["t"] == descriptor, "its interface stays, and what leads there"
    (status,) = pair.hq.operator.status().tunnels
    assert (status.enabled, status.state) == (False, "down")
    assert "disabled" in pair.hq.texts()
    with pytest.raises(Conflict) as refused:
        await pair.hq.operator.up("t", 5)
    assert refused.value.code == "E-DISABLED"
    # The peer is not let in either.
    with pytest.raises(Exception, match="t is not up"):
        await pair.branch.operator.up("t", 5)
    assert pair.hq.service.gateway.tunnels["t"].state.value == "down"
    pair.configure({"t": ROUTED + line}, {"t": BACK + line})
    await pair.hq.operator.reload()
    await pair.until(lambda: pair.state() == ("up", "up"), 120)
    assert pair.hq.engine.tunnels["t"] == descriptor


@with_pair
async def test_a_tunnel_that_is_disabled_does_not_begin_with_the_start(pair: Pair) -> None:
    await begin(pair, OFF)
    await asyncio.sleep(60)
    assert pair.state() == ("down", "waiting")
    pair.configure({"t": f'{OFF}\nike.lifetime = 7200\ninterface = "vpn-x"'}, {"t": BACK})
    await pair.hq.operator.reload()
    await asyncio.sleep(60)
    assert pair.state() == ("down", "waiting")


@with_pair
async def test_a_command_disables_until_another_enables_and_over_starts(pair: Pair) -> None:
    await begin(pair)
    assert (await pair.hq.operator.disable("t")).state == "down"
    await pair.until(lambda: pair.state() == ("down", "waiting"))
    assert not pair.hq.operator.status().tunnels[0].enabled
    await pair.hq.operator.reload()
    await again(pair)
    await asyncio.sleep(60)
    assert pair.state() == ("down", "waiting")
    done = await pair.hq.operator.enable("t")
    assert (done.action, done.state) == ("enable", "connecting")
    await pair.until(lambda: pair.state() == ("up", "up"), 120)
    await again(pair)
    await pair.until(lambda: pair.state() == ("up", "up"), 120)
    assert not (pair.hq.state / DISABLED_FILE).exists()


@with_pair
async def test_enable_opens_what_down_has_closed(pair: Pair) -> None:
    await begin(pair)
    await pair.hq.operator.down("t")
    await pair.hq.operator.disable("t")
    await pair.hq.operator.enable("t")
    await pair.until(lambda: pair.state() == ("up", "up"), 120)


@with_pair
async def test_what_a_file_disables_only_the_file_enables(pair: Pair) -> None:
    await begin(pair, OFF)
    with pytest.raises(Conflict) as refused:
        await pair.hq.operator.enable("t")
    assert refused.value.code == "E-FROM-FILE"
    assert "enabled = true" in str(refused.value.hint)
    assert pair.hq.service.gateway.tunnels["t"].state.value == "down"


@with_pair
async def test_a_tunnel_of_the_api_is_enabled_in_its_table(pair: Pair) -> None:
    await begin(pair)
    table = {
        "customer_gateway": {"address": "192.0.2.9"},
        "pre_shared_key": f"plain:{KEY}",
        "routes": ["10.7.0.0/16"],
        "enabled": False,
    }
    await pair.hq.operator.put_tunnel("v", table)
    assert pair.hq.service.gateway.tunnels["v"].state.value == "down"
    assert (await pair.hq.operator.enable("v")).state == "connecting"
    await again(pair)
    assert pair.hq.service.gateway.tunnels["v"].state.value == "connecting"


@with_pair
async def test_disabling_changes_nothing_else_that_the_files_say_now(pair: Pair) -> None:
    """Files that were edited wait for a reload."""
    await begin(pair)
    pair.configure({"t": f"{ROUTED}\npriority = 7", "new": 'routes = ["10.4.0.0/16"]'}, {"t": BACK})
    await pair.hq.operator.disable("t")
    (status,) = pair.hq.operator.status().tunnels
    assert (status.priority, status.enabled) == (0, False)


@pytest.mark.parametrize("text", ["disabled = 7", "disabled = [1]", "disabled ="])
@with_pair
async def test_a_state_file_that_makes_no_sense_is_an_error_of_the_reload(pair: Pair, text: str) -> None:
    await begin(pair)
    pair.hq.state.mkdir(exist_ok=True)
    (pair.hq.state / DISABLED_FILE).write_text(text)
    with pytest.raises(InvalidConfiguration) as refused:
        await pair.hq.operator.reload()
    assert DISABLED_FILE in str(refused.value)
    assert pair.state() == ("up", "up")
