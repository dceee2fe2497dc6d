"""An IKEv1 peer that a test moves by hand: it derives keys as RFC 2409 says and sends whatever it is told.

It shares the codec with vpnd and nothing else: its key schedule is written from the RFC with `hashlib` and
`hmac`, so it is also a second opinion. One suite: AES-CBC-128, HMAC-SHA2-256, Curve25519, without PFS.
"""

from __future__ import annotations

import hashlib
import hmac
import random
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from tests.simulation.bounds import NAT_T_RFC
from vpnd.model.policy import NegotiationMode
from vpnd.model.selectors import Address
from vpnd.wire.attributes import Attribute
from vpnd.wire.chain import RawPayload, decode_chain
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange1, IdType, Notify1, Protocol
from vpnd.wire.ikev1 import (
    IPSEC_DOI,
    SIT_IDENTITY_ONLY,
    Delete,
    Hash,
    Id,
    KeyExchange,
    NatD,
    Nonce,
    Notify,
    Payload,
    ProposalPart,
    Sa,
    TransformPart,
    VendorId,
    decode_payload,
    encode_payloads,
)

VERSION_1 = 0x10
BLOCK = 16
GROUP = 31
DPD = bytes.fromhex("afcad71368a1f1c96b8696fc77570100")

PHASE_1 = ((1, 7), (2, 4), (3, 1), (4, GROUP), (14, 128), (11, 1), (12, 28800))
"""AES-CBC, SHA2-256, pre-shared key, group, 128 bits, 28800 seconds."""
PHASE_2 = ((4, 1), (1, 1), (2, 3600), (5, 5), (6, 128))
"""Tunnel, 3600 seconds, HMAC-SHA2-256, 128 bits."""


def sa_of(protocol: int, spi: bytes, transform: int, attributes: Sequence[tuple[int, int]]) -> Sa:
    """An SA payload of one proposal with one transform."""
    part = TransformPart(1, transform, tuple(Attribute(kind, value) for kind, value in attributes))
    return Sa(IPSEC_DOI, SIT_IDENTITY_ONLY, (ProposalPart(1, protocol, spi, (part,)),))


ISAKMP_SA = sa_of(Protocol.IKE, b"", 1, PHASE_1)


def esp_sa(spi: int) -> Sa:
    """The ESP proposal of the default recipe, with this inbound SPI."""
    return sa_of(Protocol.ESP, spi.to_bytes(4, "big"), 12, PHASE_2)


def subnet(second: int, third: int = 0) -> Id:
    """10.SECOND.THIRD.0/24."""
    return Id(IdType.IPV4_ADDR_SUBNET, bytes((10, second, third, 0, 255, 255, 255, 0)))


@dataclass(frozen=True, slots=True)
class Opened:
    """A message of the other side with everything inside it, and the block that the IV chain goes on from."""

    header: Header
    payloads: tuple[Payload, ...]
    last_block: bytes

    def one(self, kind: type[Payload]) -> Payload:
        """The only payload of a kind."""
        (found,) = (p for p in self.payloads if isinstance(p, kind))
        return found


@dataclass(slots=True)
class Quick:
    """One quick mode."""

    message_id: int
    iv: bytes
    nonce_i: bytes = b""
    nonce_r: bytes = b""


