"""The two clients: the same calls, one waits and one is awaited.

Each call raises Refused when the daemon says no, DaemonUnreachable when it does not answer, and
UnexpectedAnswer when it is of another version. `timeout_s` and the like are seconds.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Unpack

from vpnd.config.paths import DEFAULT_SOCKET
from vpnd.sdk import calls
from vpnd.sdk.calls import Call, CaptureBounds, CustomerGatewayFilter, EventFilter, TraceFilter, TunnelFilter
from vpnd.sdk.decoding import decode
from vpnd.sdk.errors import DaemonUnreachable, Refused
from vpnd.sdk.models import (
    ActionResult,
    Applied,
    Bundle,
    Configurations,
    Confirmed,
    CustomerGatewayChange,
    CustomerGateways,
    CustomerGatewayStatus,
    Event,
    GatewayChange,
    GatewayDetail,
    GroupStatus,
    KeyList,
    KeyRotation,
    KeyStatus,
    Plan,
    ReloadProgress,
    ReloadResult,
    Status,
    TokenCreated,
    TokenList,
    TokenRevoked,
    Trace,
    TunnelChange,
    TunnelCheck,
    TunnelDetail,
    TunnelExport,
    TunnelList,
    TunnelPeerConfig,
    TunnelSettings,
    Why,
)
from vpnd.sdk.place import Place
from vpnd.sdk.transport import BUSY, AsyncTransport, Transport, tunnel_path

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0
"""Ours, in seconds: before a follower of events tries again; each wait is twice the last."""


class Client:
    """One daemon, for a program that waits for each answer.

    Each call makes its own connection, so that there is nothing to close; `with` is there for habit.
    """

    def __init__(
        self,
        socket: Path | str | Transport = DEFAULT_SOCKET,
        *,
        token: str | None = None,
        certificate: Path | None = None,
    ) -> None:
        """`socket`: a path, or `https://HOST:PORT` with a `token` and the `certificate` of whom to trust."""
        if isinstance(socket, Path | str):
            socket = Transport(Place(socket, token, certificate))
        self._transport = socket

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        """Nothing is held open."""

    def status(self, **wanted: Unpack[TunnelFilter]) -> Status:
        """The gateway, and its tunnels, all or those that match, in the order of the configuration."""
        return self._do(calls.status(wanted))

    def tunnels(self, **wanted: Unpack[TunnelFilter]) -> TunnelList:
        """The tunnels that match, and how many there are without `limit`."""
        return self._do(calls.tunnels(wanted))

    def tunnel(self, name: str) -> TunnelDetail:
        """Everything about one tunnel but its key."""
        return self._do(calls.tunnel(name))

    def why(self, name: str) -> Why:
        """The last failure of a tunnel, explained."""
        return self._do(calls.why(name))

    def settings(self, name: str) -> TunnelSettings:
        """Every value of a tunnel that is in force, and where it comes from."""
        return self._do(calls.settings(name))

    def export(self, name: str) -> TunnelExport:
        """A tunnel as a TOML file, as it was written, without its key."""
        return self._do(calls.export(name))

    def peer_config(self, name: str, kind: str) -> TunnelPeerConfig:
        """What to put on the peer of a tunnel, for a product such as `strongswan`, all but the key."""
        return self._do(calls.peer_config(name, kind))

    def keys(self) -> KeyList:
        """The pre-shared keys of every tunnel, as fingerprints, and which of them each end uses."""
        return self._do(calls.keys())

    def keys_of(self, name: str) -> KeyStatus:
        """Those of one tunnel."""
        return self._do(calls.keys_of(name))

    def rotate_key(
        self,
        name: str,
        step: Literal["begin", "prove", "finish", "cancel"],
        *,
        key: str | None = None,
        retire_after: datetime | None = None,
        force: bool = False,
        timeout_s: float = 30.0,
    ) -> KeyRotation:
        """One step in the replacement of a key: `begin` with `key`, `prove`, `finish` or `cancel`."""
        return self._do(calls.rotate_key(name, step, key, retire_after, force, timeout_s))

    def trace(self, name: str, limit: int | None = None, **wanted: Unpack[TraceFilter]) -> Trace:
        """The last IKE messages of a tunnel, oldest first, or those that match, at most `limit`."""
        return self._do(calls.trace(name, limit, wanted))

    def bundle(self, *tunnels: str) -> Bundle:
        """What support needs, as texts without a key: of these tunnels, or of all."""
        return self._do(calls.bundle(tunnels))

    def capture(self, name: str, **wanted: Unpack[CaptureBounds]) -> Generator[bytes, None, None]:
        """What a tunnel carries from now on, as the pieces of a pcapng file; closing it ends the capture.

        For root over the socket, or where `gateway.capture` allows it.
        """
        yield from self._transport.stream("POST", tunnel_path(name, "capture"), dict(wanted))

    def up(self, name: str, timeout_s: float = 30.0) -> ActionResult:
        """Negotiate, and wait until the tunnel is up; Refused with the diagnosis' code if that failed."""
        return self._do(calls.up(name, timeout_s))

    def down(self, name: str) -> ActionResult:
        """Close with DELETE, and stay down until `up` or a start of vpnd."""
        return self._do(calls.down(name))

    def disable(self, name: str) -> ActionResult:
        """Close with DELETE, and stay down until `enable`, also after a start of vpnd."""
        return self._do(calls.disable(name))

    def enable(self, name: str) -> ActionResult:
        """Take `disable` back. Raises Refused where a file says `enabled = false`."""
        return self._do(calls.enable(name))

    def reset(self, name: str, timeout_s: float = 30.0) -> ActionResult:
        """Delete the SAs and negotiate again; waits as `up` does."""
        return self._do(calls.reset(name, timeout_s))

    def rekey(
        self, name: str, *, ike: bool = False, child: bool = False, timeout_s: float = 30.0
    ) -> ActionResult:
        """Replace the SAs now, without loss; both kinds unless one is named."""
        return self._do(calls.rekey(name, ike, child, timeout_s))

    def switch(self, group: str, tunnel: str | None = None) -> GroupStatus:
        """Let `tunnel` carry the routes of a group; None: health and priority decide again."""
        return self._do(calls.switch(group, tunnel))

    def put_tunnel(self, name: str, table: Mapping[str, Any]) -> TunnelChange:
        """Create or change a tunnel: the shape of its TOML table; without a key it keeps its own."""
        return self._do(calls.put_tunnel(name, table))

    def check_tunnel(self, name: str, table: Mapping[str, Any]) -> TunnelCheck:
        """What `put_tunnel` would say, without changing anything; a key may be missing."""
        return self._do(calls.check_tunnel(name, table))

    def gateway(self) -> GatewayDetail:
        """This gateway, and whether its labels can be set over the API."""
        return self._do(calls.gateway())

    def put_gateway(self, labels: Mapping[str, Any]) -> GatewayChange:
        """Set the gateway's `type`, `vpc` and `region`, all three: what is left out has none any more."""
        return self._do(calls.put_gateway(labels))

    def customer_gateways(self, **wanted: Unpack[CustomerGatewayFilter]) -> CustomerGateways:
        """The customer gateways that have a name of their own, or those that match."""
        return self._do(calls.customer_gateways(wanted))

    def customer_gateway(self, name: str) -> CustomerGatewayStatus:
        """One customer gateway, and the tunnels to it."""
        return self._do(calls.customer_gateway(name))

    def put_customer_gateway(self, name: str, table: Mapping[str, Any]) -> CustomerGatewayChange:
        """Create or change a customer gateway; tunnels that name it are negotiated again if it changes."""
        return self._do(calls.put_customer_gateway(name, table))

    def delete_customer_gateway(self, name: str) -> CustomerGatewayChange:
        """Forget a customer gateway that was made over the API and that no tunnel names."""
        return self._do(calls.delete_customer_gateway(name))

    def delete_tunnel(self, name: str) -> TunnelChange:
        """Close and forget a tunnel that was made over the API, and its key."""
        return self._do(calls.delete_tunnel(name))

    def tokens(self) -> TokenList:
        """The tokens for the API over TCP, but for what they are. Over the socket only, as the next two."""
        return self._do(calls.tokens())

    def create_token(self, name: str, role: Literal["read", "admin"] = "read") -> TokenCreated:
        """A new token, which nothing shows again."""
        return self._do(calls.create_token(name, role))

    def revoke_token(self, name: str) -> TokenRevoked:
        """The token is of no use from now on."""
        return self._do(calls.revoke_token(name))

    def reload(self) -> ReloadResult:
        """Apply the changed files, all or nothing; returns when every tunnel is as configured."""
        return self._do(calls.reload())

    def plan(self, back: int | None = None) -> Plan:
        """What `apply` would change and what it costs; with `back` what `rollback` would."""
        return self._do(calls.plan(back))

    def apply(self, confirm_s: float | None = None) -> Applied:
        """Put the files in force; with `confirm_s` they go back after that, unless `confirm` comes."""
        return self._do(calls.apply(confirm_s))

    def confirm(self) -> Confirmed:
        """What `apply` has put in force stays."""
        return self._do(calls.confirm())

    def rollback(self, back: int | None = None) -> Applied:
        """An older configuration is in force again: the confirmed one, or that of `back` before."""
        return self._do(calls.rollback(back))

    def configurations(self) -> Configurations:
        """Those that are kept, the one that runs first."""
        return self._do(calls.configurations())

    def reload_progress(self) -> ReloadProgress:
        """How far the daemon is with its configuration."""
        return self._do(calls.reload_progress())

    def _do(self, call: Call[T]) -> T:
        return decode(call.answer, self._transport.call(call.method, call.path, call.body, call.wait_s))

    def events(
        self,
        *,
        follow: bool = True,
        after: str | None = None,
        resume: bool = True,
        **wanted: Unpack[EventFilter],
    ) -> Generator[Event, None, None]:
        """The events that are kept, oldest first, then with `follow` each new one as it happens.

        `after`: only those after the one with this `id`. With `resume` a stream that breaks goes on where it
        was, as soon as the daemon is back; one that restarted begins with the first event that it keeps.
        Only those that match the other arguments.
        """
        wait, reached, left = FIRST_WAIT, False, wanted.get("limit")
        while True:
            try:
                for document in self._transport.events(follow, after, wanted):
                    event = decode(Event, document)
                    wait, reached, after = FIRST_WAIT, True, event.id or after
                    yield event
                    if left is not None:
                        left -= 1
                        wanted["limit"] = left
            except (DaemonUnreachable, Refused) as failure:
                busy = isinstance(failure, DaemonUnreachable) or failure.code == BUSY
                if not (busy and reached and follow and resume):
                    raise
            if not (follow and resume) or left == 0:
                return
            reached = True
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)


