"""SM4 and SM3 between two vpnd, in both versions: no other implementation agrees on their numbers.

SM4-CBC is OpenSSL's and HMAC-SM3 is checked against published vectors in `tests/unit/crypto`; here the two
ends must agree in every combination, with the numbers of GM/T 0022 and with an operator's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from tests.interop.pairwise import pairwise
from tests.lab.lab import Lab
from tests.lab.plan import A, B, Plan, Suite
from tests.lab.topology import Wire, agreement, two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow]

WAYS = (("ikev1", "main"), ("ikev1", "aggressive"), ("ikev2", "main"))
SUITES = (Suite("sm4", "sm3"), Suite("sm4", "sha256"), Suite("aes-128", "sm3"))
OWN = (
    ("sm4_ikev1_phase1", 65001),
    ("sm4_ikev1_esp", 249),
    ("sm4_ikev2", 1040),
    ("sm3_ikev1_hash", 65002),
    ("sm3_ikev1_esp", 65003),
    ("sm3_ikev2_integ", 1041),
    ("sm3_ikev2_prf", 1042),
    ("sm3_icv_length", 32),
)
CIPHERS = {f"{suite.encryption}-{suite.integrity}": suite for suite in SUITES}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each pair of values meets; with `--full-grid` every combination."""
    if "numbers" not in metafunc.fixturenames:
        return
    axes = (tuple(map("-".join, WAYS)), tuple(CIPHERS), tuple(CIPHERS))
    rows = list(product(*axes)) if metafunc.config.getoption("--full-grid") else pairwise(*axes)
    usual = [(*row, ()) for row in rows]
    own = [(way, "sm4-sm3", "sm4-sm3", OWN) for way in axes[0]]
    cases = [*usual, *own]
    names = ["-".join(row) for row in rows] + [f"{way}-{ike}-{esp}-own" for way, ike, esp, _ in own]
    metafunc.parametrize(("way", "ike", "esp", "numbers"), cases, ids=names)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Wire, Vpnd, Vpnd]]:
    """Two vpnd, running, without a tunnel."""
    with Lab() as lab:
        wire = two_gateways(lab)
        yield wire, Vpnd(wire.a.gateway, A.address), Vpnd(wire.b.gateway, B.address)


def test_both_ends_agree_and_traffic_arrives(
    both: tuple[Wire, Vpnd, Vpnd],
    way: str,
    ike: str,
    esp: str,
    numbers: tuple[tuple[str, int], ...],
    row: TellRow,
) -> None:
    version, mode = way.split("-")
    ike_suite, esp_suite = CIPHERS[ike], CIPHERS[esp]
    wire, a, b = both
    row("SM4 and SM3, vpnd to vpnd", way=way, ike=ike, esp=esp, numbers="own" if numbers else "as shipped")
    plan = Plan(version=version, mode=mode, ike=ike_suite, esp=esp_suite, sm_numbers=numbers)
    plan = plan.change(negotiation="active")
    try:
        b.add(plan.other().change(negotiation="passive"))
        a.add(plan)
        done = a.up(plan.name)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{b.log()[-3000:]}"
        (ours,) = agreement(a, b, plan.name)
        assert (ours.version, ours.ike) == (version, ike_suite)
        assert (ours.esp_encryption, ours.esp_integrity) == (esp_suite.encryption, esp_suite.integrity)
        require_ping(wire.a.host, A.inside, B.inside)
        require_ping(wire.b.host, B.inside, A.inside, size=4000)
    finally:
        a.remove(plan.name)
        b.remove(plan.name)


def test_other_numbers_are_refused_with_both_values(both: tuple[Wire, Vpnd, Vpnd]) -> None:
    _, a, b = both
    plan = Plan(version="ikev1", ike=SUITES[0], esp=SUITES[0], negotiation="active")
    try:
        b.add(plan.other().change(negotiation="passive"))
        a.add(plan.change(sm_numbers=OWN))
        assert a.up(plan.name, timeout=6).returncode != 0
        assert b.tunnel(plan.name)["last_error"]["code"] == "E-P1-ENC"
    finally:
        a.remove(plan.name)
        b.remove(plan.name)
