"""What others have published of IKEv1 with a pre-shared key: HASH_R, whole key schedules, a whole exchange.

Of HASH_I, HASH(1) to HASH(3) and the IV chain the exchange is the sample. None was found of the KEYMAT of
quick mode, nor of HASH_I and HASH_R with SHA-2: there `test_keys` writes the RFC down a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.vectors import Vector, read
from vpnd.crypto.modp import MODP_GROUPS
from vpnd.ike.v1.keys import Exchanged, Phase1Keys
from vpnd.ike.v1.protect import IvChain, Opened
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret
from vpnd.wire.chain import RawPayload, decode_chain
from vpnd.wire.header import HEADER_LENGTH, Header
from vpnd.wire.iana import Payload1

SUITE = Suite("aes-128", "sha1", "sha1", 2)


def exchanged_of(vector: Vector) -> Exchanged:
    """The values that keys and hashes are made of."""
    names = ("nonce_i", "nonce_r", "ke_i", "ke_r", "cky_i", "cky_r")
    return Exchanged(*(vector.bytes_of(name) for name in names))


@pytest.mark.parametrize("vector", read("ikev1_hash_r.txt"), ids=str)
def test_hash_r(vector: Vector) -> None:
    """SKEYID, and what is made of it and of everything that was exchanged; g^xy is in neither."""
    word = vector["word"]
    exchanged = exchanged_of(vector)
    keys = Phase1Keys.derive(
        Suite("aes-128", word, word, 2), Secret(vector.bytes_of("psk")), Secret(b"any"), exchanged
    )
    found = keys.hash_r(exchanged, vector.bytes_of("sa_i"), vector.bytes_of("id_r"))
    assert found == vector.bytes_of("hash_r")
    assert keys.hash_i(exchanged, vector.bytes_of("sa_i"), vector.bytes_of("id_r")) != found


@pytest.mark.parametrize("vector", read("ikev1_schedule.txt"), ids=str)
def test_a_whole_key_schedule(vector: Vector) -> None:
    exchanged = exchanged_of(vector)
    psk, shared = Secret(vector.bytes_of("psk")), Secret(vector.bytes_of("g_xy"))
    keys = Phase1Keys.derive(SUITE, psk, shared, exchanged)
    assert keys.skeyid.reveal() == vector.bytes_of("skeyid")
    assert keys.skeyid_d.reveal() == vector.bytes_of("skeyid_d")
    assert keys.skeyid_a.reveal() == vector.bytes_of("skeyid_a")
    assert keys.encryption_key.reveal() == vector.bytes_of("key") == vector.bytes_of("skeyid_e")[:16]
    assert keys.iv == vector.bytes_of("iv")
    hash_r = keys.hash_r(exchanged, vector.bytes_of("sa_i"), vector.bytes_of("id_r"))
    assert hash_r == vector.bytes_of("hash_r")
    if "message_id" in vector:
        assert keys.phase2_iv(keys.iv, int(vector["message_id"], 16)) == vector.bytes_of("phase2_iv")


@dataclass
class Recording:
    """The messages of an exchange, and the keys that the initiator's private value gives."""

    vector: Vector
    exchanged: Exchanged = field(init=False)
    keys: Phase1Keys = field(init=False)

    def __post_init__(self) -> None:
        header = Header.decode(self.message("main_2"))
        ke_i, nonce_i = (self.body("main_3", kind) for kind in (Payload1.KE, Payload1.NONCE))
        ke_r, nonce_r = (self.body("main_4", kind) for kind in (Payload1.KE, Payload1.NONCE))
        self.exchanged = Exchanged(nonce_i, nonce_r, ke_i, ke_r, header.spi_i, header.spi_r)
        group = MODP_GROUPS[2]
        x = int(self.vector["x"], 16)
        assert pow(group.generator, x, group.prime) == int.from_bytes(ke_i, "big")
        shared = pow(int.from_bytes(ke_r, "big"), x, group.prime).to_bytes(group.length, "big")
        psk = Secret(self.vector.bytes_of("psk"))
        self.keys = Phase1Keys.derive(SUITE, psk, Secret(shared), self.exchanged)

    def message(self, name: str) -> bytes:
        return self.vector.bytes_of(name)

    def body(self, name: str, kind: int) -> bytes:
        """The body of the payload of this kind in a message in clear."""
        data = self.message(name)
        return one(decode_chain(Header.decode(data).next_payload, data[HEADER_LENGTH:]), kind)

    def open(self, name: str, chain: IvChain) -> Opened:
        """A protected message, with which the chain then goes on."""
        data = self.message(name)
        opened = chain.open(Header.decode(data).next_payload, data[HEADER_LENGTH:])
        chain.confirm(opened)
        return opened


def one(payloads: tuple[RawPayload, ...], kind: int) -> bytes:
    """The body of the only payload of this kind."""
    (found,) = (payload.body for payload in payloads if payload.type == kind)
    return found


@pytest.fixture
def recording() -> Recording:
    """Main mode and quick mode between an independent initiator and strongSwan."""
    (vector,) = read("ikev1_exchange.txt")
    return Recording(vector)


def test_the_proofs_of_a_recorded_main_mode(recording: Recording) -> None:
    """HASH_I and HASH_R, each decrypted with the IV that the message before it leaves."""
    keys, chain = recording.keys, IvChain(recording.keys, recording.keys.iv)
    sa_i = recording.body("main_1", Payload1.SA)
    five = recording.open("main_5", chain)
    id_i = one(five.payloads, Payload1.ID)
    assert one(five.payloads, Payload1.HASH) == keys.hash_i(recording.exchanged, sa_i, id_i)
    six = recording.open("main_6", chain)
    id_r = one(six.payloads, Payload1.ID)
    assert one(six.payloads, Payload1.HASH) == keys.hash_r(recording.exchanged, sa_i, id_r)


def test_the_hashes_of_a_recorded_quick_mode(recording: Recording) -> None:
    """HASH(1), HASH(2) and HASH(3), under an IV chain of its own that begins where phase 1 has ended."""
    keys, phase1 = recording.keys, IvChain(recording.keys, recording.keys.iv)
    recording.open("main_5", phase1)
    recording.open("main_6", phase1)
    message_id = Header.decode(recording.message("quick_1")).message_id
    chain = IvChain(keys, keys.phase2_iv(phase1.iv, message_id))
    first, second, third = (recording.open(f"quick_{number}", chain) for number in (1, 2, 3))
    nonce_i, nonce_r = one(first.payloads, Payload1.NONCE), one(second.payloads, Payload1.NONCE)
    assert first.hash == keys.hash_1(message_id, first.behind_hash)
    assert second.hash == keys.hash_2(message_id, nonce_i, second.behind_hash)
    assert third.hash == keys.hash_3(message_id, nonce_i, nonce_r)
