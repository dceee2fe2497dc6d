"""What drives an IKE SA besides messages and timers, and what the sessions of both versions have in common.

A session turns each input into a cause; the row of its version's table says what follows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from vpnd.ike.registry import Registry
from vpnd.ike.session import Phase
from vpnd.model.child import Path
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import PeerPolicy


class Cause:
    """Base of commands, and of the outcomes that each version has in its `causes`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Want(Cause):
    """Bring the SA pair of a mapping up; `replaces` (IKEv1): as the successor of that pair."""

    mapping: int
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class CloseChild(Cause):
    """Close one SA pair."""

    spi_in: int
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class RekeyNow(Cause):
    """Rekey the IKE SA."""


@dataclass(frozen=True, slots=True)
class RekeyChildNow(Cause):
    """Rekey one SA pair."""

    spi_in: int


@dataclass(frozen=True, slots=True)
class Probe(Cause):
    """Check that the peer is alive."""


@dataclass(frozen=True, slots=True)
class Moved(Cause):
    """The peer has sent something authentic along this path."""

    path: Path


class Facts(Protocol):
    """What is known of an IKE SA of either version."""

    policy: PeerPolicy
    path: Path
    initiator: bool

    @property
    def tunnel(self) -> str:
        """The name of the tunnel."""

    @property
    def local_spi(self) -> bytes:
        """The SPI that this side chose."""

    @property
    def phase(self) -> Phase:
        """How far it is for the other parts of the gateway."""


class Commanded(ABC):
    """The part of `vpnd.ike.session.Session` that hands facts out and turns commands into causes."""

    def __init__(self, registry: Registry, facts: Facts) -> None:
        self._registry = registry
        self._facts = facts

    @property
    def tunnel(self) -> str:
        return self._facts.tunnel

    @property
    def local_spi(self) -> bytes:
        return self._facts.local_spi

    @property
    def initiator(self) -> bool:
        return self._facts.initiator

    @property
    def path(self) -> Path:
        return self._facts.path

    @property
    def policy(self) -> PeerPolicy:
        return self._facts.policy

    @policy.setter
    def policy(self, policy: PeerPolicy) -> None:
        self._facts.policy = policy

    @property
    def phase(self) -> Phase:
        return self._facts.phase

    @abstractmethod
    def command(self, now: float, cause: object) -> None:
        """Run the row of a command or a timer; one without a row does nothing."""

    def want(self, now: float, mapping: int) -> None:
        self.command(now, Want(mapping))

    def close_child(self, now: float, spi_in: int, diagnosis: Diagnosis) -> None:
        self.command(now, CloseChild(spi_in, diagnosis))

    def rekey(self, now: float) -> None:
        self.command(now, RekeyNow())

    def rekey_child(self, now: float, spi_in: int) -> None:
        self.command(now, RekeyChildNow(spi_in))

    def probe(self, now: float) -> None:
        self.command(now, Probe())

    def moved(self, now: float, path: Path) -> None:
        self.command(now, Moved(path))
