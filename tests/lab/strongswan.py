"""strongSwan as a peer: charon with its userspace ESP (kernel-libipsec), one instance for each namespace."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from tests.lab.lab import Namespace, write
from tests.lab.plan import AEAD, Agreed, Plan, Suite, is_address
from tests.lab.process import run, wait_until

CHARON = "/usr/lib/ipsec/charon"
PLUGINS = (
    "random nonce openssl aes sha1 sha2 md5 hmac kdf gcm chapoly curve25519 gmp vici "
    "kernel-libipsec kernel-netlink socket-default"
)

# A mark keeps its own packets out of its routing table, which a tunnel of 0.0.0.0/0 would otherwise catch.
STRONGSWAN_CONF = """
charon {{
  load = {plugins}
  i_dont_care_about_security_and_use_aggressive_mode_psk = yes
  install_virtual_ip = no
  {settings}
  filelog {{
    log {{
      path = {directory}/charon.log
      default = 1
      flush_line = yes
    }}
  }}
  plugins {{
    vici {{
      socket = unix://{directory}/vici
    }}
    kernel-libipsec {{
      load = 10
      allow_peer_ts = yes
    }}
    kernel-netlink {{
      fwmark = !0x42
    }}
    socket-default {{
      fwmark = 0x42
    }}
  }}
}}
"""

CONNECTION = """
  {name} {{
    version = {version}
    aggressive = {aggressive}
    local_addrs = {local}
    remote_addrs = {remote}
    proposals = {ike}
    dpd_delay = {dpd}s
    encap = {encap}
    fragmentation = {fragmentation}
    childless = {childless}
    local {{
      auth = psk
      id = {local_id}
    }}
    remote {{
      auth = psk
      id = {remote_id}
    }}
    children {{
{children}
    }}
  }}
"""

CHILD = """      {name} {{
        local_ts = {local}
        remote_ts = {remote}
        esp_proposals = {esp}
        life_time = {lifetime}s
        start_action = {start}
        close_action = {close}
      }}"""

SECRET = """
  ike-{name} {{
    secret = "{psk}"
    id-1 = {local_id}
    id-2 = {remote_id}
  }}
