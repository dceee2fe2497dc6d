"""F26: a configured peer floods with a wrong key; it costs little, and nobody else."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.simulation.policies import ADDRESS_A, ADDRESS_B, ADDRESS_C, Recipe
from tests.tables import TellRow
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import ChildUp, Failed, Output, PeerDead, Transmit
from vpnd.ike.throttle import BURST, FREE_FAILURES
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.model.selectors import Address
from vpnd.wire.iana import IkeVersion

SPOKEN = {
    "IKEv2": (IkeVersion.V2, None),
    "IKEv1 main": (IkeVersion.V1, NegotiationMode.MAIN),
    "IKEv1 aggressive": (IkeVersion.V1, NegotiationMode.AGGRESSIVE),
}
ADDRESS_D = ip_address("192.0.2.4")
SECONDS, RATE = 10, 100
PATIENT = Limits(half_open_per_address=SECONDS * RATE)
"""In IKEv1 the bound on half-open attempts is reached first; without it the throttle stands alone."""


class Hub:
    """The gateway under test at 192.0.2.2; whoever speaks with it is heard at once."""

    def __init__(self, spoken: str, limits: Limits) -> None:
        self.version, self.mode = SPOKEN[spoken]
        self.now = 1000.0
        self.endpoint = Endpoint(SeededEntropy(1), limits)
        self.told: list[Output] = []
        self.peers: dict[Address, Endpoint] = {}
        for number, address in enumerate((ADDRESS_A, ADDRESS_C, ADDRESS_D), start=10):
            self.endpoint.set_peer(self.now, self.policy(f"to-{address}", ADDRESS_B, address, 2, number))
        self.drain()

    def policy(self, name: str, local: Address, remote: Address, here: int, there: int) -> PeerPolicy:
        """One side's configuration."""
        policy = Recipe().policy(name, local, remote, here, there)
        return replace(policy, version=self.version, mode=self.mode)

    def peer(self, address: Address, seed: int, psk: bytes | None = None) -> Endpoint:
        """A machine at this address that begins; the one that was there before is gone."""
        number = {ADDRESS_A: 10, ADDRESS_C: 11, ADDRESS_D: 12}[address]
        policy = self.policy("hub", address, ADDRESS_B, number, 2)
        if psk is not None:
            policy = replace(policy, psk=type(policy.psk)(psk))
        peer = self.peers[address] = Endpoint(SeededEntropy(seed))
        peer.set_peer(self.now, policy)
        peer.initiate(self.now, "hub", 0)
        self.drain()
        return peer

    def drain(self) -> None:
        """Carries messages until nobody has more to say."""
        while self._carry(self.endpoint, self.told) or any(map(self._carry, self.peers.values())):
            pass

    def _carry(self, sender: Endpoint, told: list[Output] | None = None) -> bool:
        outputs: deque[Output] = sender.outputs
        said = bool(outputs)
        while outputs:
            output = outputs.popleft()
            if told is not None:
                told.append(output)
            if isinstance(output, Transmit):
                path = output.path
                receiver = self.endpoint if path.remote == ADDRESS_B else self.peers.get(path.remote)
                if receiver is not None:
                    back = Path(path.remote, path.remote_port, path.local, path.local_port)
                    receiver.handle_datagram(self.now, back, output.data)
        return said

    def pass_time(self, seconds: float) -> None:
        """Every timer of everybody fires that falls due meanwhile."""
        end = self.now + seconds
        everybody = [self.endpoint, *self.peers.values()]
        while True:
            due = [(at, n) for n, one in enumerate(everybody) if (at := one.next_timeout()) is not None]
            if not due or min(due)[0] > end:
                break
            at, n = min(due)
            self.now = max(self.now, at)
            everybody[n].handle_timeout(self.now)
            self.drain()
        self.now = end

    def of(self, kind: type[Output], tunnel: str) -> list[Output]:
        """What the gateway said of one tunnel."""
        return [o for o in self.told if isinstance(o, kind) and getattr(o, "tunnel", "") == tunnel]


def is_up(peer: Endpoint) -> bool:
    return bool(peer.ike_sas("hub"))


@pytest.mark.parametrize(
    ("spoken", "alone"),
    [("IKEv2", False), ("IKEv1 main", False), ("IKEv1 main", True), ("IKEv1 aggressive", False)],
)
def test_a_flood_with_a_wrong_key(spoken: str, alone: bool, row: TellRow) -> None:
    """In aggressive mode it is the initiator who first sees that the keys differ; it never proves its own."""
    hub = Hub(spoken, PATIENT if alone else Limits())
    steady = hub.peer(ADDRESS_C, seed=2)
    assert is_up(steady)
    before = [sa.spi_i for sa in steady.ike_sas("hub")]
    looked_at, newcomer_after = 0, 0.0
    for attempt in range(SECONDS * RATE):
        answers = len(hub.of(Transmit, "to-192.0.2.1"))
        hub.peer(ADDRESS_A, seed=1000 + attempt, psk=b"a wrong key")
        looked_at += len(hub.of(Transmit, "to-192.0.2.1")) > answers
        if attempt == SECONDS * RATE // 2:
            began = hub.now
            newcomer = hub.peer(ADDRESS_D, seed=3)
            assert is_up(newcomer)
            newcomer_after = hub.now - began
        hub.pass_time(1 / RATE)
    flood_ended = hub.now
    hub.peers.pop(ADDRESS_A)
    right = hub.peer(ADDRESS_A, seed=4)
    while not is_up(right) and hub.now < flood_ended + 120:
        hub.pass_time(1.0)
        if not right.next_timeout():
            right = hub.peer(ADDRESS_A, seed=5)
    took = hub.now - flood_ended
    dropped = {
        reason: count for reason, count in hub.endpoint.counters.items() if "too many" in reason and count
    }
    row(
        "faults",
        id="F26",
        fault=f"wrong key, {RATE} attempts a second for {SECONDS} s",
        moment=f"{spoken}{', any number half-open' if alone else ''}",
        target="1 each second looked at, others unaffected, the right key works at most 60 s after",
        figure=f"{looked_at} looked at; right key after {took:.0f} s; others at once",
    )
    assert newcomer_after == 0.0
    assert [sa.spi_i for sa in steady.ike_sas("hub")] == before
    assert not hub.of(PeerDead, "to-192.0.2.3")
    assert looked_at <= FREE_FAILURES + BURST + SECONDS + 1
    assert took <= 60.0
    assert sum(dropped.values()) >= SECONDS * RATE - looked_at - 1
    if spoken == "IKEv2" or alone:
        assert set(dropped) == {"too many attempts with a wrong key"}
        floods = [f for f in hub.of(Failed, "to-192.0.2.1") if f.diagnosis.code is Code.FLOOD]  # type: ignore[union-attr] # of one kind
        assert len(floods) == 1
    assert [o for o in hub.told if isinstance(o, ChildUp) and o.child.tunnel == "to-192.0.2.1"]
