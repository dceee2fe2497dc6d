"""From the network to the TUN: the same commands and datagrams, the same writes, notices and counters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.native.both import Arrival, Both
from tests.native.packets import any_bytes, ip_packets
from tests.native.test_send import PATH6, ROWS, batches, children, hosts_kept
from tests.unit.datapath.parts import CBC, EVERYTHING, GCM, child, selector, tcp_packet, udp_packet
from vpnd.crypto.entropy import SeededEntropy
from vpnd.crypto.suites import ENCRYPTIONS
from vpnd.datapath.esp import ALIGNMENT, make_sealer, trailer
from vpnd.model.child import ChildSa
from vpnd.model.policy import Lifetimes, Margin
from vpnd.wire.icmp import Echo
from vpnd.wire.ip import set_traffic_class

HOSTS = ("10.2.0.1", "10.1.0.1")
SPIS = (0x1001, 0x1002, 0x1003)
FAR = (1 << 32) - 20
"""Near the end of 32 bits: where numbers end, or where the upper half of them counts one more."""


class BadTrailer:
    """In place of a sealer's trailers: one with a byte of its padding, or the length of it, that is wrong."""

    def __init__(self, alignment: int, at: int) -> None:
        self.alignment = alignment
        self.at = at

    def after(self, inner: int, next_header: int) -> bytes:
        tail = bytearray(trailer(inner, self.alignment, next_header))
        tail[self.at % (len(tail) - 1)] ^= 0x41
        return bytes(tail)


@dataclass(frozen=True)
class Item:
    """One ESP packet of the peer's: its packet, its number beyond the last one, and what is wrong with it."""

    packet: bytes
    step: int = 1
    fault: str = ""
    at: int = 0


class Peer:
    """The other end of each SA: seals what the engines receive."""

    def __init__(self) -> None:
        self.sas: dict[int, ChildSa] = {}
        self.numbers: dict[int, int] = {}

    def learn(self, sa: ChildSa) -> None:
        self.sas[sa.spi_in] = sa
        self.numbers.setdefault(sa.spi_in, 0)

    def seal(self, spi: int, item: Item) -> bytes:
        sa = self.sas.get(spi)
        if sa is None:
            return spi.to_bytes(4) + item.packet[:60]
        limit = (1 << 64 if sa.suite.esn else 1 << 32) - 1
        number = self.numbers[spi] = min(max(self.numbers[spi] + item.step, 0), limit)
        sealer: Any = make_sealer(sa.suite, sa.keys_in, spi, SeededEntropy(number))
        if item.fault == "padding":
            alignment = max(ENCRYPTIONS[sa.suite.encryption].block, ALIGNMENT)
            vars(sealer)["_trailers"] = BadTrailer(alignment, item.at)
        packet = item.packet or b"\0"
        if item.fault == "confidential":
            packet += bytes(item.at % 50)
        next_header = {"dummy": 59, "next header": item.at % 256}.get(
            item.fault, 4 if packet[0] >> 4 == 4 else 41
        )
        esp = b"".join(sealer.seal([packet], 0, number, next_header))
        if item.fault == "damaged":
            at = item.at % len(esp)
            esp = esp[:at] + bytes((esp[at] ^ 1 << item.at % 8,)) + esp[at + 1 :]
        return esp[: item.at % len(esp)] if item.fault == "short" else esp


# --------------------------------------------------------------------------------- what arrives

hosts = st.sampled_from([HOSTS, HOSTS, ("10.2.0.1", "10.1.0.2"), ("fd02::1", "fd01::1")])
faults = st.sampled_from(
    [""] * 6 + ["damaged", "short", "padding", "dummy", "confidential", "confidential", "next header"]
)


