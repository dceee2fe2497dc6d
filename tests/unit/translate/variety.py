"""30 tunnels that differ in version, mode, algorithms, identities, PFS, mappings, lifetimes and more."""

from __future__ import annotations

RULES = 'communication = "spd-policy"\n'
ONE = RULES + 'spd = [{ local = ["10.1.0.0/24"], remote = ["10.2.0.0/24"] }]\n'
TWO = RULES + 'spd = [{ local = ["10.1.0.0/24", "10.3.0.0/24"], remote = ["10.2.0.0/24"] }]\n'
PORTS = RULES + (
    'spd = [{ local = ["10.1.0.0/24"], remote = ["10.2.0.0/24"], protocol = "tcp", local_port = 443 },'
    ' { local = ["10.1.0.0/24"], remote = ["10.2.0.0/24"], protocol = "icmp" }]\n'
)
ROUTED = 'routes = ["10.2.0.0/16"]\n'
NAMED = 'ike.local_id = "hq.example"\nike.remote_id = "branch.example"\n'
V1 = 'ike.version = "ikev1"\n'
AGGRESSIVE = V1 + 'ike.negotiation_mode = "aggressive"\n'


def suite(encryption: str, integrity: str, group: int, pfs: str = '"disable"') -> str:
    """One algorithm of each kind, the same for IKE and ESP."""
    ike = f'ike.encryption = "{encryption}"\nike.integrity = "{integrity}"\nike.dh_group = {group}\n'
    return ike + f'ipsec.encryption = "{encryption}"\nipsec.integrity = "{integrity}"\nipsec.pfs = {pfs}\n'


VARIETY: dict[str, str] = {
    "defaults": ONE,
    "routed": ROUTED,
    "routed-with-health-check": ROUTED + "health_check.enabled = true\n",
    "two-mappings": TWO,
    "ports": PORTS,
    "passive": ONE + 'negotiation = "passive"\n',
    "routed-passive": ROUTED + 'negotiation = "passive"\n',
    "triggered": ONE + 'negotiation = "traffic-triggered"\n',
    "names": ONE + NAMED,
    "udp": ONE + 'ipsec.encapsulation = "udp"\n',
    "gcm": ONE + suite("aes-256-gcm", "sha384", 20, "20"),
    "chacha": ONE + suite("chacha20-poly1305", "sha256", 31, "31"),
    "aes-192": ONE + suite("aes-192", "sha512", 16, "15"),
    "lists": ONE + 'ike.encryption = ["aes-256-gcm", "aes-128", "aes-256"]\nike.dh_group = [19, 14]\n'
    'ipsec.encryption = ["aes-128", "aes-256"]\nipsec.integrity = ["sha256", "sha1"]\nipsec.pfs = [14, 19]\n',
    "esn": ONE + 'ipsec.esn = "yes"\n',
    "no-esn": ONE + 'ipsec.esn = "no"\n',
    "sha256-96": ONE + "ipsec.sha256_96 = true\n",
    "short-lives": ONE + "ike.lifetime = 3600\nipsec.lifetime = 600\nipsec.lifetime_kb = 4096\n",
    "long-lives": ONE + "ike.lifetime = 604800\nipsec.lifetime = 172800\nipsec.lifetime_kb = 0\n",
    "no-dpd": ONE + "dpd.enabled = false\n",
    "long-dpd": ONE + "dpd.timeout = 3600\n",
    "small-window": ONE + "ipsec.replay_window = 64\n",
    "ikev1": ONE + V1,
    "ikev1-legacy": TWO + V1 + suite("3des", "md5", 5, "5"),
    "ikev1-weakest": ONE + V1 + suite("des", "md5", 1, "1"),
    "ikev1-pfs": ONE + V1 + suite("aes-256", "sha1", 14, "14"),
    "ikev1-routed": ROUTED + V1 + 'negotiation = "passive"\n',
    "ikev1-lists": ONE + V1 + 'ike.encryption = ["aes-256", "aes-128"]\nike.integrity = ["sha256", "sha1"]\n',
    "aggressive": ONE + AGGRESSIVE + NAMED,
    "aggressive-group-24": ONE + AGGRESSIVE + suite("aes-128", "sha256", 24, "24"),
}
