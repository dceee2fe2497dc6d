"""Forged datagrams: `python -m tests.lab.flood KIND PEER TARGET RATE SECONDS SEED [HEX]`.

Runs in a namespace that has the peer's address on its loopback interface and a wire to the target, so that
the kernel sends with the peer's address what the peer never sent; the answers go to the real peer. HEX is
what a kind needs to know: the SPI of an SA, or packets that were seen on the wire, one after the other.
"""

from __future__ import annotations

import random
import socket
import sys
import time
from collections.abc import Callable
from itertools import cycle

from vpnd.crypto.dh import KeyPair
from vpnd.crypto.entropy import SeededEntropy
from vpnd.wire import ikev1, ikev2
from vpnd.wire.attributes import Attribute
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import DhGroup, Encr2, Exchange1, Exchange2, IdType, Integ2, Prf2, Protocol, TransformType

SOCKETS = 64
"""Source ports that the forged datagrams come from."""
PORT, NAT_T_PORT = 500, 4500
RAW = 0
"""Stands for IP protocol 50, which has no ports."""
ESP_PROTOCOL = 50
GROUP = DhGroup.MODP_2048
PUBLIC_LENGTH = 256
SPI_LENGTH = 8
PHASE_1 = ((1, 7), (2, 4), (3, 1), (4, int(GROUP)), (14, 128), (11, 1), (12, 28800))
"""AES-CBC, SHA2-256, pre-shared key, group, 128 bits, 28800 seconds."""
ENDLESS = ("garbage", "wrong-spi")
MADE_BEFORE = 4096
"""Datagrams that are made before the flood begins and sent over and over: there is no time to make more."""
AT_ONCE = 256

Make = Callable[[], tuple[int, bytes]]
"""The next datagram and the port it goes to."""


class Flood:
    """What each kind sends; first messages differ in their SPI."""

    def __init__(self, peer: str, seed: int, known: bytes) -> None:
        self._dice = random.Random(seed)
        self._peer = socket.inet_aton(peer)
        self._known = known
        self._valid = KeyPair.generate(GROUP, SeededEntropy(seed)).public

    def kind(self, name: str) -> Make:
        """What makes the datagrams of this kind. Raises ValueError for an unknown one."""
        match name:
            case "zero-ke":
                return self._first(self._init(bytes(PUBLIC_LENGTH)))
            case "valid-ke":
                return self._first(self._init(self._valid))
            case "large-sa":
                return self._first(self._init(self._valid, proposals=250, transforms=31))
            case "most-sa":
                return self._first(self._init(self._valid, proposals=8, transforms=31))
            case "main1":
                return self._first(self._main1(1, 1))
            case "large-main1":
                return self._first(self._main1(200, 10))
            case "most-main1":
                return self._first(self._main1(1, 255))
            case "aggressive1":
                return self._first(self._aggressive1())
            case "values":
                return self._values
            case "garbage":
                return self._garbage
            case "wrong-spi":
                return self._wrong_spi
            case "bad-icv":
                return self._bad_icv
            case "replay":
                return self._replay
        raise ValueError(name)

    # --- first messages

    def _first(self, message: bytes) -> Make:
        body = message[SPI_LENGTH:]
        return lambda: (PORT, self._dice.randbytes(SPI_LENGTH) + body)

    def _values(self) -> tuple[int, bytes]:
        """Each with other values: texts that differ."""
        message = self._init(self._valid, encryption=self._dice.randrange(100, 60_000))
        return PORT, self._dice.randbytes(SPI_LENGTH) + message[SPI_LENGTH:]

    def _init(
        self, public: bytes, proposals: int = 1, transforms: int = 0, encryption: int = Encr2.AES_CBC
    ) -> bytes:
        own = (
            ikev2.Transform(TransformType.ENCR, encryption, 128),
            ikev2.Transform(TransformType.PRF, Prf2.HMAC_SHA2_256),
            ikev2.Transform(TransformType.INTEG, Integ2.HMAC_SHA2_256_128),
            ikev2.Transform(TransformType.DH, GROUP),
        )
        many = tuple(ikev2.Transform(1, 1000 + number) for number in range(transforms)) or own
        parts = (ikev2.ProposalPart(number, Protocol.IKE, b"", many) for number in range(1, proposals + 1))
        payloads: list[ikev2.Payload] = [
            ikev2.Sa(tuple(parts)),
            ikev2.KeyExchange(GROUP, public),
            ikev2.Nonce(self._dice.randbytes(32)),
        ]
        first, chain = ikev2.encode_payloads(payloads)
        return _message(first, 0x20, Exchange2.IKE_SA_INIT, Flag.INITIATOR, chain)

    def _main1(self, proposals: int, transforms: int) -> bytes:
        attributes = PHASE_1 if transforms == 1 else PHASE_1[:4]
        first, chain = ikev1.encode_payloads([_phase1(proposals, transforms, attributes)])
        return _message(first, 0x10, Exchange1.IDENTITY_PROTECTION, 0, chain)

    def _aggressive1(self) -> bytes:
        first, chain = ikev1.encode_payloads(
            [
                _phase1(1, 1, PHASE_1),
                ikev1.KeyExchange(self._valid),
                ikev1.Nonce(self._dice.randbytes(32)),
                ikev1.Id(IdType.IPV4_ADDR, self._peer),
            ]
        )
        return _message(first, 0x10, Exchange1.AGGRESSIVE, 0, chain)

    # --- the rest

    def _garbage(self) -> tuple[int, bytes]:
        length = self._dice.choice((1, 3, 8, 27, 28, 29, 64, 200, 1200))
        return self._dice.choice((PORT, NAT_T_PORT, RAW)), self._dice.randbytes(length)

    def _wrong_spi(self) -> tuple[int, bytes]:
        return NAT_T_PORT, b"\xee" + self._dice.randbytes(99)

    def _bad_icv(self) -> tuple[int, bytes]:
        """The SPI that is known, with a number far ahead."""
        number = self._dice.randrange(1 << 20, 1 << 31)
        return NAT_T_PORT, self._known[:4] + number.to_bytes(4, "big") + self._dice.randbytes(112)

    def _replay(self) -> tuple[int, bytes]:
        """One of the packets that were seen, each behind its length in two bytes."""
        length = int.from_bytes(self._known[:2], "big")
        packet, rest = self._known[2 : 2 + length], self._known[2 + length :]
        self._known = rest + self._known[: 2 + length]
        return NAT_T_PORT, packet


