"""Which tunnel carries a route: at once away from what fails, late and damped back."""

from __future__ import annotations

import random
from ipaddress import IPv4Network
from typing import Any

import pytest

from vpnd.tunnel.failover import (
    CALM,
    LONGEST_RETURN,
    RETURN_AFTER,
    Failover,
    Fitness,
    Member,
    NoSuchGroup,
    RouteMoved,
)

R1, R2, R3 = (IPv4Network(f"10.{n}.0.0/16") for n in (1, 2, 3))
ABLE, LOSSY, READY, UNABLE = Fitness

PAIR = (Member("primary", 0, (R1,)), Member("secondary", 100, (R1,)))


def failover(*members: Member) -> Failover:
    made = Failover()
    made.configure(0.0, members or PAIR)
    made.outputs.clear()
    return made


def both_able() -> Failover:
    made = failover()
    made.set_fitness(0.0, "primary", ABLE)
    made.set_fitness(0.0, "secondary", ABLE)
    made.outputs.clear()
    return made


def moves(made: Failover) -> list[tuple[str, str]]:
    found = [(carry.before or "-", carry.tunnel) for carry in made.outputs]
    made.outputs.clear()
    return found


def pass_time(made: Failover, until: float) -> None:
    while (at := made.next_timeout()) is not None and at <= until:
        made.handle_timeout(at)


# --------------------------------------------------------------------------------- priorities


def test_the_lowest_number_holds_a_route_while_nothing_is_up() -> None:
    made = Failover()
    made.configure(0.0, reversed(PAIR))
    assert list(made.outputs) == [RouteMoved(R1, "primary", None)]
    assert made.carrier(R1) == "primary"
    assert made.carries("primary")
    assert not made.carries("secondary")
    assert made.carrier(R2) is None
    assert not made.carries("nobody")


def test_equal_numbers_go_by_the_order_of_the_configuration() -> None:
    made = failover(Member("x", 5, (R1,)), Member("a", 5, (R1,)))
    assert made.carrier(R1) == "x"


def test_a_primary_that_comes_up_for_the_first_time_takes_over_at_once() -> None:
    made = failover()
    made.set_fitness(1.0, "secondary", ABLE)
    made.set_fitness(1.2, "primary", ABLE)
    assert moves(made) == [("primary", "secondary"), ("secondary", "primary")]


def test_the_secondary_comes_up_beside_an_able_primary_and_nothing_moves() -> None:
    made = both_able()
    made.set_fitness(5.0, "secondary", UNABLE)
    made.set_fitness(6.0, "secondary", ABLE)
    pass_time(made, 1000)
    assert moves(made) == []


def test_traffic_leaves_a_failed_primary_at_once() -> None:
    made = both_able()
    made.set_fitness(100.0, "primary", UNABLE)
    assert moves(made) == [("primary", "secondary")]


def test_an_idle_traffic_triggered_tunnel_is_better_than_a_broken_one_and_worse_than_one_that_is_up() -> None:
    made = failover()
    made.set_fitness(0.0, "secondary", READY)
    assert made.carrier(R1) == "secondary"
    made.set_fitness(1.0, "primary", ABLE)
    assert made.carrier(R1) == "primary"
    made.set_fitness(2.0, "primary", READY)
    assert made.carrier(R1) == "primary"


def test_when_all_fail_the_route_goes_back_to_the_first() -> None:
    made = both_able()
    made.set_fitness(100.0, "primary", UNABLE)
    made.set_fitness(101.0, "secondary", UNABLE)
    assert moves(made) == [("primary", "secondary"), ("secondary", "primary")]


def test_the_same_standing_again_is_no_news() -> None:
    made = both_able()
    made.set_fitness(100.0, "primary", UNABLE)
    made.set_fitness(101.0, "primary", UNABLE)
    made.set_fitness(101.0, "nobody", ABLE)
    assert len(made.outputs) == 1


# ---------------------------------------------------------------------------------- hold-down


