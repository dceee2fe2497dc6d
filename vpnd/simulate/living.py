"""A gateway whose tunnels lead their own lives: its configuration alone says what is negotiated when."""

from __future__ import annotations

from collections.abc import Iterable

from vpnd.crypto.entropy import Entropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import LadderLine, Output, Transmit
from vpnd.model.child import Path
from vpnd.model.policy import TunnelPolicy
from vpnd.simulate.gateway import Gateway
from vpnd.tunnel import asking
from vpnd.tunnel.commands import (
    AttemptFailed,
    CloseTunnel,
    Command,
    Initiate,
    Resolve,
    StateChanged,
    TunnelState,
)
from vpnd.tunnel.prober import Learned, Prober, ProberOutput, ProbingBegan
from vpnd.tunnel.tunnels import Tunnels


class Living(Gateway):
    """Endpoint, tunnels and the prober, joined as the daemon joins them.

    `told` is what the lives of the tunnels said.
    """

    endpoint: Endpoint
    tunnels: Tunnels
    prober: Prober
    told: list[Command]

    def configure(self, peer: str, policies: Iterable[TunnelPolicy], entropy: Entropy) -> None:
        """These tunnels to the gateway called `peer`. Their lives begin with `start`."""
        self.tunnels = Tunnels(entropy)
        self.prober = Prober(entropy)
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

    def receive(self, path: Path, data: bytes) -> None:
        if self.prober.hears(data):
            self.prober.handle_datagram(self._clock(), path, data)
            self.drain()
        else:
            super().receive(path, data)

    def timeout(self) -> None:
        self.endpoint.handle_timeout(self._clock())
        self.drain()
        self.prober.handle_timeout(self._clock())
        self.drain()
        self.tunnels.handle_timeout(self._clock())
        self.drain()

    def next_timeout(self) -> float | None:
        parts = (self.endpoint, self.tunnels, self.prober)
        due = [at for part in parts if (at := part.next_timeout()) is not None]
        return min(due, default=None)

    def drain(self) -> None:
        while True:
            super().drain()
            if self.tunnels.outputs:
                self._do(self.tunnels.outputs.popleft())
            elif self.prober.outputs:
                self._probe(self.prober.outputs.popleft())
            else:
                return

    def _probe(self, output: ProberOutput) -> None:
        match output:
            case Transmit():
                self._send(self, output)
            case LadderLine():
                self._drawn(self, output)
            case Learned(tunnel, code, diagnosis):
                self.tunnels[tunnel].standing.learn(self._clock(), code, diagnosis)
            case ProbingBegan():
                pass

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
            case AttemptFailed():
                self.told.append(command)
                asking.attempt_failed(
                    self.prober, self._clock(), command, self.tunnels, self.endpoint.ike_sas
                )
            case _:
                if isinstance(command, StateChanged) and command.after in (TunnelState.UP, TunnelState.DOWN):
                    self.prober.stop(self._clock(), command.tunnel)
                self.told.append(command)
