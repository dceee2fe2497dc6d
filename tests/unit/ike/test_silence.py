"""When silence is a reason to ask."""

from __future__ import annotations

from itertools import pairwise

import pytest

from vpnd.ike.silence import LEAST_QUIET, LONGEST_ASKING, RESPONDER_LATER, TOGETHER, question_due


@pytest.mark.parametrize("timeout", [30.0, 45.0, 60.0])
def test_half_of_the_timeout_is_left_for_the_answer(timeout: float) -> None:
    for tenth in range(1000):
        heard = tenth / 10
        quiet = question_due(heard, timeout, initiator=True) - heard
        assert timeout / 2 <= quiet < timeout / 2 + TOGETHER


@pytest.mark.parametrize("timeout", [61.0, 90.0, 3600.0])
def test_a_long_timeout_ends_with_half_a_minute_of_questions(timeout: float) -> None:
    quiet = question_due(100.0, timeout, initiator=True) - 100.0
    assert quiet == max(timeout / 2, timeout - LONGEST_ASKING)


@pytest.mark.parametrize(
    ("timeout", "due"), [(10, 5.0), (30, 15.0), (60, 30.0), (90, 60.0), (600, 570.0), (3600, 3570.0)]
)
def test_when_a_peer_is_asked(timeout: float, due: float) -> None:
    assert question_due(0.0, timeout, initiator=True) == due


def test_the_initiator_asks_first() -> None:
    for tenth in range(100):
        heard = tenth / 10
        first, second = (question_due(heard, 30.0, initiator) for initiator in (True, False))
        assert second - first == RESPONDER_LATER


def test_a_short_timeout_does_not_make_a_chatterbox() -> None:
    assert question_due(100.0, 4.0, initiator=True) == 100.0 + LEAST_QUIET


def test_questions_to_many_peers_leave_together() -> None:
    moments = sorted({question_due(number * 0.013, 30.0, initiator=True) for number in range(1000)})
    assert len(moments) == 1 + 13 / TOGETHER
    assert {later - earlier for earlier, later in pairwise(moments)} == {TOGETHER}
