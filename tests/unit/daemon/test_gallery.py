"""A gallery of what can differ between two ends, in both versions: the code at each end, with both values."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from tests.tables import TellRow
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_stories import BACK, ROUTED

TABLE = "gallery of diagnoses"
MAPPED = 'communication = "spd-policy"\nspd = [{{ local = ["{}"], remote = ["{}"] }}]'


@dataclass(frozen=True)
class Case:
    """What differs, the tables of both ends, the code that each has, and the values that both may know.

    `asks`: the initiator only knows after it has asked the peer. A responder of None reports nothing.
    """

    what: str
    here: str
    there: str
    initiator: str
    responder: str | None
    values: tuple[str, ...] = ()
    versions: tuple[str, ...] = ("ikev2", "ikev1")
    ways: tuple[str, str] = (ROUTED, BACK)


def ranges(local: str, remote: str) -> str:
    return MAPPED.format(local, remote)


A, B = "10.1.0.0/24", "10.2.0.0/24"
ALL = 'diagnose = "all"\n'
CASES = (
    Case(
        "encryption",
        f'{ALL}ike.encryption = "aes-256"',
        'ike.encryption = "aes-128"',
        "E-P1-ENC",
        "E-P1-ENC",
        ("aes-256", "aes-128"),
    ),
    Case(
        "hash",
        f'{ALL}ike.integrity = "sha512"',
        'ike.integrity = "sha256"',
        "E-P1-INTEG",
        "E-P1-INTEG",
        ("sha512", "sha256"),
    ),
    Case("DH group", f"{ALL}ike.dh_group = 5", "ike.dh_group = 14", "E-P1-DH", "E-P1-DH", ("5", "14")),
    # The peer is not asked for what is not configured.
    Case("DH group", "ike.dh_group = 5", "ike.dh_group = 14", "E-P1-PROPOSAL", "E-P1-DH", ("dh5",)),
    Case("key", "", "KEY", "E-PSK", "E-PSK"),
    Case(
        "the peer's identity",
        'ike.remote_id = "b.example"',
        'ike.local_id = "c.example"',
        "E-ID",
        None,
        ("b.example", "c.example"),
    ),
    Case(
        "our identity",
        'ike.local_id = "a.example"',
        'ike.remote_id = "d.example"',
        "E-PSK",
        "E-ID",
        ("a.example",),
        ("ikev2",),
    ),
    Case(
        "our identity",
        'ike.local_id = "a.example"',
        'ike.remote_id = "d.example"',
        "E-ID",
        "E-ID",
        ("a.example",),
        ("ikev1",),
    ),
    Case("version", 'ike.version = "ikev1"', 'ike.version = "ikev2"', "E-V1V2", "E-V1V2", (), ("",)),
    Case("version", 'ike.version = "ikev2"', 'ike.version = "ikev1"', "E-V1V2", "E-V1V2", (), ("",)),
    Case("mode", 'ike.negotiation_mode = "aggressive"', "", "E-SILENT", "E-MODE", (), ("ikev1",)),
    Case("mode", "", 'ike.negotiation_mode = "aggressive"', "E-SILENT", "E-MODE", (), ("ikev1",)),
    Case(
        "ESP encryption",
        'ipsec.encryption = "aes-256"',
        'ipsec.encryption = "aes-128"',
        "E-P2-PROPOSAL",
        "E-P2-ENC",
        ("aes-256",),
    ),
    Case(
        "ESP hash",
        'ipsec.integrity = "sha512"',
        'ipsec.integrity = "sha256"',
        "E-P2-PROPOSAL",
        "E-P2-INTEG",
        ("sha512",),
    ),
    Case("ranges", "", "", "E-TS", "E-TS", ("10.9.0.0/24",), ways=(ranges("10.9.0.0/24", B), ranges(B, A))),
)


def cases() -> list[object]:
    return [
        pytest.param(case, version, id=f"{case.what.replace(' ', '-')}-{version or case.here[-6:-1]}")
        for case in CASES
        for version in case.versions
    ]


@pytest.mark.parametrize(("case", "version"), cases())
@with_pair
async def test_each_end_names_what_differs(pair: Pair, case: Case, version: str, row: TellRow) -> None:
    ike = f'\nike.version = "{version}"\n' if version else "\n"
    here, there = case.ways
    passive = "" if "passive" in there else 'negotiation = "passive"\n'
    mine = "" if case.there == "KEY" else case.there
    pair.configure({"t": f"{here}{ike}{case.here}"}, {"t": f"{passive}{there}{ike}{mine}"})
    if case.there == "KEY":
        text = pair.branch.config.read_text()
        key = next(line for line in text.splitlines() if line.startswith("pre_shared_key"))
        pair.branch.write(text.replace(key, 'pre_shared_key = "plain:another key that is long enough"'))
    await pair.start()

    def codes() -> tuple[str | None, str | None]:
        said = (machine.operator.why("t") for machine in (pair.hq, pair.branch))
        first, second = (why.error.code if why.error is not None else None for why in said)
        return first, second

    def named() -> bool:
        initiator, responder = codes()
        return initiator == case.initiator and case.responder in (None, responder)

    for _ in range(300):
        if named():
            break
        await asyncio.sleep(1)
    else:
        raise AssertionError(codes())
    why = pair.hq.operator.why("t")
    text = why.model_dump_json()
    assert [value for value in case.values if value not in text] == []
    assert why.explanation is not None
    assert why.explanation.change
    initiator, responder = codes()
    row(
        TABLE,
        differs=case.what,
        version=version or "both",
        initiator=initiator,
        responder=responder,
        change=why.explanation.change,
    )
