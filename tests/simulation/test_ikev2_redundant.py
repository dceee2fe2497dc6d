"""Of two SAs for the same one is closed, and no packet is lost: what is on its way still arrives."""

from __future__ import annotations

import pytest

from tests.simulation.bounds import ANSWERS_WITHIN, DUPLICATE_KEPT_BY_PEER, SETTLING
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import ChildReplaced, ChildUp, PeerDead, PeerRenews
from vpnd.ike.session import Phase, SaSnapshot
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.simulate.gateway import Gateway

from .pair import Pair
from .policies import Recipe
from .renewing import closes_nothing
from .traffic import Traffic
from .weather import Weather

SEEDS = range(4)
EITHER = (0, 2)
"""Seeds with which the redundant one of two is the one that each side has begun."""
CLOSED = DUPLICATE_KEPT_BY_PEER + 3
"""Seconds until one of two was closed, by either side."""
FORGOTTEN = 15
"""Seconds after which nothing is left of it."""


def sends_on_its_newest(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer sends on the SA that it has made last, and closes none of two (strongSwan)."""

    def newest(mapping: int = 0) -> ChildSa:
        replaced = {event.old_spi_in for event in gateway.of(ChildReplaced)}
        able = [p.child for p in gateway.installed.values() if p.turn and p.child.mapping == mapping]
        return next(reversed([one for one in able if one.spi_in not in replaced]), able[-1])

    gateway.child = newest  # type: ignore[method-assign]  # stands in its place for this test
    closes_nothing(gateway, monkeypatch)


def established(gateway: Gateway) -> list[SaSnapshot]:
    """Its established IKE SAs, the oldest first."""
    assert isinstance(gateway.endpoint, Endpoint)
    return [sa for sa in gateway.endpoint.snapshot().sas if sa.phase is not Phase.CONNECTING]


def local_spi(sa: SaSnapshot) -> bytes:
    """The SPI on the side of the one who has it."""
    return sa.spi_i if sa.initiator else sa.spi_r


def carried(pair: Pair, mapping: int = 0) -> Traffic:
    """Packets both ways from now on."""
    traffic = Traffic(pair.world, mapping)
    traffic.start()
    return traffic


def assert_nothing_lost(pair: Pair, traffic: Traffic) -> None:
    """Until everything is over."""
    pair.world.run_for(CLOSED)
    traffic.stop()
    pair.world.run_for(FORGOTTEN)
    assert traffic.lost == []
    assert traffic.received == traffic.sent > 800


@pytest.mark.parametrize("seed", SEEDS)
def test_an_ike_sa_that_is_closed_as_redundant_still_receives(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(seed)
    pair.establish()
    sends_on_its_newest(pair.b, monkeypatch)
    traffic = carried(pair)
    pair.b.do("reinitiate", pair.b.tunnel)
    assert_nothing_lost(pair, traffic)
    pair.assert_one_tunnel()


@pytest.mark.parametrize("seed", SEEDS)
def test_so_does_a_child_that_both_ends_have_made(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(seed, recipe=Recipe(mappings=2))
    pair.establish()
    sends_on_its_newest(pair.b, monkeypatch)
    pair.a.initiate(1)
    pair.b.initiate(1)
    pair.world.settle()
    assert len(pair.a.children(1)) == 2
    assert_nothing_lost(pair, carried(pair, 1))
    pair.assert_one_tunnel(2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("what", ["IKE SA", "CHILD_SA"])
def test_so_does_one_of_two_that_the_peer_closes(
    what: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its DELETE may overtake packets that it sent before."""
    pair = Pair(seed, recipe=Recipe(mappings=2))
    pair.establish()
    sends_on_its_newest(pair.a, monkeypatch)
    sends_on_its_newest(pair.b, monkeypatch)
    mapping = 0 if what == "IKE SA" else 1
    if what == "IKE SA":
        pair.b.do("reinitiate", pair.b.tunnel)
    else:
        pair.a.initiate(1)
        pair.b.initiate(1)
    pair.world.settle()
    assert len(pair.a.children(mapping)) == 2
    traffic = carried(pair, mapping)
    pair.world.run_for(2)
    if what == "IKE SA":
        newest = local_spi(established(pair.b)[-1])
        pair.b.do("close", pair.b.tunnel, Diagnosis.of(Code.LIFETIME), newest)
    else:
        pair.b.close_child(mapping)
    pair.world.run_for(CLOSED)
    traffic.stop()
    pair.world.run_for(FORGOTTEN)
    assert [line for line in traffic.lost if line.startswith("to a")] == []
    pair.assert_one_tunnel(mapping + 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("newest", [False, True])
def test_what_both_began_and_prove_early_loses_nothing_and_makes_one_successor(
    newest: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(seed, recipe=Recipe(prove=True))
    if newest:
        sends_on_its_newest(pair.b, monkeypatch)
    pair.a.initiate()
    pair.b.initiate()
    pair.world.settle()
    assert len(pair.a.children()) == 2
    assert_nothing_lost(pair, carried(pair))
    pair.assert_one_tunnel()
    assert len(pair.a.of(ChildUp)) == 2
    begun_here = [event for event in pair.a.of(ChildReplaced) if event.child.initiator]
    assert len(begun_here) <= 1
    assert newest or len(pair.a.of(ChildReplaced)) == 1


@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("what", ["rekey_child", "rekey_ike"])
@pytest.mark.parametrize("which", ["redundant", "kept"])
@pytest.mark.parametrize("before", [0.005, 0.015, 0.3])
def test_a_rekey_under_way_when_the_redundant_ike_sa_is_closed(
    before: float, which: str, what: str, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`before`: seconds from its beginning to the closing; `which`: the IKE SA that it is of."""
    for seed in EITHER:
        pair = Pair(seed)
        sends_on_its_newest(pair.b, monkeypatch)
        pair.a.initiate()
        pair.b.initiate()
        pair.world.settle()
        traffic = carried(pair)
        pair.world.run_for(0.5)
        kept = pair.a.child().spi_in
        (redundant,) = (one for one in established(pair.a) if kept not in one.children)
        closes = redundant.deadlines["DUPLICATE"]
        gateway = getattr(pair, who)
        (mine,) = (
            one for one in established(gateway) if (one.spi_i == redundant.spi_i) is (which == "redundant")
        )
        pair.world.run_for(closes - before - pair.world.now)
        meant = local_spi(mine) if what == "rekey_ike" else mine.children[0]
        gateway.do(what, gateway.tunnel, meant)
        assert_nothing_lost(pair, traffic)
        pair.assert_one_tunnel()


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_child_that_is_rekeyed_when_it_is_to_be_closed_leaves_one(seed: int, side: str) -> None:
    """The answer to its rekey comes after the moment: what it makes is not sent on."""
    pair = Pair(seed, recipe=Recipe(mappings=2))
    pair.establish()
    pair.a.initiate(1)
    pair.b.initiate(1)
    pair.world.settle()
    gateway = getattr(pair, side)
    kept = gateway.child(1)
    (redundant,) = (child for child in gateway.children(1) if child != kept)
    if not redundant.initiator:
        return  # the other side closes it
    pair.world.run_for(0.9)
    pair.world.default_weather = Weather(delay=(0.2, 0.2))
    gateway.do("rekey_child", redundant.tunnel, redundant.spi_in)
    pair.world.run_for(0.6)
    assert gateway.of(ChildReplaced)
    assert gateway.child(1) == kept
    pair.world.run_for(CLOSED + FORGOTTEN)
    pair.assert_one_tunnel(2)
    assert gateway.child(1) == kept


def test_a_redundant_child_is_kept_if_the_other_has_gone() -> None:
    pair = Pair(recipe=Recipe(mappings=2))
    pair.establish()
    pair.a.initiate(1)
    pair.b.initiate(1)
    pair.world.settle()
    kept = pair.a.child(1)
    pair.b.do("close_child", pair.b.tunnel, kept.spi_out)
    pair.world.run_for(CLOSED + FORGOTTEN)
    assert pair.a.sends(1)
    assert pair.b.sends(1)
    pair.assert_one_tunnel(2)


def test_what_was_asked_on_a_redundant_ike_sa_is_asked_on_the_other() -> None:
    """strongSwan drops one of two without a word if the other began with INITIAL_CONTACT (RFC 7296, 2.4)."""
    tried = 0
    for seed in range(8):
        pair = Pair(seed, recipe=Recipe(mappings=2))
        pair.a.initiate()
        pair.b.initiate()
        pair.world.run_until(lambda: len(established(pair.a)) == len(established(pair.b)) == 2)  # noqa: B023 (called within this turn)
        *_, newest = established(pair.a)
        if "DUPLICATE" not in newest.deadlines:
            continue
        tried += 1
        spis = newest.spi_i + newest.spi_r
        pair.world.interceptors.append(lambda d: [] if d.data.startswith(spis) else None)  # noqa: B023 (called within this turn)
        pair.a.initiate(1)
        pair.world.run_for(60)
        assert len(established(pair.a)) == 1
        assert pair.a.children(1)
    assert tried >= 2


@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize("seed", range(12))
def test_of_three_one_stays(first: str, seed: int) -> None:
    """Both ends begin another beside a young one: compared in pairs, each could lose to the next."""
    pair = Pair(seed)
    getattr(pair, first).initiate()
    pair.world.run_for(SETTLING)
    traffic = carried(pair)
    for gateway in (pair.a, pair.b):
        gateway.do("reinitiate", gateway.tunnel)
    pair.world.settle()
    assert len(established(pair.a)) == len(established(pair.b)) == 3
    assert_nothing_lost(pair, traffic)
    pair.assert_one_tunnel()
    assert not pair.a.of(PeerRenews) + pair.b.of(PeerRenews)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gap", [3.0, 9.0])
def test_what_both_ends_begin_soon_after_one_was_closed_has_another_reason(gap: float, seed: int) -> None:
    """It is no sign of a peer that makes another one of what is closed."""
    pair = Pair(seed)
    pair.establish()
    for _ in range(4):
        for gateway in (pair.a, pair.b):
            gateway.do("reinitiate", gateway.tunnel)
        pair.world.run_for(gap)
    pair.world.run_for(CLOSED + FORGOTTEN)
    assert not pair.a.of(PeerRenews) + pair.b.of(PeerRenews)
    pair.assert_one_tunnel()


def forget_one(pair: Pair, gateway: Gateway, spi_i: bytes) -> None:
    """The peer drops one of its IKE SAs and says nothing: strongSwan, after an INITIAL_CONTACT."""
    (gone,) = (one for one in established(gateway) if one.spi_i == spi_i)
    pair.world.interceptors.append(lambda d: [] if d.data.startswith(spi_i) else None)
    gateway.do("close", gateway.tunnel, Diagnosis.of(Code.PEER_RESTARTED), local_spi(gone))


def both_begun(seed: int, recipe: Recipe | None = None) -> Pair:
    """Both ends have begun, and each holds two IKE SAs, of which none is closed yet."""
    pair = Pair(seed, recipe=recipe)
    pair.a.initiate()
    pair.b.initiate()
    pair.world.run_until(lambda: len(established(pair.a)) == len(established(pair.b)) == 2)
    return pair


def by_the_rule(pair: Pair) -> tuple[bytes, bytes]:
    """The initiators' SPIs of the IKE SA that stays, if it answers, and of the redundant one."""
    kept, redundant = sorted(one.spi_i for one in established(pair.a))
    return kept, redundant


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("which", ["kept", "redundant"])
def test_the_one_of_two_that_the_peer_has_forgotten_is_the_one_that_goes(
    which: str, who: str, seed: int
) -> None:
    """Whichever it is and whichever side began it."""
    pair = both_begun(seed)
    peer, other = (pair.a, pair.b) if who == "a" else (pair.b, pair.a)
    kept, redundant = by_the_rule(pair)
    gone, stays = (kept, redundant) if which == "kept" else (redundant, kept)
    sent_on = other.child().spi_in
    (sending,) = (one.spi_i for one in established(other) if sent_on in one.children)
    forget_one(pair, peer, gone)
    traffic = carried(pair)
    pair.world.run_for(ANSWERS_WITHIN + 0.5)
    assert other.child().spi_in == peer.child().spi_out
    lost_until_now = len(traffic.lost)
    pair.world.run_for(CLOSED)
    traffic.stop()
    pair.world.run_for(FORGOTTEN)
    assert len(traffic.lost) <= lost_until_now + 20, "packets of 0.4 s may be on their way"
    assert sending == gone or not traffic.lost, "what is sent on is changed only to what has answered"
    assert [one.spi_i for one in established(other)] == [stays]
    pair.assert_one_tunnel()
    assert not other.of(PeerDead)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_closed_while_neither_of_two_answers(seed: int) -> None:
    """The network is away for a while: both ends hold both, and settle on the same one afterwards."""
    pair = both_begun(seed)
    pair.world.default_weather = Weather(loss=1.0)
    pair.world.run_for(10)
    assert len(established(pair.a)) == len(established(pair.b)) == 2
    pair.world.default_weather = Weather()
    pair.world.run_for(15 + FORGOTTEN)
    pair.assert_one_tunnel()
    assert pair.a.child().spi_in == pair.b.child().spi_out


@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("what", ["rekey_child", "rekey_ike"])
@pytest.mark.parametrize("which", ["kept", "redundant"])
def test_a_forgotten_one_and_a_rekey_of_either(which: str, what: str, who: str) -> None:
    """b has forgotten the one that stays; `who` rekeys what it holds: one tunnel is left, and carries."""
    for seed in SEEDS:
        pair = both_begun(seed)
        kept, redundant = by_the_rule(pair)
        forget_one(pair, pair.b, kept)
        rekeyed = kept if which == "kept" and who == "a" else redundant
        gateway = getattr(pair, who)
        (mine,) = (one for one in established(gateway) if one.spi_i == rekeyed)
        gateway.do(what, gateway.tunnel, local_spi(mine) if what == "rekey_ike" else mine.children[0])
        pair.world.run_for(CLOSED + 30)
        pair.assert_one_tunnel()
        traffic = carried(pair)
        pair.world.run_for(5)
        traffic.stop()
        pair.world.run_for(FORGOTTEN)
        assert traffic.lost == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("begins_again", [False, True])
def test_what_the_peer_makes_beside_another_is_sent_on_once_the_peer_has_it(
    begins_again: bool, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our answer takes its time to arrive, and to be worked on; ESP that is faster would be lost."""
    pair = Pair(seed)
    pair.establish()
    if begins_again:
        closes_nothing(pair.a, monkeypatch)
    traffic = Traffic(pair.world, delay=(0.001, 0.001))
    traffic.start()
    pair.world.run_for(0.005)
    pair.b.do("reinitiate", pair.b.tunnel)
    assert_nothing_lost(pair, traffic)
