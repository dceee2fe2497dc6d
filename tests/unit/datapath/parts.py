"""Packets, keys and SAs that the datapath's tests are made of."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import ClassVar

from tests.engines import PYTHON, carrier
from vpnd.crypto.entropy import SeededEntropy
from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES
from vpnd.datapath.esp import Opener, Sealer
from vpnd.datapath.interface import Carried, Datagram, Drop, Notice, PolicyRow, SaStats
from vpnd.datapath.mtu import inner_mtu
from vpnd.model.child import ChildSa, EspKeys, Path
from vpnd.model.policy import Lifetimes
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret
from vpnd.model.selectors import Selector
from vpnd.wire.ip import checksum, encode_packet, pseudo_header

LOCAL, REMOTE = ip_address("192.0.2.1"), ip_address("192.0.2.2")
LOCAL6, REMOTE6 = ip_address("2001:db8::1"), ip_address("2001:db8::2")

CBC_WORDS = tuple(word for word, row in ENCRYPTIONS.items() if not row.aead)
AEAD_WORDS = tuple(word for word, row in ENCRYPTIONS.items() if row.aead)
SUITES = tuple(
    Suite(word, None, mac, None, esn) for word in CBC_WORDS for mac in INTEGRITIES for esn in (False, True)
) + tuple(Suite(word, None, None, None, esn) for word in AEAD_WORDS for esn in (False, True))

EVERYTHING = (Selector.of(ip_network("0.0.0.0/0")), Selector.of(ip_network("::/0")))


address = lru_cache(ip_address)
"""Of the few that tests write, each is read once."""


def selector(text: str, protocol: int = 0, ports: tuple[int, int] = (0, 65535)) -> Selector:
    whole = Selector.of(ip_network(text))
    return Selector(whole.start, whole.end, protocol, *ports)


def keys_for(suite: Suite, label: int = 1) -> EspKeys:
    """Fixed keys that differ by label."""
    cipher = ENCRYPTIONS[suite.encryption]
    mac = INTEGRITIES[suite.integrity].key_length if suite.integrity else 0
    return EspKeys(
        Secret(bytes((label * 7 + i) % 256 for i in range(cipher.key_length))),
        Secret(bytes((label * 7 + 90 + i) % 256 for i in range(mac))),
        Secret(bytes((label * 7 + 180 + i) % 256 for i in range(cipher.salt_length))),
    )


GCM = Suite("aes-128-gcm", None, None, None)
CBC = Suite("aes-128", None, "sha256", None)


def child(
    spi_in: int = 0x1001,
    spi_out: int = 0x2002,
    suite: Suite = GCM,
    mapping: int = 0,
    udp: bool = True,
    lifetimes: Lifetimes = Lifetimes(3600),  # noqa: B008 - a frozen value
    local: tuple[Selector, ...] = EVERYTHING,
    remote: tuple[Selector, ...] = EVERYTHING,
    path: Path | None = None,
    labels: tuple[int, int] = (1, 2),
    tunnel: str = "t",
) -> ChildSa:
    """An SA pair; `labels` choose the keys in and out."""
    return ChildSa(
        tunnel=tunnel,
        mapping=mapping,
        spi_in=spi_in,
        spi_out=spi_out,
        suite=suite,
        keys_in=keys_for(suite, labels[0]),
        keys_out=keys_for(suite, labels[1]),
        ts_local=local,
        ts_remote=remote,
        path=path or Path(LOCAL, 4500, REMOTE, 4500),
        udp=udp,
        lifetimes=lifetimes,
        initiator=True,
    )


def limit_of(sa: ChildSa, path_mtu: int = 1500) -> int:
    """The bytes of the largest packet that an SA carries whole."""
    return inner_mtu(path_mtu, sa.suite, sa.udp, sa.path.remote.version)


def udp_packet(
    source: str, destination: str, size: int = 100, ports: tuple[int, int] = (1000, 2000)
) -> bytes:
    """An IP packet of `size` bytes in all."""
    addresses = address(source), address(destination)
    length = size - (20 if addresses[0].version == 4 else 40)
    body = ports[0].to_bytes(2) + ports[1].to_bytes(2) + length.to_bytes(2) + bytes(2) + bytes(length - 8)
    return encode_packet(*addresses, 17, body)


def tcp_packet(
    source: str,
    destination: str,
    sequence: int = 1,
    data: bytes = b"",
    flags: int = 0x10,
    options: bytes = b"",
    ports: tuple[int, int] = (40000, 5201),
    acknowledged: int = 7,
    window: int = 500,
) -> bytes:
    """A TCP segment with good checksums, in an IP packet with DF."""
    addresses = address(source), address(destination)
    offset = (20 + len(options)) // 4
    head = ports[0].to_bytes(2) + ports[1].to_bytes(2) + (sequence & 0xFFFFFFFF).to_bytes(4)
    head += acknowledged.to_bytes(4) + bytes((offset << 4, flags)) + window.to_bytes(2)
    tail = bytes(2) + options + data
    value = checksum(pseudo_header(*addresses, 6, len(head) + 2 + len(tail)) + head + bytes(2) + tail)
    return encode_packet(*addresses, 6, head + value.to_bytes(2) + tail)


HEADER = 10
"""Bytes of a `virtio_net_hdr`."""


class Gateway:
    """One end of a tunnel, on an engine without descriptors: what would be sent and written is in lists."""

    engine: ClassVar[str] = PYTHON
    """The fixture `on_each_engine` says which."""

    def __init__(self, rows: tuple[PolicyRow, ...] | None = None, headroom: bool = False) -> None:
        self.now = 100.0
        self.carrier = carrier(self.engine, SeededEntropy(1))
        self.notices: list[Notice] = []
        self.sent: list[tuple[bytes, int]] = []
        self.written: list[bytes] = []
        self.ike: list[tuple[tuple[str, int], bytes]] = []
        self._head = HEADER if headroom else 0
        self.carrier.add_tunnel("t", headroom)
        self.carrier.replace_policies("t", rows or (PolicyRow(0, EVERYTHING, EVERYTHING),))

    def install(self, sa: ChildSa, outbound: bool = True) -> None:
        self._take(self.carrier.install(self.now, sa, outbound))

    def use_outbound(self, spi_in: int) -> None:
        self._take(self.carrier.use_outbound(self.now, spi_in))

    def limit(self, spi_in: int, kilobytes: int) -> None:
        self.carrier.limit(spi_in, kilobytes)
        self.notices += self.carrier.take_notices()

    def interrupt(self, *keep: str) -> None:
        self.carrier.interrupt("t", True, tuple(map(ip_address, keep)))

    def stats(self, spi_in: int) -> SaStats:
        counted = self.carrier.stats(spi_in)
        assert counted is not None
        return counted

    def send(self, *packets: bytes) -> list[bytes]:
        """The ESP packets that leave for these packets."""
        before = len(self.sent)
        self._take(self.carrier.send(self.now, "t", packets))
        return [packet for packet, _ in self.sent[before:]]

    def receive(
        self,
        *packets: bytes,
        sender: tuple[str, int] = (str(REMOTE), 4500),
        traffic_class: int = 0,
        port: int = 4500,
    ) -> list[bytes]:
        """What is written to the TUN for these datagrams, which the kernel did not join."""
        remote = ip_address(sender[0]), sender[1]
        datagrams = [Datagram(packet, len(packet) or 1, traffic_class, *remote) for packet in packets]
        return self.receive_batch(*datagrams, port=port)

    def joined(self, data: bytes, length: int, sender: tuple[str, int] = (str(LOCAL), 4500)) -> list[bytes]:
        """What is written for datagrams that the kernel joined; by default they come from the first end."""
        return self.receive_batch(Datagram(data, length, 0, ip_address(sender[0]), sender[1]))

    def receive_batch(self, *datagrams: Datagram, port: int = 4500) -> list[bytes]:
        before = len(self.written)
        self._take(self.carrier.receive(self.now, datagrams, LOCAL, port))
        return self.written[before:]

    def dropped(self) -> dict[str, int]:
        mine, nobody = self.carrier.drops("t"), self.carrier.drops()
        return {drop.name: mine[drop] + nobody[drop] for drop in Drop if mine[drop] + nobody[drop]}

    def _take(self, carried: Carried) -> None:
        for train in carried.trains:
            # What UDP_SEGMENT needs: one length, and at most one shorter packet at the end.
            assert all(len(packet) == len(train.packets[0]) for packet in train.packets[:-1])
            assert len(train.packets[-1]) <= len(train.packets[0])
            self.sent += [(packet, train.traffic_class) for packet in train.packets]
        self.written += [write[self._head :] for _, write in carried.writes]
        self.ike += [((str(address), port), message) for address, port, message in carried.ike]
        self.notices += self.carrier.take_notices()


def encapsulate(sealer: Sealer, packet: bytes, sequence: int) -> bytes:
    """The ESP packet around one IP packet."""
    next_header = 4 if packet[0] >> 4 == 4 else 41
    return b"".join(sealer.seal([packet], 0, sequence, next_header))


def decapsulate(opener: Opener, packet: bytes, sequence: int) -> bytes | None:
    """The plaintext, trailer included, of one ESP packet; None if its ICV does not verify."""
    return opener.open(packet, 0, len(packet), 1, (sequence,))[0]


def facing(sa: ChildSa) -> ChildSa:
    """The peer's view of an SA pair."""
    path = Path(sa.path.remote, sa.path.remote_port, sa.path.local, sa.path.local_port)
    return replace(
        sa,
        spi_in=sa.spi_out,
        spi_out=sa.spi_in,
        keys_in=sa.keys_out,
        keys_out=sa.keys_in,
        ts_local=sa.ts_remote,
        ts_remote=sa.ts_local,
        path=path,
        initiator=not sa.initiator,
    )
