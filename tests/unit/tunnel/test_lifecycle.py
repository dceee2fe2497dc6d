"""The life of a tunnel, with a virtual clock."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.unit.tunnel.lives import (
    DEAD,
    DELETED,
    LOCAL,
    SELECTORS,
    SILENT,
    SPIS,
    Life,
    child,
    ike_info,
    policy,
)
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildReplaced,
    ChildUp,
    Established,
    Failed,
    IkeDown,
    IkeReplaced,
    OutboundReady,
    PeerDead,
    Story,
)
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import DpdAction, Negotiation
from vpnd.model.selectors import Selector
from vpnd.tunnel.backoff import ATTEMPT_LIMIT, LONGEST_DELAY, PEER_FIRST
from vpnd.tunnel.commands import (
    AttemptFailed,
    CloseTunnel,
    Impaired,
    Initiate,
    MappingChanged,
    MappingState,
)
from vpnd.tunnel.lifecycle import impaired
from vpnd.tunnel.mappings import ENDED_HERE
from vpnd.tunnel.tunnels import Tunnels

ACTIVE, PASSIVE, TRIGGERED = Negotiation.ACTIVE, Negotiation.PASSIVE, Negotiation.TRAFFIC_TRIGGERED


# ------------------------------------------------------------------------------ who begins


@pytest.mark.parametrize(
    ("negotiation", "state", "attempts"),
    [(ACTIVE, "connecting", 1), (PASSIVE, "waiting", 0), (TRIGGERED, "waiting", 0)],
)
def test_what_a_configured_tunnel_does_first(negotiation: Negotiation, state: str, attempts: int) -> None:
    life = Life(policy(negotiation))
    assert (life.state, life.attempts) == (state, attempts)
    life.pass_time(600 if negotiation is not ACTIVE else 0)
    assert life.attempts == 0


def test_an_active_tunnel_comes_up() -> None:
    life = Life(policy())
    life.bring_up()
    assert life.story() == ["connecting", "up"]
    assert life.tunnel.standing.error is None
    assert life.tunnels.next_timeout() is None


def test_mappings_are_negotiated_in_their_order_one_at_a_time() -> None:
    life = Life(policy(mappings=3))
    assert life.commands[0] == Initiate("branch", 0)
    life.tell("established", *SPIS)
    order = []
    while life.tunnel.attempt.mapping is not None:
        order.append(life.tunnel.attempt.mapping)
        assert life.attempts == 1
        life.tell("child_up", child(life.tunnel.attempt.mapping, 0x5000 + 2 * len(order)))
    assert order == [0, 1, 2]
    assert life.tunnel.all_up


def test_a_passive_tunnel_answers_and_waits_again() -> None:
    life = Life(policy(PASSIVE))
    life.tell("established", *SPIS)
    life.tell("child_up", child(initiator=False))
    life.lose(DELETED)
    life.pass_time(600)
    assert life.story() == ["up", "waiting"]
    assert life.attempts == 0


def test_a_tunnel_of_any_address_begins_only_under_an_ike_sa_of_the_peer() -> None:
    plain = policy(PASSIVE, mappings=2)
    life = Life(replace(plain, remote="any", peer=replace(plain.peer, remote_address=None, any_address=True)))
    life.tell("up")
    life.pass_time(600)
    assert (life.state, life.attempts) == ("waiting", 0)
    life.tell("established", *SPIS)
    life.tell("child_up", child(initiator=False))
    life.tell("up")
    assert life.commands[-1] == Initiate("branch", 1)


def test_a_packet_starts_a_traffic_triggered_mapping_and_only_that() -> None:
    life = Life(policy(TRIGGERED, mappings=3))
    life.tell("acquire", 1)
    assert life.taken(Initiate) == [Initiate("branch", 1)]
    life.tell("acquire", 1)
    assert life.attempts == 0
    life.bring_up()
    assert [m.state(life.tunnel.standing.closed).value for m in life.tunnel.mappings] == [
        "waiting",
        "up",
        "waiting",
    ]
    life.tell("acquire", 1)
    assert life.attempts == 0


def test_packets_do_not_hurry_a_traffic_triggered_tunnel_whose_attempts_fail() -> None:
    life = Life(policy(TRIGGERED))
    began = 0
    for _ in range(120):
        life.tell("acquire", 0)
        life.pass_time(1)
        while life.tunnel.attempt.mapping is not None:
            began += 1
            life.tell("failed", SILENT, True)
    assert 5 <= began <= 9


def test_packets_that_come_between_two_attempts_start_none() -> None:
    life = Life(policy(TRIGGERED))
    life.tell("acquire", 0)
    life.tell("established", *SPIS)
    life.tell("child_failed", 0, SELECTORS)
    life.tell("acquire", 0)
    life.tell("child_failed", 0, SELECTORS)
    life.taken(Initiate)
    life.tell("acquire", 0)
    assert life.attempts == 0
    life.pass_time(LONGEST_DELAY)
    life.tell("acquire", 0)
    assert life.attempts == 1


def test_packets_mean_nothing_to_a_passive_or_closed_tunnel() -> None:
    passive = Life(policy(PASSIVE))
    passive.tell("acquire", 0)
    closed = Life(policy(TRIGGERED))
    closed.tell("down")
    closed.tell("acquire", 0)
    assert (passive.attempts, closed.attempts) == (0, 0)


# ---------------------------------------------------------------------------------- failures


def test_retries_go_on_for_ever_the_first_at_once_then_up_to_a_minute() -> None:
    life = Life(policy())
    waits: list[float] = []
    for _ in range(500):
        life.pass_time(LONGEST_DELAY)
        assert life.tunnel.attempt.mapping == 0
        life.tell("failed", SILENT, True)
    waits = [wait for wait in life.retries() if wait is not None]
    assert len(waits) == 500
    assert waits[0] == 0
    assert all(0.8 <= waits[n] / 2 ** (n - 1) <= 1.0 for n in range(1, 7))
    assert all(0.8 * LONGEST_DELAY <= wait <= LONGEST_DELAY for wait in waits[8:])
    assert len(set(waits[8:])) > 100


def test_the_next_try_is_known_and_comes_then() -> None:
    life = Life(policy())
    life.tell("failed", SILENT, True)
    life.tell("failed", SILENT, True)
    due = life.tunnel.next_try
    assert due is not None
    assert due > life.now
    life.taken(Initiate)
    life.pass_time(due - life.now - 0.01)
    assert life.attempts == 0
    life.pass_time(0.02)
    assert life.attempts == 1


def test_a_mapping_that_the_peer_refuses_does_not_hold_up_the_others() -> None:
    life = Life(policy(mappings=3))
    life.tell("established", *SPIS)
    life.tell("child_up", child(0, 0x5000))
    life.tell("child_failed", 1, SELECTORS)
    life.tell("child_failed", 1, SELECTORS)
    assert life.tunnel.attempt.mapping == 2
    life.tell("child_up", child(2, 0x5004))
    states = [m.state(life.tunnel.standing.closed) for m in life.tunnel.mappings]
    assert states == [MappingState.UP, MappingState.DOWN, MappingState.UP]
    assert life.state == "up"
    assert life.tunnel.mappings[1].reason is not None
    assert life.tunnel.standing.error is not None
    assert life.tunnel.standing.error.diagnosis == SELECTORS
    life.taken(Initiate)
    life.pass_time(LONGEST_DELAY)
    assert life.taken(Initiate)[0] == Initiate("branch", 1)


def error_of(life: Life) -> tuple[Diagnosis | None, int]:
    """The error that stands, and how often it was tried since."""
    standing = life.tunnel.standing
    return standing.error.diagnosis if standing.error else None, standing.tries


def test_the_error_stands_until_everything_is_up_and_is_remembered_after() -> None:
    life = Life(policy())
    life.tell("failed", SILENT, True)
    assert error_of(life) == (SILENT, 1)
    life.bring_up()
    assert error_of(life) == (None, 0)
    assert life.tunnel.standing.faults[-1][0].diagnosis == SILENT


def test_failures_are_counted_from_the_first_since_it_was_up() -> None:
    life = Life(policy())
    began, standing = life.now, life.tunnel.standing
    for tries in (1, 2, 3):
        life.tell("failed", SILENT, True)
        assert (standing.tries, standing.since) == (tries, began)
        life.pass_time(LONGEST_DELAY + 1)
    life.bring_up()
    assert (standing.tries, standing.since) == (0, None)


def test_an_attempt_without_any_result_is_given_up() -> None:
    life = Life(policy())
    life.taken(Initiate)
    life.pass_time(ATTEMPT_LIMIT + 1)
    assert life.attempts == 1
    assert life.retries() == [0]


def test_a_refused_peer_is_the_error_of_a_tunnel_that_is_not_up_only() -> None:
    life = Life(policy(PASSIVE))
    wrong_key = Diagnosis.of(Code.PSK)
    life.tell("failed", wrong_key, False)
    assert error_of(life) == (wrong_key, 1)
    assert life.state == "waiting"
    life.tell("established", *SPIS)
    life.tell("child_up", child())
    life.tell("failed", wrong_key, False)
    assert error_of(life) == (None, 0)
    assert life.tunnel.standing.faults[-1][0].diagnosis == wrong_key
    assert life.state == "up"


# -------------------------------------------------------------------------------------- loss


def test_an_active_tunnel_that_the_peer_closes_comes_back_at_once_then_slower() -> None:
    life = Life(policy())
    life.bring_up()
    life.pass_time(60)
    waits = []
    for _ in range(8):
        life.taken(Initiate)
        life.lose(DELETED)
        lost = life.now
        while not life.attempts:
            life.pass_time(0.1)
        waits.append(life.now - lost)
        life.bring_up()
    assert waits[0] <= 0.2
    assert waits[1] >= 0.7
    assert waits[5] >= 10
    life.pass_time(60)
    life.lose(DELETED)
    life.pass_time(0.1)
    assert life.attempts == 1


@pytest.mark.parametrize("negotiation", [ACTIVE, PASSIVE, TRIGGERED])
@pytest.mark.parametrize("action", [DpdAction.DISCONNECT, DpdAction.RETRY])
@pytest.mark.parametrize("verdict_first", [True, False])
def test_what_follows_a_dead_peer(negotiation: Negotiation, action: DpdAction, verdict_first: bool) -> None:
    life = Life(policy(negotiation, mappings=2, action=action))
    life.tell("up")
    life.bring_up()
    life.pass_time(100)
    life.taken(Initiate)
    if verdict_first:
        life.tell("peer_dead", DEAD)
        assert life.taken(CloseTunnel) == [CloseTunnel("branch", DEAD)]
        life.lose(DEAD)
    else:
        life.lose(DEAD)
        life.tell("peer_dead", DEAD)
        assert life.taken(CloseTunnel) == []
    life.pass_time(0.01)
    at_once = life.attempts
    assert life.tunnel.standing.faults[-1][0].diagnosis == DEAD
    if action is DpdAction.RETRY:
        assert at_once == 1
        life.tell("failed", SILENT, True)
        life.tell("failed", SILENT, True)
        life.pass_time(LONGEST_DELAY)
        assert life.attempts >= 1
    else:
        life.pass_time(10 * LONGEST_DELAY)
        assert (life.attempts, life.state) == (0, "waiting")
        assert (life.tunnel.next_try, life.tunnel.next_timeout()) == (None, None)
        assert life.tunnel.standing.error is not None
        assert life.tunnel.standing.error.diagnosis == DEAD


def disconnected(negotiation: Negotiation = ACTIVE, mappings: int = 1) -> Life:
    """A tunnel that was up, and that dead peer detection has disconnected for good."""
    life = Life(policy(negotiation, mappings, action=DpdAction.DISCONNECT))
    life.tell("up")
    life.bring_up()
    life.pass_time(100)
    life.tell("peer_dead", DEAD)
    life.lose(DEAD)
    life.pass_time(600)
    life.taken(Initiate)
    assert life.state == "waiting"
    return life


@pytest.mark.parametrize("negotiation", [ACTIVE, PASSIVE, TRIGGERED])
@pytest.mark.parametrize("command", ["up", "reset"])
def test_the_operator_brings_a_disconnected_tunnel_back(negotiation: Negotiation, command: str) -> None:
    life = disconnected(negotiation)
    life.tell(command)
    life.pass_time(0.01)
    assert (life.attempts, life.state) == (1, "connecting")
    assert not life.tunnel.standing.disconnected


@pytest.mark.parametrize(("negotiation", "attempts"), [(ACTIVE, 0), (PASSIVE, 0), (TRIGGERED, 1)])
def test_traffic_brings_back_what_it_triggers(negotiation: Negotiation, attempts: int) -> None:
    life = disconnected(negotiation)
    life.tell("acquire", 0)
    life.pass_time(0.01)
    assert life.attempts == attempts


@pytest.mark.parametrize("negotiation", [ACTIVE, PASSIVE, TRIGGERED])
def test_the_peer_brings_a_disconnected_tunnel_back_and_it_is_as_before(negotiation: Negotiation) -> None:
    life = disconnected(negotiation, mappings=2)
    life.tell("established", *SPIS)
    life.tell("child_up", child(0, initiator=False))
    assert (life.state, life.tunnel.standing.error) == ("up", None)
    life.pass_time(0.01)
    assert life.attempts == (1 if negotiation is ACTIVE else 0)
    if negotiation is ACTIVE:
        life.bring_up()
        life.lose(DELETED)
        life.pass_time(5)
        assert life.attempts > 0


@pytest.mark.parametrize(("action", "attempts"), [(DpdAction.DISCONNECT, 0), (DpdAction.RETRY, 1)])
def test_a_reload_is_no_start(action: DpdAction, attempts: int) -> None:
    """Unless it says that a dead peer is tried again."""
    life = disconnected()
    life.tell("reconfigure", replace(policy(action=action), priority=7))
    life.pass_time(0.01)
    assert life.attempts == attempts
    assert life.state == ("connecting" if attempts else "waiting")


def test_a_disconnected_tunnel_that_was_taken_down_begins_with_the_next_start() -> None:
    life = disconnected()
    life.tell("down")
    life.tunnel.standing.closed = False
    life.tell("start")
    life.pass_time(0.01)
    assert life.attempts == 1


def test_another_address_of_the_peers_name_does_not_bring_a_disconnected_tunnel_back() -> None:
    life = disconnected()
    life.tell("resolved", life.tunnel.policy, True)
    life.pass_time(60)
    assert (life.attempts, life.state) == (0, "waiting")
    assert life.tunnel.standing.error is not None
    assert life.tunnel.standing.error.diagnosis == DEAD


def test_what_is_under_way_ends_with_the_peer() -> None:
    life = Life(policy(mappings=2, action=DpdAction.DISCONNECT))
    life.tell("start")
    life.tell("established", *SPIS)
    life.tell("child_up", child(0))
    assert Initiate("branch", 1) in life.commands
    life.tell("peer_dead", DEAD)
    life.lose(DEAD)
    life.taken(Initiate)
    life.pass_time(600)
    assert (life.attempts, life.state, life.tunnel.attempt.mapping) == (0, "waiting", None)


def test_a_tunnel_that_reconnected_after_a_dead_peer_is_passive_again() -> None:
    life = Life(policy(PASSIVE, action=DpdAction.RETRY))
    life.tell("established", *SPIS)
    life.tell("child_up", child())
    life.tell("peer_dead", DEAD)
    life.lose(DEAD)
    life.pass_time(0.01)
    life.bring_up()
    life.taken(Initiate)
    life.lose(DELETED)
    life.pass_time(600)
    assert (life.state, life.attempts) == ("waiting", 0)


# ------------------------------------------------------------------------------ SA pairs


def test_a_successor_takes_over_and_the_old_pair_receives_until_it_is_removed() -> None:
    life = Life(policy())
    life.bring_up()
    life.story()
    old = life.tunnel.mappings[0].owner
    assert old is not None
    life.tell("child_replaced", old.spi_in, child(0, 0x9000))
    assert [pair.spi_in for pair in life.tunnel.mappings[0].pairs()] == [0x9000, old.spi_in]
    life.tell("child_down", 0, old.spi_in, DELETED)
    assert [pair.spi_in for pair in life.tunnel.mappings[0].pairs()] == [0x9000]
    assert life.story() == []


def test_an_old_pair_that_outlives_its_successor_does_not_keep_the_tunnel_up() -> None:
    life = Life(policy())
    life.bring_up()
    old = life.tunnel.mappings[0].owner
    assert old is not None
    life.tell("child_replaced", old.spi_in, child(0, 0x9000))
    life.tell("child_down", 0, 0x9000, DELETED)
    assert life.state == "connecting"
    life.tell("child_down", 0, old.spi_in, DELETED)
    assert life.tunnel.mappings[0].pairs() == ()


def test_of_two_pairs_the_one_that_ike_names_sends() -> None:
    life = Life(policy())
    life.tell("established", *SPIS)
    life.tell("child_up", child(0, 0x5000))
    life.tell("child_up", child(0, 0x7000, initiator=False))
    assert life.tunnel.mappings[0].owner is not None
    assert life.tunnel.mappings[0].owner.spi_in == 0x7000
    life.tell("outbound_ready", 0x5000)
    assert life.tunnel.mappings[0].owner.spi_in == 0x5000
    life.tell("child_down", 0, 0x7000, DELETED)
    assert life.state == "up"


def test_when_the_sending_pair_goes_another_one_sends_if_ike_has_said_so() -> None:
    for ready in (True, False):
        life = Life(policy())
        life.tell("established", *SPIS)
        life.tell("child_up", child(0, 0x5000))
        life.tell("child_up", child(0, 0x7000, initiator=False))
        if ready:
            life.tell("outbound_ready", 0x5000)
        life.tell("child_down", 0, 0x7000, DELETED)
        assert (life.state == "up") == ready


def test_an_sa_of_a_mapping_that_is_gone_is_ignored() -> None:
    life = Life(policy())
    life.tell("child_up", child(7))
    life.tell("child_down", 7, 0x1000, DELETED)
    life.tell("child_failed", 7, SELECTORS)
    assert life.state == "connecting"


# -------------------------------------------------------------------------------- the operator


def test_down_stays_down_until_up() -> None:
    life = Life(policy(mappings=2))
    life.bring_up()
    life.tell("down")
    assert isinstance(life.taken(CloseTunnel)[0], CloseTunnel)
    life.lose(Diagnosis.of(Code.DOWN_BY_OPERATOR))
    life.taken(Initiate)
    life.pass_time(3600)
    assert (life.state, life.attempts, life.tunnel.standing.error) == ("down", 0, None)
    assert life.tunnel.next_try is None
    life.tell("up")
    assert life.attempts == 1
    life.bring_up()
    assert life.state == "up"


def test_down_in_the_middle_of_an_attempt_ends_it() -> None:
    life = Life(policy())
    life.tell("down")
    assert life.tunnel.attempt.mapping is None
    life.pass_time(600)
    assert life.attempts == 1


def test_up_brings_a_passive_tunnel_up_and_its_failure_is_not_repeated() -> None:
    life = Life(policy(PASSIVE))
    life.tell("up")
    assert life.attempts == 1
    life.tell("failed", SILENT, True)
    assert life.retries() == [None]
    life.pass_time(600)
    assert (life.state, life.attempts) == ("waiting", 0)


def test_up_does_not_wait_for_the_backoff() -> None:
    life = Life(policy())
    for _ in range(9):
        life.pass_time(LONGEST_DELAY)
        life.tell("failed", SILENT, True)
    life.taken(Initiate)
    life.tell("up")
    assert life.attempts == 1
    assert life.tunnel.mappings[0].reason is None


@pytest.mark.parametrize("negotiation", [ACTIVE, PASSIVE, TRIGGERED])
def test_reset_closes_and_negotiates_everything_again(negotiation: Negotiation) -> None:
    life = Life(policy(negotiation, mappings=2))
    life.tell("up")
    life.bring_up()
    life.commands.clear()
    life.tell("reset")
    assert isinstance(life.commands[0], CloseTunnel)
    life.lose(Diagnosis.of(Code.DOWN_BY_OPERATOR))
    life.pass_time(0.01)
    life.bring_up()
    assert life.state == "up"
    assert life.tunnel.all_up
    assert life.tunnel.standing.error is None


# -------------------------------------------------------------------------- this machine


@pytest.mark.parametrize("negotiation", [ACTIVE, PASSIVE, TRIGGERED])
def test_a_disconnected_tunnel_still_says_why_when_its_interface_is_back(negotiation: Negotiation) -> None:
    life = disconnected(negotiation)
    life.tell("block", Diagnosis.of(Code.LOCAL_INTERFACE))
    life.tell("block", Diagnosis.of(Code.LOCAL_ROUTE))
    assert life.tunnel.standing.error is not None
    assert life.tunnel.standing.error.diagnosis.code is Code.LOCAL_ROUTE
    life.tell("unblock")
    life.pass_time(600)
    assert (life.attempts, life.state) == (0, "waiting")
    assert life.tunnel.standing.error is not None
    assert life.tunnel.standing.error.diagnosis == DEAD


def test_the_last_refusal_of_a_peer_outlives_a_lost_interface() -> None:
    life = Life(policy(PASSIVE))
    refused = Diagnosis.of(Code.PSK)
    life.tell("failed", refused, False)
    life.tell("block", Diagnosis.of(Code.LOCAL_INTERFACE))
    life.tell("unblock")
    assert life.tunnel.standing.error is not None
    assert life.tunnel.standing.error.diagnosis == refused


@pytest.mark.parametrize("command", ["up", "down", "reset"])
def test_what_an_operator_has_ended_does_not_come_back_with_the_interface(command: str) -> None:
    life = disconnected(PASSIVE)
    life.tell("block", Diagnosis.of(Code.LOCAL_INTERFACE))
    life.tell(command)
    life.tell("unblock")
    assert life.tunnel.standing.error is None


def test_a_tunnel_without_its_interface_is_down_and_says_why() -> None:
    life = Life(policy())
    lost = Diagnosis.of(Code.LOCAL_INTERFACE)
    life.tell("block", lost)
    assert life.state == "down"
    assert life.tunnel.standing.error is not None
    assert life.tunnel.standing.error.diagnosis == lost
    life.taken(Initiate)
    life.pass_time(600)
    assert life.attempts == 0
    life.tell("unblock")
    assert (life.attempts, life.state) == (1, "connecting")
    assert life.tunnel.standing.error is None


def test_a_name_is_looked_up_before_each_attempt_but_not_while_there_is_an_ike_sa() -> None:
    life = Life(policy(remote="gw.example", mappings=2))
    assert (life.asked_to_resolve(), life.attempts) == (1, 0)
    life.resolve()
    assert life.attempts == 1
    life.bring_up()
    assert life.tunnel.all_up
    assert life.asked_to_resolve() == 0
    life.pass_time(60)
    life.lose(DELETED)
    life.pass_time(0.01)
    assert (life.asked_to_resolve(), life.attempts) == (1, 1)


def test_an_attempt_at_an_address_that_the_name_no_longer_has_begins_again() -> None:
    life = Life(policy(remote="gw.example"))
    life.resolve()
    life.tell("failed", SILENT, True)
    life.resolve()
    life.tell("failed", SILENT, True)
    life.resolve()
    life.pass_time(3)
    life.taken(Initiate)
    assert life.tunnel.attempt.mapping is not None or life.tunnel.next_try is not None
    life.tell("resolved", life.tunnel.policy, True)
    assert life.attempts == 1
    assert life.tunnel.standing.error is None
    life.tell("failed", SILENT, True)
    assert life.retries()[-1] == 0.0


def test_a_tunnel_that_is_not_prepared_yet_is_listed_as_down() -> None:
    tunnels = Tunnels(SeededEntropy(1))
    unprepared = Diagnosis.of(Code.LOCAL_INTERFACE)
    tunnel = tunnels.add(policy(), unprepared)
    assert tunnel.state.value == "down"
    tunnels["branch"].start(1000.0)
    assert not [command for command in tunnels.outputs if isinstance(command, Initiate)]
    tunnels["branch"].unblock(1001.0)
    assert [command for command in tunnels.outputs if isinstance(command, Initiate)]
    assert tunnel.state.value == "connecting"


def test_a_name_without_an_address_is_tried_again_also_by_a_passive_tunnel() -> None:
    life = Life(policy(PASSIVE, remote="gw.example"))
    assert life.asked_to_resolve() == 1
    missing = Diagnosis.of(Code.RESOLVE)
    for _ in range(3):
        life.tell("resolve_failed", missing)
        life.pass_time(LONGEST_DELAY)
        assert life.asked_to_resolve() == 1
    assert life.tunnel.standing.error is not None
    life.resolve()
    life.pass_time(600)
    assert (life.asked_to_resolve(), life.state, life.attempts) == (0, "waiting", 0)


def test_an_unhealthy_tunnel_says_so() -> None:
    life = Life(policy())
    life.bring_up()
    life.tunnels["branch"].set_health(life.now, Diagnosis.of(Code.HEALTH))
    life.tunnels["branch"].set_health(life.now, None)
    life.pass_time(0)
    assert life.story() == ["connecting", "up", "unhealthy", "up"]


# --------------------------------------------------------------------------------- the tunnels


def test_mapping_changes_are_told_once() -> None:
    life = Life(policy(mappings=2))
    life.bring_up()
    life.lose(DELETED)
    told = [(c.mapping, c.state.value) for c in life.taken(MappingChanged) if isinstance(c, MappingChanged)]
    assert told[:2] == [(0, "up"), (1, "up")]
    assert [mapping for mapping, _ in told[2:]] == [0, 1]


def test_a_removed_tunnel_asks_for_nothing_more() -> None:
    life = Life(policy())
    tunnels = life.tunnels
    life.tell("failed", SILENT, True)
    tunnels.remove("branch")
    assert not tunnels.outputs
    tunnels.handle_timeout(life.now + 600)
    assert not tunnels.outputs
    assert tunnels.next_timeout() is None
    assert "branch" not in tunnels


def test_a_removed_tunnel_that_is_still_called_has_no_turn() -> None:
    life = Life(policy())
    life.tunnels.remove("branch")
    life.tunnel.handle_ike(life.now, Failed("branch", SILENT, True))
    life.tunnels.handle_timeout(life.now + 600)
    assert life.tunnels.next_timeout() is None


def test_two_tunnels_of_one_name_are_refused_and_the_order_can_change() -> None:
    life = Life(policy())
    with pytest.raises(ValueError, match="branch"):
        life.tunnels.add(policy())
    life.tunnels.add(policy(name="other"))
    life.tunnels.reorder(("other", "branch", "unknown"))
    assert len(life.tunnels) == 2
    assert life.tunnels["other"] is life.tunnels.get("other")
    assert life.tunnels.get("unknown") is None
    assert [tunnel.name for tunnel in life.tunnels] == ["other", "branch"]


def test_a_thousand_tunnels_wait_in_one_heap() -> None:
    life = Life(policy())
    tunnels: Tunnels = life.tunnels
    for number in range(1000):
        name = f"t{number}"
        tunnels.add(policy(name=name))
        tunnels[name].start(life.now)
        tunnels[name].handle_ike(life.now, Failed(name, SILENT, True))
        tunnels[name].handle_ike(life.now, Failed(name, SILENT, True))
    tunnels.outputs.clear()
    deadlines = []
    while (at := tunnels.next_timeout()) is not None and at < life.now + 10:
        deadlines.append(at)
        tunnels.handle_timeout(at)
    begun = [command for command in tunnels.outputs if isinstance(command, Initiate)]
    assert len(begun) == 1000
    assert deadlines == sorted(deadlines)
    assert len(set(deadlines)) > 100


# ------------------------------------------------------------------------ what IKE says, as it comes


def test_each_report_of_ike_reaches_its_tunnel() -> None:
    life = Life(policy(mappings=2))
    tunnels, now = life.tunnels, life.now
    info = ike_info(SPIS)
    successor = ike_info((b"newfirst", b"newother"))
    tunnels.handle_ike(now, Established("branch", info))
    tunnels.handle_ike(now, ChildUp(child(0, 0x5000)))
    tunnels.handle_ike(now, ChildFailed("branch", 1, SELECTORS))
    tunnels.handle_ike(now, ChildReplaced(0x5000, child(0, 0x6000), True))
    tunnels.handle_ike(now, OutboundReady("branch", 0x6000))
    tunnels.handle_ike(now, IkeReplaced("branch", *SPIS, successor))
    tunnels.handle_ike(now, Story("branch", "nothing that concerns its life"))
    assert life.state == "up"
    tunnels.handle_ike(now, PeerDead("branch", DEAD))
    tunnels.handle_ike(now, ChildDown("branch", 0, 0x6000, DEAD))
    tunnels.handle_ike(now, IkeDown("branch", b"newfirst", b"newother", DEAD))
    tunnels.handle_ike(now, Failed("branch", SILENT, True))
    tunnels.handle_ike(now, Failed("unknown", SILENT, True))
    assert life.state == "connecting"
    assert life.tunnel.standing.error is not None
    assert life.tunnel.standing.error.diagnosis == SILENT


def test_an_ike_sa_that_goes_takes_the_attempt_on_it_along() -> None:
    life = Life(policy(mappings=2))
    life.tell("established", *SPIS)
    life.tell("child_up", child(0, 0x5000))
    assert life.tunnel.attempt.mapping == 1
    life.tell("child_down", 0, 0x5000, DELETED)
    life.tell("ike_down", *SPIS, DELETED)
    assert life.tunnel.mappings[1].reason is not None
    assert life.tunnel.mappings[1].reason.diagnosis == DELETED


def test_one_of_two_ike_sas_that_goes_changes_nothing() -> None:
    life = Life(policy())
    life.tell("established", *SPIS)
    life.tell("established", b"another1", b"another2")
    life.tell("ike_down", *SPIS, DELETED)
    assert life.tunnel.attempt.mapping == 0
    assert life.tunnel.standing.error is None


def test_a_packet_of_a_mapping_that_is_wanted_or_unknown_changes_nothing() -> None:
    life = Life(policy(mappings=2))
    life.taken(Initiate)
    life.tell("acquire", 1)
    life.tell("acquire", 9)
    assert life.attempts == 0


def test_unblock_without_a_block_and_with_a_failure_of_the_peer() -> None:
    life = Life(policy())
    life.tell("unblock")
    assert life.attempts == 1
    life.tell("failed", SILENT, True)
    life.tell("block", Diagnosis.of(Code.LOCAL_INTERFACE))
    life.tell("unblock")
    assert life.tunnel.standing.error is not None


def test_what_is_known_of_an_attempt_that_goes_on_is_noted_once() -> None:
    life = Life(policy())
    life.tunnel.standing.note(life.now, SILENT)
    life.tunnel.standing.note(life.now, DELETED)
    assert life.tunnel.standing.error is not None
    assert life.tunnel.standing.error.diagnosis == SILENT
    assert life.tunnel.standing.tries == 0
    assert life.tunnel.attempt.mapping == 0


def test_the_successor_of_a_pair_that_does_not_send_does_not_send_either() -> None:
    life = Life(policy())
    life.tell("established", *SPIS)
    life.tell("child_up", child(0, 0x5000))
    life.tell("child_up", child(0, 0x7000, initiator=False))
    life.tell("child_replaced", 0x5000, child(0, 0x5100))
    mapping = life.tunnel.mappings[0]
    assert mapping.owner is not None
    assert mapping.owner.spi_in == 0x7000
    assert {pair.spi_in for pair in mapping.pairs()} == {0x5000, 0x5100, 0x7000}


def test_a_successor_of_what_is_gone_brings_the_mapping_up() -> None:
    life = Life(policy())
    life.tell("child_replaced", 0x5000, child(0, 0x5100))
    assert life.state == "up"
    life.tell("child_replaced", 0x5100, child(7, 0x5200))
    life.tell("child_down", 0, 0x9999, DELETED)
    assert life.state == "up"


def test_the_old_pair_can_be_told_to_send_while_nothing_owns_the_mapping() -> None:
    life = Life(policy())
    life.tell("child_up", child(0, 0x5000))
    life.tell("child_replaced", 0x5000, child(0, 0x5100))
    life.tell("child_down", 0, 0x5100, DELETED)
    life.tell("outbound_ready", 0x5000)
    assert life.tunnel.mappings[0].owner is not None
    assert life.tunnel.mappings[0].owner.spi_in == 0x5000


def test_another_policy_for_the_same_sas() -> None:
    life = Life(policy(PASSIVE))
    life.tell("reconfigure", policy(ACTIVE))
    assert life.attempts == 1
    assert life.tunnel.policy.negotiation is ACTIVE


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("before", [ACTIVE, TRIGGERED])
def test_a_tunnel_that_only_answers_from_now_on_begins_nothing_more(before: Negotiation, waits: bool) -> None:
    life = Life(policy(before))
    life.tell("acquire", 0)
    if waits:
        life.tell("failed", SILENT, True)
        life.tell("failed", SILENT, True)
        life.tell("acquire", 0)
    assert life.attempts
    life.tell("reconfigure", policy(PASSIVE))
    assert life.state == "waiting"
    if not waits:
        life.tell("failed", SILENT, True)
    life.pass_time(600)
    assert life.attempts == 0


def test_another_peer_where_there_is_no_sa_is_tried_at_once() -> None:
    """What failed before says nothing of it, and an attempt that is under way is over."""
    life = Life(policy())
    life.tell("failed", SILENT, True)
    life.taken(Initiate)
    life.tell("reconfigure", policy(mappings=2))
    assert (life.attempts, life.state) == (1, "connecting")
    life.tell("reconfigure", policy(mappings=3))
    assert (life.attempts, life.state) == (1, "connecting")


def test_a_mapping_that_goes_takes_its_attempt_with_it() -> None:
    """The other one stays up, and what comes of the attempt is nobody's."""
    life = Life(policy(mappings=2))
    life.tell("established", *SPIS)
    life.tell("child_up", child(0))
    before = life.tunnel.attempt.mapping
    life.tell("reconfigure", policy(mappings=1))
    assert (before, life.tunnel.attempt.mapping) == (1, None)
    life.tell("child_failed", 1, SELECTORS)
    assert life.state == "up"


