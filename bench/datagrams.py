"""UDP datagrams through a tunnel, many with one call: the load costs little beside the gateways."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass

from tests.lab.lab import Namespace

PORT = 9000
AT_ONCE = 64
LARGEST = 2048
BUFFER = 16 << 20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
MSG_WAITFORONE = 0x10000
PAUSE = 0.0002
"""Seconds between two looks at whether a datagram is due."""
LAST = 0.2
"""Seconds without a datagram after which none comes any more."""


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """`struct msghdr` (recvmsg(2))."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """`struct mmsghdr` (recvmmsg(2))."""

    _fields_ = (("message", _Message), ("length", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)


class _Batch:
    """Room for as many datagrams as go with one call; to be kept for as long as `headers` are used."""

    def __init__(self, size: int) -> None:
        self._memory = ctypes.create_string_buffer(AT_ONCE * size)
        start = ctypes.addressof(self._memory)
        self._vectors = (_Vector * AT_ONCE)(*(_Vector(start + at * size, size) for at in range(AT_ONCE)))
        self.headers = (_Header * AT_ONCE)()
        for header, vector in zip(self.headers, self._vectors, strict=True):
            header.message.vectors, header.message.vector_count = ctypes.pointer(vector), 1


def _done(count: int) -> int:
    """How many datagrams went or came; none where the kernel had no room or nothing came in time."""
    if count >= 0:
        return count
    number = ctypes.get_errno()
    if number in (errno.EAGAIN, errno.ENOBUFS, errno.EINTR, errno.ECONNREFUSED):
        return 0
    raise OSError(number, os.strerror(number))


@dataclass(frozen=True)
class Carried:
    """How many datagrams were sent, in how many seconds, and how many arrived."""

    sent: int
    arrived: int
    seconds: float


def carry(
    source: Namespace, local: str, target: Namespace, remote: str, size: int, seconds: float, rate: float
) -> Carried:
    """Send datagrams of `size` bytes of data for so many seconds, `rate` in each, or with 0 as many as go."""
    with (
        source.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        target.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        receiver.bind((remote, PORT))
        sender.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
        sender.bind((local, 0))
        sender.connect((remote, PORT))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(LAST * 1e6)))
        ended = threading.Event()
        arrived = [0]
        counting = threading.Thread(target=_count, args=(receiver.fileno(), ended, arrived))
        counting.start()
        try:
            sent, elapsed = _send(sender.fileno(), size, seconds, rate)
        finally:
            ended.set()
            counting.join()
    return Carried(sent, arrived[0], elapsed)


def _send(descriptor: int, size: int, seconds: float, rate: float) -> tuple[int, float]:
    batch = _Batch(size)
    began = time.monotonic()
    sent = 0
    while (elapsed := time.monotonic() - began) < seconds:
        due = min(AT_ONCE, int(elapsed * rate) - sent) if rate else AT_ONCE
        if due < 1:
            time.sleep(PAUSE)
            continue
        sent += _done(_libc.sendmmsg(descriptor, batch.headers, due, 0))
    return sent, elapsed


def _count(descriptor: int, ended: threading.Event, arrived: list[int]) -> None:
    """Count what comes, until nothing does after the end."""
    batch = _Batch(LARGEST)
    while True:
        count = _done(_libc.recvmmsg(descriptor, batch.headers, AT_ONCE, MSG_WAITFORONE, None))
        arrived[0] += count
        if count == 0 and ended.is_set():
            return
