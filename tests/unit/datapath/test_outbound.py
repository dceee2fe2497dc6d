"""From the TUN to the network."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop, PadN

from tests.unit.datapath.parts import (
    CBC,
    EVERYTHING,
    GCM,
    Gateway,
    child,
    facing,
    limit_of,
    selector,
    tcp_packet,
    udp_packet,
)
from vpnd.datapath.interface import (
    ACQUIRE_INTERVAL,
    ICMP_BURST,
    WAITING_PACKETS,
    WAITING_TIME,
    Acquire,
    HardLimit,
    PolicyRow,
    SoftLimit,
)
from vpnd.model.policy import Lifetimes
from vpnd.model.proposals import Suite

pytestmark = pytest.mark.usefixtures("on_each_engine")

A, B = "10.1.0.1", "10.2.0.1"


def pair_of(suite: Suite = GCM, headroom: bool = False, **more: object) -> tuple[Gateway, Gateway]:
    """Two gateways with one SA pair between them."""
    ours, theirs = Gateway(headroom=headroom), Gateway(headroom=headroom)
    sa = child(suite=suite, **more)  # type: ignore[arg-type]  # fields by their names
    ours.install(sa)
    theirs.install(facing(sa))
    return ours, theirs


def carried(ours: Gateway, theirs: Gateway, *packets: bytes) -> list[bytes]:
    return theirs.receive(*ours.send(*packets), sender=("192.0.2.1", 4500))


@pytest.mark.parametrize("headroom", [False, True])
@pytest.mark.parametrize("suite", [GCM, CBC, Suite("3des", None, "sha1", None)], ids=str)
def test_packets_of_all_kinds_arrive_in_order(suite: Suite, headroom: bool) -> None:
    ours, theirs = pair_of(suite, headroom)
    packets = [udp_packet(A, B, 100)] * 3 + [udp_packet(A, B, 101)] + [udp_packet(A, B, 100)]
    packets += [udp_packet("fd00::1", "fd00::2", 100 + i // 2) for i in range(4)]
    packets += [tcp_packet(A, B, i, b"x" * 30) for i in range(3)]
    packets += [tcp_packet("fd00::1", "fd00::2", i, b"x" * 30) for i in range(3)]
    packets += [udp_packet("10.1.0.9", B, 100), udp_packet(A, B, 100)]
    assert carried(ours, theirs, *packets) == packets
    assert ours.dropped() == theirs.dropped() == {}
    sent, received = ours.stats(0x1001), theirs.stats(0x2002)
    assert (sent.packets_out, sent.bytes_out) == (len(packets), sum(map(len, packets)))
    assert (received.packets_in, received.bytes_in) == (len(packets), sum(map(len, packets)))


def test_the_traffic_class_is_copied_outside() -> None:
    ours, _ = pair_of()
    for tos in (0, 0, 2, 2, 0xB8, 3):
        ours.send(bytes(IP(src=A, dst=B, tos=tos) / (b"x" * 50)))
    ours.send(bytes(IPv6(src="fd00::1", dst="fd00::2", tc=0xB9) / (b"x" * 50)))
    assert [traffic_class for _, traffic_class in ours.sent] == [0, 0, 2, 2, 0xB8, 3, 0xB9]


def test_a_marked_packet_does_not_join_an_unmarked_run() -> None:
    ours, _theirs = pair_of()
    plain, marked = (bytes(IP(src=A, dst=B, tos=tos) / (b"x" * 50)) for tos in (0, 3))
    ours.send(plain, plain, marked, plain)
    assert [traffic_class for _, traffic_class in ours.sent] == [0, 0, 3, 0]


def test_each_mapping_has_its_sa() -> None:
    rows = (
        PolicyRow(0, (selector("10.1.0.0/24"),), (selector("10.2.0.0/24"),)),
        PolicyRow(1, (selector("10.1.1.0/24"),), (selector("10.2.0.0/24"),)),
    )
    gateway = Gateway(rows)
    gateway.install(child(0x1001, 0x2001, mapping=0))
    gateway.install(child(0x1002, 0x2002, mapping=1))
    first, second = udp_packet("10.1.0.5", "10.2.0.5"), udp_packet("10.1.1.5", "10.2.0.5")
    spis = [packet[:4].hex() for packet in gateway.send(first, second, second, first)]
    assert spis == ["00002001", "00002002", "00002002", "00002001"]
    assert gateway.send(udp_packet("10.9.0.5", "10.2.0.5")) == []
    assert gateway.dropped() == {"POLICY": 1}


@pytest.mark.parametrize("protocol", [0, 17])
def test_what_the_peer_did_not_agree_to_does_not_leave(protocol: int) -> None:
    rows = (PolicyRow(0, (selector("10.1.0.0/24"),), (selector("10.2.0.0/24"),)),)
    gateway = Gateway(rows)
    gateway.install(child(0x1001, 0x2001, local=rows[0].local, remote=rows[0].remote))
    half = (selector("10.2.0.0/25", protocol),)
    gateway.install(child(0x1002, 0x2002, local=rows[0].local, remote=half))
    within, outside = udp_packet("10.1.0.5", "10.2.0.5"), udp_packet("10.1.0.5", "10.2.0.200")
    sent = gateway.send(within, outside, outside, within, outside, within)
    assert [packet[:4].hex() for packet in sent] == ["00002002"] * 3
    assert gateway.dropped() == {"POLICY": 3}
    # The mapping as a whole is asked for again once it has no SA.
    gateway.carrier.remove(0x1002)
    gateway.carrier.remove(0x1001)
    assert gateway.send(outside) == []
    assert [type(notice) for notice in gateway.notices] == [Acquire]


def test_rows_with_ports_are_asked_for_every_packet() -> None:
    rows = (
        PolicyRow(0, EVERYTHING, (selector("10.2.0.0/24", 17, (53, 53)),)),
        PolicyRow(1, EVERYTHING, EVERYTHING),
    )
    gateway = Gateway(rows)
    gateway.install(child(0x1001, 0x2001, mapping=0))
    gateway.install(child(0x1002, 0x2002, mapping=1))
    packets = [udp_packet(A, "10.2.0.1", 100, (9, port)) for port in (53, 54, 53)]
    assert [packet[3] for packet in gateway.send(*packets)] == [1, 2, 1]


def test_the_first_packets_wait_for_their_sa_and_then_go() -> None:
    gateway = Gateway(headroom=True)
    packets = [udp_packet(A, B, 100 + i) for i in range(WAITING_PACKETS + 3)]
    assert gateway.send(*packets) == []
    assert gateway.notices == [Acquire("t", 0, ip_address(A), ip_address(B), 17)]
    assert gateway.dropped() == {"NO_SA": 3}
    sa = child()
    gateway.install(sa)
    peer = Gateway()
    peer.install(facing(sa))
    arrived = peer.receive(*(packet for packet, _ in gateway.sent), sender=("192.0.2.1", 4500))
    assert arrived == packets[:WAITING_PACKETS]


def test_what_waits_is_bounded_in_time_and_bytes() -> None:
    gateway = Gateway()
    gateway.send(udp_packet(A, B, 100))
    gateway.now += WAITING_TIME
    gateway.send(udp_packet(A, B, 200))
    sa, peer = child(), Gateway()
    peer.install(facing(sa))

    def released() -> list[int]:
        gateway.sent.clear()
        gateway.install(sa)
        esp = [packet for packet, _ in gateway.sent]
        gateway.carrier.remove(sa.spi_in)
        peer.carrier.remove(sa.spi_out)
        peer.install(facing(sa))
        return [len(packet) for packet in peer.receive(*esp, sender=("192.0.2.1", 4500))]

    assert released() == [200]
    gateway.carrier.set_mtu("t", 9200)
    gateway.send(*[udp_packet(A, B, 9000)] * 9)
    assert released() == [9000] * 7
    assert gateway.dropped() == {"NO_SA": 2}


def test_the_notice_comes_once_a_second_and_for_each_mapping() -> None:
    rows = tuple(PolicyRow(index, EVERYTHING, (selector(f"10.{index}.0.0/16"),)) for index in (2, 3))
    gateway = Gateway(rows)
    for _ in range(5):
        gateway.send(udp_packet(A, B), udp_packet(A, "10.3.0.1"))
    assert [notice.mapping for notice in gateway.notices if isinstance(notice, Acquire)] == [2, 3]
    gateway.now += ACQUIRE_INTERVAL
    gateway.send(udp_packet(A, B))
    assert len(gateway.notices) == 3


def test_policies_that_go_take_what_waits_along() -> None:
    gateway = Gateway()
    gateway.send(udp_packet(A, B))
    gateway.carrier.replace_policies("t", (PolicyRow(5, EVERYTHING, EVERYTHING),))
    gateway.install(child())
    assert gateway.sent == []


def test_interrupted_only_probes_leave_and_arrive() -> None:
    ours, theirs = pair_of()
    business, probe = udp_packet(A, B), udp_packet("169.254.128.1", "169.254.128.2")
    assert carried(ours, theirs, business, probe) == [business, probe]
    ours.interrupt("169.254.128.2")
    assert carried(ours, theirs, business, probe) == [probe]
    ours.carrier.interrupt("t", False)
    theirs.interrupt("169.254.128.2")
    assert carried(ours, theirs, business, probe) == [probe]
    assert ours.dropped() == theirs.dropped() == {"POLICY": 1}


# ----------------------------------------------------------------------------------- limits


def test_the_byte_limit_is_never_passed() -> None:
    ours, _ = pair_of(lifetimes=Lifetimes(3600, 100))
    packets = [udp_packet(A, B, 1000)] * 64
    assert len(ours.send(*packets)) == 64
    assert ours.notices == []
    assert len(ours.send(*packets)) == 102400 // 1000 - 64
    assert ours.notices == [SoftLimit("t", 0x1001), HardLimit("t", 0x1001)]
    assert ours.send(*packets) == []
    # A smaller packet would fit, but what is said to be used up is used up.
    assert ours.send(udp_packet(A, B, 100)) == []
    assert ours.dropped() == {"LIFETIME": 64 + 26 + 1}
    assert len(ours.notices) == 2


def test_the_receiver_keeps_the_byte_limit_too() -> None:
    ours, theirs = pair_of()
    theirs.carrier.remove(0x2002)
    theirs.install(facing(child(lifetimes=Lifetimes(3600, 10))))
    for _ in range(12):
        carried(ours, theirs, udp_packet(A, B, 1000))
    assert theirs.stats(0x2002).bytes_in <= 10240
    assert theirs.dropped() == {"LIFETIME": 2}
    assert theirs.notices == [SoftLimit("t", 0x2002), HardLimit("t", 0x2002)]


def test_the_receiver_says_once_that_an_sa_nears_its_end() -> None:
    ours, theirs = pair_of()
    theirs.carrier.remove(0x2002)
    theirs.install(facing(child(lifetimes=Lifetimes(3600, 100))))
    for _ in range(100):
        carried(ours, theirs, udp_packet(A, B, 1000))
    assert theirs.notices == [SoftLimit("t", 0x2002)]


def test_a_packet_that_does_not_fit_is_told_at_once_however_few_bytes_were_sent() -> None:
    """Of 2 KB a second packet of 1200 bytes does not fit, and the first is far from the soft limit."""
    ours, _ = pair_of(lifetimes=Lifetimes(3600, 2))
    assert len(ours.send(*[udp_packet(A, B, 1200)] * 2)) == 1
    assert ours.notices == [SoftLimit("t", 0x1001), HardLimit("t", 0x1001)]
    assert ours.dropped() == {"LIFETIME": 1}


@pytest.mark.parametrize("suite", [GCM, CBC], ids=str)
@pytest.mark.parametrize("size", [512, 1000, 1024])
def test_the_receiver_takes_all_that_the_limit_allows_the_sender(suite: Suite, size: int) -> None:
    """Padding does not count, on either side."""
    ours, theirs = pair_of(suite=suite, lifetimes=Lifetimes(3600, 10))
    packets = [udp_packet(A, B, size)] * (10240 // size)
    assert carried(ours, theirs, *packets, udp_packet(A, B, size)) == packets
    assert ours.dropped() == {"LIFETIME": 1}
    assert theirs.dropped() == {}


def test_a_limit_that_is_lowered_holds_from_the_beginning_on() -> None:
    ours, _ = pair_of(lifetimes=Lifetimes(3600, 1000))
    ours.send(*[udp_packet(A, B, 1000)] * 64)
    ours.limit(0x1001, 100)
    assert ours.notices == []
    assert len(ours.send(*[udp_packet(A, B, 1000)] * 64)) == 102400 // 1000 - 64
    assert ours.notices == [SoftLimit("t", 0x1001), HardLimit("t", 0x1001)]


def test_an_sa_that_is_near_a_lowered_limit_says_so_at_once() -> None:
    """Its succession need not wait for the packet that is dropped."""
    ours, _ = pair_of()
    ours.send(*[udp_packet(A, B, 1000)] * 64)
    ours.limit(0x1001, 64)
    ours.limit(0x1001, 64)
    assert ours.notices == [SoftLimit("t", 0x1001)]


# ----------------------------------------------------------------------------------- fitting


def test_too_long_with_df_the_sender_is_told() -> None:
    ours, _ = pair_of()
    packet = tcp_packet(A, B, 1, b"x" * 1460)
    assert ours.send(packet) == []
    (answer,) = (IP(written) for written in ours.written)
    assert (answer.src, answer.dst) == (B, A)
    assert (answer[ICMP].type, answer[ICMP].code, answer[ICMP].nexthopmtu) == (3, 4, limit_of(child()))
    assert bytes(answer[ICMP].payload)[:28] == packet[:28]
    assert ours.dropped() == {"TOO_BIG": 1}


def test_too_long_in_ipv6_the_sender_is_told_at_least_1280() -> None:
    ours, theirs = pair_of()
    ours.carrier.set_mtu("t", 1200)
    ours.send(udp_packet("fd00::1", "fd00::2", 1281))
    (answer,) = (IPv6(written) for written in ours.written)
    assert answer[ICMPv6PacketTooBig].mtu == 1280
    # What every IPv6 link carries is carried.
    packet = udp_packet("fd00::1", "fd00::2", 1280)
    assert carried(ours, theirs, packet) == [packet]


def test_complaints_are_limited_in_rate() -> None:
    ours, _ = pair_of()
    ours.send(*[tcp_packet(A, B, 1, b"x" * 1460)] * 500)
    assert len(ours.written) == ICMP_BURST
    ours.now += 0.5
    ours.send(*[tcp_packet(A, B, 1, b"x" * 1460)] * 500)
    assert len(ours.written) == ICMP_BURST + 50


def test_an_error_message_is_not_answered_with_another() -> None:
    ours, _ = pair_of()
    ours.send(bytes(IP(src=A, dst=B, flags="DF") / ICMP(type=3, code=1) / (b"x" * 1460)))
    assert ours.written == []
    assert ours.dropped() == {"TOO_BIG": 1}


def test_too_long_without_df_is_fragmented_before_esp() -> None:
    ours, theirs = pair_of()
    packet = IP(src=A, dst=B, id=3, proto=17) / bytes(i % 251 for i in range(4000))
    parts = [IP(part) for part in carried(ours, theirs, bytes(packet))]
    assert len(parts) == 3
    assert b"".join(bytes(part.payload) for part in parts) == bytes(packet.payload)
    assert ours.dropped() == {}


@pytest.mark.parametrize("options", [IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt])
def test_a_syn_behind_ipv6_options_is_clamped_too(options: type[IPv6ExtHdrHopByHop]) -> None:
    ours, theirs = pair_of()
    head = IPv6(src="fd00::1", dst="fd00::2") / options(options=PadN(optdata=bytes(4)))
    syns = [bytes(head / TCP(flags="S", options=[("MSS", 1440)], sport=port)) for port in (7, 8)]
    expected = [("MSS", limit_of(child()) - 60)]
    theirs.carrier.set_mtu("t", 9000)  # The receiver has room for more, so it clamps nothing.
    assert [IPv6(syn)[TCP].options for syn in carried(ours, theirs, *syns)] == [expected] * 2


@pytest.mark.parametrize("version", [4, 6])
def test_syns_are_clamped_in_both_directions(version: int) -> None:
    ours, theirs = pair_of()
    addresses = (A, B) if version == 4 else ("fd00::1", "fd00::2")
    syn = tcp_packet(*addresses, 1, flags=2, options=bytes.fromhex("020405b4"))
    read = IP if version == 4 else IPv6
    expected = limit_of(child()) - (40 if version == 4 else 60)
    (arrived,) = carried(ours, theirs, syn)
    assert read(arrived)[TCP].options == [("MSS", expected)]
    # A peer that does not clamp: its SYN is clamped here.
    ours.carrier.set_mtu("t", 9000)
    (arrived,) = carried(ours, theirs, syn)
    assert read(arrived)[TCP].options == [("MSS", expected)]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        b"\x45" + bytes(18),
        b"\x60" + bytes(38),
        b"\x05" + bytes(60),
        b"\x4f" + udp_packet(A, B)[1:22],
    ],
)
def test_what_is_no_ip_packet_is_counted(packet: bytes) -> None:
    ours, _ = pair_of()
    assert ours.send(packet) == []
    assert ours.dropped() == {"MALFORMED": 1}


# ------------------------------------------------------------------------------ configured limits


def test_packets_have_at_most_the_configured_size() -> None:
    """Without DF they leave as fragments, with DF their sender gets an ICMP error, as on a narrow path."""
    gateway = Gateway()
    gateway.install(child())
    gateway.carrier.set_limits("t", 700, None)
    assert limit_of(child()) > 1300
    for size, count in ((680, 1), (681, 2), (1180, 2)):
        assert len(gateway.send(bytes(IP(src=A, dst=B) / bytes(size)))) == count
    gateway.send(tcp_packet("10.1.0.1", "10.2.0.1", data=bytes(1000)))
    (told,) = gateway.written
    assert int.from_bytes(told[26:28], "big") == 700
    assert gateway.dropped() == {"TOO_BIG": 1}


@pytest.mark.parametrize(
    ("end", "mtu", "mss", "clamped"),
    [
        pytest.param("sender", None, 900, 900, id="MSS of the sender"),
        pytest.param("receiver", None, 900, 900, id="MSS of the receiver"),
        pytest.param("sender", 800, None, 760, id="MTU of the sender"),
        pytest.param("receiver", 800, None, 760, id="MTU of the receiver"),
        pytest.param("sender", 800, 700, 700, id="both of the sender"),
        pytest.param("receiver", 800, 780, 760, id="both of the receiver"),
    ],
)
def test_a_syn_is_clamped_by_what_either_end_has_configured(
    end: str, mtu: int | None, mss: int | None, clamped: int
) -> None:
    ours, theirs = pair_of()
    (ours if end == "sender" else theirs).carrier.set_limits("t", mtu, mss)
    option = bytes((2, 4)) + (1460).to_bytes(2)
    packet = tcp_packet("10.1.0.1", "10.2.0.1", flags=2, options=option)
    (arrived,) = carried(ours, theirs, packet)
    assert int.from_bytes(arrived[42:44]) == clamped


def test_a_long_packet_of_a_mapping_with_ports_is_cut_outside() -> None:
    """Its later fragments would show no ports, and no SA with ports takes them (RFC 4301 section 7.1)."""
    rows = (PolicyRow(0, (selector("10.1.0.0/24"),), (selector("10.2.0.0/24", 17, (53, 53)),)),)
    for ports, count in ((None, 2), ((53, 53), 1)):
        gateway = Gateway(rows)
        far = selector("10.2.0.0/24", 17, ports) if ports else selector("10.2.0.0/24")
        gateway.carrier.set_mtu("t", 600)
        gateway.install(child(local=(selector("10.1.0.0/24"),), remote=(far,)))
        assert len(gateway.send(bytes(IP(src=A, dst=B) / UDP(dport=53) / bytes(900)))) == count
        assert gateway.send(bytes(IP(src=A, dst=B, flags="DF") / UDP(dport=53) / bytes(900))) == []


def test_packets_of_one_flow_but_other_ports_take_other_sas() -> None:
    rows = (
        PolicyRow(0, (selector("10.1.0.0/24"),), (selector("10.2.0.0/24", 6, (443, 443)),)),
        PolicyRow(1, (selector("10.1.0.0/24"),), (selector("10.2.0.0/24", 6, (1024, 2047)),)),
        PolicyRow(2, (selector("10.1.0.0/24", 6, (22, 22)),), (selector("10.2.0.0/24", 6, (1, 442)),)),
    )
    gateway = Gateway(rows)
    for row in rows:
        spi = 0x1000 + row.mapping
        gateway.install(child(spi, spi + 0x1000, mapping=row.mapping, local=row.local, remote=row.remote))
    spis = {}
    for ports in ((5000, 443), (5000, 1024), (5000, 2047), (22, 442), (5000, 442), (22, 2048), (443, 5000)):
        sent = gateway.send(tcp_packet(A, B, ports=ports))
        spis[ports] = int.from_bytes(sent[0][:4], "big") if sent else None
    assert list(spis.values()) == [0x2000, 0x2001, 0x2001, 0x2002, None, None, None]
    assert gateway.dropped() == {"POLICY": 3}
