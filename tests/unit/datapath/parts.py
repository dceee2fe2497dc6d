"""Packets, keys and SAs that the datapath's tests are made of."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES
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


def udp_packet(
    source: str, destination: str, size: int = 100, ports: tuple[int, int] = (1000, 2000)
) -> bytes:
    """An IP packet of `size` bytes in all."""
    addresses = ip_address(source), ip_address(destination)
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
    addresses = ip_address(source), ip_address(destination)
    offset = (20 + len(options)) // 4
    head = ports[0].to_bytes(2) + ports[1].to_bytes(2) + (sequence & 0xFFFFFFFF).to_bytes(4)
    head += acknowledged.to_bytes(4) + bytes((offset << 4, flags)) + window.to_bytes(2)
    tail = bytes(2) + options + data
    value = checksum(pseudo_header(*addresses, 6, len(head) + 2 + len(tail)) + head + bytes(2) + tail)
    return encode_packet(*addresses, 6, head + value.to_bytes(2) + tail)
