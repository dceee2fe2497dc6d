"""What tunnels stand on: handed to whoever follows it or puts it back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vpnd.daemon.events.journal import Journal
from vpnd.daemon.gateway import Gateway
from vpnd.daemon.upkeep.addresses import Addresses
from vpnd.daemon.upkeep.interfaces import Interfaces
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import GatewayPolicy, TunnelPolicy


@dataclass(frozen=True, slots=True)
class Footing:
    """The parts of the daemon that give tunnels their addresses, sockets and interfaces.

    `equip` makes a tunnel's sockets and interface, or says what refused; `configured` is what is in force;
    `changing` is held by whoever changes many tunnels, as long as that takes, and `turn` by whoever changes
    one, or does anything else in between. Who needs both takes `changing` first.
    """

    gateway: Gateway
    addresses: Addresses
    interfaces: Interfaces
    journal: Journal
    equip: Callable[[TunnelPolicy], Awaitable[Diagnosis | None]]
    configured: Callable[[], GatewayPolicy]
    changing: asyncio.Lock
    turn: asyncio.Lock