def test_a_disabled_tunnel_is_down_until_it_is_enabled() -> None:
    life = Life(policy())
    life.bring_up()
    assert life.attempts == 1
    life.tell("reconfigure", replace(policy(), enabled=False))
    life.lose(DELETED)
    life.pass_time(600)
    assert life.attempts == 0
    life.tell("reconfigure", policy())
    assert (life.attempts, life.state) == (1, "connecting")


def test_a_reload_opens_no_tunnel_that_was_taken_down() -> None:
    life = Life(policy())
    life.bring_up()
    life.tell("down")
    life.lose(DELETED)
    assert life.attempts == 1
    life.tell("reconfigure", replace(policy(), priority=7))
    life.pass_time(600)
    assert life.attempts == 0


# --------------------------------------------------------------------- a part of what was asked


def test_a_narrowed_mapping_is_up_and_says_what_the_peer_left() -> None:
    life = Life(policy())
    life.tell("established", *SPIS)
    half = replace(child(), ts_remote=(Selector.of(ip_network("10.2.0.0/25")),))
    life.tell("child_up", half)
    mapping = life.tunnel.mappings[0]
    assert (life.state, life.tunnel.standing.error, mapping.reason) == ("up", None, None)
    assert mapping.narrowed is not None
    diagnosis = Diagnosis.of(
        Code.NARROWED, theirs="10.1.0.0/24 - 10.2.0.0/25", ours="10.1.0.0/24 - 10.2.0.0/24"
    )
    assert mapping.narrowed.diagnosis == diagnosis
    assert life.commands[-2:] == [
        MappingChanged("branch", 0, MappingState.UP, diagnosis),
        life.commands[-1],
    ]
    # A rekey with the same ranges says nothing new; one with all of them ends it.
    told = len(life.commands)
    life.tell("child_replaced", half.spi_in, replace(half, spi_in=0x2000, spi_out=0x2001))
    assert mapping.narrowed.diagnosis == diagnosis
    assert len(life.commands) == told
    life.tell("child_replaced", 0x2000, child(spi_in=0x3000))
    assert life.tunnel.mappings[0].narrowed is None
    assert [fault.diagnosis for fault, _ in life.tunnel.standing.faults] == [diagnosis]


