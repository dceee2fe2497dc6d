"""F20 to F25, and attacks with a peer's forged address, while a real pair carries 100 pings a second.

What is measured is compared with the same minute without the attack: the peer renews its SAs and begins again
in both. The counts that decide are asserted without a clock in `tests/simulation/test_forged_floods.py`,
`test_large_messages.py` and `tests/unit/daemon/test_intake.py`.
"""

from __future__ import annotations

import json
import math
import re
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import pytest

from tests.lab.capture import Capture
from tests.lab.lab import Lab, Namespace
from tests.lab.plan import A, B, Plan
from tests.lab.process import Child, wait_until
from tests.lab.topology import Wire, two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import PROGRAMS, Vpnd
from tests.tables import TellRow

pytestmark = [pytest.mark.root, pytest.mark.slow]

FULL, SHORT = 60, 6
"""Seconds of an attack."""
PINGS = 100
"""A second."""
IN_TIME = 3.0
"""Seconds that a rekey, and a reset, of the peer may take."""
RECOVERED = 1.0
"""Seconds after the end of a flood from which on nothing is lost any more."""
AFTERWARDS = 60.0
"""Seconds after the attack in which the memory is back."""
LINE_EVERY = 60.0
"""Seconds between two lines of one tunnel, kind and code."""
ROUNDED = 0.1
"""Seconds by which the wall clock of the log may differ from the clock that the lines are held back by."""
ENOUGH = 0.9
"""Of the datagrams that an attack shall have: with fewer the row would show less than it says."""


@dataclass(frozen=True)
class Targets:
    """What a row keeps to, beside what every row does. None: nothing is promised."""

    late: float | None = 0.02
    """Seconds: 99 % of the loop's delays are at most this."""
    lost: float | None = 1.0
    """Percent of the pings, more than without the attack."""
    cpu: float | None = None
    """Of a processor."""
    enough: float = ENOUGH


@dataclass(frozen=True)
class Attack:
    """What is sent, how often a second, and how the pair under attack speaks."""

    id: str
    kind: str
    rate: int
    version: str = "ikev2"
    mode: str = "main"
    targets: Targets = Targets()

    @property
    def plan(self) -> Plan:
        return Plan(version=self.version, mode=self.mode)

    def __str__(self) -> str:
        return f"{self.id}-{self.kind}"


ATTACKS = (
    Attack("A1", "zero-ke", 1500),
    Attack("A1", "valid-ke", 1500),
    Attack("A1", "aggressive1", 1500, "ikev1", "aggressive"),
    Attack("A2", "large-sa", 10),
    Attack("A2", "most-sa", 10),
    Attack("A2", "large-main1", 10, "ikev1"),
    Attack("A2", "most-main1", 10, "ikev1"),
    Attack("A5", "main1", 20, "ikev1"),
    Attack("A6", "values", 100),
    Attack("F20", "valid-ke", 1000),
    Attack("F20", "main1", 1000, "ikev1"),
    Attack("F21", "garbage", 10_000),
    # As much as a processor can read: what the kernel drops then is anyone's.
    Attack("F22", "garbage", 100_000, targets=Targets(late=None, lost=None, enough=0.3)),
    Attack("F23", "replay", 5_000),
    Attack("F24", "wrong-spi", 10_000),
    Attack("F25", "bad-icv", 1_000),
)
NO_COOKIE = ("aggressive1",)
"""Where nothing proves an address before the key exchange: who forges it can keep a new phase 1 from coming
about, as SECURITY.md says. What is there is not touched, and its IPsec SAs are renewed."""
IN_SHORT = ("A1-zero-ke", "A5-main1")

FIRST = ("chrt", "--rr", "1")
"""Before a command: what is measured has the processor before all else that this machine does, and before the
flooder, which has its own processors in the field. nice(1) would not do: a kernel may schedule whole sessions
(sched(7), autogroup)."""


@dataclass(frozen=True)
class Stream:
    """Pings of one stretch of time."""

    sent: int
    received: int

    @property
    def lost(self) -> float:
        """Percent."""
        return 100 - 100 * self.received / self.sent


@dataclass
class Minute:
    """What one stretch of time has shown."""

    ping: Stream
    rekey: float | None
    reset: float | None
    late: float
    slowest: float


