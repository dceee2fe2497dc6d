"""Many tunnels at once between the gateway under test and strongSwan: as fast as both can, a result for each.

strongSwan has an outer address for each tunnel, so that every tunnel has a peer of its own: setups with one
peer address go one after the other. The networks inside are each tunnel's own as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tests.lab.echo import Echo, echo
from tests.lab.lab import Lab, write
from tests.lab.plan import A, Agreed, End, Plan
from tests.lab.process import wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.traffic import TrafficLost, Transfer, transfer
from tests.lab.vpnd import Vpnd

SIZE = 120
"""Tunnels at most: as many have addresses."""
UP_TIMEOUT = 120.0
"""Seconds until every tunnel is up, on a busy machine; that each was up at once is seen by its attempts."""
LOOK_INTERVAL = 0.2
FAILURES = frozenset({"attempt-failed", "rekey-failed", "tunnel-lost"})
"""Events of a tunnel that came up all the same: what failed first is the fault of its row."""
ROLES = ("initiator", "responder")
"""Of our end."""
BYTES = (56, 4000)
"""Data of the echoes: one packet, and one in fragments."""

# All of our attempts have one source, which charon would take for a flood.
SETTINGS = "dos_protection = no"


@dataclass
class Tunnel:
    """One tunnel of a batch as our end sees it. `fault` is None once it is as configured and has carried
    every echo both ways.
    """

    plan: Plan
    we_begin: bool
    fault: str | None = "not up"
    seconds: float = 0.0
    round_trip_ms: float = 0.0
    outward: Transfer | None = None
    inward: Transfer | None = None


def negotiation(role: str) -> str:
    """The negotiation that gives our end this role: it begins by itself, or waits for the peer."""
    return "active" if role == "initiator" else "passive"


def place(plan: Plan, number: int, role: str, names: bool = False) -> Tunnel:
    """The plan with the name, addresses and networks of place `number` in a batch.

    With `names` the identities are names, else addresses.
    """
    local = replace(A, inside=f"10.1.{number}.1", networks=(f"10.1.{number}.0/24",))
    remote = _peer(number)
    if names:
        local = replace(local, identity="hq.vpn.example")
        remote = replace(remote, identity=f"branch{number}.vpn.example")
    placed = plan.change(
        name=f"t{number}",
        interface=f"vpn-t{number}",
        local=local,
        remote=remote,
        negotiation=negotiation(role),
    )
    return Tunnel(placed, we_begin=role == "initiator")


def faults(tunnels: dict[Any, Tunnel]) -> list[str]:
    """Each row that failed, and why."""
    return [f"{row}: {tunnel.fault}" for row, tunnel in tunnels.items() if tunnel.fault is not None]


def _peer(number: int) -> End:
    address = f"192.0.2.{100 + number}"
    return End("b", address, address, f"10.2.{number}.1", (f"10.2.{number}.0/24",))


class Batch:
    """Both gateways, running, and the addresses of every place."""

    def __init__(self, lab: Lab, kind: str) -> None:
        self._here, self._there = lab.namespace("a"), lab.namespace("b")
        lab.link(self._here, self._there)
        commands_here = [f"address add {A.address}/24 dev eth0"]
        commands_there = []
        for number in range(SIZE):
            peer = _peer(number)
            commands_here.append(f"address add 10.1.{number}.1/32 dev lo")
            commands_there.append(f"address add {peer.address}/24 dev eth0")
            commands_there.append(f"address add {peer.inside}/32 dev lo")
        for namespace, commands in ((self._here, commands_here), (self._there, commands_there)):
            namespace.ip("-batch", str(write(lab.directory / "addresses", "\n".join(commands) + "\n")))
        self.ours = Vpnd(self._here, A.address) if kind == "vpnd" else StrongSwan(self._here, SETTINGS)
        self.peer = StrongSwan(self._there, SETTINGS)

    @property
    def proves_pfs(self) -> bool:
        """IKEv2 has no key exchange for its first CHILD_SA: vpnd replaces it at once, strongSwan does not."""
        return isinstance(self.ours, Vpnd)

    def run(self, tunnels: Sequence[Tunnel], size: int = 0) -> None:
        """Bring all of them up together, look at both ends, send echoes, and take them away again.

        With a `size`, that many bytes by TCP as well, both ways, one tunnel after the other.
        """
        began, since = time.monotonic(), datetime.now(UTC)
        try:
            self.begin([(tunnel.plan, tunnel.plan.other(), tunnel.we_begin) for tunnel in tunnels])
            missing = list(tunnels)
            while missing and time.monotonic() - began < UP_TIMEOUT:
                missing = self._look(missing, time.monotonic() - began)
                time.sleep(LOOK_INTERVAL)
            self._explain(missing)
            self._require_one_attempt(tunnels, since)
            self._send([tunnel for tunnel in tunnels if tunnel.fault is None])
            for tunnel in tunnels:
                if size and tunnel.fault is None:
                    self._transfer(tunnel, size)
        finally:
            self.end()

    def begin(self, pairs: Sequence[tuple[Plan, Plan, bool]]) -> None:
        """Let both ends know their plans and begin, all together; the last of each says whether we begin.

        The side that answers knows a tunnel before the other begins.
        """
        self.peer.replace(*(theirs for _, theirs, _ in pairs))
        self.ours.replace(*(ours for ours, _, _ in pairs))
        if isinstance(self.ours, StrongSwan):
            self.ours.begin([ours.name for ours, _, we_begin in pairs if we_begin])
        self.peer.begin([theirs.name for _, theirs, we_begin in pairs if not we_begin])

    def _look(self, tunnels: Iterable[Tunnel], seconds: float) -> list[Tunnel]:
        """Those that are not up as configured at both ends."""
        ours, theirs = self.ours.agreements(), self.peer.agreements()
        left = []
        for tunnel in tunnels:
            name = tunnel.plan.name
            plan = tunnel.plan if self.proves_pfs else _without_pfs(tunnel.plan)
            tunnel.fault = _difference(plan, ours.get(name, []), theirs.get(name, []))
            tunnel.seconds = seconds
            if tunnel.fault is not None:
                left.append(tunnel)
        return left

    def _explain(self, missing: Iterable[Tunnel]) -> None:
        if isinstance(self.ours, Vpnd):
            for tunnel in missing:
                error = self.ours.tunnel(tunnel.plan.name)["last_error"]
                tunnel.fault = f"{tunnel.fault}; vpnd: {error and error['message']}"

    def _require_one_attempt(self, tunnels: Iterable[Tunnel], since: datetime) -> None:
        """What came up by a second attempt has a fault, which the first one shows.

        The first attempts begin, and may fail, before the reload that brings them is logged as done.
        """
        if not isinstance(self.ours, Vpnd):
            return
        told = [e for e in self.ours.events() if datetime.fromisoformat(e["at"]) >= since]
        failed = {e["tunnel"]: e["text"] for e in told if e["event"] in FAILURES}
        for tunnel in tunnels:
            if tunnel.fault is None and tunnel.plan.name in failed:
                tunnel.fault = f"up, but not at the first attempt: {failed[tunnel.plan.name]}"

    def _send(self, tunnels: Sequence[Tunnel]) -> None:
        """Echoes both ways, short and in fragments."""
        for source, outward in ((self._here, True), (self._there, False)):
            requests = {}
            for tunnel in tunnels:
                pair = (tunnel.plan.local.inside, tunnel.plan.remote.inside)
                for size in BYTES:
                    requests[Echo(*(pair if outward else pair[::-1]), size)] = tunnel
            answered = echo(source, requests)
            for request, tunnel in requests.items():
                if request not in answered:
                    tunnel.fault = f"no answer to {request}"
                elif outward and request.size == BYTES[0]:
                    tunnel.round_trip_ms = answered[request]

    def _transfer(self, tunnel: Tunnel, size: int) -> None:
        here, there = (self._here, tunnel.plan.local.inside), (self._there, tunnel.plan.remote.inside)
        try:
            tunnel.outward = transfer(*here, *there, size)
            tunnel.inward = transfer(*there, *here, size)
        except (TrafficLost, OSError) as error:
            tunnel.fault = f"transfer: {error}"

    def end(self, refused: bool = False) -> None:
        """Take everything away again. Raises TimeoutError if strongSwan is not told so of every IKE SA.

        Where tunnels are `refused`, it may have IKE SAs that we have never had.
        """
        self.ours.replace()
        if isinstance(self.ours, StrongSwan):
            self.ours.terminate_all()
        try:
            if not refused:
                wait_until(lambda: not self._established(), "a DELETE for every IKE SA", interval=0.1)
        finally:
            # And of what it has tried and we have refused.
            self.peer.terminate_all()

    def _established(self) -> list[str]:
        return [sa["name"] for sa in self.peer.sas() if sa["state"] == "ESTABLISHED"]


def _without_pfs(plan: Plan) -> Plan:
    return plan.change(pfs=0) if plan.version == "ikev2" else plan


def _difference(plan: Plan, ours: list[Agreed], theirs: list[Agreed]) -> str | None:
    """What is not as configured, or None. What was replaced on the way may still be there: it goes soon."""
    if not ours or not theirs:
        return f"{len(ours)} SA pairs at our end, {len(theirs)} at strongSwan's"
    wanted = (
        plan.version,
        plan.ike,
        (plan.esp.encryption, plan.esp_integrity, plan.pfs),
        (plan.local.networks[0], plan.remote.networks[0]),
    )
    for one in (*ours, *(other.mirrored() for other in theirs)):
        esp = (one.esp_encryption, one.esp_integrity, one.pfs)
        found = (one.version, one.ike, esp, (one.local, one.remote))
        if found != wanted:
            return f"{found} instead of {wanted}"
    if ours != [one.mirrored() for one in theirs]:
        return f"{ours} at our end, {theirs} at strongSwan's"
    return None
