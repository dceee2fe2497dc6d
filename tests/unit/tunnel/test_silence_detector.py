"""When a peer that does not answer packets is asked, and when a new IKE SA is tried."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from vpnd.tunnel.silence_detector import ASK_EVERY, NO_ANSWER, UNANSWERED, SilenceDetector, Step


def watched(
    until: float, sent: Callable[[float], float], heard: Callable[[float], float]
) -> list[tuple[float, Step]]:
    """What a detector says from second 0 on, looked at each second and whenever it asks to be."""
    detector, now, usual, said = SilenceDetector(), 0.0, 1.0, []
    while now <= until:
        step = detector.evaluate(now, sent(now), heard(now))
        if step is not None:
            said.append((now, step))
        usual = usual if now < usual else usual + 1.0
        wanted = detector.next_evaluation()
        assert wanted is None or wanted > now, "it must not ask for a look that is over"
        now = usual if wanted is None else min(usual, wanted)
    return said


def steady(now: float) -> float:
    """A packet a tenth of a second."""
    return now


def test_answered_packets_are_no_reason() -> None:
    assert watched(60, steady, lambda now: now - 0.1) == []


def test_a_tunnel_without_packets_is_left_to_dead_peer_detection() -> None:
    assert watched(60, lambda now: 0.0, lambda now: 0.0) == []


def test_one_packet_that_is_answered_late_is_no_reason() -> None:
    def since(moment: float) -> Callable[[float], float]:
        return lambda now: moment if now >= moment else 0.0

    assert watched(30, since(10.5), since(11.2)) == []


def test_a_silent_peer_is_asked_and_then_tried_again_within_four_seconds() -> None:
    said = watched(6, steady, lambda now: min(now, 2.0))
    assert [step for _, step in said][:2] == [Step.ASK, Step.REINITIATE]
    asked, began = said[0][0], said[1][0]
    assert asked <= 2.0 + UNANSWERED + 0.1
    assert began <= asked + NO_ANSWER + 0.1
    assert all(step is Step.REINITIATE for _, step in said[1:]), "again until something comes"


def test_the_first_packet_after_a_pause_counts_from_when_it_left() -> None:
    said = watched(110, lambda now: 100.0 if now >= 100 else 0.0, lambda now: 0.0)
    assert said[0][1] is Step.ASK
    assert 100.4 < said[0][0] <= 102.0


def test_an_answer_ends_it_and_is_said_once() -> None:
    said = watched(20, steady, lambda now: now if not 2 < now < 8 else 2.0)
    assert [step for _, step in said if step is not Step.REINITIATE] == [Step.ASK, Step.RECOVERED]
    assert [at for at, step in said if step is Step.RECOVERED] == [8.0]


def test_a_stream_that_goes_one_way_is_asked_about_now_and_then() -> None:
    answered = [0.0]

    def heard(now: float) -> float:
        return answered[-1]

    detector, asked = SilenceDetector(), []
    for second in range(60):
        if detector.evaluate(float(second), float(second), heard(second)) is Step.ASK:
            asked.append(second)
            answered.append(second + 0.01)
    assert asked
    assert all(after - before >= ASK_EVERY for before, after in pairwise(asked))


def test_nothing_is_remembered_of_a_peer_that_answers() -> None:
    detector = SilenceDetector()
    detector.evaluate(1.0, 1.0, 0.9)
    assert detector.is_settled(1.0)
    assert detector.next_evaluation() is None
    detector.evaluate(2.0, 2.0, 0.9)
    assert not detector.is_settled(2.0)
