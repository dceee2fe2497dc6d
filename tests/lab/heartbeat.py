"""Pings ten times a second for the length of a `with` block, each answer with its time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from types import TracebackType
from typing import Self

from tests.lab.lab import Namespace
from tests.lab.process import Child

INTERVAL = 0.1
ANSWER = re.compile(r"^\[([\d.]+)\] \d+ bytes", re.MULTILINE)


class Heartbeat:
    """One ping that runs. Times are Unix times, as those of vpnd's events."""

    def __init__(self, source: Namespace, local: str, remote: str, interval: float = INTERVAL) -> None:
        self._source = source
        self._command = ("ping", "-D", "-O", "-n", "-i", f"{interval:g}", "-I", local, remote)
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self._child = self._source.spawn(*self._command, log=f"heartbeat-{time.monotonic_ns()}.log")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """No further ping."""
        if self._child is not None:
            self._child.stop()

    @property
    def answers(self) -> list[float]:
        """When each answer came, oldest first."""
        return [float(at) for at in ANSWER.findall(self._child.output())] if self._child is not None else []

    def gaps(self) -> Iterator[tuple[float, float]]:
        """Between each two answers."""
        return pairwise(self.answers)

    def first_after(self, moment: float) -> float | None:
        """The first answer after a moment."""
        return next((at for at in self.answers if at > moment), None)