def test_pfs_that_the_peer_asked_for_and_got_is_told_once() -> None:
    ours = policy()
    life = Life(ours)
    life.tell("established", *SPIS)
    with_pfs = replace(child(), suite=replace(child().suite, dh=31))
    life.tell("child_up", with_pfs)
    mapping = life.tunnel.mappings[0]
    diagnosis = Diagnosis.of(Code.PFS_OF_PEER, theirs=31, ours="off", mapping=ours.peer.children[0])
    assert mapping.with_pfs is not None
    assert mapping.with_pfs.diagnosis == diagnosis
    assert life.commands[-2] == MappingChanged("branch", 0, MappingState.UP, diagnosis)
    told = len(life.commands)
    life.tell("child_replaced", with_pfs.spi_in, replace(with_pfs, spi_in=0x2000, spi_out=0x2001))
    assert len(life.commands) == told
    assert [fault.diagnosis for fault, _ in life.tunnel.standing.faults] == [diagnosis]
    life.tell("child_replaced", 0x2000, child(spi_in=0x3000))
    assert mapping.with_pfs is None


def test_a_narrowed_mapping_that_is_gone_is_not_narrowed() -> None:
    life = Life(policy(PASSIVE))
    life.tell("established", *SPIS)
    life.tell("child_up", replace(child(), ts_local=(Selector.of(ip_network("10.1.0.1/32")),)))
    assert life.tunnel.mappings[0].narrowed is not None
    life.lose(DELETED)
    assert life.tunnel.mappings[0].narrowed is None


