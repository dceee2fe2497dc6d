"""PFS that only one end wants, with strongSwan: each direction, version, mode and role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.interop.batch import Batch, place
from tests.lab.echo import Echo, echo
from tests.lab.plan import Plan
from tests.lab.process import wait_until
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

GROUP = 14
"""The IKE SA's own."""
WITHIN = 30.0
"""Seconds until each tunnel has come as far as it comes."""


@dataclass(frozen=True)
class Case:
    """Which end wants PFS, in which version and mode, and who begins."""

    version: str
    mode: str
    role: str
    wanted_here: bool

    def plans(self, number: int) -> tuple[Plan, Plan, bool]:
        """Both ends' plans for this place of the batch, and whether we begin."""
        ours = place(Plan(version=self.version, mode=self.mode), number, self.role).plan
        here, there = (GROUP, 0) if self.wanted_here else (0, GROUP)
        return ours.change(pfs=here), ours.other().change(pfs=there), self.role == "initiator"


CASES = [
    Case(version, mode, role, wanted_here)
    for version, mode in (("ikev2", "main"), ("ikev1", "main"), ("ikev1", "aggressive"))
    for role in ("initiator", "responder")
    for wanted_here in (False, True)
]


def test_pfs_that_one_end_wants(batch: Batch, row: TellRow) -> None:
    if not isinstance(batch.ours, Vpnd):
        pytest.skip("only vpnd explains itself")
    vpnd, pairs = batch.ours, [case.plans(number) for number, case in enumerate(CASES)]
    faults = []
    try:
        batch.begin(pairs)
        for case, (ours, _, _) in zip(CASES, pairs, strict=True):
            try:
                wait_until(lambda name=ours.name: code_of(vpnd, name) is not None, "a word", WITHIN)
                found = ""
                if case.wanted_here:
                    refused(vpnd, ours, case)
                else:
                    granted(vpnd, ours)
            except (AssertionError, TimeoutError) as fault:
                found = f"{fault} {vpnd.tunnel(ours.name)['mappings']}"
            words = {"version": case.version, "mode": case.mode, "role": case.role}
            wants = "vpnd" if case.wanted_here else "strongSwan"
            row("PFS at one end, with strongSwan", **words, wants=wants, code=code_of(vpnd, ours.name))
            if found:
                faults.append(f"{case}: {found}")
        asked = {Echo(o.local.inside, o.remote.inside, 56): o for o, _, _ in pairs if is_up(vpnd, o)}
        assert set(echo(batch._here, asked)) == set(asked), "what is up carries packets"
        assert not faults
    finally:
        batch.end()


def code_of(vpnd: Vpnd, name: str) -> str | None:
    """What status says of the mapping, or of the tunnel."""
    tunnel = vpnd.tunnel(name)
    said: dict[str, Any] | None = tunnel["mappings"][0]["reason"] or tunnel["last_error"]
    return said["code"] if said else None


def is_up(vpnd: Vpnd, plan: Plan) -> bool:
    return bool(vpnd.tunnel(plan.name)["mappings"][0]["spi_in"])


def granted(vpnd: Vpnd, plan: Plan) -> None:
    """PFS is off here: what strongSwan wants, it gets, and a rekey from here as well."""
    assert code_of(vpnd, plan.name) == "W-PFS", code_of(vpnd, plan.name)
    assert vpnd.tunnel(plan.name)["mappings"][0]["pfs"] == GROUP
    done = vpnd.ctl("rekey", plan.name, "--child", check=False)
    assert done.returncode == 0, done.stderr
    mapping = vpnd.tunnel(plan.name)["mappings"][0]
    assert (mapping["pfs"], mapping["reason"]["code"]) == (GROUP, "W-PFS")


def refused(vpnd: Vpnd, plan: Plan, case: Case) -> None:
    """PFS is asked for here and off there: named, with both values where the protocol tells them."""
    code = code_of(vpnd, plan.name)
    names = ("E-P2-PROPOSAL", "E-PFS") if case.version == "ikev1" and case.role == "initiator" else ("E-PFS",)
    assert code in names, code
    why = vpnd.get(f"/v1/tunnels/{plan.name}/why")
    if code == "E-PFS":
        assert "14" in why["error"]["message"], why
        assert "off" in why["error"]["message"], why
    if case.version == "ikev2":
        assert is_up(vpnd, plan), "the first SAs go on"
