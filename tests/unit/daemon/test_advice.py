"""What `why` advises can be set beside what is configured, is not set already, and belongs to the version.

Each code with the values that a peer may have, in each kind of tunnel; the gallery asks the same of what two
daemons come to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.daemon.advice import Seen, is_new_and_possible, of_the_other
from tests.unit.daemon.fakes import configuration
from vpnd.config.compile import compile_gateway
from vpnd.config.load import load
from vpnd.control.diagnoses import explain
from vpnd.control.explanation import About
from vpnd.crypto.suites import ENCRYPTIONS, GROUPS, INTEGRITIES
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import TunnelPolicy

ROUTED = 'routes = ["10.2.0.0/16"]'
RULE = 'communication = "spd-policy"\nspd = [{{ local = ["{}"], remote = ["{}"]{} }}]'
PORTS = ', protocol = "tcp", local_port = "80-90"'
TUNNELS: dict[str, str] = {
    "ikev2": f'{ROUTED}\nike.version = "ikev2"',
    "ikev1": f'{ROUTED}\nike.version = "ikev1"',
    "aggressive": f'{ROUTED}\nike.version = "ikev1"\nike.negotiation_mode = "aggressive"',
    "aead": f'{ROUTED}\nike.encryption = ["aes-256-gcm", "aes-128"]\nipsec.encryption = "chacha20-poly1305"',
    "esn": f'{ROUTED}\nipsec.esn = "yes"\nipsec.pfs = [14, 19]',
    "without": f'{ROUTED}\nipsec.esn = "no"\ndpd.action = "disconnect"\nipsec.encapsulation = "udp"',
    "ports": RULE.format("10.1.0.0/24", "10.2.0.0/24", PORTS),
    "ipv6": RULE.format("2001:db8:1::/64", "2001:db8:2::/64", ""),
    "short": f'{ROUTED}\nipsec.sha256_96 = true\ndiagnose = "all"',
    "any": f'{ROUTED}\nnegotiation = "passive"\nike.version = "ikev1"\nike.remote_id = "b.example"',
}


def tunnel(directory: Path, kind: str) -> tuple[Path, TunnelPolicy]:
    """The file with one tunnel of a kind, and what it means."""
    path = directory / "vpnd.toml"
    text = configuration("hq", "192.0.2.1", "any" if kind == "any" else "192.0.2.2", {"t": TUNNELS[kind]})
    path.write_text(text)
    path.chmod(0o600)
    loaded = load(path)
    assert not loaded.errors, loaded.errors
    (policy,) = compile_gateway(loaded).tunnels
    return path, policy


def listed(*values: object) -> str:
    return ", ".join(map(str, values))


def diagnoses(policy: TunnelPolicy) -> Iterator[Diagnosis]:
    """Every code, with values of the peer that a tunnel of this policy may meet."""
    peer = policy.peer
    ours = {
        "encryption": listed(*(word for one in peer.proposals for word in one.encryption)),
        "integrity": listed(*(word for one in peer.proposals for word in (one.integrity or one.prf))),
        "group": listed(*(group for one in peer.proposals for group in one.dh)),
        "pfs": listed(*peer.children[0].pfs) or "none",
    }
    esp = peer.children[0].proposals[0]
    is_v1 = peer.version.value == 1
    ciphers = [word for word, row in ENCRYPTIONS.items() if not is_v1 or row.ikev1_phase1 is not None]
    esp_ciphers = [word for word, row in ENCRYPTIONS.items() if not is_v1 or row.ikev1_esp is not None]
    for theirs in (*ciphers, listed(*ciphers), "encr-23, aes-256", "encr-99"):
        yield Diagnosis.of(Code.P1_ENCRYPTION, theirs=theirs, ours=ours["encryption"])
    for theirs in (*esp_ciphers, listed(*esp_ciphers)):
        yield Diagnosis.of(Code.P2_ENCRYPTION, theirs=theirs, ours=listed(*esp.encryption))
    for theirs in (*INTEGRITIES, listed(*INTEGRITIES), "integ-9"):
        yield Diagnosis.of(Code.P1_INTEGRITY, theirs=theirs, ours=ours["integrity"])
        if esp.integrity:
            yield Diagnosis.of(Code.P2_INTEGRITY, theirs=theirs, ours=listed(*esp.integrity))
    for theirs in (*map(str, GROUPS), listed(*GROUPS), "22", "0"):
        yield Diagnosis.of(Code.P1_DH, theirs=theirs, ours=ours["group"])
        if theirs not in ours["pfs"].split(", "):
            yield Diagnosis.of(Code.PFS, theirs=theirs, ours=ours["pfs"])
        if theirs in map(str, GROUPS) and not peer.children[0].pfs:
            yield Diagnosis.of(Code.PFS_OF_PEER, theirs=theirs, ours="off")
    for theirs in ("none", "off or another group", "another group"):
        if ours["pfs"] != "none":
            yield Diagnosis.of(Code.PFS, theirs=theirs, ours=ours["pfs"])
    for text in ("192.0.2.9 (IPV4_ADDR)", "x.example (FQDN)", "x@y (RFC822_ADDR)", "@10.0.0.1 (FQDN)"):
        for whose in ("ours", "theirs"):
            yield Diagnosis.of(Code.IDENTITY, theirs=text, ours="z.example (FQDN)", whose=whose)
    yield Diagnosis.of(Code.VERSION, theirs="ikev2" if is_v1 else "ikev1", ours=f"ikev{peer.version.value}")
    yield Diagnosis.of(Code.VERSION, ours=f"ikev{peer.version.value}")
    if peer.mode is not None:
        both = ("main", "aggressive") if peer.mode.value == "main" else ("aggressive", "main")
        yield Diagnosis.of(Code.MODE, theirs=both[1], ours=both[0])
        where = f"{peer.mode.value} mode"
        yield Diagnosis.of(Code.IDENTITY, whose="ours", exchange=where, notify="AUTHENTICATION_FAILED")
    if not is_v1 and esp.esn != (True, False):
        kinds = ("on", "off") if esp.esn == (True,) else ("off", "on")
        yield Diagnosis.of(Code.P2_ESN, theirs=kinds[1], ours=kinds[0])
    for size in (576, 900, 1200, 1300, 1400):
        yield Diagnosis.of(Code.MTU, mtu=size + 60, inner=size, mss=size - 40, ours=1400)
    short = "96" if peer.children[0].sha256_96 else None
    for word in (*esp.integrity, *(() if esp.integrity else esp.encryption)):
        yield Diagnosis.of(Code.ESP_ICV, ours=word, detail=short)
    yield Diagnosis.of(Code.P1_PROPOSAL, ours="aes-128/sha256/dh14", notify="NO_PROPOSAL_CHOSEN")
    udp = policy.peer.encapsulation.value == "udp"
    yield Diagnosis.of(Code.ONE_WAY, seconds=10, encapsulation="udp" if udp else "esp")
    for code in Code:
        if code not in (Code.MODE, Code.P2_ESN, Code.ONE_WAY, Code.ESP_ICV, Code.ADDITION):
            yield Diagnosis.of(code)


@pytest.mark.parametrize("kind", TUNNELS)
def test_what_is_advised_can_be_set_and_is_not(tmp_path: Path, kind: str) -> None:
    path, policy = tunnel(tmp_path, kind)
    about = About.of(policy, None, None)
    seen: Seen = set()
    for one in diagnoses(policy):
        is_new_and_possible(path, "t", explain(one, "t", about), seen)
    assert len(seen) > 20


@pytest.mark.parametrize("kind", TUNNELS)
def test_what_else_is_possible_is_of_the_version(tmp_path: Path, kind: str) -> None:
    _, policy = tunnel(tmp_path, kind)
    about = About.of(policy, None, None)
    version = about.version or ""
    for one in diagnoses(policy):
        if one.code in (Code.ADDITION, Code.P2_ESN) and version == "ikev1":
            continue  # there are none
        assert not of_the_other(version, explain(one, "t", about)), one


def test_a_peer_that_is_asked_for_everything_need_not_be(tmp_path: Path) -> None:
    _, policy = tunnel(tmp_path, "ikev2")
    refused = Diagnosis.of(Code.P1_PROPOSAL, ours="aes-128/sha256/dh14")
    assert any("diagnose" in one for one in explain(refused, "t", About.of(policy, None, None)).try_)
    _, policy = tunnel(tmp_path, "short")
    assert not any("diagnose" in one for one in explain(refused, "t", About.of(policy, None, None)).try_)


@pytest.mark.parametrize(
    ("integrity", "change"),
    [
        ("sha256", "set ipsec.sha256_96 = true"),
        ("sm3", "set sm_numbers.sm3_icv_length"),
        ("sha1", "look for"),
    ],
)
def test_the_length_of_the_icv_is_changed_where_there_are_two(integrity: str, change: str) -> None:
    found = explain(Diagnosis.of(Code.ESP_ICV, ours=integrity), "t")
    assert (found.change or "").startswith(change)
    assert ("different lengths" in found.what) is (integrity != "sha1")


def test_a_peer_of_any_address_is_not_to_have_aggressive_mode(tmp_path: Path) -> None:
    _, policy = tunnel(tmp_path, "any")
    differs = Diagnosis.of(Code.MODE, theirs="aggressive", ours="main")
    assert (explain(differs, "t", About.of(policy, None, None)).change or "").startswith("use main mode")
    known = replace(policy, peer=replace(policy.peer, any_address=False))
    assert (explain(differs, "t", About.of(known, None, None)).change or "").startswith("set ike.nego")
