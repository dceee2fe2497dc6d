"""What can be asked, as values: the request, and what its answer is. Both clients make theirs of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from vpnd.sdk.models import (
    ActionResult,
    CustomerGateways,
    GroupStatus,
    ReloadProgress,
    ReloadResult,
    Status,
    Trace,
    TunnelChange,
    TunnelCheck,
    TunnelDetail,
    Why,
)
from vpnd.sdk.transport import tunnel_path

T = TypeVar("T")

RELOAD_LIMIT = 86400.0
"""Ours, in seconds: a reload takes as long as it takes."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request; `wait_s` is how many seconds the action itself may take."""

    answer: type[T]
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    wait_s: float = 0


def status() -> Call[Status]:
    return Call(Status, "GET", "/v1/status")


def tunnel(name: str) -> Call[TunnelDetail]:
    return Call(TunnelDetail, "GET", tunnel_path(name))


def why(name: str) -> Call[Why]:
    return Call(Why, "GET", tunnel_path(name, "why"))


def trace(name: str) -> Call[Trace]:
    return Call(Trace, "GET", tunnel_path(name, "trace"))


def up(name: str, timeout_s: float) -> Call[ActionResult]:
    return Call(ActionResult, "POST", tunnel_path(name, "up"), {"timeout_s": timeout_s}, timeout_s)


def down(name: str) -> Call[ActionResult]:
    return Call(ActionResult, "POST", tunnel_path(name, "down"))


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


def customer_gateways() -> Call[CustomerGateways]:
    return Call(CustomerGateways, "GET", "/v1/customer-gateways")


def delete_tunnel(name: str) -> Call[TunnelChange]:
    return Call(TunnelChange, "DELETE", tunnel_path(name))


def reload() -> Call[ReloadResult]:
    return Call(ReloadResult, "POST", "/v1/reload", None, RELOAD_LIMIT)


def reload_progress() -> Call[ReloadProgress]:
    return Call(ReloadProgress, "GET", "/v1/reload")
