"""What differs between the two ends is named, with what to change, and nothing stays installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.interop.conftest import Opposite
from tests.lab.capture import Capture
from tests.lab.lab import Namespace
from tests.lab.plan import A, B, Plan, Suite
from tests.lab.process import wait_until
from tests.lab.traffic import ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

TIMEOUT = 6
WHOLE_ATTEMPT = 40
"""Seconds in which an attempt that nobody answers has run through its repetitions."""
ATTEMPTS = 4
NOT_THE_KEY = "qZ1mB0nX9Ww8uT7kC6hE5fR4dS3aP2lO1iYyGgJjKkQ="


@dataclass(frozen=True)
class Mismatch:
    """One thing in which our end differs from the peer's: the change, the codes that name it, and the words.

    `reveals` must appear in the explanation: what is configured here, and the peer's where it is told.
    """

    name: str
    change: dict[str, Any]
    codes: frozenset[str]
    reveals: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return self.name


# strongSwan offers and takes them off alone, by default.
SEQUENCE_NUMBERS = {"esp_lines": ('esn = "yes"',)}

MISMATCHES_AS_INITIATOR = (
    Mismatch("key", {"psk": NOT_THE_KEY}, frozenset({"E-PSK"})),
    Mismatch(
        "remote-identity",
        {"remote": replace(B, identity="other.vpn.example")},
        frozenset({"E-PSK", "E-ID"}),
        ("other.vpn.example",),
    ),
    Mismatch(
        "local-identity",
        {"local": replace(A, identity="other.vpn.example")},
        frozenset({"E-PSK", "E-ID"}),
        ("other.vpn.example",),
    ),
    Mismatch(
        "ike-proposal",
        {"ike": Suite("aes-256", "sha512", 14)},
        frozenset({"E-P1-PROPOSAL", "E-P1-ENC", "E-P1-INTEG"}),
        ("aes-256", "sha512"),
    ),
    Mismatch("dh-group", {"ike": Suite(dh_group=31)}, frozenset({"E-P1-PROPOSAL", "E-P1-DH"}), ("31",)),
    Mismatch(
        "esp-proposal",
        {"esp": Suite("aes-256", "sha512")},
        frozenset({"E-P2-PROPOSAL", "E-P2-ENC", "E-P2-INTEG"}),
        ("aes-256", "sha512"),
    ),
    Mismatch(
        "subnets",
        {"local": replace(A, networks=("10.9.0.0/24",))},
        frozenset({"E-TS"}),
        ("10.9.0.0/24", "10.2.0.0/24"),
    ),
    Mismatch("esn", SEQUENCE_NUMBERS, frozenset({"E-P2-PROPOSAL"}), ("they are on here",)),
)
# The responder sees the offer, so it can name both values.
MISMATCHES_AS_RESPONDER = (
    Mismatch(
        "esn",
        SEQUENCE_NUMBERS,
        frozenset({"E-P2-ESN"}),
        ("they are off at the peer and on here", 'set ipsec.esn = \\"auto\\" here'),
    ),
    Mismatch("key", {"psk": NOT_THE_KEY}, frozenset({"E-PSK"})),
    Mismatch(
        "remote-identity",
        {"remote": replace(B, identity="other.vpn.example")},
        frozenset({"E-ID"}),
        ("other.vpn.example", B.identity),
    ),
    Mismatch(
        "ike-proposal",
        {"ike": Suite("aes-256", "sha512", 14)},
        frozenset({"E-P1-ENC", "E-P1-INTEG", "E-P1-PROPOSAL"}),
        ("aes-256", "aes-128"),
    ),
    Mismatch("dh-group", {"ike": Suite(dh_group=31)}, frozenset({"E-P1-DH"}), ("31", "14")),
    Mismatch(
        "esp-proposal",
        {"esp": Suite("aes-256", "sha512")},
        frozenset({"E-P2-ENC", "E-P2-INTEG", "E-P2-PROPOSAL"}),
        ("aes-256", "aes-128"),
    ),
    Mismatch(
        "subnets",
        {"local": replace(A, networks=("10.9.0.0/24",))},
        frozenset({"E-TS"}),
        ("10.9.0.0/24", "10.1.0.0/24"),
    ),
)


@contextmanager
def tunnel(opposite: Opposite, ours: Plan, theirs: Plan) -> Iterator[Vpnd]:
    """Both ends configured, not yet connected; afterwards both have forgotten it, and nothing is left."""
    vpnd = opposite.ours
    assert isinstance(vpnd, Vpnd)
    opposite.peer.add(theirs)
    vpnd.add(ours)
    try:
        yield vpnd
    finally:
        vpnd.remove(ours.name)
        opposite.peer.remove(theirs.name)
    wait_until(lambda: not opposite.peer.sas(), "strongSwan to have no SA")
    left = opposite.wire.a.gateway.left_behind()
    assert left == {"interfaces": [], "routes": [], "rules": []}


def explanation(vpnd: Vpnd, name: str, codes: frozenset[str], reveals: tuple[str, ...] = ()) -> str:
    """What `vpnctl why` says, checked: its code, the values it must name, and that it says what to change."""
    why = json.loads(vpnd.ctl("--json", "why", name).stdout)
    text = json.dumps(why, indent=1)
    assert why["error"] is not None, text
    assert why["error"]["code"] in codes, text
    assert why["explanation"]["change"] or why["explanation"]["try"], text
    for value in reveals:
        assert value in text
    return text


def require_nothing_installed(opposite: Opposite, vpnd: Vpnd, name: str) -> None:
    """No SA at either end, and a packet for the other side goes nowhere: not through, and not in clear."""
    assert vpnd.agreed(name) == []
    assert all(mapping["spi_in"] is None for mapping in vpnd.tunnel(name)["mappings"])
    wait_until(lambda: not opposite.peer.agreed(name), "strongSwan to have no child SA")
    with Capture(opposite.wire.b.gateway, "eth0", f"host {B.inside} or host {A.inside}") as path:
        assert ping(opposite.wire.a.host, A.inside, B.inside, count=2, patience=1).received == 0
    seen = opposite.wire.b.gateway.run("tcpdump", "-n", "-r", str(path)).stdout
    assert seen == "", f"in clear on the wire:\n{seen}"


@pytest.mark.parametrize("mismatch", MISMATCHES_AS_INITIATOR, ids=str)
def test_initiator_names_what_differs(mismatch: Mismatch, opposite: Opposite) -> None:
    right = Plan()
    with tunnel(opposite, right.change(**mismatch.change), right.other()) as vpnd:
        done = vpnd.up(right.name, TIMEOUT)
        assert done.returncode == 1, done.stdout + done.stderr
        explanation(vpnd, right.name, mismatch.codes, mismatch.reveals)
        require_nothing_installed(opposite, vpnd, right.name)


@pytest.mark.parametrize("mismatch", MISMATCHES_AS_RESPONDER, ids=str)
def test_responder_names_what_differs_and_logs_it_once(mismatch: Mismatch, opposite: Opposite) -> None:
    right = Plan()
    with tunnel(opposite, right.change(**mismatch.change), right.other()) as vpnd:
        before = len(vpnd.log().splitlines())
        for _ in range(ATTEMPTS):
            assert opposite.peer.up(right.name, timeout=3).returncode != 0
        explanation(vpnd, right.name, mismatch.codes, mismatch.reveals)
        require_nothing_installed(opposite, vpnd, right.name)
        logged = vpnd.log().splitlines()[before:]
        named = [line for line in logged if any(code in line for code in mismatch.codes)]
        # After IKE_AUTH strongSwan keeps its IKE SA and tries CREATE_CHILD_SA: two failures, not four.
        assert len(named) in (1, 2), "\n".join(logged)


@contextmanager
def firewall(namespace: Namespace, verdict: str) -> Iterator[None]:
    """A rule of this verdict for everything that arrives for IKE."""
    namespace.run("nft", "add", "table", "inet", "lab")
    chain = "{ type filter hook input priority 0 ; }"
    namespace.run("nft", f"add chain inet lab input {chain}")
    namespace.run("nft", f"add rule inet lab input udp dport {{ 500, 4500 }} {verdict}")
    try:
        yield
    finally:
        namespace.run("nft", "delete", "table", "inet", "lab")


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("drop", "E-SILENT"), ("reject with icmpx port-unreachable", "E-PORT")],
    ids=["silent-peer", "closed-port"],
)
def test_peer_that_does_not_answer_is_named(verdict: str, code: str, opposite: Opposite) -> None:
    """An ICMP error, which anyone can forge, names what is wrong and does not end the attempt earlier."""
    plan = Plan()
    with tunnel(opposite, plan, plan.other()) as vpnd, firewall(opposite.wire.b.gateway, verdict):
        done = vpnd.up(plan.name, WHOLE_ATTEMPT)
        assert done.returncode == 1, done.stdout + done.stderr
        explanation(vpnd, plan.name, frozenset({code}), (B.address,))
        require_nothing_installed(opposite, vpnd, plan.name)
