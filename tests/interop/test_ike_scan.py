"""What a scanner sees: ike-scan finds the responder where a peer is configured, and nothing anywhere else."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import A, B, End, Plan, Suite
from tests.lab.topology import Wire, two_gateways
from tests.lab.vpnd import Vpnd

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ike-scan") is None, reason="ike-scan is not installed"),
]

PEER = End(B.label, B.address, "scan.example", B.inside, B.networks)
PLAN = Plan(remote=PEER, ike=Suite("aes-128", "sha1", 14))
PHASE1 = ("--trans=7/128,2,1,14",)
"""AES-128, SHA-1, a pre-shared key, group 14, by ike-scan's numbers."""
AGGRESSIVE = (*PHASE1, "--aggressive", "--dhgroup=14", "--idtype=2", "--id=scan.example")
ONCE = ("--retry=1", "--timeout=400", "--sport=500")
PATIENT = ("--timeout=20000",)
"""For what must be answered, also by a busy machine; an answer ends it at once."""
DAMAGED = {
    "length of 0": ("--headerlen=0",),
    "length of 4 GiB": ("--headerlen=4294967295",),
    "a byte too long": ("--headerlen=+1",),
    "a byte too short": ("--headerlen=-1",),
    "major version 3": ("--headerver=48",),
    "exchange of no mode": ("--exchange=200",),
    "flags": ("--hdrflags=255",),
    "message ID": ("--hdrmsgid=1",),
    "next payload": ("--nextpayload=255",),
    "situation": ("--situation=99",),
    "DOI": ("--doi=99",),
    "protocol": ("--protocol=99",),
    "SPI size": ("--spisize=64",),
    "an empty cookie": ("--cookie=0000000000000000",),
}


def answers(wire: Wire, *options: str) -> tuple[int, str]:
    """How many hosts answered with a handshake or a notify, and what ike-scan printed."""
    done = wire.b.gateway.run("ike-scan", *ONCE, *options, A.address)
    counts = re.search(r"(\d+) returned handshake; (\d+) returned notify", done.stdout)
    assert counts is not None, done.stdout + done.stderr
    return int(counts[1]) + int(counts[2]), done.stdout


@pytest.fixture(params=["main", "aggressive", "ikev2"])
def responder(request: pytest.FixtureRequest, lab: Lab) -> tuple[str, Wire, Vpnd]:
    """vpnd with one passive tunnel, whose peer is where the scanner runs."""
    kind: str = request.param
    wire = two_gateways(lab)
    ours = Vpnd(wire.a.gateway, A.address)
    version = {"version": "ikev2"} if kind == "ikev2" else {"version": "ikev1", "mode": kind}
    ours.add(PLAN.change(**version))
    return kind, wire, ours


def test_scanner_finds_the_responder(responder: tuple[str, Wire, Vpnd]) -> None:
    kind, wire, _ = responder
    options = {"main": PHASE1, "aggressive": AGGRESSIVE, "ikev2": ("--ikev2", "--dhgroup=14")}[kind]
    found, said = answers(wire, *options, *PATIENT)
    assert found == 1, said


def test_damaged_headers_get_one_answer_at_most_and_leave_no_state(
    responder: tuple[str, Wire, Vpnd],
) -> None:
    kind, wire, ours = responder
    for damage, options in DAMAGED.items():
        found, said = answers(wire, *PHASE1, *options, *(("--ikev2",) if kind == "ikev2" else ()))
        assert found <= 1, f"{damage}: {said}"
    (status,) = ours.status()["tunnels"]
    assert status["state"] == "waiting"
    assert status["ike"] is None


def test_stranger_hears_nothing(lab: Lab) -> None:
    wire = two_gateways(lab)
    ours = Vpnd(wire.a.gateway, A.address)
    elsewhere = End(B.label, "192.0.2.77", "scan.example", B.inside, B.networks)
    ours.add(PLAN.change(remote=elsewhere, version="ikev1", mode="main"))
    for options in (PHASE1, AGGRESSIVE, ("--ikev2", "--dhgroup=14")):
        found, said = answers(wire, *options)
        assert found == 0, said
