"""Configurations of other daemons, of our own making: 30 that use every directive that the importer knows."""

from __future__ import annotations

from vpnd.translate.imports import ipsec_conf, swanctl

SECRETS = """secrets {
  ike-1 {
    id-1 = moon.example
    secret = "a key of more than twenty letters"
  }
}
"""


def connection(more: str = "", child: str = "", ends: str = "", name: str = "net") -> str:
    """A swanctl.conf with one connection."""
    ends = ends or "local_addrs = 192.0.2.1\n    remote_addrs = 198.51.100.7"
    return f"""connections {{
  {name} {{
    {ends}
    {more}
    local {{
      auth = psk
      id = moon.example
    }}
    remote {{
      auth = psk
      id = sun.example
    }}
    children {{
      {name} {{
        local_ts = 10.1.0.0/16
        remote_ts = 10.2.0.0/16
        {child}
      }}
    }}
  }}
}}
{SECRETS}"""


def every_swanctl_key() -> str:
    """A connection with each key that has a meaning."""
    ends = {"certs", "cert", "pubkeys", "cacerts", "groups", "eap_id", "xauth_id", "aaa_id", "round", "ca_id"}
    children = {
        *(
            "updown",
            "hostaccess",
            "policies",
            "policies_fwd_out",
            "ipcomp",
            "inactivity",
            "reqid",
            "priority",
        ),
        *(
            "interface",
            "mark_in",
            "mark_out",
            "mark_in_sa",
            "set_mark_in",
            "set_mark_out",
            "label",
            "copy_df",
        ),
        *("tfc_padding", "hw_offload", "copy_ecn", "copy_dscp", "close_action", "rand_bytes", "rand_packets"),
        *(
            "rekey_packets",
            "life_packets",
            "life_time",
            "life_bytes",
            "if_id_in",
            "if_id_out",
            "ah_proposals",
        ),
    }
    keys = sorted(set(swanctl.MEANINGS) - ends)
    lines = "\n    ".join(f"{key} = 1" for key in keys if key not in children)
    inner = "\n        ".join(f"{key} = 1" for key in sorted(children))
    text = connection(lines, inner)
    odd = "\n      ".join(f"{key} = x" for key in sorted(ends))
    return text.replace("id = sun.example", f"id = sun.example\n      {odd}")


def conn(more: str = "", name: str = "net", base: str = "") -> str:
    """An ipsec.conf with one connection, and its key."""
    lines = "\n\t".join(line.strip() for line in more.strip().splitlines())
    usual = "left=192.0.2.1\n\tleftid=@moon.example\n\tleftsubnet=10.1.0.0/16\n\tright=198.51.100.7"
    return (
        f"{base}config setup\n\tuniqueids=no\n\nconn {name}\n\tauthby=secret\n\t{usual}\n"
        f"\trightid=@sun.example\n\trightsubnet=10.2.0.0/16\n\tauto=start\n\t{lines}\n"
    )


def every_ipsec_key() -> str:
    """A connection with each key that has a meaning, of either end too."""
    ends = {
        *(
            "updown",
            "firewall",
            "hostaccess",
            "nexthop",
            "allowany",
            "sourceip",
            "sourceips",
            "cert",
            "sendcert",
        ),
        *(
            "ca",
            "rsasigkey",
            "ckaid",
            "groups",
            "addresspool",
            "modecfgclient",
            "modecfgserver",
            "xauthclient",
        ),
        *("xauthserver", "ikeport", "vti"),
        *("cat", "auth2", "id2", "username", "interface-ip"),
    }
    lines = [f"{key}=1" for key in sorted(set(ipsec_conf.MEANINGS) - ends)]
    lines += [f"left{key}=1" for key in sorted(ends)] + [f"right{key}=1" for key in sorted(ends)]
    return conn("\n".join(lines))


