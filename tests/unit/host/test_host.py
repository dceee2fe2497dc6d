"""An interface of another program that has the name of a tunnel's: left alone, and told of in plain words."""

from __future__ import annotations

import asyncio

import pytest

from tests.lab.lab import Lab
from tests.unit.host.entered import inside
from vpnd.host import host as hosts
from vpnd.host import tun
from vpnd.host.host import HostFailed, LinuxHost
from vpnd.host.routes import LINK_GROUP

KINDS = {
    "tun": ("tuntap", "add", "t0", "mode", "tun"),
    "tap": ("tuntap", "add", "t0", "mode", "tap"),
    "veth": ("link", "add", "t0", "type", "veth", "peer", "name", "t1"),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "BUSY_TRIES", 2)


def refusal() -> str:
    """What an operator reads when `t0` cannot be made."""

    async def ask() -> str:
        host = LinuxHost()
        try:
            with pytest.raises(HostFailed) as refused:
                await host.open_interface("t0", 1400, 44)
            await host.close_interfaces([])
        finally:
            await host.close()
        return str(refused.value)

    return asyncio.run(ask())


@pytest.mark.root
@pytest.mark.parametrize("kind", KINDS)
def test_an_interface_of_another_program_is_left_alone(kind: str, lab: Lab) -> None:
    namespace = lab.namespace("host")
    namespace.ip(*KINDS[kind])

    def work() -> None:
        assert refusal() == "there is an interface t0 already, which another program has made"

    inside(namespace, work)
    there = namespace.ip("-d", "link", "show", "t0").stdout
    assert "UP" not in there
    assert f"group {LINK_GROUP}" not in there


def test_a_machine_without_tun_devices_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun, "DEVICE", "/nowhere/tun")
    monkeypatch.setattr(hosts, "Netlink", lambda: None)

    async def ask() -> str:
        host = LinuxHost()
        with pytest.raises(HostFailed) as refused:
            await host.open_interface("t0", 1400, 44)
        return str(refused.value)

    assert asyncio.run(ask()) == "/nowhere/tun: No such file or directory"
