"""From the network to the TUN."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scapy.layers.inet import IP

from tests.unit.datapath.parts import (
    CBC,
    EVERYTHING,
    GCM,
    Gateway,
    child,
    facing,
    selector,
    tcp_packet,
    udp_packet,
)
from tests.unit.datapath.test_outbound import A, B, carried, pair_of
from vpnd.crypto.entropy import SeededEntropy
from vpnd.datapath.esp import make_sealer
from vpnd.datapath.interface import (
    EARLY_PACKETS,
    EARLY_TIME,
    Datagram,
    Drop,
    PeerMoved,
    PeerSends,
    UnknownSpi,
)
from vpnd.model.child import ChildSa, Path
from vpnd.model.proposals import Suite

pytestmark = pytest.mark.usefixtures("on_each_engine")

PEER = ("192.0.2.1", 4500)


@pytest.mark.parametrize("suite", [GCM, CBC, replace(CBC, esn=True), replace(GCM, esn=True)], ids=str)
def test_a_joined_datagram_is_opened_segment_by_segment(suite: Suite) -> None:
    ours, theirs = pair_of(suite)
    packets = [udp_packet(A, B, 500)] * 7 + [udp_packet(A, B, 200)]
    esp = ours.send(*packets)
    assert theirs.joined(b"".join(esp), len(esp[0])) == packets
    assert theirs.dropped() == {}


def unhindered(sa: ChildSa) -> ChildSa:
    """The same SA, at an end that sends on it whatever it likes."""
    return replace(sa, ts_local=EVERYTHING, ts_remote=EVERYTHING)


def test_with_selectors_of_ports_every_datagram_is_asked_about() -> None:
    sa = child(remote=(selector("10.1.0.0/16", 17, (1000, 1000)),))
    ours, theirs = Gateway(), Gateway()
    ours.install(unhindered(facing(sa)))
    theirs.install(sa)
    packets = [udp_packet(A, B, 300, (port, 9)) for port in (1000, 1001, 1000)]
    esp = ours.send(*packets)
    assert theirs.joined(b"".join(esp), len(esp[0])) == [packets[0], packets[2]]
    assert theirs.dropped() == {"POLICY": 1}


def test_an_ike_message_or_keepalive_at_the_end_of_a_train_is_found() -> None:
    ours, theirs = pair_of()
    packets = [udp_packet(A, B, 500)] * 3
    esp = ours.send(*packets)
    message = bytes(4) + b"an IKE message"
    assert theirs.joined(b"".join(esp) + message, len(esp[0])) == packets
    assert theirs.ike == [(PEER, b"an IKE message")]
    esp = ours.send(*packets)
    assert theirs.joined(b"".join(esp) + b"\xff", len(esp[0])) == packets
    assert theirs.dropped() == {}


def test_raw_esp_has_no_markers() -> None:
    _, theirs = pair_of()
    assert theirs.receive(bytes(40), sender=("192.0.2.1", 0), port=0) == []
    assert theirs.ike == []
    assert theirs.dropped() == {"NO_SA": 1}


def test_two_sas_may_share_a_train() -> None:
    ours, theirs = pair_of()
    second = child(0x1003, 0x2004, labels=(5, 6))
    theirs.install(facing(second))
    first = ours.send(udp_packet(A, B, 300), udp_packet(A, B, 301))
    ours.install(second)
    esp = [first[0], *ours.send(udp_packet(A, B, 300), udp_packet(A, B, 300)), first[1]]
    assert len({len(packet) for packet in esp}) == 1
    assert list(map(len, theirs.joined(b"".join(esp), len(esp[0])))) == [300, 300, 300, 301]


def test_a_replayed_packet_is_delivered_once() -> None:
    ours, theirs = pair_of()
    esp = ours.send(*[udp_packet(A, B, 100)] * 5)
    assert len(theirs.receive(*esp, sender=PEER)) == 5
    assert theirs.receive(*esp, sender=PEER) == []
    assert theirs.dropped() == {"REPLAY": 5}


def test_a_copy_in_the_same_batch_is_a_replay() -> None:
    ours, theirs = pair_of()
    one, two = ours.send(udp_packet(A, B, 100), udp_packet(A, B, 100))
    assert len(theirs.joined(one + two + two + one, len(one))) == 2
    assert theirs.dropped() == {"REPLAY": 2}


def test_reordering_within_the_window_loses_nothing() -> None:
    rng = random.Random(7)
    ours, theirs = pair_of(CBC)
    packets = [udp_packet(A, B, 60 + i % 3) for i in range(300)]
    esp = ours.send(*packets)
    for start in range(0, 300, 50):
        part = esp[start : start + 50]
        rng.shuffle(part)
        esp[start : start + 50] = part
    assert len(theirs.receive(*esp, sender=PEER)) == 300
    assert theirs.dropped() == {}


@pytest.mark.parametrize("suite", [GCM, CBC], ids=str)
def test_a_forged_number_with_a_bad_icv_moves_nothing(suite: Suite) -> None:
    ours, theirs = pair_of(suite)
    esp = ours.send(*[udp_packet(A, B, 100)] * 3)
    theirs.receive(esp[0], sender=PEER)
    forged = esp[1][:4] + (100_000).to_bytes(4) + esp[1][8:]
    moved_forged = [("203.0.113.7", 999), PEER]
    for sender in moved_forged:
        assert theirs.receive(forged, sender=sender) == []
    assert theirs.notices == []
    # The window is where it was: what comes next is no replay.
    assert len(theirs.receive(*esp[1:], sender=PEER)) == 2
    assert theirs.dropped() == {"INTEGRITY": 2}


@pytest.mark.parametrize("suite", [GCM, CBC], ids=str)
def test_one_bad_packet_in_a_train_spares_the_others(suite: Suite) -> None:
    ours, theirs = pair_of(suite)
    esp = ours.send(*[udp_packet(A, B, 100)] * 5)
    esp[2] = esp[2][:-1] + bytes((esp[2][-1] ^ 1,))
    assert len(theirs.joined(b"".join(esp), len(esp[0]))) == 4
    assert theirs.dropped() == {"INTEGRITY": 1}
    # The number of the bad packet is still free.
    esp[2] = esp[2][:-1] + bytes((esp[2][-1] ^ 1,))
    assert len(theirs.receive(esp[2], esp[3], sender=PEER)) == 1
    assert theirs.dropped() == {"INTEGRITY": 1, "REPLAY": 1}


@pytest.mark.parametrize(
    ("packet", "passes"),
    [
        (udp_packet("10.2.0.5", "10.1.0.5"), True),
        (udp_packet("10.2.0.5", "10.9.0.5"), False),
        (udp_packet("10.9.0.5", "10.1.0.5"), False),
        (udp_packet("10.1.0.5", "10.2.0.5"), False),
        (udp_packet("fd00::1", "fd00::2"), False),
        (udp_packet("127.0.0.1", "10.1.0.5"), False),
        (udp_packet("224.0.0.5", "10.1.0.5"), False),
    ],
    ids=["both", "to another", "from another", "backwards", "IPv6", "loopback", "multicast"],
)
def test_only_packets_of_the_selectors_come_out(packet: bytes, passes: bool) -> None:
    sa = child(local=(selector("10.1.0.0/16"),), remote=(selector("10.2.0.0/16"),))
    ours, theirs = Gateway(), Gateway()
    ours.install(sa)
    theirs.install(unhindered(facing(sa)))
    # The peer sends what it likes; its own table does not hinder it.
    for _ in range(2):
        written = ours.receive(*theirs.send(packet), sender=("192.0.2.2", 4500))
        assert written == ([packet] if passes else [])
    assert ours.dropped() == ({} if passes else {"POLICY": 2})


def test_an_sa_whose_selectors_differ_is_asked_within_one_train() -> None:
    """Segments of one flow over two SAs: the second does not cover them, joined or not."""
    wide, narrow = child(), child(0x1003, 0x2004, labels=(5, 6), remote=(selector("10.9.0.0/16"),))
    ours, theirs = Gateway(), Gateway()
    for sa in (wide, narrow):
        ours.install(sa, outbound=False)
        theirs.install(unhindered(facing(sa)), outbound=sa is wide)
    segments = [tcp_packet("10.2.0.1", "10.1.0.1", 1 + i * 500, b"x" * 500) for i in range(2)]
    esp = theirs.send(segments[0])
    theirs.use_outbound(0x2004)
    esp += theirs.send(segments[1])
    assert ours.joined(b"".join(esp), len(esp[0]), sender=("192.0.2.2", 4500)) == segments[:1]
    assert ours.dropped() == {"POLICY": 1}


def sealed(plaintext: bytes, number: int = 1) -> bytes:
    """An authenticated packet with any plaintext: the trailer is the caller's (RFC 4106 section 3)."""
    sa = child()
    assert sa.suite == GCM
    keys, header, iv = sa.keys_out, struct.pack("!II", sa.spi_out, number), number.to_bytes(8)
    return header + iv + AESGCM(keys.encryption.reveal()).encrypt(keys.salt.reveal() + iv, plaintext, header)