TENCENT = """{"Response": {"TotalCount": 1, "RequestId": "1", "VpnConnectionSet": [{
  "VpcId": "vpc-1", "VpnConnectionId": "vpnx-1", "VpnConnectionName": "to-idc", "VpnGatewayId": "vpngw-1",
  "CustomerGatewayId": "cgw-1", "PreShareKey": "a key of more than twenty letters", "VpnProto": "IPSEC",
  "EncryptProto": "IKE", "RouteType": "%s", "NegotiationType": "%s", "DpdEnable": 1, "DpdTimeout": "30",
  "DpdAction": "restart", "State": "AVAILABLE", "NetStatus": "AVAILABLE", "CreatedTime": "2026-01-01",
  "EnableHealthCheck": true, "HealthCheckLocalIp": "169.254.1.1", "HealthCheckRemoteIp": "169.254.1.2",
  "HealthCheckConfig": {"ProbeType": "NQA"}, "Tags": [],
  "IKEOptionsSpecification": {"PropoAuthenAlgorithm": "%s", "PropoEncryAlgorithm": "%s", "ExchangeMode": "%s",
    "LocalIdentity": "ADDRESS", "RemoteIdentity": "FQDN", "LocalAddress": "203.0.113.9",
    "RemoteAddress": "192.0.2.1", "LocalFqdnName": "", "RemoteFqdnName": "idc.example",
    "DhGroupName": "GROUP%s",
    "IKESaLifetimeSeconds": 86400, "IKEVersion": "%s"},
  "IPSECOptionsSpecification": {"EncryptAlgorithm": "%s", "IntegrityAlgorith": "%s", "EncapMode": "TUNNEL",
    "SecurityProto": "ESP", "PfsDhGroup": "%s",
    "IPSECSaLifetimeSeconds": 3600, "IPSECSaLifetimeTraffic": 1843200},
  "SecurityPolicyDatabaseSet": [{"LocalCidrBlock": "172.16.0.0/16",
    "RemoteCidrBlock": ["10.1.0.0/16", "10.2.0.0/16"]}]
}]}}
"""

