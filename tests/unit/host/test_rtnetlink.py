"""What the kernel lists, from a namespace of the test's own and from a kernel that answers badly."""

from __future__ import annotations

import errno
import gc
import socket
import sys
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.unit.host.entered import with_netlink
from vpnd.host import messages, rtnetlink
from vpnd.host.netlink import Netlink
from vpnd.host.routes import LINK_GROUP, PROTOCOL, Route, Wanted
from vpnd.host.tun import open_tun
from vpnd.model.policy import ALL_IPV4


@pytest.mark.root
def test_links_with_group_and_state(lab: Lab) -> None:
    namespace = lab.namespace("dump")

    def work(netlink: Netlink) -> None:
        tuns = [open_tun("t0"), open_tun("t1")]
        netlink.set_up("t1", 1400, 44)
        found = {link.name: (link.group, link.up) for link in rtnetlink.links()}
        assert found == {"lo": (0, True), "t0": (0, False), "t1": (LINK_GROUP, True)}
        assert {link.name: link.index for link in rtnetlink.links()}["t1"] == netlink.link_index("t1")
        netlink.set_links_up(frozenset({"t0"}))
        assert {link.name for link in rtnetlink.links() if link.up} == {"lo", "t0", "t1"}
        for tun in tuns:
            tun.close()

    with_netlink(namespace, work)


@pytest.mark.root
def test_many_routes_of_ours_and_none_of_others(lab: Lab) -> None:
    namespace = lab.namespace("dump")
    subnets = list(ALL_IPV4.subnets(new_prefix=12))[1:600]

    def work(netlink: Netlink) -> None:
        namespace.run("ip", "route", "add", "blackhole", "192.0.2.0/24", "metric", "7")
        wanted = Wanted(frozenset(Route(network, 1000, None, 5) for network in subnets))
        assert netlink.reconcile(wanted) == []
        assert set(rtnetlink.routes(socket.AF_INET)) == wanted.routes
        assert rtnetlink.routes(socket.AF_INET6) == []

    with_netlink(namespace, work)


class Answers:
    """A netlink socket on which these datagrams arrive, one set for each list that is asked for."""

    def __init__(self, *lists: list[bytes]) -> None:
        self.asked = 0
        self._lists = lists
        self._waiting: Iterator[bytes] = iter(())

    def __call__(self, *_: object) -> Answers:
        return self

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def setsockopt(self, *_: object) -> None:
        return

    def bind(self, address: tuple[int, int]) -> None:
        return

    def send(self, request: bytes) -> None:
        length, *_ = rtnetlink.NLMSG_HEADER.unpack_from(request)
        assert length == len(request)
        self._waiting = iter(self._lists[min(self.asked, len(self._lists) - 1)])
        self.asked += 1

    def recv(self, size: int) -> bytes:
        return next(self._waiting)


def message(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    return rtnetlink.NLMSG_HEADER.pack(rtnetlink.NLMSG_HEADER.size + len(body), kind, flags, 1, 0) + body


def route(
    octet: int, protocol: int = PROTOCOL, kind: int = rtnetlink.RTN_BLACKHOLE, extra: bytes = b""
) -> bytes:
    body = rtnetlink.RTMSG.pack(socket.AF_INET, 24, 0, 0, 254, protocol, 0, kind, 0)
    destination = rtnetlink.ATTRIBUTE.pack(8, rtnetlink.RTA_DST) + bytes((10, 0, octet, 0))
    return message(rtnetlink.RTM_NEWROUTE, body + destination + extra)


DONE = message(rtnetlink.NLMSG_DONE)


def asked_of(monkeypatch: pytest.MonkeyPatch, *lists: list[bytes]) -> Answers:
    kernel = Answers(*lists)
    monkeypatch.setattr("vpnd.host.rtnetlink.socket.socket", kernel)
    return kernel


def test_a_list_that_a_change_interrupted_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [message(rtnetlink.RTM_NEWLINK, bytes(16), rtnetlink.NLM_F_DUMP_INTERRUPTED), DONE]
    kernel = asked_of(monkeypatch, broken, [route(1) + route(2), DONE])
    assert {str(found.destination) for found in rtnetlink.routes(socket.AF_INET)} == {
        "10.0.1.0/24",
        "10.0.2.0/24",
    }
    assert kernel.asked == 2
    kernel = asked_of(monkeypatch, broken)
    assert rtnetlink.routes(socket.AF_INET) == []
    assert kernel.asked == rtnetlink.TRIES


def test_an_error_of_the_kernel_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    number = (-errno.EOPNOTSUPP).to_bytes(4, sys.byteorder, signed=True)
    asked_of(monkeypatch, [message(rtnetlink.NLMSG_ERROR, number + bytes(16))])
    with pytest.raises(OSError, match="not supported") as refused:
        rtnetlink.links()
    assert refused.value.errno == errno.EOPNOTSUPP


def test_a_table_that_has_no_room_in_the_header_is_in_an_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    table = rtnetlink.ATTRIBUTE.pack(8, rtnetlink.RTA_TABLE) + (7000).to_bytes(4, sys.byteorder)
    asked_of(monkeypatch, [route(1), route(2, extra=table), DONE])
    found = {str(route.destination): route.table for route in rtnetlink.routes(socket.AF_INET)}
    assert found == {"10.0.1.0/24": 254, "10.0.2.0/24": 7000}


def test_what_a_kernel_lists_besides_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    oif = rtnetlink.ATTRIBUTE.pack(8, rtnetlink.RTA_OIF) + (0x7FFFFFFF).to_bytes(4, "little")
    listed = [
        route(1, protocol=2),
        route(2, kind=5),
        route(3, kind=rtnetlink.RTN_UNICAST, extra=oif),
        route(4, extra=rtnetlink.ATTRIBUTE.pack(0, 9)),
        DONE + bytes(16),
    ]
    asked_of(monkeypatch, listed)
    found = {str(route.destination): route.device for route in rtnetlink.routes(socket.AF_INET)}
    assert found == {"10.0.3.0/24": "?", "10.0.4.0/24": None}
    asked_of(monkeypatch, [bytes(16) + route(5), DONE])
    assert rtnetlink.routes(socket.AF_INET) == []


def test_no_message_of_pyroute2_waits_for_a_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its messages hold themselves, and each attribute does."""
    written: list[bytes] = []
    monkeypatch.setattr(rtnetlink, "change", lambda number, flags, body: written.append(body))
    monkeypatch.setattr(rtnetlink, "ask", lambda request, answer, body: written[0])

    def ask() -> None:
        messages.set_link(7, up=True, IFLA_MTU=1400, IFLA_IFNAME="t0")
        messages.set_quiet(7)
        assert messages.mtu_of(7) == 1400

    ask()
    gc.collect()
    gc.disable()
    try:
        ask()
        assert gc.collect() == 0
    finally:
        gc.enable()
    assert len(written) == 4
