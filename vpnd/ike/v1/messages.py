"""The messages of IKEv1 (RFC 2409 section 5): the annotations are the rule which payloads each has.

`*` stands for an encrypted message. Vendor IDs, certificate requests and payloads without a meaning here
may stand in any message.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.ike import message
from vpnd.ike.faults import Drop
from vpnd.ike.message import Message
from vpnd.ike.v1.protect import IvChain, Opened
from vpnd.wire.errors import DecodeError
from vpnd.wire.ikev1 import Delete, Hash, Id, KeyExchange, NatD, NatOa, Nonce, Notify, Sa, VendorId


class _Choice(Message):
    """What either side has in the first exchange of main mode."""

    sa: Sa
    vendor_ids: tuple[VendorId, ...]


class Main1(_Choice):
    """HDR, SA, VID -->"""


class Main2(_Choice):
    """<-- HDR, SA, VID"""


class _Half(Message):
    """What either side has in the second exchange of main mode."""

    ke: KeyExchange
    nonce: Nonce
    nat_d: tuple[NatD, ...]
    vendor_ids: tuple[VendorId, ...]


class Main3(_Half):
    """HDR, KE, Ni, NAT-D, NAT-D -->   (RFC 3947 section 3.2)"""


class Main4(_Half):
    """<-- HDR, KE, Nr, NAT-D, NAT-D"""


class _Proof(Message):
    """What either side has in the third exchange of main mode."""

    id: Id
    hash: Hash
    notifies: tuple[Notify, ...]
    vendor_ids: tuple[VendorId, ...]


class Main5(_Proof):
    """HDR*, IDii, HASH_I [, N(INITIAL_CONTACT)] -->"""


class Main6(_Proof):
    """<-- HDR*, IDir, HASH_R"""


class Aggressive1(Message):
    """HDR, SA, KE, Ni, IDii, VID -->"""

    sa: Sa
    ke: KeyExchange
    nonce: Nonce
    id: Id
    vendor_ids: tuple[VendorId, ...]


class Aggressive2(Message):
    """<-- HDR, SA, KE, Nr, IDir, HASH_R, VID, NAT-D, NAT-D"""

    sa: Sa
    ke: KeyExchange
    nonce: Nonce
    id: Id
    hash: Hash
    nat_d: tuple[NatD, ...]
    vendor_ids: tuple[VendorId, ...]


class Aggressive3(Message):
    """HDR*, HASH_I, NAT-D, NAT-D [, N(INITIAL_CONTACT)] -->"""

    hash: Hash
    nat_d: tuple[NatD, ...]
    notifies: tuple[Notify, ...]
    vendor_ids: tuple[VendorId, ...]


class _Quick(Message):
    """What either side says of a pair of IPsec SAs."""

    hash: Hash
    sa: Sa
    nonce: Nonce
    ke: KeyExchange | None
    ids: tuple[Id, ...]
    nat_oa: tuple[NatOa, ...]
    notifies: tuple[Notify, ...]


class Quick1(_Quick):
    """HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr] -->"""


class Quick2(_Quick):
    """<-- HDR*, HASH(2), SA, Nr [, KE] [, IDci, IDcr]"""


class Quick3(Message):
    """HDR*, HASH(3) -->"""

    hash: Hash
    notifies: tuple[Notify, ...]


class Informational(Message):
    """HDR*, HASH(1), N or D   (RFC 2409 section 5.7)"""

    hash: Hash
    notifies: tuple[Notify, ...]
    deletes: tuple[Delete, ...]


class PlainInformational(Message):
    """HDR, N or D: anyone can send it"""

    notifies: tuple[Notify, ...]
    deletes: tuple[Delete, ...]


class UnopenedProof(Message):
    """Main5 or Aggressive3 that our key does not open"""


class UnopenedInformational(Message):
    """HDR* that our key does not open, where the peer may say why it does not take our proof"""


MAIN = (Main1, Main2, Main3, Main4, Main5, Main6)
AGGRESSIVE = (Aggressive1, Aggressive2, Aggressive3)
"""The messages of the two modes."""


@dataclass(frozen=True, slots=True)
class Received(message.Received):
    """A message. Of an encrypted one `opened` and `opened_with` are what verification needs.

    An action calls `confirm` once it has verified.
    """

    opened: Opened | None = None
    opened_with: IvChain | None = None

    @property
    def chain(self) -> IvChain:
        """The IV chain that opened the message. Raises Drop for a message in clear."""
        if self.opened_with is None:
            raise Drop("not encrypted")
        return self.opened_with

    @property
    def behind_hash(self) -> bytes:
        """What HASH(1) and HASH(2) cover. Raises DecodeError if the first payload is no HASH."""
        if self.opened is None or self.opened.hash is None:
            raise DecodeError("payloads", "the first is not HASH")
        return self.opened.behind_hash

    def confirm(self) -> None:
        """The message has been verified: the IV chain moves on."""
        if self.opened is not None and self.opened_with is not None:
            self.opened_with.confirm(self.opened)
