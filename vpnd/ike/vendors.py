"""Who made the peer, from its vendor ID payloads: shown in status, never acted upon."""

from __future__ import annotations

from collections.abc import Iterable

VPND = b"vpnd-ipsec".ljust(15, b"\0") + b"\1"
"""vpnd's own vendor ID: the bytes `vpnd-ipsec`, zeroes, and the revision of what it may come to mean."""

_KNOWN: tuple[tuple[bytes, str], ...] = (
    (VPND, "vpnd"),
    (bytes.fromhex("882fe56d6fd20dbc2251613b2ebe5beb"), "strongSwan"),
    (b"OE-Libreswan-", "libreswan"),
    (b"CISCO-DELETE-REASON", "Cisco"),
    (b"CISCO(COPYRIGHT)", "Cisco"),
    (b"CISCO-DYNAMIC-ROUTE", "Cisco"),
    (b"FLEXVPN-SUPPORTED", "Cisco"),
    (bytes.fromhex("12f5f28c457168a9702d9fe274cc01"), "Cisco"),
    (bytes.fromhex("1e2b516905991c7d7c96fcbfb587e461"), "Microsoft"),
    (bytes.fromhex("f14b94b7bff1fef02773b8c49feded26"), "Fortinet"),
)


def recognise(vendor_ids: Iterable[bytes]) -> str | None:
    """The maker's name, by the first vendor ID that is known; None if none is."""
    for data in vendor_ids:
        for prefix, name in _KNOWN:
            if data.startswith(prefix):
                return name
    return None
