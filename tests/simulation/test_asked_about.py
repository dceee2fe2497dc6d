"""What an endpoint says of a tunnel that is asked about: the attempt, the peer's maker, its messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.pair import Pair
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, speaking
from vpnd.ike.outputs import Decrypted
from vpnd.wire.header import Flag, Header

VERSIONS: list[dict[str, Any]] = [{}, speaking(MAIN), speaking(AGGRESSIVE)]
each_version = pytest.mark.parametrize("changes", VERSIONS, ids=["ikev2", "main", "aggressive"])


@each_version
def test_an_attempt_says_how_far_it_is(changes: dict[str, Any]) -> None:
    pair = Pair(changes_a=changes, changes_b=changes)
    assert pair.endpoint_a.progress(pair.a.tunnel) is None
    pair.a.initiate()
    begun = pair.endpoint_a.progress(pair.a.tunnel)
    assert begun is not None
    assert (begun.began, begun.received, begun.suite) == (pair.world.now, 0, None)
    assert begun.sent >= 1
    pair.world.settle()
    assert pair.endpoint_a.progress(pair.a.tunnel) is None


@each_version
def test_a_captured_tunnel_gives_its_messages_out_in_clear(changes: dict[str, Any]) -> None:
    pair = Pair(changes_a=changes, changes_b=changes)
    pair.endpoint_a.capture(pair.a.tunnel, True)
    pair.establish()
    clear = pair.a.of(Decrypted)
    assert {one.outbound for one in clear} == {True, False}
    for one in clear:
        header = Header.decode(one.message)
        assert header.length == len(one.message)
        assert changes == {} or not header.flags & Flag.ENCRYPTION
    pair.endpoint_a.capture(pair.a.tunnel, False)
    pair.a.probe()
    pair.world.settle()
    assert pair.a.of(Decrypted) == clear


@each_version
def test_the_maker_of_a_peer_is_known_as_long_as_the_tunnel_is(changes: dict[str, Any]) -> None:
    pair = Pair(changes_a=changes, changes_b=changes)
    name = pair.a.tunnel
    assert pair.endpoint_a.vendor(name) is None
    pair.establish()
    assert pair.endpoint_a.vendor(name) == "vpnd"
    pair.a.close()
    pair.world.run_for(60)
    assert pair.endpoint_a.vendor(name) == "vpnd"
    pair.a.do("remove_peer", name)
    assert pair.endpoint_a.vendor(name) is None
