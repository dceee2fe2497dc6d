"""One daemon in a network namespace: two would take each other's routes for leftovers."""

from __future__ import annotations

import socket

NAME = "\0vpnd"
"""An abstract Unix address: the kernel has one of each name in a network namespace (unix(7)), and forgets it
with its process, also when that is killed."""


class AnotherRuns(Exception):
    """Another vpnd runs in this network namespace."""


def only_one_here() -> socket.socket:
    """The mark of the one daemon; close it at the end. Raises AnotherRuns."""
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        mark.bind(NAME)
    except OSError:
        mark.close()
        raise AnotherRuns("another vpnd runs in this network namespace") from None
    return mark