def test_the_primary_takes_its_traffic_back_when_it_has_been_able_long_enough() -> None:
    made = both_able()
    made.set_fitness(100.0, "primary", UNABLE)
    made.set_fitness(110.0, "primary", ABLE)
    made.outputs.clear()
    pass_time(made, 110.0 + RETURN_AFTER - 0.01)
    assert moves(made) == []
    assert made.next_timeout() == 110.0 + RETURN_AFTER
    pass_time(made, 110.0 + RETURN_AFTER)
    assert moves(made) == [("secondary", "primary")]
    assert made.next_timeout() is None


def test_a_primary_that_fails_again_while_it_waits_does_not_return() -> None:
    made = both_able()
    for at, fitness in ((100.0, UNABLE), (110.0, ABLE), (115.0, UNABLE)):
        made.set_fitness(at, "primary", fitness)
    made.outputs.clear()
    pass_time(made, 1000)
    assert moves(made) == []
    assert made.carrier(R1) == "secondary"


def test_a_held_primary_takes_over_at_once_when_the_secondary_fails() -> None:
    made = both_able()
    made.set_fitness(100.0, "primary", UNABLE)
    made.set_fitness(110.0, "primary", ABLE)
    made.set_fitness(111.0, "secondary", UNABLE)
    assert made.carrier(R1) == "primary"


def test_each_failure_doubles_the_wait_up_to_its_bound() -> None:
    made = both_able()
    now, waits = 100.0, []
    for _ in range(12):
        made.set_fitness(now, "primary", UNABLE)
        made.set_fitness(now + 1, "primary", ABLE)
        back = made.next_timeout()
        assert back is not None
        waits.append(back - now - 1)
        pass_time(made, back)
        assert made.carrier(R1) == "primary"
        now = back + 1
    assert waits[:4] == [RETURN_AFTER, 2 * RETURN_AFTER, 4 * RETURN_AFTER, 8 * RETURN_AFTER]
    assert waits[-1] == LONGEST_RETURN


def test_a_calm_time_makes_the_next_failure_the_first_again() -> None:
    made = both_able()
    for at in (100.0, 200.0, 300.0):
        made.set_fitness(at, "primary", UNABLE)
        made.set_fitness(at + 1, "primary", ABLE)
        pass_time(made, at + 99)
    later = 341.0 + CALM
    made.set_fitness(later, "primary", UNABLE)
    made.set_fitness(later + 1, "primary", ABLE)
    assert made.next_timeout() == later + 1 + RETURN_AFTER


@pytest.mark.parametrize("seed", range(10))
def test_a_flapping_primary_moves_the_traffic_a_handful_of_times_in_an_hour(seed: int) -> None:
    made, chance, now = both_able(), random.Random(seed), 100.0
    able = True
    while now < 3700:
        able = not able
        made.set_fitness(now, "primary", ABLE if able else UNABLE)
        now += chance.uniform(1, 40)
        pass_time(made, now)
    assert 1 <= len(made.outputs) <= 16, f"seed {seed}"


def test_of_three_the_second_returns_before_the_first_that_is_held() -> None:
    made = failover(Member("a", 0, (R1,)), Member("b", 50, (R1,)), Member("c", 100, (R1,)))
    for name in "abc":
        made.set_fitness(0.0, name, ABLE)
    for at in (10.0, 20.0, 30.0):  # a has failed three times and waits longest
        made.set_fitness(at, "a", UNABLE)
        made.set_fitness(at + 1, "a", ABLE)
    made.set_fitness(32.0, "b", UNABLE)
    assert made.carrier(R1) == "a" or made.carrier(R1) == "c"
    made.set_fitness(33.0, "b", ABLE)
    pass_time(made, 33.0 + RETURN_AFTER)
    order = [carry.tunnel for carry in made.outputs]
    pass_time(made, 200.0)
    assert made.carrier(R1) == "a"
    assert order[-1] in ("a", "b")


# --------------------------------------------------------------------------------------- loss