class Range:
    """Two gateways with a tunnel, and a third machine that forges the address of `b`."""

    def __init__(self, lab: Lab, plan: Plan) -> None:
        self.plan = plan
        self.wire: Wire = two_gateways(lab)
        a = self.wire.a.gateway
        self.attacker: Namespace = lab.namespace("m")
        lab.link(a, self.attacker, "eth1", "eth0")
        a.add_address("198.51.100.1/24", "eth1")
        self.attacker.add_address("198.51.100.2/24", "eth0")
        self.attacker.add_address(f"{B.address}/32")
        self.attacker.ip("route", "add", f"{A.address}/32", "via", "198.51.100.1", "src", B.address)
        for device in ("all", "eth0", "eth1"):
            a.sysctl(f"net.ipv4.conf.{device}.rp_filter", "0")
        # A container may not be allowed to.
        self.first = FIRST if a.run(*FIRST, "true", check=False).returncode == 0 else ()
        daemon = (*self.first, str(PROGRAMS / "vpnd"), "run")
        self.ours = Vpnd(a, A.address, daemon)
        self.peer = Vpnd(self.wire.b.gateway, B.address, daemon)
        self.ours.add(plan)
        self.peer.add(plan.other().change(negotiation="active"))
        self.peer.wait_state(plan.name, "up")
        require_ping(self.wire.b.host, B.inside, A.inside)

    def known(self, kind: str) -> tuple[str, ...]:
        """What the attacker has seen of the wire."""
        if kind == "bad-icv":
            (agreed,) = self.ours.agreed(self.plan.name)
            return (agreed.spi_in.to_bytes(4, "big").hex(),)
        if kind != "replay":
            return ()
        from scapy.layers.inet import UDP
        from scapy.utils import rdpcap

        capture = Capture(self.wire.a.gateway, "eth0", f"src host {B.address} and udp port 4500")
        with capture as seen:
            require_ping(self.wire.b.host, B.inside, A.inside, count=100)
        packets = [bytes(frame[UDP].payload) for frame in rdpcap(str(seen)) if UDP in frame]
        esp = [packet for packet in packets if len(packet) > 64 and packet[:4] != bytes(4)]
        return (b"".join(len(packet).to_bytes(2, "big") + packet for packet in esp).hex(),)

    def attack(self, attack: Attack, seconds: int) -> Child:
        arguments = (attack.kind, B.address, A.address, str(attack.rate), str(seconds), "20221104")
        command = (sys.executable, "-m", "tests.lab.flood", *arguments, *self.known(attack.kind))
        return self.attacker.spawn(*command, log=f"flood-{attack}")

    def minute(self, seconds: int, with_reset: bool) -> Minute:
        """Pings all the time; after a third of it the peer rekeys, after two thirds it resets.

        Without the reset only the SAs of ESP are renewed: in IKEv1 an IKE SA is renewed by a new phase 1.
        """
        before = self.lag()
        pings: list[Stream] = []
        stream = threading.Thread(target=lambda: pings.append(self.stream(seconds)))
        stream.start()
        time.sleep(seconds / 3)
        rekey = self._timed("rekey", {} if with_reset else {"child": True})
        time.sleep(seconds / 3)
        reset = self._timed("reset") if with_reset else None
        stream.join()
        late, slowest = lateness(before, self.lag())
        return Minute(pings[0], rekey, reset, late, slowest)

    def stream(self, seconds: int) -> Stream:
        """Pings from behind the peer, for so long whatever is lost."""
        arguments = (B.inside, A.inside, str(PINGS), str(seconds))
        done = self.wire.b.host.run(
            *self.first, sys.executable, "-m", "tests.lab.pings", *arguments, timeout=60 + 2 * seconds
        )  # fmt: skip
        sent, received = map(int, done.stdout.split())
        return Stream(sent, received)

    def _timed(self, action: str, body: dict[str, object] | None = None) -> float | None:
        """Seconds that an action of the peer took; None if it failed."""
        began = time.monotonic()
        status, _ = self.peer.ask("POST", f"/v1/tunnels/{self.plan.name}/{action}", body or {})
        return time.monotonic() - began if status == 200 else None

    def lag(self) -> dict[float, int]:
        """How many delays of the loop were at most so many seconds."""
        status, content = self.ours.ask("GET", "/metrics")
        assert status == 200
        found = re.findall(r'vpnd_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', content.decode())
        return {math.inf if bound == "+Inf" else float(bound): int(float(count)) for bound, count in found}


def lateness(before: dict[float, int], after: dict[float, int]) -> tuple[float, float]:
    """The bound that 99 % of the delays in between kept to, and the one that all did."""
    counts = {bound: count - before[bound] for bound, count in after.items()}
    total = counts[math.inf]
    within = [bound for bound, count in counts.items() if count >= 0.99 * total]
    return min(within), min(bound for bound, count in counts.items() if count == total)


