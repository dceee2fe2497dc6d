"""A tunnel's change in place: what runs goes over to another policy, and loses nothing by it.

Which of this a change needs is said by its class (`vpnd.config.classes`); one of the classes `interface` and
`break` is not made here, but by removing the tunnel and making it again.
"""

from __future__ import annotations

from dataclasses import replace

from vpnd.daemon.gateway import Gateway
from vpnd.daemon.upkeep.addresses import Addresses
from vpnd.daemon.upkeep.interfaces import Interfaces
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import TunnelPolicy
from vpnd.tunnel.lifecycle import Tunnel


class Reconfiguring:
    """Takes tunnels from one policy to another while they run."""

    def __init__(self, gateway: Gateway, addresses: Addresses, interfaces: Interfaces) -> None:
        self._gateway = gateway
        self._addresses = addresses
        self._interfaces = interfaces

    async def change(self, after: TunnelPolicy) -> None:
        """The tunnel of this name, which has its interface, is configured so from now on."""
        gateway, name = self._gateway, after.name
        tunnel = gateway.tunnels[name]
        before = tunnel.policy
        policy = await self._bound(before, after)
        # First what packets are selected by: SAs of new mappings find their rows.
        await self._interfaces.change(policy, _sa_of(tunnel))
        with gateway.turn() as now:
            gateway.selection.add(now, name, policy.health)
        gone = [m for m in tunnel.mappings if policy.peer.child(m.index) is None]
        with gateway.input("a change of its configuration", name) as now:
            if policy.health != before.health:
                tunnel.set_health(now, None)
            if policy.peer != before.peer and not any(mapping.owner for mapping in tunnel.mappings):
                # What is under way was begun with what holds no longer.
                gateway.endpoint.close(now, name, Diagnosis.of(Code.DOWN_BY_OPERATOR))
            is_open = not tunnel.standing.closed or not before.enabled
            if policy.enabled and is_open and tunnel.standing.blocked is None:
                gateway.endpoint.set_peer(now, policy.peer)
            tunnel.reconfigure(now, policy)
            gateway.prober.stop(now, name)
            for mapping in gone:
                for pair in mapping.pairs():
                    gateway.endpoint.close_child(now, name, pair.spi_in)
            self._succeed(now, tunnel, before)
        for mapping in gone:
            gateway.forget_mapping(name, mapping.index)
        with gateway.turn() as now:
            gateway.selection.tunnel_changed(now, tunnel)
            gateway.follow_size(now, name)
        gateway.watchers.wake(name)

    async def _bound(self, before: TunnelPolicy, after: TunnelPolicy) -> TunnelPolicy:
        """With the addresses that the tunnel has now, of this machine and of the peer."""
        remote = before.peer.remote_address
        bound = await self._addresses.bind(replace(after, peer=replace(after.peer, remote_address=remote)))
        return replace(bound, peer=replace(bound.peer, local_address=before.peer.local_address))

    def _succeed(self, now: float, tunnel: Tunnel, before: TunnelPolicy) -> None:
        """Successors, made at once, of ESP SAs that are not as the policy wants them.

        The endpoint sees to those of the IKE SA. Where that cannot be rekeyed, another one is made with ESP
        SAs of its own.
        """
        endpoint, after = self._gateway.endpoint, tunnel.policy
        if before.peer.lasting != after.peer.lasting:
            return
        for mapping in tunnel.mappings:
            was, wanted = before.peer.child(mapping.index), after.peer.child(mapping.index)
            if mapping.owner is not None and was and wanted and was.protection != wanted.protection:
                endpoint.rekey_child(now, tunnel.name, mapping.owner.spi_in)


def _sa_of(tunnel: Tunnel) -> ChildSa | None:
    """One of its SA pairs, which tells how large a packet is with its protection."""
    return next((mapping.owner.child for mapping in tunnel.mappings if mapping.owner is not None), None)