# ------------------------------------------------------------------------ what the peer offers


@pytest.mark.parametrize("negotiation", list(Negotiation))
def test_what_the_peer_offers_beside_another_mapping_is_begun_from_here(negotiation: Negotiation) -> None:
    life = Life(policy(negotiation, mappings=3))
    life.tell("failed", SILENT, True)
    life.tell("established", *SPIS)
    life.taken(Initiate)
    life.tell("offered", (1, 2))
    life.tell("child_up", child(0, initiator=False))
    life.bring_up()
    assert life.tunnel.all_up
    assert [mapping.offered for mapping in life.tunnel.mappings] == [False] * 3


def test_what_is_up_or_closed_is_not_begun_by_an_offer() -> None:
    life = Life(policy(PASSIVE, mappings=2))
    life.tell("established", *SPIS)
    life.tell("child_up", child(1, initiator=False))
    life.tell("offered", (1,))
    life.tell("offered", (7,))
    assert life.attempts == 0
    life.tell("down")
    life.tell("offered", (0,))
    assert life.attempts == 0


REFUSED = Diagnosis.of(Code.TRAFFIC_SELECTORS, exchange="CREATE_CHILD_SA", notify="TS_UNACCEPTABLE")


def test_a_peer_that_refuses_what_it_has_offered_is_told_as_narrowed_and_not_asked_again() -> None:
    life = Life(policy(PASSIVE, mappings=2))
    life.tell("established", *SPIS)
    life.tell("child_up", child(0, initiator=False))
    life.tell("offered", (1,))
    assert life.attempts == 1
    life.tell("child_failed", 1, REFUSED)
    reason = life.tunnel.mappings[1].reason
    assert reason is not None
    assert (reason.diagnosis.code, reason.diagnosis.fact("notify")) == (Code.NARROWED, "TS_UNACCEPTABLE")
    assert reason.diagnosis.fact("mapping") == "10.1.1.0/24 - 10.2.1.0/24"
    assert life.tunnel.standing.faults[-1] == (reason, 1)
    life.pass_time(600)
    assert life.attempts == 0
    life.tell("offered", (1,))
    assert life.attempts == 1


