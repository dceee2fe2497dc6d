"""The SAD, and an SA's limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.datapath.parts import GCM, child, keys_for, udp_packet
from vpnd.crypto.entropy import SeededEntropy
from vpnd.crypto.suites import as_cut
from vpnd.datapath.esp import make_opener
from vpnd.datapath.sad import SEQUENCE_RESERVE, Sad, SaPair
from vpnd.model.policy import Lifetimes, Margin
from vpnd.model.proposals import Suite


def pair(spi_in: int = 0x1001, mapping: int = 0, **more: object) -> SaPair:
    return SaPair(child(spi_in, mapping=mapping, **more), SeededEntropy(spi_in), 1500)  # type: ignore[arg-type]  # fields by their names


def test_sas_are_found_by_spi_and_by_mapping() -> None:
    sad, first, second = Sad(), pair(0x1001), pair(0x1002, mapping=1)
    sad.install(first, outbound=True)
    sad.install(second, outbound=True)
    assert sad.by_spi(0x1001) is first
    assert sad.outbound["t", 1] is second
    assert sad.of_tunnel("t") == [first, second]
    assert sad.of_tunnel("u") == []
    with pytest.raises(ValueError, match="00001001"):
        sad.install(pair(0x1001), outbound=False)


def test_a_successor_carries_outbound_at_once_and_the_old_one_goes_on_receiving() -> None:
    sad, old, new = Sad(), pair(0x1001), pair(0x1002)
    sad.install(old, outbound=True)
    sad.install(new, outbound=False)
    assert sad.outbound["t", 0] is old
    sad.use_outbound(new)
    assert sad.outbound["t", 0] is new
    assert sad.by_spi(0x1001) is old
    # Removing the old one does not take the new one's place away.
    assert sad.remove(0x1001) is old
    assert sad.outbound["t", 0] is new
    assert sad.remove(0x1002) is new
    assert sad.outbound == {}
    assert sad.remove(0x1002) is None


def test_two_peers_may_choose_one_spi_for_us_to_send_on() -> None:
    sad = Sad()
    first, second = pair(0x1001, spi_out=0x7777), pair(0x1002, spi_out=0x7777, mapping=1)
    sad.install(first, outbound=True)
    sad.install(second, outbound=True)
    assert sad.outbound["t", 0] is first
    assert sad.outbound["t", 1] is second


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("margin", "least", "most"),
    [(Margin(), 0.8, 0.9), (Margin(30, 0), 0.7, 0.7), (Margin(5, 50), 0.925, 0.95)],
)
def test_the_soft_limit_is_the_margin_before_the_end(
    seed: int, margin: Margin, least: float, most: float
) -> None:
    sa = SaPair(child(lifetimes=Lifetimes(3600, 1000, margin)), SeededEntropy(seed), 1500)
    assert sa.hard_bytes == 1_024_000
    assert sa.soft_bytes is not None
    assert int(least * sa.hard_bytes) <= sa.soft_bytes <= most * sa.hard_bytes


@pytest.mark.parametrize(("first", "then", "left"), [(None, 500, 500), (1000, 500, 500), (300, 500, 300)])
def test_of_two_limits_the_lower_one_counts(first: int | None, then: int, left: int) -> None:
    sa = SaPair(child(lifetimes=Lifetimes(3600, first)), SeededEntropy(1), 1500)
    sa.limit_bytes(then, SeededEntropy(2))
    assert sa.hard_bytes == left * 1024
    assert sa.soft_bytes is not None
    assert 0.8 * sa.hard_bytes - 1 <= sa.soft_bytes <= 0.9 * sa.hard_bytes


@pytest.mark.parametrize("size", [32, 64, 1024, 4096])
def test_the_window_is_the_one_of_the_policy(size: int) -> None:
    sa = SaPair(replace(child(), replay_window=size), SeededEntropy(1), 1500)
    sa.window.accept(10_000)
    assert sa.window.check(10_000 - size + 1)
    assert not sa.window.check(10_000 - size)


def test_an_icv_of_96_bits_is_the_beginning_of_the_whole_one() -> None:
    whole = Suite("aes-128", None, "sha256", None)
    ours, theirs = (SaPair(child(suite=as_cut(whole, cut)), SeededEntropy(1), 1500) for cut in (True, False))
    packet = udp_packet("10.1.0.1", "10.2.0.1")
    short, long = (b"".join(sa.sealer.seal([packet], 0, 1, 4)) for sa in (ours, theirs))
    assert long.startswith(short)
    assert len(long) - len(short) == 4
    assert ours.limit >= theirs.limit
    reader = make_opener(as_cut(whole, True), keys_for(whole, 2))
    assert reader.open(short, 0, len(short), 1, (1,)) != [None]
    assert reader.open(long, 0, len(long), 1, (1,)) == [None]


def test_limits_by_bytes_are_for_each_direction() -> None:
    sa = pair(lifetimes=Lifetimes(3600, 10))
    assert sa.sendable(20, 1000) == 10
    sa.bytes_out = 9000
    assert sa.sendable(20, 1000) == 1
    assert sa.sendable(20, 1241) == 0
    assert not sa.is_used_up()
    assert not pair(lifetimes=Lifetimes(3600, 10)).should_be_replaced()
    assert not sa.should_be_replaced() or sa.bytes_out >= (sa.soft_bytes or 0)
    sa.bytes_out, sa.bytes_in = 0, 10240
    assert sa.is_used_up()
    assert sa.should_be_replaced()


@pytest.mark.parametrize(("suite", "end"), [(GCM, 2**32 - 1), (replace(GCM, esn=True), 2**64 - 1)])
def test_sequence_numbers_never_wrap(suite: Suite, end: int) -> None:
    sa = pair(suite=suite)
    assert not sa.should_be_replaced()
    sa.sequence = end - SEQUENCE_RESERVE - 1
    assert not sa.should_be_replaced()
    sa.sequence += 1
    assert sa.should_be_replaced()
    sa.sequence = end - 2
    assert sa.sendable(5, 1000) == 2
    assert not sa.is_used_up()
    sa.sequence = end
    assert sa.sendable(5, 1000) == 0
    assert sa.is_used_up()


def test_the_peers_sequence_numbers_count_as_well() -> None:
    sa = pair()
    assert sa.window.accept(2**32 - SEQUENCE_RESERVE)
    assert sa.should_be_replaced()


def test_stats_are_a_snapshot() -> None:
    sa = pair()
    sa.packets_in, sa.bytes_out, sa.last_in = 3, 5, 7.0
    before = sa.stats()
    sa.packets_in = 4
    assert (before.packets_in, before.bytes_out, before.last_in) == (3, 5, 7.0)
