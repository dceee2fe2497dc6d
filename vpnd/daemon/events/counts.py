"""What happened to each tunnel, as numbers: how often it was negotiated, rekeyed, refused and lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from vpnd.ike.outputs import ChildReplaced, Established, IkeReplaced, Output
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.tunnel.commands import AttemptFailed, Command, StateChanged, TunnelState
from vpnd.tunnel.prober import ProberOutput
from vpnd.tunnel.route_selection import RouteSelectionOutput

ESTABLISHED, IKE_REKEYED, ESP_REKEYED = "established", "ike-rekeyed", "esp-rekeyed"

_CARRIES = (TunnelState.UP, TunnelState.UNHEALTHY)


@dataclass(slots=True)
class TunnelCounts:
    """Since the daemon began, or since the tunnel was made.

    `done`: what was negotiated, by the words below; `failures` by the code of their diagnosis.
    """

    done: Counter[str] = field(default_factory=Counter)
    failures: Counter[Code] = field(default_factory=Counter)


class Counts:
    """Counts what the core asks the gateway to perform."""

    def __init__(self) -> None:
        self._tunnels: dict[str, TunnelCounts] = {}

    def of(self, tunnel: str) -> TunnelCounts:
        """Those of one tunnel."""
        return self._tunnels.get(tunnel) or TunnelCounts()

    def count(self, output: Output | Command | RouteSelectionOutput | ProberOutput) -> None:
        """One effect is about to be performed."""
        match output:
            case Established(tunnel):
                self._at(tunnel).done[ESTABLISHED] += 1
            case IkeReplaced(tunnel):
                self._at(tunnel).done[IKE_REKEYED] += 1
            case ChildReplaced():
                self._at(output.tunnel).done[ESP_REKEYED] += 1
            case AttemptFailed(tunnel, _, diagnosis):
                self._fail(tunnel, diagnosis)
            case StateChanged(tunnel, before, after, diagnosis) if (
                before in _CARRIES and after not in _CARRIES
            ):
                self._fail(tunnel, diagnosis)
            case _:
                pass

    def forget(self, tunnel: str) -> None:
        """The tunnel is removed."""
        self._tunnels.pop(tunnel, None)

    def _fail(self, tunnel: str, diagnosis: Diagnosis | None) -> None:
        if diagnosis is not None:
            self._at(tunnel).failures[diagnosis.code] += 1

    def _at(self, tunnel: str) -> TunnelCounts:
        return self._tunnels.setdefault(tunnel, TunnelCounts())
