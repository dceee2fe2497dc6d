"""vpnd with clocks that a test can set: `python -m tests.faults.clocks FILE run ...` is `vpnd run ...`.

The file holds the seconds by which the calendar and CLOCK_BOOTTIME are ahead; SIGUSR2 has it read again. The
machine's own clocks stay as they are: what a process asks of them goes through `time` and `SystemClock`.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from tests.lab.process import wait_until
from tests.lab.vpnd import Vpnd
from vpnd.daemon.main import main
from vpnd.host.clock import SystemClock

ahead = {"wall": 0.0, "boot": 0.0}
"""Seconds."""


def command(file: Path) -> tuple[str, ...]:
    """What stands for `vpnd run`."""
    return (sys.executable, "-m", "tests.faults.clocks", str(file), "run")


def turn(vpnd: Vpnd, file: Path, wall: float = 0.0, asleep: float = 0.0) -> None:
    """Set the calendar of a daemon that runs ahead by so many seconds; returns when it knows.

    CLOCK_BOOTTIME goes on by the seconds `asleep`. It never goes back, as that of the kernel does not.
    """
    known = file.with_suffix(".known")
    known.unlink(missing_ok=True)
    boot = json.loads(file.read_text())["boot"] if file.exists() else 0.0
    file.write_text(json.dumps({"wall": wall, "boot": boot + asleep}))
    vpnd.child.signal(signal.SIGUSR2)
    wait_until(known.exists, "the daemon to know the time")


def hang(file: Path) -> None:
    """From now on the clocks of this process are those of the file."""
    gettime, calendar, wall = time.clock_gettime, time.time, SystemClock.wall

    def read(_number: int, _frame: object) -> None:
        ahead.update(json.loads(file.read_text()))
        file.with_suffix(".known").touch()

    def shifted(clock: int) -> float:
        offset = {time.CLOCK_BOOTTIME: ahead["boot"], time.CLOCK_REALTIME: ahead["wall"]}
        return gettime(clock) + offset.get(clock, 0.0)

    def shifted_wall(self: SystemClock) -> datetime:
        return wall(self) + timedelta(seconds=ahead["wall"])

    time.clock_gettime = shifted
    time.time = lambda: calendar() + ahead["wall"]
    SystemClock.wall = shifted_wall  # type: ignore[method-assign]  # the test's place
    signal.signal(signal.SIGUSR2, read)


if __name__ == "__main__":
    hang(Path(sys.argv.pop(1)))
    main()
