"""What the path to a peer carries: learned from the network, and forgotten again."""

from __future__ import annotations

import pytest

from tests.unit.daemon.pairs import PROVED, Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED, up
from tests.unit.daemon.test_refused import seconds
from vpnd.daemon.upkeep.interfaces import PATH_MTU_AGED
from vpnd.daemon.upkeep.repairs import REPAIR_EVERY
from vpnd.datapath.interface import PathMtu

AGED = PATH_MTU_AGED + 2 * REPAIR_EVERY


async def narrowed(pair: Pair, mtu: int) -> int:
    """The tunnel is up and a router says that its path carries less; returns the interface's MTU before."""
    await up(pair, ROUTED, BACK)
    before = _inner(pair)
    pair.hq.engine.on_notice(PathMtu(pair.branch.address, mtu))
    await seconds(pair, 1)
    assert pair.hq.engine.path_mtu["t"] == mtu
    assert _inner(pair) < before
    return before


def _inner(pair: Pair) -> int:
    (interface,) = pair.hq.host.interfaces.values()
    return interface


@with_pair
async def test_a_path_that_became_smaller_is_tried_larger_after_ten_minutes(pair: Pair) -> None:
    before = await narrowed(pair, 1300)
    await seconds(pair, PATH_MTU_AGED - 5)
    assert pair.hq.engine.path_mtu["t"] == 1300
    await seconds(pair, 5 + 2 * REPAIR_EVERY)
    assert pair.hq.engine.path_mtu["t"] == 1500
    assert _inner(pair) == before


@pytest.mark.slow
@with_pair
async def test_a_path_stays_small_while_the_kernel_says_so_and_is_asked_about_again(pair: Pair) -> None:
    before = await narrowed(pair, 1300)
    pair.hq.host.route_mtu = 1300
    await seconds(pair, AGED)
    assert pair.hq.engine.path_mtu["t"] == 1300
    pair.hq.host.route_mtu = 1400
    await seconds(pair, AGED)
    assert pair.hq.engine.path_mtu["t"] == 1400
    pair.hq.host.route_mtu = 1500
    await seconds(pair, AGED)
    assert _inner(pair) == before


@with_pair
async def test_a_path_stays_small_where_the_kernel_says_nothing(pair: Pair) -> None:
    await narrowed(pair, 1300)
    pair.hq.host.route_mtu = None
    await seconds(pair, AGED)
    assert pair.hq.engine.path_mtu["t"] == 1300


@pytest.mark.slow
@with_pair
async def test_ten_minutes_begin_again_when_the_path_becomes_smaller_still(pair: Pair) -> None:
    await narrowed(pair, 1400)
    await seconds(pair, PATH_MTU_AGED - 60)
    pair.hq.engine.on_notice(PathMtu(pair.branch.address, 1300))
    await seconds(pair, PATH_MTU_AGED - 60)
    assert pair.hq.engine.path_mtu["t"] == 1300
    await seconds(pair, AGED)
    assert pair.hq.engine.path_mtu["t"] == 1500


@pytest.mark.parametrize("encapsulation", ["auto", "udp"])
@with_pair
async def test_an_interface_has_room_for_the_encapsulation_before_anything_is_negotiated(
    pair: Pair, encapsulation: str
) -> None:
    suite = 'encryption = ["aes-128"]\nintegrity = ["sha256"]'
    ipsec = f'\n[tunnels.t.ipsec]\n{suite}\nencapsulation = "{encapsulation}"'
    pair.configure({"t": ROUTED + ipsec}, {"t": BACK + ipsec})
    await pair.hq.start()
    before = _inner(pair)
    await pair.branch.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert pair.hq.operator.status().tunnels[0].mappings[0].encapsulation == encapsulation.replace(
        "auto", "esp"
    )
    assert _inner(pair) == before


@with_pair
async def test_a_configured_mtu_holds_whatever_the_path_carries(pair: Pair) -> None:
    await up(pair, ROUTED + "\nmtu = 1340\nmss = 1200\n", BACK)
    assert _inner(pair) == 1340
    assert pair.hq.engine.limits["t"] == (1340, 1200)
    pair.hq.engine.on_notice(PathMtu(pair.branch.address, 1300))
    await seconds(pair, 1)
    assert pair.hq.engine.path_mtu["t"] == 1300
    assert _inner(pair) == 1340


@with_pair
async def test_a_configured_mtu_holds_before_anything_is_negotiated(pair: Pair) -> None:
    pair.configure({"t": ROUTED + "\nmtu = 1340\n"}, {"t": BACK})
    await pair.hq.start()
    assert _inner(pair) == 1340


@with_pair
async def test_limits_change_without_a_new_negotiation(pair: Pair) -> None:
    await up(pair, ROUTED, BACK)
    await seconds(pair, PROVED)
    before, computed = set(pair.hq.engine.installed), _inner(pair)
    for limits in ((1340, 1200), (1280, None), (None, None)):
        lines = "".join(
            f"\n{key} = {value}" for key, value in zip(("mtu", "mss"), limits, strict=True) if value
        )
        pair.configure({"t": ROUTED + lines}, {"t": BACK})
        await pair.hq.operator.reload()
        await seconds(pair, 1)
        assert pair.hq.engine.limits["t"] == limits
        assert _inner(pair) == (limits[0] or computed)
        assert set(pair.hq.engine.installed) == before
