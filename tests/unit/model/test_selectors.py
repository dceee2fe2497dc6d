"""Selectors and their narrowing."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpnd.model.selectors import Selector, covered, narrow, parse_address


def net(text: str, protocol: int = 0, port_start: int = 0, port_end: int = 65535) -> Selector:
    """The selector of a CIDR block."""
    whole = Selector.of(ip_network(text))
    return Selector(whole.start, whole.end, protocol, port_start, port_end)


# ------------------------------------------------------------------------------------- ranges


def test_a_network_is_all_its_addresses_any_protocol_any_port() -> None:
    selector = Selector.of(ip_network("10.0.1.0/24"))
    assert (str(selector.start), str(selector.end)) == ("10.0.1.0", "10.0.1.255")
    assert (selector.protocol, selector.port_start, selector.port_end) == (0, 0, 65535)
    assert (selector.first, selector.last) == (0x0A000100, 0x0A0001FF)


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.1/32", "10.0.0.0/31", "::/0", "2001:db8::1/128"])
def test_every_network_comes_back_from_its_selector(text: str) -> None:
    selector = Selector.of(ip_network(text))
    assert selector.networks() == (ip_network(text),)
    assert str(selector) == text
    assert selector.version == ip_network(text).version


def test_a_range_of_two_families_or_backwards_is_refused() -> None:
    with pytest.raises(ValueError, match="one family"):
        Selector(ip_address("10.0.0.1"), ip_address("2001:db8::1"))
    with pytest.raises(ValueError, match="before it starts"):
        Selector(ip_address("10.0.0.2"), ip_address("10.0.0.1"))


def test_holds_goes_from_the_first_to_the_last_address() -> None:
    selector = net("10.0.1.0/24")
    inside = ["10.0.1.0", "10.0.1.255"]
    outside = ["10.0.0.255", "10.0.2.0", "::a00:100"]
    assert all(selector.holds(ip_address(text)) for text in inside)
    assert not any(selector.holds(ip_address(text)) for text in outside)


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (net("10.0.1.0/24", 6), "10.0.1.0/24[tcp]"),
        (net("10.0.1.0/24", 17, 53, 53), "10.0.1.0/24[udp/53]"),
        (net("10.0.1.0/24", 17, 53, 54), "10.0.1.0/24[udp/53-54]"),
        (net("10.0.1.0/24", 200), "10.0.1.0/24[200]"),
        (Selector(ip_address("10.0.1.3"), ip_address("10.0.1.9")), "10.0.1.3-10.0.1.9"),
    ],
)
def test_the_words_of_a_selector(selector: Selector, text: str) -> None:
    assert str(selector) == text


def test_a_range_that_is_no_network_is_several() -> None:
    selector = Selector(ip_address("10.0.1.3"), ip_address("10.0.1.5"))
    assert [str(network) for network in selector.networks()] == ["10.0.1.3/32", "10.0.1.4/31"]


# -------------------------------------------------------------------------- intersect and covers


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (net("10.0.0.0/8"), net("10.1.0.0/16"), net("10.1.0.0/16")),
        (net("10.0.0.0/24"), net("10.0.1.0/24"), None),
        (net("0.0.0.0/0"), net("::/0"), None),
        (net("10.0.0.0/8", 6), net("10.1.0.0/16"), net("10.1.0.0/16", 6)),
        (net("10.0.0.0/8", 6), net("10.1.0.0/16", 17), None),
        (net("10.0.0.0/8", 6, 0, 1023), net("10.0.0.0/8", 6, 80, 8080), net("10.0.0.0/8", 6, 80, 1023)),
        (net("10.0.0.0/8", 6, 0, 79), net("10.0.0.0/8", 6, 80, 80), None),
    ],
)
def test_the_packets_that_both_select(one: Selector, other: Selector, both: Selector | None) -> None:
    assert one.intersect(other) == both
    assert other.intersect(one) == both


@pytest.mark.parametrize(
    ("larger", "smaller"),
    [
        (net("0.0.0.0/0"), net("10.0.0.0/8")),
        (net("10.0.0.0/8"), net("10.0.0.0/8")),
        (net("10.0.0.0/8"), net("10.0.0.0/8", 6, 80, 80)),
        (net("10.0.0.0/8", 6), net("10.0.0.0/8", 6, 80, 80)),
    ],
)
def test_covers(larger: Selector, smaller: Selector) -> None:
    assert larger.covers(smaller)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (net("10.0.0.0/16"), net("10.0.0.0/8")),
        (net("10.0.0.0/8", 6), net("10.0.0.0/8")),
        (net("10.0.0.0/8", 6, 80, 80), net("10.0.0.0/8", 6)),
        (net("0.0.0.0/0"), net("::/0")),
    ],
)
def test_does_not_cover(one: Selector, other: Selector) -> None:
    assert not one.covers(other)


small = st.integers(0, 40)
small_selectors = st.tuples(
    small, small, st.sampled_from([0, 0, 6, 17]), st.integers(0, 9), st.integers(0, 9)
).map(lambda it: Selector(ip_address(min(it[:2])), ip_address(max(it[:2])), it[2], min(it[3:]), max(it[3:])))


@given(small_selectors, small_selectors)
def test_covering_is_to_be_what_both_select(one: Selector, other: Selector) -> None:
    assert one.covers(other) == (one.intersect(other) == other)


# ------------------------------------------------------------------------------------ narrowing


def test_a_wider_offer_is_narrowed_to_what_is_acceptable() -> None:
    assert narrow([net("0.0.0.0/0")], [net("10.0.1.0/24"), net("10.0.3.0/24")]) == (
        net("10.0.1.0/24"),
        net("10.0.3.0/24"),
    )


def test_an_exact_offer_stays_as_it_is() -> None:
    assert narrow([net("10.0.1.0/24")], [net("10.0.1.0/24")]) == (net("10.0.1.0/24"),)


def test_a_smaller_offer_stays_as_it_is() -> None:
    assert narrow([net("10.0.1.7/32", 6, 443, 443)], [net("10.0.1.0/24")]) == (
        net("10.0.1.7/32", 6, 443, 443),
    )


def test_the_packet_in_front_is_absorbed_by_the_network_behind_it() -> None:
    """An on-demand initiator puts its packet's own address first (RFC 7296 section 2.9)."""
    offered = [net("10.0.1.7/32"), net("10.0.1.0/24")]
    assert narrow(offered, [net("10.0.0.0/8")]) == (net("10.0.1.0/24"),)


