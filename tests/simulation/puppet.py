"""A peer that a test moves by hand: it derives the keys as RFC 7296 says, and then sends whatever it is told.

It shares the codec with vpnd and nothing else: its key schedule is written from the RFC with `hashlib` and
`hmac`, so it is also a second opinion. One suite: AES-CBC-128, HMAC-SHA2-256, Curve25519.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from vpnd.model.selectors import Address
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import (
    AuthMethod2,
    DhGroup,
    Encr2,
    Esn,
    Exchange2,
    IdType,
    Integ2,
    Prf2,
    Protocol,
    TransformType,
    TsType,
)
from vpnd.wire.ikev2 import (
    Auth,
    Delete,
    Encrypted,
    EncryptedFragment,
    IdI,
    IdR,
    KeyExchange,
    Nonce,
    Payload,
    ProposalPart,
    Sa,
    TrafficSelector,
    Transform,
    TsI,
    TsR,
    decode_payloads,
    encode_payloads,
)

VERSION_2 = 0x20
BLOCK = 16
ICV = 16
KEY_SIZES = (32, 32, 32, BLOCK, BLOCK, 32, 32)
"""SK_d, SK_ai, SK_ar, SK_ei, SK_er, SK_pi, SK_pr."""
KEY_PAD = b"Key Pad for IKEv2"
"""RFC 7296 section 2.15."""

ENCR = Transform(TransformType.ENCR, Encr2.AES_CBC, 128)
PRF = Transform(TransformType.PRF, Prf2.HMAC_SHA2_256)
INTEG = Transform(TransformType.INTEG, Integ2.HMAC_SHA2_256_128)
DH = Transform(TransformType.DH, DhGroup.CURVE25519)
NO_ESN = Transform(TransformType.ESN, Esn.NO)

IKE_SA = Sa((ProposalPart(1, Protocol.IKE, b"", (ENCR, PRF, INTEG, DH)),))


def esp_sa(spi: int) -> Sa:
    """The ESP proposal of the default recipe, with this inbound SPI."""
    return Sa((ProposalPart(1, Protocol.ESP, spi.to_bytes(4, "big"), (ENCR, INTEG, NO_ESN)),))


def subnet(second: int, third: int = 0) -> tuple[TrafficSelector, ...]:
    """10.SECOND.THIRD.0/24."""
    start, end = bytes((10, second, third, 0)), bytes((10, second, third, 255))
    return (TrafficSelector(TsType.IPV4_ADDR_RANGE, 0, 0, 65535, start, end),)


@dataclass(frozen=True, slots=True)
class Opened:
    """A message of the other side with everything inside it."""

    header: Header
    payloads: tuple[Payload, ...]

    def one(self, kind: type[Payload]) -> Payload:
        """The only payload of a kind."""
        (found,) = (p for p in self.payloads if isinstance(p, kind))
        return found


class Puppet:
    """One side of one IKE SA. It does what it is told, and nothing by itself.

    `psk` and `identity` may be the right ones or not: a puppet without the key is an attacker that can
    finish a key exchange but cannot prove who it is.
    """

    def __init__(self, initiator: bool, identity: Address, psk: bytes, seed: int = 0) -> None:
        dice = random.Random(seed)
        self.initiator = initiator
        self.psk = psk
        self.dice = dice
        self.identity = (IdI if initiator else IdR)(IdType.IPV4_ADDR, identity.packed)
        self.nonce = dice.randbytes(32)
        self.peer_nonce = bytes(32)
        self.spi_i = dice.randbytes(8) if initiator else bytes(8)
        self.spi_r = bytes(8) if initiator else dice.randbytes(8)
        self.private = X25519PrivateKey.from_private_bytes(dice.randbytes(32))
        self.public = self.private.public_key().public_bytes_raw()
        self.first_message = b""
        self.keys: tuple[bytes, ...] = tuple(bytes(size) for size in KEY_SIZES)

    # ------------------------------------------------------------------------------- IKE_SA_INIT

    def init_payloads(self) -> list[Payload]:
        """SA, KE, N: the request's or the response's."""
        return [IKE_SA, KeyExchange(DhGroup.CURVE25519, self.public), Nonce(self.nonce)]

    def init_message(self, *more: Payload) -> bytes:
        """IKE_SA_INIT 0, as request or response, with further payloads in front."""
        self.first_message = self.clear(Exchange2.IKE_SA_INIT, 0, [*more, *self.init_payloads()])
        return self.first_message

    def take_init(self, data: bytes) -> None:
        """Read the other side's IKE_SA_INIT and derive the keys (RFC 7296 section 2.14)."""
        message = self.open(data)
        ke, nonce = message.one(KeyExchange), message.one(Nonce)
        assert isinstance(ke, KeyExchange)
        assert isinstance(nonce, Nonce)
        self.spi_i = message.header.spi_i
        if self.initiator:
            self.spi_r = message.header.spi_r
        self.peer_nonce = nonce.data
        self.peer_first_message = data
        nonce_i, nonce_r = self._ordered(self.nonce, self.peer_nonce)
        secret = self.private.exchange(X25519PublicKey.from_public_bytes(ke.data))
        seed = nonce_i + nonce_r + self.spi_i + self.spi_r
        material = prf_plus(prf(nonce_i + nonce_r, secret), seed, sum(KEY_SIZES))
        ends = list(accumulate(KEY_SIZES))
        self.keys = tuple(material[end - size : end] for end, size in zip(ends, KEY_SIZES, strict=True))

    # ------------------------------------------------------------------------------- IKE_AUTH

    def auth_payload(self) -> Auth:
        """AUTH over our first message, the peer's nonce and our identity (RFC 7296 section 2.15)."""
        sk_p = self.keys[5] if self.initiator else self.keys[6]
        octets = self.first_message + self.peer_nonce + prf(sk_p, self.identity.encode())
        return Auth(AuthMethod2.SHARED_KEY_MIC, prf(prf(self.psk, KEY_PAD), octets))

    def auth_payloads(self, spi: int = 0xC0FFEE01) -> list[Payload]:
        """ID, AUTH, SA, TSi, TSr for mapping 0. The puppet has 10.1.0.0/24, the other side 10.2.0.0/24."""
        return [self.identity, self.auth_payload(), *self.child_payloads(spi)]

    def child_payloads(self, spi: int, mapping: int = 0, begun_here: bool | None = None) -> list[Payload]:
        """SA, TSi, TSr; `begun_here`: the puppet began this exchange (None: as it did with the IKE SA)."""
        ours, theirs = subnet(1, mapping), subnet(2, mapping)
        if self.initiator if begun_here is None else begun_here:
            return [esp_sa(spi), TsI(ours), TsR(theirs)]
        return [esp_sa(spi), TsI(theirs), TsR(ours)]

    def child_keys(self, nonce_i: bytes, nonce_r: bytes) -> tuple[bytes, bytes, bytes, bytes]:
        """KEYMAT of a child without key exchange: encryption and integrity key of the exchange's initiator,
        then of its responder (RFC 7296 section 2.17).
        """
        material = prf_plus(self.keys[0], nonce_i + nonce_r, 2 * (BLOCK + 32))
        return material[:16], material[16:48], material[48:64], material[64:]

    def delete_ike(self) -> Delete:
        """DELETE of the IKE SA."""
        return Delete(Protocol.IKE, ())

    # ------------------------------------------------------------------------------- messages

    def clear(
        self, exchange: int, message_id: int, payloads: Sequence[Payload], response: bool | None = None
    ) -> bytes:
        """A message without protection. `response` None: what this side's role in IKE_SA_INIT sends."""
        first, chain = encode_payloads(payloads)
        if response is None:
            response = not self.initiator
        return self._header(first, exchange, message_id, response, len(chain)).encode() + chain

    def seal(
        self,
        exchange: int,
        message_id: int,
        payloads: Sequence[Payload],
        response: bool = False,
        before: Sequence[Payload] = (),
    ) -> bytes:
        """A message in SK, protected with this side's keys; `before` are payloads in front of SK."""
        first, chain = encode_payloads(payloads)
        return self.seal_chain(exchange, message_id, first, chain, response, before)

    def seal_chain(
        self,
        exchange: int,
        message_id: int,
        first: int,
        chain: bytes,
        response: bool,
        before: Sequence[Payload] = (),
    ) -> bytes:
        """Any bytes in SK: what is inside need not be a chain of payloads."""
        sealing = partial(Encrypted, first)
        return self._sealed(sealing, exchange, message_id, chain, response, before)

    def _sealed(
        self,
        sealing: Callable[[bytes], Payload],
        exchange: int,
        message_id: int,
        chain: bytes,
        response: bool,
        before: Sequence[Payload] = (),
    ) -> bytes:
        """Any bytes in the payload that `sealing` makes of IV, ciphertext and checksum."""
        sk_a, sk_e = (self.keys[1], self.keys[3]) if self.initiator else (self.keys[2], self.keys[4])
        padding = -(len(chain) + 1) % BLOCK
        iv = self.dice.randbytes(BLOCK)
        encryptor = Cipher(AES(sk_e), CBC(iv)).encryptor()
        sealed = iv + encryptor.update(chain + bytes(padding) + bytes((padding,))) + encryptor.finalize()
        outermost, outer = encode_payloads([*before, sealing(sealed + bytes(ICV))])
        header = self._header(outermost, exchange, message_id, response, len(outer))
        message = header.encode() + outer[:-ICV]
        return message + prf(sk_a, message)[:ICV]

    def seal_fragments(
        self,
        exchange: int,
        message_id: int,
        payloads: Sequence[Payload],
        size: int = 1000,
        before: Sequence[Payload] = (),
        response: bool = False,
    ) -> list[bytes]:
        """A message in fragments with so many bytes of the payloads in each (RFC 7383 section 2.5).

        `before` are payloads in front of each SKF.
        """
        first, chain = encode_payloads(payloads)
        pieces = [chain[start : start + size] for start in range(0, len(chain), size)]
        messages = []
        for number, piece in enumerate(pieces, start=1):
            sealing = partial(EncryptedFragment, first if number == 1 else 0, number, len(pieces))
            messages.append(self._sealed(sealing, exchange, message_id, piece, response, before))
        return messages

    def open(self, data: bytes) -> Opened:
        """The other side's message; fails if it does not verify."""
        header = Header.decode(data)
        payloads = decode_payloads(header.next_payload, data[HEADER_LENGTH:])
        if not payloads or not isinstance(payloads[-1], Encrypted):
            return Opened(header, payloads)
        sk_a, sk_e = (self.keys[2], self.keys[4]) if self.initiator else (self.keys[1], self.keys[3])
        assert hmac.compare_digest(prf(sk_a, data[:-ICV])[:ICV], data[-ICV:]), "the peer's ICV is wrong"
        body = payloads[-1].body[:-ICV]
        decryptor = Cipher(AES(sk_e), CBC(body[:BLOCK])).decryptor()
        plain = decryptor.update(body[BLOCK:]) + decryptor.finalize()
        return Opened(header, decode_payloads(payloads[-1].next_payload, plain[: -1 - plain[-1]]))

    def _header(self, first: int, exchange: int, message_id: int, response: bool, length: int) -> Header:
        flags = (Flag.INITIATOR if self.initiator else 0) | (Flag.RESPONSE if response else 0)
        total = HEADER_LENGTH + length
        return Header(self.spi_i, self.spi_r, first, VERSION_2, exchange, flags, message_id, total)

    def _ordered(self, ours: bytes, theirs: bytes) -> tuple[bytes, bytes]:
        return (ours, theirs) if self.initiator else (theirs, ours)


def in_clear(
    spi_i: bytes, spi_r: bytes, exchange: int, flags: int, message_id: int, payloads: Sequence[Payload]
) -> bytes:
    """A message without protection, with any header."""
    first, chain = encode_payloads(payloads)
    total = HEADER_LENGTH + len(chain)
    return Header(spi_i, spi_r, first, VERSION_2, exchange, flags, message_id, total).encode() + chain


def prf(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA2-256."""
    return hmac.new(key, data, hashlib.sha256).digest()


def prf_plus(key: bytes, seed: bytes, length: int) -> bytes:
    """RFC 7296 section 2.13."""
    block, stream, number = b"", b"", 1
    while len(stream) < length:
        block = prf(key, block + seed + bytes((number,)))
        stream += block
        number += 1
    return stream[:length]
