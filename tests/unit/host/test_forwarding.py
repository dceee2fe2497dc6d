"""What the kernel says of forwarding, and a count of what comes out of a tunnel, which leaves nothing."""

from __future__ import annotations

import asyncio
from struct import pack

import pytest

from vpnd.host import forwarding
from vpnd.host.forwarding import Passed
from vpnd.host.host import HostFailed, LinuxHost
from vpnd.host.nftables import FilterFailed

LISTED = """table inet vpnd-look {
	chain prerouting {
		type filter hook prerouting priority raw - 10; policy accept;
		iifname "vpn-a" counter packets 7 bytes 588
	}

	chain input {
		type filter hook input priority 500; policy accept;
		iifname "vpn-a" counter packets 1 bytes 84
	}

	chain postrouting {
		type filter hook postrouting priority 500; policy accept;
		iifname "vpn-a" counter packets 2 bytes 168
	}
}
"""


class Nft:
    """In place of the program: what it was given, and what it lists."""

    def __init__(self, listed: str = LISTED) -> None:
        self.given: list[str] = []
        self._listed = listed

    def __call__(self, *arguments: str, rules: str = "") -> str:
        self.given.append(rules or " ".join(arguments))
        if not self._listed:
            raise FilterFailed("nftables: the program nft is missing")
        return self._listed if arguments[0] == "list" else ""


async def test_what_comes_out_stays_and_goes_on_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    nft = Nft()
    monkeypatch.setattr(forwarding, "nft", nft)
    host = LinuxHost()
    assert await host.count_forwarded("vpn-a", 0.0) == Passed(7, 1, 2)
    first, listing, last = nft.given
    assert first.count('iifname "vpn-a" counter') == 3
    assert listing == "list table inet vpnd-look"
    assert last == "table inet vpnd-look\ndelete table inet vpnd-look\n"
    await host.close()


async def test_a_count_that_is_given_up_leaves_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    nft = Nft()
    monkeypatch.setattr(forwarding, "nft", nft)
    host = LinuxHost()
    counting = asyncio.create_task(host.count_forwarded("vpn-a", 60.0))
    while not nft.given:  # noqa: ASYNC110 (it is another thread that gives)
        await asyncio.sleep(0)
    counting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await counting
    await host.close()
    assert nft.given[-1].startswith("table inet vpnd-look\ndelete")


async def test_without_nft_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "nft", Nft(""))
    host = LinuxHost()
    with pytest.raises(HostFailed, match="nft is missing"):
        await host.count_forwarded("vpn-a", 0.0)
    await host.close()


def netconf(index: int, on: int) -> bytes:
    """One message of RTM_GETNETCONF."""
    attributes = ((forwarding.NETCONFA_IFINDEX, index), (forwarding.NETCONFA_FORWARDING, on))
    return bytes((2, 0, 0, 0)) + b"".join(pack("=HHi", 8, kind, value) for kind, value in attributes)


@pytest.mark.parametrize(("index", "forwards"), [(3, False), (4, True), (9, True)])
def test_the_switch_of_the_interface_is_read(
    monkeypatch: pytest.MonkeyPatch, index: int, forwards: bool
) -> None:
    """Of an interface that is not listed nothing is said against it."""
    monkeypatch.setattr(forwarding, "dump", lambda *_: [netconf(-1, 1), netconf(3, 0), netconf(4, 1)])
    assert forwarding.forwards(index, 4) is forwards


def test_the_kernel_answers_for_both_families() -> None:
    assert isinstance(forwarding.forwards(1, 4), bool)
    assert isinstance(forwarding.forwards(1, 6), bool)
