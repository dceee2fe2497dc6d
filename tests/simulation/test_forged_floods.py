"""Floods of first messages with a forged address: how much work, what is evicted, who is served."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.faults.simulated import Counted, counting
from tests.simulation.footprint import footprint
from tests.simulation.policies import ADDRESS_A, ADDRESS_C, STRANGER, Recipe
from tests.simulation.puppet import Puppet as Puppet2
from tests.simulation.stage import Stage as Stage2
from tests.simulation.test_public_values import bad_values, first_of_group, init_request
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, policy_of
from tests.simulation.v1.stage import Stage as Stage1
from vpnd.crypto.suites import GROUPS
from vpnd.ike.deadlines import OUTDATED
from vpnd.ike.limits import (
    LARGEST_FIRST_MESSAGE,
    REFUSALS_BY_ADDRESS,
    UNPROVED_KEYS_BY_ADDRESS,
    UNPROVED_KEYS_IN_ALL,
    Limits,
)
from vpnd.ike.outputs import Failed, LadderLine, PeerDead
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code
from vpnd.model.policy import NegotiationMode
from vpnd.model.selectors import Address
from vpnd.wire import ikev1
from vpnd.wire.chain import GENERIC_HEADER_LENGTH
from vpnd.wire.iana import Exchange2, IkeVersion, Notify2
from vpnd.wire.ikev2 import Notify, Unknown, VendorId

FLOOD = 300
LIMITS = Limits()
FREE = LIMITS.half_open_before_cookies_per_address
RATE = 1500
"""Forged first messages a second."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return counting(monkeypatch.setattr)


def cookie_of(answer: bytes, puppet: Puppet2) -> Notify:
    """The cookie in an answer that has nothing else."""
    (notify,) = puppet.open(answer).payloads
    assert isinstance(notify, Notify)
    assert notify.type == Notify2.COOKIE
    return notify


def with_cookie(stage: Stage2, puppet: Puppet2) -> None:
    """The real peer: it is asked for a cookie, returns it, and brings the tunnel up."""
    (asked,) = stage.say(puppet.init_message())
    (answer,) = stage.say(puppet.init_message(cookie_of(asked, puppet)))
    puppet.take_init(answer)
    (answer,) = stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads()))
    puppet.open(answer)


# ------------------------------------------------------------------------------------- IKEv2


@pytest.mark.parametrize("group", [14, 16, 19, 24, 31])
def test_refused_first_messages_meet_cookies_and_the_peer_comes_through(group: int, counted: Counted) -> None:
    """A value that is none costs no key pair, and after three of them a cookie is asked for."""
    stage = Stage2(Recipe(dh=(group, 31)))
    values = list(bad_values(group))
    answers = []
    for seed in range(FLOOD):
        forged = init_request(stage.puppet(seed=seed), group, values[seed % len(values)])
        answers += stage.say(forged, port=1024 + seed)
        stage.world.run_for(1 / RATE)
    assert counted.number == 0
    asked = [answer for answer in answers if Notify2.COOKIE.to_bytes(2, "big") in answer[28:36]]
    assert len(answers) == FLOOD
    refused = len(answers) - len(asked)
    # By the time of the next one a little of the count has drained away.
    assert FREE <= refused <= FREE + 1
    assert len(stage.gateway.of(Failed)) == refused
    with_cookie(stage, stage.puppet(seed=9999))
    assert len(stage.gateway.ike_sas()) == 1


def test_what_cannot_be_read_counts_as_refused() -> None:
    stage = Stage2()
    for seed in range(FREE):
        unread = stage.puppet(seed=seed).clear(Exchange2.IKE_SA_INIT, 0, [Unknown(99, b"")])
        assert stage.say(unread, port=1024 + seed) == []
    (asked,) = stage.say(stage.puppet(seed=77).init_message())
    cookie_of(asked, stage.puppet())


def test_refusals_are_forgotten() -> None:
    stage = Stage2()
    for seed in range(50):
        stage.say(init_request(stage.puppet(seed=seed), 31, b""), port=1024 + seed)
    stage.world.run_for(REFUSALS_BY_ADDRESS.most / REFUSALS_BY_ADDRESS.a_second)
    stage.half_open(stage.puppet(seed=77))


