"""Selectors: which mapping carries a packet, remembered or not, with every kind of row."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.engines import NativeModule
from tests.native.packets import FEW, HOSTS4, HOSTS6, any_bytes, ip_packets
from tests.native.test_wire import many, outcome
from vpnd.datapath.spd import Row, SelectorTable
from vpnd.model.selectors import Address, Selector

vpnd_engine = NativeModule()


@st.composite
def selectors(draw: st.DrawFn) -> Selector:
    hosts = draw(st.sampled_from([HOSTS4, HOSTS6]))
    ends = sorted((ip_address(draw(st.sampled_from(hosts))) for _ in range(2)), key=int)
    if draw(st.booleans()):
        # Whatever the family has: else most packets would be of no mapping.
        ends = [ip_address(bytes(len(ends[0].packed))), ip_address(b"\xff" * len(ends[0].packed))]
    protocol = draw(st.sampled_from([0, 0, 0, 1, 6, 17, 58, 253]))
    ports = draw(
        st.sampled_from([(0, 65535), (0, 65535), (0, 1023), (80, 80), (2048, 2303), (0, 0), (65535, 0)])
    )
    return Selector(ends[0], ends[1], protocol, *ports)


sides = st.lists(selectors(), min_size=1, max_size=3).map(tuple)
tables = st.lists(st.tuples(sides, sides), max_size=4).map(
    lambda pairs: tuple(Row(index, *pair) for index, pair in enumerate(pairs))
)
addresses = st.sampled_from([ip_address(text) for text in (*HOSTS4, *HOSTS6)])

Side = list[tuple[Address, Address, int, int, int]]


def side(kept: tuple[Selector, ...]) -> Side:
    """Selectors as the native table takes them."""
    return [(s.start, s.end, s.protocol, s.port_start, s.port_end) for s in kept]


def both(rows: tuple[Row, ...], martians: bool, own: list[Address]) -> tuple[Any, SelectorTable]:
    given_rows = [(row.mapping, side(row.sources), side(row.destinations)) for row in rows]
    return vpnd_engine.SelectorTable(given_rows, martians, own), SelectorTable(rows, martians, frozenset(own))


def remembered_or_found(table: SelectorTable, packet: bytes) -> int:
    """As the engine looks a packet up: in the flows first."""
    key = packet[12:20] if packet and packet[0] >> 4 == 4 else packet[8:40]
    known = table.flows.get(key)
    return table.lookup(packet) if known is None else known


@many
@given(
    tables,
    st.booleans(),
    st.lists(addresses, max_size=2),
    st.none() | st.lists(addresses, max_size=2),
    st.none() | st.tuples(addresses, addresses),
    st.lists(ip_packets, max_size=6),
)
def test_tables_answer_alike(
    rows: tuple[Row, ...],
    martians: bool,
    own: list[Address],
    keep: list[Address] | None,
    probed: tuple[Address, Address] | None,
    packets: list[bytes],
) -> None:
    ours, theirs = both(rows, martians, own)
    assert ours.by_address is theirs.by_address
    for step in range(3):
        if step == 1:
            ours.interrupt(keep)
            theirs.interrupt(None if keep is None else frozenset(keep))
        if step == 2 and probed is not None:
            ours.tell_probes(*probed)
            same_family = probed[0].version == probed[1].version
            theirs.tell_probes(probed[0].packed + probed[1].packed if same_family else None)
        for packet in packets * 2:
            assert outcome(partial(ours.lookup, packet)) == outcome(
                partial(remembered_or_found, theirs, packet)
            )
            assert outcome(partial(ours.decide, packet)) == outcome(partial(theirs.lookup, packet))


@FEW
@given(tables, any_bytes)
def test_any_bytes_are_decided_alike(rows: tuple[Row, ...], packet: bytes) -> None:
    ours, theirs = both(rows, True, [])
    assert outcome(lambda: ours.decide(packet)) == outcome(lambda: theirs.lookup(packet))


def test_a_flood_of_flows_is_forgotten_by_both() -> None:
    everything = (Selector(ip_address("0.0.0.0"), ip_address("255.255.255.255")),)
    ours, theirs = both((Row(7, everything, everything),), False, [])
    for number in range(9000):
        packet = bytes((0x45, 0, 0, 20)) + bytes(8) + number.to_bytes(4) + bytes(4)
        assert ours.lookup(packet) == theirs.lookup(packet) == 7


@FEW
@given(selectors(), selectors())
def test_one_selector_covers_another_alike(first: Selector, second: Selector) -> None:
    assert vpnd_engine.covers(side((first, second))) is first.covers(second)
