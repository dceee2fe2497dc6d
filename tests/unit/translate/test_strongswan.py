"""The other side's configuration: mirrored, complete, and without the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.translate.tunnels import KEY_TEXT, peer_of, tunnel_of
from vpnd.translate.peer_config import peer_config
from vpnd.translate.side import NotPossible, side_of


def settings(text: str) -> dict[str, Any]:
    """`section.section.key` to value; comments are left out. Fails if the braces do not match."""
    found: dict[str, Any] = {}
    path: list[str] = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.endswith("{"):
            path.append(line.removesuffix("{").strip())
        elif line == "}":
            path.pop()
        else:
            key, value = line.split(" = ", 1)
            found[".".join((*path, key))] = value
    assert not path
    return found


def test_the_ends_are_mirrored(tmp_path: Path) -> None:
    found = settings(
        peer_of(
            tmp_path,
            'communication = "spd-policy"\nike.remote_id = "branch.example"\n'
            'spd = [{ local = ["10.0.0.0/24"], remote = ["10.1.0.0/24", "10.2.0.0/24"] }]\n',
        )
    )
    assert found["connections.a.local_addrs"] == "198.51.100.1"
    assert found["connections.a.remote_addrs"] == "192.0.2.1"
    assert found["connections.a.local.id"] == "@branch.example"
    assert found["connections.a.remote.id"] == "192.0.2.1"
    assert found["connections.a.version"] == "2"
    for number, remote in (("1", "10.1.0.0/24"), ("2", "10.2.0.0/24")):
        assert found[f"connections.a.children.a-{number}.local_ts"] == remote
        assert found[f"connections.a.children.a-{number}.remote_ts"] == "10.0.0.0/24"
        assert found[f"connections.a.children.a-{number}.start_action"] == "trap"


@pytest.mark.parametrize(
    ("extra", "proposals", "esp"),
    [
        ("", "aes128-sha256-modp2048", "aes128-sha256"),
        (
            'ike.encryption = ["aes-256-gcm", "3des"]\n'
            'ike.integrity = ["sha512", "sha1"]\nike.dh_group = [31, 24]\n',
            "aes256gcm16-prfsha512-prfsha1-x25519-modp2048s256, 3des-sha512-sha1-x25519-modp2048s256",
            "aes128-sha256",
        ),
        (
            'ipsec.encryption = ["chacha20-poly1305", "aes-192"]\nipsec.pfs = [19]\n',
            "aes128-sha256-modp2048",
            "chacha20poly1305-ecp256, aes192-sha256-ecp256",
        ),
    ],
)
def test_proposals(tmp_path: Path, extra: str, proposals: str, esp: str) -> None:
    found = settings(peer_of(tmp_path, extra))
    assert found["connections.a.proposals"] == proposals
    assert found["connections.a.children.a.esp_proposals"] == esp


def test_a_route_based_peer_gets_an_interface(tmp_path: Path) -> None:
    text = peer_of(tmp_path, 'routes = ["10.2.0.0/16"]\nhealth_check.enabled = true\n')
    found = settings(text)
    assert found["connections.a.children.a.local_ts"] == "0.0.0.0/0"
    number = found["connections.a.children.a.if_id_in"]
    assert found["connections.a.children.a.if_id_out"] == number
    assert f"#     ip link add ipsec{number} type xfrm if_id {number}" in text
    assert "ip address add 169.254." in text
    assert "connections.a.children.a.start_action" not in found, (
        "a trap for all addresses would cut the peer off"
    )


def test_each_tunnel_has_an_interface_of_its_own(tmp_path: Path) -> None:
    tunnel = tunnel_of(tmp_path, 'routes = ["10.2.0.0/16"]\n')
    numbers = {}
    for gateway in ("hq", "hq-2"):
        for name in ("a", "b", "a-b", "tunnel-with-a-name-as-long-as-there-may-be-which-is-sixty-ch"):
            found = settings(peer_config({**tunnel, "name": name, "gateway": gateway}, "strongswan").text)
            numbers[gateway, name] = int(found[f"connections.{name}.children.{name}.if_id_in"])
    assert len(set(numbers.values())) == len(numbers)
    assert all(0 < number < 2**31 for number in numbers.values())
    assert numbers["hq", "a"] == side_of({**tunnel, "gateway": "hq"}).number, "always the same"


def test_the_peer_begins_where_we_are_passive(tmp_path: Path) -> None:
    found = settings(peer_of(tmp_path, 'negotiation = "passive"\nroutes = ["10.2.0.0/16"]\n'))
    assert found["connections.a.children.a.start_action"] == "start"
    assert found["connections.a.keyingtries"] == "0"


def test_aggressive_mode_names_the_switch(tmp_path: Path) -> None:
    text = peer_of(tmp_path, 'ike.version = "ikev1"\nike.negotiation_mode = "aggressive"\n')
    assert "i_dont_care_about_security_and_use_aggressive_mode_psk = yes" in text
    found = settings(text)
    assert (found["connections.a.version"], found["connections.a.aggressive"]) == ("1", "yes")
    assert "connections.a.reauth_time" in found


def test_ikev1_has_a_timeout_of_its_own(tmp_path: Path) -> None:
    found = settings(peer_of(tmp_path, 'ike.version = "ikev1"\ndpd.timeout = 600\n'))
    assert (found["connections.a.dpd_delay"], found["connections.a.dpd_timeout"]) == ("200s", "600s")
    assert "connections.a.dpd_timeout" not in settings(peer_of(tmp_path, ""))


def test_settings_of_esp_that_both_ends_need(tmp_path: Path) -> None:
    text = 'ipsec.esn = "yes"\nipsec.sha256_96 = true\nipsec.replay_window = 64\nipsec.pfs = 19\n'
    child = "connections.a.children.a"
    found = settings(peer_of(tmp_path, text))
    assert found[f"{child}.esp_proposals"] == "aes128-sha256-ecp256-esn"
    assert (found[f"{child}.sha256_96"], found[f"{child}.replay_window"]) == ("yes", "64")
    usual = settings(peer_of(tmp_path, ""))
    assert f"{child}.sha256_96" not in usual
    assert usual[f"{child}.replay_window"] == "1024"


def test_weak_algorithms_name_the_plugins(tmp_path: Path) -> None:
    text = peer_of(tmp_path, 'ike.encryption = "des"\nike.integrity = "md5"\nike.dh_group = 1\n')
    assert "Weak algorithms are in use: des, md5, 1." in text
    assert "plugins des, md5" in text


def test_ikev1_has_one_algorithm_of_a_kind_in_a_proposal(tmp_path: Path) -> None:
    lists = 'ike.encryption = ["aes-128", "3des"]\nike.integrity = ["sha1", "md5"]\nike.dh_group = [2, 14]\n'
    found = settings(peer_of(tmp_path, 'ike.version = "ikev1"\nipsec.pfs = [2, 5]\n' + lists))
    proposals = found["connections.a.proposals"].split(", ")
    assert len(proposals) == 8
    assert proposals[0] == "aes128-sha1-modp1024"
    assert "3des-md5-modp2048" in proposals
    assert found["connections.a.children.a.esp_proposals"] == "aes128-sha256-modp1024, aes128-sha256-modp1536"


def test_what_it_lacks_is_left_out_while_there_is_another(tmp_path: Path) -> None:
    text = peer_of(tmp_path, 'ike.encryption = ["sm4", "aes-256"]\n')
    assert settings(text)["connections.a.proposals"] == "aes256-sha256-modp2048"
    assert "strongSwan has no encryption sm4: left out here." in text


def test_what_strongswan_lacks(tmp_path: Path) -> None:
    with pytest.raises(NotPossible, match="no encryption sm4"):
        peer_of(tmp_path, 'ike.encryption = "sm4"\n')
    with pytest.raises(NotPossible, match="no integrity sm3"):
        peer_of(tmp_path, 'ipsec.integrity = "sm3"\n')


def test_the_key_is_not_in_it(tmp_path: Path) -> None:
    text = peer_of(tmp_path, "")
    assert KEY_TEXT not in text
    assert settings(text)["secrets.ike-a.secret"] == '"PUT-THE-PRE-SHARED-KEY-HERE"'
    assert "3f9a-77c1" in text


@pytest.mark.parametrize(
    ("word", "theirs"),
    [
        ("203.0.113.1", "203.0.113.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("gw.example", "@gw.example"),
        ("@gw.example", "@gw.example"),
        ("@203.0.113.1", '"fqdn:203.0.113.1"'),
        ("@user@host", '"fqdn:user@host"'),
        ("@C=CH,{CN}#gw", '"fqdn:C=CH,{CN}#gw"'),
    ],
)
def test_an_identity_keeps_its_type(tmp_path: Path, word: str, theirs: str) -> None:
    found = settings(peer_of(tmp_path, f'ike.remote_id = "{word}"\nike.local_id = "hq.example"\n'))
    assert found["connections.a.local.id"] == theirs
    assert found["connections.a.remote.id"] == "@hq.example"
    assert found["secrets.ike-a.id-1"] == "@hq.example"
    assert found["secrets.ike-a.id-2"] == theirs


def test_protocol_and_ports_are_mirrored(tmp_path: Path) -> None:
    rule = 'local = ["10.0.0.0/24"], remote = ["10.1.0.0/24"]'
    found = settings(
        peer_of(
            tmp_path,
            'communication = "spd-policy"\n'
            f'spd = [{{ {rule}, protocol = "tcp", local_port = 443, remote_port = "1024-2047" }},'
            f' {{ {rule}, protocol = "icmp" }}]\n',
        )
    )
    first, second = "connections.a.children.a-1", "connections.a.children.a-2"
    assert found[f"{first}.local_ts"] == "10.1.0.0/24[tcp/1024-2047]"
    assert found[f"{first}.remote_ts"] == "10.0.0.0/24[tcp/443]"
    assert found[f"{second}.local_ts"] == "10.1.0.0/24[icmp]"
