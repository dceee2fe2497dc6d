"""Large packets that vanish where small ones pass: found, measured, and not guessed."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from vpnd.model.policy import HealthPolicy
from vpnd.tunnel.path_size import CHECK_EVERY, LEAST, TRIES, PathSized, SendProbe, SizeCheck

HERE, THERE = ip_address("169.254.9.1"), ip_address("169.254.9.2")
POLICY = HealthPolicy(local=HERE, remote=THERE)


class Path:
    """A check with a clock, and a path that answers what `passes`."""

    def __init__(self, passes: Callable[[SendProbe], bool], limit: int = 1438) -> None:
        self.sent: list[SendProbe] = []
        self.found: list[PathSized] = []
        self.now = 0.0
        self.passes = passes
        self.check = SizeCheck("t", POLICY, 7, self.tell)
        self.check.set_limit(0.0, limit)
        self.check.set_ready(0.0, True)

    def tell(self, output: SendProbe | PathSized) -> None:
        self.sent.append(output) if isinstance(output, SendProbe) else self.found.append(output)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.check.next_timeout() <= end:
            self.now = max(self.now, self.check.next_timeout())
            before = len(self.sent)
            self.check.handle_timeout(self.now)
            for probe in self.sent[before:]:
                if self.passes(probe):
                    assert self.answer(probe)
        self.now = end

    def answer(self, probe: SendProbe) -> bool:
        return self.check.handle_reply(
            self.now + 0.01, probe.destination, probe.source, probe.identifier, probe.sequence
        )


def up_to(most: int) -> Callable[[SendProbe], bool]:
    return lambda probe: (probe.size or 84) <= most


def test_a_path_that_carries_all_is_asked_once_in_ten_minutes() -> None:
    path = Path(up_to(1500))
    path.run(CHECK_EVERY - 1)
    assert [probe.size for probe in path.sent] == [None, 1438]
    assert path.found == [PathSized("t", 1438, 1438)]
    path.run(CHECK_EVERY)
    assert len(path.sent) == 4


@pytest.mark.parametrize("most", [LEAST, 600, 1198, 1280, 1433])
def test_the_largest_that_passes_is_found(most: int) -> None:
    path = Path(up_to(most))
    path.run(60)
    (found,) = path.found
    assert most - 4 <= found.passes <= most


def test_who_answers_no_larger_ping_at_all_shows_nothing() -> None:
    path = Path(up_to(100))
    path.run(60)
    assert path.found == []


def test_where_the_small_one_is_lost_too_nothing_is_concluded() -> None:
    path = Path(lambda probe: False)
    path.run(60)
    assert path.found == []
    assert {probe.size for probe in path.sent} == {None, 1438}


def test_a_large_one_that_is_lost_now_and_then_is_no_hole() -> None:
    lost = iter([True] * (TRIES - 1) + [False])
    path = Path(lambda probe: probe.size is None or not next(lost))
    path.run(30)
    assert path.found == [PathSized("t", 1438, 1438)]


def test_a_limit_that_is_the_same_as_before_begins_nothing_again() -> None:
    """The interface is looked at with each SA pair that comes."""
    path = Path(up_to(1500))
    path.run(10)
    due = path.check.next_timeout()
    path.check.set_limit(path.now, 1438)
    assert path.check.next_timeout() == due
    path.run(10)
    assert path.found == [PathSized("t", 1438, 1438)]


def test_only_the_answer_to_a_request_of_its_own_counts_and_in_time() -> None:
    path = Path(up_to(0))
    path.check.handle_timeout(0.0)
    small, large = path.sent
    assert not path.check.handle_reply(0.01, THERE, HERE, small.identifier + 1, large.sequence)
    assert not path.check.handle_reply(0.01, HERE, THERE, small.identifier, large.sequence)
    assert not path.check.handle_reply(0.01, THERE, HERE, small.identifier, 99)
    assert not path.check.handle_reply(1.0, THERE, HERE, small.identifier, large.sequence)
    assert path.found == []


def test_it_rests_while_the_tunnel_is_not_healthy_and_begins_again_with_another_limit() -> None:
    path = Path(up_to(1500))
    path.check.set_ready(0.0, False)
    assert path.check.next_timeout() == float("inf")
    path.check.set_ready(5.0, True)
    path.run(10)
    path.check.set_limit(path.now, 1300)
    path.run(1)
    assert path.found == [PathSized("t", 1438, 1438), PathSized("t", 1300, 1300)]
    path.check.set_limit(path.now, LEAST)
    assert path.check.next_timeout() == float("inf")
