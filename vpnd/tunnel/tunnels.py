"""All tunnels of a gateway: hands each input to its tunnel, and knows the earliest deadline of all.

A thousand tunnels cost one heap entry each; an input touches one tunnel only.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator

from vpnd.crypto.entropy import Entropy
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildReplaced,
    ChildRetired,
    ChildUp,
    Established,
    Failed,
    IkeDown,
    IkeRekeyFailed,
    IkeReplaced,
    Offered,
    OutboundReady,
    Output,
    PeerDead,
    PeerRenews,
)
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import TunnelPolicy
from vpnd.tunnel.commands import Command, TunnelState
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.mappings import ENDED_HERE


class Tunnels:
    """The tunnels by name, in the order of the configuration. `outputs` holds what they ask for."""

    def __init__(self, entropy: Entropy) -> None:
        self.outputs: deque[Command] = deque()
        self._entropy = entropy
        self._tunnels: dict[str, Tunnel] = {}
        self._armed: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __iter__(self) -> Iterator[Tunnel]:
        return iter(self._tunnels.values())

    def __len__(self) -> int:
        return len(self._tunnels)

    def __contains__(self, name: object) -> bool:
        return name in self._tunnels

    def __getitem__(self, name: str) -> Tunnel:
        return self._tunnels[name]

    def get(self, name: str) -> Tunnel | None:
        """The tunnel of this name, or None."""
        return self._tunnels.get(name)

    def add(self, policy: TunnelPolicy, blocked: Diagnosis | None = None) -> Tunnel:
        """A tunnel is configured; it waits for its `start`. Raises ValueError if the name is taken.

        With `blocked` it is listed as down until that is taken back.
        """
        if policy.name in self._tunnels:
            raise ValueError(f"tunnel {policy.name!r} exists")
        state = TunnelState.WAITING if blocked is None else TunnelState.DOWN
        tunnel = Tunnel(policy, self._entropy, self.outputs, state=state, blocked=blocked)
        self._tunnels[policy.name] = tunnel
        return tunnel

    def remove(self, name: str) -> None:
        """A tunnel is no longer configured; what it asked for and was not done yet is forgotten."""
        del self._tunnels[name]
        self._armed.pop(name, None)
        kept = [command for command in self.outputs if command.tunnel != name]
        self.outputs.clear()
        self.outputs.extend(kept)

    def reorder(self, names: tuple[str, ...]) -> None:
        """Lists the tunnels in this order from now on; unknown names are skipped."""
        listed = {name: self._tunnels[name] for name in names if name in self._tunnels}
        self._tunnels = {**listed, **self._tunnels}

    def tell(self, name: str, message: Callable[[Tunnel], None]) -> None:
        """Calls `message` with the tunnel of this name, if there is one, and arms its deadline anew."""
        tunnel = self._tunnels.get(name)
        if tunnel is None:
            return
        try:
            message(tunnel)
        finally:
            self._arm(tunnel)

    def handle_ike(self, now: float, output: Output) -> None:
        """Hands what IKE reports to the tunnel that it concerns; messages and stories concern none."""
        match output:
            case Established(tunnel, ike):
                self.tell(tunnel, lambda t: t.established(now, ike.spi_i, ike.spi_r))
            case IkeReplaced(tunnel, spi_i, spi_r, ike):
                self.tell(tunnel, lambda t: t.ike_replaced((spi_i, spi_r), (ike.spi_i, ike.spi_r)))
            case IkeDown(tunnel, spi_i, spi_r, diagnosis):
                self.tell(tunnel, lambda t: t.ike_down(now, spi_i, spi_r, diagnosis))
            case ChildUp(child):
                self.tell(child.tunnel, lambda t: t.child_up(now, child))
            case ChildReplaced(old, child):
                self.tell(child.tunnel, lambda t: t.child_replaced(now, old, child))
            case OutboundReady(tunnel, spi_in):
                self.tell(tunnel, lambda t: t.outbound_ready(spi_in))
            case ChildRetired(tunnel, mapping, spi_in):
                self.tell(tunnel, lambda t: t.child_retired(mapping, spi_in))
            case ChildDown(tunnel, mapping, spi_in, diagnosis):
                self.tell(tunnel, lambda t: t.child_down(now, mapping, spi_in, diagnosis))
            case ChildFailed(tunnel, mapping, diagnosis):
                self.tell(tunnel, lambda t: t.child_failed(now, mapping, diagnosis))
            case PeerRenews(tunnel):
                self.tell(tunnel, lambda t: t.peer_renews())
            case Offered(tunnel, mappings):
                self.tell(tunnel, lambda t: t.offered(now, mappings))
            case IkeRekeyFailed(tunnel, diagnosis):
                self.tell(tunnel, lambda t: t.renewal_failed(now, None, diagnosis))
            case Failed(_, diagnosis, True) if diagnosis.code in ENDED_HERE:
                return
            case Failed(tunnel, diagnosis, unproven=True):
                self.tell(tunnel, lambda t: t.refused_unproven(now, diagnosis))
            case Failed(tunnel, diagnosis, initiator):
                self.tell(tunnel, lambda t: t.failed(now, diagnosis, initiator))
            case PeerDead(tunnel, diagnosis):
                self.tell(tunnel, lambda t: t.peer_dead(now, diagnosis))
            case _:
                return

    def handle_timeout(self, now: float) -> None:
        """Wakes the tunnels that have something to do."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, name = heapq.heappop(self._heap)
            if self._armed.get(name) == at:
                del self._armed[name]
                due.append(name)
        for name in due:
            self.tell(name, lambda tunnel: tunnel.handle_timeout(now))

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do, in seconds on the caller's clock."""
        while self._heap and self._armed.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _arm(self, tunnel: Tunnel) -> None:
        deadline = tunnel.next_timeout()
        if deadline is None:
            self._armed.pop(tunnel.name, None)
        elif self._armed.get(tunnel.name) != deadline:
            self._armed[tunnel.name] = deadline
            heapq.heappush(self._heap, (deadline, tunnel.name))
