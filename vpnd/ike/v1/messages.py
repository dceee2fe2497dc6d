"""The messages of IKEv1 (RFC 2409 section 5): the annotations are the rule which payloads each has.

`*` stands for an encrypted message. Vendor IDs, certificate requests and payloads without a meaning here
may stand in any message.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.wire.ikev1 import Delete, Hash, Id, KeyExchange, NatD, NatOa, Nonce, Notify, Sa, VendorId


@dataclass(frozen=True, slots=True)
class Main1:
    """HDR, SA, VID -->"""

    sa: Sa
    vendor_ids: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class Main2:
    """<-- HDR, SA, VID"""

    sa: Sa
    vendor_ids: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class Main3:
    """HDR, KE, Ni, NAT-D, NAT-D -->   (RFC 3947 section 3.2)"""

    ke: KeyExchange
    nonce: Nonce
    nat_d: tuple[NatD, ...]
    vendor_ids: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class Main4:
    """<-- HDR, KE, Nr, NAT-D, NAT-D"""

    ke: KeyExchange
    nonce: Nonce
    nat_d: tuple[NatD, ...]
    vendor_ids: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class Main5:
    """HDR*, IDii, HASH_I [, N(INITIAL_CONTACT)] -->"""

    id: Id
    hash: Hash
    notifies: tuple[Notify, ...]
    vendor_ids: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class Main6:
    """<-- HDR*, IDir, HASH_R"""

    id: Id
    hash: Hash
    notifies: tuple[Notify, ...]
    vendor_ids: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class Aggressive1:
    """HDR, SA, KE, Ni, IDii, VID -->"""

    sa: Sa
    ke: KeyExchange
    nonce: Nonce
    id: Id
    vendor_ids: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class Aggressive2:
    """<-- HDR, SA, KE, Nr, IDir, HASH_R, VID, NAT-D, NAT-D"""

    sa: Sa
    ke: KeyExchange
    nonce: Nonce
    id: Id
    hash: Hash
    nat_d: tuple[NatD, ...]
    vendor_ids: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class Aggressive3:
    """HDR*, HASH_I, NAT-D, NAT-D [, N(INITIAL_CONTACT)] -->"""

    hash: Hash
    nat_d: tuple[NatD, ...]
    notifies: tuple[Notify, ...]
    vendor_ids: tuple[VendorId, ...]


@dataclass(frozen=True, slots=True)
class Quick1:
    """HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr] -->"""

    hash: Hash
    sa: Sa
    nonce: Nonce
    ke: KeyExchange | None
    ids: tuple[Id, ...]
    nat_oa: tuple[NatOa, ...]
    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class Quick2:
    """<-- HDR*, HASH(2), SA, Nr [, KE] [, IDci, IDcr]"""

    hash: Hash
    sa: Sa
    nonce: Nonce
    ke: KeyExchange | None
    ids: tuple[Id, ...]
    nat_oa: tuple[NatOa, ...]
    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class Quick3:
    """HDR*, HASH(3) -->"""

    hash: Hash
    notifies: tuple[Notify, ...]


@dataclass(frozen=True, slots=True)
class Informational:
    """HDR*, HASH(1), N or D   (RFC 2409 section 5.7)"""

    hash: Hash
    notifies: tuple[Notify, ...]
    deletes: tuple[Delete, ...]


@dataclass(frozen=True, slots=True)
class PlainInformational:
    """HDR, N or D: anyone can send it"""

    notifies: tuple[Notify, ...]
    deletes: tuple[Delete, ...]
