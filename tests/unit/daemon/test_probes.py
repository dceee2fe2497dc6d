"""Echo requests as packets, and replies with their interface, on this machine's loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from vpnd.daemon.upkeep.probes import DATA, ReplyListener, request
from vpnd.model.selectors import Address
from vpnd.tunnel.path_size import SendProbe
from vpnd.wire.icmp import Echo

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("ICMP on loopback")]
"""Raw sockets hear what tests in other processes send."""

V4, V6 = IPv4Address("127.0.0.1"), IPv6Address("::1")


class Replies:
    """What a prober tells."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[str, Echo]] = asyncio.Queue()
        self.prober = ReplyListener(asyncio.get_running_loop(), self._hear)
        for version in (4, 6):
            self.prober.listen(version)

    def ping(self, address: Address, identifier: int, sequence: int) -> None:
        """Send a request as the kernel would; the kernel answers."""
        family, protocol, header = (
            (socket.AF_INET, socket.IPPROTO_ICMP, 20)
            if address.version == 4
            else (socket.AF_INET6, socket.IPPROTO_ICMPV6, 40)
        )
        packet = request(SendProbe("t", address, address, identifier, sequence))
        with socket.socket(family, socket.SOCK_RAW, protocol) as sender:
            sender.sendto(packet[header:], (str(address), 0))

    def _hear(self, interface: str, echo: Echo) -> None:
        self.told.put_nowait((interface, echo))

    async def next(self, identifier: int) -> tuple[str, Echo]:
        """The next reply to one of ours: others on this machine may ping as well."""
        async with asyncio.timeout(60):
            while True:
                interface, echo = await self.told.get()
                if echo.identifier == identifier:
                    return interface, echo


@pytest.fixture
async def replies() -> AsyncIterator[Replies]:
    made = Replies()
    yield made
    made.prober.close()


@pytest.mark.parametrize("address", [V4, V6], ids=["ipv4", "ipv6"])
async def test_a_reply_is_told_with_its_interface(replies: Replies, address: Address) -> None:
    for sequence in (1, 2, 65535):
        replies.ping(address, 0x7670, sequence)
        interface, echo = await replies.next(0x7670)
        assert interface == "lo"
        assert (echo.source, echo.destination, echo.reply) == (address, address, True)
        assert (echo.sequence, echo.data) == (sequence, DATA)


async def test_requests_of_others_are_not_told(replies: Replies) -> None:
    replies.ping(V4, 7, 1)
    await replies.next(7)
    await asyncio.sleep(0)
    # The kernel has shown the request to every raw socket as well; only the reply passes the filter.
    while not replies.told.empty():
        _, echo = replies.told.get_nowait()
        assert echo.reply


async def test_what_is_no_echo_reply_with_a_right_checksum_is_not_told(replies: Replies) -> None:
    replies.ping(V4, 9, 1)
    await replies.next(9)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as forger:
        whole = Echo(V4, V4, True, 9, 2, b"x" * 8).encode()[20:]
        forger.sendto(whole[:2] + b"\0\0" + whole[4:], (str(V4), 0))
        forger.sendto(whole, (str(V4), 0))
    _, echo = await replies.next(9)
    assert echo.sequence == 2
    assert replies.told.empty()


async def test_close_ends_the_hearing(replies: Replies) -> None:
    replies.ping(V4, 11, 1)
    await replies.next(11)
    replies.prober.close()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as other:
        other.sendto(Echo(V4, V4, True, 11, 2).encode()[20:], (str(V4), 0))
    await asyncio.sleep(0.05)
    assert replies.told.empty()
    replies.prober.close()
