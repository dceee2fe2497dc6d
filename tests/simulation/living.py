"""A gateway whose tunnel leads its own life: nobody but its configuration says what is negotiated when."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from vpnd.crypto.entropy import Entropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import Established, Output, Transmit
from vpnd.model.policy import Communication, Negotiation, PeerPolicy, TunnelPolicy
from vpnd.tunnel.commands import CloseTunnel, Command, Initiate, Resolve
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.tunnels import Tunnels

from .gateway import Gateway


class Living(Gateway):
    """Endpoint and tunnels, joined as the daemon joins them; `told` is what the lifecycle said."""

    tunnels: Tunnels
    told: list[Command]

    def live(self, peer: str, policy: PeerPolicy, negotiation: Negotiation, entropy: Entropy) -> None:
        """The only tunnel of this gateway is configured, and its life begins."""
        self.tunnels = Tunnels(entropy)
        self.told = []
        self.policies[policy.name] = policy
        self.peers[policy.name] = peer
        self.endpoint.set_peer(self._clock(), policy)
        tunnel = TunnelPolicy(
            name=policy.name,
            peer=policy,
            remote=str(policy.remote_address),
            negotiation=negotiation,
            communication=Communication.SPD_POLICY,
            routes=(),
            priority=0,
            interface="vpn0",
        )
        self.tunnels.add(tunnel)
        self.tell("start")

    @property
    def life(self) -> Tunnel:
        """The only tunnel."""
        return self.tunnels[self.tunnel]

    def tell(self, method: str, *arguments: object) -> None:
        """Call a method of the tunnel that takes the time first, then drain."""
        now = self._clock()
        getattr(self.life, method)(now, *arguments)
        self.drain()

    def hear(self) -> None:
        """ESP has come from the peer."""
        cast(Endpoint, self.endpoint).note_activity(self._clock(), self.tunnel)

    def sending_on(self) -> int | None:
        """The SPI that this side's packets carry now."""
        pairs = [pair for pair in self.installed.values() if pair.turn]
        return max(pairs, key=lambda pair: pair.turn).child.spi_out if pairs else None

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

    def forget_events(self) -> None:
        """A year of them would be all that memory holds."""
        self.told.clear()
        self.events[:] = [event for event in self.events if isinstance(event, Established)][-1:]

    def _apply(self, output: Output) -> None:
        super()._apply(output)
        if not isinstance(output, Transmit):
            self.tunnels.handle_ike(self._clock(), output)

    def _do(self, command: Command) -> None:
        endpoint = cast(Endpoint, self.endpoint)
        match command:
            case Initiate(tunnel, mapping):
                endpoint.initiate(self._clock(), tunnel, mapping)
            case CloseTunnel(tunnel, diagnosis):
                endpoint.close(self._clock(), tunnel, diagnosis)
            case Resolve(tunnel):
                raise AssertionError(f"{tunnel} has its peer's address")
            case _:
                self.told.append(command)


def with_dpd(policy: PeerPolicy, **changes: object) -> PeerPolicy:
    """The policy with fields of its DPD replaced."""
    return replace(policy, dpd=replace(policy.dpd, **changes))  # type: ignore[arg-type] # fields by name