class Puppet:
    """One side of one ISAKMP SA. It does what it is told, and nothing by itself."""

    def __init__(
        self, initiator: bool, mode: NegotiationMode, identity: Address, psk: bytes, seed: int = 0
    ) -> None:
        dice = random.Random(seed)
        self.dice = dice
        self.initiator = initiator
        self.aggressive = mode is NegotiationMode.AGGRESSIVE
        self.psk = psk
        self.identity = Id(IdType.IPV4_ADDR, identity.packed)
        self.nonce = dice.randbytes(32)
        self.cky_i = dice.randbytes(8) if initiator else bytes(8)
        self.cky_r = bytes(8) if initiator else dice.randbytes(8)
        self.private = X25519PrivateKey.from_private_bytes(dice.randbytes(32))
        self.public = self.private.public_key().public_bytes_raw()
        self.peer_public = self.peer_nonce = bytes(32)
        self.sa_i = ISAKMP_SA.encode()
        self.skeyid = self.skeyid_d = self.skeyid_a = bytes(32)
        self.key = self.iv = bytes(BLOCK)
        self.nat = False
        """Whether there is a NAT on both sides."""

    # ------------------------------------------------------------------------------- phase 1

    @property
    def exchange(self) -> int:
        """Its mode's exchange type."""
        return Exchange1.AGGRESSIVE if self.aggressive else Exchange1.IDENTITY_PROTECTION

    def proposal(self) -> list[Payload]:
        """SA, VID: Main1 or Main2."""
        return [ISAKMP_SA, VendorId(DPD), *([VendorId(NAT_T_RFC)] if self.nat else [])]

    def key_payloads(self) -> list[Payload]:
        """KE, Nonce: Main3 or Main4."""
        return [KeyExchange(self.public), Nonce(self.nonce), *([NatD(bytes(32))] * 2 if self.nat else [])]

    def proof_payloads(self) -> list[Payload]:
        """ID, HASH: Main5 or Main6."""
        return [self.identity, Hash(self.proof())]

    def first_message(self) -> bytes:
        """Main1 or Aggressive1."""
        payloads = self.proposal()
        if self.aggressive:
            payloads[1:1] = [*self.key_payloads(), self.identity]
        return self.clear(self.exchange, payloads)

    def aggressive2_payloads(self) -> list[Payload]:
        """SA, KE, Nonce, ID, HASH, VID."""
        return [ISAKMP_SA, *self.key_payloads(), *self.proof_payloads(), VendorId(DPD)]

    def take(self, data: bytes) -> Opened:
        """Read a phase-1 message of the other side in clear; derive the keys once it has a KE payload."""
        message = self.open(data)
        if self.initiator:
            self.cky_r = message.header.spi_r
        else:
            self.cky_i = message.header.spi_i
            for payload, raw in zip(message.payloads, self._raw(data), strict=True):
                if isinstance(payload, Sa):
                    self.sa_i = raw.body
        for payload in message.payloads:
            if isinstance(payload, KeyExchange):
                self.peer_public = payload.data
            elif isinstance(payload, Nonce):
                self.peer_nonce = payload.data
        if any(isinstance(payload, KeyExchange) for payload in message.payloads):
            self.derive()
        return message

    def derive(self) -> None:
        """RFC 2409 section 5 and appendix B."""
        nonces, publics = (
            self._ordered(self.nonce, self.peer_nonce),
            self._ordered(self.public, self.peer_public),
        )
        secret = self.private.exchange(X25519PublicKey.from_public_bytes(self.peer_public))
        tail = secret + self.cky_i + self.cky_r
        self.skeyid = prf(self.psk, b"".join(nonces))
        self.skeyid_d = prf(self.skeyid, tail + b"\0")
        self.skeyid_a = prf(self.skeyid, self.skeyid_d + tail + b"\1")
        self.key = prf(self.skeyid, self.skeyid_a + tail + b"\2")[:BLOCK]
        self.iv = hashlib.sha256(b"".join(publics)).digest()[:BLOCK]

    def proof(self) -> bytes:
        """HASH_I or HASH_R, ours."""
        cookies = (self.cky_i, self.cky_r) if self.initiator else (self.cky_r, self.cky_i)
        octets = (self.public, self.peer_public, *cookies, self.sa_i, self.identity.encode())
        return prf(self.skeyid, b"".join(octets))

    def seal_phase1(self, payloads: Sequence[Payload]) -> bytes:
        """An encrypted phase-1 message; the chain of IVs moves on."""
        sealed, self.iv = self._seal(self.exchange, 0, payloads, self.iv)
        return sealed

    def take_phase1(self, data: bytes) -> Opened:
        """An encrypted phase-1 message of the other side; the chain of IVs moves on."""
        message = self.open(data, self.iv)
        self.iv = message.last_block
        return message

    # ------------------------------------------------------------------------------- phase 2

    def phase2_iv(self, message_id: int) -> bytes:
        """The first IV of an exchange."""
        return hashlib.sha256(self.iv + message_id.to_bytes(4, "big")).digest()[:BLOCK]

    def informational(
        self, *payloads: Payload, message_id: int | None = None, proof: bytes | None = None
    ) -> bytes:
        """HDR*, HASH(1), payloads."""
        number = self.dice.getrandbits(32) | 1 if message_id is None else message_id
        right = prf(self.skeyid_a, number.to_bytes(4, "big") + encode_payloads(payloads)[1])
        chain = [Hash(right if proof is None else proof), *payloads]
        return self._seal(Exchange1.INFORMATIONAL, number, chain, self.phase2_iv(number))[0]

    def open_informational(self, data: bytes) -> Opened:
        """An informational message of the other side."""
        return self.open(data, self.phase2_iv(Header.decode(data).message_id))

    def begin_quick(self) -> Quick:
        """A quick mode of its own."""
        number = self.dice.getrandbits(32) | 1
        return Quick(number, self.phase2_iv(number), nonce_i=self.dice.randbytes(32))

    def quick1_payloads(self, quick: Quick, spi: int = 0xC0FFEE01, mapping: int = 0) -> list[Payload]:
        """SA, Nonce, ID, ID. The puppet has 10.1.0.0/16, the other side 10.2.0.0/16."""
        return [esp_sa(spi), Nonce(quick.nonce_i), subnet(1, mapping), subnet(2, mapping)]

    def seal_quick(
        self, quick: Quick, payloads: Sequence[Payload], covered: bytes = b"", proof: bytes | None = None
    ) -> bytes:
        """HDR*, HASH, payloads; `covered` is what the hash covers between message ID and payloads."""
        octets = quick.message_id.to_bytes(4, "big") + covered + encode_payloads(payloads)[1]
        right = prf(self.skeyid_a, octets)
        chain = [Hash(right if proof is None else proof), *payloads]
        sealed, quick.iv = self._seal(Exchange1.QUICK_MODE, quick.message_id, chain, quick.iv)
        return sealed

    def quick3(self, quick: Quick, proof: bytes | None = None) -> bytes:
        """HDR*, HASH(3)."""
        octets = b"\0" + quick.message_id.to_bytes(4, "big") + quick.nonce_i + quick.nonce_r
        right = prf(self.skeyid_a, octets)
        hashed: list[Payload] = [Hash(right if proof is None else proof)]
        sealed, quick.iv = self._seal(Exchange1.QUICK_MODE, quick.message_id, hashed, quick.iv)
        return sealed

    def take_quick(self, quick: Quick, data: bytes) -> Opened:
        """A message of the other side in a quick mode."""
        message = self.open(data, quick.iv)
        quick.iv = message.last_block
        nonce = next((p.data for p in message.payloads if isinstance(p, Nonce)), b"")
        if quick.nonce_i:
            quick.nonce_r = nonce
        else:
            quick.nonce_i = nonce
        return message

    def answer_quick(self, data: bytes) -> Quick:
        """The other side has begun a quick mode: its state."""
        number = Header.decode(data).message_id
        quick = Quick(number, self.phase2_iv(number))
        self.take_quick(quick, data)
        return quick

    def quick2(
        self, quick: Quick, spi: int = 0xC0FFEE01, mapping: int = 0, proof: bytes | None = None
    ) -> bytes:
        """HDR*, HASH(2), SA, Nonce, ID, ID."""
        quick.nonce_r = self.dice.randbytes(32)
        payloads: list[Payload] = [
            esp_sa(spi),
            Nonce(quick.nonce_r),
            subnet(2, mapping),
            subnet(1, mapping),
        ]
        return self.seal_quick(quick, payloads, quick.nonce_i, proof)

    def keymat(self, spi: bytes, quick: Quick, length: int) -> bytes:
        """KEYMAT without PFS (RFC 2409 section 5.5)."""
        seed = bytes([Protocol.ESP]) + spi + quick.nonce_i + quick.nonce_r
        block = stream = prf(self.skeyid_d, seed)
        while len(stream) < length:
            block = prf(self.skeyid_d, block + seed)
            stream += block
        return stream[:length]

    # ------------------------------------------------------------------------------- what is said often

    def are_you_there(self, sequence: int = 7) -> Notify:
        """R-U-THERE."""
        data = sequence.to_bytes(4, "big")
        return Notify(Notify1.R_U_THERE, data, Protocol.IKE, self.cky_i + self.cky_r)

    def delete_ike(self) -> Delete:
        """DELETE of the ISAKMP SA."""
        return Delete(Protocol.IKE, (self.cky_i + self.cky_r,))

    # ------------------------------------------------------------------------------- messages

    def clear(self, exchange: int, payloads: Sequence[Payload], message_id: int = 0) -> bytes:
        """A message without protection."""
        first, chain = encode_payloads(payloads)
        return self._header(first, exchange, message_id, 0, len(chain)).encode() + chain

    def seal(self, exchange: int, message_id: int, payloads: Sequence[Payload], iv: bytes) -> bytes:
        """A message under the cipher key with any IV."""
        return self._seal(exchange, message_id, payloads, iv)[0]

    def _seal(
        self, exchange: int, message_id: int, payloads: Sequence[Payload], iv: bytes
    ) -> tuple[bytes, bytes]:
        first, chain = encode_payloads(payloads)
        encryptor = Cipher(AES(self.key), CBC(iv)).encryptor()
        sealed = encryptor.update(chain + bytes(-len(chain) % BLOCK)) + encryptor.finalize()
        header = self._header(first, exchange, message_id, Flag.ENCRYPTION, len(sealed))
        return header.encode() + sealed, sealed[-BLOCK:]

    def open(self, data: bytes, iv: bytes = b"") -> Opened:
        """A message of the other side, decrypted if it is encrypted."""
        header = Header.decode(data)
        body = data[HEADER_LENGTH:]
        if header.flags & Flag.ENCRYPTION:
            decryptor = Cipher(AES(self.key), CBC(iv)).decryptor()
            plain = decryptor.update(body) + decryptor.finalize()
            raw = decode_chain(header.next_payload, plain, padded=True)
        else:
            raw = decode_chain(header.next_payload, body)
        return Opened(header, tuple(map(decode_payload, raw)), body[-BLOCK:])

    @staticmethod
    def _raw(data: bytes) -> tuple[RawPayload, ...]:
        return decode_chain(Header.decode(data).next_payload, data[HEADER_LENGTH:])

    def _header(self, first: int, exchange: int, message_id: int, flags: int, length: int) -> Header:
        total = HEADER_LENGTH + length
        return Header(self.cky_i, self.cky_r, first, VERSION_1, exchange, flags, message_id, total)

    def _ordered(self, ours: bytes, theirs: bytes) -> tuple[bytes, bytes]:
        return (ours, theirs) if self.initiator else (theirs, ours)


def prf(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA2-256."""
    return hmac.new(key, data, hashlib.sha256).digest()
