"""The other side for each product: complete, without the key, or a reason why there is none."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from tests.unit.translate.tunnels import KEY_TEXT, peer_of, tunnel_of
from tests.unit.translate.variety import NAMED, ONE, PORTS, ROUTED, TWO, V1, VARIETY, suite
from vpnd.config.load import load
from vpnd.translate.kinds import KINDS, PeerKind
from vpnd.translate.peer_config import WRITERS, peer_config
from vpnd.translate.sheet import PLACEHOLDER
from vpnd.translate.side import NotPossible, side_of

LIBRESWAN = "VPND_LIBRESWAN"
"""Names the directory of libreswan's programs, such as `usr/libexec/ipsec` of a package that was unpacked."""
UNPACKED = Path(__file__).parents[3] / ".venv/libreswan/usr/libexec/ipsec"
"""Where `make setup` puts them."""

REFUSED: dict[PeerKind, dict[str, str]] = {
    "strongswan": {},
    "libreswan": {
        "ikev1-weakest": "no encryption des",
        "aggressive-group-24": "no DH group 24",
    },
    "cisco-ios": {"chacha": "no encryption chacha20-poly1305", "esn": "extended sequence numbers"},
    "cisco-asa": {
        "chacha": "no encryption chacha20-poly1305",
        "esn": "extended sequence numbers",
        "ikev1": "no integrity in IKEv1 sha256",
        "ikev1-routed": "no integrity in IKEv1 sha256",
        "ikev1-lists": "no integrity in IKEv1 sha256",
        "aggressive": "no integrity in IKEv1 sha256",
        "aggressive-group-24": "no DH group in IKEv1 24",
    },
    "fortigate": {"esn": "extended sequence numbers", "aggressive-group-24": "no DH group 24"},
    "huawei": {
        "chacha": "no encryption in IKE chacha20-poly1305",
        "gcm": "no encryption in IKE aes-256-gcm",
        "esn": "extended sequence numbers",
    },
    "h3c": {
        "chacha": "no encryption in IKEv2 chacha20-poly1305",
        "gcm": "no encryption in IKEv2 aes-256-gcm",
    },
    "mikrotik": {
        "routed": "no interface for IPsec",
        "routed-passive": "no interface for IPsec",
        "routed-with-health-check": "no interface for IPsec",
        "ikev1-routed": "no interface for IPsec",
        "gcm": "no encryption in IKE aes-256-gcm",
        "chacha": "no encryption in IKE chacha20-poly1305",
        "esn": "extended sequence numbers",
        "aggressive-group-24": "no DH group 24",
    },
    "tencent-cloud": {
        "ports": "no protocol or ports",
        "gcm": "no encryption aes-256-gcm",
        "chacha": "no encryption chacha20-poly1305",
        "aes-192": "no DH group 16",
        "esn": "extended sequence numbers",
    },
    "aws": {
        "two-mappings": "one pair of SAs",
        "ports": "no protocol or ports",
        "names": "public addresses",
        "chacha": "no encryption chacha20-poly1305",
        "aes-192": "no encryption aes-192",
        "esn": "extended sequence numbers",
        "ikev1-legacy": "no encryption 3des",
        "ikev1-weakest": "no encryption des",
        "aggressive": "no aggressive mode",
        "aggressive-group-24": "no aggressive mode",
    },
    "azure": {
        "ports": "no protocol or ports",
        "names": "public addresses",
        "chacha": "no encryption chacha20-poly1305",
        "aes-192": "no integrity sha512",
        "esn": "extended sequence numbers",
        "ikev1-legacy": "no DH group 5",
        "aggressive": "no aggressive mode",
        "aggressive-group-24": "no aggressive mode",
    },
    "vpnd": {},
}
"""What each product cannot do of the variety, and what is said of it."""


