"""Cutting a message and putting it together again (RFC 7383; IKEv1's vendor fragmentation works alike)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from vpnd.ike.faults import Drop

K = TypeVar("K", bound=Hashable)

MAX_FRAGMENTS = 32
"""Of one message. The largest message of a pre-shared key negotiation needs fewer than ten."""
MAX_MESSAGE = 64 * 1024
"""Bytes of one reassembled message: what an unfragmented datagram could have carried."""
DATAGRAM_LIMIT = 1280
"""Bytes of an IP datagram that every path carries: the minimum MTU of IPv6 (RFC 8200 section 5)."""


class TooLong(Drop):
    """More bytes than are put together; `length` so far."""

    def __init__(self, length: int) -> None:
        super().__init__("fragment: message too long")
        self.length = length


class Reassembly:
    """The pieces of one message at a time, each authenticated by the caller where the version allows.

    `key` names the message (its message ID, or IKEv1's fragment ID). A piece of another message discards
    what was held: the newer one is the one that the peer still sends. `most` bytes are put together.
    """

    __slots__ = ("_key", "_most", "_pieces", "_size", "_total")

    def __init__(self, most: int = MAX_MESSAGE) -> None:
        self._most = most
        self._key: int | None = None
        self._total: int | None = None
        self._pieces: dict[int, bytes] = {}
        self._size = 0

    def add(self, key: int, number: int, total: int | None, piece: bytes) -> bytes | None:
        """Take piece `number` (from 1) of `total`; the whole message once it is complete, else None.

        `total` is None while it is unknown (IKEv1 tells it with the last piece). Raises Drop for a number
        that cannot be, a repeated piece, too many pieces or too many bytes.
        """
        if not 1 <= number <= (total or MAX_FRAGMENTS) or (total or 0) > MAX_FRAGMENTS:
            raise Drop("fragment: number out of range")
        if key != self._key:
            self.clear()
            self._key = key
        self._agree(total)
        if number in self._pieces:
            raise Drop("fragment: repeated")
        if self._size + len(piece) > self._most:
            length = self._size + len(piece)
            self.clear()
            raise TooLong(length)
        self._pieces[number] = piece
        self._size += len(piece)
        if self._total is None or len(self._pieces) < self._total:
            return None
        whole = b"".join(self._pieces[n] for n in range(1, self._total + 1))
        self.clear()
        return whole

    def clear(self) -> None:
        self._key = None
        self._total = None
        self._pieces = {}
        self._size = 0

    def _agree(self, total: int | None) -> None:
        """A larger total means that the peer cut it again for a smaller MTU (RFC 7383 section 2.6)."""
        if total is None:
            return
        if self._total is not None and total < self._total:
            raise Drop("fragment: total shrank")
        if self._total is not None and total > self._total:
            self._pieces = {}
            self._size = 0
        elif any(number > total for number in self._pieces):
            self.clear()
            raise Drop("fragment: total shrank")
        self._total = total


class Reassemblies(Generic[K]):
    """The pieces of senders without state: of `at_once` at most, where the oldest goes; `most` bytes each."""

    __slots__ = ("_at_once", "_by_sender", "_most")

    def __init__(self, at_once: int, most: int) -> None:
        self._at_once = at_once
        self._most = most
        self._by_sender: dict[K, Reassembly] = {}

    def add(self, sender: K, key: int, number: int, total: int | None, piece: bytes) -> bytes | None:
        """As `Reassembly.add`, of this sender. Raises Drop."""
        held = self._by_sender.get(sender) or Reassembly(self._most)
        whole = held.add(key, number, total, piece)
        if whole is not None:
            self._by_sender.pop(sender, None)
            return whole
        self._by_sender[sender] = held
        if len(self._by_sender) > self._at_once:
            del self._by_sender[next(iter(self._by_sender))]
        return None


def split(data: bytes, size: int) -> tuple[bytes, ...]:
    """`data` in pieces of at most `size` bytes, at least one. Raises ValueError if they are too many."""
    pieces = tuple(data[start : start + size] for start in range(0, len(data), size)) or (b"",)
    if len(pieces) > MAX_FRAGMENTS:
        raise ValueError(f"{len(data)} bytes need more than {MAX_FRAGMENTS} fragments of {size}")
    return pieces
