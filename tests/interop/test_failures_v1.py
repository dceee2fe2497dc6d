"""What differs between the two ends of an IKEv1 tunnel is named, in both roles, and nothing stays installed.

All of them fail together, each tunnel with a peer address of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.interop.batch import Batch, place
from tests.lab.plan import Plan, Suite
from tests.lab.process import wait_until
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

NOT_THE_KEY = "qZ1mB0nX9Ww8uT7kC6hE5fR4dS3aP2lO1iYyGgJjKkQ="
WHOLE_ATTEMPT = 45.0
"""Seconds in which an attempt that nobody answers has run through its repetitions."""

Change = Callable[[Plan], Plan]


def with_remote(identity: str) -> Change:
    """Expect this identity of the peer."""
    return lambda plan: plan.change(remote=replace(plan.remote, identity=identity))


def with_local(identity: str) -> Change:
    """Have this identity."""
    return lambda plan: plan.change(local=replace(plan.local, identity=identity))


def behind(network: str) -> Change:
    """Have this network behind our end."""
    return lambda plan: plan.change(local=replace(plan.local, networks=(network,)))


def values(**changes: Any) -> Change:
    """Differ in these values."""
    return lambda plan: plan.change(**changes)


@dataclass(frozen=True)
class Mismatch:
    """One thing in which our end differs from strongSwan's, and what `vpnctl why` says of it then.

    `{peer}` among the words stands for the peer's address.
    """

    what: str
    mode: str
    we_begin: bool
    change: Change
    codes: tuple[str, ...]
    words: tuple[str, ...] = ()

    @property
    def role(self) -> str:
        """Ours."""
        return "initiator" if self.we_begin else "responder"


MISMATCHES = (
    Mismatch("key", "main", True, values(psk=NOT_THE_KEY), ("E-PSK",)),
    Mismatch("key", "aggressive", True, values(psk=NOT_THE_KEY), ("E-PSK",)),
    Mismatch("key", "main", False, values(psk=NOT_THE_KEY), ("E-PSK",)),
    Mismatch("key", "aggressive", False, values(psk=NOT_THE_KEY), ("E-PSK",)),
    # Until it is asked in main mode, only that it refuses ours is known.
    Mismatch("mode", "main", True, values(mode="aggressive"), ("E-ID", "E-MODE"), ("main",)),
    Mismatch("mode", "aggressive", False, values(mode="main"), ("E-MODE",), ("aggressive", "main")),
    Mismatch("mode", "main", False, values(mode="aggressive"), ("E-MODE",), ("aggressive", "main")),
    Mismatch("its identity", "main", True, with_remote("192.0.2.77"), ("E-ID",), ("192.0.2.77", "{peer}")),
    Mismatch(
        "its identity", "aggressive", True, with_remote("192.0.2.77"), ("E-ID",), ("192.0.2.77", "{peer}")
    ),
    Mismatch(
        "its identity's type", "main", True, with_remote("b.example"), ("E-ID",), ("b.example", "{peer}")
    ),
    Mismatch("its identity", "main", False, with_remote("192.0.2.77"), ("E-ID",), ("192.0.2.77", "{peer}")),
    Mismatch(
        "its identity", "aggressive", False, with_remote("192.0.2.77"), ("E-ID",), ("192.0.2.77", "{peer}")
    ),
    Mismatch(
        "its identity's type", "main", False, with_remote("b.example"), ("E-ID",), ("b.example", "{peer}")
    ),
    Mismatch("our identity", "main", True, with_local("192.0.2.77"), ("E-ID", "E-PSK"), ("192.0.2.77",)),
    Mismatch("our identity's type", "main", True, with_local("a.example"), ("E-ID", "E-PSK"), ("a.example",)),
    Mismatch("our identity", "main", False, with_local("192.0.2.77"), ("E-ID",), ("192.0.2.77",)),
    Mismatch("our identity", "aggressive", False, with_local("192.0.2.77"), ("E-ID", "E-PSK"), ()),
    Mismatch(
        "cipher", "main", True, values(ike=Suite("aes-256")), ("E-P1-PROPOSAL", "E-P1-ENC"), ("aes-256",)
    ),
    Mismatch("cipher", "main", False, values(ike=Suite("aes-256")), ("E-P1-ENC",), ("aes-256", "aes-128")),
    Mismatch(
        "hash", "main", False, values(ike=Suite("aes-128", "sha1")), ("E-P1-INTEG",), ("sha1", "sha256")
    ),
    Mismatch("group", "main", False, values(ike=Suite(dh_group=5)), ("E-P1-DH",), ("5", "14")),
    Mismatch("group", "aggressive", False, values(ike=Suite(dh_group=5)), ("E-P1-DH",), ("5", "14")),
    Mismatch(
        "group", "aggressive", True, values(ike=Suite(dh_group=5)), ("E-P1-PROPOSAL", "E-P1-DH"), ("5",)
    ),
    Mismatch("ESP cipher", "main", True, values(esp=Suite("aes-256")), ("E-P2-PROPOSAL",), ("aes-256",)),
    Mismatch(
        "ESP cipher", "main", False, values(esp=Suite("aes-256")), ("E-P2-ENC",), ("aes-256", "aes-128")
    ),
    Mismatch(
        "ESP hash", "main", False, values(esp=Suite("aes-128", "sha1")), ("E-P2-INTEG",), ("sha1", "sha256")
    ),
    Mismatch("PFS", "main", True, values(pfs=14), ("E-P2-PROPOSAL", "E-PFS"), ("14",)),
    Mismatch("PFS", "main", False, values(pfs=14), ("E-PFS",), ("14", "off")),
    Mismatch("networks", "main", True, behind("10.9.0.0/24"), ("E-TS",), ("10.9.0.0/24",)),
    Mismatch("networks", "main", False, behind("10.9.1.0/24"), ("E-TS",), ("10.9.1.0/24", "10.1.")),
)


def test_what_differs_is_named(batch: Batch, row: TellRow) -> None:
    if not isinstance(batch.ours, Vpnd):
        pytest.skip("only vpnd explains itself")
    vpnd, pairs = batch.ours, [pair_of(number, mismatch) for number, mismatch in enumerate(MISMATCHES)]
    faults = []
    try:
        batch.begin(pairs)
        names = [ours.name for ours, _, _ in pairs]
        with suppress(TimeoutError):
            wait_until(lambda: all(errors(vpnd, names)), "every failure", WHOLE_ATTEMPT, 0.5)
        for mismatch, (ours, _, _) in zip(MISMATCHES, pairs, strict=True):
            why = vpnd.get(f"/v1/tunnels/{ours.name}/why")
            fault = fault_of(mismatch, ours, why)
            code = why["error"]["code"] if why["error"] else "none"
            words = {"what": mismatch.what, "mode": mismatch.mode, "role": mismatch.role, "code": code}
            row("IKEv1 with strongSwan, what differs", **words, fault=fault)
            if fault:
                faults.append(f"{mismatch.what}, {mismatch.mode}, {mismatch.role}: {fault}")
        assert not faults
        assert not any(vpnd.agreements().values())
    finally:
        batch.end(refused=True)


def pair_of(number: int, mismatch: Mismatch) -> tuple[Plan, Plan, bool]:
    """Both ends' plans for this place of the batch, and whether we begin."""
    right = place(Plan(version="ikev1", mode=mismatch.mode), number, mismatch.role).plan
    return mismatch.change(right), right.other(), mismatch.we_begin


def errors(vpnd: Vpnd, names: Sequence[str]) -> list[Any]:
    """The last error of each tunnel, None for one that has none."""
    found = {tunnel["name"]: tunnel["last_error"] for tunnel in vpnd.get("/v1/status")["tunnels"]}
    return [found[name] for name in names]


def fault_of(mismatch: Mismatch, ours: Plan, why: dict[str, Any]) -> str:
    """What is missing in the explanation, or nothing."""
    if why["error"] is None:
        return "no failure"
    text = json.dumps(why)
    words = [word.format(peer=ours.remote.address) for word in mismatch.words]
    missing = [word for word in words if word not in text]
    if why["error"]["code"] not in mismatch.codes or missing:
        return f"does not name {missing}: {why['error']}"
    return "" if why["explanation"]["change"] or why["explanation"]["try"] else "does not say what to change"
