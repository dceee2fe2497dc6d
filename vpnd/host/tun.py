"""Opening a TUN device: the descriptor through which a tunnel's packets enter and leave the kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass

DEVICE = "/dev/net/tun"

TUNSETIFF = 0x400454CA

IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_TUN_EXCL = 0x8000

_NOT_SUPPORTED = frozenset({errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP})

MAXIMUM_NAME = 15
"""Characters of an interface name: IFNAMSIZ less the terminating zero."""


@dataclass(frozen=True, slots=True)
class Tun:
    """An open TUN. The interface lives as long as the descriptor, unless it is made persistent."""

    name: str
    fd: int
    vnet_header: bool

    def close(self) -> None:
        """Close the descriptor; the interface goes with it."""
        os.close(self.fd)


def open_tun(name: str, vnet_header: bool = True) -> Tun:
    """Make the TUN `name`, in the caller's network namespace.

    With `vnet_header`, each packet has a `virtio_net_hdr` before it: large TCP packets can then be written
    whole. What may be read unfinished (TUNSETOFFLOAD) the engine asks for. A kernel that refuses the header
    gives a plain TUN; `Tun.vnet_header` says which it is. The descriptor is non-blocking and closed on exec.
    Raises OSError: EPERM without CAP_NET_ADMIN, EBUSY where there is an interface of this name: one of
    another program is left alone, also where no process has it open.
    """
    if not 0 < len(name.encode()) <= MAXIMUM_NAME:
        raise ValueError(f"an interface name has 1 to {MAXIMUM_NAME} characters: {name!r}")
    if vnet_header:
        try:
            return Tun(name, _open(name, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR), True)
        except OSError as refused:
            if refused.errno not in _NOT_SUPPORTED:
                raise
    return Tun(name, _open(name, IFF_TUN | IFF_NO_PI), False)


def _open(name: str, flags: int) -> int:
    fd = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags | IFF_TUN_EXCL))
    except OSError:
        os.close(fd)
        raise
    return fd