def test_one_address_under_attack_costs_no_other_a_cookie() -> None:
    stage = Stage2()
    stage.gateway.endpoint.set_peer(
        stage.world.now, Recipe().policy("to-c", stage.gateway.address, ADDRESS_C, 2, 3)
    )
    for seed in range(FLOOD):
        stage.say(init_request(stage.puppet(seed=seed), 31, b""), port=1024 + seed)
    assert len(stage.say(stage.puppet(seed=77).init_message(), source=ADDRESS_C)[0]) > 100


def test_thirty_half_open_ones_of_all_addresses_come_before_cookies() -> None:
    stage = Stage2()
    asked = []
    for number in range(1, 32):
        address = ip_address(f"198.51.100.{number}")
        policy = Recipe().policy(f"to-{number}", stage.gateway.address, address, 2, 3)
        stage.gateway.endpoint.set_peer(stage.world.now, policy)
        (answer,) = stage.say(stage.puppet(seed=number).init_message(), source=address)
        asked.append(len(answer) < 100)
    assert asked == [False] * 30 + [True]


def test_valid_forged_values_cost_three_key_exchanges(counted: Counted) -> None:
    stage = Stage2()
    for seed in range(FLOOD):
        stage.say(stage.puppet(seed=seed).init_message(), port=1024 + seed)
    assert counted.number == 2 * FREE
    with_cookie(stage, stage.puppet(seed=9999))
    assert len(stage.gateway.ike_sas()) == 1


def test_the_bound_over_all_lets_the_newcomer_in() -> None:
    """Beyond it the oldest unproved goes, or of proved ones the oldest."""
    stage = Stage2(limits=Limits(half_open_in_all=2))
    first = stage.puppet(seed=1)
    stage.half_open(first)
    stage.half_open(stage.puppet(seed=2))
    stage.half_open(stage.puppet(seed=3))
    assert stage.half_open_count() == 2
    assert stage.endpoint.counters["half-open: the oldest made room"] == 1
    assert stage.say(first.seal(Exchange2.IKE_AUTH, 1, first.auth_payloads())) == []


def test_only_who_returns_cookies_fills_the_room_of_an_address() -> None:
    stage = Stage2()
    for seed in range(FREE):
        stage.half_open(stage.puppet(seed=seed))
    for seed in range(LIMITS.half_open_per_address):
        puppet = stage.puppet(seed=100 + seed)
        (asked,) = stage.say(puppet.init_message())
        assert len(stage.say(puppet.init_message(cookie_of(asked, puppet)))) == 1
    late = stage.puppet(seed=200)
    (asked,) = stage.say(late.init_message())
    assert stage.say(late.init_message(cookie_of(asked, late))) == []
    assert stage.endpoint.counters["half-open: too many of this address"] == 1


def test_an_established_peer_notices_nothing(counted: Counted) -> None:
    stage = Stage2()
    puppet = stage.puppet()
    stage.establish(puppet)
    for seed in range(FLOOD):
        stage.say(init_request(stage.puppet(seed=1 + seed), 31, bytes(32)), port=1024 + seed)
    (answer,) = stage.say(puppet.seal(Exchange2.INFORMATIONAL, 2, []))
    assert puppet.open(answer).payloads == ()
    assert not stage.gateway.of(PeerDead)


def test_a_message_that_makes_no_sense_behind_a_key_exchange_counts_as_a_failure() -> None:
    """It has cost a key exchange, as a wrong key has."""
    stage = Stage2()
    for seed in range(40):
        puppet = stage.puppet(seed=seed)
        answers = stage.say(puppet.init_message())
        if not answers:
            break
        puppet.take_init(answers[0])
        stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, [Unknown(99, b"")]))
    assert [f.diagnosis.code for f in stage.gateway.of(Failed)].count(Code.FLOOD) == 1


# ------------------------------------------------------------------------------------- IKEv1


def test_forged_main1_keep_nobody_out() -> None:
    """A5: twenty a second, and more than are kept; the peer that answers what it was sent is served."""
    stage = Stage1()
    peer = stage.puppet(seed=9999)
    for seed in range(20):
        stage.say(stage.puppet(seed=seed).first_message(), port=1024 + seed)
        stage.world.run_for(1 / 20)
    stage.establish(peer)
    assert stage.endpoint.snapshot().half_open.count(ADDRESS_A) <= 20


