"""What this machine refused is tried again, what was removed is put back, what is old is doubted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from vpnd.daemon.changes import Changes
from vpnd.daemon.events.journal import Journal
from vpnd.daemon.gateway import Gateway
from vpnd.daemon.upkeep.addresses import Addresses
from vpnd.daemon.upkeep.interfaces import Equip, Interfaces
from vpnd.datapath.interface import PathMtu
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import GatewayPolicy, TunnelPolicy
from vpnd.tunnel.lifecycle import Tunnel

REPAIR_EVERY = 5.0
"""Ours: seconds between two tries to give a tunnel what this machine refused it, two looks at filters, and
two at which paths may carry more again."""

LOSSES = 5
LOSSES_WITHIN = 60.0
"""Ours: an interface that was lost so often within so many seconds waits for the next of those tries, for
each time costs a negotiation. The daemon goes on: an end would take every other tunnel with it, and its
supervisor would soon give up starting it."""


GONE = "is gone from this machine"


class Repairs:
    """Looks after what tunnels stand on."""

    def __init__(
        self,
        gateway: Gateway,
        addresses: Addresses,
        interfaces: Interfaces,
        journal: Journal,
        changes: Changes,
        equip: Equip,
        configured: Callable[[], GatewayPolicy],
    ) -> None:
        self._gateway = gateway
        self._addresses = addresses
        self._interfaces = interfaces
        self._journal = journal
        self._changes = changes
        self._equip = equip
        self._configured = configured
        self._waits = False
        self._losses: dict[str, deque[float]] = {}

    async def go_on(self) -> None:
        """Without end: try again what this machine refused."""
        while True:
            await asyncio.sleep(REPAIR_EVERY)
            try:
                await self._try_again()
            except Exception as error:  # whatever it is: the next try is due all the same
                self._journal.fault(None, "internal error in a repair", error)

    async def _try_again(self) -> None:
        await self._interfaces.keep_shield()
        await self._interfaces.settle_refused()
        await self._try_larger()
        blocked = [tunnel.name for tunnel in self._gateway.tunnels if tunnel.standing.blocked is not None]
        if blocked:
            await self._unblock(blocked)

    async def _try_larger(self) -> None:
        """A path that was smaller for long is taken to carry what its route says: else it never would again.

        The kernel forgets after as long; where the path is still small, the next large packet says so.
        """
        for name in self._interfaces.take_aged():
            tunnel = self._gateway.tunnels.get(name)
            owners = [m.owner for m in tunnel.mappings if m.owner is not None] if tunnel is not None else []
            path = owners[0].path if owners else None
            # Without an SA nothing is sent; the next look is soon enough.
            mtu = await self._interfaces.route_mtu(path.remote) if path is not None else None
            if path is not None and mtu is not None:
                self._gateway.on_notice(PathMtu(path.remote, mtu))

    def is_due(self) -> bool:
        """Something has changed outside; whether a repair is to be begun, for one may wait already.

        One that waits for the end of a long change is as good as one for each notice.
        """
        due, self._waits = not self._waits, True
        return due

    async def repair(self) -> None:
        """Something that tunnels stand on has changed: put back what is ours, follow what is not."""
        async with self._changes.alone():
            self._waits = False
            await self._addresses.refresh()
            for tunnel in tuple(self._gateway.tunnels):
                if tunnel.standing.blocked is None:
                    await self._follow_address(tunnel)
                elif tunnel.standing.blocked.code is Code.LOCAL_ADDRESS:
                    await self._try_to_carry(tunnel)
            await self._interfaces.repair()

    async def restore(self, name: str) -> None:
        """The interface of a tunnel was deleted: make it again."""
        tunnel, gateway = self._gateway.tunnels.get(name), self._gateway
        if tunnel is None:
            return
        often = self._is_often_lost(name)
        self._journal.event(name, "interface-lost", f"the interface {tunnel.policy.interface} was deleted")
        detail = f"it is deleted again and again: next try within {REPAIR_EVERY:.0f} s"
        lost = Diagnosis.of(
            Code.LOCAL_INTERFACE,
            ours=tunnel.policy.interface,
            detail=detail if often else "it was deleted",
        )
        with gateway.input("a repair", name) as now:
            tunnel.block(now, lost)
        with gateway.turn() as now:
            gateway.endpoint.close(now, name, lost)
        # Until it is back the peer must not bring up what nothing here can carry.
        with gateway.turn() as now:
            gateway.endpoint.remove_peer(now, name)
        await self._interfaces.detach(name)
        if often:
            self._journal.failure(name, "tunnel-blocked", lost)
        else:
            await self._unblock([name])

    def _is_often_lost(self, name: str) -> bool:
        """Count a loss; whether there were too many recently."""
        now = self._gateway.clock.now()
        self._losses = {n: times for n, times in self._losses.items() if self._gateway.tunnels.get(n)}
        times = self._losses.setdefault(name, deque(maxlen=LOSSES))
        often = len(times) == LOSSES and now - times[0] < LOSSES_WITHIN
        times.append(now)
        return often

    async def _unblock(self, names: Iterable[str]) -> None:
        async with self._changes.alone():
            await self._addresses.refresh()
            for name in names:
                # A reload that this has waited for may have made another of it.
                tunnel = self._gateway.tunnels.get(name)
                if tunnel is not None and tunnel.standing.blocked is not None:
                    await self._try_to_carry(tunnel)
            await self._interfaces.settle()

    async def _try_to_carry(self, tunnel: Tunnel) -> None:
        """A tunnel that this machine could not carry gets its interface, or the reason why not."""
        name, before = tunnel.name, tunnel.policy.peer.local_address
        bound = await self._addresses.bind(self._unbound(tunnel.policy))
        refused = await self._equip(bound)
        if refused is None:
            if tunnel.standing.blocked is None or tunnel.standing.blocked.code is not Code.LOCAL_ADDRESS:
                self._journal.event(name, "interface-ready", f"the interface {bound.interface} is set up")
            elif before == bound.peer.local_address:
                self._journal.event(name, "address-restored", f"{before} is back on this machine")
            else:
                self._go_over(tunnel, bound, GONE)
            tunnel.bind(bound)
            self._gateway.admit(bound)
            with self._gateway.input("a repair", name) as now:
                tunnel.unblock(now)
        elif refused != tunnel.standing.blocked:
            with self._gateway.input("a repair", name) as now:
                tunnel.block(now, refused)
            self._journal.failure(name, "tunnel-blocked", refused)

    def _unbound(self, policy: TunnelPolicy) -> TunnelPolicy:
        """The policy with this machine's address, and the identity, as they are configured."""
        configured = next((p for p in self._configured().tunnels if p.name == policy.name), policy)
        address, identity = configured.peer.local_address, configured.peer.local_id
        return replace(policy, peer=replace(policy.peer, local_address=address, local_id=identity))

    async def _follow_address(self, tunnel: Tunnel) -> None:
        """Where this machine has lost the address that a tunnel used, or `auto` is another now: go there."""
        before = tunnel.policy.peer.local_address
        kept, auto = self._addresses.has(before), self._configured().address.is_unspecified
        if kept and (not auto or await self._addresses.by_default(before.version) in (None, before)):
            return
        bound = await self._addresses.bind(self._unbound(tunnel.policy))
        after = bound.peer.local_address
        if after.is_unspecified:
            self._lose_address(tunnel)
        if after == before or not self._addresses.has(after):
            return
        try:
            await self._addresses.listen(after)
        except OSError as error:
            self._journal.warn(tunnel.name, f"cannot receive on {after}: {error.strerror or error}")
            return
        gone = "is not the default route's any more" if kept else GONE
        self._go_over(tunnel, bound, gone)

    def _lose_address(self, tunnel: Tunnel) -> None:
        """The address is gone and there is no default route: wait. If it comes back the SAs go on."""
        lost = Diagnosis.of(Code.LOCAL_ADDRESS)
        with self._gateway.input("a lost address", tunnel.name) as now:
            tunnel.block(now, lost)
        self._journal.failure(tunnel.name, "tunnel-blocked", lost)

    def _go_over(self, tunnel: Tunnel, bound: TunnelPolicy, gone: str) -> None:
        """The tunnel's address is another: close what it has, and negotiate again from there."""
        name, before, after = tunnel.name, tunnel.policy.peer.local_address, bound.peer.local_address
        gateway = self._gateway
        why = "this machine had no default route" if before.is_unspecified else f"{before} {gone}"
        self._journal.event(name, "address-changed", f"{why}: using {after}")
        lost = Diagnosis.of(Code.LOCAL_ADDRESS, ours=before, detail=gone)
        # The address first: what follows an attempt that ends begins at once.
        gateway.admit(bound)
        with gateway.turn() as now:
            gateway.endpoint.close(now, name, lost)
        with gateway.input("another address", name) as now:
            tunnel.resolved(now, bound, moved=True)