def test_what_else_keeps_an_offered_mapping_from_coming_up_keeps_its_name() -> None:
    life = Life(policy(PASSIVE, mappings=2))
    life.tell("established", *SPIS)
    life.tell("child_up", child(0, initiator=False))
    life.tell("offered", (1,))
    life.tell("child_failed", 1, Diagnosis.of(Code.PFS, theirs=14, ours="none"))
    reason = life.tunnel.mappings[1].reason
    assert reason is not None
    assert reason.diagnosis.code is Code.PFS


@pytest.mark.parametrize(("negotiation", "attempts"), [(PASSIVE, 0), (TRIGGERED, 0), (ACTIVE, 1)])
def test_what_was_offered_under_an_ike_sa_that_is_gone_is_not_begun_by_a_passive_tunnel(
    negotiation: Negotiation, attempts: int
) -> None:
    life = Life(policy(negotiation, mappings=3))
    life.tell("established", *SPIS)
    life.taken(Initiate)
    life.tell("offered", (1, 2))
    life.tell("child_up", child(0, initiator=False))
    life.taken(Initiate)
    life.tell("child_down", 0, 0x1000, DELETED)
    life.tell("ike_down", *SPIS, DELETED)
    life.pass_time(1)
    assert life.attempts == attempts


def test_after_a_reset_a_peer_that_begins_again_is_given_time_to() -> None:
    life = Life(policy(ACTIVE))
    life.bring_up()
    life.tell("reset")
    life.pass_time(0)
    assert life.attempts == 2
    life.bring_up()
    life.tell("peer_renews")
    life.tell("reset")
    life.lose(Diagnosis.of(Code.DOWN_BY_OPERATOR))
    life.pass_time(PEER_FIRST - 0.1)
    assert life.attempts == 0
    life.pass_time(0.2)
    assert life.attempts == 1


