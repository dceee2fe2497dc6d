"""The products that a peer's configuration is written for; nothing that takes long is imported here."""

from __future__ import annotations

from typing import Literal

PeerKind = Literal[
    "strongswan",
    "libreswan",
    "cisco-ios",
    "cisco-asa",
    "fortigate",
    "huawei",
    "h3c",
    "mikrotik",
    "tencent-cloud",
    "aws",
    "azure",
    "vpnd",
]

KINDS: dict[PeerKind, str] = {
    "strongswan": "strongSwan (swanctl.conf)",
    "libreswan": "libreswan (ipsec.conf)",
    "cisco-ios": "Cisco IOS and IOS XE",
    "cisco-asa": "Cisco ASA",
    "fortigate": "FortiGate (FortiOS)",
    "huawei": "Huawei USG and AR (VRP)",
    "h3c": "H3C (Comware 7)",
    "mikrotik": "MikroTik (RouterOS 7)",
    "tencent-cloud": "Tencent Cloud VPN",
    "aws": "AWS Site-to-Site VPN",
    "azure": "Azure VPN Gateway",
    "vpnd": "vpnd (TOML)",
}
"""What `--for` takes, and what each is called."""

FILES: dict[PeerKind, str] = {
    "strongswan": "swanctl.conf",
    "libreswan": "ipsec.conf",
    "tencent-cloud": "tencent-cloud.sh",
    "aws": "aws.sh",
    "azure": "azure.sh",
    "vpnd": "vpnd.toml",
}
"""What a download is called; of the others `KIND.txt`."""


def file_name(kind: PeerKind) -> str:
    """What a file with the peer's configuration is called."""
    return FILES.get(kind, f"{kind}.txt")