def test_a_dummy_packet_disappears_without_a_trace() -> None:
    _, theirs = pair_of()
    assert theirs.receive(sealed(b"any things\x00\x3b"), sender=PEER) == []
    assert theirs.dropped() == {}
    counted = theirs.stats(0x2002)
    assert (counted.packets_in, counted.last_in) == (0, theirs.now)


@pytest.mark.parametrize(
    "plaintext",
    [
        udp_packet(A, B, 60) + b"\x01\x02\x04\x05\x04\x04",
        b"\x01\x02\x02\x04",
        bytes(60) + b"\x01\x02\x02\x04",
        udp_packet(A, B, 60)[:1] + b"\0" + (9999).to_bytes(2) + bytes(56) + b"\x01\x02\x02\x04",
        b"\x4f" + udp_packet(A, B, 62)[1:22] + bytes(40) + b"\x01\x02\x02\x04",
        b"\x44" + udp_packet(A, B, 60)[1:] + b"\x01\x02\x02\x04",
    ],
)
@pytest.mark.parametrize("traffic_class", [0, 3])
def test_what_holds_no_packet_is_malformed(plaintext: bytes, traffic_class: int) -> None:
    _, theirs = pair_of()
    esp = sealed(plaintext[: len(plaintext) // 4 * 4] if len(plaintext) % 4 else plaintext)
    assert theirs.receive(esp, sender=PEER, traffic_class=traffic_class) == []
    assert sum(theirs.dropped().values()) == 1
    assert set(theirs.dropped()) <= {"MALFORMED", "ECN"}


def test_the_outer_mark_comes_in() -> None:
    ours, theirs = pair_of()
    packets = [bytes(IP(src=A, dst=B, tos=tos) / (b"x" * 50)) for tos in (0, 1, 2, 3)]
    arrived = theirs.receive(*ours.send(*packets), sender=PEER, traffic_class=3)
    assert [packet[1] for packet in arrived] == [3, 3, 3]
    assert theirs.dropped() == {"ECN": 1}


def test_a_flood_of_strangers_does_not_hide_that_a_peer_has_forgotten() -> None:
    ours, theirs = pair_of()
    peer = PEER[0]
    for second in range(3):
        for number in range(100):
            theirs.receive(b"\0\0\x30\0" + bytes(30), sender=(f"203.0.113.{number}", 4500))
        for _ in range(10):
            theirs.receive(b"\0\0\x40\0" + bytes(30), sender=(peer, 4500))
        told = [notice.source for notice in theirs.notices if isinstance(notice, UnknownSpi)]
        assert told.count(ip_address(peer)) == second + 1
        assert len(told) == 2 * (second + 1)
        theirs.now += 1
    assert ours.notices == []


def test_unknown_spis_are_told_once_a_second() -> None:
    gateway = Gateway()
    for spi in range(0x3000, 0x3010):
        gateway.receive(spi.to_bytes(4) + bytes(30), sender=("203.0.113.9", 4500))
    assert gateway.notices == [UnknownSpi(0x3000, ip_address("203.0.113.9"))]
    gateway.now += 1
    gateway.receive(bytes((0, 0, 0x40, 0)) + bytes(30), sender=("203.0.113.9", 4500))
    assert len(gateway.notices) == 2
    assert gateway.dropped() == {"NO_SA": 17}


def test_the_peer_behind_its_nat_moves_with_its_newest_packet_only() -> None:
    ours, theirs = pair_of()
    esp = ours.send(*[udp_packet(A, B, 100)] * 4)
    moved = ("203.0.113.7", 61000)
    theirs.receive(esp[2], sender=PEER)
    # An old packet from elsewhere may have been copied by someone; it is delivered and says nothing.
    assert len(theirs.receive(esp[0], sender=moved)) == 1
    assert theirs.notices == []
    theirs.receive(esp[3], *ours.send(udp_packet(A, B, 100)), sender=moved)
    path = Path(ip_address("192.0.2.2"), 4500, ip_address("203.0.113.7"), 61000)
    assert theirs.notices == [PeerMoved("t", 0x2002, path)]
    theirs.carrier.move(0x2002, path)
    (train,) = theirs.carrier.send(theirs.now, "t", [udp_packet(B, A, 100)]).trains
    assert (str(train.remote), train.port) == moved
    theirs.receive(*ours.send(udp_packet(A, B, 100)), sender=PEER)
    assert len(theirs.notices) == 2


@pytest.mark.parametrize(
    ("udp", "sender", "port", "passes"),
    [
        (True, ("192.0.2.1", 0), 0, True),
        (True, ("203.0.113.7", 0), 0, False),
        (False, ("192.0.2.1", 0), 0, True),
        (False, ("192.0.2.1", 4500), 4500, True),
        (False, ("203.0.113.7", 4500), 4500, False),
        (False, ("203.0.113.7", 0), 0, False),
    ],
)
def test_either_encapsulation_is_taken_from_the_peers_address(
    udp: bool, sender: tuple[str, int], port: int, passes: bool
) -> None:
    ours, theirs = pair_of(udp=udp)
    assert len(theirs.receive(*ours.send(udp_packet(A, B)), sender=sender, port=port)) == passes
    assert theirs.dropped() == ({} if passes else {"DECRYPTED_BAD_PATH": 1})
    assert theirs.notices == []


def test_hostile_datagrams_are_counted_and_never_raise() -> None:
    seed = 99
    rng = random.Random(seed)
    for suite in (GCM, CBC):
        ours, theirs = pair_of(suite)
        good = ours.send(*[udp_packet(A, B, 200)] * 50)
        for _number in range(2000):
            kind = rng.randrange(4)
            if kind == 0:
                data = rng.randbytes(rng.randrange(0, 300))
            elif kind == 1:
                data = (0x2002).to_bytes(4) + rng.randbytes(rng.randrange(0, 300))
            elif kind == 2:
                data = good[rng.randrange(50)]
                data = data[: rng.randrange(1, len(data))]
            else:
                changed = bytearray(good[rng.randrange(50)])
                changed[rng.randrange(4, len(changed))] ^= 1 << rng.randrange(8)
                data = bytes(changed)
            length = rng.randrange(1, len(data) + 1) if data and rng.random() < 0.3 else len(data) or 1
            datagram = Datagram(data, length, rng.randrange(256), ip_address(PEER[0]), PEER[1])
            theirs.receive_batch(datagram)
        assert theirs.written == [], f"seed {seed}"
        assert set(theirs.dropped()) <= {"MALFORMED", "NO_SA", "INTEGRITY", "REPLAY"}
        assert len(theirs.receive(*good, sender=PEER)) == 50, f"seed {seed}"


def test_ipv6_peers_are_told_from_their_addresses() -> None:
    path = Path(ip_address("2001:db8::1"), 4500, ip_address("2001:db8::2"), 4500)
    ours, theirs = pair_of(path=path)
    assert carried(ours, theirs, udp_packet(A, B)) != []
    assert [type(notice) for notice in theirs.notices] == [PeerMoved]


def test_whose_authentic_packets_came_is_remembered() -> None:
    ours, theirs = pair_of()
    esp = ours.send(udp_packet(A, B, 60))[0]
    theirs.receive(esp[:-1] + bytes((esp[-1] ^ 1,)), sender=PEER)
    assert theirs.carrier.take_heard() == {}
    theirs.receive(esp, sender=PEER)
    assert theirs.carrier.take_heard() == {"t": theirs.now}
    theirs.receive(esp, sender=PEER)
    assert theirs.carrier.take_heard() == {}


@pytest.mark.parametrize("length", [0, 1, 19])
def test_a_packet_that_says_it_is_shorter_than_its_header_costs_no_other(length: int) -> None:
    """An authenticated peer may say so; what else came in the same batch is delivered."""
    sa = child(0x1001, 0x2002, GCM)
    gateway = Gateway()
    gateway.install(facing(sa))
    packet = udp_packet("10.1.0.1", "10.2.0.1")
    short = packet[:2] + length.to_bytes(2, "big") + packet[4:]
    sealer = make_sealer(GCM, sa.keys_out, sa.spi_out, SeededEntropy(1))
    run = sealer.seal([packet, short, packet], 0, 1, 4)
    esp = b"".join(run)
    assert gateway.joined(esp, len(esp) // 3) == [packet, packet]
    assert gateway.dropped() == {"MALFORMED": 1}


def test_what_comes_out_of_an_sa_has_its_ports() -> None:
    """RFC 4301 section 5.2 step 4, for each packet: two of one flow of addresses may differ."""
    theirs, ours = selector("10.2.0.0/24", 6, (443, 443)), selector("10.1.0.0/24", 6, (1024, 65535))
    sa = child(local=(ours,), remote=(theirs,))
    near, far = Gateway(), Gateway()
    near.install(sa)
    far.install(unhindered(facing(sa)))
    allowed = tcp_packet("10.2.0.1", "10.1.0.1", ports=(443, 40000))
    for packet, passes in (
        (allowed, True),
        (tcp_packet("10.2.0.1", "10.1.0.1", ports=(444, 40000)), False),
        (allowed, True),
        (tcp_packet("10.2.0.1", "10.1.0.1", ports=(443, 1023)), False),
        (udp_packet("10.2.0.1", "10.1.0.1", ports=(443, 40000)), False),
    ):
        for sent in far.send(packet):
            assert near.receive(sent, sender=(str(sa.path.remote), 4500)) == ([packet] if passes else [])
    assert near.dropped() == {"POLICY": 3}


@pytest.mark.parametrize("outbound", [False, True])
def test_the_first_packet_on_a_pair_that_is_not_sent_on_yet_is_told_once(outbound: bool) -> None:
    """A forged one says nothing."""
    ours, theirs = Gateway(), Gateway()
    ours.install(child())
    theirs.install(facing(child()), outbound)
    first, second, third = (ours.send(udp_packet(A, B, 100))[0] for _ in range(3))
    theirs.receive(first[:-1] + bytes([first[-1] ^ 1]), sender=PEER)
    assert theirs.notices == []
    told = [] if outbound else [PeerSends("t", 0x2002)]
    for packet in (first, second):
        theirs.receive(packet, sender=PEER)
        assert theirs.notices == told
    theirs.use_outbound(0x2002)
    theirs.receive(third, sender=PEER)
    assert theirs.notices == told


def test_once_it_is_sent_on_nothing_is_told() -> None:
    ours, theirs = Gateway(), Gateway()
    ours.install(child())
    theirs.install(facing(child()), outbound=False)
    theirs.use_outbound(0x2002)
    carried(ours, theirs, udp_packet(A, B, 100))
    assert theirs.notices == []


def early() -> tuple[Gateway, list[bytes], list[bytes]]:
    """A gateway whose peer sends on a second SA already: the packets, and their ESP packets."""
    ours, theirs = pair_of()
    ours.install(child(0x1003, 0x2004, labels=(5, 6)))
    packets = [udp_packet(A, B, 300 + number) for number in range(4)]
    return theirs, packets, ours.send(*packets)


SECOND = facing(child(0x1003, 0x2004, labels=(5, 6)))


def test_what_comes_before_its_sa_is_received_with_it() -> None:
    """A responder sends as soon as it has answered, which may be overtaken (RFC 7296 section 2.8)."""
    theirs, packets, esp = early()
    assert theirs.receive(*esp[:3], sender=PEER) == []
    assert theirs.notices == [UnknownSpi(0x2004, ip_address("192.0.2.1"))]
    theirs.install(SECOND, outbound=False)
    assert theirs.written == packets[:3]
    assert PeerSends("t", 0x2004) in theirs.notices
    assert theirs.receive(esp[3], sender=PEER) == [packets[3]]
    assert theirs.stats(0x2004).packets_in == 4
    assert theirs.dropped() == {"NO_SA": 3}
    # Each is taken once.
    theirs.carrier.remove(0x2004)
    theirs.install(SECOND, outbound=False)
    assert theirs.written == packets


def test_only_the_newest_of_a_peer_are_kept_and_not_for_long() -> None:
    theirs, packets, esp = early()
    theirs.receive(esp[0], sender=PEER)
    theirs.now += EARLY_TIME + 0.1
    theirs.receive(esp[1], sender=PEER)
    theirs.receive(esp[2], sender=("192.0.2.77", 4500))
    theirs.install(SECOND)
    assert theirs.written == [packets[1]], "neither the old one, nor what no peer has sent"

    theirs, packets, esp = early()
    theirs.receive(*esp, sender=PEER)
    others = (struct.pack("!II", 0x3000 + number, 1) + bytes(32) for number in range(EARLY_PACKETS - 2))
    theirs.receive(*others, sender=PEER)
    theirs.install(SECOND)
    assert theirs.written == packets[2:]


def test_what_is_forged_for_an_sa_that_comes_is_dropped_with_it() -> None:
    theirs, packets, esp = early()
    forged = (esp[0][:-1] + b"x", struct.pack("!II", 0x2004, 9) + bytes(40))
    theirs.receive(*forged, esp[1], esp[1], sender=PEER)
    theirs.install(SECOND)
    assert theirs.written == [packets[1]]
    dropped = theirs.dropped()
    assert (dropped["INTEGRITY"] >= 1, dropped["REPLAY"]) == (True, 1)


def test_an_sa_of_a_tunnel_that_is_gone_carries_nothing() -> None:
    ours, theirs = pair_of()
    esp = ours.send(udp_packet(A, B))
    theirs.carrier.remove_tunnel("t")
    assert theirs.receive_batch(Datagram(esp[0], len(esp[0]), 0, ip_address(PEER[0]), PEER[1])) == []
    assert theirs.carrier.drops()[Drop.NO_SA] == 1
    assert theirs.carrier.stats(0x2002) is None


def test_an_address_of_ours_is_no_source_inside() -> None:
    """Of SAs that are installed after it was told."""
    forged, other = udp_packet("10.2.0.9", "10.1.0.1"), udp_packet("10.2.0.8", "10.1.0.1")
    sa, far, near = child(), Gateway(), Gateway()
    far.install(facing(sa))
    near.carrier.set_own([ip_address("10.2.0.9")])
    near.install(sa)
    assert near.receive(*far.send(forged, other), sender=("192.0.2.2", 4500)) == [other]
    assert near.dropped() == {"POLICY": 1}
