"""What the life of a tunnel asks of the gateway. `Tunnels.outputs` is drained after each input."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vpnd.model.diagnosis import Code, Diagnosis


class TunnelState(Enum):
    """What an operator sees of a tunnel."""

    DOWN = "down"
    """Closed by the operator, or this host cannot carry it; it stays so until an operator acts."""
    WAITING = "waiting"
    """Ready: for the peer to begin (passive), or for a packet (traffic-triggered)."""
    CONNECTING = "connecting"
    """Negotiating, or between two attempts."""
    UP = "up"
    """At least one mapping has its SAs."""
    UNHEALTHY = "unhealthy"
    """As UP, but the health check failed: business traffic is interrupted."""


class MappingState(Enum):
    """What an operator sees of one mapping."""

    DOWN = "down"
    WAITING = "waiting"
    CONNECTING = "connecting"
    UP = "up"


@dataclass(frozen=True, slots=True)
class Initiate:
    """Negotiate SAs for this mapping, with an IKE SA first if there is none."""

    tunnel: str
    mapping: int


@dataclass(frozen=True, slots=True)
class CloseTunnel:
    """Say DELETE to the peer for everything; all SAs of the tunnel go."""

    tunnel: str
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class Resolve:
    """Look the peer's name up; the answer comes back as `resolved` or `resolve_failed`."""

    tunnel: str


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The tunnel's state is another now. `diagnosis` says why, where something failed."""

    tunnel: str
    before: TunnelState
    after: TunnelState
    diagnosis: Diagnosis | None


@dataclass(frozen=True, slots=True)
class MappingChanged:
    """One mapping came up or went down."""

    tunnel: str
    mapping: int
    state: MappingState
    diagnosis: Diagnosis | None


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt ended without SAs. `retry_in` is in seconds; None: nobody asked for another.

    `renewal`: it was to make a successor of what is up and stays so: of a mapping's SAs, or of the IKE SA.
    `unproven`: it was the attempt of a peer that is not authenticated.
    """

    tunnel: str
    mapping: int | None
    diagnosis: Diagnosis
    retry_in: float | None
    renewal: bool = False
    unproven: bool = False


@dataclass(frozen=True, slots=True)
class Impaired:
    """Something with this code keeps a tunnel that is up from what it is for, or no longer does (None)."""

    tunnel: str
    code: Code
    diagnosis: Diagnosis | None


Command = Initiate | CloseTunnel | Resolve | StateChanged | MappingChanged | AttemptFailed | Impaired
