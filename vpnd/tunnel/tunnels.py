"""All tunnels of a gateway: hands each input to its tunnel, and knows the earliest deadline of all.

A thousand tunnels cost one heap entry each; an input touches one tunnel only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from vpnd.crypto.entropy import Entropy
from vpnd.ike.deadlines import Deadlines
from vpnd.ike.outputs import Output
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import TunnelPolicy
from vpnd.tunnel.commands import Command, TunnelState
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.standing import Standing


class Tunnels:
    """The tunnels by name, in the order of the configuration. `outputs` holds what they ask for."""

    def __init__(self, entropy: Entropy) -> None:
        self.outputs: deque[Command] = deque()
        self._entropy = entropy
        self._tunnels: dict[str, Tunnel] = {}
        self._deadlines: Deadlines[str] = Deadlines()

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
        standing = Standing(blocked=blocked)
        tunnel = Tunnel(policy, self._entropy, self.outputs, self._deadlines, standing, state)
        self._tunnels[policy.name] = tunnel
        return tunnel

    def remove(self, name: str) -> None:
        """A tunnel is no longer configured; what it asked for and was not done yet is forgotten."""
        del self._tunnels[name]
        self._deadlines.disarm(name)
        kept = [command for command in self.outputs if command.tunnel != name]
        self.outputs.clear()
        self.outputs.extend(kept)

    def reorder(self, names: tuple[str, ...]) -> None:
        """Lists the tunnels in this order from now on; unknown names are skipped."""
        listed = {name: self._tunnels[name] for name in names if name in self._tunnels}
        self._tunnels = {**listed, **self._tunnels}

    def handle_ike(self, now: float, output: Output) -> None:
        """Hands what IKE reports to the tunnel that it concerns."""
        if (tunnel := self._tunnels.get(output.tunnel or "")) is not None:
            tunnel.handle_ike(now, output)

    def handle_timeout(self, now: float) -> None:
        """Wakes the tunnels that have something to do; after a bug in one the others are due still."""

        def serve(name: str) -> None:
            if (tunnel := self._tunnels.get(name)) is not None:
                tunnel.handle_timeout(now)

        self._deadlines.serve(now, serve)

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do, in seconds on the caller's clock."""
        return self._deadlines.next_timeout()