def _phase1(proposals: int, transforms: int, attributes: tuple[tuple[int, int], ...]) -> ikev1.Sa:
    each = tuple(Attribute(kind, value) for kind, value in attributes)
    many = tuple(ikev1.TransformPart(number % 256, 1, each) for number in range(1, transforms + 1))
    parts = (ikev1.ProposalPart(number, Protocol.IKE, b"", many) for number in range(1, proposals + 1))
    return ikev1.Sa(ikev1.IPSEC_DOI, ikev1.SIT_IDENTITY_ONLY, tuple(parts))


def _message(first: int, version: int, exchange: int, flags: int, chain: bytes) -> bytes:
    none = bytes(SPI_LENGTH)
    return Header(none, none, first, version, exchange, flags, 0, HEADER_LENGTH + len(chain)).encode() + chain


def main() -> None:
    """Send at the rate for as long as told, and print how many were sent."""
    kind, peer, target, rate, seconds, seed, *known = sys.argv[1:]
    flood = Flood(peer, int(seed), bytes.fromhex(known[0]) if known else b"")
    make = flood.kind(kind)
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOCKETS)]
    for one in sockets:
        one.bind((peer, 0))
    esp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    esp.bind((peer, NAT_T_PORT))
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, ESP_PROTOCOL)
    raw.bind((peer, 0))
    if kind in ENDLESS:
        ready = [make() for _ in range(MADE_BEFORE)]
        make = cycle(ready).__next__
    began, sent, due = time.monotonic(), 0, 0
    while (elapsed := time.monotonic() - began) < float(seconds):
        due = int(elapsed * float(rate)) + 1
        # Where it cannot keep up it still ends in time.
        for _ in range(min(due - sent, AT_ONCE)):
            port, data = make()
            sender = esp if kind in ("bad-icv", "replay") else sockets[sent % SOCKETS] if port else raw
            sender.sendto(data, (target, port))
            sent += 1
        if sent == due:
            time.sleep(0.001)
    print(sent)


if __name__ == "__main__":
    main()
