"""Two vpnd: ESP in UDP and as IP protocol 50, IPv4 and IPv6 outside and inside; scapy reads what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation
from scapy.packet import Packet, Raw
from scapy.utils import rdpcap

from tests.lab.capture import Capture
from tests.lab.lab import Lab
from tests.lab.observed import Keys, read_keys
from tests.lab.plan import A6, B6, A, B, End, Plan, Suite
from tests.lab.topology import Wire, agreement, two_gateways
from tests.lab.traffic import require_ping, transfer
from tests.lab.vpnd import Vpnd, observed_command

pytestmark = [pytest.mark.root, pytest.mark.slow]

WAYS = [
    (encapsulation, outer, inner)
    for encapsulation in ("auto", "udp")
    for outer in ("ipv4", "ipv6")
    for inner in ("ipv4", "ipv6")
]
CBC, GCM, CHACHA = Suite("aes-128", "sha256"), Suite("aes-256-gcm"), Suite("chacha20-poly1305")
# Each way with AES-CBC; the AEAD ciphers once in UDP and once without.
CASES = [
    pytest.param(*way, suite, id="-".join((*way, suite.encryption)).replace("auto", "raw"))
    for way, suite in [(way, CBC) for way in WAYS]
    + [(way, suite) for way in (WAYS[0], WAYS[-1]) for suite in (GCM, CHACHA)]
]
SCAPY_CIPHERS = {
    "aes-128": "AES-CBC",
    "aes-128-gcm": "AES-GCM",
    "aes-256-gcm": "AES-GCM",
    "chacha20-poly1305": "CHACHA20-POLY1305",
}
SCAPY_INTEGRITIES = {"sha256": "SHA2-256-128", None: None}
SIZE = 4 << 20


@dataclass
class Two:
    """Two vpnd and the files into which their onlookers write keys."""

    wire: Wire
    a: Vpnd
    b: Vpnd
    keys: Path


@pytest.fixture(scope="module")
def pairs() -> Iterator[dict[str, Two]]:
    """Two gateways of each family of outer addresses."""
    with Lab() as lab:
        yield {"ipv4": two_vpnd(lab, "ipv4", A, B), "ipv6": two_vpnd(lab, "ipv6", A6, B6)}


def two_vpnd(lab: Lab, outer: str, at_a: End, at_b: End) -> Two:
    """Two gateways, the first with an onlooker."""
    wire = two_gateways(lab, f"{outer}-")
    keys = lab.directory / f"{outer}-keys"
    a = Vpnd(wire.a.gateway, at_a.address, observed_command(keys))
    b = Vpnd(wire.b.gateway, at_b.address)
    return Two(wire, a, b, keys)


def plan_for(outer: str, inner: str, encapsulation: str, suite: Suite) -> Plan:
    """A tunnel whose outer addresses are of one family and whose networks are of another."""
    at_a, at_b = (A6, B6) if outer == "ipv6" else (A, B)
    inside_a, inside_b = (A6, B6) if inner == "ipv6" else (A, B)
    return Plan(
        local=replace(at_a, inside=inside_a.inside, networks=inside_a.networks),
        remote=replace(at_b, inside=inside_b.inside, networks=inside_b.networks),
        ike=suite,
        esp=suite,
        encapsulation=encapsulation,
        negotiation="active",
    )


@pytest.mark.parametrize(("encapsulation", "outer", "inner", "suite"), CASES)
def test_scapy_finds_the_same_packets_in_captured_esp(
    encapsulation: str, outer: str, inner: str, suite: Suite, pairs: dict[str, Two]
) -> None:
    two = pairs[outer]
    plan = plan_for(outer, inner, encapsulation, suite)
    here, there = plan.local.inside, plan.remote.inside
    two.b.add(plan.other().change(negotiation="passive"))
    two.a.add(plan)
    try:
        done = two.a.up(plan.name)
        assert done.returncode == 0, done.stdout + done.stderr + two.a.log()[-3000:]
        (ours,) = agreement(two.a, two.b, plan.name)
        assert ours.udp == (encapsulation == "udp")

        outside = Capture(two.wire.a.gateway, "eth0", "esp or udp port 4500")
        inside = Capture(two.wire.a.gateway, plan.interface)
        with inside as inside_path, outside as outside_path:
            # One after the other, so that they pass both places in the same order.
            for _ in range(5):
                require_ping(two.wire.a.host, here, there, count=1)
            for _ in range(3):
                require_ping(two.wire.b.host, there, here, size=1300, count=1)
        decrypted = decrypt_all(outside_path, read_keys(two.keys))
        assert decrypted == [bytes(packet) for packet in rdpcap(str(inside_path))]
        assert len(decrypted) >= 16

        require_ping(two.wire.a.host, here, there, size=4000)
        transfer(two.wire.a.host, here, two.wire.b.host, there, SIZE)
        transfer(two.wire.b.host, there, two.wire.a.host, here, SIZE)
    finally:
        two.a.remove(plan.name)
        two.b.remove(plan.name)


def decrypt_all(path: Path, keys: dict[int, Keys]) -> list[bytes]:
    """The inner packets of every ESP packet in a capture, in order, as scapy decrypts them."""
    inner = []
    for frame in rdpcap(str(path)):
        outer = frame[IPv6] if IPv6 in frame else frame[IP]
        esp = esp_of(outer)
        if esp is not None:
            association = association_of(keys[esp.spi], outer)
            inner.append(bytes(association.decrypt(rebuilt(outer, esp))))
    return inner


def esp_of(outer: Packet) -> Packet | None:
    """The ESP packet in an outer packet, or None for IKE and keepalives on the shared port."""
    if ESP in outer:
        found: Packet = outer[ESP]
        return found
    payload = bytes(outer[UDP].payload)
    return None if len(payload) < 8 or payload[:4] == bytes(4) else ESP(payload)


def rebuilt(outer: Packet, esp: Packet) -> Packet:
    """The ESP packet on a bare IP header, as if it had not been put in UDP."""
    if outer.version == 6:
        return IPv6(src=outer.src, dst=outer.dst, nh=50) / ESP(bytes(esp))
    return IP(src=outer.src, dst=outer.dst, proto=50) / ESP(bytes(esp))


def association_of(keys: Keys, outer: Packet) -> SecurityAssociation:
    """scapy's SA with these keys, in tunnel mode."""
    header = IPv6 if outer.version == 6 else IP
    return SecurityAssociation(
        ESP,
        spi=keys.spi,
        crypt_algo=SCAPY_CIPHERS[keys.encryption_word],
        crypt_key=keys.encryption + keys.salt,
        auth_algo=SCAPY_INTEGRITIES[keys.integrity_word],
        auth_key=keys.integrity or None,
        tunnel_header=header(src=outer.src, dst=outer.dst),
        esn_en=keys.esn,
    )


def test_the_second_opinion_refuses_a_wrong_key() -> None:
    """scapy's verdict above means something: with one bit of the key changed it refuses."""
    keys = Keys(7, "aes-128", "sha256", bytes(16), bytes(32), b"")
    outer = IP(src=A.address, dst=B.address)
    sealed = association_of(keys, outer).encrypt(IP(src=A.inside, dst=B.inside) / Raw(b"x"))
    wrong = replace(keys, integrity=b"\x01" + bytes(31))
    with pytest.raises(IPSecIntegrityError):
        association_of(wrong, outer).decrypt(sealed)
