"""Peers that are configured by name: their addresses, when an attempt begins and whenever they go silent.

A tunnel that only answers has no attempts of its own, and the peer of one that is up may come back elsewhere.
So names are looked up again where nothing is heard of the peer, and a few of them when a stranger knocks.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from vpnd.daemon.changes import Changes
from vpnd.daemon.events.journal import Journal
from vpnd.daemon.gateway import Gateway
from vpnd.daemon.upkeep.addresses import Addresses
from vpnd.daemon.upkeep.interfaces import Equip, Interfaces
from vpnd.host.resolver import NotResolved, Resolver
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import GatewayPolicy, Negotiation, TunnelPolicy
from vpnd.model.selectors import Address
from vpnd.tunnel.lifecycle import Tunnel

LOOK_EVERY = 5.0
"""Ours: seconds between two look-ups of the name of a peer that says nothing."""

KNOCK_EVERY = 1.0
"""Ours: seconds between two looks at whether a stranger has sent IKE: it may be a peer that has moved."""

KNOCK_NAMES = 2
"""Ours: names that are looked up for strangers in each of these, however many there are: who sends a datagram
a second must not make this machine ask the name servers for all of them. A peer that has moved and is found
no sooner falls silent, and is found within `LOOK_EVERY` of that."""

KNOCK_REST = 2.0
"""Ours: seconds that a name which was just looked up is not looked up for strangers."""


class PeerNames:
    """Follows the names of peers."""

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
        self._resolver = Resolver()
        self._under_way: set[str] = set()
        """PeerNames that are looked up again just now."""
        self._asked: dict[str, float] = {}
        """When each name was looked up last, for whatever reason."""

    async def resolve(self, policy: TunnelPolicy) -> None:
        """An attempt of this tunnel waits for its peer's address."""
        name = policy.name
        try:
            found = await self._look_up(policy)
        except NotResolved as failure:
            self._resolve_failed(name, failure.diagnosis)
            return
        try:
            refused = await self._learn(policy, found[0])
        except Exception as error:  # whatever it is: the attempt must not wait without end
            self._journal.fault(name, "internal error while its peer was looked up", error)
            refused = Diagnosis.of(Code.INTERNAL)
        if refused is not None:
            self._resolve_failed(name, refused)

    def _resolve_failed(self, name: str, diagnosis: Diagnosis) -> None:
        with self._gateway.input("a look-up", name) as now:
            if (tunnel := self._gateway.tunnels.get(name)) is not None:
                tunnel.resolve_failed(now, diagnosis)

    async def follow(self) -> None:
        """Without end: look again where nothing is heard, and where a stranger may be a peer that has moved.

        A name is not waited for by the others, and is looked up once at a time.
        """
        knocks, looked = 0, self._gateway.clock.now()
        async with asyncio.TaskGroup() as looking:
            while True:
                await asyncio.sleep(KNOCK_EVERY)
                before, knocks = knocks, self._gateway.endpoint.knocks
                now = self._gateway.clock.now()
                named = self._named()
                again: dict[str, list[TunnelPolicy]] = {}
                if now - looked >= LOOK_EVERY:
                    looked = now
                    again = self._silent(named, now)
                if knocks != before:
                    again |= {name: named[name] for name in self._for_strangers(named, now)}
                for name, policies in again.items():
                    if name not in self._under_way:
                        self._under_way.add(name)
                        looking.create_task(self._look_again(name, policies))

    def _named(self) -> dict[str, list[TunnelPolicy]]:
        """The tunnels of each name that a peer is known by."""
        named: dict[str, list[TunnelPolicy]] = {}
        for tunnel in self._gateway.tunnels:
            if self._has_name(tunnel):
                named.setdefault(tunnel.policy.remote, []).append(tunnel.policy)
        return named

    def _silent(self, named: dict[str, list[TunnelPolicy]], now: float) -> dict[str, list[TunnelPolicy]]:
        """Those of them whose peer is silent."""
        silent = {name: [p for p in policies if self._is_silent(p, now)] for name, policies in named.items()}
        return {name: policies for name, policies in silent.items() if policies}

    def _for_strangers(self, named: dict[str, list[TunnelPolicy]], now: float) -> list[str]:
        """The few names that one who is unknown may have: those that were not looked up for longest."""
        self._asked = {name: at for name, at in self._asked.items() if name in named}
        since = {name: self._asked.get(name, -math.inf) for name in named}
        rested = [name for name, at in since.items() if now - at >= KNOCK_REST]
        return heapq.nsmallest(KNOCK_NAMES, rested, key=since.__getitem__)

    def _has_name(self, tunnel: Tunnel) -> bool:
        """Whether the peer is known by name and had an address."""
        resolved = tunnel.remote_is_name and tunnel.policy.peer.remote_address is not None
        return resolved and not tunnel.standing.closed and tunnel.standing.blocked is None

    def _is_silent(self, policy: TunnelPolicy, now: float) -> bool:
        """Whether the peer has said nothing recently."""
        heard = (ike.last_heard for ike in self._gateway.endpoint.ike_sas(policy.name))
        return all(at < now - LOOK_EVERY for at in heard)

    async def _look_again(self, name: str, policies: list[TunnelPolicy]) -> None:
        """Look this name up for these tunnels."""
        try:
            found = await self._look_up(policies[0])
            done = await asyncio.gather(
                *(self._follow_to(policy, found) for policy in policies), return_exceptions=True
            )
        except NotResolved:
            return  # an attempt will say so
        except Exception as error:  # whatever it is: the other names are followed
            done = [error] * len(policies)
        finally:
            self._under_way.discard(name)
        for policy, result in zip(policies, done, strict=True):
            if isinstance(result, Exception):
                self._journal.fault(policy.name, "internal error while looking its peer up", result)

    async def _follow_to(self, policy: TunnelPolicy, found: tuple[Address, ...]) -> None:
        """The peer of this tunnel has these addresses now."""
        tunnel = self._gateway.tunnels.get(policy.name)
        if tunnel is None or tunnel.policy.peer.remote_address in found:
            return
        name, gateway = policy.name, self._gateway
        gone = Diagnosis.of(Code.RESOLVE, peer=policy.remote, detail=f"{policy.remote} has another address")
        if tunnel.attempt.mapping is not None:
            with gateway.turn() as now:
                gateway.endpoint.close(now, name, gone)
        refused = await self._learn(tunnel.policy, found[0], moved=True)
        # A change may have put another in its place meanwhile, which begins by itself.
        same = gateway.tunnels.get(name) is tunnel
        if refused is None and same and tunnel.policy.negotiation is not Negotiation.PASSIVE:
            with gateway.turn() as now:
                gateway.endpoint.reinitiate(now, name)

    async def _look_up(self, policy: TunnelPolicy) -> tuple[Address, ...]:
        self._asked[policy.remote] = self._gateway.clock.now()
        return await self._resolver.addresses_of(policy.remote, self._configured().address.version)

    async def _learn(self, policy: TunnelPolicy, address: Address, moved: bool = False) -> Diagnosis | None:
        """The peer has this address from now on; returns what this machine refused.

        Another change of the tunnel comes first: two would make its interface, or this one would put back
        what was configured when the look-up began. A change that has done with it, or leaves it as it is, may
        have a thousand others to change and is not waited for.
        """
        async with self._changes.of_one(partial(self._is_as_configured, policy.name)):
            return await self._take(policy, address, moved)

    def _is_as_configured(self, name: str) -> bool:
        """Whether the tunnel is what the configuration in force says, but for addresses."""
        tunnel = self._gateway.tunnels.get(name)
        configured = next((p for p in self._configured().tunnels if p.name == name), None)
        if tunnel is None or configured is None:
            return False
        now = tunnel.policy.peer
        peer = replace(
            configured.peer,
            local_address=now.local_address,
            local_id=now.local_id,
            remote_address=now.remote_address,
        )
        return replace(configured, peer=peer) == tunnel.policy

    async def _take(self, policy: TunnelPolicy, address: Address, moved: bool) -> Diagnosis | None:
        name, gateway = policy.name, self._gateway
        configured = next((p for p in self._configured().tunnels if p.name == name), None)
        if configured is None or configured.remote != policy.remote:
            return None
        peer = replace(configured.peer, remote_address=address)
        bound = await self._addresses.bind(replace(configured, peer=peer))
        if address != policy.peer.remote_address:
            self._journal.event(name, "peer-resolved", f"{policy.remote} is {address}")
        refused = await self._equip(bound)
        tunnel = gateway.tunnels.get(name)
        if refused is not None or tunnel is None:
            return refused
        self._interfaces.path_changed(name, await self._interfaces.path_mtu(bound), None)
        gateway.admit(bound)
        with gateway.input("a look-up", name) as now:
            tunnel.resolved(now, bound, moved)
        return None
