"""The version-free mechanics: timers, retransmission, fragments, NAT detection, vendors, messages, steps."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike import natt, vendors
from vpnd.ike.deadlines import Timers
from vpnd.ike.faults import Drop
from vpnd.ike.fragments import MAX_FRAGMENTS, MAX_MESSAGE, Reassembly, split
from vpnd.ike.message import MAX_OF_A_KIND, read_message
from vpnd.ike.retransmit import GIVE_UP_AFTER, Schedule
from vpnd.model.child import Path
from vpnd.wire.errors import DecodeError

PATH = Path(IPv4Address("192.0.2.1"), 500, IPv4Address("198.51.100.1"), 500)


# ---------------------------------------------------------------------------------------- timers


def test_timers_are_handed_out_when_due_earliest_first() -> None:
    timers: Timers[str] = Timers()
    timers.arm("late", 3)
    timers.arm("early", 1)
    timers.arm("never", 9)
    assert timers.next_timeout() == 1
    assert list(timers.expired(3)) == ["early", "late"]
    assert timers.next_timeout() == 9


def test_a_timer_that_is_disarmed_by_an_earlier_one_does_not_fire() -> None:
    timers: Timers[str] = Timers()
    timers.arm("first", 1)
    timers.arm("second", 2)
    fired = []
    for key in timers.expired(5):
        fired.append(key)
        timers.disarm("second")
    assert fired == ["first"]


def test_a_timer_that_is_armed_again_while_firing_waits_for_the_next_call() -> None:
    timers: Timers[str] = Timers()
    timers.arm("again", 1)
    for key in timers.expired(5):
        timers.arm(key, 2)
    assert timers.next_timeout() == 2


# -------------------------------------------------------------------------------- retransmission


def sends(seed: int) -> list[float]:
    """When a request that is never answered is sent."""
    schedule = Schedule(0.0, SeededEntropy(seed))
    times = [0.0]
    while not schedule.exhausted(schedule.due):
        now = schedule.due
        times.append(now)
        schedule.again(now)
    assert schedule.sent == len(times)
    return times


def test_the_schedule_doubles_to_its_cap_and_ends_after_thirty_seconds() -> None:
    for seed in range(50):
        times = sends(seed)
        waits = [later - earlier for earlier, later in pairwise(times)]
        for wait, nominal in zip(waits, [0.5, 1, 2, 4, 8, 8], strict=False):
            assert 0.9 * nominal <= wait <= 1.1 * nominal, f"seed {seed}"
        assert len(times) in (7, 8), f"seed {seed}"
        assert times[-1] < GIVE_UP_AFTER


def test_two_tunnels_do_not_send_in_step() -> None:
    assert sends(1) != sends(2)


# ------------------------------------------------------------------------------------- fragments


@given(st.binary(min_size=1, max_size=5000), st.integers(200, 1300), st.randoms(use_true_random=False))
def test_fragments_in_any_order_make_the_message(data: bytes, size: int, dice: Random) -> None:
    pieces = split(data, size)
    order = list(enumerate(pieces, start=1))
    dice.shuffle(order)
    reassembly = Reassembly()
    results = [reassembly.add(7, number, len(pieces), piece) for number, piece in order]
    assert results[-1] == data
    assert results[:-1] == [None] * (len(pieces) - 1)


@pytest.mark.parametrize(
    ("number", "total"), [(0, 2), (3, 2), (1, MAX_FRAGMENTS + 1), (MAX_FRAGMENTS + 1, None)]
)
def test_a_number_that_cannot_be_is_dropped(number: int, total: int | None) -> None:
    with pytest.raises(Drop, match="out of range"):
        Reassembly().add(1, number, total, b"x")


def test_a_repeated_piece_and_a_shrunk_total_are_dropped() -> None:
    reassembly = Reassembly()
    reassembly.add(1, 1, 3, b"a")
    with pytest.raises(Drop, match="repeated"):
        reassembly.add(1, 1, 3, b"b")
    with pytest.raises(Drop, match="shrank"):
        reassembly.add(1, 2, 2, b"b")
    assert reassembly.add(1, 2, 3, b"b") is None
    assert reassembly.add(1, 3, 3, b"c") == b"abc"


def test_a_larger_total_begins_again_as_the_peer_cut_smaller() -> None:
    reassembly = Reassembly()
    reassembly.add(1, 1, 2, b"long")
    assert reassembly.add(1, 1, 3, b"a") is None
    assert reassembly.add(1, 2, 3, b"b") is None
    assert reassembly.add(1, 3, 3, b"c") == b"abc"


def test_pieces_of_another_message_discard_what_was_held() -> None:
    reassembly = Reassembly()
    reassembly.add(1, 1, 2, b"old")
    reassembly.add(2, 1, 2, b"new")
    assert reassembly.add(2, 2, 2, b"!") == b"new!"


def test_the_total_may_come_with_the_last_piece() -> None:
    reassembly = Reassembly()
    assert reassembly.add(1, 1, None, b"a") is None
    assert reassembly.add(1, 2, 2, b"b") == b"ab"


def test_a_last_piece_below_one_that_is_held_is_dropped() -> None:
    reassembly = Reassembly()
    reassembly.add(1, 3, None, b"c")
    with pytest.raises(Drop, match="shrank"):
        reassembly.add(1, 2, 2, b"b")


def test_a_message_is_bounded() -> None:
    reassembly = Reassembly()
    half = bytes(MAX_MESSAGE // 2 + 1)
    reassembly.add(1, 1, 2, half)
    with pytest.raises(Drop, match="too long"):
        reassembly.add(1, 2, 2, half)
    with pytest.raises(ValueError, match="more than"):
        split(bytes(MAX_FRAGMENTS + 1), 1)


# --------------------------------------------------------------------------------- NAT detection


def hashes(path: Path) -> tuple[bytes, bytes]:
    """What an honest peer at the other end of `path` claims: its source, its destination."""
    spis = (b"i" * 8, b"r" * 8)
    return (
        natt.detection_hash("sha1", *spis, path.remote, path.remote_port),
        natt.detection_hash("sha1", *spis, path.local, path.local_port),
    )


@pytest.mark.parametrize("claims_ours", [True, False])
@pytest.mark.parametrize("claims_theirs", [True, False])
def test_nat_is_where_a_claim_does_not_fit(claims_ours: bool, claims_theirs: bool) -> None:
    source, destination = hashes(PATH)
    nat = natt.detect(
        "sha1",
        b"i" * 8,
        b"r" * 8,
        PATH,
        [bytes(20), source if claims_theirs else bytes(20)],
        [destination if claims_ours else bytes(20)],
    )
    assert nat == natt.Nat(ours=not claims_ours, theirs=not claims_theirs)
    assert nat.found is not (claims_ours and claims_theirs)


def test_a_peer_without_nat_detection_has_no_nat() -> None:
    assert natt.detect("sha1", bytes(8), bytes(8), PATH, [], [bytes(20)]) == natt.NO_NAT


def test_floating_goes_to_4500_on_both_sides_and_stays_there() -> None:
    floated = natt.floated(PATH)
    assert (floated.local_port, floated.remote_port) == (4500, 4500)
    behind_nat = Path(PATH.local, 4500, PATH.remote, 61234)
    assert natt.floated(behind_nat) == behind_nat


def test_the_hash_covers_addresses_of_both_families() -> None:
    four = natt.detection_hash("sha1", bytes(8), bytes(8), IPv4Address("192.0.2.1"), 500)
    six = natt.detection_hash("sha1", bytes(8), bytes(8), IPv6Address("2001:db8::1"), 500)
    assert len(four) == len(six) == 20
    assert four != six


# --------------------------------------------------------------------------------------- vendors


def test_vendors_are_recognised_by_their_ids() -> None:
    strongswan = bytes.fromhex("882fe56d6fd20dbc2251613b2ebe5beb")
    assert vendors.recognise([b"?", strongswan]) == "strongSwan"
    assert vendors.recognise([vendors.VPND]) == "vpnd"
    assert vendors.recognise([b"OE-Libreswan-5.0"]) == "libreswan"
    assert vendors.recognise([b"\n\x1b[31m"]) is None
    assert vendors.recognise([]) is None


SHREW_SOFT = "f14b94b7bff1fef02773b8c49feded26"
UNITY = "12f5f28c457168a9702d9fe274cc0100"


@pytest.mark.parametrize(
    ("said", "maker"),
    [
        # Recorded: an Android phone's Shrew Soft client, by pluto.
        ((SHREW_SOFT, "166f932d55eb64d8e4df4fd37e2313f0d0fd8451", UNITY), "Shrew Soft"),
        # Recorded: message 4 of an ASA, by charon.
        ((UNITY, "09002689dfd6b712", "1f07f70eaa6514d3b0fa96542a500100"), "Cisco"),
        ((UNITY, b"OE-Libreswan-v4.6-647".hex()), "libreswan"),
        ((UNITY,), "Cisco"),
        # Recorded by pluto: the byte string of NetScreen's, and a version.
        (("699369228741c6d4ca094c93e242c9de19e7b7c60000000500000500",), "Juniper"),
        ((b"OpenIKED-7.4".hex(),), "OpenIKED"),
        (("8299031757a36082c6a621de00050297",), "Fortinet"),
        (("f4ed19e0c114eb516faaac0ee37daf2807b4381f000000010000138d",), "Check Point"),
        (("5b362bc820f60007",), "SonicWall"),
        (("1e2b516905991c7d7c96fcbfb587e46100000009", "fb1de3cdf341b7ea16b7e5be0855f120"), "Microsoft"),
        (("7003cbc1097dbe9c2600ba6983bc8b35",), "racoon"),
        # What several makers send says nothing.
        (("4a131c81070358455c5728f20e95452f", "afcad71368a1f1c96b8696fc77570100"), None),
    ],
)
def test_the_maker_is_the_one_that_says_most_of_itself(said: tuple[str, ...], maker: str | None) -> None:
    data = [bytes.fromhex(one) for one in said]
    assert vendors.recognise(data) == vendors.recognise(data[::-1]) == maker


def test_no_vendor_id_hides_another() -> None:
    """Of two that begin alike only the first would ever be said."""
    prefixes = [bytes.fromhex(prefix) for prefix, _ in vendors.KNOWN]
    for place, one in enumerate(prefixes):
        assert not any(one.startswith(before) for before in prefixes[:place])


# -------------------------------------------------------------------------------------- messages


class Apple:
    """A payload."""


class Pear:
    """Another."""


class Weed:
    """One that no message has."""


@dataclass(frozen=True)
class Basket:
    """Exactly one apple, perhaps a pear."""

    apple: Apple
    pear: Pear | None


@dataclass(frozen=True)
class Pears:
    """Any number of pears."""

    pears: tuple[Pear, ...]


def test_annotations_are_the_rule() -> None:
    apple, pear = Apple(), Pear()
    assert read_message([Basket], [pear, apple]) == Basket(apple, pear)
    assert read_message([Basket], [apple]) == Basket(apple, None)
    assert read_message([Pears], [pear, pear]) == Pears((pear, pear))
    assert read_message([Pears], []) == Pears(())


@pytest.mark.parametrize(
    "payloads",
    [
        pytest.param([Pear()], id="missing"),
        pytest.param([Apple(), Apple()], id="repeated"),
        pytest.param([Apple(), Pear(), Pear()], id="at most one"),
        pytest.param([Apple(), Weed()], id="unknown to the message"),
    ],
)
def test_every_other_combination_is_refused(payloads: list[object]) -> None:
    with pytest.raises(DecodeError):
        read_message([Basket], payloads)


def test_the_first_candidate_that_fits_is_taken_and_ignored_payloads_are_left_out() -> None:
    read: object = read_message([Pears, Basket], [Apple(), Weed()], ignored=(Weed,))
    assert isinstance(read, Basket)


class Melon:
    """What can be looked at without keeping it."""


@dataclass(frozen=True)
class Melons:
    """Exactly one melon."""

    melon: Melon


@pytest.mark.parametrize("candidates", [(Pears, Melons), (Pears, Basket)], ids=["taken", "refused"])
def test_nothing_of_a_message_waits_for_a_collection(candidates: tuple[type, type]) -> None:
    """While the daemon starts there is none, and what is there after that is kept for good."""
    melon = Melon()
    gone = weakref.ref(melon)
    gc.disable()
    try:
        with suppress(DecodeError):
            read_message(candidates, [melon])
        del melon
        assert gone() is None
    finally:
        gc.enable()


def test_no_candidate_is_a_refusal() -> None:
    with pytest.raises(DecodeError, match="expected"):
        read_message([], [])


@pytest.mark.parametrize("ignored", [(), (Pear,)])
def test_more_than_twenty_of_a_kind_are_refused(ignored: tuple[type, ...]) -> None:
    read_message([Pears], [Pear()] * MAX_OF_A_KIND, ignored)
    with pytest.raises(DecodeError, match="Pear: 21 of them, more than 20"):
        read_message([Pears], [Pear()] * (MAX_OF_A_KIND + 1), ignored)


def test_what_a_message_has_a_field_for_is_read_also_where_others_leave_it_out() -> None:
    pear = Pear()
    assert read_message([Pears], [pear], ignored=(Pear,)) == Pears((pear,))


def test_what_nobody_looks_at_may_come_as_often_as_it_likes() -> None:
    apple = Apple()
    weeds = [Weed()] * (5 * MAX_OF_A_KIND)
    assert read_message([Basket], [apple, *weeds], ignored=(Weed,)) == Basket(apple, None)


@pytest.mark.parametrize(
    ("nat", "moved", "back"),
    [
        (natt.NO_NAT, {"remote_port": 7777}, True),
        (natt.NO_NAT, {"remote": IPv4Address("203.0.113.9")}, False),
        (natt.Nat(ours=True), {"remote": IPv4Address("203.0.113.9")}, False),
        (natt.Nat(theirs=True), {"remote": IPv4Address("203.0.113.9"), "remote_port": 7777}, True),
    ],
)
def test_a_repeat_is_answered_back_where_only_a_nat_may_have_changed_its_way(
    nat: natt.Nat, moved: dict[str, Any], back: bool
) -> None:
    """Someone may have recorded it: nothing is sent to another address, unless there is a NAT."""
    there = replace(PATH, **moved)
    assert natt.way_back(nat, PATH, there) == (there if back else PATH)
