"""Encryption of ISAKMP messages, and the chain of IVs that runs through each exchange (RFC 2409 appendix B).

The IV of a message is the last ciphertext block of the one before it, in whichever direction that went. A
received message moves the chain only once it has been verified (`confirm`), so that a forged one cannot
break the exchange: opening is one step, moving the chain another.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.crypto.seal import cbc_decrypt, cbc_encrypt
from vpnd.crypto.suites import ENCRYPTIONS
from vpnd.ike.faults import Drop
from vpnd.ike.v1.keys import Phase1Keys
from vpnd.wire.chain import RawPayload, decode_chain
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import Payload1

GENERIC_HEADER = 4


@dataclass(frozen=True, slots=True)
class Opened:
    """A decrypted message: its payloads, the first payload's body if that is a HASH, and the bytes behind it.

    `behind_hash` is what HASH(1) and HASH(2) cover: every payload after the first, without padding.
    `next_iv` is where the chain goes once the message has been verified.
    """

    payloads: tuple[RawPayload, ...]
    hash: bytes | None
    behind_hash: bytes
    next_iv: bytes


class IvChain:
    """The cipher of one exchange: the ISAKMP SA's key and this exchange's current IV."""

    __slots__ = ("_block", "_key", "_word", "iv")

    def __init__(self, keys: Phase1Keys, iv: bytes) -> None:
        self._word = keys.encryption_word
        self._key = keys.encryption_key
        self._block = ENCRYPTIONS[keys.encryption_word].block
        self.iv = iv

    def seal(self, plain: bytes) -> bytes:
        """`plain`, filled up with zeroes to whole blocks, encrypted; the chain moves on."""
        padded = plain + bytes(-len(plain) % self._block)
        sealed = cbc_encrypt(self._word, self._key, self.iv, padded)
        self.iv = sealed[-self._block :]
        return sealed

    def open(self, first: int, sealed: bytes) -> Opened:
        """Decrypt without moving the chain. Raises DecodeError for a length that no cipher makes.

        Raises Undecryptable for garbage inside.
        With the wrong key the first payload headers are noise, which is how a wrong pre-shared key shows.
        """
        if not sealed or len(sealed) % self._block:
            raise DecodeError("encrypted payloads", f"{len(sealed)} bytes are no whole blocks")
        plain = cbc_decrypt(self._word, self._key, self.iv, sealed)
        try:
            payloads = decode_chain(first, plain, padded=True)
        except DecodeError as error:
            raise Undecryptable from error
        length = sum(GENERIC_HEADER + len(payload.body) for payload in payloads)
        hashed = bool(payloads) and payloads[0].type == Payload1.HASH
        start = GENERIC_HEADER + len(payloads[0].body) if hashed else 0
        return Opened(
            payloads, payloads[0].body if hashed else None, plain[start:length], sealed[-self._block :]
        )

    def confirm(self, opened: Opened) -> None:
        """The message has been verified: the next one of either side continues from it."""
        self.iv = opened.next_iv


class Undecryptable(Drop):
    """What the key yields is no chain of payloads: the peer's key is another, or these are not its bytes."""

    def __init__(self) -> None:
        super().__init__("undecryptable")
