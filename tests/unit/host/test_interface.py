"""What is left of an interface that could not be set up. Needs no root: no interface is made."""

from __future__ import annotations

import os

import pytest

from vpnd.host import host
from vpnd.host.host import HostFailed, LinuxHost
from vpnd.host.netlink import Netlink, NetlinkFailed
from vpnd.host.tun import Tun


async def test_the_descriptor_of_a_tun_that_cannot_be_set_up_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, other = os.pipe()

    def refuse(netlink: Netlink, name: str, mtu: int, segments: int) -> None:
        raise NetlinkFailed(f"cannot set {name} up")

    monkeypatch.setattr(host, "open_tun", lambda name: Tun(name, made, True))
    monkeypatch.setattr(Netlink, "set_up", refuse)
    machine = LinuxHost()
    try:
        with pytest.raises(HostFailed, match="cannot set t0 up"):
            await machine.open_interface("t0", 1400, 44)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(made)
    finally:
        os.close(other)
        await machine.close()
