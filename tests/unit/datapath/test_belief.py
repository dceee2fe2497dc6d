"""Which errors "packet too big" are believed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.unit.datapath.parts import LOCAL6, REMOTE, REMOTE6, Gateway, child
from vpnd.datapath.interface import MTU_INTERVAL, Notice, PathMtu
from vpnd.model.child import Path

pytestmark = pytest.mark.usefixtures("on_each_engine")

LIVE, DEAD, OURS = ((spi).to_bytes(4) + bytes(4) for spi in (0x2002, 0x9999, 0x1001))
STRANGER = ip_address("203.0.113.1")


def told(gateway: Gateway, *reports: tuple[object, ...]) -> list[Notice]:
    for report in reports:
        gateway.carrier.believe(gateway.now, *report)  # type: ignore[arg-type]  # as they come
    return gateway.carrier.take_notices()


def sending() -> Gateway:
    gateway = Gateway()
    gateway.install(child())
    return gateway


def test_an_error_is_believed_only_about_a_live_sa() -> None:
    gateway = sending()
    assert (
        told(
            gateway,
            (REMOTE, 4500, 1400, DEAD),
            (REMOTE, 4500, 1400, OURS),
            (STRANGER, 4500, 1400, LIVE),
            (REMOTE, 500, 1400, LIVE),
            (REMOTE, 0, 1400, LIVE),
            (REMOTE, 4500, 1400, b""),
            (REMOTE, 4500, 1400, LIVE[:3]),
            (REMOTE, 4500, 1500, LIVE),
            (REMOTE, 4500, 9000, LIVE),
            (REMOTE, 0, 9000, None),
            (STRANGER, 0, 1400, None),
        )
        == []
    )
    assert told(gateway, (REMOTE, 4500, 70, LIVE), (REMOTE, 4500, 1300, LIVE)) == [PathMtu(REMOTE, 576)]


def test_of_raw_esp_there_is_no_port() -> None:
    gateway = Gateway()
    gateway.install(child(udp=False))
    assert told(gateway, (REMOTE, 4500, 1400, LIVE)) == []
    assert told(gateway, (REMOTE, 0, 1400, LIVE)) == [PathMtu(REMOTE, 1400)]


def test_what_the_kernel_says_of_its_own_interface_needs_no_quote() -> None:
    assert told(sending(), (REMOTE, 0, 1400, None)) == [PathMtu(REMOTE, 1400)]


def test_no_ipv6_path_carries_less_than_1280() -> None:
    gateway = Gateway()
    gateway.install(child(path=Path(LOCAL6, 4500, REMOTE6, 4500)))
    assert told(gateway, (REMOTE6, 4500, 600, LIVE)) == [PathMtu(REMOTE6, 1280)]


def test_it_is_told_once_a_second_for_an_address_and_only_of_a_smaller_path() -> None:
    gateway = sending()
    assert told(gateway, *[(REMOTE, 4500, 1400, LIVE)] * 3) == [PathMtu(REMOTE, 1400)]
    gateway.now += MTU_INTERVAL
    assert told(gateway, (REMOTE, 4500, 1400, LIVE)) == [PathMtu(REMOTE, 1400)], "nobody has set it yet"
    gateway.carrier.set_mtu("t", 1400)
    gateway.now += MTU_INTERVAL
    assert told(gateway, (REMOTE, 4500, 1400, LIVE), (REMOTE, 4500, 1450, LIVE)) == []


def test_an_sa_that_is_gone_is_no_reason_to_believe() -> None:
    """Two peers may have chosen the same SPI for us to send on: the one that is left still counts."""
    gateway = sending()
    gateway.install(child(0x1009, 0x2002), outbound=False)
    gateway.carrier.remove(0x1001)
    assert told(gateway, (REMOTE, 4500, 1300, LIVE)) == [PathMtu(REMOTE, 1300)]
    gateway.carrier.remove(0x1009)
    gateway.now += MTU_INTERVAL
    assert told(gateway, (REMOTE, 4500, 1300, LIVE)) == []