def test_nothing_in_common_is_ts_unacceptable() -> None:
    assert narrow([net("10.0.1.0/24")], [net("10.0.2.0/24")]) == ()
    assert narrow([], [net("10.0.2.0/24")]) == ()
    assert narrow([net("10.0.1.0/24")], []) == ()
    assert narrow([net("::/0")], [net("0.0.0.0/0")]) == ()


def test_what_is_offered_twice_is_taken_once() -> None:
    assert narrow([net("10.0.1.0/24"), net("10.0.1.0/24")], [net("10.0.0.0/8")]) == (net("10.0.1.0/24"),)


def test_the_offers_may_come_from_a_generator() -> None:
    assert narrow((net(text) for text in ["10.0.1.0/24"]), (net(text) for text in ["0.0.0.0/0"])) == (
        net("10.0.1.0/24"),
    )


@given(st.lists(small_selectors, max_size=5), st.lists(small_selectors, max_size=5), small, st.integers(0, 9))
def test_a_packet_is_narrowed_in_exactly_if_both_sides_select_it(
    offered: list[Selector], acceptable: list[Selector], host: int, port: int
) -> None:
    def selects(selectors: Sequence[Selector]) -> bool:
        return any(
            s.holds(ip_address(host)) and s.protocol in (0, 6) and s.port_start <= port <= s.port_end
            for s in selectors
        )

    narrowed = narrow(offered, acceptable)
    assert selects(narrowed) == (selects(offered) and selects(acceptable))
    assert len(set(narrowed)) == len(narrowed)


def test_addresses_are_parsed() -> None:
    assert str(parse_address("2001:db8::1")) == "2001:db8::1"
    with pytest.raises(ValueError, match="does not appear to be"):
        parse_address("gateway.example.org")


# ---------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize(
    ("selectors", "whole"),
    [
        ([net("10.1.0.0/24")], True),
        ([net("0.0.0.0/0")], True),
        ([net("10.1.0.128/25"), net("10.1.0.0/25")], True),
        ([net("10.1.0.7/32"), net("10.1.0.0/24")], True),
        ([net("10.1.0.0/25")], False),
        ([net("10.1.0.0/25"), net("10.1.0.192/26")], False),
        ([net("10.1.0.0/24", protocol=6)], False),
        ([net("10.1.0.0/25"), net("10.1.0.128/25", protocol=6, port_start=80, port_end=80)], False),
        ([net("::/0")], False),
        ([], False),
    ],
)
def test_a_network_is_covered_by_selectors_that_share_it(selectors: Sequence[Selector], whole: bool) -> None:
    assert covered(net("10.1.0.0/24"), selectors) is whole


@pytest.mark.parametrize(
    ("selectors", "whole"),
    [
        ([net("10.1.0.0/24", 6, 80, 90)], True),
        ([net("10.1.0.0/24", 6)], True),
        ([net("10.0.0.0/8", 0, 1, 90)], True),
        ([net("10.1.0.0/25", 6, 80, 90), net("10.1.0.128/25")], True),
        ([net("10.1.0.0/24", 6, 80, 89)], False),
        ([net("10.1.0.0/24", 17)], False),
        ([net("10.1.0.0/25", 6, 80, 90), net("10.1.0.128/25", 17)], False),
        ([net("10.1.0.0/25", 6, 80, 90)], False),
    ],
)
def test_some_ports_of_a_network_are_covered(selectors: Sequence[Selector], whole: bool) -> None:
    assert covered(net("10.1.0.0/24", 6, 80, 90), selectors) is whole