def test_a_tunnel_that_is_prepared_may_begin() -> None:
    tunnels = Tunnels(SeededEntropy(1))
    tunnel = tunnels.add(policy(), Diagnosis.of(Code.LOCAL_INTERFACE))
    tunnel.standing.prepared()
    tunnel.start(1000.0)
    assert tunnel.state.value == "connecting"


# --------------------------------------------------------------------------- what leaves it as it is


def test_when_the_peer_was_heard_is_kept() -> None:
    life = Life(policy())
    assert life.tunnel.last_heard == 0.0
    life.bring_up()
    life.commands.clear()
    life.tell("note_activity")
    assert life.tunnel.last_heard == life.now
    assert life.commands == []


def test_a_peer_that_moves_takes_its_sa_pairs_with_it() -> None:
    life = Life(policy(mappings=2))
    life.bring_up()
    moved = Path(LOCAL, 4500, ip_address("198.51.100.77"), 61234)
    before = [pair.path for mapping in life.tunnel.mappings for pair in mapping.pairs()]
    life.tell("path_moved", moved)
    after = [pair.path for mapping in life.tunnel.mappings for pair in mapping.pairs()]
    assert moved not in before
    assert after == [moved] * 2
    assert life.story()[-1] == "up"


def test_a_rekey_of_the_ike_sa_that_fails_is_kept_and_changes_nothing() -> None:
    life = Life(policy())
    life.bring_up()
    life.commands.clear()
    life.tell("ike_rekey_failed", SILENT)
    assert life.commands == [AttemptFailed("branch", None, SILENT, None, renewal=True)]
    assert [(fault.diagnosis, index) for fault, index in life.tunnel.standing.faults] == [(SILENT, None)]
    assert (life.state, life.tunnel.failure) == ("up", None)


