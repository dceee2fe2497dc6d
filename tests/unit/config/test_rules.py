"""Every rule that is checked at load: its code, its message, the line it names, and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.config.files import GATEWAY, KEY, ROUTES, TUNNEL, load_text, marked_line
from vpnd.config import rules
from vpnd.config.mappings import MAX_MAPPINGS, mappings_of
from vpnd.config.problems import Severity

BASE = GATEWAY + TUNNEL

AUTO = GATEWAY.replace('"192.0.2.1"', '"auto"')

KEYLESS = GATEWAY + '[tunnels.a]\ncustomer_gateway = "branch"\n'

SPD = f"""
[tunnels.a]
customer_gateway = "branch"
{KEY}
communication = "spd-policy"
"""


def spd(name: str, *pairs: tuple[str, str], extra: str = "") -> str:
    """An spd-policy tunnel; each pair is one rule with one local and one remote range."""
    text = f'\n[tunnels.{name}]\ncustomer_gateway = "branch"\n{KEY}\ncommunication = "spd-policy"\n{extra}\n'
    text += f'ike.local_id = "{name}.example"\n'
    for local, remote in pairs:
        text += f"[[tunnels.{name}.spd]]\nlocal = [{local}]\nremote = [{remote}]\n"
    return text


def narrowed(lines: str, extra: str = "") -> str:
    """An spd-policy tunnel whose one rule has further lines."""
    text = GATEWAY + f"{SPD}{extra}\n[[tunnels.a.spd]]\n"
    return text + f'local = ["10.1.0.0/24"]\nremote = ["10.2.0.0/24"]\n{lines}\n'


@dataclass(frozen=True)
class Case:
    """`text` has a mark on the line that the problem must name."""

    code: str
    says: str
    hint: str
    text: str


MANY = ",\n".join(f'"10.{i}.0.0/24"' for i in range(201))
RANGES = [f'"10.{i // 256}.{i % 256}.0/24",' for i in range(2000)]
FIRST_TOO_MANY = [*RANGES[:200], f"{RANGES[200]} #!", *RANGES[201:]]
MILLIONS = "\n".join(["[[tunnels.a.spd]]", "local = [", *RANGES, "]", "remote = [", *FIRST_TOO_MANY, "]\n"])
TOO_MANY = MANY.replace('"10.200.0.0/24"', '"10.200.0.0/24" #!')

NOT_SPOKEN = "use an IP address or an FQDN, here and at the peer"

IDENTITIES = (
    ("1.2.3", '"1.2.3" is not an IP address', 'write "@1.2.3"'),
    ("a b", "neither an IP address nor a domain name", "domain name"),
    ("branch(1)", "neither an IP address nor a domain name", 'write "@branch(1)"'),
    ("%any", "no one's identity", "the one that the peer says it is"),
    ("any", "no one's identity", "the one that the peer says it is"),
    ("0.0.0.0", "no one's identity", "the one that the peer says it is"),
    ("*", "a pattern", "the one that the peer says it is"),
    ("*.example.com", "a pattern", "the one that the peer says it is"),
    ("%fromcert", "no one's identity", "an identity is an IP address"),
    ("user@host", "an e-mail address (ID_RFC822_ADDR)", 'write "@user@host"'),
    ("@@user@host", "an e-mail address (ID_RFC822_ADDR)", NOT_SPOKEN),
    ("rfc822:user@host", "an e-mail address (ID_RFC822_ADDR)", NOT_SPOKEN),
    ("keyid:x", "a key ID (ID_KEY_ID)", NOT_SPOKEN),
    ("@#6162", "a key ID (ID_KEY_ID)", NOT_SPOKEN),
    ("@[x]", "a key ID (ID_KEY_ID)", NOT_SPOKEN),
    ("asn1dn:CN=gw", "a distinguished name (ID_DER_ASN1_DN)", NOT_SPOKEN),
    ("C=CH, CN=gw", "a distinguished name (ID_DER_ASN1_DN)", NOT_SPOKEN),
    ("{2}:gw", "a type by its number", NOT_SPOKEN),
    ("fqdn:gw", "written with a prefix", 'write "gw"'),
    ("fqdn:203.0.113.1", "written with a prefix", 'write "@203.0.113.1"'),
    ("dns:gw", "written with a prefix", 'write "gw"'),
    ("ipv4:203.0.113.1", "written with a prefix", 'write "203.0.113.1"'),
    ("ipv6:2001:db8::1", "written with a prefix", 'write "2001:db8::1"'),
    ("203.0.113.0/24", "a network", "the address alone"),
    ("203.0.113.1-203.0.113.9", "a range of addresses", 'such as "203.0.113.1"'),
    ("203.0.113.1:500", "something added", 'write "203.0.113.1"'),
    ("[2001:db8::1]", "something added", 'write "2001:db8::1"'),
    ("fe80::1%eth0", "something added", 'write "fe80::1"'),
)

ERRORS = [
    # the file and its tables
    Case("E-TOML", "", "correct the TOML syntax", GATEWAY + "[tunnels.a #!\n"),
    Case(
        "E-GATEWAY",
        "there is no [gateway] table",
        "add [gateway]",
        '[customer_gateways.x] #!\naddress = "192.0.2.9"\n',
    ),
    Case(
        "E-GATEWAY",
        "type ccn belongs to no VPC",
        "remove vpc",
        '[gateway]\nname = "x"\naddress = "192.0.2.1"\ntype = "ccn"\nvpc = "v" #!\n',
    ),
    Case("E-KEY", 'unknown key "tunels"', 'did you mean "tunnels"?', GATEWAY + "[tunels.a] #!\n"),
    Case(
        "E-KEY",
        'unknown key "negotation"',
        'did you mean "negotiation"?',
        BASE + 'negotation = "active" #!\n',
    ),
    Case(
        "E-KEY",
        'unknown key "dhgroup"',
        'did you mean "dh_group"?',
        BASE + "[tunnels.a.ike]\n\ndhgroup = 14 #!\n",
    ),
    Case(
        "E-KEY",
        'unknown key "interval"',
        'did you mean "interval_ms"?',
        BASE + "health_check = { enabled = true,  interval = 5 } #!\n",
    ),
    Case("E-TYPE", "tunnels is not a table", "[tunnels.NAME]", "tunnels = 3 #!\n" + GATEWAY),
    Case("E-TYPE", "ike: 3 has the wrong type", "write a table", BASE + "ike = 3 #!\n"),
    Case(
        "E-TYPE",
        'priority: "0" has the wrong type',
        "a whole number without quotes",
        BASE + 'priority = "0" #!\n',
    ),
    Case(
        "E-TYPE", 'dpd.enabled: "yes" has the wrong type', "true or false", BASE + 'dpd.enabled = "yes" #!\n'
    ),
    Case("E-TYPE", "routes:", "a list", BASE + 'routes = "10.2.0.0/16" #!\n'),
    Case("E-MISSING", "customer_gateway is missing", "[tunnels.a]", GATEWAY + f"[tunnels.a] #!\n{KEY}\n"),
    Case(
        "E-MISSING",
        "pre_shared_key is missing",
        "[tunnels.a]",
        GATEWAY + '[tunnels.a] #!\ncustomer_gateway = "branch"\n',
    ),
    Case("E-MISSING", "address is missing", "[customer_gateways.z]", GATEWAY + "[customer_gateways.z] #!\n"),
    Case("E-NAME", "the name has 61 characters", "at most 60", GATEWAY + f"[tunnels.{'n' * 61}] #!\n"),
    Case("E-NAME", '"/"', "without '/'", GATEWAY + '[tunnels."a/b"] #!\n'),
    Case("E-NAME", "", "printable characters", GATEWAY + '[tunnels." a"] #!\n'),
    Case("E-NAME", "", "printable characters", GATEWAY + '[tunnels.".a"] #!\n'),
    Case("E-NAME", "", "printable characters", GATEWAY + '[tunnels."-a"] #!\n'),
    # gateways
    Case(
        "E-ADDRESS",
        '"192.0.2.300" is not an IP address',
        "",
        '[gateway]\nname = "x"\naddress = "192.0.2.300" #!\n',
    ),
    Case(
        "E-ADDRESS",
        "224.0.0.1 is not the address of one machine",
        "",
        '[gateway]\nname = "x"\naddress = "224.0.0.1" #!\n',
    ),
    Case(
        "E-ADDRESS",
        "neither an IP address nor a domain name",
        "",
        GATEWAY + '[customer_gateways.z]\naddress = "1.2.3.999" #!\n',
    ),
    Case(
        "E-ADDRESS",
        "has the address of this gateway, 192.0.2.1",
        "other machine's",
        GATEWAY
        + '[customer_gateways.z]\naddress = "192.0.2.1" #!\n[tunnels.a]\ncustomer_gateway = "z"\n'
        + KEY,
    ),
    Case(
        "E-ADDRESS",
        "of two kinds",
        "both IPv6",
        GATEWAY
        + '[customer_gateways.z]\naddress = "2001:db8::1" #!\n[tunnels.a]\ncustomer_gateway = "z"\n'
        + KEY,
    ),
    Case(
        "E-CUSTOMER-GATEWAY",
        'there is no customer gateway "brunch"',
        'did you mean "branch"?',
        GATEWAY + f'[tunnels.a]\ncustomer_gateway = "brunch" #!\n{KEY}\n',
    ),
    Case(
        "E-ADDRESS",
        "",
        "",
        GATEWAY + f'[tunnels.a]\ncustomer_gateway = {{ address = "no name" }} #!\n{KEY}\n',
    ),
    Case(
        "E-VALUE",
        '"vlan" is not a gateway type',
        "one of: vpc, ccn",
        '[gateway]\nname = "x"\naddress = "192.0.2.1"\ntype = "vlan" #!\n',
    ),
    # words and numbers
    Case(
        "E-VALUE",
        'encryption: "aes128" is not an encryption algorithm',
        'did you mean "aes-128"?',
        BASE + 'ike.encryption = ["aes-256",\n "aes128"] #!\n',
    ),
    Case(
        "E-VALUE",
        'integrity: "sha-256" is not an integrity algorithm',
        'did you mean "sha256"?',
        BASE + 'ipsec.integrity = "sha-256" #!\n',
    ),
    Case(
        "E-VALUE",
        "is listed twice",
        "the preferred first",
        BASE + 'ike.encryption = ["aes-128", "aes-128"] #!\n',
    ),
    Case("E-VALUE", "the list is empty", "at least one", BASE + "ike.dh_group = [] #!\n"),
    Case(
        "E-VALUE",
        "22 is not a DH group that vpnd has",
        "one of: 1, 2, 5, 14",
        BASE + "ike.dh_group = 22 #!\n",
    ),
    Case(
        "E-VALUE",
        '"DH-GROUP14" is not a DH group',
        "write 14, without quotes",
        BASE + 'ike.dh_group = "DH-GROUP14" #!\n',
    ),
    Case("E-VALUE", '"off" is not a PFS group', 'write "disable"', BASE + 'ipsec.pfs = "off" #!\n'),
    Case("E-VALUE", "False is not a PFS group", 'write "disable"', BASE + "ipsec.pfs = false #!\n"),
    Case("E-VALUE", '"of" is not a DH group', "one of", BASE + 'ipsec.pfs = "of" #!\n'),
    Case("E-VALUE", '"disable" stands alone', "", BASE + 'ipsec.pfs = [14, "disable"] #!\n'),
    Case("E-VALUE", '"ikev3" is not an IKE version', "did you mean", BASE + 'ike.version = "ikev3" #!\n'),
    Case(
        "E-VALUE", '"restart" is not a DPD action', "disconnect, retry", BASE + 'dpd.action = "restart" #!\n'
    ),
    Case("E-RANGE", "dpd.timeout is 9; allowed: 10 to 3600", "", BASE + "dpd.timeout = 9 #!\n"),
    Case("E-RANGE", "dpd.timeout is 3601; allowed: 10 to 3600", "", BASE + "dpd.timeout = 3601 #!\n"),
    Case(
        "E-RANGE",
        "replay_window is 0, which would take a recorded packet any number of times",
        "write 4096",
        BASE + "ipsec.replay_window = 0 #!\n",
    ),
    Case(
        "E-ESN",
        "extended sequence numbers in IKEv2 only",
        "remove esn",
        BASE + 'ike.version = "ikev1"\nipsec.esn = "yes" #!\n',
    ),
    Case(
        "E-VALUE",
        'protocol: "tpc" is not an IP protocol',
        'did you mean "tcp"?',
        narrowed('protocol = "tpc" #!'),
    ),
    Case("E-VALUE", "protocol: 256 is not an IP protocol", "1 to 255", narrowed("protocol = 256 #!")),
    Case("E-VALUE", "protocol: 0 is not an IP protocol", "left out: any", narrowed("protocol = 0 #!")),
    *(
        Case(
            "E-VALUE",
            "is neither a port nor a range of ports",
            "1024-65535",
            narrowed(f'protocol = "tcp"\nremote_port = {text} #!'),
        )
        for text in ("0", "65536", '"1024-"', '"2-1"', '"http"', '"0-5"', "true", '""', '"1:2"', "[80]")
    ),
    Case(
        "E-PORT",
        "the kernel's rules cannot name port 65535",
        "another port",
        narrowed('protocol = "udp"\nlocal_port = 65535 #!'),
    ),
    Case(
        "E-PORT",
        "local_port 443 without a protocol",
        'protocol = "tcp"',
        narrowed("local_port = 443 #!"),
    ),
    Case(
        "E-PORT",
        "remote_port 8 with icmp: it has no ports",
        "icmp is taken as a whole",
        narrowed('protocol = "icmp"\nremote_port = 8 #!'),
    ),
    Case(
        "E-PORT",
        "IKEv1 cannot ask for a range of ports such as 1024-65535",
        "a rule for each port",
        narrowed('protocol = "tcp"\nremote_port = "1024-65535" #!', 'ike.version = "ikev1"'),
    ),
    Case(
        "E-OVERLAP",
        "10.1.0.0/24[tcp/80] - 10.2.0.0/24[tcp] overlaps 10.1.0.0/24[tcp/1-443] - 10.2.0.0/24[tcp]",
        "change one range",
        narrowed('protocol = "tcp"\nlocal_port = "1-443"')
        + '[[tunnels.a.spd]]\nlocal = ["10.1.0.0/24"]\nremote = ["10.2.0.0/24"] #!\n'
        + 'protocol = "tcp"\nlocal_port = 80\n',
    ),
    Case(
        "E-OVERLAP",
        "10.1.0.0/24 - 10.2.0.0/24 overlaps 10.1.0.0/24[udp] - 10.2.0.0/24[udp]",
        "change one range",
        narrowed('protocol = "udp"')
        + '[[tunnels.a.spd]]\nlocal = ["10.1.0.0/24"]\nremote = ["10.2.0.0/24"] #!\n',
    ),
    Case(
        "E-HEALTH-MAPPING",
        "no mapping of this tunnel carries its health check",
        "add a rule",
        GATEWAY
        + SPD
        + '[[tunnels.a.spd]]\nlocal = ["169.254.9.1/32"]\nremote = ["169.254.9.2/32"]\nprotocol = "tcp"\n'
        + "[tunnels.a.health_check]\nenabled = true #!\n"
        + 'local = "169.254.9.1"\nremote = "169.254.9.2"\n',
    ),
    Case(
        "E-LIMIT",
        "2 tunnels; gateway.max_tunnels allows 1",
        "raise gateway.max_tunnels",
        BASE.replace("[gateway]", "[gateway]\nmax_tunnels = 1")
        + TUNNEL.replace("tunnels.a]", "tunnels.b] #!"),
    ),
    Case(
        "E-RANGE",
        "max_tunnels is 0; allowed: 1 to 10000",
        "",
        GATEWAY.replace("[gateway]", "[gateway]\nmax_tunnels = 0 #!"),
    ),
    Case(
        "E-ADDRESS",
        '"%defaultroute" is not the address of one machine',
        'write "auto"',
        AUTO.replace('"auto"', '"%defaultroute" #!') + TUNNEL,
    ),
    Case(
        "E-HEALTH-ADDRESS",
        "is a loopback address",
        "use a free address",
        AUTO + TUNNEL + 'health_check = { enabled = true, local = "127.0.0.1" } #!\n',
    ),
    Case(
        "E-RANGE",
        "the description has 201 characters; at most 200 are allowed",
        "shorten it",
        BASE + f'description = "{"ü" * 201}" #!\n',
    ),
    Case(
        "E-VALUE",
        "has a line break or another control character",
        "one line",
        BASE + 'description = "two\\nlines" #!\n',
    ),
    Case(
        "E-VALUE",
        "has a line break or another control character",
        "one line",
        BASE + 'description = "to the \\u202e left" #!\n',
    ),
    Case(
        "E-MTU",
        "mtu is 1279, and the tunnel carries IPv6, which needs 1280",
        "at least 1280",
        BASE + 'routes = ["10.2.0.0/16", "fd02::/64"]\nmtu = 1279 #!\n',
    ),
    Case(
        "E-MTU",
        "mtu is 1000, and the tunnel carries IPv6",
        "at least 1280",
        GATEWAY + SPD + 'mtu = 1000 #!\n[[tunnels.a.spd]]\nlocal = ["fd01::/64"]\nremote = ["fd02::/64"]\n',
    ),
    Case(
        "E-REKEY-MARGIN",
        "ipsec.rekey_margin 50 with rekey_fuzz 100 replaces an SA up to 100 % of its lifetime before the end",
        "at most 80",
        BASE + "ipsec.rekey_margin = 50 #!\n",
    ),
    Case(
        "E-REKEY-MARGIN",
        "ike.rekey_margin 14 with rekey_fuzz 500 replaces an SA up to 84 %",
        "make one of them smaller",
        BASE + "ike.rekey_fuzz = 500\nike.rekey_margin = 14 #!\n",
    ),
    Case(
        "E-RANGE",
        "dpd.timeout is 29; allowed with profile tencent-cloud: 30 to 60",
        "a number from 30 to 60",
        BASE + 'profile = "tencent-cloud"\ndpd.timeout = 29 #!\n',
    ),
    Case(
        "E-RANGE",
        "dpd.timeout is 61; allowed with profile tencent-cloud: 30 to 60",
        "a number from 30 to 60",
        BASE + 'profile = "tencent-cloud"\ndpd.timeout = 61 #!\n',
    ),
    Case(
        "E-RANGE",
        "health_check.interval_ms is 999; allowed: 1000 to 5000",
        "",
        BASE + "health_check.interval_ms = 999 #!\n",
    ),
    Case(
        "E-RANGE",
        "health_check.timeout_ms is 9; allowed: 10 to 5000",
        "",
        BASE + "health_check.timeout_ms = 9 #!\n",
    ),
    Case(
        "E-RANGE", "health_check.failures is 9; allowed: 3 to 8", "", BASE + "health_check.failures = 9 #!\n"
    ),
    Case("E-RANGE", "ike.lifetime is 0; allowed: 10 to", "", BASE + "ike.lifetime = 0 #!\n"),
    *(
        Case("E-ID", says, hint, BASE + f"ike.{key} = '{word}' #!\n")
        for key in ("local_id", "remote_id")
        for word, says, hint in IDENTITIES
    ),
    # modes
    Case(
        "E-MODE",
        "aggressive mode exists only in IKEv1",
        'version = "ikev1"',
        BASE + 'ike.negotiation_mode = "aggressive" #!\n',
    ),
    Case(
        "E-AEAD",
        "IKEv1 cannot protect itself with aes-128-gcm",
        "aes-128",
        BASE + 'ike.version = "ikev1"\nike.encryption = "aes-128-gcm" #!\n',
    ),
    Case(
        "E-AEAD",
        "IKEv1 has no number for chacha20-poly1305 in ESP",
        "aes-128-gcm",
        BASE + 'ike.version = "ikev1"\nipsec.encryption = "chacha20-poly1305" #!\n',
    ),
    # routes and mappings
    Case(
        "E-PREFIX",
        "0.0.0.0/8 is, or contains, the 0-network",
        "0.0.0.0/0",
        BASE + 'routes = ["0.0.0.0/8"] #!\n',
    ),
    Case("E-PREFIX", "127.0.0.0/8 is, or contains, the loopback", "", BASE + 'routes = ["127.0.0.0/8"] #!\n'),
    Case(
        "E-PREFIX",
        "128.0.0.0/1 is, or contains, the multicast",
        "default route",
        BASE + 'routes = ["128.0.0.0/1"] #!\n',
    ),
    Case(
        "E-PREFIX",
        "239.1.0.0/16 is, or contains, the multicast",
        "",
        BASE + 'routes = [\n"10.0.0.0/8",\n"239.1.0.0/16" #!\n]\n',
    ),
    Case("E-PREFIX", "broadcast", "", BASE + 'routes = ["255.255.255.255"] #!\n'),
    Case("E-PREFIX", "the multicast range ff00::/8", "", BASE + 'routes = ["ff02::/16"] #!\n'),
    Case("E-PREFIX", "the loopback address ::1", "", BASE + 'routes = ["::1"] #!\n'),
    Case(
        "E-PREFIX",
        "loopback",
        "",
        GATEWAY + SPD + '[[tunnels.a.spd]]\nlocal = ["10.0.0.0/24"]\nremote = ["127.0.0.1/32"] #!\n',
    ),
    Case(
        "E-PREFIX", "10.2.0.1/24 has bits set", 'write "10.2.0.0/24"', BASE + 'routes = ["10.2.0.1/24"] #!\n'
    ),
    Case("E-PREFIX", '"ten" is not a CIDR block', "", BASE + 'routes = ["ten"] #!\n'),
    Case(
        "E-COMMUNICATION",
        "an spd-policy tunnel has no spd",
        "[[tunnels.a.spd]]",
        BASE + 'communication = "spd-policy" #!\n',
    ),
    Case(
        "E-COMMUNICATION",
        "spd rules belong to communication spd-policy",
        "",
        BASE + '[[tunnels.a.spd]] #!\nlocal = ["10.0.0.0/24"]\nremote = ["10.1.0.0/24"]\n',
    ),
    Case(
        "E-COMMUNICATION",
        "routes belong to communication destination-route",
        "",
        GATEWAY
        + SPD
        + 'routes = ["10.9.0.0/16"] #!\n[[tunnels.a.spd]]\nlocal = ["10.0.0.0/24"]\n'
        + 'remote = ["10.1.0.0/24"]\n',
    ),
    Case(
        "E-VALUE",
        "spd.remote is empty",
        "",
        GATEWAY + SPD + '[[tunnels.a.spd]]\nlocal = ["10.0.0.0/24"]\nremote = [] #!\n',
    ),
    Case(
        "E-FAMILY",
        "joins IPv4 and IPv6",
        "rules of their own",
        GATEWAY + SPD + '[[tunnels.a.spd]]\nlocal = ["10.0.0.0/24"]\nremote = ["2001:db8::/32"] #!\n',
    ),
    Case(
        "E-LIMIT",
        "201 mappings over all spd-policy tunnels; a gateway has at most 200",
        "destination-route",
        GATEWAY + SPD + f'[[tunnels.a.spd]]\nlocal = ["192.168.0.0/24"]\nremote = [{TOO_MANY}\n]\n',
    ),
    Case(
        "E-LIMIT",
        "4000000 mappings over all spd-policy tunnels; a gateway has at most 200",
        "destination-route",
        GATEWAY + SPD + MILLIONS,
    ),
    Case(
        "E-OVERLAP",
        "10.0.0.0/24 - 192.168.1.0/24 overlaps 10.0.0.0/24 - 192.168.1.0/24 of tunnel a",
        "no packet belongs to both",
        GATEWAY
        + spd("a", ('"10.0.0.0/24"', '"192.168.0.0/24", "192.168.1.0/24"'))
        + spd("b", ('"10.0.0.0/24"', '"192.168.1.0/24" #!\n')),
    ),
    Case(
        "E-OVERLAP",
        "10.0.0.128/25 - 192.168.0.0/16 overlaps",
        "",
        GATEWAY
        + spd("a", ('"10.0.0.0/24"', '"192.168.1.0/24"'), ('"10.0.0.128/25"', '"192.168.0.0/16" #!\n')),
    ),
    # interface names
    Case(
        "E-INTERFACE",
        "cannot name a network interface",
        "at most 15",
        BASE + 'interface = "a-name-too-long-for-linux" #!\n',
    ),
    Case("E-INTERFACE", "cannot name a network interface", "", BASE + 'interface = "a b" #!\n'),
    Case(
        "E-INTERFACE",
        '"ipsec0" is also the interface of a',
        "of its own",
        BASE
        + f'interface = "ipsec0"\n[tunnels.b]\ncustomer_gateway = "other"\n{KEY}\ninterface = "ipsec0" #!\n',
    ),
    # health check
    Case(
        "E-ADDRESS",
        "239.0.0.1 is not the address of one machine",
        "",
        BASE + 'health_check.local = "239.0.0.1" #!\n',
    ),
    Case(
        "E-ADDRESS",
        "255.255.255.255 is not the address of one machine",
        "",
        BASE + 'health_check.remote = "255.255.255.255" #!\n',
    ),
    Case(
        "E-HEALTH-ADDRESS",
        "127.0.0.1 is a loopback address",
        "assigns one",
        BASE + 'health_check.enabled = true\nhealth_check.local = "127.0.0.1" #!\n',
    ),
    Case(
        "E-HEALTH-ADDRESS",
        "192.0.2.1 is the gateway's outer address",
        "",
        BASE + 'health_check.enabled = true\nhealth_check.local = "192.0.2.1" #!\n',
    ),
    Case(
        "E-HEALTH-ADDRESS",
        "both ends of the health check have the address 169.254.128.1",
        "",
        BASE
        + 'health_check.enabled = true\nhealth_check.local = "169.254.128.1"\n'
        + 'health_check.remote = "169.254.128.1" #!\n',
    ),
    Case(
        "E-HEALTH-ADDRESS",
        "10.2.3.4 is in 10.2.0.0/16 of tunnel a",
        "no tunnel carries",
        BASE + 'routes = ["10.2.0.0/16"]\nhealth_check.enabled = true\nhealth_check.remote = "10.2.3.4" #!\n',
    ),
    Case(
        "E-HEALTH-ADDRESS",
        "169.254.1.1 is in 169.254.1.1/32 of tunnel b",
        "",
        BASE
        + 'health_check.enabled = true\nhealth_check.remote = "169.254.1.1" #!\n'
        + spd("b", ('"10.0.0.0/24"', '"169.254.1.1/32"')),
    ),
    Case(
        "E-HEALTH-ADDRESS",
        "10.0.0.9 is in 10.0.0.0/24 of tunnel b",
        "",
        BASE
        + 'health_check.enabled = true\nhealth_check.local = "10.0.0.9" #!\n'
        + spd("b", ('"10.0.0.0/24"', '"10.1.0.0/24"')),
    ),
    Case(
        "E-HEALTH-ADDRESS",
        "of two kinds",
        "",
        BASE
        + 'health_check.enabled = true\nhealth_check.local = "169.254.128.1"\n'
        + 'health_check.remote = "fe80::1" #!\n',
    ),
    Case(
        "E-HEALTH-ADDRESS",
        "is also the health-check address of a",
        "of its own",
        BASE
        + 'health_check.enabled = true\nhealth_check.remote = "169.254.1.1"\n[tunnels.b]\n'
        + f'customer_gateway = "other"\n{KEY}\nhealth_check.enabled = true\n'
        + 'health_check.remote = "169.254.1.1" #!\n',
    ),
    Case(
        "E-HEALTH-MAPPING",
        "no mapping of this tunnel carries its health check",
        '["169.254.1.1/32"]',
        GATEWAY
        + spd(
            "a",
            ('"10.0.0.0/24"', '"10.1.0.0/24"'),
            extra='health_check.local = "169.254.1.1"\nhealth_check.remote = "169.254.1.2"\n'
            "health_check.enabled = true #!",
        ),
    ),
    Case(
        "E-HEALTH-MAPPING",
        "no mapping of this tunnel carries its health check",
        "its routes are all IPv6",
        BASE + 'routes = ["2001:db8:2::/48"]\nhealth_check.enabled = true #!\n',
    ),
    # keys
    Case(
        "E-PSK-FORM",
        "does not say where the key is",
        "file:PATH",
        KEYLESS + 'pre_shared_key = "hunter2" #!\n',
    ),
    Case("E-PSK-EMPTY", "the key is empty", "psk generate", KEYLESS + 'pre_shared_key = "plain:" #!\n'),
    Case(
        "E-PSK-FILE",
        "cannot be read: No such file or directory",
        "check the path",
        KEYLESS + 'pre_shared_key = "file:missing" #!\n',
    ),
    Case(
        "E-PSK-CREDENTIAL",
        "$CREDENTIALS_DIRECTORY is not set",
        "LoadCredential=psk",
        KEYLESS + 'pre_shared_key = "credential:psk" #!\n',
    ),
    Case(
        "E-TYPE",
        "pre_shared_key: the value has the wrong type",
        "",
        KEYLESS + "pre_shared_key = 12345678901 #!\n",
    ),
    Case(
        "E-MAIN-MODE-KEY",
        "main mode with 198.51.100.1 has more than 8 keys",
        "one key for all",
        BASE
        + 'ike.version = "ikev1"\n'
        + "".join(
            f'[tunnels.b{number}]\ncustomer_gateway = "branch"\nroutes = ["10.9.{number}.0/24"]\n'
            f'ike.version = "ikev1"\npre_shared_key = "plain:another-key-of-some-length-{number}"\n'
            for number in range(7)
        )
        + '[tunnels.c]\ncustomer_gateway = "branch"\nike.version = "ikev1"\n'
        + 'pre_shared_key = "plain:one-key-too-many-between-them" #!\n',
    ),
]

ANYONE = BASE.replace('address = "198.51.100.1"', 'address = "any"')
assert ANYONE != BASE
PASSIVE = 'negotiation = "passive"\n'

ERRORS += [
    Case(
        "E-ANY",
        "so it has to begin",
        'negotiation = "passive"',
        ANYONE.replace("[tunnels.a]", "[tunnels.a] #!") + 'ike.remote_id = "gw.example"\n',
    ),
    Case(
        "E-ANY",
        "so it has to begin",
        'negotiation = "passive"',
        ANYONE + 'negotiation = "traffic-triggered" #!\nike.remote_id = "gw.example"\n',
    ),
    Case(
        "E-ANY",
        "known by its identity only",
        "set ike.remote_id",
        ANYONE.replace('customer_gateway = "branch"', 'customer_gateway = "branch" #!') + PASSIVE,
    ),
    Case(
        "E-ANY",
        "in aggressive mode everyone who asks would get a hash of the key",
        "main mode",
        ANYONE
        + PASSIVE
        + 'ike.remote_id = "gw.example"\nike.version = "ikev1"\nike.negotiation_mode = "aggressive" #!\n',
    ),
    Case(
        "E-MAIN-MODE-KEY",
        "nothing else tells peers of any address apart",
        "one key for all of them",
        ANYONE
        + PASSIVE
        + 'ike.remote_id = "gw.example"\nike.version = "ikev1"\n'
        + '[tunnels.b]\ncustomer_gateway = "branch"\nnegotiation = "passive"\nike.remote_id = "b.example"\n'
        + 'ike.version = "ikev1"\npre_shared_key = "plain:another-key-of-some-length" #!\n',
    ),
    Case("E-ID", "no one's identity", "", ANYONE + PASSIVE + 'ike.remote_id = "%any" #!\n'),
    Case("E-VALUE", '"pasive"', "", ANYONE + 'negotiation = "pasive" #!\nike.remote_id = "gw.example"\n'),
    *(
        Case(
            "E-ADDRESS",
            "is not the address of one machine",
            'write "any"',
            BASE + f"[customer_gateways.elsewhere]\naddress = '{word}' #!\n",
        )
        for word in ("%any", "0.0.0.0", "::", "*")
    ),
]

WARNINGS = [
    Case(
        "W-SHARED-KEY",
        "has the same key: each of the two peers can say it is the other",
        "a key for each peer",
        ANYONE
        + PASSIVE
        + 'ike.remote_id = "gw.example"\n'
        + '[tunnels.b]\ncustomer_gateway = "branch"\nnegotiation = "passive"\nike.remote_id = "b.example"\n'
        + f"{KEY} #!\n",
    ),
    Case(
        "W-LOCAL-ID",
        'gateway.address is "auto" and ike.local_id is not set',
        "set ike.local_id to a name",
        AUTO + TUNNEL.replace("[tunnels.a]", "[tunnels.a] #!"),
    ),
    Case(
        "W-SAME-PEER",
        "has the same peer and identities",
        "give each an identity",
        AUTO + TUNNEL + TUNNEL.replace("tunnels.a", "tunnels.b").replace('"branch"', '"branch" #!'),
    ),
    Case(
        "W-MSS",
        "mss 1361 has no effect: with mtu 1400 no segment has more than 1360 bytes",
        "at most 1360",
        BASE + "mtu = 1400\nmss = 1361 #!\n",
    ),
    Case(
        "W-SHA256-96",
        "sha256_96 has no effect",
        "remove it",
        BASE + 'ipsec.integrity = "sha1"\nipsec.sha256_96 = true #!\n',
    ),
    Case(
        "W-SHA256-96",
        "sha256_96 has no effect",
        "remove it",
        BASE + 'ipsec.encryption = "aes-128-gcm"\nipsec.sha256_96 = true #!\n',
    ),
    Case(
        "W-MAIN-MODE-KEY",
        "has another key for 198.51.100.1",
        "one key for all",
        BASE.replace(KEY, f"{KEY} #!")
        + 'ike.version = "ikev1"\n[customer_gateways.roaming]\naddress = "any"\n'
        + '[tunnels.b]\ncustomer_gateway = "roaming"\nnegotiation = "passive"\nike.remote_id = "b.example"\n'
        + 'ike.version = "ikev1"\npre_shared_key = "plain:another-key-of-some-length"\n',
    ),
    Case(
        "W-DPD-TIMEOUT",
        "dpd.timeout is 10, outside the usual 30 to 60 seconds: a path that is down for a moment ends",
        "keep it",
        BASE + "dpd.timeout = 10 #!\n",
    ),
    Case(
        "W-DPD-TIMEOUT",
        "dpd.timeout is 3600, outside the usual 30 to 60 seconds: a dead peer is found late",
        "keep it",
        BASE + "dpd.timeout = 3600 #!\n",
    ),
    Case(
        "W-DPD-ACTION",
        "after a dead peer the tunnel stays down until the peer begins, vpnctl up or a start of vpnd",
        'dpd.action = "retry"',
        BASE + 'dpd.action = "disconnect" #!\n',
    ),
    Case(
        "W-NO-ROUTES",
        "a destination-route tunnel without routes",
        "add routes",
        GATEWAY + f'[tunnels.a] #!\ncustomer_gateway = "branch"\n{KEY}\n',
    ),
    Case(
        "W-ROUTE-PEER",
        "198.51.100.0/24 holds the peer itself, 198.51.100.1",
        "leave 198.51.100.1 out",
        BASE + 'routes = ["10.2.0.0/16",\n"198.51.100.0/24"] #!\n',
    ),
    Case(
        "W-ROUTE-PEER",
        "198.51.100.1/32 holds the peer itself",
        "",
        BASE + 'routes = ["198.51.100.1/32"] #!\n',
    ),
    Case(
        "W-ROUTE-PEER",
        "198.51.0.0/16 holds the peer itself",
        "",
        GATEWAY + spd("a", ('"192.0.2.0/24"', '"10.1.0.0/24", \n"198.51.0.0/16"] #!\n#')),
    ),
    Case(
        "W-MAIN-MODE-KEY",
        "needs the key before the identity, and a (",
        "one key for all",
        BASE
        + 'ike.version = "ikev1"\n[tunnels.b]\ncustomer_gateway = "branch"\n'
        + 'ike.version = "ikev1"\npre_shared_key = "plain:another-key-of-some-length" #!\n',
    ),
    Case(
        "W-WEAK", "ike.encryption des: a 56-bit key", "better: aes-128", BASE + 'ike.encryption = "des" #!\n'
    ),
    Case(
        "W-WEAK", "ipsec.encryption 3des: ", "better", BASE + 'ipsec.encryption = ["aes-128",\n"3des"] #!\n'
    ),
    Case(
        "W-WEAK",
        "ike.integrity md5: RFC 8221 and RFC 8247 say MUST NOT",
        "sha256",
        BASE + 'ike.integrity = "md5" #!\n',
    ),
    Case("W-WEAK", "ike.dh_group DH group 1: ", "14, 19 or 31", BASE + "ike.dh_group = 1 #!\n"),
    Case("W-WEAK", "ike.dh_group DH group 2: ", "", BASE + "ike.dh_group = 2 #!\n"),
    Case("W-WEAK", "ike.dh_group DH group 5: ", "", BASE + "ike.dh_group = [14, 5] #!\n"),
    Case("W-WEAK", "ipsec.pfs DH group 24: ", "", BASE + "ipsec.pfs = 24 #!\n"),
    Case(
        "W-AGGRESSIVE",
        "learns the identities in clear and a hash of the key, against which keys can be tried offline",
        "psk generate",
        BASE + 'ike.version = "ikev1"\nike.negotiation_mode = "aggressive" #!\n',
    ),
    Case(
        "W-AGGRESSIVE-DH",
        "cannot negotiate the DH group",
        "RFC 2409",
        BASE + 'ike.version = "ikev1"\nike.negotiation_mode = "aggressive"\nike.dh_group = [14, 15] #!\n',
    ),
    Case(
        "W-SM",
        "ike.encryption sm4: IKEv2 has no number for it",
        "GM/T 0022",
        BASE + 'ike.encryption = "sm4" #!\n',
    ),
    Case("W-SM", "ipsec.integrity sm3", "", BASE + 'ipsec.integrity = "sm3" #!\n'),
    Case(
        "W-PSK-SHORT",
        "the key has 7 characters",
        "psk generate",
        KEYLESS + 'pre_shared_key = "plain:hunter2" #!\n',
    ),
    Case(
        "W-PSK-SPACE",
        "white space",
        "",
        KEYLESS + 'pre_shared_key = "plain:correct-horse-battery-staple " #!\n',
    ),
    Case(
        "W-PSK-QUOTES",
        "in quotes",
        "",
        GATEWAY
        + '[tunnels.a]\ncustomer_gateway = "branch"\n'
        + "pre_shared_key = \"plain:'correct-horse-battery-staple'\" #!\n",
    ),
    Case(
        "W-PSK-PREFIX",
        "0x or 0s",
        "strongSwan",
        KEYLESS + 'pre_shared_key = "plain:0x0123456789abcdef0123" #!\n',
    ),
    Case(
        "W-PSK-ASCII",
        "beyond ASCII",
        "UTF-8",
        KEYLESS + 'pre_shared_key = "plain:schlüssel-schlüssel-schlüssel" #!\n',
    ),
    Case(
        "W-ROUTE-TWICE",
        "10.2.0.0/16 is listed twice",
        "",
        BASE + 'routes = ["10.2.0.0/16",\n"10.2.0.0/16"] #!\n',
    ),
    Case(
        "W-PRIORITY",
        "10.2.0.0/16 is also a route of a",
        "priority = 100",
        BASE
        + f'routes = ["10.2.0.0/16"]\n[tunnels.b]\ncustomer_gateway = "other"\n{KEY}\n'
        + 'routes = ["10.2.0.0/16"] #!\n',
    ),
    Case(
        "W-SAME-PEER",
        "the same peer and identities",
        "local_id",
        BASE + f'[tunnels.b]\ncustomer_gateway = "branch" #!\n{KEY}\n',
    ),
    Case(
        "W-SAME-PEER",
        "the same peer and identities",
        "local_id",
        BASE
        + 'ike.local_id = "gw.example"\n'
        + f'[tunnels.b]\ncustomer_gateway = "branch" #!\nike.local_id = "GW.example."\n{KEY}\n',
    ),
    Case(
        "W-SAME-PEER",
        "the same peer and identities",
        "local_id",
        BASE + f'[tunnels.b]\ncustomer_gateway = "branch" #!\nike.remote_id = "198.51.100.1"\n{KEY}\n',
    ),
    Case(
        "W-HEALTH-TIMEOUT",
        "timeout_ms 2000 is longer than interval_ms 1000",
        "",
        BASE
        + "health_check.enabled = true\nhealth_check.interval_ms = 1000\nhealth_check.timeout_ms = 2000 #!\n",
    ),
]


def ident(case: Case) -> str:
    return f"{case.code}: {case.says[:40]}"


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.mark.parametrize("case", ERRORS, ids=ident)
def test_an_error_names_its_line_and_what_to_change(tmp_path: Path, case: Case) -> None:
    loaded = load_text(tmp_path, case.text)
    assert not loaded.ok
    found = [p for p in loaded.errors if p.code == case.code and case.says in p.message]
    assert found, loaded.problems
    assert found[0].line == marked_line(case.text)
    assert found[0].file == str(tmp_path / "vpnd.toml")
    assert found[0].hint, "an error says what to change"
    assert case.hint in found[0].hint
    assert len(loaded.errors) == 1, "one cause, one error"


def test_millions_of_mappings_are_counted_and_not_made(tmp_path: Path) -> None:
    configuration = load_text(tmp_path, GATEWAY + SPD + MILLIONS).configuration
    assert configuration.spd_mappings == 4_000_000
    assert len(mappings_of(configuration.tunnels["a"].table)) == MAX_MAPPINGS + 1


@pytest.mark.parametrize("case", WARNINGS, ids=ident)
def test_a_warning_names_its_line_and_does_not_stand_in_the_way(tmp_path: Path, case: Case) -> None:
    loaded = load_text(tmp_path, case.text)
    assert loaded.ok, loaded.errors
    found = [p for p in loaded.warnings if p.code == case.code and case.says in p.message]
    assert found, loaded.problems
    assert found[0].line == marked_line(case.text)
    assert found[0].severity is Severity.WARNING
    assert found[0].hint
    assert case.hint in found[0].hint


@pytest.mark.parametrize("text", [case.text for case in WARNINGS if case.code in ("W-WEAK", "W-AGGRESSIVE")])
def test_a_weak_choice_names_the_rfc(tmp_path: Path, text: str) -> None:
    for warning in load_text(tmp_path, text + ROUTES).warnings:
        assert "RFC" in warning.message


# --------------------------------------------------------------------- what is allowed after all


def test_the_mapping_of_the_specification_that_does_not_overlap(tmp_path: Path) -> None:
    existing = spd(
        "a",
        ('"10.0.0.0/24"', '"192.168.0.0/24", "192.168.1.0/24"'),
        ('"10.0.1.0/24"', '"192.168.2.0/24"'),
        ('"10.0.2.0/24"', '"192.168.2.0/24"'),
    )
    assert load_text(tmp_path, GATEWAY + existing + spd("b", ('"10.0.1.0/24"', '"192.168.1.0/24"'))).ok
    refused = load_text(tmp_path, GATEWAY + existing + spd("b", ('"10.0.0.0/24"', '"192.168.1.0/24"')))
    assert [p.code for p in refused.errors] == ["E-OVERLAP"]


def test_an_overlap_names_the_other_place(tmp_path: Path) -> None:
    text = (
        GATEWAY
        + spd("a", ('"10.0.0.0/24"', '"192.168.1.0/24"'))
        + spd("b", ('"10.0.0.0/24"', '"192.168.1.0/24"'))
    )
    (problem,) = load_text(tmp_path, text).errors
    first = next(n for n, line in enumerate(text.splitlines(), 1) if "192.168.1.0/24" in line)
    assert f"{tmp_path / 'vpnd.toml'}:{first}" in problem.message


def test_two_hundred_mappings_are_allowed(tmp_path: Path) -> None:
    remotes = ", ".join(f'"10.{i}.0.0/24"' for i in range(100))
    loaded = load_text(
        tmp_path,
        GATEWAY + spd("a", ('"192.168.0.0/24"', remotes)) + spd("b", ('"192.168.1.0/24"', remotes)),
    )
    assert loaded.ok
    assert loaded.configuration.spd_mappings == 200


def test_a_default_route_is_allowed_as_a_whole(tmp_path: Path) -> None:
    text = BASE + 'routes = ["0.0.0.0/0", "::/0"]\nhealth_check.enabled = true\n'
    assert load_text(tmp_path, text).problems == ()


@pytest.mark.parametrize(
    "change",
    [
        'negotiation = "passive"\ndpd.action = "disconnect"',
        'negotiation = "traffic-triggered"\ndpd.action = "disconnect"',
        'dpd.action = "disconnect"\ndpd.enabled = false',
        'dpd.action = "retry"',
        'routes = ["198.51.100.0/25", "10.2.0.0/16"]\ncustomer_gateway = "other"',
        'communication = "spd-policy"\nspd = [{local = ["10.1.0.0/16"], remote = ["198.51.100.0/24"]}]',
    ],
)
def test_what_needs_no_warning(tmp_path: Path, change: str) -> None:
    text = GATEWAY + f"[tunnels.a]\n{KEY}\n{change}\n"
    text += "" if "customer_gateway" in change else 'customer_gateway = "branch"\n'
    text += "" if "routes" in change or "spd" in change else 'routes = ["10.2.0.0/16"]\n'
    assert load_text(tmp_path, text).problems == ()


def test_an_spd_tunnel_with_a_mapping_for_its_probe(tmp_path: Path) -> None:
    text = spd(
        "a",
        ('"10.0.0.0/24"', '"10.1.0.0/24"'),
        ('"169.254.1.1/32"', '"169.254.1.2/32"'),
        extra='health_check.enabled = true\nhealth_check.local = "169.254.1.1"\n'
        'health_check.remote = "169.254.1.2"',
    )
    assert load_text(tmp_path, GATEWAY + text).problems == ()


def test_aead_esp_is_fine_with_ikev1(tmp_path: Path) -> None:
    text = BASE + ROUTES + 'ike.version = "ikev1"\nipsec.encryption = "aes-256-gcm"\n'
    assert load_text(tmp_path, text).problems == ()


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    text = (
        GATEWAY
        + '[tunnels.a]\ncustomer_gateway = "brunch"\npre_shared_key = "file:missing"\nprioritty = 1\n'
        + 'routes = ["127.0.0.0/8"]\nike.encryption = "aes"\ndpd.timeout = 5\nike.integrity = "md5"\n'
        + '[tunnels.b]\npre_shared_key = "nonsense"\n'
    )
    codes = [p.code for p in load_text(tmp_path, text).problems]
    assert codes == [
        "E-CUSTOMER-GATEWAY",
        "E-PSK-FILE",
        "E-KEY",
        "E-PREFIX",
        "E-VALUE",
        "E-RANGE",
        "W-WEAK",
        "E-MISSING",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('protocol = "tcp"', 'protocol = "udp"'),
        ('protocol = "tcp"\nlocal_port = 443', 'protocol = "tcp"\nlocal_port = "444-65535"'),
        ('protocol = "tcp"\nlocal_port = 443', 'protocol = "tcp"\nlocal_port = "1-442"\nremote_port = 443'),
        ('protocol = "tcp"\nremote_port = "1-1023"', 'protocol = "tcp"\nremote_port = "1024-65535"'),
        ("protocol = 47", 'protocol = "ipv6-icmp"'),
        ('protocol = "tcp"\nlocal_port = 443', 'protocol = "udp"\nlocal_port = 443'),
    ],
)
def test_what_protocol_or_ports_keep_apart_does_not_overlap(tmp_path: Path, one: str, other: str) -> None:
    text = narrowed(one) + f'[[tunnels.a.spd]]\nlocal = ["10.1.0.0/24"]\nremote = ["10.2.0.0/24"]\n{other}\n'
    assert load_text(tmp_path, text).problems == ()


def test_two_hundred_mappings_are_the_limit_whatever_they_are_narrowed_to(tmp_path: Path) -> None:
    rule = '[[tunnels.a.spd]]\nlocal = ["10.1.0.0/24"]\nremote = ["10.2.0.0/24"]\nprotocol = "tcp"\n'
    text = narrowed('protocol = "udp"') + "".join(f"{rule}local_port = {port}\n" for port in range(1, 200))
    assert load_text(tmp_path, text).ok
    (error,) = load_text(tmp_path, text + f"{rule}local_port = 200\n").errors
    assert error.code == "E-LIMIT"


def test_an_engine_that_is_not_installed_cannot_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = BASE.replace("[gateway]", '[gateway]\nengine = "native"')
    monkeypatch.setattr(rules, "is_native_installed", lambda: True)
    assert load_text(tmp_path, text).ok
    monkeypatch.setattr(rules, "is_native_installed", lambda: False)
    (error, *_) = load_text(tmp_path, text).errors
    assert (error.code, error.line) == ("E-ENGINE", 1 + text.splitlines().index('engine = "native"'))
    assert error.hint is not None
    assert "make engine" in error.hint
    assert load_text(tmp_path, text.replace('"native"', '"auto"')).ok