def test_main1_beyond_the_bound_takes_the_place_of_the_oldest() -> None:
    stage = Stage1()
    most = LIMITS.half_open_unproved_per_address
    first, proved = stage.puppet(seed=5000), stage.puppet(seed=5001)
    stage.answered_first(first)
    stage.answered_key(proved)
    for seed in range(most):
        assert len(stage.say(stage.puppet(seed=seed).first_message(), port=1024 + seed)) == 1
    assert stage.endpoint.snapshot().half_open.count(ADDRESS_A) == most + 1
    assert stage.endpoint.counters["half-open: the oldest made room"] == 1
    assert stage.say(first.clear(first.exchange, first.key_payloads())) == []
    # The one that has shown that it receives at the address has stayed.
    (answer,) = stage.say(proved.seal_phase1(proved.proof_payloads()))
    proved.take_phase1(answer)
    assert len(stage.gateway.ike_sas()) == 1


def test_a_forged_main1_does_not_keep_alive_what_the_peer_deletes() -> None:
    """It is no sign of a successor."""
    stage = Stage1()
    puppet = stage.puppet()
    stage.with_child(puppet)
    stage.say(stage.puppet(seed=1).first_message(), port=1024)
    stage.say(puppet.informational(puppet.delete_ike()))
    assert not stage.gateway.ike_sas()
    assert not stage.gateway.installed


def test_main3_is_worth_a_key_exchange_for_a_few_at_a_time(counted: Counted) -> None:
    """Who receives at the address may try; the bound of what an address may have is theirs alone."""
    stage = Stage1()
    peers = [stage.puppet(seed=seed) for seed in range(20)]
    for peer in peers:
        stage.answered_first(peer)
    answered = [p for p in peers if stage.say(p.clear(p.exchange, p.key_payloads()))]
    assert len(answered) == LIMITS.half_open_per_address
    assert counted.number == 2 * LIMITS.half_open_per_address
    stage.world.run_for(LIMITS.half_open_lifetime + 1)
    stage.establish(stage.puppet(seed=99))


def test_aggressive_mode_has_a_budget_of_key_exchanges(counted: Counted) -> None:
    """No cookie exists: so many of one address a second."""
    stage = Stage1(AGGRESSIVE)
    seconds = 2
    for number in range(seconds * 200):
        stage.say(stage.puppet(seed=number).first_message(), port=1024 + number)
        stage.world.run_for(1 / 200)
    most = UNPROVED_KEYS_BY_ADDRESS.most + seconds * UNPROVED_KEYS_BY_ADDRESS.a_second + 1
    assert most - 2 <= counted.number / 2 <= most
    assert stage.endpoint.snapshot().half_open.count(ADDRESS_A) <= most
    # What the attack leaves is no obstacle: half a second after it the peer comes up.
    stage.world.run_for(0.5)
    stage.establish(stage.puppet(seed=9999))


@pytest.mark.slow
def test_what_made_room_takes_no_memory() -> None:
    """An attempt that has gone is not kept to the end of its half minute, and neither is its deadline."""
    stage = Stage1(MAIN)
    stage.establish(stage.puppet(seed=9999))
    most = LIMITS.half_open_unproved_per_address

    def begin(numbers: range) -> int:
        for number in numbers:
            stage.say(stage.puppet(seed=number).first_message(), port=1024 + number)
            stage.world.run_for(1 / 1000)
        return footprint(stage.endpoint)[0]

    full = begin(range(most))
    assert begin(range(most, 8 * most)) < full + 4 * OUTDATED
    held = stage.endpoint.snapshot()
    assert len(held.sas) <= most + 1
    assert held.queued <= 2 * len(held.sas) + OUTDATED + 1
    # The others still have their time.
    stage.world.run_for(LIMITS.half_open_lifetime + 1)
    assert not stage.endpoint.snapshot().half_open