def test_a_rekey_of_a_mapping_that_fails_is_its_reason_until_it_has_another_pair() -> None:
    life = Life(policy(mappings=2))
    life.bring_up()
    life.commands.clear()
    life.tell("child_failed", 1, SELECTORS)
    assert life.commands == [AttemptFailed("branch", 1, SELECTORS, None, renewal=True)]
    first, second = life.tunnel.mappings
    assert first.unrenewed is None
    assert second.unrenewed is not None
    assert second.unrenewed.diagnosis == SELECTORS
    assert second.owner is not None
    life.tell("child_replaced", second.owner.spi_in, child(1, 0x9000))
    assert life.tunnel.mappings[1].unrenewed is None


def test_a_tunnel_that_goes_down_again_and_again_says_so_until_it_outlives_its_rekey() -> None:
    """Down it has a failure; what it is up for is an impairment."""
    life = Life(policy())
    for _ in range(3):
        life.bring_up()
        life.pass_time(600)
        assert life.taken(Impaired) == []
        life.lose(DELETED)
    (said,) = life.taken(Impaired)
    assert isinstance(said, Impaired)
    assert said.diagnosis is not None
    assert (said.code, said.diagnosis.fact("reason")) == (Code.FLAPPING, DELETED.code.value)
    assert impaired(life.tunnel) is None
    life.bring_up()
    found = life.tunnel.standing.others.get(Code.FLAPPING)
    assert found is not None
    assert impaired(life.tunnel) == found
    life.pass_time(600)
    renewed(life, 0x9000)
    assert life.taken(Impaired) == [], "it was up as long before"
    life.pass_time(600)
    renewed(life, 0xA000)
    assert life.taken(Impaired) == [Impaired("branch", Code.FLAPPING, None)]
    assert impaired(life.tunnel) is None