"""

ENCRYPTION = {
    "aes-128": "aes128",
    "aes-192": "aes192",
    "aes-256": "aes256",
    "3des": "3des",
    "des": "des",
    "aes-128-gcm": "aes128gcm16",
    "aes-256-gcm": "aes256gcm16",
    "chacha20-poly1305": "chacha20poly1305",
}
GROUPS = {
    1: "modp768",
    2: "modp1024",
    5: "modp1536",
    24: "modp2048s256",
    14: "modp2048",
    15: "modp3072",
    16: "modp4096",
    19: "ecp256",
    20: "ecp384",
    21: "ecp521",
    31: "curve25519",
}

SPOKEN_ENCRYPTION = {
    "AES_CBC": "aes-{size}",
    "AES_GCM_16": "aes-{size}-gcm",
    "3DES_CBC": "3des",
    "DES_CBC": "des",
    "CHACHA20_POLY1305": "chacha20-poly1305",
}
SPOKEN_INTEGRITY = {
    "HMAC_MD5_96": "md5",
    "PRF_HMAC_MD5": "md5",
    "HMAC_SHA1_96": "sha1",
    "HMAC_SHA2_256_128": "sha256",
    "HMAC_SHA2_384_192": "sha384",
    "HMAC_SHA2_512_256": "sha512",
    "PRF_HMAC_SHA1": "sha1",
    "PRF_HMAC_SHA2_256": "sha256",
    "PRF_HMAC_SHA2_384": "sha384",
    "PRF_HMAC_SHA2_512": "sha512",
}
SPOKEN_GROUPS = {
    "MODP_768": 1,
    "MODP_1024": 2,
    "MODP_1536": 5,
    "MODP_2048_256": 24,
    "MODP_2048": 14,
    "MODP_3072": 15,
    "MODP_4096": 16,
    "ECP_256": 19,
    "ECP_384": 20,
    "ECP_521": 21,
    "CURVE_25519": 31,
}


class StrongSwan:
    """One charon with its own /run (its pid file has a fixed place), configuration and vici socket."""

    kind = "strongswan"

    def __init__(self, namespace: Namespace, settings: str = "", plugins: str = PLUGINS) -> None:
        self.namespace = namespace
        self.directory = namespace.lab.directory / f"charon-{namespace.label}"
        self.directory.mkdir(exist_ok=True)
        self._plans: dict[str, Plan] = {}
        conf = write(
            self.directory / "strongswan.conf",
            STRONGSWAN_CONF.format(directory=self.directory, plugins=plugins, settings=settings),
        )
        # One that was killed leaves its socket; this one is ready when its own is there.
        (self.directory / "vici").unlink(missing_ok=True)
        self._env = {"STRONGSWAN_CONF": str(conf), "SWANCTL_DIR": str(self.directory)}
        self._child = namespace.spawn(
            "unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs /run && exec {CHARON}",
            log=f"charon-{namespace.label}/stdout",
            env=self._env,
        )  # fmt: skip
        self.pid = self._child.pid
        namespace.lab.own_state(
            f"swanctl --list-sas at {namespace.label}",
            lambda: self.swanctl("--list-sas", check=False, timeout=10).stdout,
        )
        wait_until(lambda: (self.directory / "vici").exists(), "charon's vici socket")

    def swanctl(self, *arguments: str, check: bool = True, timeout: float = 60) -> CompletedProcess[str]:
        """Run swanctl against this charon."""
        uri = f"unix://{self.directory}/vici"
        return run(["swanctl", *arguments, "--uri", uri], check=check, timeout=timeout, env=self._env)

    def add(self, plan: Plan) -> None:
        """Load a connection; those that were loaded before stay."""
        self._plans[plan.name] = plan
        self._load()

    def remove(self, name: str) -> None:
        """Delete its SAs, telling the peer, and unload the connection."""
        del self._plans[name]
        self.swanctl("--terminate", "--ike", name, "--timeout", "3", check=False)
        self._load()

    def replace(self, *plans: Plan) -> None:
        """Have these connections and no others."""
        self._plans = {plan.name: plan for plan in plans}
        self._load()

    def begin(self, names: Collection[str]) -> None:
        """Initiate every child of these connections, all at once, and do not wait."""
        path = self._write(names)
        self.swanctl("--load-conns", "--file", str(path))

    def terminate_all(self) -> None:
        """Delete every SA, telling the peers."""
        for sa in self.sas():
            ike = ("--ike-id", sa["uniqueid"])
            self.swanctl("--terminate", *ike, "--timeout", "1", "--force", check=False)

    def up(self, name: str, timeout: float = 10) -> CompletedProcess[str]:
        """Initiate every child of the connection."""
        done = CompletedProcess([], 0, "", "")
        for child in [name for name, _, _ in children_of(self._plans[name])]:
            done = self.swanctl("--initiate", "--child", child, "--timeout", str(int(timeout)), check=False)
            if done.returncode:
                break
        return done

    def sas(self) -> list[dict[str, Any]]:
        """`swanctl --list-sas` as dictionaries."""
        return list(parse_sas(self.swanctl("--list-sas", "--raw").stdout))

    def agreed(self, name: str) -> list[Agreed]:
        """The installed child SAs of one connection."""
        return self.agreements().get(name, [])

    def agreements(self) -> dict[str, list[Agreed]]:
        """The same of every connection that has an SA, by its name."""
        found: dict[str, list[Agreed]] = {}
        for sa in self.sas():
            if sa["state"] == "ESTABLISHED":
                installed = [child for child in sa["child-sas"].values() if child["state"] == "INSTALLED"]
                found.setdefault(sa["name"], []).extend(_agreed(sa, child) for child in installed)
        return found

    def replaced(self, name: str) -> bool:
        """Whether it still sends on a child SA of one connection that has a successor."""
        children = [child for sa in self.sas() if sa["name"] == name for child in sa["child-sas"].values()]
        return any(child["state"] in ("REKEYING", "REKEYED") for child in children)

    def log(self) -> str:
        """charon's log."""
        path = self.directory / "charon.log"
        return path.read_text(errors="replace") if path.exists() else self._child.output()

    def cpu_seconds(self) -> float:
        """CPU time of charon, all threads."""
        return self._child.cpu_seconds()

    def resident_bytes(self) -> int:
        """Memory of charon."""
        return self._child.resident_bytes()

    def stop(self) -> int:
        """End it with SIGTERM."""
        return self._child.stop()

    def kill(self) -> int:
        """End it without a word to its peers."""
        return self._child.kill()

    def _load(self) -> None:
        self.swanctl("--load-all", "--clear", "--noprompt", "--file", str(self._write()))

    def _write(self, begin: Collection[str] = ()) -> Path:
        text = swanctl_conf(self._plans.values(), begin)
        return write(self.directory / "swanctl.conf", text, mode=0o600)


def proposal(suite: Suite, ike: bool) -> str:
    """A proposal in strongSwan's keywords; ESP takes its keys from the IKE SA, so it has no group."""
    words = [ENCRYPTION[suite.encryption]]
    if suite.encryption not in AEAD:
        words.append(suite.integrity)
    elif ike:
        words.append(f"prf{suite.integrity}")
    if ike:
        words.append(GROUPS[suite.dh_group])
    return "-".join(words)


