"""Lists of the API: which entries are asked for, and how many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from vpnd.config.values import MomentValue
from vpnd.control.schema import (
    CustomerGateways,
    CustomerGatewayStatus,
    Event,
    Negotiation,
    Trace,
    TraceLine,
    TunnelState,
    TunnelStatus,
)

MAX_LIMIT = 10_000
"""Ours: entries of one answer; as many tunnels as a gateway can have."""

MAX_TEXT = 256
"""Ours: characters of a text that is looked for."""

T = TypeVar("T")

Text = Annotated[str, Field(max_length=MAX_TEXT)]


class Page(BaseModel):
    """Which part of a list. What is not known is refused: a slip would show everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = Field(
        None, ge=1, le=MAX_LIMIT, description="At most so many entries; left out: all.", examples=[100]
    )
    offset: int = Field(
        0, ge=0, le=MAX_LIMIT, description="So many entries that match are left out first.", examples=[0]
    )

    def of(self, entries: Sequence[T]) -> list[T]:
        """The part that was asked for."""
        end = None if self.limit is None else self.offset + self.limit
        return list(entries[self.offset : end])


class TunnelFilter(Page):
    """Which tunnels: those that match every key; of a key that may be repeated, one of its values."""

    state: list[TunnelState] | None = Field(
        None, description="In one of these states; may be repeated.", examples=[["up", "unhealthy"]]
    )
    negotiation: list[Negotiation] | None = Field(
        None, description="With one of these negotiation types; may be repeated.", examples=[["active"]]
    )
    role: Literal["primary", "secondary"] | None = Field(
        None,
        description="primary: of priority 0; secondary: of any other.",
        examples=["primary"],
    )
    carries_traffic: bool | None = Field(
        None, description="Whether it carries the traffic of its routes now.", examples=[True]
    )
    peer: Text | None = Field(
        None,
        description="The peer's address or name as status has it, any case.",
        examples=["198.51.100.1"],
    )
    code: list[Text] | None = Field(
        None, description="With one of these codes as last error; may be repeated.", examples=[["E-PSK"]]
    )
    text: Text | None = Field(
        None,
        description="Found in name, description, peer or vendor, any case.",
        examples=["branch"],
    )

    def matching(self, tunnels: Sequence[TunnelStatus]) -> list[TunnelStatus]:
        """Those that match, in their order, before any limit."""
        return [tunnel for tunnel in tunnels if self._matches(tunnel)]

    def _matches(self, tunnel: TunnelStatus) -> bool:
        error = tunnel.last_error
        return (
            (self.state is None or tunnel.state in self.state)
            and (self.negotiation is None or tunnel.negotiation in self.negotiation)
            and (self.role is None or (tunnel.priority == 0) is (self.role == "primary"))
            and (self.carries_traffic is None or tunnel.carries_traffic is self.carries_traffic)
            and (self.peer is None or self.peer.casefold() == (tunnel.peer.address or "any").casefold())
            and (self.code is None or (error is not None and error.code in self.code))
            and _found(
                self.text, tunnel.name, tunnel.description, tunnel.peer.address or "any", tunnel.peer.vendor
            )
        )


class CustomerGatewayFilter(Page):
    """Which customer gateways: those that match every key."""

    text: Text | None = Field(None, description="Found in name or address, any case.", examples=["branch"])
    used: bool | None = Field(None, description="Whether a tunnel names it.", examples=[True])
    from_api: bool | None = Field(
        None, description="Whether it was made over the API, and can be changed there.", examples=[True]
    )

    def list(self, gateways: Sequence[CustomerGatewayStatus]) -> CustomerGateways:
        """What is answered."""
        found = [one for one in gateways if self._matches(one)]
        return CustomerGateways(customer_gateways=self.of(found), total=len(found))

    def _matches(self, gateway: CustomerGatewayStatus) -> bool:
        return (
            _found(self.text, gateway.name, gateway.address)
            and (self.used is None or bool(gateway.tunnels) is self.used)
            and (self.from_api is None or gateway.from_api is self.from_api)
        )


class TraceFilter(BaseModel):
    """Which IKE messages: those that match every key, and of them the newest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int | None = Field(None, ge=1, le=MAX_LIMIT, description="So many of the newest.", examples=[20])
    since: MomentValue | None = Field(
        None, description="Of this moment or later.", examples=["2026-03-01T14:00:00Z"]
    )
    exchange: list[Text] | None = Field(
        None,
        description="Whose exchange has this in its name, any case; may be repeated.",
        examples=[["IKE_AUTH"]],
    )
    after: int | None = Field(
        None, ge=0, description="Only what came after the message with this id.", examples=[1772373731003]
    )

    def of(self, trace: Trace) -> Trace:
        """The messages that were asked for."""
        found = [line for line in trace.lines if self._matches(line)]
        lines = found if self.limit is None else found[-self.limit :]
        return trace.model_copy(update={"lines": lines})

    def _matches(self, line: TraceLine) -> bool:
        exchange = line.text.partition(" ")[0]
        return (
            (self.since is None or line.at >= self.since)
            and (self.after is None or line.id > self.after)
            and (self.exchange is None or any(_found(one, exchange) for one in self.exchange))
        )


class PlanFilter(BaseModel):
    """What a plan is of: the files, or with `back` an older configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    back: int | None = Field(
        None,
        ge=1,
        le=19,
        description="So many configurations before the one that runs; without it the files.",
        examples=[1],
    )


class EventFilter(BaseModel):
    """Which events: those that match every key; of a key that may be repeated, one of its values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    follow: bool = Field(True, description="Go on with new events, without end.", examples=[False])
    after: str | None = Field(
        None,
        max_length=64,
        description="The id of the last event that is known: only later ones, or all that are kept"
        " if the daemon has restarted since.",
        examples=["5f0c2a9e-17"],
    )
    limit: int | None = Field(
        None,
        ge=1,
        le=MAX_LIMIT,
        description="End after so many events; the next ones come with `after`.",
        examples=[100],
    )
    tunnel: list[Text] | None = Field(
        None, description="Of one of these tunnels; may be repeated.", examples=[["branch-a"]]
    )
    event: list[Text] | None = Field(
        None, description="Of one of these kinds; may be repeated.", examples=[["tunnel-up", "tunnel-down"]]
    )
    code: list[Text] | None = Field(
        None, description="With one of these codes; may be repeated.", examples=[["E-PSK"]]
    )
    text: Text | None = Field(None, description="Found in the event's text, any case.", examples=["phase 1"])
    since: MomentValue | None = Field(
        None, description="Of this moment or later.", examples=["2026-03-01T14:00:00Z"]
    )

    def matches(self, event: Event) -> bool:
        """Whether it was asked for; that some were lost is said in any case."""
        if event.event == MISSED:
            return True
        return (
            (self.tunnel is None or event.tunnel in self.tunnel)
            and (self.event is None or event.event in self.event)
            and (self.code is None or event.code in self.code)
            and _found(self.text, event.text)
            and (self.since is None or event.at >= self.since)
        )


MISSED = "events-missed"
"""The event of a reader that did not keep up."""


def _found(text: str | None, *places: str | None) -> bool:
    return text is None or any(text.casefold() in place.casefold() for place in places if place is not None)
