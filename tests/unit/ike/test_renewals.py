"""Which peers begin again what is closed here: only one whose SA comes after our DELETE, and not by habit."""

from __future__ import annotations

import pytest

from vpnd.ike.renewals import AGAIN, QUIET, Renewals

CLOSED = 100.0
"""Seconds: when the peer has answered our DELETE."""


def closed_beside_another(began: float | None = None) -> Renewals:
    """An SA of the tunnel was closed since another has its part; the peer had `began` one before."""
    renewals = Renewals()
    if began is not None:
        assert not renewals.begun(began, "t")
    renewals.closing("t")
    renewals.closed(CLOSED, "t")
    return renewals


@pytest.mark.parametrize(
    ("began", "again", "known"),
    [
        pytest.param(None, CLOSED + 0.1, True, id="at once"),
        pytest.param(None, CLOSED + AGAIN, True, id="its first message was lost"),
        pytest.param(None, CLOSED + AGAIN + 1, False, id="much later"),
        pytest.param(CLOSED - QUIET, CLOSED + 0.1, True, id="a while after its last one"),
        pytest.param(CLOSED - QUIET / 2, CLOSED + 0.1, False, id="it begins one after the other anyway"),
    ],
)
def test_an_sa_after_our_delete_tells_of_such_a_peer(began: float | None, again: float, known: bool) -> None:
    renewals = closed_beside_another(began)
    assert renewals.begun(again, "t") is known
    assert renewals.expects("t") is known
    assert not renewals.begun(again + 1, "t"), "that is no news"


def test_what_is_closed_for_another_reason_tells_nothing() -> None:
    renewals = Renewals()
    renewals.closed(CLOSED, "t")
    assert not renewals.begun(CLOSED + 0.1, "t")


@pytest.mark.parametrize("at", [CLOSED - QUIET / 2, CLOSED + 0.1])
def test_what_the_peer_begins_when_we_do_tells_nothing(at: float) -> None:
    renewals = Renewals()
    for now in sorted((CLOSED, at)):
        if now == at:
            renewals.begins_here(now, "t")
        else:
            renewals.closing("t")
            renewals.closed(now, "t")
    assert not renewals.begun(CLOSED + 0.2, "t")


def test_a_removed_tunnel_is_forgotten() -> None:
    renewals = closed_beside_another()
    assert renewals.begun(CLOSED + 0.1, "t")
    renewals.forget("t")
    assert not renewals.expects("t")