def test_traffic_leaves_a_lossy_primary_and_returns_when_it_has_been_good_for_a_while() -> None:
    made = both_able()
    made.set_fitness(100.0, "primary", LOSSY)
    assert moves(made) == [("primary", "secondary")]
    made.set_fitness(150.0, "primary", ABLE)
    pass_time(made, 149.9 + RETURN_AFTER)
    assert moves(made) == []
    pass_time(made, 150.0 + RETURN_AFTER)
    assert moves(made) == [("secondary", "primary")]


def test_a_lossy_tunnel_carries_while_there_is_none_better() -> None:
    made = failover()
    made.set_fitness(0.0, "primary", LOSSY)
    made.set_fitness(0.0, "secondary", READY)
    assert made.carrier(R1) == "primary"
    made.set_fitness(1.0, "secondary", UNABLE)
    assert made.carrier(R1) == "primary"


def test_between_two_lossy_tunnels_nothing_moves() -> None:
    made = both_able()
    made.set_fitness(100.0, "primary", LOSSY)
    made.set_fitness(101.0, "secondary", LOSSY)
    assert moves(made) == [("primary", "secondary")]
    made.set_fitness(102.0, "secondary", UNABLE)
    assert moves(made) == [("secondary", "primary")]


def test_an_operator_may_prefer_a_lossy_tunnel() -> None:
    made = both_able()
    made.switch(10.0, "primary", "secondary")
    made.set_fitness(20.0, "secondary", LOSSY)
    assert made.carrier(R1) == "secondary"
    made.set_fitness(30.0, "secondary", UNABLE)
    assert made.carrier(R1) == "primary"


# ----------------------------------------------------------------------------------- by hand


def test_an_operator_moves_a_group_and_moves_it_back() -> None:
    made = both_able()
    group = made.switch(10.0, "primary", "secondary")
    assert (group.name, group.members, group.by_hand) == ("primary", ("primary", "secondary"), "secondary")
    assert [(c.tunnel, c.by_hand) for c in made.outputs] == [("secondary", True)]
    made.outputs.clear()
    pass_time(made, 10_000)
    assert moves(made) == []
    assert made.switch(10_000.0, "primary", "primary").by_hand is None
    assert moves(made) == [("secondary", "primary")]


def test_switching_without_a_name_goes_back_to_the_automatic() -> None:
    made = both_able()
    made.switch(10.0, "primary", "secondary")
    assert made.switch(20.0, "primary", None).by_hand is None
    assert made.carrier(R1) == "primary"


@pytest.mark.parametrize("name", ["primary", "secondary", "10.1.0.0/16"])
def test_a_group_is_known_by_its_tunnels_and_its_routes(name: str) -> None:
    assert both_able().group(name).name == "primary"


def test_a_choice_by_hand_does_not_wait_for_the_hold_down() -> None:
    made = both_able()
    made.set_fitness(100.0, "primary", UNABLE)
    made.set_fitness(110.0, "primary", ABLE)
    made.switch(111.0, "primary", "primary")
    assert made.carrier(R1) == "primary"


def test_a_chosen_tunnel_that_fails_gives_way_and_gets_its_traffic_back() -> None:
    made = both_able()
    made.switch(10.0, "primary", "secondary")
    made.set_fitness(20.0, "secondary", UNABLE)
    assert made.carrier(R1) == "primary"
    made.set_fitness(30.0, "secondary", ABLE)
    assert made.carrier(R1) == "primary"
    pass_time(made, 30.0 + RETURN_AFTER)
    assert made.carrier(R1) == "secondary"
    assert made.group("primary").by_hand == "secondary"


def test_only_members_of_the_group_can_be_chosen() -> None:
    made = failover(*PAIR, Member("other", 0, (R2,)))
    with pytest.raises(NoSuchGroup, match="other is not one of the group primary"):
        made.switch(0.0, "primary", "other")
    with pytest.raises(NoSuchGroup, match="nothing"):
        made.switch(0.0, "nothing", "primary")
    assert not made.outputs


# -------------------------------------------------------------------------- several routes


