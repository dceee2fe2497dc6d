"""What the peer's product calls the settings that a failure is about: words of its pages and commands."""

from __future__ import annotations

from vpnd.control.explanation import Facts
from vpnd.model.diagnosis import Code

_PHASE_1 = frozenset(
    {Code.P1_ENCRYPTION, Code.P1_INTEGRITY, Code.P1_PRF, Code.P1_DH, Code.P1_PROPOSAL, Code.ADDITION}
)
_PHASE_2 = frozenset({Code.P2_ENCRYPTION, Code.P2_INTEGRITY, Code.P2_PROPOSAL, Code.P2_ESN})
_SETTINGS = (
    (_PHASE_1, 0),
    (_PHASE_2, 1),
    (frozenset({Code.PFS, Code.PFS_OF_PEER}), 2),
    (frozenset({Code.PSK}), 3),
    (frozenset({Code.IDENTITY}), 4),
    (frozenset({Code.TRAFFIC_SELECTORS, Code.NARROWED, Code.MAPPINGS_DOWN}), 5),
)
"""Which entry of a product's words a code is about."""

_WORDS: dict[str, tuple[str, str, str, str, str, str]] = {
    "strongSwan": ("proposals", "esp_proposals", "esp_proposals", "secrets.ike", "local.id", "local_ts"),
    "libreswan": ("ike=", "esp=", "pfs=", "ipsec.secrets", "leftid=", "leftsubnet="),
    "Fortinet": (
        "Phase 1 Proposal",
        "Phase 2 Proposal",
        "Enable Perfect Forward Secrecy",
        "Pre-shared Key",
        "Local ID",
        "Phase 2 Selectors",
    ),
    "Cisco": (
        "crypto ikev2 proposal",
        "crypto ipsec transform-set",
        "set pfs",
        "crypto ikev2 keyring",
        "identity local",
        "access-list of the crypto map",
    ),
    "Juniper": (
        "security ike proposal",
        "security ipsec proposal",
        "perfect-forward-secrecy of security ipsec policy",
        "pre-shared-key of security ike policy",
        "local-identity of security ike gateway",
        "traffic-selector of security ipsec vpn",
    ),
    "Check Point": (
        "VPN community: Encryption, Phase 1",
        "VPN community: Encryption, Phase 2",
        "VPN community: Use Perfect Forward Secrecy",
        "VPN community: Shared Secret",
        "IPsec VPN: Link Selection",
        "VPN Domain",
    ),
    "SonicWall": (
        "VPN policy: Proposals, IKE (Phase 1) Proposal",
        "VPN policy: Proposals, Ipsec (Phase 2) Proposal",
        "Enable Perfect Forward Secrecy",
        "Shared Secret",
        "Local IKE ID",
        "VPN policy: Network",
    ),
    "OpenIKED": ("ikesa", "childsa", "group of childsa", "psk", "srcid", "from ... to"),
    "racoon": (
        "proposal of remote",
        "sainfo",
        "pfs_group of sainfo",
        "psk.txt",
        "my_identifier of remote",
        "spdadd and sainfo",
    ),
    "Microsoft": (
        "IPsec / IKE policy: IKE Phase 1",
        "IPsec / IKE policy: IKE Phase 2 (IPsec)",
        "PFS Group",
        "Shared key (PSK)",
        "public IP address",
        "local network gateway: address space",
    ),
}
_ISAKMP = ("crypto isakmp policy", "crypto ipsec transform-set", "set pfs", "crypto isakmp key")


def product_words(facts: Facts) -> str:
    """` (FortiGate: Phase 1 Proposal)`, or nothing where the product is not known."""
    vendor = facts.about.vendor or ""
    words = _WORDS.get(vendor)
    setting = next((at for codes, at in _SETTINGS if facts.diagnosis.code in codes), None)
    if words is None or setting is None:
        return ""
    if vendor == "Cisco" and facts.about.version == "ikev1" and setting < len(_ISAKMP):
        return f" (Cisco: {_ISAKMP[setting]})"
    return f" ({_NAMES.get(vendor, vendor)}: {words[setting]})"


_NAMES = {"Fortinet": "FortiGate", "Microsoft": "Azure"}
"""What people call the product of a maker."""

PRODUCTS = tuple(_WORDS)
"""The makers whose words are known."""
