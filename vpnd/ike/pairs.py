"""Which SA pair each mapping sends on, over all IKE SAs of a tunnel: the one place that knows them all.

A version says what it has made, which of two stays, and what is gone. Where the pair that sends goes, or only
receives from now on, and its version has named no other, the newest of those that may send takes its part.
"""

from __future__ import annotations

from vpnd.ike.outputs import (
    ChildDown,
    ChildReplaced,
    ChildRetired,
    ChildUp,
    Decrypted,
    LadderLine,
    OutboundReady,
    Output,
    Story,
    Transmit,
)


class _Mapping:
    """The pairs of one mapping by inbound SPI, the oldest first: whether each may send."""

    __slots__ = ("may_send", "sends")

    def __init__(self) -> None:
        self.may_send: dict[int, bool] = {}
        self.sends: int | None = None

    def add(self, spi_in: int, predecessor: int | None) -> None:
        """A pair is there. It sends, unless it succeeds one that does not."""
        self.may_send[spi_in] = True
        if predecessor is None or self.sends in (None, predecessor):
            if predecessor in self.may_send:
                self.may_send[predecessor] = False
            self.sends = spi_in

    def use(self, spi_in: int) -> None:
        """The pair sends, also one that was succeeded."""
        self.may_send[spi_in] = True
        self.sends = spi_in

    def heir(self, spi_in: int) -> int | None:
        """The newest pair beside this one that may send."""
        able = [one for one, able in self.may_send.items() if able and one != spi_in]
        return able[-1] if able else None


class Pairs:
    """Follows what IKE says of SA pairs, in order, and adds what follows from it for the one that sends."""

    def __init__(self) -> None:
        self._mappings: dict[tuple[str, int], _Mapping] = {}
        self._mapping_of: dict[int, tuple[str, int]] = {}

    def sends(self, tunnel: str, mapping: int) -> int | None:
        """The inbound SPI of the pair that a mapping sends on."""
        found = self._mappings.get((tunnel, mapping))
        return None if found is None else found.sends

    def follow(self, output: Output) -> OutboundReady | None:
        """What is to be done before `output`: another pair sends from now on."""
        if isinstance(output, (Transmit, LadderLine, Decrypted, Story)):
            return None  # most outputs: nothing about a pair
        match output:
            case ChildUp(child):
                self._add(child.tunnel, child.mapping, child.spi_in, None)
            case ChildReplaced(old_spi_in, child):
                self._add(child.tunnel, child.mapping, child.spi_in, old_spi_in)
            case OutboundReady(_, spi_in) if spi_in in self._mapping_of:
                self._mappings[self._mapping_of[spi_in]].use(spi_in)
            case ChildRetired(tunnel, index, spi_in) if spi_in in self._mapping_of:
                return self._hand_over(tunnel, index, spi_in)
            case ChildDown(tunnel, index, spi_in) if spi_in in self._mapping_of:
                ready = self._hand_over(tunnel, index, spi_in)
                self._remove(spi_in)
                return ready
            case _:
                pass
        return None

    def _add(self, tunnel: str, index: int, spi_in: int, predecessor: int | None) -> None:
        self._mapping_of[spi_in] = tunnel, index
        self._mappings.setdefault((tunnel, index), _Mapping()).add(spi_in, predecessor)

    def _hand_over(self, tunnel: str, index: int, spi_in: int) -> OutboundReady | None:
        mapping = self._mappings[self._mapping_of[spi_in]]
        heir = mapping.heir(spi_in)
        if spi_in != mapping.sends:
            mapping.may_send[spi_in] = False
        elif heir is not None:
            mapping.may_send[spi_in] = False
            mapping.sends = heir
            return OutboundReady(tunnel, heir)
        return None

    def _remove(self, spi_in: int) -> None:
        key = self._mapping_of.pop(spi_in)
        mapping = self._mappings[key]
        del mapping.may_send[spi_in]
        if mapping.sends == spi_in:
            mapping.sends = None
        if not mapping.may_send:
            del self._mappings[key]