def test_every_kind_has_a_writer_and_a_title() -> None:
    assert tuple(KINDS) == tuple(WRITERS) == get_args(PeerKind)
    assert len(VARIETY) == 30


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_complete_or_says_why_not(tmp_path: Path, kind: PeerKind) -> None:
    for name, lines in VARIETY.items():
        tunnel = tunnel_of(tmp_path, lines)
        if (reason := REFUSED[kind].get(name)) is not None:
            with pytest.raises(NotPossible) as refused:
                peer_config(tunnel, kind)
            assert reason in str(refused.value), name
            continue
        found = peer_config(tunnel, kind)
        assert KEY_TEXT not in found.text
        assert tunnel["psk_fingerprint"] in found.text
        assert (PLACEHOLDER in found.text) is (kind != "vpnd"), "of vpnd the key is in a file of its own"
        assert tunnel["local_address"] in found.text or "hq.example" in found.text, name
        assert all(len(line) <= 110 or kind == "mikrotik" for line in found.text.splitlines())
        assert "\n\n\n" not in found.text


@pytest.mark.parametrize("kind", KINDS)
def test_sm4_is_written_for_those_that_have_it(tmp_path: Path, kind: PeerKind) -> None:
    lines = ONE + V1 + suite("sm4", "sm3", 14)
    if kind in ("huawei", "h3c", "tencent-cloud", "vpnd"):
        assert "sm4" in peer_of(tmp_path, lines, kind).lower()
    else:
        with pytest.raises(NotPossible, match=r"sm4.*vpnd, Huawei and H3C have SM4"):
            peer_of(tmp_path, lines, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_leaves_its_place(tmp_path: Path, kind: PeerKind) -> None:
    """What an operator calls a tunnel is no command for the other's shell or router."""
    tunnel = {**tunnel_of(tmp_path, ONE), "name": "a'; reboot #\" $(id)", "gateway": "hq' `id`"}
    for line in peer_config(tunnel, kind).text.splitlines():
        if line.startswith(("#", "!")) or kind == "vpnd":
            continue
        assert "$(id)" not in line or line.strip().startswith('"VpnConnectionName"')
        assert "`id`" not in line
        assert "; reboot" not in line or line.strip().startswith('"VpnConnectionName"')


def test_what_is_weak_has_its_reason(tmp_path: Path) -> None:
    for kind in KINDS:
        if kind not in ("libreswan", "aws", "azure"):
            text = peer_of(tmp_path, VARIETY["ikev1-weakest"], kind)
            assert "Weak algorithms are in use: des, md5, 1." in text, kind


def test_aggressive_mode_is_switched_on(tmp_path: Path) -> None:
    lines = VARIETY["aggressive"] + 'ike.integrity = "sha1"\nipsec.integrity = "sha1"\n'
    for kind, words in {
        "libreswan": "aggressive=yes",
        "cisco-ios": " initiate mode aggressive",
        "cisco-asa": "set ikev1 phase1-mode aggressive group14",
        "fortigate": "set mode aggressive",
        "huawei": "exchange-mode aggressive",
        "h3c": "exchange-mode aggressive",
        "mikrotik": "exchange-mode=aggressive",
        "tencent-cloud": '"ExchangeMode": "AGGRESSIVE"',
    }.items():
        assert words in peer_of(tmp_path, lines, kind), kind  # type: ignore[arg-type] # keys are kinds


def test_the_rules_of_routers_are_mirrored(tmp_path: Path) -> None:
    wanted = {
        "cisco-ios": " permit tcp 10.2.0.0 0.0.0.255 10.1.0.0 0.0.0.255 eq 443",
        "cisco-asa": "permit tcp 10.2.0.0 255.255.255.0 10.1.0.0 255.255.255.0 eq 443",
        "huawei": " rule 5 permit tcp source 10.2.0.0 0.0.0.255 destination 10.1.0.0 0.0.0.255"
        " destination-port eq 443",
        "h3c": " rule 5 permit tcp source 10.2.0.0 0.0.0.255 destination 10.1.0.0 0.0.0.255"
        " destination-port eq 443",
        "mikrotik": "src-address=10.2.0.0/24 dst-address=10.1.0.0/24 protocol=tcp dst-port=443",
        "libreswan": "    rightprotoport=tcp/443",
        "fortigate": "        set dst-port 443",
    }
    for kind, line in wanted.items():
        assert line in peer_of(tmp_path, PORTS, kind), kind  # type: ignore[arg-type] # keys are kinds


def test_what_the_clouds_take_is_json(tmp_path: Path) -> None:
    for kind in ("tencent-cloud", "aws"):
        text = peer_of(tmp_path, ROUTED, kind)
        request = json.loads(text.split("<<'END'\n")[1].split("\nEND")[0])
        assert PLACEHOLDER in json.dumps(request)
    request = json.loads(peer_of(tmp_path, TWO, "tencent-cloud").split("<<'END'\n")[1].split("\nEND")[0])
    assert request["SecurityPolicyDatabases"] == [
        {"LocalCidrBlock": "10.2.0.0/24", "RemoteCidrBlock": ["10.1.0.0/24", "10.3.0.0/24"]}
    ]


def test_a_lifetime_that_a_product_does_not_take_is_noted(tmp_path: Path) -> None:
    found = peer_config(tunnel_of(tmp_path, VARIETY["long-lives"]), "aws")
    assert any("900 to 28800 for the lifetime of the IKE SA" in note for note in found.notes)
    assert '"Phase1LifetimeSeconds": 28800' in found.text


def test_a_peer_that_is_known_by_name_and_an_address_that_follows(tmp_path: Path) -> None:
    tunnel = tunnel_of(tmp_path, ONE + NAMED)
    tunnel["configuration"]["customer_gateway"]["address"] = "vpn.branch.example"
    assert side_of(tunnel).local_name == "vpn.branch.example"
    tunnel |= {"local_address": "auto", "address_followed": True}
    for kind in ("strongswan", "libreswan", "vpnd"):
        peer_config(tunnel, kind)
    with pytest.raises(NotPossible, match="has to know our address"):
        peer_config(tunnel, "fortigate")


def test_ipv6_is_written_where_the_product_is_known_to_take_it(tmp_path: Path) -> None:
    tunnel = tunnel_of(tmp_path, RULES6)
    for kind in ("strongswan", "libreswan", "fortigate", "mikrotik", "vpnd"):
        assert "fd02::/64" in peer_config(tunnel, kind).text
    with pytest.raises(NotPossible, match="IPv4 only"):
        peer_config(tunnel, "huawei")


RULES6 = 'communication = "spd-policy"\nspd = [{ local = ["fd01::/64"], remote = ["fd02::/64"] }]\n'


@pytest.mark.parametrize("name", VARIETY)
def test_vpnd_takes_its_own(tmp_path: Path, name: str) -> None:
    text = peer_of(tmp_path, VARIETY[name], "vpnd")
    key = tmp_path / "key"
    key.write_text(KEY_TEXT)
    key.chmod(0o600)
    path = tmp_path / "other.toml"
    path.write_text(text.replace("/etc/vpnd/psk/a", str(key)))
    path.chmod(0o600)
    loaded = load(path)
    assert loaded.ok, loaded.errors


# ---------------------------------------------------------------------------- libreswan's checker


def libreswan() -> Path | None:
    """The directory of its programs, installed or unpacked."""
    places = (os.environ.get(LIBRESWAN, ""), str(UNPACKED), "/usr/libexec/ipsec")
    return next((Path(one) for one in places if one and (Path(one) / "addconn").exists()), None)


@pytest.mark.parametrize("name", [name for name in VARIETY if name not in REFUSED["libreswan"]])
def test_libreswan_checks_it(tmp_path: Path, name: str) -> None:
    programs = libreswan()
    if programs is None:
        pytest.skip(f"no libreswan: make setup fetches it, or {LIBRESWAN} names its directory")
    text = peer_of(tmp_path, VARIETY[name], "libreswan")
    path = tmp_path / "ipsec.conf"
    path.write_text(text)
    checked = subprocess.run(
        [programs / "addconn", "--config", path, "--checkconfig"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    for line in text.splitlines():
        key, _, value = line.strip().partition("=")
        if key in ("ike", "esp"):
            version = "-v2" if "ikev2=yes" in text else "-v1"
            parsed = subprocess.run(
                [programs / "algparse", version, "-pfs", f"{key}={value}"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert parsed.returncode == 0, parsed.stdout + parsed.stderr
            assert "ERROR" not in parsed.stdout + parsed.stderr
