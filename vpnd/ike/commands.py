"""What drives an IKE SA of either version besides messages and timers; its row says what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import dataclass_transform

from vpnd.model.child import Path
from vpnd.model.diagnosis import Diagnosis


@dataclass_transform(frozen_default=True)
class Cause:
    """Base of commands, and of the outcomes that each version has in its `causes`: frozen dataclasses."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


class Want(Cause):
    """Bring the SA pair of a mapping up, now or once established; no-op when it is up or under way.

    `replaces` (IKEv1): as the successor of that pair.
    """

    mapping: int
    replaces: int | None = None


class Close(Cause):
    """Tell the peer and end: ChildDown for each SA pair, then IkeDown if it was established.

    IKEv2: `receiving` are the inbound SPIs of its pairs that another IKE SA of the tunnel still receives on,
    `handed_over` what it asks for.
    """

    diagnosis: Diagnosis
    receiving: tuple[int, ...] = ()
    handed_over: Cause | None = None


class CloseChild(Cause):
    """DELETE one SA pair; an unknown SPI is ignored."""

    spi_in: int
    diagnosis: Diagnosis


class RekeyNow(Cause):
    """Begin the succession of the IKE SA."""


class RekeyChildNow(Cause):
    """Begin the succession of one SA pair; an unknown SPI is ignored."""

    spi_in: int


class PolicyChanged(Cause):
    """Another policy holds: dead peer detection goes by it, and an IKE SA that does not is succeeded."""


class Probe(Cause):
    """Ask the peer for a sign of life now, unless a request is under way that will tell as well."""


class Moved(Cause):
    """Authenticated ESP came along `path`: PathMoved if the peer is there now (`natt.follows`)."""

    path: Path