class AsyncClient:
    """One daemon, for asyncio.

    Each call makes its own connection, so that there is nothing to close; `async with` is there for habit.
    """

    def __init__(
        self,
        socket: Path | str | AsyncTransport = DEFAULT_SOCKET,
        *,
        token: str | None = None,
        certificate: Path | None = None,
    ) -> None:
        """`socket`: a path, or `https://HOST:PORT` with a `token` and the `certificate` of whom to trust."""
        if isinstance(socket, Path | str):
            socket = AsyncTransport(Place(socket, token, certificate))
        self._transport = socket

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        """Nothing is held open."""

    async def status(self, **wanted: Unpack[TunnelFilter]) -> Status:
        """The gateway, and its tunnels, all or those that match, in the order of the configuration."""
        return await self._do(calls.status(wanted))

    async def tunnels(self, **wanted: Unpack[TunnelFilter]) -> TunnelList:
        """The tunnels that match, and how many there are without `limit`."""
        return await self._do(calls.tunnels(wanted))

    async def tunnel(self, name: str) -> TunnelDetail:
        """Everything about one tunnel but its key."""
        return await self._do(calls.tunnel(name))

    async def why(self, name: str) -> Why:
        """The last failure of a tunnel, explained."""
        return await self._do(calls.why(name))

    async def settings(self, name: str) -> TunnelSettings:
        """Every value of a tunnel that is in force, and where it comes from."""
        return await self._do(calls.settings(name))

    async def export(self, name: str) -> TunnelExport:
        """A tunnel as a TOML file, as it was written, without its key."""
        return await self._do(calls.export(name))

    async def peer_config(self, name: str, kind: str) -> TunnelPeerConfig:
        """What to put on the peer of a tunnel, for a product such as `strongswan`, all but the key."""
        return await self._do(calls.peer_config(name, kind))

    async def keys(self) -> KeyList:
        """The pre-shared keys of every tunnel, as fingerprints, and which of them each end uses."""
        return await self._do(calls.keys())

    async def keys_of(self, name: str) -> KeyStatus:
        """Those of one tunnel."""
        return await self._do(calls.keys_of(name))

    async def rotate_key(
        self,
        name: str,
        step: Literal["begin", "prove", "finish", "cancel"],
        *,
        key: str | None = None,
        retire_after: datetime | None = None,
        force: bool = False,
        timeout_s: float = 30.0,
    ) -> KeyRotation:
        """One step in the replacement of a key: `begin` with `key`, `prove`, `finish` or `cancel`."""
        return await self._do(calls.rotate_key(name, step, key, retire_after, force, timeout_s))

    async def trace(self, name: str, limit: int | None = None, **wanted: Unpack[TraceFilter]) -> Trace:
        """The last IKE messages of a tunnel, oldest first, or those that match, at most `limit`."""
        return await self._do(calls.trace(name, limit, wanted))

    async def bundle(self, *tunnels: str) -> Bundle:
        """What support needs, as texts without a key: of these tunnels, or of all."""
        return await self._do(calls.bundle(tunnels))

    async def capture(self, name: str, **wanted: Unpack[CaptureBounds]) -> AsyncGenerator[bytes, None]:
        """What a tunnel carries from now on, as the pieces of a pcapng file; closing it ends the capture.

        For root over the socket, or where `gateway.capture` allows it.
        """
        async with aclosing(
            self._transport.stream("POST", tunnel_path(name, "capture"), dict(wanted))
        ) as pieces:
            async for piece in pieces:
                yield piece

    async def up(self, name: str, timeout_s: float = 30.0) -> ActionResult:
        """Negotiate, and wait until the tunnel is up; Refused with the diagnosis' code if that failed."""
        return await self._do(calls.up(name, timeout_s))

    async def down(self, name: str) -> ActionResult:
        """Close with DELETE, and stay down until `up` or a start of vpnd."""
        return await self._do(calls.down(name))

    async def disable(self, name: str) -> ActionResult:
        """Close with DELETE, and stay down until `enable`, also after a start of vpnd."""
        return await self._do(calls.disable(name))

    async def enable(self, name: str) -> ActionResult:
        """Take `disable` back. Raises Refused where a file says `enabled = false`."""
        return await self._do(calls.enable(name))

    async def reset(self, name: str, timeout_s: float = 30.0) -> ActionResult:
        """Delete the SAs and negotiate again; waits as `up` does."""
        return await self._do(calls.reset(name, timeout_s))

    async def rekey(
        self, name: str, *, ike: bool = False, child: bool = False, timeout_s: float = 30.0
    ) -> ActionResult:
        """Replace the SAs now, without loss; both kinds unless one is named."""
        return await self._do(calls.rekey(name, ike, child, timeout_s))

    async def switch(self, group: str, tunnel: str | None = None) -> GroupStatus:
        """Let `tunnel` carry the routes of a group; None: health and priority decide again."""
        return await self._do(calls.switch(group, tunnel))

    async def put_tunnel(self, name: str, table: Mapping[str, Any]) -> TunnelChange:
        """Create or change a tunnel: the shape of its TOML table; without a key it keeps its own."""
        return await self._do(calls.put_tunnel(name, table))

    async def check_tunnel(self, name: str, table: Mapping[str, Any]) -> TunnelCheck:
        """What `put_tunnel` would say, without changing anything; a key may be missing."""
        return await self._do(calls.check_tunnel(name, table))

    async def gateway(self) -> GatewayDetail:
        """This gateway, and whether its labels can be set over the API."""
        return await self._do(calls.gateway())

    async def put_gateway(self, labels: Mapping[str, Any]) -> GatewayChange:
        """Set the gateway's `type`, `vpc` and `region`, all three: what is left out has none any more."""
        return await self._do(calls.put_gateway(labels))

    async def customer_gateways(self, **wanted: Unpack[CustomerGatewayFilter]) -> CustomerGateways:
        """The customer gateways that have a name of their own, or those that match."""
        return await self._do(calls.customer_gateways(wanted))

    async def customer_gateway(self, name: str) -> CustomerGatewayStatus:
        """One customer gateway, and the tunnels to it."""
        return await self._do(calls.customer_gateway(name))

    async def put_customer_gateway(self, name: str, table: Mapping[str, Any]) -> CustomerGatewayChange:
        """Create or change a customer gateway; tunnels that name it are negotiated again if it changes."""
        return await self._do(calls.put_customer_gateway(name, table))

    async def delete_customer_gateway(self, name: str) -> CustomerGatewayChange:
        """Forget a customer gateway that was made over the API and that no tunnel names."""
        return await self._do(calls.delete_customer_gateway(name))

    async def delete_tunnel(self, name: str) -> TunnelChange:
        """Close and forget a tunnel that was made over the API, and its key."""
        return await self._do(calls.delete_tunnel(name))

    async def tokens(self) -> TokenList:
        """The tokens for the API over TCP, but for what they are. Over the socket only, as the next two."""
        return await self._do(calls.tokens())

    async def create_token(self, name: str, role: Literal["read", "admin"] = "read") -> TokenCreated:
        """A new token, which nothing shows again."""
        return await self._do(calls.create_token(name, role))

    async def revoke_token(self, name: str) -> TokenRevoked:
        """The token is of no use from now on."""
        return await self._do(calls.revoke_token(name))

    async def reload(self) -> ReloadResult:
        """Apply the changed files, all or nothing; returns when every tunnel is as configured."""
        return await self._do(calls.reload())

    async def plan(self, back: int | None = None) -> Plan:
        """What `apply` would change and what it costs; with `back` what `rollback` would."""
        return await self._do(calls.plan(back))

    async def apply(self, confirm_s: float | None = None) -> Applied:
        """Put the files in force; with `confirm_s` they go back after that, unless `confirm` comes."""
        return await self._do(calls.apply(confirm_s))

    async def confirm(self) -> Confirmed:
        """What `apply` has put in force stays."""
        return await self._do(calls.confirm())

    async def rollback(self, back: int | None = None) -> Applied:
        """An older configuration is in force again: the confirmed one, or that of `back` before."""
        return await self._do(calls.rollback(back))

    async def configurations(self) -> Configurations:
        """Those that are kept, the one that runs first."""
        return await self._do(calls.configurations())

    async def reload_progress(self) -> ReloadProgress:
        """How far the daemon is with its configuration."""
        return await self._do(calls.reload_progress())

    async def _do(self, call: Call[T]) -> T:
        return decode(call.answer, await self._transport.call(call.method, call.path, call.body, call.wait_s))

    async def events(
        self,
        *,
        follow: bool = True,
        after: str | None = None,
        resume: bool = True,
        **wanted: Unpack[EventFilter],
    ) -> AsyncGenerator[Event, None]:
        """The events that are kept, oldest first, then with `follow` each new one as it happens.

        `after`: only those after the one with this `id`. With `resume` a stream that breaks goes on where it
        was, as soon as the daemon is back; one that restarted begins with the first event that it keeps.
        Only those that match the other arguments.
        """
        import asyncio

        wait, reached, left = FIRST_WAIT, False, wanted.get("limit")
        while True:
            try:
                async for document in self._transport.events(follow, after, wanted):
                    event = decode(Event, document)
                    wait, reached, after = FIRST_WAIT, True, event.id or after
                    yield event
                    if left is not None:
                        left -= 1
                        wanted["limit"] = left
            except (DaemonUnreachable, Refused) as failure:
                busy = isinstance(failure, DaemonUnreachable) or failure.code == BUSY
                if not (busy and reached and follow and resume):
                    raise
            if not (follow and resume) or left == 0:
                return
            reached = True
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