def renewed(life: Life, spi_in: int) -> None:
    """The SAs of the only mapping have found a successor."""
    owner = life.tunnel.mappings[0].owner
    assert owner is not None
    life.tell("child_replaced", owner.spi_in, child(0, spi_in))


PFS = Diagnosis.of(Code.PFS, theirs="none", ours="14")
PROPOSAL = Diagnosis.of(Code.P2_PROPOSAL, ours="aes-128/sha256/dh14")


@pytest.mark.parametrize(
    ("refused", "now", "said"),
    [
        (PFS, PROPOSAL, PFS),
        (PFS, SELECTORS, SELECTORS),
        (SELECTORS, PROPOSAL, PROPOSAL),
        (None, PROPOSAL, PROPOSAL),
    ],
    ids=["the same", "another reason", "another before", "never refused"],
)
def test_pfs_that_differed_while_the_sas_lived_differs_after_they_have_ended(
    refused: Diagnosis | None, now: Diagnosis, said: Diagnosis
) -> None:
    life = Life(policy())
    life.bring_up()
    if refused is not None:
        life.tell("child_failed", 0, refused)
    life.tell("child_down", 0, 0x2000, Diagnosis.of(Code.LIFETIME))
    life.pass_time(60)
    life.tell("child_failed", 0, now)
    assert life.tunnel.failure is not None
    assert life.tunnel.failure.diagnosis == said
    life.tell("child_up", child(0, 0x9000))
    life.tell("child_down", 0, 0x9000, DELETED)
    life.pass_time(60)
    life.tell("child_failed", 0, PROPOSAL)
    assert life.tunnel.failure.diagnosis == PROPOSAL, "it was up since: nothing is known of PFS"


def test_what_a_stranger_has_said_is_the_failure_only_while_nothing_certain_is_known() -> None:
    """Of each code the newest counts, and the newest of all is shown."""
    life = Life(policy(PASSIVE))
    wrong_key, other = Diagnosis.of(Code.PSK, ours="1"), Diagnosis.of(Code.IDENTITY)
    for refused in (wrong_key, other, Diagnosis.of(Code.PSK, ours="2")):
        life.tell("refused", refused)
    assert life.tunnel.failure is not None
    assert life.tunnel.failure.diagnosis.fact("ours") == "2"
    assert len(life.tunnel.standing.refused) == 2
    assert error_of(life) == (None, 0)
    life.tell("failed", SELECTORS, False)
    assert life.tunnel.failure.diagnosis == SELECTORS
    life.tell("established", *SPIS)
    life.tell("child_up", child())
    assert life.tunnel.failure is None


def test_a_peer_that_is_refused_while_its_tunnel_is_up_is_remembered_only() -> None:
    life = Life(policy())
    life.bring_up()
    life.tell("failed", SELECTORS, False)
    assert error_of(life) == (None, 0)
    assert [fault.diagnosis for fault, _ in life.tunnel.standing.faults] == [SELECTORS]


@pytest.mark.parametrize("code", sorted(ENDED_HERE, key=str))
def test_an_attempt_that_was_ended_here_is_no_failure(code: Code) -> None:
    life = Life(policy())
    life.commands.clear()
    life.tell("failed", Diagnosis.of(code), True)
    assert life.commands == []
    assert error_of(life) == (None, 0)
