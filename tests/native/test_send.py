"""From the TUN to the network: the same commands and packets, the same trains, notices and counters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.native.both import Both
from tests.native.packets import ip_packets, ipv4, nearly
from tests.unit.datapath.parts import (
    CBC,
    EVERYTHING,
    GCM,
    LOCAL,
    LOCAL6,
    REMOTE,
    REMOTE6,
    child,
    selector,
    tcp_packet,
    udp_packet,
)
from vpnd.datapath.interface import PolicyRow
from vpnd.model.child import ChildSa, Path
from vpnd.model.policy import Lifetimes, Margin
from vpnd.model.proposals import Suite
from vpnd.model.selectors import Selector
from vpnd.wire.ip import set_traffic_class

PATH, PATH6 = Path(LOCAL, 4500, REMOTE, 4500), Path(LOCAL6, 4500, REMOTE6, 4501)
SUITES = (GCM, CBC, Suite("chacha20-poly1305", None, None, None, esn=True), Suite("3des", None, "md5", None))
ROWS = (
    (PolicyRow(0, EVERYTHING, EVERYTHING),),
    (
        PolicyRow(0, (selector("10.1.0.0/16"),), (selector("10.2.0.0/16"),)),
        PolicyRow(1, (selector("fd01::/16"),), (selector("fd02::/16"), selector("ff00::/8"))),
    ),
    (
        PolicyRow(0, (selector("0.0.0.0/0", 17, (1000, 1003)),), EVERYTHING),
        PolicyRow(1, EVERYTHING, (selector("0.0.0.0/0", 6), selector("::/0", 6, (80, 90)))),
        PolicyRow(2, (selector("10.1.0.0/16"), selector("::/0", 58)), EVERYTHING),
    ),
)

addresses = st.sampled_from([("10.1.0.1", "10.2.0.1"), ("10.1.0.2", "10.2.0.1"), ("fd01::1", "fd02::1")])


@st.composite
def flows(draw: st.DrawFn) -> list[bytes]:
    """Packets of a flow that mostly have one length, some of them marked or larger than the path."""
    hosts, ports = draw(addresses), draw(st.sampled_from([(1000, 2000), (1003, 80), (5, 80)]))
    size = draw(st.sampled_from([60, 80, 200, 600, 1300, 1400, 1480, 2900]))
    packets = [udp_packet(*hosts, size, ports)] * draw(st.integers(1, 6))
    if draw(st.booleans()):
        packets.append(udp_packet(*hosts, draw(st.integers(60, size)), ports))
    if draw(st.booleans()):
        marked = bytearray(packets[0])
        set_traffic_class(marked, draw(st.integers(0, 255)))
        packets.insert(draw(st.integers(0, len(packets))), bytes(marked))
    if packets[0][0] == 0x45 and draw(st.booleans()):
        packets = [packet[:6] + bytes(2) + packet[8:] for packet in packets]
    return packets


@st.composite
def segments(draw: st.DrawFn) -> list[bytes]:
    hosts = draw(addresses)
    options = draw(st.sampled_from([b"", b"\x02\x04\x05\xb4", b"\x01\x02\x04\x23\x00\x00\x00\x00"]))
    flags = draw(st.sampled_from([0x02, 0x12, 0x10, 0x10]))
    data = bytes(draw(st.sampled_from([0, 10, 500, 1348])))
    return [
        tcp_packet(*hosts, index, data, flags, options, ports=(1003, 85))
        for index in range(draw(st.integers(1, 5)))
    ]


odd = (ip_packets | ipv4() | nearly().filter(bool)).map(lambda packet: [packet])
batches = st.lists(flows() | flows() | segments() | odd, min_size=1, max_size=6).map(
    lambda parts: [packet for part in parts for packet in part][:60]
)


@st.composite
def children(draw: st.DrawFn) -> ChildSa:
    narrowed: tuple[tuple[Selector, ...], ...] = (
        EVERYTHING,
        EVERYTHING,
        (selector("10.1.0.0/24"), selector("fd01::/16")),
        (selector("0.0.0.0/0", 17), selector("::/0")),
        (selector("0.0.0.0/0", 17, (1000, 1003)),),
    )
    kilobytes = draw(st.sampled_from([None, None, None, 1, 4, 20]))
    return child(
        spi_in=draw(st.sampled_from([0x1001, 0x1002, 0x1003])),
        spi_out=draw(st.sampled_from([0x2001, 0x2002])),
        suite=draw(st.sampled_from(SUITES)),
        mapping=draw(st.sampled_from([0, 0, 0, 1, 2])),
        udp=draw(st.booleans()),
        lifetimes=Lifetimes(3600, kilobytes, Margin(10, 0)),
        local=draw(st.sampled_from(narrowed)),
        path=draw(st.sampled_from([PATH, PATH6])),
    )


hosts_kept = st.none() | st.lists(st.sampled_from(["10.1.0.1", "10.2.0.1", "fd01::1"]), max_size=2).map(
    lambda texts: [ip_address(text) for text in texts]
)
commands = st.one_of(
    *[st.tuples(st.just("send"), batches)] * 4,
    *[st.tuples(st.just("install"), st.tuples(children(), st.sampled_from([True, True, False])))] * 3,
    st.tuples(st.just("use_outbound"), st.sampled_from([0x1001, 0x1002, 0x1003, 0x9999])),
    st.tuples(st.just("remove"), st.sampled_from([0x1001, 0x1002, 0x9999])),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.5, 1.0, 29.5, 31.0])),
    st.tuples(st.just("replace_policies"), st.sampled_from(ROWS)),
    st.tuples(
        st.just("set_limits"), st.tuples(st.sampled_from([None, 600, 1400]), st.sampled_from([None, 500]))
    ),
    st.tuples(st.just("set_mtu"), st.sampled_from([0, 576, 1280, 1500, 9000])),
    st.tuples(st.just("interrupt"), hosts_kept),
)


@contextmanager
def engines() -> Iterator[Both]:
    both = Both()
    try:
        yield both
    finally:
        both.close()


@settings(max_examples=300)
@given(st.sampled_from(ROWS), st.none() | children(), st.lists(commands, min_size=1, max_size=14))
def test_any_commands_and_packets_have_the_same_outcome(
    rows: tuple[PolicyRow, ...], first: ChildSa | None, steps: list[tuple[str, Any]]
) -> None:
    with engines() as both:
        both.replace_policies(rows)
        if first is not None:
            both.install(first, True)
        for what, argument in steps:
            if what == "wait":
                both.now += float(str(argument))
            elif what in ("install", "set_limits"):
                getattr(both, what)(*argument)
            else:
                getattr(both, what)(argument)


# ------------------------------------------------- what generated packets reach only now and then


def test_a_run_leaves_as_one_train_with_a_shorter_last_packet() -> None:
    with engines() as both:
        both.replace_policies(ROWS[0])
        both.install(child(), True)
        packets = [udp_packet("10.1.0.1", "10.2.0.1", 1000)] * 20 + [udp_packet("10.1.0.1", "10.2.0.1", 300)]
        trains, *_ = both.send([*packets, *packets])
        assert [len(train[4]) for train in trains] == [21, 21]


def test_flow_labels_do_not_end_a_run() -> None:
    with engines() as both:
        both.replace_policies(ROWS[0])
        both.install(child(), True)
        small = udp_packet("fd01::1", "fd02::1", 60)
        labelled = small[:2] + b"\x20" + small[3:]
        trains, *_ = both.send([udp_packet("fd01::1", "fd02::1", 1000), small, labelled, small])
        assert [len(train[4]) for train in trains] == [1, 3]


def test_packets_that_wait_leave_with_their_sa_and_the_others_are_counted() -> None:
    with engines() as both:
        both.replace_policies(ROWS[0])
        _, _, notices, drops, _ = both.send([udp_packet("10.1.0.1", "10.2.0.1", 100)] * 20)
        assert [notice[0] for notice in notices] == ["Acquire"]
        assert sum(drops) == 4
        outcome = both.install(child(), True)
        assert outcome is not None
        assert [len(train[4]) for train in outcome[0]] == [16]


def test_an_sa_is_replaced_and_then_carries_nothing_more() -> None:
    with engines() as both:
        both.replace_policies(ROWS[0])
        both.install(child(lifetimes=Lifetimes(3600, 2, Margin(10, 0))), True)
        told: list[object] = []
        for _ in range(30):
            _, _, notices, drops, _ = both.send([udp_packet("10.1.0.1", "10.2.0.1", 100)])
            told += [notice[0] for notice in notices]
        assert told == ["SoftLimit", "HardLimit"]
        assert sum(drops) == 10


def test_a_large_packet_is_refused_with_an_error_at_a_limited_rate() -> None:
    with engines() as both:
        both.replace_policies(ROWS[0])
        both.install(child(), True)
        large = udp_packet("10.1.0.1", "10.2.0.1", 1480)
        written = [len(both.send([large] * 40)[1]) for _ in range(4)]
        assert sum(written) == 100
        both.now += 0.125
        assert len(both.send([large] * 40)[1]) == 12


def test_packets_go_where_the_peer_has_moved() -> None:
    with engines() as both:
        both.replace_policies(ROWS[0])
        sa = child()
        both.install(sa, True)
        both.move(sa, replace(PATH, remote=ip_address("192.0.2.77"), remote_port=1234))
        ((_, to, port, *_),), *_ = both.send([udp_packet("10.1.0.1", "10.2.0.1", 100)])
        assert (to, port) == ("192.0.2.77", 1234)


def test_what_has_waited_too_long_does_not_leave() -> None:
    for waited, left in ((29.5, 1), (30.0, 0)):
        with engines() as both:
            both.replace_policies(ROWS[0])
            both.send([udp_packet("10.1.0.1", "10.2.0.1", 100)])
            both.now += waited
            outcome = both.install(child(), True)
            assert outcome is not None
            assert sum(len(train[4]) for train in outcome[0]) == left


def test_an_sa_is_asked_for_once_a_second() -> None:
    with engines() as both:
        both.replace_policies(ROWS[0])
        asked = []
        for _ in range(5):
            asked.append(len(both.send([udp_packet("10.1.0.1", "10.2.0.1", 100)])[2]))
            both.now += 0.5
        assert asked == [1, 0, 1, 0, 1]


def test_an_ipv6_packet_that_every_link_carries_is_never_refused() -> None:
    with engines() as both:
        both.replace_policies(ROWS[0])
        both.install(child(path=PATH6), True)
        both.set_mtu(1280)
        for size, sent in ((1280, 1), (1281, 0)):
            trains, written, *_ = both.send([udp_packet("fd01::1", "fd02::1", size)])
            assert (len(trains), len(written)) == (sent, 1 - sent)


def test_the_mss_of_a_syn_is_brought_down_in_the_packet_that_leaves() -> None:
    syn = tcp_packet("10.1.0.1", "10.2.0.1", 1, b"", 0x02, b"\x02\x04\x05\xb4")
    for mss, wanted in ((None, 1398), (1000, 1000)):
        with engines() as both:
            both.replace_policies(ROWS[0])
            sa = child()
            both.install(sa, True)
            both.set_limits(None, mss)
            ((*_, (packet,), _),), *_ = both.send([syn])
            (plaintext,) = both.spis[sa.spi_in].open(packet, 0, len(packet), 1, (1,))
            assert plaintext is not None
            assert int.from_bytes(plaintext[42:44]) == wanted
