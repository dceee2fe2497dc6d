"""Machines that begin IKE and are no peers: what is kept of them, and how seldom they are said."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest

from tests.simulation.policies import ADDRESS_A
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import UNKNOWN_PEER, Endpoint
from vpnd.ike.outputs import UnknownPeer
from vpnd.ike.registry import NO_SPI
from vpnd.ike.unknown_peers import KEPT, KEPT_FOR, SAID_AGAIN, UnknownPeers
from vpnd.model.child import Path
from vpnd.wire.header import Flag, Header
from vpnd.wire.iana import Exchange1, Exchange2, IkeVersion

V4, V6 = "198.51.100.7", "2001:db8::7"


def path(address: str = V4, port: int = 500) -> Path:
    return Path(ADDRESS_A, port, ip_address(address), port)


def first_message(version: int, exchange: int, spi_r: bytes = NO_SPI) -> bytes:
    """A header, and payloads that nobody reads."""
    flags = Flag.INITIATOR if version == IkeVersion.V2 else 0
    return Header(b"initiate", spi_r, 1, version << 4, exchange, flags, 0, 40).encode() + bytes(12)


FIRST = [
    (IkeVersion.V2, Exchange2.IKE_SA_INIT),
    (IkeVersion.V1, Exchange1.IDENTITY_PROTECTION),
    (IkeVersion.V1, Exchange1.AGGRESSIVE),
]


@pytest.mark.parametrize(("version", "exchange"), FIRST)
@pytest.mark.parametrize("address", [V4, V6])
@pytest.mark.parametrize("port", [500, 4500])
def test_who_begins_ike_and_is_no_peer_is_said_once(
    version: IkeVersion, exchange: int, address: str, port: int
) -> None:
    endpoint = Endpoint(SeededEntropy(1))
    for now in range(3):
        endpoint.handle_datagram(float(now), path(address, port), first_message(version, exchange))
    assert endpoint.counters[UNKNOWN_PEER] == 3
    (said,) = endpoint.outputs
    assert said == UnknownPeer(ip_address(address), port, ADDRESS_A, version, 1, 0.0)
    assert said.tunnel is None
    (present,) = endpoint.unknown_peers(3.0)
    assert (present.count, present.last) == (3, 2.0)


@pytest.mark.parametrize(
    "data",
    [
        first_message(IkeVersion.V2, Exchange2.IKE_SA_INIT, b"respond!"),
        first_message(IkeVersion.V2, Exchange2.INFORMATIONAL),
        first_message(IkeVersion.V1, Exchange1.INFORMATIONAL),
        first_message(IkeVersion.V1, Exchange1.QUICK_MODE),
        first_message(3, Exchange2.IKE_SA_INIT),
        b"no IKE message at all, but some text",
        b"",
    ],
)
def test_what_begins_nothing_is_counted_alone(data: bytes) -> None:
    endpoint = Endpoint(SeededEntropy(1))
    endpoint.handle_datagram(0.0, path(), data)
    assert not endpoint.outputs
    assert endpoint.unknown_peers(0.0) == ()


def note(known: UnknownPeers, now: float, address: str) -> bool:
    return known.note(now, path(address), IkeVersion.V2) is not None


def test_one_address_is_said_again_after_a_while() -> None:
    known = UnknownPeers()
    times = [now for now in range(0, 1800, 5) if note(known, float(now), V4)]
    assert times == [0, int(SAID_AGAIN), int(2 * SAID_AGAIN)]


def test_a_flood_of_addresses_fills_neither_the_memory_nor_the_log() -> None:
    known = UnknownPeers()
    said = sum(
        note(known, second + place / 1000, str(IPv4Address(0x0B000000 + second * 1000 + place)))
        for second in range(60)
        for place in range(1000)
    )
    assert said == 10
    assert len(known) == KEPT
    assert note(known, 360.0, "203.0.113.1")
    assert not note(known, 360.0, "203.0.113.2")


def test_the_last_one_is_first_and_is_forgotten_after_a_while() -> None:
    known = UnknownPeers()
    for now, address in enumerate((V4, V6, V4)):
        note(known, float(now), address)
    assert [str(one.address) for one in known.present(2.0)] == [V4, V6]
    assert [str(one.address) for one in known.present(1.0 + KEPT_FOR)] == [V4]
    assert known.present(2.0 + KEPT_FOR) == ()
    assert len(known) == 0
    known.note(10.0 + KEPT_FOR, path(), IkeVersion.V1)
    assert known.present(10.0 + KEPT_FOR)[0].count == 1
