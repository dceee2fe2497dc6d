"""What a test does inside a network namespace of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.lab.lab import Namespace
from vpnd.host.netlink import Netlink


def inside(namespace: Namespace, work: Callable[[], None]) -> None:
    """Do it in a thread that has entered the namespace; raises what it raised."""
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            with namespace.entered():
                work()
        except BaseException as error:  # reported by the caller, whatever it is
            failed.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def with_netlink(namespace: Namespace, work: Callable[[Netlink], None]) -> None:
    """The same, with the netlink of a daemon that runs there."""
    inside(namespace, lambda: work(Netlink()))