def esp_proposal(plan: Plan) -> str:
    """The proposal of a tunnel's children, with the group of their key exchange if they have one."""
    group = f"-{GROUPS[plan.pfs]}" if plan.pfs else ""
    return proposal(plan.esp, ike=False) + group


def children_of(plan: Plan) -> list[tuple[str, str, str]]:
    """Name, local and remote selector of each child of a tunnel."""
    if plan.routed:
        everything = "::/0" if ":" in plan.local.inside else "0.0.0.0/0"
        return [(plan.name, everything, everything)]
    if plan.one_child:
        (rule,) = plan.spd
        return [(plan.name, ",".join(rule.local), ",".join(rule.remote))]
    return [
        (f"{plan.name}-{index}" if index else plan.name, *mapping)
        for index, mapping in enumerate(plan.mappings)
    ]


def swanctl_conf(plans: Any, begin: Collection[str] = ()) -> str:
    """swanctl.conf for these tunnels, with their secrets; those in `begin` are initiated at once."""
    plans = list(plans)
    connections = "".join(
        CONNECTION.format(
            name=plan.name,
            version=plan.version[-1],
            aggressive="yes" if plan.mode == "aggressive" else "no",
            local=plan.local.address,
            remote=plan.remote.address,
            local_id=_identity(plan.local.identity),
            remote_id=_identity(plan.remote.identity),
            ike=proposal(plan.ike, ike=True),
            dpd=plan.dpd_timeout,
            fragmentation=plan.fragmentation,
            childless=plan.childless,
            encap="yes" if plan.encapsulation == "udp" else "no",
            children="\n".join(
                CHILD.format(
                    name=name,
                    local=local,
                    remote=remote,
                    esp=esp_proposal(plan),
                    lifetime=plan.lifetime,
                    start="start" if plan.name in begin else plan.start_action,
                    close=plan.close_action,
                )
                for name, local, remote in children_of(plan)
            ),
        )
        for plan in plans
    )
    secrets = "".join(
        SECRET.format(
            name=plan.name,
            psk=plan.psk,
            local_id=_identity(plan.local.identity),
            remote_id=_identity(plan.remote.identity),
        )
        for plan in plans
    )
    return f"connections {{{connections}}}\nsecrets {{{secrets}}}\n"


def parse_sas(raw: str) -> Iterator[dict[str, Any]]:
    """The `list-sa event {NAME {...}}` records of `swanctl --raw`, each with its connection's name added."""
    for line in raw.splitlines():
        if line.startswith("list-sa event "):
            tokens = re.findall(r"[{}]|\S+=\[[^\]]*\]|[^\s{}]+", line.removeprefix("list-sa event "))
            section, _ = _section(tokens, 1)
            for name, sa in section.items():
                yield {"child-sas": {}, **sa, "name": name}


def _section(tokens: list[str], at: int) -> tuple[dict[str, Any], int]:
    section: dict[str, Any] = {}
    while at < len(tokens) and tokens[at] != "}":
        key, equals, value = tokens[at].partition("=")
        if equals:
            section[key] = value[1:-1].split() if value.startswith("[") else value
            at += 1
        elif at + 1 < len(tokens) and tokens[at + 1] == "{":
            section[key], at = _section(tokens, at + 2)
        else:
            at += 1  # a further word of a value with a space in it
    return section, at + 1


def _identity(identity: str) -> str:
    return identity if is_address(identity) else f"fqdn:{identity}"


def _spoken_encryption(values: dict[str, Any]) -> str:
    return SPOKEN_ENCRYPTION[values["encr-alg"]].format(size=values.get("encr-keysize"))


def _agreed(sa: dict[str, Any], child: dict[str, Any]) -> Agreed:
    integrity = child.get("integ-alg")
    return Agreed(
        version=f"ikev{sa['version']}",
        ike=Suite(
            _spoken_encryption(sa),
            SPOKEN_INTEGRITY[sa.get("integ-alg", sa["prf-alg"])],
            SPOKEN_GROUPS[sa["dh-group"]],
        ),
        esp_encryption=_spoken_encryption(child),
        esp_integrity=SPOKEN_INTEGRITY[integrity] if integrity else None,
        spi_in=int(child["spi-in"], 16),
        spi_out=int(child["spi-out"], 16),
        local=child["local-ts"][0],
        remote=child["remote-ts"][0],
        udp=child.get("encap") == "yes",
        pfs=SPOKEN_GROUPS[child["dh-group"]] if "dh-group" in child else 0,
    )
