"""The health check in virtual time: against paths that lose, delay, and carry one way only."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from itertools import pairwise

import pytest

from vpnd.crypto.entropy import Entropy, SeededEntropy
from vpnd.model.policy import HealthPolicy
from vpnd.tunnel.health import (
    ECHOES,
    LOOKS,
    LOSSY_EVERY,
    PRESSING_EVERY,
    WATCHES,
    HealthChanged,
    HealthCheck,
    HealthChecks,
    HealthState,
    LossChanged,
    ProbeOutput,
    ProbeUnsent,
)
from vpnd.tunnel.history import BOUNDS, History
from vpnd.tunnel.loss import OUTAGE
from vpnd.tunnel.path_size import SendProbe

LOCAL, REMOTE = IPv4Address("169.254.128.1"), IPv4Address("169.254.128.2")
DEFAULTS = HealthPolicy(LOCAL, REMOTE)
UNHEALTHY, HEALTHY, UNKNOWN = HealthState.UNHEALTHY, HealthState.HEALTHY, HealthState.UNKNOWN

Path = Callable[[float], float | None]
"""What becomes of an echo request sent at this time: its round trip in seconds, or None if it is lost."""


@dataclass
class Bench:
    """One health check and a path; time passes in `run`."""

    policy: HealthPolicy = DEFAULTS
    path: Path = lambda at: 0.01
    seed: int = 1
    linked: bool = True
    now: float = 1000.0
    entropy: Entropy | None = None
    """None: one of the seed."""
    sent: list[tuple[float, int]] = field(default_factory=list)
    probes: list[SendProbe] = field(default_factory=list)
    unsent: list[float] = field(default_factory=list)
    changes: list[tuple[float, HealthState]] = field(default_factory=list)
    replies: list[tuple[float, SendProbe]] = field(default_factory=list)
    losses: list[tuple[float, bool]] = field(default_factory=list)
    looks: bool = False
    """Whether the check watches for loss and may look closely, as most tests here do not want it to."""

    def __post_init__(self) -> None:
        self.outputs: deque[ProbeOutput] = deque()
        entropy = self.entropy or SeededEntropy(self.seed)
        self.check = HealthCheck(self.now, "t", self.policy, entropy, self.outputs)
        self.check.set_contested(self.now, self.looks)
        self.check.set_linked(self.now, self.linked)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            at = min([self.check.next_timeout(), *(at for at, _ in self.replies)])
            assert at >= self.now, "a deadline in the past would spin"
            if at > end:
                break
            self.now = at
            due = [reply for reply in self.replies if reply[0] <= at]
            self.replies = [reply for reply in self.replies if reply[0] > at]
            for _, probe in due:
                self.answer(probe)
            self.check.looking = self.looks and self.check.doubtful
            self.check.handle_timeout(self.now)
            self.check.looking = self.looks and self.check.doubtful
            self.drain()
        self.now = end

    def answer(self, probe: SendProbe) -> bool:
        answered = self.check.handle_reply(
            self.now, probe.destination, probe.source, probe.identifier, probe.sequence
        )
        self.drain()
        return answered

    def drain(self) -> None:
        while self.outputs:
            match self.outputs.popleft():
                case SendProbe() as probe:
                    self.sent.append((self.now, probe.sequence))
                    self.probes.append(probe)
                    took = self.path(self.now)
                    if took is not None:
                        self.replies.append((self.now + took, probe))
                case ProbeUnsent():
                    self.unsent.append(self.now)
                case HealthChanged(_, _, after, _):
                    self.changes.append((self.now, after))
                case LossChanged(_, lossy, _):
                    self.losses.append((self.now, lossy))

    def states(self) -> list[HealthState]:
        return [state for _, state in self.changes]


class NearTheEnd(SeededEntropy):
    """An entropy whose numbers are all but the greatest."""

    def below(self, bound: int) -> int:
        return max(bound - 36, 0)


def lossy(seed: int, loss: float, rtt: float = 0.01) -> Path:
    weather = random.Random(seed)
    return lambda at: None if weather.random() < loss else rtt


def cut_between(start: float, end: float) -> Path:
    return lambda at: None if start <= at < end else 0.01


# -------------------------------------------------------------------------------- the schedule


def test_one_echo_request_every_interval_while_all_is_well() -> None:
    bench = Bench()
    bench.run(60)
    times = [at for at, _ in bench.sent]
    assert len(times) == 12 or len(times) == 13
    assert {round(b - a, 6) for a, b in pairwise(times)} == {5.0}
    assert bench.states() == [HEALTHY]


def test_first_probe_leaves_at_once_when_the_tunnel_is_linked() -> None:
    bench = Bench()
    bench.run(0)
    assert [at for at, _ in bench.sent] == [1000.0]


def test_tunnels_that_start_together_do_not_probe_in_the_same_moment() -> None:
    starts = {Bench(seed=seed, linked=False).check.next_timeout() for seed in range(50)}
    assert len(starts) > 40
    assert all(1000 <= start < 1001 for start in starts)


def test_sequence_numbers_do_not_repeat_and_wrap_at_16_bits() -> None:
    bench = Bench(replace(DEFAULTS, interval=1.0), entropy=NearTheEnd(1))
    bench.run(100)
    sequences = [sequence for _, sequence in bench.sent]
    assert max(sequences) == 65535
    assert all((b - a) % 65536 == 1 for a, b in pairwise(sequences))
    assert bench.states() == [HEALTHY]


def test_an_unanswered_probe_is_repeated_within_its_timeout_and_no_more() -> None:
    bench = Bench(path=lambda at: None)
    bench.run(4.9)
    offsets = [round(at - 1000.0, 6) for at, _ in bench.sent]
    assert offsets == [0.0, 0.05, 0.1]
    assert bench.check.history.sent == bench.check.history.lost == ECHOES


def test_an_answer_ends_the_repeats() -> None:
    bench = Bench(path=lambda at: 0.06)
    bench.run(4.9)
    assert len(bench.sent) == 2
    assert bench.check.history.lost == 0


def test_a_late_answer_of_a_repeat_counts_for_the_loss_and_not_for_the_verdict() -> None:
    bench = Bench(path=lambda at: None if at < 1000.09 else 0.1)
    bench.run(4.9)
    assert len(bench.sent) == ECHOES
    assert bench.check.history.lost == ECHOES - 1
    assert bench.states() == []


def test_one_who_slept_through_many_intervals_begins_one_probe() -> None:
    bench = Bench()
    bench.run(1)
    bench.now = 2000.0
    bench.check.handle_timeout(bench.now)
    bench.drain()
    bench.run(0)
    assert [at for at, _ in bench.sent][1:] == [2000.0]
    assert bench.check.next_timeout() > 2000.0


def test_several_probes_may_be_under_way_and_are_judged_in_their_order() -> None:
    policy = HealthPolicy(LOCAL, REMOTE, interval=1.0, timeout=5.0, failures=3, recoveries=3)
    # Only every second probe is answered, and the answers overtake the failures before them.
    bench = Bench(policy, path=lambda at: 0.01 if int(at - 1000) % 2 else None)
    bench.run(60)
    assert UNHEALTHY not in bench.states()


def test_a_repeat_that_finds_no_sa_any_more_is_not_sent() -> None:
    bench = Bench(path=lambda at: None)
    bench.run(0.01)
    bench.check.set_linked(bench.now, False)
    bench.run(4)
    assert len(bench.sent) == 1
    assert bench.check.history.lost == 1


# -------------------------------------------------------------------------------- the verdict


def test_a_tunnel_that_never_links_is_unhealthy_after_its_failures() -> None:
    bench = Bench(linked=False)
    bench.run(30)
    assert bench.sent == []
    assert bench.unsent[0] < 1001
    (at, state), *rest = bench.changes
    assert (state, rest) == (UNHEALTHY, [])
    assert at == bench.unsent[2]
    assert bench.check.history.lost == len(bench.unsent)


def test_linking_makes_it_healthy_after_its_recoveries_beginning_at_once() -> None:
    bench = Bench(linked=False)
    bench.run(30.5)
    bench.check.set_linked(bench.now, True)
    linked = bench.now
    bench.run(20)
    assert bench.states() == [UNHEALTHY, HEALTHY]
    assert bench.changes[-1][0] == pytest.approx(linked + 2 * DEFAULTS.interval + 0.01)


def test_losing_the_link_stops_the_sending() -> None:
    bench = Bench()
    bench.run(7)
    bench.check.set_linked(bench.now, False)
    count = len(bench.sent)
    bench.run(60)
    assert len(bench.sent) == count
    assert bench.states() == [HEALTHY, UNHEALTHY]


@pytest.mark.parametrize("failures", [3, 5, 8])
@pytest.mark.parametrize(("interval", "timeout"), [(1.0, 0.01), (1.0, 0.95), (2.5, 0.15), (5.0, 0.15)])
def test_a_cut_is_found_within_failures_times_interval_and_a_second(
    interval: float, timeout: float, failures: int
) -> None:
    policy = HealthPolicy(LOCAL, REMOTE, interval, timeout, failures, 3)
    slowest = 0.0
    for step in range(20):
        start = 1000 + 10 * interval + step * interval / 20
        bench = Bench(policy, path=lambda at, start=start: None if at >= start else 0.005)  # type: ignore[misc]  # a default binds the value of this turn
        bench.run(30 * interval)
        assert bench.states() == [HEALTHY, UNHEALTHY]
        slowest = max(slowest, bench.changes[1][0] - start)
    assert (failures - 1) * interval < slowest <= failures * interval + 1


def test_one_failure_less_changes_nothing() -> None:
    policy = replace(DEFAULTS, interval=1.0, failures=4)
    bench = Bench(policy, path=cut_between(1009.5, 1012.9))
    bench.run(60)
    assert bench.states() == [HEALTHY]


@pytest.mark.parametrize("recoveries", [1, 3, 10])
def test_it_recovers_after_its_recoveries_in_a_row(recoveries: int) -> None:
    policy = replace(DEFAULTS, interval=1.0, recoveries=recoveries)
    bench = Bench(policy, path=cut_between(1009.5, 1019.5))
    bench.run(60)
    assert bench.states() == [HEALTHY, UNHEALTHY, HEALTHY]
    assert bench.changes[-1][0] == pytest.approx(1019 + recoveries + 0.01)


def test_a_failure_between_starts_the_recoveries_again() -> None:
    policy = replace(DEFAULTS, interval=1.0, recoveries=3)
    down = (*range(1010, 1020), 1022)
    bench = Bench(policy, path=lambda at: None if int(at) in down else 0.01)
    bench.run(60)
    assert bench.states() == [HEALTHY, UNHEALTHY, HEALTHY]
    assert bench.changes[-1][0] == pytest.approx(1025.01)


@pytest.mark.parametrize("seed", range(20))
def test_20_percent_loss_never_makes_it_flap(seed: int) -> None:
    bench = Bench(path=lossy(seed, 0.20), seed=seed)
    bench.run(3 * 3600)
    assert bench.states() == [HEALTHY], f"seed {seed}"
    tally = bench.check.history
    assert tally.lost / tally.sent == pytest.approx(0.20, abs=0.04)


def test_a_path_that_carries_one_way_only_is_unhealthy() -> None:
    # Our requests arrive and the answers are lost, or the requests are: to us it is the same.
    bench = Bench(path=cut_between(1052, 2000))
    bench.run(200)
    assert bench.states() == [HEALTHY, UNHEALTHY]


def test_an_answer_slower_than_the_timeout_is_none() -> None:
    bench = Bench(path=lambda at: DEFAULTS.timeout + 0.001)
    bench.run(60)
    assert bench.states() == [UNHEALTHY]
    assert bench.check.history.lost == bench.check.history.sent


# --------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("seed", range(10))
def test_30_percent_loss_is_found_by_a_closer_look(seed: int) -> None:
    bench = Bench(path=lossy(seed, 0.30), seed=seed, looks=True)
    bench.run(180)
    at, found = bench.losses[0]
    assert found, f"seed {seed}"
    assert at - 1000 < 90, f"seed {seed}"
    assert UNHEALTHY not in bench.states()
    assert bench.check.lossy


def test_20_percent_loss_is_borne_under_the_closest_look() -> None:
    # An hour of it, with many seeds, is in test_loss.py: here it is that the look leads there.
    bench = Bench(path=lossy(1, 0.20), seed=1, looks=True)
    bench.run(60)
    assert bench.losses == []
    assert bench.states() == [HEALTHY]


def test_an_outage_is_no_matter_of_loss_and_is_not_looked_at_closely() -> None:
    bench = Bench(path=cut_between(1012, 1100), looks=True)
    bench.run(80)
    assert bench.losses == []
    assert bench.states() == [HEALTHY, UNHEALTHY]
    sent = [at for at, _ in bench.sent if at >= 1012]
    # Three echo requests for each probe, and those of the look that began with the first loss: it goes on
    # until the first of its own are known to be lost. There is no watching meanwhile.
    assert len(sent) <= 15 * ECHOES + DEFAULTS.timeout / PRESSING_EVERY + OUTAGE + 2
    # Of that look only so many count as lost as it took to know.
    assert bench.check.history.lost <= 15 * ECHOES + OUTAGE


def test_loss_that_ends_is_seen_to_end() -> None:
    weather = lossy(3, 0.4)
    bench = Bench(path=lambda at: weather(at) if at < 1060 else 0.01, looks=True)
    bench.run(120)
    assert [found for _, found in bench.losses] == [True, False]
    assert bench.losses[1][0] < 1065
    assert not bench.check.doubtful or bench.check.lossy is False


def test_where_another_tunnel_could_take_over_loss_is_watched_for_between_the_probes() -> None:
    bench = Bench(looks=True)
    bench.run(60)
    times = [at for at, _ in bench.sent]
    gaps = [after - before for before, after in pairwise(times)]
    assert len(times) == pytest.approx(60 / DEFAULTS.interval * WATCHES, abs=WATCHES)
    assert gaps[1:] == pytest.approx([DEFAULTS.interval / WATCHES] * (len(gaps) - 1))


def test_without_another_tunnel_there_is_nothing_to_look_closely_for() -> None:
    bench = Bench(path=lossy(1, 0.3), looks=True)
    bench.check.set_contested(bench.now, False)
    bench.run(60)
    assert not bench.check.doubtful
    assert len(bench.sent) <= 60 / DEFAULTS.interval * ECHOES + 1


def test_a_tunnel_that_is_known_to_lose_too_much_is_looked_at_seldom() -> None:
    bench = Bench(path=lossy(1, 0.5), looks=True)
    bench.run(120)
    assert bench.check.lossy
    before = len(bench.sent)
    bench.run(60)
    probes = 60 / DEFAULTS.interval * (ECHOES + WATCHES)
    assert len(bench.sent) - before <= 60 / LOSSY_EVERY + probes


def test_another_tunnel_that_comes_and_goes_begins_and_ends_the_watching() -> None:
    checks = HealthChecks(SeededEntropy(7))
    checks.set_contested(0.0, frozenset({"a", "b"}))
    checks.set_policy(0.0, "a", DEFAULTS)
    check = checks.get("a")
    assert check is not None
    assert check.contested
    checks.set_contested(1.0, frozenset())
    assert not check.contested


def test_only_so_many_tunnels_are_looked_at_closely_at_once() -> None:
    checks = HealthChecks(SeededEntropy(7))
    for number in range(LOOKS + 5):
        checks.set_policy(0.0, f"t{number}", DEFAULTS)
        checks.set_linked(0.0, f"t{number}", True)
    checks.set_contested(0.0, frozenset(f"t{number}" for number in range(LOOKS + 5)))
    weather = random.Random(11)
    looked: set[int] = set()
    while (at := checks.next_timeout()) is not None and at <= 60:
        checks.handle_timeout(at)
        while checks.outputs:
            output = checks.outputs.popleft()
            if isinstance(output, SendProbe) and weather.random() > 0.3:
                checks.handle_reply(at, output.tunnel, REMOTE, LOCAL, output.identifier, output.sequence)
        known = [checks.get(f"t{number}") for number in range(LOOKS + 5)]
        looked.add(sum(check.looking for check in known if check is not None))
        assert all(check.doubtful for check in known if check is not None and check.looking)
    assert max(looked) == LOOKS


# --------------------------------------------------------------------------------- the replies


def request_of(bench: Bench) -> SendProbe:
    bench.run(0)
    assert (bench.probes[-1].source, bench.probes[-1].destination) == (LOCAL, REMOTE)
    return bench.probes[-1]


@pytest.mark.parametrize(
    "change",
    [
        {"identifier": 1},
        {"sequence": 1},
        {"source": IPv4Address("169.254.128.3")},
        {"destination": IPv4Address("10.0.0.1")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_reply_to_something_else_is_none_of_ours(change: dict[str, object]) -> None:
    bench = Bench(path=lambda at: None)
    request = request_of(bench)
    values: dict[str, object] = {
        "source": REMOTE,
        "destination": LOCAL,
        "identifier": request.identifier,
        "sequence": request.sequence,
    }
    for name, value in change.items():
        values[name] = (value + request_value(request, name)) % 65536 if isinstance(value, int) else value
    assert not bench.check.handle_reply(bench.now, **values)  # type: ignore[arg-type]  # fields by their names
    assert bench.check.state is UNKNOWN
    assert bench.answer(request)
    assert bench.check.state is HEALTHY


def request_value(request: SendProbe, name: str) -> int:
    return request.identifier if name == "identifier" else request.sequence


def test_a_repeated_reply_counts_once() -> None:
    bench = Bench(path=lambda at: None)
    request = request_of(bench)
    assert bench.answer(request)
    assert not bench.answer(request)
    assert bench.check.history.sent == 1


# ---------------------------------------------------------------------------------- the history


def test_round_trip_and_jitter_of_the_moment() -> None:
    trips = iter([0.010, 0.014, 0.012, 0.012] * 100)
    bench = Bench(path=lambda at: next(trips))
    bench.run(5 * 60)
    recent = bench.check.history.recent()
    assert recent.rtt == pytest.approx(0.012)
    assert recent.jitter == pytest.approx(0.002, rel=0.05)
    assert recent.lost == 0


def test_round_trips_and_their_differences_are_counted_by_size() -> None:
    trips = iter([0.010, 0.014, None, 0.0125, 0.0005] + [0.0005] * 1000)
    bench = Bench(path=lambda at: next(trips))
    bench.run(120)
    history = bench.check.history
    answered = history.sent - history.lost
    counted = dict(zip((*BOUNDS, None), history.rtts.counts, strict=True))
    assert history.lost == 1
    assert (counted[0.01], counted[0.02], counted[0.001]) == (1, 2, answered - 3)
    assert history.rtts.total == pytest.approx(0.0365 + 0.0005 * (answered - 3))
    # 4 ms, over the loss 1.5 ms, 12 ms, and nothing from then on.
    counted = dict(zip((*BOUNDS, None), history.jitters.counts, strict=True))
    assert (counted[0.005], counted[0.002], counted[0.02], counted[0.001]) == (1, 1, 1, answered - 4)
    assert history.jitters.total == pytest.approx(0.0175)


def test_what_takes_longer_than_the_largest_bound_is_counted_above_it() -> None:
    history = History()
    history.count(0.0, BOUNDS[-1])
    history.count(1.0, BOUNDS[-1] + 1)
    assert history.rtts.counts[-2:] == [1, 1]
    assert history.jitters.counts[-2:] == [1, 0]


def test_the_window_forgets_what_is_long_past() -> None:
    bench = Bench(path=cut_between(1020, 1120))
    bench.run(3600)
    assert bench.check.history.lost > 0
    assert bench.check.history.recent().lost == 0


def test_the_last_hour_is_kept_and_no_more() -> None:
    bench = Bench(replace(DEFAULTS, interval=1.0), path=cut_between(1020, 5000))
    bench.run(3 * 3600)
    hour = bench.check.history.last_hour(bench.now)
    assert 59 <= len(hour) <= 61
    assert hour[0].start >= bench.now - 3600 - 60
    assert [minute.start for minute in hour] == sorted({minute.start for minute in hour})
    assert {(minute.sent, minute.lost) for minute in hour[1:-1]} == {(60, 0)}
    assert sum(minute.sent for minute in hour) < bench.check.history.sent


def test_a_minute_without_answers_has_no_round_trip() -> None:
    bench = Bench(path=lambda at: None)
    bench.run(200)
    hour = bench.check.history.last_hour(bench.now)
    assert hour
    assert all(minute.rtt is None and minute.jitter is None and minute.lost for minute in hour)


def test_history_is_empty_before_the_first_probe_and_an_hour_after_the_last() -> None:
    bench = Bench()
    assert bench.check.history.last_hour(bench.now) == ()
    bench.run(200)
    assert bench.check.history.last_hour(bench.now + 7200) == ()


# -------------------------------------------------------------------------------- many of them


def test_a_thousand_checks_wake_one_at_a_time() -> None:
    checks = HealthChecks(SeededEntropy(7))
    for number in range(1000):
        checks.set_policy(0.0, f"t{number}", DEFAULTS)
        checks.set_linked(0.0, f"t{number}", True)
    answered = 0
    while (at := checks.next_timeout()) is not None and at <= 20:
        checks.handle_timeout(at)
        while checks.outputs:
            output = checks.outputs.popleft()
            if isinstance(output, SendProbe):
                answered += 1
                checks.handle_reply(
                    at + 0.01, output.tunnel, REMOTE, LOCAL, output.identifier, output.sequence
                )
    assert 4000 <= answered <= 5000
    assert all(
        check is not None and check.state is HEALTHY
        for check in (checks.get(f"t{number}") for number in range(1000))
    )


def test_answers_to_large_packets_are_its_own_and_count_for_no_loss() -> None:
    bench = Bench()
    bench.check.size.set_limit(bench.now, 1438)
    bench.run(0.015)
    small, large = (probe for _, probe in bench.replies)
    assert (small.size, large.size) == (None, 1438)
    bench.replies.clear()
    assert bench.answer(small)
    assert bench.answer(large)
    assert not bench.answer(large), "its time is over once both are there"
    bench.run(60)
    assert bench.check.history.recent().sent == len([one for one in bench.probes if one.size is None]) - 1
    assert bench.states() == [HEALTHY]


def test_a_reply_through_another_tunnel_is_none() -> None:
    checks = HealthChecks(SeededEntropy(7))
    for name in ("a", "b"):
        checks.set_policy(0.0, name, DEFAULTS)
        checks.set_linked(0.0, name, True)
    checks.handle_timeout(0.0)
    first = checks.outputs.popleft()
    assert isinstance(first, SendProbe)
    other = "b" if first.tunnel == "a" else "a"
    checks.handle_reply(0.01, other, REMOTE, LOCAL, first.identifier, first.sequence)
    checks.handle_reply(0.01, "nobody", REMOTE, LOCAL, first.identifier, first.sequence)
    known = checks.get(other)
    assert known is not None
    assert known.state is UNKNOWN


def test_the_same_policy_keeps_the_verdict_and_another_begins_again() -> None:
    checks = HealthChecks(SeededEntropy(7))
    checks.set_policy(0.0, "a", DEFAULTS)
    before = checks.get("a")
    checks.set_policy(1.0, "a", DEFAULTS)
    assert checks.get("a") is before
    checks.set_policy(1.0, "a", replace(DEFAULTS, interval=1.0))
    assert checks.get("a") is not before


def test_a_check_that_is_turned_off_leaves_nothing() -> None:
    checks = HealthChecks(SeededEntropy(7))
    checks.set_policy(0.0, "a", DEFAULTS)
    checks.set_linked(0.0, "a", True)
    checks.handle_timeout(0.0)
    assert checks.outputs
    checks.set_policy(0.0, "a", None)
    assert checks.get("a") is None
    assert not checks.outputs
    assert checks.next_timeout() is None
    checks.remove("a")


def test_what_concerns_a_tunnel_without_a_check_changes_nothing() -> None:
    checks = HealthChecks(SeededEntropy(7))
    checks.set_linked(0.0, "a", True)
    checks.handle_reply(0.0, "a", REMOTE, LOCAL, 1, 1)
    checks.set_contested(0.0, frozenset({"a"}))
    assert checks.get("a") is None
    assert not checks.outputs
    assert checks.next_timeout() is None