@st.composite
def trains(draw: st.DrawFn) -> list[bytes]:
    """TCP segments of one or two flows, most of which follow each other."""
    ends, options = draw(hosts), draw(st.sampled_from([b"", b"\x01\x01\x08\x0a" + bytes(8)]))
    size = draw(st.sampled_from([63, 64, 65, 500, 1000, 1348]))
    packets, start = [], draw(st.sampled_from([1, (1 << 32) - 3000]))
    for index in range(draw(st.integers(1, 12))):
        change = draw(
            st.sampled_from([""] * 12 + ["gap", "push", "short", "flow", "ack", "mark", "sum", "ip"])
        )
        flags = {"push": 0x18, "ack": draw(st.sampled_from([0x11, 0x02, 0x14, 0x50]))}.get(change, 0x10)
        data = bytes((index,)) * (draw(st.integers(0, size)) if change == "short" else size)
        port = 5202 if change == "flow" else 5201
        sequence = start + index * size + (change == "gap")
        packet = bytearray(
            tcp_packet(*ends, sequence, data, flags, options, (40000, port), window=500 + (change == "gap"))
        )
        if packet[0] == 0x45:
            packet[4:6] = index.to_bytes(2)
            packet[10:12] = (int.from_bytes(packet[10:12]) - index).to_bytes(2, signed=False)
        if change == "mark":
            set_traffic_class(packet, draw(st.integers(0, 255)))
        elif change == "sum":
            packet[-1] ^= 0xFF
        elif change == "ip":
            packet[draw(st.integers(0, 11))] ^= 1 << draw(st.integers(0, 7))
        packets.append(bytes(packet))
    return packets


@st.composite
def datagrams(draw: st.DrawFn) -> list[bytes]:
    ends = draw(hosts)
    size = draw(st.sampled_from([60, 200, 1000, 1380]))
    packets = [
        udp_packet(*ends, size, (1000 + draw(st.integers(0, 1)), 9)) for _ in range(draw(st.integers(1, 6)))
    ]
    if draw(st.booleans()):
        marked = bytearray(packets[-1])
        set_traffic_class(marked, draw(st.integers(0, 255)))
        packets.append(bytes(marked))
    return packets


@st.composite
def probes(draw: st.DrawFn) -> list[bytes]:
    echo = Echo(
        ip_address("10.2.0.9"),
        ip_address("10.1.0.9"),
        draw(st.booleans()),
        7,
        8,
        bytes(draw(st.integers(0, 1400))),
    )
    packet = echo.encode()
    if draw(st.integers(0, 5)) == 0:
        packet = packet[:-1] + bytes((packet[-1] ^ 1,)) if len(packet) > 28 else packet[:-2]
    return [packet] * draw(st.integers(1, 3))


@st.composite
def syns(draw: st.DrawFn) -> list[bytes]:
    options = draw(st.sampled_from([b"", b"\x02\x04\x05\xb4", b"\x01\x02\x04\x23\x00\x00\x00\x00"]))
    return [tcp_packet(*draw(hosts), 1, b"", draw(st.sampled_from([0x02, 0x12])), options)]


inner = st.one_of(
    trains(), trains(), datagrams(), probes(), syns(), st.lists(any_bytes | ip_packets, max_size=2)
)
steps = st.sampled_from([1] * 30 + [0, 0, -1, -3, 2, 3, 40, -40, FAR, -FAR])


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    disturbed = draw(st.booleans())
    return [
        Item(packet, draw(steps), draw(faults), draw(st.integers(0, 5000))) if disturbed else Item(packet)
        for packet in draw(inner)
    ]


senders = st.sampled_from(
    [("192.0.2.2", 4500)] * 6 + [("192.0.2.2", 1234), ("192.0.2.77", 4500), ("2001:db8::2", 4501)]
)


@st.composite
def batch(
    draw: st.DrawFn,
) -> tuple[list[tuple[list[tuple[int, Item]], int, tuple[str, int], bool, bytes, int]], int]:
    """Datagrams: ESP packets, traffic class, sender, whether the kernel joins them, and what is not ESP."""
    arrived = []
    for _ in range(draw(st.integers(1, 4))):
        spi = draw(st.sampled_from([*SPIS, 0x1001, 0x1001, 0x1001, 0x9999, 0]))
        parts = [(spi, item) for item in draw(items())]
        if draw(st.integers(0, 5)) == 0:
            other = draw(st.sampled_from(SPIS))
            parts = [(other if draw(st.booleans()) else spi, item) for spi, item in parts]
        more = draw(st.sampled_from([b""] * 6 + [b"\xff", bytes(4) + b"ike", bytes(3), b"\x12\x34"]))
        joins, length = (
            draw(st.sampled_from([True, True, True, False])),
            draw(st.sampled_from([0] * 9 + [1, 7, 40])),
        )
        mark = draw(st.sampled_from([0, 0, 0, 0, 1, 2, 3, 0xB8, 0xFF]))
        arrived.append((parts, mark, draw(senders), joins, more, length))
    return arrived, draw(st.sampled_from([4500, 4500, 4500, 0]))


