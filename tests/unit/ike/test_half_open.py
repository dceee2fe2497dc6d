"""Which half-open attempt goes when there are too many, and counts that fall with time."""

from __future__ import annotations

from ipaddress import ip_address
from typing import cast

import pytest

from vpnd.ike.limits import Rate
from vpnd.ike.session import Session
from vpnd.ike.strangers import ADDRESSES_KEPT, HalfOpen, Lately
from vpnd.model.selectors import Address

ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.3")


A, B, C, STRANGER = (cast(Session, name) for name in ("a", "b", "c", "stranger"))
"""A session is only a key here."""


def held(*attempts: tuple[Session, Address, bool]) -> HalfOpen:
    half_open = HalfOpen()
    for session, address, proved in attempts:
        half_open.begin(session, address, proved)
    return half_open


def test_the_oldest_without_proof_goes_first() -> None:
    half_open = held((A, ONE, True), (B, TWO, False), (C, ONE, False))
    assert half_open.oldest() == B
    assert half_open.oldest(ONE) == C
    half_open.end(B)
    half_open.end(C)
    assert half_open.oldest(ONE) is None, "nothing that its address has not proved"
    assert half_open.oldest() == A
    assert (len(half_open), half_open.of(ONE), half_open.of(TWO)) == (1, 1, 0)


def test_a_proof_moves_an_attempt_among_the_proved() -> None:
    half_open = held((A, ONE, False), (B, ONE, False))
    half_open.prove(A)
    assert (half_open.proved_of(ONE), half_open.unproved_of(ONE), half_open.oldest()) == (1, 1, B)
    half_open.prove(STRANGER)
    assert len(half_open) == 2
    for session in (A, B, B):
        half_open.end(session)
    assert (len(half_open), half_open.of(ONE), half_open.oldest()) == (0, 0, None)


def test_counts_fall_with_time() -> None:
    lately = Lately(Rate(0.1, 3.0), Rate(1.0, 5.0))
    for _ in range(2):
        lately.add(100.0, ONE)
    assert (lately.of(100.0, ONE), lately.in_all(100.0)) == (2.0, 2.0)
    assert lately.of(110.0, ONE) == pytest.approx(1.0)
    assert (lately.in_all(110.0), lately.of(200.0, ONE)) == (0.0, 0.0)


def test_one_address_cannot_fill_the_count_of_all() -> None:
    lately = Lately(Rate(0.1, 3.0), Rate(1.0, 5.0))
    for _ in range(50):
        lately.add(100.0, ONE)
    assert (lately.of(100.0, ONE), lately.in_all(100.0)) == (3.0, 3.0)
    assert lately.is_full(100.0, ONE)
    assert not lately.is_full(100.0, TWO)
    for _ in range(2):
        lately.add(100.0, TWO)
    assert lately.is_full(100.0, TWO), "there is none left in all"
    assert not lately.is_full(111.0, ONE)


def test_addresses_beyond_the_bound_are_forgotten() -> None:
    lately = Lately(Rate(0.1, 3.0), Rate(0.0, 1e9))
    for number in range(2 * ADDRESSES_KEPT):
        lately.add(100.0, ip_address(number))
    assert len(lately) == ADDRESSES_KEPT
    assert lately.in_all(100.0) == 2 * ADDRESSES_KEPT
