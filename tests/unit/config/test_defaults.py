"""The defaults of both profiles: the interface's values, key by key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.files import GATEWAY, TUNNEL, load_text
from vpnd.config.compile import compile_gateway, describe
from vpnd.model.policy import (
    Communication,
    DpdAction,
    DpdPolicy,
    Encapsulation,
    Lifetimes,
    Negotiation,
    NegotiationMode,
)
from vpnd.model.proposals import Proposal
from vpnd.wire.iana import IkeVersion, Protocol

COMMON = {
    "customer_gateway": {"name": "branch", "address": "198.51.100.1"},
    "negotiation": "active",
    "communication": "destination-route",
    "routes": [],
    "priority": 0,
    "description": "",
    "retire_after": None,
    "enabled": True,
    "diagnose": "auto",
    "interface": "vpn-a",
    "mtu": None,
    "mss": None,
    "spd": [],
    "sm_numbers": {
        "sm4_ikev1_phase1": 129,
        "sm4_ikev1_esp": 129,
        "sm4_ikev2": 1031,
        "sm3_ikev1_hash": 20,
        "sm3_ikev1_esp": 20,
        "sm3_ikev2_integ": 1034,
        "sm3_ikev2_prf": 1035,
        "sm3_icv_length": 12,
    },
    "dpd": {"enabled": True, "timeout": 30, "action": "retry"},
    "health_check": {
        "enabled": False,
        "local": None,
        "remote": None,
        "interval_ms": 5000,
        "timeout_ms": 150,
        "failures": 3,
        "recoveries": 3,
    },
}

IDS = {"local_id": "192.0.2.1", "remote_id": "198.51.100.1"}


def test_the_default_profile(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, GATEWAY + TUNNEL)
    assert [problem.code for problem in loaded.problems] == ["W-NO-ROUTES"]
    assert describe(loaded, "a") == COMMON | {
        "profile": "default",
        "ike": IDS
        | {
            "version": "ikev2",
            "negotiation_mode": "main",
            "encryption": ["aes-128"],
            "integrity": ["sha256"],
            "dh_group": [14],
            "lifetime": 86400,
            "rekey_margin": 10,
            "rekey_fuzz": 100,
        },
        "ipsec": {
            "encryption": ["aes-128"],
            "integrity": ["sha256"],
            "pfs": "disable",
            "lifetime": 3600,
            "lifetime_kb": 1843200,
            "encapsulation": "auto",
            "esn": "auto",
            "replay_window": 1024,
            "sha256_96": False,
            "rekey_margin": 10,
            "rekey_fuzz": 100,
        },
    }


def test_the_profile_of_the_console(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, GATEWAY + TUNNEL + 'profile = "tencent-cloud"\n')
    assert loaded.ok
    assert describe(loaded, "a") == COMMON | {
        "profile": "tencent-cloud",
        "ike": IDS
        | {
            "version": "ikev1",
            "negotiation_mode": "main",
            "encryption": ["aes-128"],
            "integrity": ["md5"],
            "dh_group": [1],
            "lifetime": 86400,
            "rekey_margin": 10,
            "rekey_fuzz": 100,
        },
        "ipsec": {
            "encryption": ["aes-128"],
            "integrity": ["md5"],
            "pfs": "disable",
            "lifetime": 3600,
            "lifetime_kb": 1843200,
            "encapsulation": "auto",
            "esn": "auto",
            "replay_window": 1024,
            "sha256_96": False,
            "rekey_margin": 10,
            "rekey_fuzz": 100,
        },
    }


def test_what_is_written_wins_over_the_profile(tmp_path: Path) -> None:
    text = GATEWAY + TUNNEL + 'profile = "tencent-cloud"\nike.version = "ikev2"\nipsec.integrity = "sha256"\n'
    described = describe(load_text(tmp_path, text), "a")
    assert described["ike"]["version"] == "ikev2"
    assert described["ike"]["integrity"] == ["md5"]
    assert described["ipsec"]["integrity"] == ["sha256"]


def test_the_default_tunnel_as_the_protocols_see_it(tmp_path: Path) -> None:
    policy = compile_gateway(load_text(tmp_path, GATEWAY + TUNNEL))
    (tunnel,) = policy.tunnels
    assert (policy.name, str(policy.address), policy.labels) == ("hq", "192.0.2.1", ())
    assert (tunnel.negotiation, tunnel.communication) == (Negotiation.ACTIVE, Communication.DESTINATION_ROUTE)
    assert tunnel.health is None
    peer = tunnel.peer
    assert (peer.version, peer.mode, peer.lifetime) == (IkeVersion.V2, None, 86400)
    assert (str(peer.local_id), str(peer.remote_id)) == ("192.0.2.1", "198.51.100.1")
    assert peer.proposals == (
        Proposal(Protocol.IKE, ("aes-128",), prf=("sha256",), integrity=("sha256",), dh=(14,), esn=()),
    )
    assert peer.psk.reveal() == b"correct-horse-battery-staple"
    assert peer.encapsulation is Encapsulation.AUTO
    assert peer.dpd == DpdPolicy(True, 30, DpdAction.RETRY)
    (child,) = peer.children
    assert str(child) == "0.0.0.0/0 - 0.0.0.0/0"
    assert child.lifetimes == Lifetimes(3600, 1843200)
    assert (child.pfs, child.proposals) == (
        (),
        (Proposal(Protocol.ESP, ("aes-128",), integrity=("sha256",), esn=(True, False)),),
    )


@pytest.mark.parametrize("mode", ["main", "aggressive"])
def test_ikev1_has_a_mode(tmp_path: Path, mode: str) -> None:
    text = GATEWAY + TUNNEL + f'ike.version = "ikev1"\nike.negotiation_mode = "{mode}"\n'
    (tunnel,) = compile_gateway(load_text(tmp_path, text)).tunnels
    assert tunnel.peer.mode is NegotiationMode(mode)