def test_the_messages_of_a_crowd_are_told_without_details() -> None:
    """A flood's messages push each other out of what is kept; those of a peer with a proof have all of it."""
    stage = Stage1(MAIN)
    for number in range(LIMITS.half_open_before_cookies + 1):
        stage.say(stage.puppet(seed=number).first_message(), port=1024 + number)
    first, last = stage.gateway.of(LadderLine)[0], stage.gateway.of(LadderLine)[-1]
    assert first.detail
    assert (last.detail, last.text) == ((), "MAIN_MODE {SA, VID, VID, VID}")
    stage.establish(stage.puppet(seed=9999))
    assert any(line.detail for line in stage.gateway.of(LadderLine) if not line.stranger)


def test_beyond_its_budget_no_aggressive_mode_is_read(counted: Counted) -> None:
    """What an address sends then costs next to nothing, whatever is in it; another's is read."""
    stage = Stage1(AGGRESSIVE)
    too_many = "too many key exchanges without proof of the address"

    def unreadable(seed: int) -> bytes:
        message = bytearray(stage.puppet(seed=seed).first_message())
        message[32:36] = bytes(4)  # the DOI
        return bytes(message)

    stage.say(unreadable(0))
    assert stage.endpoint.counters[too_many] == 0
    for number in range(int(UNPROVED_KEYS_BY_ADDRESS.most)):
        stage.say(stage.puppet(seed=number).first_message(), port=1024 + number)
    spent, drawn = counted.number, len(stage.gateway.of(LadderLine))
    assert stage.say(unreadable(77), port=77) == []
    assert stage.say(stage.puppet(seed=78).first_message(), port=78) == []
    assert stage.endpoint.counters[too_many] == 2
    assert (counted.number, len(stage.gateway.of(LadderLine))) == (spent, drawn)


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_a_refused_aggressive_mode_costs_no_key_pair_however_often(group: int, counted: Counted) -> None:
    """The next message of the same SPI differs, so that what was refused is forgotten."""
    stage = Stage1(AGGRESSIVE)
    stage.gateway.set_peer("a", policy_of(Recipe(dh=(group,)), AGGRESSIVE))
    puppet = stage.puppet()
    for number in range(100):
        puppet.nonce = number.to_bytes(16, "big")
        stage.say(first_of_group(puppet, group, bytes(GROUPS[group].public_length)))
    assert counted.number == 0
    assert len(stage.endpoint.snapshot().sas) == 1


def test_what_a_proof_follows_counts_against_nobody(counted: Counted) -> None:
    stage = Stage1(AGGRESSIVE)
    for seed in range(int(3 * UNPROVED_KEYS_BY_ADDRESS.most)):
        stage.say(stage.last_of_phase1(stage.puppet(seed=seed)))
    assert counted.number >= 6 * UNPROVED_KEYS_BY_ADDRESS.most


def test_another_peer_s_aggressive_mode_has_its_own_budget(counted: Counted) -> None:
    assert UNPROVED_KEYS_IN_ALL.most >= 10 * UNPROVED_KEYS_BY_ADDRESS.most
    stage = Stage1(AGGRESSIVE)
    for number in range(100):
        stage.say(stage.puppet(seed=number).first_message(), port=1024 + number)
    before = counted.number
    other = Recipe().policy("to-c", stage.gateway.address, ADDRESS_C, 2, 3)
    other = replace(other, version=IkeVersion.V1, mode=AGGRESSIVE)
    stage.gateway.endpoint.set_peer(stage.world.now, other)
    puppet = stage.puppet(seed=9999)
    puppet.identity = type(puppet.identity)(1, ADDRESS_C.packed)
    assert len(stage.say(puppet.first_message(), source=ADDRESS_C)) == 1
    assert counted.number == before + 2


# ------------------------------------------------------------------------------------- order of service


def may_wait(stage: Stage1 | Stage2, data: bytes, source: Address = ADDRESS_A) -> bool:
    return stage.endpoint.may_wait(stage.world.now, Path(stage.gateway.address, 500, source, 500), data)


