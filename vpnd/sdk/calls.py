"""What can be asked, as values: the request, and what its answer is. Both clients make theirs of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVar

from vpnd.sdk.models import (
    ActionResult,
    Applied,
    Bundle,
    Configurations,
    Confirmed,
    CustomerGatewayChange,
    CustomerGateways,
    CustomerGatewayStatus,
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
from vpnd.sdk.transport import customer_gateway_path, token_path, tunnel_path, with_query

T = TypeVar("T")

RELOAD_LIMIT = 86400.0
"""Ours, in seconds: a reload takes as long as it takes."""

PLAN_LIMIT = 60.0
"""Ours, in seconds: a plan of 1,000 tunnels on a busy machine."""


class Page(TypedDict, total=False):
    """Which part of a list: at most `limit` entries, after `offset` of those that match."""

    limit: int
    offset: int


BUNDLE_LIMIT = 60.0
"""Ours, in seconds: what a daemon with a thousand tunnels may take for a bundle."""


class TunnelFilter(Page, total=False):
    """Which tunnels: those that match every key; of a list one of its values. Text is found in any case."""

    state: Sequence[Literal["down", "waiting", "connecting", "up", "unhealthy"]]
    negotiation: Sequence[Literal["active", "passive", "traffic-triggered"]]
    role: Literal["primary", "secondary"]
    carries_traffic: bool
    peer: str
    code: Sequence[str]
    text: str


class CustomerGatewayFilter(Page, total=False):
    """Which customer gateways; `used`: named by a tunnel; `from_api`: made over the API."""

    text: str
    used: bool
    from_api: bool


class EventFilter(TypedDict, total=False):
    """Which events: those that match every key; of a list one of its values. They end after `limit`."""

    tunnel: Sequence[str]
    event: Sequence[str]
    code: Sequence[str]
    text: str
    since: datetime
    limit: int


class TraceFilter(TypedDict, total=False):
    """Which IKE messages; `exchange`: found in the name of one; `after`: the id of the last that is known."""

    since: datetime
    exchange: Sequence[str]
    after: int


class CaptureBounds(TypedDict, total=False):
    """What is captured, all of it by default, and when it ends: after `seconds`, or so many `bytes`."""

    inner: bool
    outer: bool
    ike: bool
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request; `wait_s` is how many seconds the action itself may take."""

    answer: type[T]
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    wait_s: float = 0


def status(wanted: TunnelFilter) -> Call[Status]:
    return Call(Status, "GET", with_query("/v1/status", wanted))


def tunnels(wanted: TunnelFilter) -> Call[TunnelList]:
    return Call(TunnelList, "GET", with_query("/v1/tunnels", wanted))


def tunnel(name: str) -> Call[TunnelDetail]:
    return Call(TunnelDetail, "GET", tunnel_path(name))


def why(name: str) -> Call[Why]:
    return Call(Why, "GET", tunnel_path(name, "why"))


def settings(name: str) -> Call[TunnelSettings]:
    return Call(TunnelSettings, "GET", tunnel_path(name, "settings"))


def export(name: str) -> Call[TunnelExport]:
    return Call(TunnelExport, "GET", tunnel_path(name, "export"))


def peer_config(name: str, kind: str) -> Call[TunnelPeerConfig]:
    return Call(TunnelPeerConfig, "GET", with_query(tunnel_path(name, "peer-config"), {"kind": kind}))


def keys() -> Call[KeyList]:
    return Call(KeyList, "GET", "/v1/keys")


def keys_of(name: str) -> Call[KeyStatus]:
    return Call(KeyStatus, "GET", tunnel_path(name, "psk"))


def rotate_key(
    name: str, step: str, key: str | None, retire_after: datetime | None, force: bool, timeout_s: float
) -> Call[KeyRotation]:
    text = f"plain:{key}" if key is not None else None
    body = {"step": step, "force": force, "timeout_s": timeout_s}
    end = retire_after.isoformat() if retire_after is not None else None
    path = tunnel_path(name, "psk", "rotate")
    return Call(KeyRotation, "POST", path, body | {"key": text, "retire_after": end}, timeout_s)


def trace(name: str, limit: int | None, wanted: TraceFilter) -> Call[Trace]:
    return Call(Trace, "GET", with_query(tunnel_path(name, "trace"), {"limit": limit, **wanted}))


