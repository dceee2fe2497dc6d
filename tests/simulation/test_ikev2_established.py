"""What happens on an established IKE SA: children, DELETE, signs of life, repeats, hostile messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from tests.simulation.bounds import DUPLICATE_KEPT_BY_PEER, INBOUND_KEPT
from tests.simulation.insider import delete_of
from tests.simulation.policies import NAME, mapping, mirrored, policy, with_pfs
from tests.simulation.puppet import in_clear
from tests.simulation.wire import WirePair
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildReplaced,
    ChildUp,
    Established,
    IkeDown,
    PeerDead,
)
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity
from vpnd.model.policy import DpdPolicy, PeerPolicy
from vpnd.wire.header import Flag
from vpnd.wire.iana import Exchange2, Notify2, Payload2, Protocol
from vpnd.wire.ikev2 import Delete, Notify, Payload, Unknown


def two_mappings(**changes: Any) -> PeerPolicy:
    """A tunnel with two mappings."""
    return policy(children=(mapping(0), mapping(1)), **changes)


def say(
    pair: WirePair, exchange: int, message_id: int, payloads: Sequence[Payload], response: bool = False
) -> None:
    """One who has the keys of a sends b an authentic message of any content."""
    pair.inject("b", pair.insider("a").seal(exchange, message_id, payloads, response))


# ----------------------------------------------------------------------------- further children


def test_a_second_mapping_comes_up_by_create_child_sa() -> None:
    pair = WirePair(two_mappings())
    pair.establish()
    pair.initiate(mapping=1)
    assert pair.drawn == [
        "a -> b  CREATE_CHILD_SA 2 {SA, Ni, TSi, TSr}",
        "a <- b  CREATE_CHILD_SA 2 {SA, Nr, TSi, TSr}",
    ]
    pair.assert_agreed()
    assert sorted(c.mapping for c in pair.a.children()) == [0, 1]


def test_mappings_that_are_wanted_at_once_follow_one_another() -> None:
    children = tuple(mapping(index) for index in range(4))
    pair = WirePair(policy(children=children))
    for index in range(4):
        pair.a.do("initiate", NAME, index)
    pair.run()
    pair.assert_agreed()
    assert len(pair.a.installed) == 4
    assert len(pair.a.of(Established)) == 1
    assert len({c.spi_in for c in pair.a.children()}) == 4


def test_both_sides_may_begin_a_child() -> None:
    pair = WirePair(two_mappings())
    pair.establish()
    pair.initiate(pair.b, 1)
    pair.assert_agreed()
    assert not next(c for c in pair.a.children() if c.mapping == 1).initiator


def test_a_mapping_that_is_up_is_left_alone() -> None:
    pair = WirePair()
    pair.establish()
    pair.initiate()
    pair.initiate(pair.b)
    assert not pair.lines


def test_a_further_child_has_pfs() -> None:
    pair = WirePair(policy(children=(mapping(0), with_pfs(mapping(1), 31))))
    pair.establish()
    pair.initiate(mapping=1)
    assert pair.drawn[0] == "a -> b  CREATE_CHILD_SA 2 {SA, Ni, KEi, TSi, TSr}"
    assert next(c for c in pair.a.children() if c.mapping == 1).suite.dh == 31
    pair.assert_agreed()


def test_the_first_child_proves_pfs_early() -> None:
    pair = WirePair(policy(children=(with_pfs(mapping(), 31),)))
    pair.establish()
    assert [c.suite.dh for c in pair.a.children()] == [None]
    pair.advance(1.1)
    assert pair.a.last(ChildReplaced).child.suite.dh == 31
    pair.advance(20)
    assert len(pair.a.of(ChildReplaced)) == 1
    pair.assert_agreed()


def test_a_pfs_mismatch_shows_at_once() -> None:
    ours = policy(children=(with_pfs(mapping(), 31),))
    theirs = mirrored(ours)
    theirs = replace(theirs, children=(with_pfs(theirs.children[0], 19),))
    pair = WirePair(ours, theirs)
    pair.establish()
    pair.advance(2)
    assert pair.a.diagnosis(ChildFailed).code is Code.PFS
    assert pair.a.installed


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"local": IPv4Network("10.9.0.0/24")}, Code.TRAFFIC_SELECTORS),
        ({"proposals": (replace(mapping().proposals[0], encryption=("aes-256",), integrity=("sha1",)),)},
         Code.P2_PROPOSAL),
    ],
)  # fmt: skip
def test_a_refused_child_leaves_the_rest(change: dict[str, object], code: Code) -> None:
    ours = two_mappings()
    theirs = mirrored(ours)
    second = replace(theirs.children[1], **change)  # type: ignore[arg-type]  # fields by their names
    pair = WirePair(ours, replace(theirs, children=(theirs.children[0], second)))
    pair.establish()
    pair.initiate(mapping=1)
    assert pair.a.diagnosis(ChildFailed).code is code
    assert pair.a.last(ChildFailed).mapping == 1
    pair.assert_agreed()
    assert len(pair.a.installed) == 1
    pair.initiate(mapping=1)
    assert len(pair.a.of(ChildFailed)) == 2


def test_both_want_the_same_child_and_one_stays() -> None:
    kept = set()
    for seed in range(0, 20, 2):
        pair = WirePair(two_mappings(), seed=seed)
        pair.establish()
        pair.a.do("initiate", NAME, 1)
        pair.b.do("initiate", NAME, 1)
        pair.run()
        pair.assert_carries()
        pair.advance(10)
        pair.assert_agreed()
        pair.assert_carries()
        (child,) = (c for c in pair.a.children() if c.mapping == 1)
        kept.add(child.initiator)
    assert kept == {True, False}


def test_a_peer_that_begins_a_child_again_gets_it_and_the_older_goes() -> None:
    pair = WirePair()
    pair.establish()
    pair.forget_child(pair.a)
    assert not pair.a.installed
    pair.initiate()
    assert len(pair.b.installed) == 2
    pair.advance(DUPLICATE_KEPT_BY_PEER + INBOUND_KEPT + 1)
    pair.assert_agreed()
    assert len(pair.b.installed) == 1


def test_both_ends_start_at_once_and_one_ike_sa_stays() -> None:
    kept = set()
    for seed in range(0, 20, 2):
        pair = WirePair(seed=seed)
        pair.a.do("initiate", NAME, 0)
        pair.b.do("initiate", NAME, 0)
        pair.run()
        pair.assert_carries()
        pair.advance(10)
        pair.assert_agreed()
        (info,) = pair.a.ike_sas()
        kept.add(info.initiator)
        assert len(pair.a.installed) == 1
    assert kept == {True, False}


# ---------------------------------------------------------------------------------------- DELETE


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_child_is_deleted_from_either_side(name: str) -> None:
    pair = WirePair(two_mappings())
    pair.establish()
    pair.initiate(mapping=1)
    pair.world.clear_ladder()
    side = pair.a if name == "a" else pair.b
    spi_in = next(c.spi_in for c in side.children() if c.mapping == 1)
    side.do("close_child", NAME, spi_in)
    pair.run()
    assert [text.split(" ", 2)[2] for _, text in pair.lines] == ["{D}", "{D}"]
    pair.assert_agreed()
    assert [c.mapping for c in pair.a.children()] == [0]


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_ike_sa_is_deleted_with_its_children(name: str) -> None:
    pair = WirePair(two_mappings())
    pair.establish()
    pair.initiate(mapping=1)
    side = pair.a if name == "a" else pair.b
    side.do("close", NAME, Diagnosis.of(Code.DOWN_BY_OPERATOR))
    pair.run()
    assert pair.lines[-2][1].endswith("{D}")
    for subject in (pair.a, pair.b):
        assert not subject.installed
        assert not subject.ike_sas()
        down = subject.events.index(subject.last(IkeDown))
        assert all(subject.events.index(gone) < down for gone in subject.of(ChildDown))
    pair.advance(60)
    assert pair.a.next_timeout() is None
    assert pair.b.next_timeout() is None


def test_a_tunnel_that_is_removed_is_closed_and_unknown() -> None:
    pair = WirePair()
    pair.establish()
    pair.a.do("remove_peer", NAME)
    pair.run()
    assert not pair.b.ike_sas()
    with pytest.raises(KeyError):
        pair.a.do("initiate", NAME, 0)


def test_closing_waits_for_its_turn_in_the_window() -> None:
    pair = WirePair(two_mappings())
    pair.establish()
    pair.a.do("initiate", NAME, 1)
    pair.a.do("close", NAME, Diagnosis.of(Code.DOWN_BY_OPERATOR))
    pair.run()
    assert [text for name, text in pair.lines if name == "a"] == [
        "CREATE_CHILD_SA 2 {SA, Ni, TSi, TSr}",
        "INFORMATIONAL 3 {D}",
    ]
    assert not pair.b.ike_sas()
    assert not pair.b.installed
    assert not pair.a.installed


def test_closing_towards_a_silent_peer_ends_soon() -> None:
    pair = WirePair()
    pair.establish()
    pair.filter = lambda name, data: []
    pair.a.do("close", NAME, Diagnosis.of(Code.DOWN_BY_OPERATOR))
    pair.advance(5.1)
    assert pair.a.endpoint.next_timeout() is None


@pytest.mark.parametrize(
    "spis",
    [
        pytest.param((), id="none"),
        pytest.param((b"\xde\xad\xbe\xef",), id="unknown"),
        pytest.param((b"\xde\xad\xbe\xef",) * 1000, id="many"),
        pytest.param((b"\xde\xad",), id="short"),
    ],
)
def test_delete_of_spis_that_are_not_ours_changes_nothing(spis: tuple[bytes, ...]) -> None:
    pair = WirePair()
    pair.establish()
    say(pair, Exchange2.INFORMATIONAL, 2, (Delete(Protocol.ESP, spis),))
    assert pair.lines[-1][1] == "INFORMATIONAL 2 {}"
    assert pair.b.ike_sas()
    assert pair.b.installed


def test_delete_of_an_spi_of_another_tunnel_changes_nothing() -> None:
    first, second = policy(), policy("other", local_id=Identity.of("a2.example"))
    pair = WirePair(first)
    pair.a.set_peer("b", second)
    pair.b.set_peer("a", mirrored(second))
    pair.a.initiate(0, NAME)
    pair.run()
    insider = pair.insider("a")
    pair.a.initiate(0, "other")
    pair.run()
    (foreign,) = pair.a.children(tunnel="other")
    pair.inject("b", insider.seal(Exchange2.INFORMATIONAL, 2, [delete_of(foreign.spi_in)]))
    assert pair.texts[-1] == "INFORMATIONAL 2 {}"
    assert len(pair.b.installed) == 2


def test_delete_twice_in_one_message_is_one_delete() -> None:
    pair = WirePair()
    pair.establish()
    (child,) = pair.a.children()
    spi = child.spi_in.to_bytes(4, "big")
    notify = Notify(Notify2.INVALID_SELECTORS)
    say(
        pair,
        Exchange2.INFORMATIONAL,
        2,
        (Delete(Protocol.ESP, (spi, spi)), notify, Delete(Protocol.ESP, (spi,))),
    )
    assert len(pair.b.of(ChildDown)) == 1
    assert pair.b.diagnosis(ChildDown).code is Code.PEER_DELETED
    assert pair.b.ike_sas()


# ---------------------------------------------------------------------------------- signs of life


def test_a_probe_is_answered() -> None:
    pair = WirePair()
    pair.establish()
    pair.a.do("probe", NAME)
    pair.run()
    assert pair.drawn == ["a -> b  INFORMATIONAL 2 {}", "a <- b  INFORMATIONAL 2 {}"]


@pytest.mark.parametrize("timeout", [30, 45, 60])
def test_a_dead_peer_is_found_when_the_timeout_is_over(timeout: int) -> None:
    pair = WirePair(policy(dpd=DpdPolicy(True, timeout)))
    pair.establish()
    pair.advance(100)
    heard = pair.a.ike_sas()[0].last_heard
    pair.filter = lambda name, data: []
    pair.advance(heard + timeout - 0.01 - pair.world.now)
    assert not pair.a.of(PeerDead)
    pair.advance(1.01)
    assert pair.a.diagnosis(PeerDead).code is Code.PEER_DEAD
    assert pair.a.diagnosis(IkeDown).code is Code.PEER_DEAD
    assert not pair.a.installed


def test_an_idle_tunnel_is_asked_and_stays() -> None:
    pair = WirePair(policy(dpd=DpdPolicy(True, 30)))
    pair.establish()
    pair.advance(600)
    pair.assert_agreed()
    assert pair.a.ike_sas()
    assert 30 <= sum(text.startswith("INFORMATIONAL") for _, text in pair.lines) <= 260


def test_traffic_is_life() -> None:
    pair = WirePair(policy(dpd=DpdPolicy(True, 30)))
    pair.establish()
    for _ in range(50):
        pair.advance(4)
        pair.a.do("note_activity", NAME)
        pair.b.do("note_activity", NAME)
    assert not pair.lines


def test_without_dpd_nobody_asks_and_a_request_without_answer_is_death() -> None:
    """But for one question of the responder, who has not heard the initiator since it authenticated."""
    pair = WirePair()
    pair.establish()
    pair.advance(3000)
    asked = [(name, text) for name, text in pair.lines if text.startswith("INFORMATIONAL")]
    assert asked == [("b", "INFORMATIONAL 0 {}"), ("a", "INFORMATIONAL 0 {}")]
    pair.filter = lambda name, data: []
    pair.a.do("probe", NAME)
    pair.advance(29)
    assert not pair.a.of(PeerDead)
    pair.advance(2)
    assert pair.a.of(PeerDead)


def test_a_paused_gateway_asks_before_it_believes_in_death() -> None:
    """F32: stopped for longer than the timeout and continued."""
    pair = WirePair(policy(dpd=DpdPolicy(True, 30)))
    pair.establish()
    pair.world.now += 100
    pair.a.timeout()
    assert not pair.a.of(PeerDead)
    pair.run()
    pair.advance(1)
    assert pair.a.ike_sas()


# ------------------------------------------------------------------------------ window and repeats


def test_a_repeated_request_gets_the_same_bytes_a_bounded_number_of_times() -> None:
    pair = WirePair(two_mappings())
    pair.establish()
    pair.a.do("initiate", NAME, 1)
    request = pair.take("a")
    for _ in range(20):
        pair.deliver(request)
    answers = [datagram.data for datagram in pair.wire]
    assert len(answers) == 13
    assert len(set(answers)) == 1
    assert len(pair.b.of(ChildUp)) == 2
    pair.run()
    pair.assert_agreed()


@pytest.mark.parametrize("message_id", [0, 1, 3, 4, 0xFFFFFFFF])
def test_other_message_ids_are_dropped(message_id: int) -> None:
    pair = WirePair()
    pair.establish()
    before = len(pair.sent("b"))
    say(pair, Exchange2.INFORMATIONAL, message_id, (Delete(Protocol.IKE),))
    assert pair.b.ike_sas()
    assert len(pair.sent("b")) - before == (1 if message_id == 1 else 0)


def test_a_lost_request_and_a_lost_answer_are_healed_by_the_same_bytes() -> None:
    pair = WirePair(two_mappings())
    pair.establish()
    losses = {"a": 2, "b": 2}

    def lose(name: str, data: bytes) -> list[bytes]:
        losses[name] -= 1
        return [] if losses[name] >= 0 else [data]

    pair.filter = lose
    pair.a.do("initiate", NAME, 1)
    pair.advance(10)
    pair.assert_agreed()
    assert len(pair.a.installed) == 2
    sent = pair.sent("a")[2:]
    assert len(sent) == 5
    assert len(set(sent)) == 1


def test_a_response_to_nothing_is_dropped() -> None:
    pair = WirePair()
    pair.establish()
    say(pair, Exchange2.INFORMATIONAL, 0, (), response=True)
    assert pair.b.endpoint.counters["response to no request"] == 1


# -------------------------------------------------------------------------- hostile, but with the keys


@pytest.mark.parametrize(
    ("payloads", "answer"),
    [
        pytest.param((Unknown(200, b"x", critical=True),), "UNSUPPORTED_CRITICAL_PAYLOAD", id="critical"),
        pytest.param((Unknown(200, b"x"),), None, id="not critical"),
        pytest.param((Unknown(1, b"x"),), None, id="a payload of IKEv1"),
        pytest.param((Unknown(Payload2.NONCE, b""),), "INVALID_SYNTAX", id="empty nonce"),
        pytest.param((Notify(Notify2.INVALID_IKE_SPI),) * 21, "INVALID_SYNTAX", id="21 notifies"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_and_nothing_falls(
    payloads: tuple[Payload, ...], answer: str | None
) -> None:
    pair = WirePair()
    pair.establish()
    say(pair, Exchange2.INFORMATIONAL, 2, payloads)
    assert pair.lines[-1][1] == f"INFORMATIONAL 2 {{{f'N({answer})' if answer else ''}}}"
    if answer == "UNSUPPORTED_CRITICAL_PAYLOAD":
        assert pair.b.ike_sas()
    pair.assert_agreed()


@pytest.mark.parametrize("exchange", [Exchange2.IKE_AUTH, Exchange2.IKE_INTERMEDIATE, 99])
def test_exchanges_that_have_no_place_change_nothing(exchange: int) -> None:
    pair = WirePair()
    pair.establish()
    say(pair, exchange, 2, (Delete(Protocol.IKE),))
    assert pair.b.ike_sas()
    assert pair.b.installed


def test_plain_notifies_never_tear_anything_down() -> None:
    """V19: an unprotected message on an established IKE SA is not looked at."""
    pair = WirePair()
    pair.establish()
    sa = pair.a.ike_sas()[0]
    for kind in (Notify2.INVALID_IKE_SPI, Notify2.NO_PROPOSAL_CHOSEN, Notify2.AUTHENTICATION_FAILED):
        for exchange in (Exchange2.INFORMATIONAL, Exchange2.IKE_SA_INIT, Exchange2.IKE_AUTH):
            for flags in (Flag.INITIATOR, Flag.INITIATOR | Flag.RESPONSE):
                payloads = (Notify(kind), Delete(Protocol.IKE, ()))
                pair.inject("b", in_clear(sa.spi_i, sa.spi_r, exchange, flags, 2, payloads))
    assert not pair.wire
    assert sum(pair.b.endpoint.counters.values()) == 18
    pair.assert_agreed()


# --------------------------------------------------------------------------------- fragmentation


def test_a_large_message_travels_in_fragments_and_is_repeated_once() -> None:
    """RFC 7383; V12: of a repeated fragmented request only the first fragment gets the answer again."""
    proposals = tuple(replace(mapping().proposals[0], number=number) for number in range(1, 101))
    pair = WirePair(policy(children=(mapping(0), mapping(1, proposals=proposals))))
    pair.establish()
    pair.a.do("initiate", NAME, 1)
    fragments = list(pair.wire)
    assert len(fragments) >= 2
    assert all(len(fragment.data) + 32 <= 1280 for fragment in fragments)
    pair.wire.clear()
    for fragment in reversed(fragments):
        assert not pair.wire
        pair.deliver(fragment)
    assert len(pair.wire) == 1
    for fragment in fragments[1:]:
        pair.deliver(fragment)
    assert len(pair.wire) == 1
    pair.deliver(fragments[0])
    assert len(pair.wire) == 2
    pair.run()
    pair.assert_agreed()
    assert len(pair.a.installed) == 2


def test_a_forged_fragment_is_not_kept() -> None:
    proposals = tuple(replace(mapping().proposals[0], number=n) for n in range(1, 101))
    pair = WirePair(policy(children=(mapping(0), mapping(1, proposals=proposals))))
    pair.establish()
    pair.a.do("initiate", NAME, 1)
    first = pair.take("a")
    forged = first.data[:-1] + bytes((first.data[-1] ^ 1,))
    pair.deliver(replace(first, data=forged))
    assert pair.b.endpoint.counters["integrity check failed"] == 1
    pair.deliver(first)
    pair.run()
    pair.assert_agreed()
    assert len(pair.b.installed) == 2


# ------------------------------------------------------------------------------------ any bytes


def test_every_length_and_version_of_garbage_is_counted() -> None:
    pair = WirePair()
    pair.establish()
    seen = sum(pair.b.endpoint.counters.values())
    for length in range(0, 200):
        pair.inject("b", bytes(length))
        pair.inject("b", b"\xff" * length)
    assert sum(pair.b.endpoint.counters.values()) == seen + 400
    assert not pair.wire
    pair.assert_agreed()


def test_a_changed_bit_anywhere_in_a_protected_message_changes_nothing() -> None:
    pair = WirePair()
    pair.establish()
    pair.a.do("probe", NAME)
    datagram = pair.take("a")
    for bit in range(8 * len(datagram.data)):
        changed = bytearray(datagram.data)
        changed[bit // 8] ^= 1 << bit % 8
        pair.deliver(replace(datagram, data=bytes(changed)))
        assert not pair.wire, f"bit {bit} was answered"
    pair.deliver(datagram)
    pair.run()
    pair.assert_agreed()