class Pair:
    """Both engines and their peer."""

    def __init__(self, both: Both) -> None:
        self.both = both
        self.peer = Peer()

    def install(self, sa: ChildSa, outbound: bool = True) -> None:
        if self.both.install(sa, outbound) is not None:
            self.peer.numbers[sa.spi_in] = 0
            self.peer.learn(sa)

    def arrive(self, arrived: Sequence[Any], port: int) -> Any:
        made = []
        for parts, mark, sender, joins, more, length in arrived:
            packets = [self.peer.seal(spi, item) for spi, item in parts]
            to = (sender[0], sender[1] if port else 0)
            if not joins:
                made += [Arrival(packet, len(packet), mark, to) for packet in [*packets, more] if packet]
                continue
            for size, alike in groupby(packets, key=len):
                data = b"".join(alike) + (more if len(more) <= size else b"")
                if data:
                    made.append(Arrival(data, length or size, mark, to))
        return self.both.receive(made, port)


@contextmanager
def engines(vnet_header: bool = True) -> Iterator[Pair]:
    both = Both(vnet_header)
    try:
        yield Pair(both)
    finally:
        both.close()


commands = st.one_of(
    *[st.tuples(st.just("arrive"), batch())] * 8,
    *[st.tuples(st.just("install"), st.tuples(children(), st.sampled_from([True, False])))] * 2,
    st.tuples(st.just("send"), batches),
    st.tuples(st.just("use_outbound"), st.sampled_from([*SPIS, 0x9999])),
    st.tuples(st.just("remove"), st.sampled_from([*SPIS, 0x9999])),
    st.tuples(st.just("move"), st.sampled_from([*SPIS])),
    st.tuples(st.just("limit"), st.tuples(st.sampled_from([*SPIS]), st.sampled_from([1, 4, 1000]))),
    st.tuples(st.just("wait"), st.sampled_from([0.001, 0.5, 1.0, 31.0])),
    st.tuples(st.just("replace_policies"), st.sampled_from(ROWS)),
    st.tuples(st.just("set_mtu"), st.sampled_from([0, 1280, 1500])),
    st.tuples(st.just("interrupt"), hosts_kept),
    st.tuples(st.just("probes"), st.sampled_from([("10.1.0.9", "10.2.0.9"), ("fd01::1", "fd02::1")])),
    st.tuples(st.just("own"), st.sampled_from([(), ("10.2.0.1",), ("fd02::1",)])),
)


def follow(pair: Pair, what: str, argument: Any) -> None:
    both = pair.both
    match what:
        case "wait":
            both.now += argument
        case "install":
            pair.install(*argument)
        case "arrive":
            pair.arrive(*argument)
        case "move":
            sa = pair.peer.sas.get(argument)
            if sa is not None:
                both.move(sa, replace(sa.path, remote=ip_address("192.0.2.77")))
        case "limit":
            sa = pair.peer.sas.get(argument[0])
            if sa is not None:
                both.limit(sa, argument[1])
        case "probes":
            both.answer_probes(*map(ip_address, argument))
        case "own":
            both.own([ip_address(text) for text in argument])
        case "remove":
            both.remove(argument)
            pair.peer.sas.pop(argument, None)
        case _:
            getattr(both, what)(argument)


@settings(max_examples=300)
@given(
    st.booleans(),
    st.lists(children().map(lambda sa: replace(sa, spi_in=0x1001)) | children(), min_size=1, max_size=2),
    st.lists(commands, min_size=1, max_size=12),
)
def test_any_commands_and_datagrams_have_the_same_outcome(
    vnet_header: bool, sas: list[ChildSa], steps: list[tuple[str, Any]]
) -> None:
    with engines(vnet_header) as pair:
        pair.both.replace_policies(ROWS[0])
        pair.both.answer_probes(ip_address("10.1.0.9"), ip_address("10.2.0.9"))
        for sa in sas:
            pair.install(sa)
        for what, argument in steps:
            follow(pair, what, argument)