def test_each_route_goes_to_the_best_tunnel_that_has_it() -> None:
    made = failover(Member("a", 0, (R1, R2)), Member("b", 100, (R1,)), Member("c", 100, (R2, R3)))
    for name in "abc":
        made.set_fitness(0.0, name, ABLE)
    assert made.group("c").members == ("a", "b", "c")
    assert made.group("c").routes == (R1, R2, R3)
    made.set_fitness(1.0, "a", UNABLE)
    assert (made.carrier(R1), made.carrier(R2), made.carrier(R3)) == ("b", "c", "c")


def test_a_choice_moves_only_the_routes_that_the_tunnel_has() -> None:
    made = failover(Member("a", 0, (R1, R2)), Member("b", 100, (R1,)))
    made.set_fitness(0.0, "a", ABLE)
    made.set_fitness(0.0, "b", ABLE)
    made.switch(1.0, "a", "b")
    assert (made.carrier(R1), made.carrier(R2)) == ("b", "a")


# --------------------------------------------------------------------------- configuration


def test_a_reload_keeps_what_is_known_of_the_tunnels_that_stay() -> None:
    made = both_able()
    made.set_fitness(100.0, "primary", UNABLE)
    made.set_fitness(110.0, "primary", ABLE)
    made.outputs.clear()
    made.configure(111.0, (*PAIR, Member("third", 200, (R1, R2))))
    assert moves(made) == [("-", "third")]
    assert made.carrier(R1) == "secondary"
    pass_time(made, 110.0 + RETURN_AFTER)
    assert made.carrier(R1) == "primary"


def test_a_choice_by_hand_outlasts_a_reload_unless_its_tunnel_is_the_first_now() -> None:
    made = both_able()
    made.switch(10.0, "primary", "secondary")
    made.configure(20.0, PAIR)
    assert made.group("primary").by_hand == "secondary"
    assert made.carrier(R1) == "secondary"
    made.configure(30.0, (Member("primary", 100, (R1,)), Member("secondary", 0, (R1,))))
    assert made.group("primary").by_hand is None


def test_a_reload_that_swaps_the_numbers_moves_the_traffic() -> None:
    made = both_able()
    made.configure(10.0, (Member("primary", 100, (R1,)), Member("secondary", 0, (R1,))))
    assert moves(made) == [("primary", "secondary")]


def test_a_removed_carrier_hands_over_and_a_removed_route_is_forgotten() -> None:
    made = failover(Member("a", 0, (R1, R2)), Member("b", 100, (R1,)))
    made.set_fitness(0.0, "b", ABLE)
    made.switch(0.0, "a", "b")
    made.configure(1.0, (Member("b", 100, (R1,)),))
    assert made.carrier(R1) == "b"
    assert made.carrier(R2) is None
    assert made.group("b").by_hand is None
    made.handle_timeout(10.0)


def test_a_timer_of_a_tunnel_that_is_gone_does_nothing() -> None:
    made = both_able()
    made.set_fitness(100.0, "primary", UNABLE)
    made.set_fitness(110.0, "primary", ABLE)
    made.configure(111.0, PAIR[1:])
    made.outputs.clear()
    pass_time(made, 1000.0)
    assert moves(made) == []
    assert made.next_timeout() is None


def test_with_a_thousand_tunnels_a_change_looks_at_its_own_group_only() -> None:
    looked: list[str] = []

    class Watched(Member):
        """A member that notes when its number is read, as each choice among tunnels does."""

        def __getattribute__(self, name: str) -> Any:
            if name == "priority":
                looked.append(self.name)
            return super().__getattribute__(name)

    networks = [IPv4Network((0x0B000000 + (n << 8), 24)) for n in range(500)]
    members = [
        Watched(f"{kind}{n}", number, (networks[n],))
        for n in range(500)
        for kind, number in (("p", 0), ("s", 100))
    ]
    made = failover(*members)
    for member in members:
        made.set_fitness(0.0, member.name, ABLE)
    made.outputs.clear()
    looked.clear()
    made.set_fitness(1.0, "p250", UNABLE)
    assert moves(made) == [("p250", "s250")]
    assert set(looked) == {"p250", "s250"}
