"""A gateway whose tunnels lead their own lives: its configuration alone says what is negotiated when."""

from __future__ import annotations

from collections.abc import Iterable

from vpnd.crypto.entropy import Entropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import Output, Transmit
from vpnd.model.policy import TunnelPolicy
from vpnd.simulate.gateway import Gateway
from vpnd.tunnel.commands import CloseTunnel, Command, Initiate, Resolve
from vpnd.tunnel.tunnels import Tunnels


class Living(Gateway):
    """Endpoint and tunnels, joined as the daemon joins them; `told` is what the lives of the tunnels said."""

    endpoint: Endpoint
    tunnels: Tunnels
    told: list[Command]

    def configure(self, peer: str, policies: Iterable[TunnelPolicy], entropy: Entropy) -> None:
        """These tunnels to the gateway called `peer`. Their lives begin with `start`."""
        self.tunnels = Tunnels(entropy)
        self.told = []
        for policy in policies:
            self.policies[policy.name] = policy.peer
            self.peers[policy.name] = peer
            self.endpoint.set_peer(self._clock(), policy.peer)
            self.tunnels.add(policy)

    def ask(self, tunnel: str, method: str, *arguments: object) -> None:
        """Call a method of a tunnel that takes the time first, then drain."""
        getattr(self.tunnels[tunnel], method)(self._clock(), *arguments)
        self.drain()

    def timeout(self) -> None:
        self.endpoint.handle_timeout(self._clock())
        self.drain()
        self.tunnels.handle_timeout(self._clock())
        self.drain()

    def next_timeout(self) -> float | None:
        due = [at for part in (self.endpoint, self.tunnels) if (at := part.next_timeout()) is not None]
        return min(due, default=None)

    def drain(self) -> None:
        while True:
            super().drain()
            if not self.tunnels.outputs:
                return
            self._do(self.tunnels.outputs.popleft())

    def _apply(self, output: Output) -> None:
        super()._apply(output)
        if not isinstance(output, Transmit):
            self.tunnels.handle_ike(self._clock(), output)

    def _do(self, command: Command) -> None:
        match command:
            case Initiate(tunnel, mapping):
                self.endpoint.initiate(self._clock(), tunnel, mapping)
            case CloseTunnel(tunnel, diagnosis):
                self.endpoint.close(self._clock(), tunnel, diagnosis)
            case Resolve(tunnel):
                raise AssertionError(f"{tunnel} has its peer's address")
            case _:
                self.told.append(command)