def said(log: str) -> dict[tuple[str, str, str], list[datetime]]:
    """When there were warnings, by tunnel, kind and code."""
    times: dict[tuple[str, str, str], list[datetime]] = {}
    for line in log.splitlines():
        entry = json.loads(line)
        if entry.get("level") == "warning":
            key = entry.get("tunnel", ""), entry.get("kind", ""), entry.get("code", "")
            times.setdefault(key, []).append(datetime.fromisoformat(entry["at"]))
    return times


def too_close(lines: dict[tuple[str, str, str], list[datetime]]) -> dict[tuple[str, str, str], float]:
    """The shortest time between two lines alike, in seconds, where it is less than a minute."""
    gaps = {
        key: min((after - before).total_seconds() for before, after in pairwise(times))
        for key, times in lines.items()
        if len(times) > 1
    }
    return {key: gap for key, gap in gaps.items() if gap < LINE_EVERY - ROUNDED}


def show(seconds: float | None) -> str:
    return "failed" if seconds is None else f"{seconds:.1f} s"


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(a, marks=[] if str(a) in IN_SHORT else pytest.mark.full_faults, id=str(a))
        for a in ATTACKS
    ],
)
def test_the_pair_lives_through(attack: Attack, lab: Lab, full: bool, row: TellRow) -> None:
    seconds = FULL if full else SHORT
    targets, where = attack.targets, Range(lab, attack.plan)
    with_reset = attack.kind not in NO_COOKIE
    cpu, began = where.ours.cpu_seconds(), time.monotonic()
    calm = where.minute(seconds, with_reset)
    cpu_calm = (where.ours.cpu_seconds() - cpu) / (time.monotonic() - began)
    memory, logged = where.ours.resident_bytes(), where.ours.log()
    cpu, began = where.ours.cpu_seconds(), time.monotonic()
    flood = where.attack(attack, seconds)
    under = where.minute(seconds, with_reset)
    wait_until(lambda: flood.exit_code is not None, "the flood to end")
    assert flood.exit_code == 0, flood.output()
    cpu = (where.ours.cpu_seconds() - cpu) / (time.monotonic() - began)
    peak = where.ours.resident_bytes()
    time.sleep(RECOVERED)
    after = where.stream(SHORT)
    extra_loss = under.ping.lost - calm.ping.lost
    if full:
        ends = time.monotonic() + AFTERWARDS
        while where.ours.resident_bytes() > 1.1 * memory and time.monotonic() < ends:
            time.sleep(1)
    back = where.ours.resident_bytes() / memory - 1
    lines = said(where.ours.log().removeprefix(logged))
    most_lines = max(map(len, lines.values()), default=0)
    sent = int(flood.output().split()[-1])
    row(
        "attacks with a peer's address",
        id=attack.id,
        attack=f"{attack.kind}, {sent} in {seconds} s",
        pair=f"{attack.version} {attack.mode if attack.version == 'ikev1' else ''}".strip(),
        rekey=show(under.rekey),
        reset=show(under.reset) if with_reset else "not promised",
        loss=f"{under.ping.lost:.2f} % of {under.ping.sent} (calm {calm.ping.lost:.2f} %)",
        lag_p99=f"<= {1000 * under.late:.0f} ms (calm {1000 * calm.late:.0f})",
        afterwards=f"{after.lost:.2f} % lost",
        cpu=f"{100 * cpu:.0f} % (calm {100 * cpu_calm:.0f})",
        memory=f"+{(peak - memory) / (1 << 20):.1f} MB, then {100 * back:+.0f} %",
        lines=most_lines,
    )
    # What decides, however busy this machine is.
    for gateway in (where.ours, where.peer):
        assert "E-DPD" not in gateway.log()
        assert "internal error" not in gateway.log()
    assert not too_close(lines)
    assert under.rekey is not None
    assert not with_reset or under.reset is not None
    require_ping(where.wire.b.host, B.inside, A.inside)
    if not full:
        return
    assert sent >= targets.enough * attack.rate * seconds
    assert under.rekey <= IN_TIME
    assert under.reset is None or under.reset <= IN_TIME
    assert targets.lost is None or extra_loss <= targets.lost
    assert targets.late is None or under.late <= targets.late
    assert targets.cpu is None or cpu - cpu_calm <= targets.cpu
    assert after.lost <= max(calm.ping.lost, 0.2)
    assert back <= 0.1
