"""Who made the peer, from its vendor ID payloads: shown in status, never acted upon."""

from __future__ import annotations

from collections.abc import Iterable

VPND = b"vpnd-ipsec".ljust(15, b"\0") + b"\1"
"""vpnd's own vendor ID: the bytes `vpnd-ipsec`, zeroes, and the revision of what it may come to mean."""

KNOWN: tuple[tuple[str, str], ...] = (
    (VPND.hex(), "vpnd"),
    ("882fe56d6fd20dbc2251613b2ebe5beb", "strongSwan"),
    (b"OE-Libreswan-".hex(), "libreswan"),
    (b"OSW".hex(), "Openswan"),
    (b"OpenIKED-".hex(), "OpenIKED"),
    ("7003cbc1097dbe9c2600ba6983bc8b35", "racoon"),
    ("20a3622c1cea7ce37bee3ca484425276", "racoon"),
    ("f14b94b7bff1fef02773b8c49feded26", "Shrew Soft"),
    ("8299031757a36082c6a621de", "Fortinet"),
    ("1d6e178f6c2c0be284985465450fe9d4", "Fortinet"),
    ("f4ed19e0c114eb516faaac0ee37daf2807b4381f", "Check Point"),
    ("5b362bc820f6", "SonicWall"),
    ("5b362bc820f7", "SonicWall"),
    ("404bf439522ca3f6", "SonicWall"),
    ("166f932d55eb64d8e4df4fd37e2313f0d0fd8451", "Juniper"),
    ("299ee8289f40a8973bc78687e2e7226b532c3b76", "Juniper"),
    ("2a2bcac19b8e91b426107807e02e7249569d6fd3", "Juniper"),
    ("3a15e1f3cf2a63582e3ac82d1c64cbe3b6d779e7", "Juniper"),
    ("47d2b126bfcd83489760e2cf8c5d4d5a03497c15", "Juniper"),
    ("4a4340b543e02b84c88a8b96a8af9ebe77d9accc", "Juniper"),
    ("64405f46f03b7660a23be116a1975058e69e8387", "Juniper"),
    ("699369228741c6d4ca094c93e242c9de19e7b7c6", "Juniper"),
    ("8c0dc6cf62a0ef1b5c6eabd1b67ba69866adf16a", "Juniper"),
    ("92d27a9ecb31d99246986d3453d0c3d57a222a61", "Juniper"),
    ("9b096d9ac3275a7d6fe8b91c583111b09efed1a0", "Juniper"),
    ("a35bfd05ca1ac0b3d2f24e9e82bfcbff9c9e52b5", "Juniper"),
    ("bf03746108d746c904f1f3547de24f78479fed12", "Juniper"),
    ("c2e80500f4cc5fbf5daaeed3bb59abaeee56c652", "Juniper"),
    ("c8660a62b03b1b6130bf781608d32a6a8d0fb89f", "Juniper"),
    ("f885da40b1e7a9abd17655ec5bbec0f21f0ed52e", "Juniper"),
    ("625027749d5ab97f5616c1602765cf480a3b7d0b", "Zyxel"),
    ("b858d1addd08c1e8adafea150608aa4497aa6cc8", "Zyxel"),
    ("f758f22668750f03b08df6ebe1d0", "Zyxel"),
    (b"CISCO-DELETE-REASON".hex(), "Cisco"),
    (b"CISCO(COPYRIGHT)".hex(), "Cisco"),
    (b"CISCO-DYNAMIC-ROUTE".hex(), "Cisco"),
    (b"CISCOVPN-REV-".hex(), "Cisco"),
    (b"CISCO-GRE-MODE".hex(), "Cisco"),
    (b"FLEXVPN-SUPPORTED".hex(), "Cisco"),
    ("1f07f70eaa6514d3b0fa96542a", "Cisco"),
    ("1e2b516905991c7d7c96fcbfb587e461", "Microsoft"),
    ("fb1de3cdf341b7ea16b7e5be0855f120", "Microsoft"),
    ("12f5f28c457168a9702d9fe274cc", "Cisco"),
)
"""What vendor IDs begin with, in hexadecimal, and the maker.

From `ike-vendor-ids` of ike-scan and the table of Wireshark's `packet-isakmp.c`, which agree where both
have one; strongSwan, Cisco and Microsoft also from strongSwan's `ike_vendor.c`; OpenIKED as libreswan's issue
1825 has recorded it. The order counts: Cisco Unity, which stands last, is also sent by others that speak its
extension, and Shrew Soft sends that of NetScreen too. None of MikroTik, Palo Alto, Huawei or H3C is in the
sources named here.
"""

_PREFIXES = tuple((bytes.fromhex(prefix), name) for prefix, name in KNOWN)


def recognise(vendor_ids: Iterable[bytes]) -> str | None:
    """The maker's name, by what is said first in our table; None if nothing is known."""
    present = tuple(vendor_ids)
    return next((name for prefix, name in _PREFIXES if any(one.startswith(prefix) for one in present)), None)
