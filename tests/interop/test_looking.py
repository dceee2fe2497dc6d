"""What an operator looks through: a capture that Wireshark reads, the recording after kill -9, the doctor."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from pathlib import Path
from struct import unpack_from

import pytest

from tests.lab.lab import Lab
from tests.lab.plan import PSK, A, B, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.topology import two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import PROGRAMS, Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow, pytest.mark.full_faults]

NAME = "t1"
TSHARK = "/usr/bin/tshark"
"""Debian's, which `make faults` installs: without it this fails, and is not left out."""
PINGS = 3


@pytest.fixture(params=["ikev2", "ikev1"])
def version(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


def test_a_tunnel_is_captured_recorded_and_examined(lab: Lab, version: str) -> None:
    wire = two_gateways(lab)
    plan = Plan(name=NAME, version=version, routed=True)
    ours = Vpnd(wire.a.gateway, A.address, plans=[plan])
    peer = StrongSwan(wire.b.gateway)
    peer.add(plan.other())
    file = _captured(ours, lab, version)
    _holds_all(file, version)
    _recorded(ours)
    told = wire.a.gateway.run(
        str(PROGRAMS / "vpnctl"), "--socket", str(ours.socket), "--json", "doctor", NAME, check=False
    )
    findings = json.loads(told.stdout)["tunnels"][0]["checks"]
    assert [one for one in findings if one["verdict"] == "bad"] == []
    said = {(one["check"], one["verdict"]) for one in findings}
    assert {
        ("route to the peer", "good"),
        ("UDP 500", "good"),
        ("UDP 4500", "good"),
        ("interface", "good"),
    } <= said


def _captured(ours: Vpnd, lab: Lab, version: str) -> Path:
    """Bring the tunnel up, send pings and rekey, while it is captured."""
    file = lab.directory / "capture.pcapng"
    command = [str(PROGRAMS / "vpnctl"), "--socket", str(ours.socket), "pcap", NAME, "-w", str(file)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as capturing:
        wait_until(lambda: any("capture of" in one["text"] for one in ours.events(NAME)), "the capture")
        ours.up(NAME)
        if version == "ikev2":
            ours.wait_proved(NAME)
        require_ping(ours.namespace, A.inside, B.inside, count=PINGS)
        assert ours.ctl("rekey", NAME, "--ike").returncode == 0
        # What was carried last comes to the file a moment later.
        wait_until(lambda: _packets(file, 0) == 2 * PINGS, "the pings in the file")
        capturing.send_signal(signal.SIGINT)
        assert capturing.wait() == 0
    wait_until(lambda: "capture-ended" in ours.told(NAME), "the end of the capture")
    return file


def _packets(file: Path, interface: int) -> int:
    """How many packets of this interface are in the file: blocks of type 6."""
    content, at, found = file.read_bytes(), 0, 0
    while at + 12 <= len(content):
        kind, length, number = unpack_from("<III", content, at)
        found += kind == 6 and number == interface
        at += length
    return found


def _holds_all(file: Path, version: str) -> None:
    fields = ("-e", "frame.interface_name", "-e", "_ws.col.Protocol", "-e", "isakmp.exchangetype")
    done = subprocess.run(
        [TSHARK, "-r", str(file), "-T", "fields", *fields], capture_output=True, text=True, check=True
    )
    frames = [line.split("\t") for line in done.stdout.splitlines()]
    assert sum(kind == f"{NAME} inner" and "ICMP" in protocol for kind, protocol, _ in frames) == 2 * PINGS
    assert sum(kind == f"{NAME} outer" and "ESP" in protocol for kind, protocol, _ in frames) >= 2 * PINGS
    exchanges = {exchange for kind, _, exchange in frames if kind == f"{NAME} ike"}
    assert ({"34", "35", "36"} if version == "ikev2" else {"2", "32"}) <= exchanges
    shown = subprocess.run([TSHARK, "-r", str(file), "-V"], capture_output=True, text=True, check=True)
    assert "Payload: Identification" in shown.stdout
    assert "Malformed" not in shown.stdout
    _holds_no_key(file)
    assert file.stat().st_mode & 0o777 == 0o600


def _holds_no_key(file: Path) -> None:
    """As it is, in hex, in base64 at each place of a byte, as Python writes it."""
    key, content = PSK.encode(), file.read_bytes()
    forms = [key, key.hex().encode(), repr(key).encode()[2:-1]]
    forms += [base64.b64encode(bytes(before) + key)[4:-4] for before in range(3)]
    assert not [form for form in forms if form in content]


def _recorded(ours: Vpnd) -> None:
    """What was said before kill -9 is there after it, and goes on."""
    lines = json.loads(ours.ctl("--json", "trace", NAME).stdout)["lines"]
    # Signs of life go to the disk with the next other message.
    before = [line["id"] for line in lines if "{}" not in line["text"] and "R_U_THERE" not in line["text"]]
    recording = ours.directory / "state/recordings" / f"{NAME}.jsonl"
    wait_until(
        lambda: recording.exists() and str(before[-1]) in recording.read_text(),
        "the last message on the disk",
    )
    _holds_no_key(recording)
    ours.kill()
    ours.start()
    ours.up(NAME)
    after = [line["id"] for line in json.loads(ours.ctl("--json", "trace", NAME).stdout)["lines"]]
    assert set(before) < set(after)
    assert after == sorted(after)
