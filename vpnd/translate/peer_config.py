"""The other side's configuration, made from ours: what to put on the peer so that the two fit.

The pre-shared key is never in it: a line shows where it goes, and the fingerprint to compare it by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vpnd.translate.kinds import PeerKind
from vpnd.translate.peers import (
    aws,
    azure,
    cisco_asa,
    cisco_ios,
    comware,
    fortigate,
    huawei,
    libreswan,
    mikrotik,
    strongswan,
    tencent,
    vpnd,
)
from vpnd.translate.sheet import Sheet
from vpnd.translate.side import Side, side_of

WRITERS: dict[PeerKind, tuple[str, str, Callable[[Side, Sheet], list[str]]]] = {
    "strongswan": ("strongSwan", "#", strongswan.write),
    "libreswan": ("libreswan", "#", libreswan.write),
    "cisco-ios": ("Cisco IOS", "!", cisco_ios.write),
    "cisco-asa": ("Cisco ASA", "!", cisco_asa.write),
    "fortigate": ("FortiGate", "#", fortigate.write),
    "huawei": ("Huawei VRP", "#", huawei.write),
    "h3c": ("H3C Comware", "#", comware.write),
    "mikrotik": ("RouterOS", "#", mikrotik.write),
    "tencent-cloud": ("Tencent Cloud", "#", tencent.write),
    "aws": ("AWS", "#", aws.write),
    "azure": ("Azure", "#", azure.write),
    "vpnd": ("vpnd", "#", vpnd.write),
}
"""Of each of `KINDS`: what the product is called, how a comment begins, and what writes for it."""


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """The text, and what the peer's operator has to know, which stands in it as comments too."""

    text: str
    notes: tuple[str, ...]


def peer_config(tunnel: Mapping[str, Any], kind: PeerKind) -> PeerConfig:
    """What to put on the peer of `tunnel`, which is what `GET /v1/tunnels/NAME` answers; `kind` of `KINDS`.

    Raises NotPossible where that product cannot do what the tunnel is configured for.
    """
    product, comment, write = WRITERS[kind]
    sheet = Sheet(product, comment)
    head = write(side_of(tunnel), sheet)
    return PeerConfig(sheet.text(head), sheet.notes)
