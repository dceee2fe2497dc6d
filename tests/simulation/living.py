"""A gateway whose tunnel leads its own life: nobody but its configuration says what is negotiated when."""

from __future__ import annotations

from dataclasses import replace

from vpnd.crypto.entropy import Entropy
from vpnd.ike.outputs import Established
from vpnd.model.policy import Communication, Negotiation, PeerPolicy, TunnelPolicy
from vpnd.simulate import living
from vpnd.tunnel.lifecycle import Tunnel


class Living(living.Living):
    """Of one tunnel."""

    def live(self, peer: str, policy: PeerPolicy, negotiation: Negotiation, entropy: Entropy) -> None:
        """The only tunnel of this gateway is configured, and its life begins."""
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
        self.configure(peer, (tunnel,), entropy)
        self.tell("start")

    @property
    def life(self) -> Tunnel:
        """The only tunnel."""
        return self.tunnels[self.tunnel]

    def tell(self, method: str, *arguments: object) -> None:
        """Call a method of the tunnel that takes the time first, then drain."""
        self.ask(self.tunnel, method, *arguments)

    def hear(self) -> None:
        """ESP has come from the peer."""
        self.endpoint.note_activity(self._clock(), self.tunnel)

    def sending_on(self) -> int | None:
        """The SPI that this side's packets carry now."""
        pairs = [pair for pair in self.installed.values() if pair.turn]
        return max(pairs, key=lambda pair: pair.turn).child.spi_out if pairs else None

    def forget_events(self) -> None:
        """A year of them would be all that memory holds."""
        self.told.clear()
        self.events[:] = [event for event in self.events if isinstance(event, Established)][-1:]


def with_dpd(policy: PeerPolicy, **changes: object) -> PeerPolicy:
    """The policy with fields of its DPD replaced."""
    return replace(policy, dpd=replace(policy.dpd, **changes))  # type: ignore[arg-type] # fields by name