def bundle(tunnels: Sequence[str]) -> Call[Bundle]:
    return Call(Bundle, "GET", with_query("/v1/bundle", {"tunnel": tunnels}), wait_s=BUNDLE_LIMIT)


def up(name: str, timeout_s: float) -> Call[ActionResult]:
    return Call(ActionResult, "POST", tunnel_path(name, "up"), {"timeout_s": timeout_s}, timeout_s)


def down(name: str) -> Call[ActionResult]:
    return Call(ActionResult, "POST", tunnel_path(name, "down"))


def disable(name: str) -> Call[ActionResult]:
    return Call(ActionResult, "POST", tunnel_path(name, "disable"))


def enable(name: str) -> Call[ActionResult]:
    return Call(ActionResult, "POST", tunnel_path(name, "enable"))


def reset(name: str, timeout_s: float) -> Call[ActionResult]:
    return Call(ActionResult, "POST", tunnel_path(name, "reset"), {"timeout_s": timeout_s}, timeout_s)


def rekey(name: str, ike: bool, child: bool, timeout_s: float) -> Call[ActionResult]:
    body = {"ike": ike, "child": child, "timeout_s": timeout_s}
    return Call(ActionResult, "POST", tunnel_path(name, "rekey"), body, timeout_s)


def switch(group: str, tunnel: str | None) -> Call[GroupStatus]:
    return Call(GroupStatus, "POST", "/v1/switch", {"group": group, "tunnel": tunnel})


def put_tunnel(name: str, table: Mapping[str, Any]) -> Call[TunnelChange]:
    return Call(TunnelChange, "PUT", tunnel_path(name), table)


def check_tunnel(name: str, table: Mapping[str, Any]) -> Call[TunnelCheck]:
    return Call(TunnelCheck, "POST", tunnel_path(name, "check"), table)


def gateway() -> Call[GatewayDetail]:
    return Call(GatewayDetail, "GET", "/v1/gateway")


def put_gateway(labels: Mapping[str, Any]) -> Call[GatewayChange]:
    return Call(GatewayChange, "PUT", "/v1/gateway", labels)


def customer_gateways(wanted: CustomerGatewayFilter) -> Call[CustomerGateways]:
    return Call(CustomerGateways, "GET", with_query("/v1/customer-gateways", wanted))


def customer_gateway(name: str) -> Call[CustomerGatewayStatus]:
    return Call(CustomerGatewayStatus, "GET", customer_gateway_path(name))


def put_customer_gateway(name: str, table: Mapping[str, Any]) -> Call[CustomerGatewayChange]:
    return Call(CustomerGatewayChange, "PUT", customer_gateway_path(name), table)


def delete_customer_gateway(name: str) -> Call[CustomerGatewayChange]:
    return Call(CustomerGatewayChange, "DELETE", customer_gateway_path(name))


def delete_tunnel(name: str) -> Call[TunnelChange]:
    return Call(TunnelChange, "DELETE", tunnel_path(name))


def reload() -> Call[ReloadResult]:
    return Call(ReloadResult, "POST", "/v1/reload", None, RELOAD_LIMIT)


def plan(back: int | None) -> Call[Plan]:
    return Call(Plan, "GET", with_query("/v1/plan", {"back": back}), wait_s=PLAN_LIMIT)


def apply(confirm_s: float | None) -> Call[Applied]:
    return Call(Applied, "POST", "/v1/apply", {"confirm_s": confirm_s}, RELOAD_LIMIT)


def confirm() -> Call[Confirmed]:
    return Call(Confirmed, "POST", "/v1/confirm")


def rollback(back: int | None) -> Call[Applied]:
    return Call(Applied, "POST", "/v1/rollback", {"back": back}, RELOAD_LIMIT)


def configurations() -> Call[Configurations]:
    return Call(Configurations, "GET", "/v1/configurations")


def reload_progress() -> Call[ReloadProgress]:
    return Call(ReloadProgress, "GET", "/v1/reload")


def tokens() -> Call[TokenList]:
    return Call(TokenList, "GET", "/v1/tokens")


def create_token(name: str, role: str) -> Call[TokenCreated]:
    return Call(TokenCreated, "POST", "/v1/tokens", {"name": name, "role": role})


def revoke_token(name: str) -> Call[TokenRevoked]:
    return Call(TokenRevoked, "DELETE", token_path(name))
