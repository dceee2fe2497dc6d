"""Words to proposals, routes and rules to mappings, and what vpnd chooses itself."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address
from pathlib import Path

import pytest

from tests.unit.config.files import GATEWAY, KEY, ROUTES, TUNNEL, load_text
from vpnd.config.assign import ASSIGNED_RANGE
from vpnd.config.compile import compile_for_guard, compile_gateway, describe
from vpnd.model.numbers import Numbers
from vpnd.model.policy import GatewayPolicy, Margin
from vpnd.model.proposals import Chosen, Proposal, choose
from vpnd.wire.iana import Protocol


def compiled(directory: Path, text: str) -> GatewayPolicy:
    loaded = load_text(directory, text)
    assert loaded.ok, loaded.errors
    return compile_gateway(loaded)


def test_aead_ciphers_have_a_proposal_of_their_own(tmp_path: Path) -> None:
    text = (
        TUNNEL
        + 'ike.encryption = ["aes-256", "aes-128-gcm", "aes-128"]\nike.integrity = ["sha512", "sha256"]\n'
    )
    (tunnel,) = compiled(tmp_path, GATEWAY + text + "ike.dh_group = [31, 14]\n").tunnels
    words = ("sha512", "sha256")
    assert tunnel.peer.proposals == (
        Proposal(Protocol.IKE, ("aes-256", "aes-128"), words, words, (31, 14), esn=(), number=1),
        Proposal(Protocol.IKE, ("aes-128-gcm",), words, (), (31, 14), esn=(), number=2),
    )
    outcome = choose([tunnel.peer.proposals[1]], tunnel.peer.proposals)
    assert isinstance(outcome, Chosen)
    assert (outcome.suite.encryption, outcome.suite.integrity, outcome.suite.prf) == (
        "aes-128-gcm",
        None,
        "sha512",
    )


def test_esp_proposals_carry_the_pfs_groups(tmp_path: Path) -> None:
    text = TUNNEL + 'ipsec.encryption = ["chacha20-poly1305", "3des"]\nipsec.pfs = [19, 5]\n'
    (tunnel,) = compiled(tmp_path, GATEWAY + text).tunnels
    (child,) = tunnel.peer.children
    assert child.pfs == (19, 5)
    assert child.proposals == (
        Proposal(Protocol.ESP, ("chacha20-poly1305",), dh=(19, 5), esn=(True, False), number=1),
        Proposal(Protocol.ESP, ("3des",), integrity=("sha256",), dh=(19, 5), esn=(True, False), number=2),
    )


@pytest.mark.parametrize(
    ("routes", "mappings"),
    [
        ("[]", ["0.0.0.0/0 - 0.0.0.0/0"]),
        ('["10.0.0.0/8"]', ["0.0.0.0/0 - 0.0.0.0/0"]),
        ('["10.0.0.0/8", "2001:db8::/32"]', ["0.0.0.0/0 - 0.0.0.0/0", "::/0 - ::/0"]),
        ('["2001:db8::/32"]', ["::/0 - ::/0"]),
    ],
)
def test_the_mappings_of_destination_routes(tmp_path: Path, routes: str, mappings: list[str]) -> None:
    (tunnel,) = compiled(tmp_path, GATEWAY + TUNNEL + f"routes = {routes}\n").tunnels
    assert [str(child) for child in tunnel.peer.children] == mappings
    assert [child.index for child in tunnel.peer.children] == list(range(len(mappings)))


def test_the_mappings_of_rules_are_in_the_order_written(tmp_path: Path) -> None:
    text = TUNNEL + (
        'communication = "spd-policy"\n'
        '[[tunnels.a.spd]]\nlocal = ["10.0.9.0/24", "10.0.1.0/24"]\n'
        'remote = ["192.168.5.0/24", "192.168.1.0/24"]\n'
        '[[tunnels.a.spd]]\nlocal = ["10.0.0.7"]\nremote = ["192.168.0.0/24"]\n'
    )
    (tunnel,) = compiled(tmp_path, GATEWAY + text).tunnels
    assert [str(child) for child in tunnel.peer.children] == [
        "10.0.9.0/24 - 192.168.5.0/24",
        "10.0.9.0/24 - 192.168.1.0/24",
        "10.0.1.0/24 - 192.168.5.0/24",
        "10.0.1.0/24 - 192.168.1.0/24",
        "10.0.0.7/32 - 192.168.0.0/24",
    ]


def test_no_byte_limit(tmp_path: Path) -> None:
    (tunnel,) = compiled(tmp_path, GATEWAY + TUNNEL + "ipsec.lifetime_kb = 0\n").tunnels
    assert tunnel.peer.children[0].lifetimes.kilobytes is None


def test_the_numbers_of_a_peer(tmp_path: Path) -> None:
    text = TUNNEL + "sm_numbers.sm4_ikev1_esp = 127\nsm_numbers.sm3_icv_length = 32\n"
    (tunnel,) = compiled(tmp_path, GATEWAY + text).tunnels
    assert tunnel.peer.numbers == Numbers(sm4_ikev1_esp=127, sm3_icv_length=32)
    (error,) = load_text(tmp_path, GATEWAY + TUNNEL + "sm_numbers.sm3_icv_length = 20\n").errors
    assert (error.code, error.hint) == ("E-VALUE", "one of: 12, 16, 32")


def test_labels(tmp_path: Path) -> None:
    gateway = GATEWAY.replace('name = "hq"', 'name = "hq"\ntype = "vpc"\nvpc = "vpc-1"\nregion = "eu"')
    assert compiled(tmp_path, gateway).labels == (("type", "vpc"), ("vpc", "vpc-1"), ("region", "eu"))


# -------------------------------------------------------------------------------- interface names


def names(directory: Path, *tunnels: tuple[str, str]) -> dict[str, str]:
    text = GATEWAY
    for index, (name, extra) in enumerate(tunnels):
        text += f'[tunnels."{name}"]\ncustomer_gateway = "branch"\n{KEY}\n{extra}\n'
        text += f'ike.local_id = "{index}.example"\n'
    return {tunnel.name: tunnel.interface for tunnel in compiled(directory, text).tunnels}


def test_interfaces_are_named_for_their_tunnels(tmp_path: Path) -> None:
    assert names(tmp_path, ("a", ""), ("branch-a", "")) == {"a": "vpn-a", "branch-a": "vpn-branch-a"}


def test_an_interface_name_is_fit_and_unique(tmp_path: Path) -> None:
    long = ["branch-office-1", "branch-office-2", "分支", "with space"]
    found = names(tmp_path, *((name, "") for name in long), ("x", 'interface = "vpn-a"'), ("a", ""))
    assert len(set(found.values())) == len(found)
    for interface in found.values():
        assert 0 < len(interface.encode()) <= 15
        assert interface.isascii()
        assert " " not in interface
    assert found["x"] == "vpn-a"
    assert found == names(tmp_path, *((name, "") for name in long), ("x", 'interface = "vpn-a"'), ("a", ""))


# ------------------------------------------------------------------------- health-check addresses


def checked(name: str, extra: str = "", gateway: str = "branch") -> str:
    return f'[tunnels.{name}]\ncustomer_gateway = "{gateway}"\n{KEY}\nhealth_check.enabled = true\n{extra}\n'


def addresses(policy: GatewayPolicy) -> dict[str, tuple[str, str]]:
    return {t.name: (str(t.health.local), str(t.health.remote)) for t in policy.tunnels if t.health}


def test_an_assigned_address_stays_when_other_tunnels_come(tmp_path: Path) -> None:
    alone = addresses(compiled(tmp_path, GATEWAY + checked("a")))
    more = addresses(compiled(tmp_path, GATEWAY + checked("z", gateway="other") + checked("a")))
    assert alone["a"] == more["a"]
    both = [ip_address(text) for pair in more.values() for text in pair]
    assert len(set(both)) == 4
    assert all(address in ASSIGNED_RANGE for address in both)


def test_another_gateway_assigns_others(tmp_path: Path) -> None:
    here = addresses(compiled(tmp_path, GATEWAY + checked("a")))
    there = addresses(compiled(tmp_path, GATEWAY.replace('"hq"', '"lab"') + checked("a")))
    assert here != there


def test_an_assigned_address_is_in_no_range_and_not_taken(tmp_path: Path) -> None:
    first = addresses(compiled(tmp_path, GATEWAY + checked("a")))["a"]
    block = IPv4Network(f"{first[0]}/24", strict=False)
    moved = addresses(compiled(tmp_path, GATEWAY + checked("a", f'routes = ["{block}"]')))["a"]
    assert ip_address(moved[0]) not in block
    taken = checked("b", f'health_check.local = "{first[0]}"\nhealth_check.remote = "{first[1]}"', "other")
    again = addresses(compiled(tmp_path, GATEWAY + checked("a") + taken))
    assert again["b"] == first
    assert not set(again["a"]) & set(first)


def test_one_given_address_and_one_assigned(tmp_path: Path) -> None:
    policy = compiled(tmp_path, GATEWAY + checked("a", 'health_check.remote = "100.64.0.9"'))
    local, remote = addresses(policy)["a"]
    assert remote == "100.64.0.9"
    assert ip_address(local) in ASSIGNED_RANGE
    health = policy.tunnels[0].health
    assert health is not None
    assert (health.interval, health.timeout, health.failures, health.recoveries) == (5.0, 0.15, 3, 3)


@pytest.mark.parametrize(
    ("line", "esn"),
    [
        ("", (True, False)),
        ('ipsec.esn = "yes"', (True,)),
        ('ipsec.esn = "no"', (False,)),
        ('ike.version = "ikev1"', (False,)),
        ('ike.version = "ikev1"\nipsec.esn = "no"', (False,)),
    ],
)
def test_extended_sequence_numbers_are_for_ikev2(tmp_path: Path, line: str, esn: tuple[bool, ...]) -> None:
    (tunnel,) = compiled(tmp_path, GATEWAY + TUNNEL + line + "\n").tunnels
    assert {proposal.esn for child in tunnel.peer.children for proposal in child.proposals} == {esn}


def test_what_esp_is_told_of_its_settings(tmp_path: Path) -> None:
    lines = "ipsec.replay_window = 64\nipsec.sha256_96 = true\n"
    lines += "ipsec.rekey_margin = 20\nipsec.rekey_fuzz = 50\nike.rekey_margin = 5\nike.rekey_fuzz = 0\n"
    (tunnel,) = compiled(tmp_path, GATEWAY + TUNNEL + lines).tunnels
    (child,) = tunnel.peer.children
    assert (child.replay_window, child.sha256_96) == (64, True)
    assert (child.lifetimes.margin, tunnel.peer.margin) == (Margin(20, 50), Margin(5, 0))


@pytest.mark.parametrize(
    ("address", "more", "by_name"),
    [
        ("gw.example", "", True),
        ("gw.example", 'ike.remote_id = "gw.example"\n', False),
        ("198.51.100.1", "", False),
        ("any", 'ike.remote_id = "gw.example"\nnegotiation = "passive"\n', False),
    ],
)
def test_a_peer_by_name_is_known_by_its_address_too(
    tmp_path: Path, address: str, more: str, by_name: bool
) -> None:
    text = GATEWAY.replace('"198.51.100.1"', f'"{address}"') + TUNNEL + more
    (tunnel,) = compiled(tmp_path, text).tunnels
    assert tunnel.peer.known_by_name is by_name
    assert tunnel.peer.prove_rekey


def test_what_the_interface_is_told_of_its_settings(tmp_path: Path) -> None:
    lines = 'mtu = 1400\nmss = 1300\ndescription = "to the branch"\n'
    for more, told in ((lines, (1400, 1300, "to the branch")), ("", (None, None, ""))):
        (tunnel,) = compiled(tmp_path, GATEWAY + TUNNEL + more).tunnels
        assert (tunnel.mtu, tunnel.mss, tunnel.description) == told


def test_protocol_and_ports_of_a_rule(tmp_path: Path) -> None:
    rule = '[[tunnels.a.spd]]\nlocal = ["10.1.0.0/24"]\nremote = ["10.2.0.0/24", "10.3.0.0/24"]\n'
    text = GATEWAY + TUNNEL + 'communication = "spd-policy"\n'
    text += rule + 'protocol = "tcp"\nlocal_port = 443\nremote_port = "1024-65535"\n'
    text += (
        rule
        + 'protocol = "icmp"\n'
        + rule
        + 'protocol = 17\nremote_port = "53"\n'
        + rule
        + "protocol = 200\n"
    )
    (tunnel,) = compiled(tmp_path, text).tunnels
    found = [(child.protocol, child.local_ports, child.remote_ports) for child in tunnel.peer.children]
    anything = (0, 65535)
    assert (
        found[::2]
        == found[1::2]
        == [
            (6, (443, 443), (1024, 65535)),
            (1, anything, anything),
            (17, anything, (53, 53)),
            (200, anything, anything),
        ]
    )
    assert str(tunnel.peer.children[0]) == "10.1.0.0/24[tcp/443] - 10.2.0.0/24[tcp/1024-65535]"
    described = describe(load_text(tmp_path, text), "a")["spd"]
    assert [(rule["protocol"], rule["local_port"], rule["remote_port"]) for rule in described] == [
        ("tcp", "443", "1024-65535"),
        ("icmp", None, None),
        ("udp", None, "53"),
        ("200", None, None),
    ]


AUTO = GATEWAY.replace('"192.0.2.1"', '"auto"')


def test_an_address_that_is_not_known_yet_is_of_the_peers_family(tmp_path: Path) -> None:
    text = AUTO + '[customer_gateways.six]\naddress = "2001:db8::1"\n' + TUNNEL
    text += f'[tunnels.six]\ncustomer_gateway = "six"\n{KEY}\n'
    policy = compiled(tmp_path, text)
    assert policy.address == ip_address("0.0.0.0")
    assert [str(tunnel.peer.local_address) for tunnel in policy.tunnels] == ["0.0.0.0", "::"]


def test_the_default_identity_of_such_a_gateway_is_what_is_in_use(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, AUTO + TUNNEL)
    assert describe(loaded, "a")["ike"]["local_id"] is None
    assert describe(loaded, "a", "192.0.2.77")["ike"]["local_id"] == "192.0.2.77"
    named = load_text(tmp_path, AUTO + TUNNEL + 'ike.local_id = "hq.example"\n')
    assert [problem.code for problem in named.problems] == ["W-NO-ROUTES"]
    assert describe(named, "a", "192.0.2.77")["ike"]["local_id"] == "hq.example"


def test_such_a_gateway_is_guarded(tmp_path: Path) -> None:
    (tunnel,) = compile_for_guard(load_text(tmp_path, AUTO + TUNNEL + ROUTES))
    assert tunnel.peer.local_address == ip_address("0.0.0.0")
    assert [str(route) for route in tunnel.routes] == ["10.2.0.0/16"]