# ------------------------------------------------- what generated datagrams reach only now and then


def joined(pair: Pair, packets: Sequence[bytes], spi: int = 0x1001, mark: int = 0) -> Any:
    arrived = [([(spi, Item(packet)) for packet in packets], mark, ("192.0.2.2", 4500), True, b"", 0)]
    return pair.arrive(arrived, 4500)


def segments(count: int, size: int = 1000, ends: tuple[str, str] = HOSTS, start: int = 1) -> list[bytes]:
    return [
        tcp_packet(*ends, start + index * size, bytes((index,)) * size, 0x18 if index == count - 1 else 0x10)
        for index in range(count)
    ]


@pytest.mark.parametrize("ends", [HOSTS, ("fd02::1", "fd01::1")])
@pytest.mark.parametrize("size", [999, 1000])
def test_segments_become_one_write(ends: tuple[str, str], size: int) -> None:
    with engines() as pair:
        pair.install(child())
        _, writes, *_ = joined(pair, segments(40, size, ends))
        headers = 40 if ends == HOSTS else 60
        assert [len(write) for write in writes] == [10 + headers + 40 * size]


def test_a_train_has_at_most_65535_bytes() -> None:
    with engines() as pair:
        pair.install(child())
        _, writes, *_ = joined(pair, segments(100))
        assert [len(write) for write in writes] == [65050, 34 * 1000 + 50 + 1000]


def test_a_damaged_segment_is_not_made_good() -> None:
    with engines() as pair:
        pair.install(child())
        packets = segments(10)
        packets[4] = packets[4][:-1] + b"\xee"
        _, writes, *_ = joined(pair, packets)
        assert writes == [bytes(10) + packet for packet in packets]


def test_two_faults_that_cancel_show_in_the_native_engine_alone() -> None:
    """As a fault of one in 65,536 does not show in its own checksum."""
    with engines() as pair:
        pair.install(child())
        packets = segments(10)
        for at, step in ((4, 3), (6, -3)):
            hurt = bytearray(packets[at])
            hurt[36:38] = (int.from_bytes(hurt[36:38]) + step).to_bytes(2)
            packets[at] = bytes(hurt)
        (write,) = joined(pair, packets)[1]
        came = [("t", bytes(10) + packet) for packet in packets]
        alike = pair.both.are_alike
        assert alike([("t", write)], came)
        assert not alike([("t", write)], came[:-1])
        assert not alike([("t", write[:-1] + b"x")], came)
        assert not alike([("t", write)], [*came[:6], ("t", bytes(10) + segments(10)[6]), *came[7:]])


def test_without_a_header_each_packet_is_written_as_it_is() -> None:
    with engines(vnet_header=False) as pair:
        pair.install(child())
        packets = segments(10)
        assert joined(pair, packets)[1] == packets


def test_the_first_packet_of_an_sa_that_is_not_sent_on_is_news() -> None:
    with engines() as pair:
        pair.install(child(), outbound=False)
        told = [joined(pair, segments(2))[2] for _ in range(2)]
        assert told == [[("PeerSends", "t", 0x1001)], []]


def test_a_peer_that_moved_is_news_once_for_each_place() -> None:
    with engines() as pair:
        pair.install(child())
        told: list[tuple[Any, ...]] = []
        for sender in (("192.0.2.2", 1), ("192.0.2.2", 1), ("192.0.2.3", 1), ("192.0.2.2", 4500)):
            told += pair.arrive([([(0x1001, Item(segments(1)[0]))], 0, sender, True, b"", 0)], 4500)[2]
        assert [notice[3][2:] for notice in told] == [
            (ip_address("192.0.2.2"), 1),
            (ip_address("192.0.2.3"), 1),
        ]


def test_an_sa_takes_what_its_limit_has_room_for() -> None:
    with engines() as pair:
        pair.install(child(lifetimes=Lifetimes(3600, 4, Margin(50, 0))))
        udp = [udp_packet(*HOSTS, 1000)]
        told = [notice[0] for _ in range(4) for notice in joined(pair, udp * 2)[2]]
        assert told == ["SoftLimit", "HardLimit"]
        (counted,) = joined(pair, [])[4]
        assert counted.packets_in == 4


