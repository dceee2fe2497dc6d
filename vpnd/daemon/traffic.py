"""Counters of a mapping that go on over the SA pairs that carry it one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vpnd.datapath.interface import SaStats


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets and bytes of inner packets, each way."""

    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def plus(self, stats: SaStats | None) -> Traffic:
        """With those of one SA pair."""
        if stats is None:
            return self
        return Traffic(
            self.packets_in + stats.packets_in,
            self.packets_out + stats.packets_out,
            self.bytes_in + stats.bytes_in,
            self.bytes_out + stats.bytes_out,
        )


class Totals:
    """What the SA pairs that are gone have carried, by tunnel and mapping."""

    def __init__(self) -> None:
        self._gone: dict[str, dict[int, Traffic]] = {}

    def count(self, tunnel: str, mapping: int, stats: SaStats | None) -> None:
        """An SA pair is about to be removed."""
        if stats is not None:
            of_tunnel = self._gone.setdefault(tunnel, {})
            of_tunnel[mapping] = of_tunnel.get(mapping, Traffic()).plus(stats)

    def with_live(self, tunnel: str, mapping: int, live: Iterable[SaStats | None]) -> Traffic:
        """With the SA pairs that are installed now."""
        total = self._gone.get(tunnel, {}).get(mapping, Traffic())
        for stats in live:
            total = total.plus(stats)
        return total

    def forget_mapping(self, tunnel: str, mapping: int) -> None:
        """The mapping is removed; another one may get its number."""
        self._gone.get(tunnel, {}).pop(mapping, None)

    def forget(self, tunnel: str) -> None:
        """The tunnel is removed."""
        self._gone.pop(tunnel, None)