def test_in_ikev2_only_what_begins_something_waits() -> None:
    stage = Stage2()
    puppet = stage.puppet()
    assert may_wait(stage, puppet.init_message())
    assert not may_wait(stage, puppet.init_message(), STRANGER)
    assert not may_wait(stage, puppet.init_message(VendorId(bytes(LARGEST_FIRST_MESSAGE))))
    assert not may_wait(stage, puppet.init_message()[:-1])
    assert not may_wait(stage, b"")
    stage.establish(puppet)
    assert not may_wait(stage, puppet.seal(Exchange2.INFORMATIONAL, 2, []))
    assert not may_wait(stage, puppet.seal(Exchange2.INFORMATIONAL, 2, []), STRANGER)
    puppet.spi_r = bytes(8)
    assert may_wait(stage, puppet.seal(Exchange2.INFORMATIONAL, 2, []))


def test_who_returns_a_cookie_does_not_wait() -> None:
    stage = Stage2(limits=Limits(half_open_before_cookies_per_address=0))
    puppet = stage.puppet()
    (asked,) = stage.say(puppet.init_message())
    cookie = cookie_of(asked, puppet)
    assert not may_wait(stage, puppet.init_message(cookie))
    assert may_wait(stage, puppet.init_message(replace(cookie, data=bytes(17))))
    assert may_wait(stage, puppet.init_message(Notify(Notify2.FRAGMENTATION_SUPPORTED)))
    assert may_wait(stage, puppet.clear(Exchange2.IKE_SA_INIT, 0, [cookie])), "without a nonce"
    # The way to the answer is the same.
    assert len(stage.say(puppet.init_message(cookie))[0]) > 100


@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE])
def test_in_ikev1_only_what_begins_something_waits(mode: NegotiationMode) -> None:
    stage = Stage1(mode)
    puppet = stage.puppet()
    assert may_wait(stage, puppet.first_message())
    assert not may_wait(stage, puppet.first_message(), STRANGER)
    proof = stage.last_of_phase1(puppet)
    assert not may_wait(stage, proof)
    stage.say(proof)
    assert not may_wait(stage, puppet.informational(puppet.are_you_there()))
    assert may_wait(stage, stage.puppet(seed=99).first_message())


# ------------------------------------------------------------------------------------- size


def assert_named_as_too_long(stage: Stage1 | Stage2, exchange: str) -> None:
    """The operator hears what a configured peer sends, and what may be sent."""
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.SYNTAX
    assert failed.unproven
    assert failed.diagnosis.fact("exchange") == exchange
    assert str(failed.diagnosis.fact("detail")).endswith("a first message has 10000 at most")


@pytest.mark.parametrize("mode", [MAIN, AGGRESSIVE])
def test_in_ikev1_a_long_first_message_is_not_read(mode: NegotiationMode) -> None:
    stage = Stage1(mode)
    puppet = stage.puppet()
    payloads = list(puppet.open(puppet.first_message()).payloads)
    room = LARGEST_FIRST_MESSAGE - len(puppet.first_message()) - GENERIC_HEADER_LENGTH
    too_long = puppet.clear(puppet.exchange, [*payloads, ikev1.VendorId(bytes(room + 1))])
    assert stage.say(too_long) == []
    assert stage.endpoint.counters["first message: too long"] == 1
    assert_named_as_too_long(stage, f"{mode.value.upper()}_MODE")
    assert len(stage.say(puppet.clear(puppet.exchange, [*payloads, ikev1.VendorId(bytes(room))]))) == 1


def test_in_ikev2_a_long_first_message_is_not_read() -> None:
    stage = Stage2()
    puppet = stage.puppet()
    room = LARGEST_FIRST_MESSAGE - len(puppet.init_message()) - GENERIC_HEADER_LENGTH
    assert stage.say(puppet.init_message(VendorId(bytes(room + 1)))) == []
    assert stage.endpoint.counters["first message: too long"] == 1
    assert_named_as_too_long(stage, "IKE_SA_INIT")
    stage.say(puppet.init_message(VendorId(bytes(room + 1))))
    assert len(stage.gateway.of(Failed)) == 1, "once a minute"
    assert len(stage.say(puppet.init_message(VendorId(bytes(room))))) == 1


def test_a_long_first_message_of_a_stranger_is_not_named() -> None:
    stage = Stage2()
    stage.say(stage.puppet().init_message(VendorId(bytes(LARGEST_FIRST_MESSAGE))), ip_address("203.0.113.77"))
    assert not stage.gateway.of(Failed)