SWANCTL: dict[str, str] = {
    "defaults": connection(),
    "every-key": every_swanctl_key(),
    "version-1": connection(
        "version = 1\nproposals = aes128-sha1-modp1536, 3des-md5-modp1024\nreauth_time = 8h"
    ),
    "aggressive": connection("version = 1\naggressive = yes\nproposals = aes256-sha256-modp2048-modp3072"),
    "aead": connection(
        "proposals = aes256gcm16-aes128gcm128-prfsha384-x25519-ecp384",
        "esp_proposals = chacha20poly1305-curve25519, aes256gcm-esn-noesn",
    ),
    "what-is-not-there": connection("proposals = camellia256-sha256-modp2048-aes128-ntru112"),
    "times": connection(
        "rekey_time = 4h\nover_time = 10m\nrand_time = 5m", "rekey_time = 90m\nlife_time = 2h"
    ),
    "bytes": connection(child="rekey_bytes = 500000000\nlife_bytes = 600000000\nreplay_window = 1000"),
    "ports": connection(child="remote_ts = 10.2.0.0/16[tcp/443], 10.3.0.0/16[udp/1024-2047], 10.4.0.1[icmp]"),
    "routed": connection(
        "encap = yes", "local_ts = 0.0.0.0/0\nremote_ts = 0.0.0.0/0\nif_id_in = 7\nif_id_out = 7"
    ),
    "any-peer": connection("dpd_delay = 30s", "start_action = trap", ends="local_addrs = 192.0.2.1"),
    "own-address-open": connection("dpd_timeout = 90s\ndpd_delay = 0", ends="remote_addrs = vpn.example"),
    "dynamic": connection(child="local_ts = dynamic\nremote_ts = 10.9.0.0/24, 10.8.0.1-10.8.0.9"),
    "ipv6": connection(
        child="local_ts = fd01::/64\nremote_ts = fd02::/64\nstart_action = start\ndpd_action = clear",
        ends="local_addrs = 2001:db8::1\n    remote_addrs = 2001:db8::2",
    ),
    "inherited": "base {\n  version = 2\n  proposals = aes256-sha512-ecp256 # strong\n}\n"
    + "others : base { encap = yes }\n"
    + connection().replace("  net {", "  net : others {", 1),
    "one-line": "connections { a { local_addrs=192.0.2.1 \n remote_addrs=198.51.100.7\n"
    + " local { id=moon.example }"
    " remote { id=sun.example } children { c { local_ts=10.1.0.0/24 \n remote_ts=10.2.0.0/24 } } } }\n"
    + SECRETS,
    "two-children": connection(
        child="esp_proposals = aes128-sha256\n}\nother {\nremote_ts = 10.5.0.0/16\n"
        "local_ts = 10.1.0.0/16\nesp_proposals = aes256-sha512\nsha256_96 = yes"
    ),
    "crlf": connection("version = 2\nmobike = no").replace("\n", "\r\n"),
    "hex-key": connection().replace('"a key of more than twenty letters"', "0x" + "41" * 24),
    "pools-and-certificates": connection()
    + "pools { p { addrs = 10.9.0.0/24 } }\nauthorities { a { cacert = x } }\n",
}
IPSEC: dict[str, str] = {
    "defaults": conn(),
    "every-key": every_ipsec_key(),
    "also-and-default": conn(
        "also=base",
        base="conn %default\n\tike=aes256-sha256-modp2048!\n\nconn base\n\tesp=aes128-sha1\n\talso=more\n\n"
        "conn more\n\tdpddelay=30\n\tdpdtimeout=120\n\tdpdaction=restart\n\n",
    ),
    "libreswan": conn(
        "ikev2=insist\nike=aes_gcm256-sha2_512;dh19,aes256-sha2_256;dh14+dh15\nphase2alg=aes_gcm128,aes256-sha2_512\n"
        "salifetime=1h\nikelifetime=8h\nsha2-truncbug=yes\nencapsulation=yes\nreplay-window=128\npfs=yes\nesn=either\n"
        "ipsec-max-bytes=500M\nkeyingtries=%forever\nipsec-interface=5\nmobike=no"
    ),
    "ikev1": conn(
        "keyexchange=ikev1\naggressive=yes\nike=aes128-sha1-modp1024!\nesp=3des-md5!\nlifetime=20m\npfs=no"
    ),
    "protoport": conn("leftprotoport=tcp/443\nrightprotoport=tcp/%any\nauto=route\nkeyexchange=ikev2"),
    "subnets": conn("rightsubnets={10.4.0.0/16 10.5.0.0/16}\ntype=tunnel").replace(
        "\trightsubnet=10.2.0.0/16\n", ""
    ),
}
CLOUD: dict[str, str] = {
    "policy": TENCENT
    % ("STATIC", "active", "MD5", "AES-CBC-128", "MAIN", "1", "IKEV1", "AES-CBC-128", "MD5", "NULL"),
    "strong": TENCENT
    % (
        "Policy",
        "flowTrigger",
        "SHA-256",
        "AES-CBC-256",
        "MAIN",
        "14",
        "IKEV2",
        "AES-CBC-256",
        "SHA-256",
        "DH-GROUP14",
    ),
    "aggressive": TENCENT
    % ("Policy", "passive", "SHA1", "3DES-CBC", "AGGRESSIVE", "2", "IKEV1", "DES-CBC", "SHA1", "DH-GROUP2"),
}
IPSEC_SECRETS = (
    '# keys\r\n192.0.2.1 198.51.100.7 : PSK "a key of more than twenty letters" # comment\r\n'
    "@moon.example @sun.example: PSK 0sYSBrZXkgb2YgbW9yZSB0aGFuIHR3ZW50eSBsZXR0ZXJz\r\n"
    ': RSA moon.pem "phrase"\r\ncarol : EAP "Ar3etTnp"\r\n'
)
