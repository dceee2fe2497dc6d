"""The one place where the time is read."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Two readings: a count of seconds that never jumps, and what a calendar says."""

    def now(self) -> float:
        """Seconds that go on while the machine is suspended and that no setting of the clock moves."""

    def wall(self) -> datetime:
        """The calendar's time, for logs and status only; no timer depends on it."""


class SystemClock:
    """CLOCK_BOOTTIME, so that lifetimes go on while the machine is suspended, and UTC."""

    def now(self) -> float:
        """Seconds since boot, with suspended time."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)


def suspended_seconds() -> float:
    """How long the machine has been suspended since boot: what lies between the two monotonic clocks.

    The datapath counts with CLOCK_MONOTONIC; its times plus this are times of `SystemClock.now`, since a
    machine that was suspended in between has stopped its timers anyhow.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def at_wall(clock: Clock, now: float, then: float) -> datetime:
    """The calendar's time of the moment `then`, which lies at or before `now`."""
    return clock.wall() - timedelta(seconds=max(0.0, now - then))


def boot() -> str:
    """What the kernel calls the time since it was started; empty where a sandbox hides that.

    The counts of two boots cannot be compared.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
