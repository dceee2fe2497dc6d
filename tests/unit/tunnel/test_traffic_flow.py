"""What the counters of a tunnel show: silence after ten seconds, not a burst, and not the probes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from vpnd.tunnel.traffic_flow import Counted, Flow, FlowDetector


def judge(counts: Iterable[Counted]) -> list[Flow | None]:
    """What is said each second."""
    detector = FlowDetector()
    return [detector.evaluate(float(second), counted) for second, counted in enumerate(counts)]


def test_packets_without_an_answer_are_one_way_after_ten_seconds() -> None:
    said = judge(Counted(left=second) for second in range(12))
    assert said[:10] == [None] * 10
    assert said[10:] == [Flow.ONE_WAY] * 2


def test_an_answer_heals_at_once() -> None:
    counts = [Counted(left=second) for second in range(14)] + [Counted(came=1, left=15)]
    assert judge(counts)[-2:] == [Flow.ONE_WAY, Flow.PASSES]


def test_packets_that_nobody_answers_here_are_unanswered() -> None:
    assert judge(Counted(came=second, left=7) for second in range(12))[10:] == [Flow.UNANSWERED] * 2


def test_packets_that_cannot_be_read_are_another_matter() -> None:
    counts = [Counted(left=second, unreadable=second) for second in range(12)]
    assert judge(counts)[-1] is Flow.UNREADABLE


@pytest.mark.parametrize("sent", [1, 2, 50])
def test_a_burst_without_an_answer_says_nothing(sent: int) -> None:
    assert judge(Counted(left=sent if second > 1 else 0) for second in range(12))[-1] is None


def test_no_packets_are_no_fault() -> None:
    assert judge(Counted(came=5, left=9) for _ in range(12))[-1] is Flow.IDLE


def test_the_packets_of_the_health_check_show_nothing_of_the_others() -> None:
    """Its requests and the peer's pass both ways, while what comes out of the tunnel has no answer."""
    counts = [Counted(came=10 * s + s // 2, left=s // 2, probes=s // 5) for s in range(12)]
    assert judge(counts)[-1] is Flow.UNANSWERED
    quiet = [Counted(came=s // 2, left=s // 2, probes=s // 5) for s in range(12)]
    assert judge(quiet)[-1] is not Flow.UNANSWERED


@pytest.mark.parametrize("share", [1, 10, 40])
def test_few_answers_are_answers(share: int) -> None:
    """TCP that receives much acknowledges one packet in many."""
    counts = [Counted(came=100 * second, left=100 * second // share) for second in range(12)]
    assert judge(counts)[-1] is Flow.PASSES