def test_a_limit_that_is_lowered() -> None:
    with engines() as pair:
        sa = child(lifetimes=Lifetimes(3600, 1000, Margin(50, 0)))
        pair.install(sa)
        joined(pair, [udp_packet(*HOSTS, 1000)] * 2)
        told = [notice[0] for kilobytes in (2000, 3, 2) for notice in pair.both.limit(sa, kilobytes)[2]]
        assert told == ["SoftLimit"]
        told = [notice[0] for _ in range(2) for notice in joined(pair, [udp_packet(*HOSTS, 1000)])[2]]
        assert told == ["HardLimit"]


def test_what_came_before_its_sa_is_received_with_it() -> None:
    with engines() as pair:
        pair.install(child())
        later = child(spi_in=0x1002, spi_out=0x2003)
        pair.peer.learn(later)
        pair.peer.numbers[later.spi_in] = 0
        joined(pair, [udp_packet(*HOSTS, 100)], later.spi_in)
        outcome = pair.both.install(later, True)
        assert outcome is not None
        assert [write[-100:] for write in outcome[1]] == [udp_packet(*HOSTS, 100)[-100:]]


def test_a_probe_is_answered_before_all_that_waits() -> None:
    with engines() as pair:
        pair.both.replace_policies(ROWS[0])
        pair.both.answer_probes(ip_address("10.1.0.9"), ip_address("10.2.0.9"))
        pair.install(child())
        echo = Echo(ip_address("10.2.0.9"), ip_address("10.1.0.9"), False, 1, 2, b"data").encode()
        trains, writes, *_ = joined(pair, [echo] * 3)
        assert (len(trains), writes) == (3, [])


@pytest.mark.parametrize("suite", [GCM, CBC, replace(GCM, esn=True), replace(CBC, esn=True)], ids=str)
def test_numbers_go_on_beyond_32_bits_where_they_are_extended(suite: Any) -> None:
    with engines() as pair:
        pair.install(child(suite=suite))
        udp = udp_packet(*HOSTS, 100)
        # The window has to be near before numbers can be extended beyond.
        for numbers, good in (((FAR, 15), 2), ((1,) * 7, 7 if suite.esn else 4)):
            items = [(0x1001, Item(udp, step)) for step in numbers]
            _, writes, *_ = pair.arrive([(items, 0, ("192.0.2.2", 4500), True, b"", 0)], 4500)
            assert len(writes) == good


def test_congestion_marks_come_through_or_stop_the_packet() -> None:
    with engines() as pair:
        pair.install(child())
        unmarked, marked = udp_packet(*HOSTS, 100), bytearray(udp_packet(*HOSTS, 100))
        set_traffic_class(marked, 2)
        _, writes, _, drops, _ = joined(pair, [unmarked, bytes(marked)], mark=3)
        assert [write[11] & 3 for write in writes] == [3]
        assert sum(drops) == 1


def test_a_narrowed_sa_carries_nothing_else() -> None:
    with engines() as pair:
        pair.install(child(local=(selector("10.1.0.0/24", 17, (9, 9)),), remote=EVERYTHING))
        packets = [udp_packet(*HOSTS, 100, (1, port)) for port in (9, 10, 9)]
        assert len(joined(pair, packets)[1]) == 2


def test_an_outer_path_of_the_other_family_is_as_good() -> None:
    with engines() as pair:
        pair.install(child(path=PATH6))
        packets = [(0x1001, Item(packet)) for packet in segments(3)]
        _, writes, notices, *_ = pair.arrive([(packets, 0, ("2001:db8::2", 4501), True, b"", 0)], 4500)
        assert (len(writes), notices) == (1, [])


def test_a_late_packet_within_the_window_is_taken_once() -> None:
    with engines() as pair:
        pair.install(child())
        items = [(0x1001, Item(udp_packet(*HOSTS, 100), step)) for step in (5, -2, 0, 1)]
        _, writes, _, drops, _ = pair.arrive([(items, 0, ("192.0.2.2", 4500), True, b"", 0)], 4500)
        assert (len(writes), sum(drops)) == (3, 1)
