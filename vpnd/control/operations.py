"""What the management API asks of the running daemon; the daemon's gateway implements it.

Queries return at once from what is known. Actions are coroutines: they wait for the peer where their
description says so, and never block the loop. Each method that takes a name raises `UnknownTunnel`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Protocol

from vpnd.control.schema import (
    ActionResult,
    Applied,
    Bundle,
    CaptureRequest,
    Configurations,
    Confirmed,
    CustomerGatewayChange,
    CustomerGatewayStatus,
    Event,
    GatewayChange,
    GatewayDetail,
    GatewayStatus,
    GroupStatus,
    KeyList,
    KeyRotation,
    KeyStatus,
    Plan,
    ProblemBody,
    ReloadProgress,
    ReloadResult,
    RotateRequest,
    Status,
    Trace,
    TunnelChange,
    TunnelCheck,
    TunnelDetail,
    TunnelExport,
    TunnelSettings,
    TunnelStatus,
    Why,
)
from vpnd.model.text import named, printable


class OperationError(Exception):
    """A request that was not done: a stable code, what happened, and what to change."""

    http_status = 500

    def __init__(
        self, code: str, message: str, hint: str | None = None, problems: Sequence[ProblemBody] = ()
    ) -> None:
        # Both may repeat what a client, a file or a peer said.
        self.message = printable(message)
        self.hint = None if hint is None else printable(hint)
        super().__init__(self.message)
        self.code = code
        self.problems = tuple(problems)


class UnknownTunnel(OperationError):
    """No tunnel has this name."""

    http_status = 404

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        names = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
        near = get_close_matches(name, known, 1, 0.6)
        meant = f"did you mean {near[0]}? " if near else ""
        super().__init__(
            "E-UNKNOWN-TUNNEL",
            f"no tunnel is called {named(name)}",
            f"{meant}configured: {names}" if known else "no tunnel is configured",
        )


class UnknownCustomerGateway(OperationError):
    """No customer gateway has this name."""

    http_status = 404

    def __init__(self, name: str) -> None:
        message = f"no customer gateway is called {named(name)}"
        super().__init__("E-UNKNOWN-CUSTOMER-GATEWAY", message, "GET /v1/customer-gateways lists them")


class UnknownGroup(OperationError):
    """No group of tunnels has this name, or the tunnel is not one of it."""

    http_status = 404


class InvalidConfiguration(OperationError):
    """The files, or the tunnel that was sent, have errors; nothing was changed."""

    http_status = 422


class Conflict(OperationError):
    """It cannot be done as things stand: a tunnel of a file deleted through the API, an action under way."""

    http_status = 409


class NegotiationFailed(OperationError):
    """The peer did not bring the tunnel up: refused, silent, or not in time. The hint is `why`'s."""

    http_status = 502


@dataclass(frozen=True, slots=True)
class Histogram:
    """Measured values by size: how many were at most each bound, but above the one before, and the rest.

    `counts` has one number more than `bounds`; `total` is the sum of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class TunnelFigures:
    """What metrics show of one tunnel. The counts begin with the daemon, or with the tunnel if that is later.

    `established`: IKE SAs that were negotiated, without those that succeed another. `rekeys`: SAs that got a
    successor, by `ike` and `esp`. `failures`: attempts and losses by the code of their diagnosis. `rtt` and
    `jitter` are of the health check, None without one.
    """

    status: TunnelStatus
    established: int = 0
    rekeys: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    rtt: Histogram | None = None
    jitter: Histogram | None = None


class Operations(Protocol):
    """The daemon as its operator sees it."""

    def status(self) -> Status:
        """Every tunnel, in the order of the configuration."""

    def tunnel(self, name: str) -> TunnelDetail:
        """Everything about one tunnel but its key."""

    def settings(self, name: str) -> TunnelSettings:
        """Every value of one tunnel that is in force, and where it comes from."""

    def export(self, name: str) -> TunnelExport:
        """One tunnel as a TOML file, as it was written, without its key."""

    async def up(self, name: str, timeout_s: float) -> ActionResult:
        """Negotiate, and wait until every mapping is up.

        Returns at once if it is up already. Raises NegotiationFailed with the diagnosis' code when the
        attempt failed, or E-TIMEOUT after `timeout_s` seconds (the tunnel goes on trying as configured).
        """

    async def down(self, name: str) -> ActionResult:
        """Close with DELETE; stay down until `up` or a start of vpnd."""

    async def disable(self, name: str) -> ActionResult:
        """Close with DELETE; stay down, also after a start of vpnd, until `enable`."""

    async def enable(self, name: str) -> ActionResult:
        """Take `disable` back. Raises Conflict where a file says `enabled = false`."""

    async def reset(self, name: str, timeout_s: float) -> ActionResult:
        """Delete the SAs and negotiate again; waits and raises as `up` does."""

    async def rekey(self, name: str, ike: bool, child: bool, timeout_s: float) -> ActionResult:
        """Replace the SAs now, without loss; waits for the successors. Neither flag means both.

        Raises Conflict (E-NOT-UP) if the tunnel is not up, NegotiationFailed if the peer refused.
        """

    async def switch(self, group: str, tunnel: str | None) -> GroupStatus:
        """Let `tunnel` carry the routes of a group, or, with None, let health and priority decide again.

        Raises UnknownGroup, or Conflict (E-NOT-UP) for a tunnel that cannot carry traffic now.
        """

    def keys(self) -> KeyList:
        """The pre-shared keys of every tunnel, as fingerprints, and which are in use."""

    def keys_of(self, name: str) -> KeyStatus:
        """Those of one tunnel."""

    async def rotate_key(self, name: str, request: RotateRequest) -> KeyRotation:
        """One step in the replacement of a tunnel's key; of a file's tunnel, what to write for it.

        Raises Conflict for a step that does not fit, NegotiationFailed where the key is not proved in time.
        """

    def why(self, name: str) -> Why:
        """The last failure of this tunnel, explained."""

    def trace(self, name: str) -> Trace:
        """The decoded last IKE messages, oldest first."""

    def captures_for_admins(self) -> bool:
        """Whether the configuration lets others than root capture."""

    def capture(self, name: str, wanted: CaptureRequest) -> AsyncGenerator[bytes, None]:
        """What the tunnel carries from now on, as the pieces of a pcapng file. Raises Conflict."""

    async def bundle(self, tunnels: Sequence[str]) -> Bundle:
        """What support needs, without a key: of these tunnels, or of all."""

    def events(self, follow: bool, after: str | None) -> AsyncIterator[Event]:
        """The events that are kept, oldest first; with `follow`, new ones as they happen, without end.

        `after`: only those after the event with this id.

        `EventLog.stream` is this: a reader that does not keep up loses the oldest, and learns how many.
        """

    async def reload(self) -> ReloadResult:
        """Apply the changed files, all or nothing. Raises InvalidConfiguration, having changed nothing."""

    async def plan(self, back: int | None) -> Plan:
        """What `apply` would do, or with `back` what `rollback` would; nothing is changed.

        Raises InvalidConfiguration, or Conflict (E-NO-CONFIGURATION, E-LEFT-OUT) for an older one.
        """

    async def apply(self, confirm_s: float | None) -> Applied:
        """Put the files in force, all or nothing, for good or for `confirm_s` seconds until `confirm`.

        Raises InvalidConfiguration, or OperationError (E-STATE) where there would be no way back.
        """

    async def confirm(self) -> Confirmed:
        """What `apply` has put in force stays. Raises Conflict (E-NOT-PENDING)."""

    async def rollback(self, back: int | None) -> Applied:
        """An older configuration is in force again; the files stay as they are. Raises as `plan`."""

    def configurations(self) -> Configurations:
        """Those that are kept."""

    def reloading(self) -> ReloadProgress:
        """Whether a configuration is being applied, and how far that is."""

    async def put_tunnel(self, name: str, table: Mapping[str, object]) -> TunnelChange:
        """Create or change a tunnel from the shape of its TOML table, and keep it in the state directory.

        `table` may hold `customer_gateway` as a table with the address instead of a name. Raises
        InvalidConfiguration, or Conflict (E-FROM-FILE) for a tunnel that an operator's file defines.
        """

    async def check_tunnel(self, name: str, table: Mapping[str, object]) -> TunnelCheck:
        """What `put_tunnel` would say, without changing anything; a key may be missing.

        Raises Conflict (E-FROM-FILE) as that does.
        """

    def gateway_detail(self) -> GatewayDetail:
        """The gateway, and where its labels can be changed."""

    async def put_gateway(self, table: Mapping[str, object]) -> GatewayChange:
        """Set the gateway's labels: what `table` leaves out has none any more.

        Raises InvalidConfiguration, or Conflict (E-FROM-FILE) where the operator's file has one of them.
        """

    def customer_gateways(self) -> list[CustomerGatewayStatus]:
        """Those with a name of their own, in the order of the configuration."""

    def customer_gateway(self, name: str) -> CustomerGatewayStatus:
        """One of them. Raises UnknownCustomerGateway."""

    async def put_customer_gateway(self, name: str, table: Mapping[str, object]) -> CustomerGatewayChange:
        """Create or change a customer gateway from the shape of its TOML table, and the tunnels to it.

        Raises InvalidConfiguration, or Conflict (E-FROM-FILE) for one that an operator's file defines.
        """

    async def delete_customer_gateway(self, name: str) -> CustomerGatewayChange:
        """Forget a customer gateway that was made through the API.

        Raises UnknownCustomerGateway, or Conflict: E-FROM-FILE, or E-IN-USE while a tunnel names it.
        """

    def command(self, by: str, text: str, tunnel: str | None = None) -> None:
        """Say in an event who has changed what."""

    def guessed(self, peer: str) -> None:
        """Say in an event that a token that is not valid came from this address."""

    def key_references(self, tunnel: str) -> Mapping[str, str]:
        """Where the keys of a tunnel of the API are, by their names in its table; none of a file's tunnel."""

    async def delete_tunnel(self, name: str) -> TunnelChange:
        """Close and forget a tunnel made through the API, and its key. Raises Conflict (E-FROM-FILE)."""

    def gateway(self) -> GatewayStatus:
        """The gateway's part of the status."""

    def figures(self) -> Iterator[TunnelFigures]:
        """Every tunnel, each read when it is asked for: with many the loop can go on in between.

        A tunnel that is removed meanwhile is left out.
        """

    def counters(self) -> Mapping[str, int]:
        """Counts that belong to no tunnel, by reason: `ike_unknown_peer`, `esp_no_sa`."""

    def loop_lag(self) -> Histogram:
        """How late the daemon came to what was due, in seconds, since its start."""
