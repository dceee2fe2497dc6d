"""What an IKEv1 gateway does with messages that are damaged, forged, repeated, out of place or just odd."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from ipaddress import ip_network

import pytest

from tests.faults.simulated import counting
from tests.simulation.bounds import (
    FRAGMENTATION,
    NAT_T_02,
    NAT_T_02N,
    NAT_T_03,
    NAT_T_RFC,
    PAIRS_AT_MOST,
    REFUSALS_KEPT,
    SETTLING_BESIDE,
)
from tests.simulation.policies import ADDRESS_A, STRANGER, Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, MODES, TWO_MAPPINGS, pair_of
from tests.simulation.v1.puppet import DPD, Puppet, esp_sa, prf
from tests.simulation.v1.stage import Stage, stage_in
from tests.simulation.weather import Datagram, flip_bit
from tests.tables import TellRow
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildUp,
    Established,
    Failed,
    IkeDown,
    LadderLine,
    PathMoved,
    Story,
)
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code
from vpnd.model.identity import Identity
from vpnd.model.policy import NegotiationMode
from vpnd.model.secret import Secret
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange1, IdType, Notify1, Protocol
from vpnd.wire.ikev1 import (
    Delete,
    Fragment,
    Hash,
    Id,
    KeyExchange,
    NatD,
    Nonce,
    Notify,
    Payload,
    Unknown,
    VendorId,
    encode_payloads,
)


def settled(stage: Stage) -> tuple[object, ...]:
    """What a message without a valid hash must not change."""
    events = [event for event in stage.gateway.events if not isinstance(event, LadderLine | Story)]
    return stage.gateway.ike_sas(), sorted(stage.gateway.installed), events


def iv_of(stage: Stage) -> bytes:
    """Where the IV chain of phase 1 stands."""
    (sa,) = stage.endpoint.snapshot().sas
    return sa.ivs[0]


# ------------------------------------------------------------------------------------- HASH


WRONG = bytes(32)


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_proof_changes_nothing_and_is_not_answered(mode: NegotiationMode) -> None:
    """V7: Main5 and Aggressive3. The right one still comes through."""
    stage = Stage(mode)
    puppet = stage.puppet()
    right = stage.last_of_phase1(puppet)
    iv = iv_of(stage)
    twin = Stage(mode)
    copy = twin.puppet()
    twin.last_of_phase1(copy)
    payloads: list[Payload] = [copy.identity, Hash(WRONG)]
    copy.iv = iv
    assert stage.say(copy.seal_phase1(payloads[1:] if copy.aggressive else payloads)) == []
    assert iv_of(stage) == iv
    assert not stage.gateway.of(Established)
    assert not stage.gateway.of(Failed)
    answers = stage.say(right)
    assert len(answers) == (0 if puppet.aggressive else 1)
    assert stage.gateway.of(Established)


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_proof_of_the_responder_changes_nothing(mode: NegotiationMode) -> None:
    """V7: Main6 and Aggressive2."""
    stage = Stage(mode)
    puppet = stage.puppet(initiator=False)
    if puppet.aggressive:
        stage.begin(puppet)
        right = puppet.aggressive2_payloads()
        wrong = [Hash(WRONG) if isinstance(p, Hash) else p for p in right]
        assert stage.say(puppet.clear(puppet.exchange, wrong)) == []
        assert not stage.gateway.of(Established)
        assert len(stage.say(puppet.clear(puppet.exchange, right))) == 2
    else:
        stage.begin_proof(puppet)
        iv = puppet.iv
        assert stage.say(puppet.seal_phase1([puppet.identity, Hash(WRONG)])) == []
        assert iv_of(stage) == iv
        assert not stage.gateway.of(Established)
        puppet.iv = iv
        assert len(stage.say(puppet.seal_phase1(puppet.proof_payloads()))) == 1
    assert stage.gateway.of(Established)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("initiator", [True, False], ids=["HASH_I", "HASH_R"])
def test_a_proof_of_the_other_role_proves_nothing(mode: NegotiationMode, initiator: bool) -> None:
    """RFC 2409 section 5: HASH_I and HASH_R differ in their order, lest one is sent back."""
    stage = Stage(mode)
    puppet = stage.puppet(initiator)
    if initiator:
        stage.last_of_phase1(puppet)
    elif puppet.aggressive:
        stage.begin(puppet)
    else:
        stage.begin_proof(puppet)
    cookies = (puppet.cky_r, puppet.cky_i) if initiator else (puppet.cky_i, puppet.cky_r)
    octets = (puppet.peer_public, puppet.public, *cookies, puppet.sa_i, puppet.identity.encode())
    wrong = Hash(prf(puppet.skeyid, b"".join(octets)))
    if not puppet.aggressive:
        puppet.iv = iv_of(stage)
        stage.say(puppet.seal_phase1([puppet.identity, wrong]))
    elif initiator:
        puppet.iv = iv_of(stage)
        stage.say(puppet.seal_phase1([wrong]))
    else:
        payloads = [wrong if isinstance(p, Hash) else p for p in puppet.aggressive2_payloads()]
        stage.say(puppet.clear(puppet.exchange, payloads))
    assert not stage.gateway.of(Established)


def test_each_question_has_the_next_number() -> None:
    """RFC 3706 section 5.3."""
    stage = Stage()
    puppet = stage.puppet()
    stage.with_child(puppet)
    stage.world.run_for(1)
    for _ in range(3):
        stage.gateway.probe()
    asked = [puppet.open_informational(data).one(Notify) for data in stage.heard[-3:]]
    first, second, third = (int.from_bytes(one.data, "big") for one in asked if isinstance(one, Notify))
    assert (second, third) == (first + 1, first + 2)


@pytest.mark.parametrize(("off", "counts"), [(-2, False), (-1, True), (0, True), (1, False)])
def test_an_ack_counts_with_a_number_that_was_asked(off: int, counts: bool) -> None:
    """RFC 3706 section 5.4: an ACK of another question, sent again, does not keep a dead peer alive."""
    stage = Stage()
    puppet = stage.puppet()
    stage.with_child(puppet)
    stage.world.run_for(1)
    for _ in range(2):
        stage.gateway.probe()
    asked = puppet.open_informational(stage.heard[-1]).one(Notify)
    assert isinstance(asked, Notify)
    number = (int.from_bytes(asked.data, "big") + off).to_bytes(4, "big")
    cookies = puppet.cky_i + puppet.cky_r
    stage.world.run_for(1)
    stage.say(puppet.informational(Notify(Notify1.R_U_THERE_ACK, number, Protocol.IKE, cookies)))
    (ike,) = stage.gateway.ike_sas()
    assert (ike.last_heard == stage.world.now) is counts


def test_a_wrong_hash_in_quick_mode_changes_nothing_as_responder() -> None:
    """V7: HASH(1) and HASH(3); the message IDs stay usable and the IVs where they were."""
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    before = settled(stage)
    quick = puppet.begin_quick()
    first_iv = quick.iv
    payloads = puppet.quick1_payloads(quick)
    assert stage.say(puppet.seal_quick(quick, payloads, proof=WRONG)) == []
    assert settled(stage) == before
    quick.iv = first_iv
    (answer,) = stage.say(puppet.seal_quick(quick, payloads))
    puppet.take_quick(quick, answer)
    iv = quick.iv
    assert stage.say(puppet.quick3(quick, WRONG)) == []
    assert not stage.gateway.of(ChildUp)
    assert not stage.gateway.sends(0)
    quick.iv = iv
    stage.say(puppet.quick3(quick))
    assert len(stage.gateway.installed) == 1


def test_a_wrong_hash_in_quick_mode_changes_nothing_as_initiator() -> None:
    """V7: HASH(2)."""
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    quick = stage.established_from_here(puppet)
    iv = quick.iv
    assert stage.say(puppet.quick2(quick, proof=WRONG)) == []
    assert not stage.gateway.installed
    quick.iv = iv
    assert len(stage.say(puppet.quick2(quick))) == 1
    assert len(stage.gateway.installed) == 1


@pytest.mark.parametrize("what", ["delete ike", "delete child", "initial contact", "are you there", "error"])
def test_a_wrong_hash_in_an_informational_changes_nothing(what: str) -> None:
    """V7, V19: nothing is torn down, nothing is answered."""
    stage = Stage()
    puppet = stage.puppet()
    stage.with_child(puppet)
    said: dict[str, Payload] = {
        "delete ike": puppet.delete_ike(),
        "delete child": Delete(Protocol.ESP, ((0xC0FFEE01).to_bytes(4, "big"),)),
        "initial contact": Notify(Notify1.INITIAL_CONTACT, spi=puppet.cky_i + puppet.cky_r),
        "are you there": puppet.are_you_there(),
        "error": Notify(Notify1.NO_PROPOSAL_CHOSEN),
    }
    payload, before = said[what], settled(stage)
    assert stage.say(puppet.informational(payload, proof=WRONG)) == []
    assert stage.say(puppet.clear(Exchange1.INFORMATIONAL, [payload], 77)) == []
    assert settled(stage) == before
    assert stage.endpoint.counters["informational hash"] == 1


def test_the_hash_comes_first() -> None:
    """What stands before HASH would not be covered by it (RFC 2409 section 5.5)."""
    stage = Stage()
    puppet = stage.puppet()
    stage.with_child(puppet)
    before = settled(stage)
    number = 0x1234
    delete = puppet.delete_ike()
    first, body = encode_payloads([delete])
    proof = puppet.informational(delete, message_id=number)
    assert proof
    hashed = Hash(prf(puppet.skeyid_a, number.to_bytes(4, "big") + body))
    swapped = puppet.seal(Exchange1.INFORMATIONAL, number, [delete, hashed], puppet.phase2_iv(number))
    assert stage.say(swapped) == []
    assert settled(stage) == before
    assert first


def test_two_quick_modes_at_once_have_ivs_of_their_own() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    one = stage.answered_quick(puppet, 0xC0FFEE01, 0)
    two = stage.answered_quick(puppet, 0xC0FFEE02, 1)
    ack = stage.say(puppet.informational(puppet.are_you_there()))
    assert len(ack) == 1
    stage.say(puppet.quick3(one))
    stage.say(puppet.quick3(two))
    assert sorted(child.mapping for child in stage.gateway.children()) == [0, 1]


def test_a_message_id_is_used_once() -> None:
    """V18: a finished quick mode and an informational cannot be played again."""
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    quick = puppet.begin_quick()
    first = puppet.seal_quick(quick, puppet.quick1_payloads(quick))
    (answer,) = stage.say(first)
    puppet.take_quick(quick, answer)
    stage.say(puppet.quick3(quick))
    ask = puppet.informational(puppet.are_you_there())
    assert len(stage.say(ask)) == 1
    assert stage.say(ask) == []
    for _ in range(4):
        stage.world.run_for(9)
        stage.say(puppet.informational(puppet.are_you_there()))
    ups = len(stage.gateway.of(ChildUp))
    assert stage.say(first) == []
    assert len(stage.gateway.of(ChildUp)) == ups
    assert stage.endpoint.counters["message ID used before"] == 2


# ------------------------------------------------------------------------------------- repeats


def test_repeats_are_answered_with_the_same_bytes_and_not_for_ever() -> None:
    """V18: Main1, Main3, Main5 and Quick1."""
    stage = Stage()
    puppet = stage.puppet()
    first = puppet.first_message()
    answers = [stage.say(first) for _ in range(20)]
    assert len({tuple(answer) for answer in answers if answer}) == 1
    assert sum(map(len, answers)) <= 1 + Limits().repeats
    puppet.take(answers[0][0])
    third = puppet.clear(puppet.exchange, puppet.key_payloads())
    (answer,) = stage.say(third)
    assert stage.say(third) == [answer]
    assert stage.say(first) == [], "an older message is not answered again"
    puppet.take(answer)
    fifth = puppet.seal_phase1(puppet.proof_payloads())
    (answer,) = stage.say(fifth)
    assert stage.say(fifth) == [answer]
    puppet.take_phase1(answer)
    quick = puppet.begin_quick()
    request = puppet.seal_quick(quick, puppet.quick1_payloads(quick))
    (answer,) = stage.say(request)
    assert stage.say(request) == [answer]
    assert len(stage.endpoint.snapshot().esp_spis) == 1


def test_a_refused_quick_mode_is_refused_alike_when_repeated() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    quick = puppet.begin_quick()
    request = puppet.seal_quick(quick, puppet.quick1_payloads(quick, mapping=9))
    (answer,) = stage.say(request)
    assert stage.say(request) == [answer]
    refusal = puppet.open_informational(answer).one(Notify)
    assert isinstance(refusal, Notify)
    assert refusal.type == Notify1.INVALID_ID_INFORMATION
    assert len(stage.gateway.of(Failed)) == 1
    assert not stage.endpoint.snapshot().esp_spis


@pytest.mark.parametrize("mode", MODES)
def test_a_responder_never_speaks_first_and_at_most_thrice_as_much(
    mode: NegotiationMode, row: TellRow
) -> None:
    """V14: what it sends to an address that has proved nothing: repeats of each message, wrong proofs."""
    stage = Stage(mode)
    puppet = stage.puppet()
    received, ratios = 0, []

    def say(data: bytes) -> list[bytes]:
        nonlocal received
        received += len(data)
        answers = stage.say(data)
        ratios.append(sum(map(len, stage.heard)) / received)
        return answers

    first = puppet.first_message()
    (answer,) = say(first)
    puppet.take(answer)
    repeated = [say(first) for _ in range(30)]
    if not puppet.aggressive:
        third = puppet.clear(puppet.exchange, puppet.key_payloads())
        (answer,) = say(third)
        puppet.take(answer)
        repeated += [say(third) for _ in range(30)]
    wrong: list[Payload] = [puppet.identity, Hash(WRONG)]
    proof = puppet.seal_phase1(wrong[1:] if puppet.aggressive else wrong)
    for _ in range(30):
        say(proof)
    before = len(stage.heard)
    stage.world.run_for(120)
    assert len(stage.heard) == before, "it has spoken first"
    row(
        "IKEv1, bytes sent for each byte of the unproven", mode=mode.value, most=f"{max(ratios):.2f}", bound=3
    )
    assert any(repeated), "repeats are answered"
    assert max(ratios) <= 3


@pytest.mark.parametrize("mode", MODES)
def test_a_first_message_of_few_bytes_is_not_answered_with_many(mode: NegotiationMode) -> None:
    """Once for each attempt, from the fewest bytes that a first message can have."""
    stage = Stage(mode)
    for seed in range(5):
        puppet = stage.puppet(seed=seed)
        payloads = [p for p in puppet.open(puppet.first_message()).payloads if not isinstance(p, VendorId)]
        smallest = puppet.clear(puppet.exchange, payloads)
        assert sum(map(len, stage.say(smallest))) <= 3 * len(smallest)


def test_half_open_attempts_are_bounded_and_run_out() -> None:
    """F20: of an address that is configured so many, of a stranger none; refused ones count."""
    most = 5
    stage = Stage(limits=Limits(half_open_unproved_per_address=most))
    for seed in range(20):
        stage.answered_first(stage.puppet(seed=seed))
    assert len(stage.endpoint.snapshot().sas) == most
    assert stage.say(stage.puppet(seed=50).first_message(), STRANGER) == []
    stage.world.run_for(31)
    assert not stage.endpoint.snapshot().sas
    for seed in range(20):
        puppet = stage.puppet(seed=seed)
        stage.say(puppet.clear(puppet.exchange, [replace(esp_sa(256), situation=1), VendorId(DPD)]))
    assert len(stage.endpoint.snapshot().sas) <= most
    stage.world.run_for(31)
    assert not stage.endpoint.snapshot().sas


# ------------------------------------------------------------------------------------- forgeries


FORGED_ERRORS = [Notify1.NO_PROPOSAL_CHOSEN, Notify1.AUTHENTICATION_FAILED, Notify1.PAYLOAD_MALFORMED]


@pytest.mark.parametrize("error", FORGED_ERRORS)
@pytest.mark.parametrize("mode", MODES)
def test_a_forged_error_does_not_end_an_attempt_that_is_answered(mode: NegotiationMode, error: int) -> None:
    """V19: after the error the real answer comes."""
    stage = Stage(mode)
    puppet = stage.puppet(initiator=False)
    stage.begin(puppet)
    forger = Puppet(False, mode, ADDRESS_A, b"", seed=9)
    forger.cky_i = puppet.cky_i
    for _ in range(3):
        stage.say(forger.clear(Exchange1.INFORMATIONAL, [Notify(error)], 5), port=4500)
    assert not stage.gateway.of(Failed)
    stage.world.run_for(1.5)
    payloads = puppet.aggressive2_payloads() if puppet.aggressive else puppet.proposal()
    assert stage.say(puppet.clear(puppet.exchange, payloads))
    stage.world.run_for(5)
    assert not stage.gateway.of(Failed)


@pytest.mark.parametrize("mode", MODES)
def test_a_forged_answer_does_not_end_an_attempt(mode: NegotiationMode) -> None:
    """V19: Main2 with another proposal, Aggressive2 without the key; the real one has another cookie."""
    stage = Stage(mode)
    puppet = stage.puppet(initiator=False)
    stage.begin(puppet)
    forger = Puppet(False, mode, ADDRESS_A, b"a guess", seed=9)
    forger.take(stage.heard[-1])
    payloads = forger.aggressive2_payloads() if forger.aggressive else [esp_sa(300)]
    assert stage.say(forger.clear(forger.exchange, payloads)) == []
    stage.world.run_for(1)
    payloads = puppet.aggressive2_payloads() if puppet.aggressive else puppet.proposal()
    assert stage.say(puppet.clear(puppet.exchange, payloads))
    stage.world.run_for(4)
    assert not stage.gateway.of(Failed)


@pytest.mark.parametrize("error", FORGED_ERRORS)
def test_an_error_that_nothing_contradicts_is_the_diagnosis(error: int) -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    stage.begin(puppet)
    stage.insist(puppet.clear(Exchange1.INFORMATIONAL, [Notify(error)], 5))
    assert not stage.gateway.of(Failed)
    stage.world.run_for(3)
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.fact("notify") == Notify1(error).name


# ------------------------------------------------------------------------------------- corruption


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sender", ["a", "b"])
def test_every_flipped_bit_of_the_protected_messages_is_without_effect(
    mode: NegotiationMode, sender: str
) -> None:
    """F5: each encrypted message of phase 1 and quick mode is damaged in every bit, then comes as it was."""
    rehearsal = pair_of(mode)
    rehearsal.a.initiate()
    rehearsal.world.settle()
    sealed = [d for d in rehearsal.world.sent if d.sender == sender and d.data[19] & Flag.ENCRYPTION]
    assert sealed
    for number in [datagram.number for datagram in sealed]:
        pair = pair_of(mode)
        receiver = pair.b if sender == "a" else pair.a
        held: list[Datagram] = []
        pair.world.interceptors.append(partial(hold, sender, number, held))
        pair.a.initiate()
        pair.world.settle()
        (datagram,) = held
        path = Path(datagram.destination, datagram.destination_port, datagram.source, datagram.source_port)
        downs = 0
        for bit in range(8 * HEADER_LENGTH, 8 * len(datagram.data)):
            receiver.receive(path, flip_bit(datagram.data, bit))
            downs += len(receiver.of(ChildDown)) + len(receiver.of(IkeDown)) + len(receiver.of(Failed))
        assert downs == 0
        pair.world.clear_sky()
        pair.world.run_for(20)
        pair.assert_one_tunnel()
        assert [len(g.of(Established)) for g in (pair.a, pair.b)] == [1, 1]


def hold(
    sender: str, number: int, held: list[Datagram], datagram: Datagram
) -> list[tuple[float, bytes]] | None:
    """Keep this one instead of delivering it."""
    if (datagram.sender, datagram.number) != (sender, number):
        return None
    held.append(datagram)
    return []


def flip(sender: str, number: int, bit: int, datagram: Datagram) -> list[tuple[float, bytes]] | None:
    """Deliver this one with another bit."""
    if (datagram.sender, datagram.number) != (sender, number):
        return None
    return [(0.01, flip_bit(datagram.data, bit))]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sender", ["a", "b"])
def test_every_flipped_bit_of_the_clear_messages_delays_at_most(mode: NegotiationMode, sender: str) -> None:
    """F5: a damaged message in clear may be believed for a while; in the end the tunnel comes up."""
    rehearsal = pair_of(mode)
    rehearsal.a.initiate()
    rehearsal.world.settle()
    clear = [d for d in rehearsal.world.sent if d.sender == sender and not d.data[19] & Flag.ENCRYPTION]
    for datagram in clear:
        for bit in range(datagram.number, 8 * len(datagram.data), 37):
            pair = pair_of(mode)
            pair.world.interceptors.append(partial(flip, sender, datagram.number, bit))
            end = pair.world.now + 70
            while not (pair.a.installed and pair.b.installed) and pair.world.now < end:
                pair.a.initiate()
                pair.world.run_for(1)
            pair.world.settle()
            pair.assert_one_tunnel()
            # In aggressive mode the initiator is done before the responder has seen its proof.
            assert len(pair.b.of(Established)) == 1, f"bit {bit}"
            assert len(pair.a.of(Established)) == 1 or mode is AGGRESSIVE, f"bit {bit}"


# ------------------------------------------------------------------------------------- fragments


def test_messages_in_fragments_are_put_together() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.answered_first(puppet)
    message = puppet.clear(puppet.exchange, puppet.key_payloads())
    pieces = [message[:40], message[40:80], message[80:]]
    for number in (3, 1):
        piece = Fragment(7, number, number == 3, pieces[number - 1])
        assert stage.say(puppet.clear(puppet.exchange, [piece])) == []
    (answer,) = stage.say(puppet.clear(puppet.exchange, [Fragment(7, 2, False, pieces[1])]))
    puppet.take(answer)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["no session, main", "answered Main1", "established, main"])
def test_hostile_fragments_are_bounded(state: str) -> None:
    """V11: 10,000 of them, of every kind, leave at most one message's worth."""
    stage, puppet = stage_in(state)
    before = settled(stage)
    for number in range(10_000):
        piece = Fragment(number % 3, number % 255 + 1, number % 5 == 0, bytes(number % 50))
        assert stage.say(puppet.clear(puppet.exchange, [piece])) == []
    nested = puppet.clear(puppet.exchange, [Fragment(1, 1, True, b"x")])
    assert stage.say(puppet.clear(puppet.exchange, [Fragment(99, 1, True, nested)])) == []
    told = [event for event in stage.gateway.of(Failed) if event.diagnosis.code is Code.SYNTAX]
    assert len(told) == (0 if stage.gateway.ike_sas() else 1), "what they make is named, in clear"
    stage.gateway.events[:] = [event for event in stage.gateway.events if event not in told]
    assert settled(stage) == before
    if state.startswith("no session"):
        assert not stage.endpoint.snapshot().sas


# ------------------------------------------------------------------------------------- odd peers


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        ([NAT_T_RFC], NAT_T_RFC),
        ([NAT_T_02, NAT_T_03], NAT_T_03),
        ([NAT_T_02N], NAT_T_02N),
        ([NAT_T_02], NAT_T_02),
        ([NAT_T_03, NAT_T_RFC], NAT_T_RFC),
        ([], None),
    ],
)
def test_nat_traversal_by_the_best_vendor_id_of_both(said: list[bytes], answered: bytes | None) -> None:
    stage = Stage()
    puppet = stage.puppet()
    vendors: list[Payload] = [VendorId(data) for data in said]
    (answer,) = stage.say(puppet.clear(puppet.exchange, [*puppet.proposal(), *vendors]))
    known = {NAT_T_RFC, NAT_T_03, NAT_T_02, NAT_T_02N}
    found = [p.data for p in puppet.take(answer).payloads if isinstance(p, VendorId) and p.data in known]
    assert found == ([answered] if answered else [])
    (answer,) = stage.say(puppet.clear(puppet.exchange, puppet.key_payloads()))
    drafts = [p.draft for p in puppet.take(answer).payloads if isinstance(p, NatD)]
    assert drafts == ([answered != NAT_T_RFC] * 2 if answered else [])


def test_what_has_no_meaning_here_is_read_over() -> None:
    """Unknown payloads, vendor IDs, notifies in clear, the commit bit, identities with port and protocol."""
    stage = Stage()
    puppet = stage.puppet()
    extra: list[Payload] = [VendorId(bytes(n)) for n in range(8)]
    extra += [Unknown(200, b"??"), Notify(Notify1.INITIAL_CONTACT), VendorId(FRAGMENTATION + bytes(4))]
    (answer,) = stage.say(puppet.clear(puppet.exchange, [*puppet.proposal(), *extra]))
    puppet.take(answer)
    (answer,) = stage.say(puppet.clear(puppet.exchange, [*puppet.key_payloads(), *extra]))
    puppet.take(answer)
    puppet.identity = Id(IdType.IPV4_ADDR, ADDRESS_A.packed, 17, 500)
    sealed = bytearray(puppet.seal_phase1([*puppet.proof_payloads(), Unknown(201, b"?")]))
    sealed[19] |= Flag.COMMIT
    (answer,) = stage.say(bytes(sealed))
    puppet.take_phase1(answer)
    assert len(stage.gateway.ike_sas()) == 1


def test_a_delete_names_only_sas_of_its_own_tunnel() -> None:
    """V20: twice, with a notify, with 16,000 SPIs, by either SPI."""
    stage = Stage()
    puppet = stage.puppet()
    quick = stage.with_child(puppet)
    (child,) = stage.gateway.children()
    strange = Delete(Protocol.ESP, tuple(n.to_bytes(4, "big") for n in range(16_000)))
    assert stage.say(puppet.informational(strange)) == []
    assert stage.gateway.children() == [child]
    both: list[Payload] = [
        puppet.are_you_there(),
        Delete(Protocol.ESP, ((0xC0FFEE01).to_bytes(4, "big"),) * 2),
    ]
    assert len(stage.say(puppet.informational(*both))) == 1
    assert stage.gateway.children() == []
    other = Delete(Protocol.IKE, (bytes(16),))
    stage.say(puppet.informational(other))
    assert len(stage.gateway.ike_sas()) == 1
    stage.say(puppet.informational(puppet.delete_ike(), puppet.delete_ike()))
    assert stage.gateway.ike_sas() == ()
    assert len(stage.gateway.of(IkeDown)) == 1
    assert not stage.endpoint.snapshot().esp_spis
    assert quick


def test_keys_of_the_children_are_those_of_the_rfc() -> None:
    stage = Stage()
    puppet = stage.puppet()
    quick = stage.with_child(puppet)
    (child,) = stage.gateway.children()
    theirs = puppet.keymat((0xC0FFEE01).to_bytes(4, "big"), quick, 48)
    ours = puppet.keymat(child.spi_in.to_bytes(4, "big"), quick, 48)
    assert child.keys_out.encryption.reveal() + child.keys_out.integrity.reveal() == theirs
    assert child.keys_in.encryption.reveal() + child.keys_in.integrity.reveal() == ours


# ------------------------------------------------------------------------------------- diagnoses


def diagnoses_of(mode: NegotiationMode, a: dict[str, object], b: dict[str, object]) -> tuple[Failed, Failed]:
    """What each side says of an attempt between two that differ: initiator, responder."""
    pair = pair_of(mode, changes_a=a, changes_b=b)
    pair.a.initiate()
    pair.world.run_for(60)
    assert not pair.a.of(Established) or mode is AGGRESSIVE
    (ours,) = pair.a.of(Failed)
    return ours, pair.b.of(Failed)[0]


@pytest.mark.parametrize("mode", MODES)
def test_another_key_is_found_by_both_sides(mode: NegotiationMode) -> None:
    ours, theirs = diagnoses_of(mode, {"psk": Secret(b"one")}, {"psk": Secret(b"two")})
    assert ours.diagnosis.code is theirs.diagnosis.code is Code.PSK
    assert ours.diagnosis.fact("ours") == Secret(b"one").fingerprint()
    assert theirs.diagnosis.fact("ours") == Secret(b"two").fingerprint()


def test_another_identity_is_found_by_both_sides_in_main_mode() -> None:
    ours, theirs = diagnoses_of(MAIN, {"local_id": Identity.of("branch.example")}, {})
    assert ours.diagnosis.code is theirs.diagnosis.code is Code.IDENTITY
    assert theirs.diagnosis.fact("theirs") == "branch.example (FQDN)"
    assert theirs.diagnosis.fact("ours") == "192.0.2.1 (IPV4_ADDR)"
    assert ours.diagnosis.fact("ours") == "branch.example (FQDN)"


def test_another_identity_of_the_responder_is_found_by_the_initiator() -> None:
    for mode in MODES:
        pair = pair_of(mode, changes_a={"remote_id": Identity.of("hq.example")})
        pair.a.initiate()
        pair.world.run_for(40)
        failed = pair.a.of(Failed)[0]
        assert failed.diagnosis.code is Code.IDENTITY
        assert failed.diagnosis.fact("theirs") == "192.0.2.2 (IPV4_ADDR)"
        assert failed.diagnosis.fact("ours") == "hq.example (FQDN)"


def test_an_unknown_identity_in_aggressive_mode_gets_silence() -> None:
    """Each repeat is reported as a stranger's, for which the daemon logs one line a minute."""
    pair = pair_of(AGGRESSIVE, changes_a={"local_id": Identity.of("branch.example")})
    pair.a.initiate()
    pair.world.run_for(40)
    assert [d.sender for d in pair.world.sent if d.sender == "b"] == []
    failed, *repeated = pair.b.of(Failed)
    assert failed.unproven
    assert set(repeated) <= {failed}
    assert failed.diagnosis.code is Code.IDENTITY
    assert failed.diagnosis.fact("theirs") == "branch.example (FQDN)"


def test_the_other_mode_is_named() -> None:
    pair = pair_of(AGGRESSIVE, changes_b={"mode": MAIN})
    pair.a.initiate()
    pair.world.run_for(40)
    failed, *repeated = pair.b.of(Failed)
    assert failed.unproven
    assert set(repeated) <= {failed}
    assert failed.diagnosis.code is Code.MODE
    assert (failed.diagnosis.fact("theirs"), failed.diagnosis.fact("ours")) == ("aggressive", "main")


@pytest.mark.parametrize("mode", MODES)
def test_another_proposal_is_named_by_the_responder(mode: NegotiationMode) -> None:
    other = replace(TWO_MAPPINGS.ike_proposal(), encryption=("aes-256",))
    ours, theirs = diagnoses_of(mode, {}, {"proposals": (other,)})
    assert theirs.diagnosis.code is Code.P1_ENCRYPTION
    assert (theirs.diagnosis.fact("theirs"), theirs.diagnosis.fact("ours")) == ("aes-128", "aes-256")
    assert ours.diagnosis.code is Code.P1_PROPOSAL
    assert ours.diagnosis.fact("notify") == "NO_PROPOSAL_CHOSEN"


@pytest.mark.parametrize(("psk", "code"), [(b"a guess", Code.PSK), (None, Code.IDENTITY)])
def test_a_peer_that_does_not_believe_aggressive2_says_so(psk: bytes | None, code: Code) -> None:
    """strongSwan says it protected: under other keys it is the key, under the same it is our identity."""
    stage = Stage(AGGRESSIVE)
    puppet = stage.puppet(psk=psk)
    stage.answered_first(puppet)
    assert stage.say(puppet.informational(Notify(Notify1.AUTHENTICATION_FAILED))) == []
    assert not stage.gateway.of(Failed), "the real answer may still come"
    stage.world.run_for(3)
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is code
    stage.world.run_for(60)
    assert len(stage.gateway.of(Failed)) == 1


def test_a_peer_that_is_told_late_of_a_forged_error_still_comes_up() -> None:
    stage = Stage(AGGRESSIVE)
    puppet = stage.puppet()
    proof = stage.last_of_phase1(puppet)
    stage.say(puppet.clear(Exchange1.INFORMATIONAL, [Notify(Notify1.AUTHENTICATION_FAILED)], 5))
    stage.say(proof)
    stage.world.run_for(5)
    assert stage.gateway.of(Established)
    assert not stage.gateway.of(Failed)


def test_an_initiator_refused_before_its_proof_is_not_told_of_its_key() -> None:
    stage = Stage(AGGRESSIVE)
    puppet = stage.puppet(initiator=False)
    stage.begin(puppet)
    stage.insist(puppet.clear(Exchange1.INFORMATIONAL, [Notify(Notify1.AUTHENTICATION_FAILED)], 5))
    stage.world.run_for(3)
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.IDENTITY
    assert failed.diagnosis.fact("ours") == "192.0.2.2 (IPV4_ADDR)"


def child_changes(index: int, **values: object) -> dict[str, object]:
    """b's policy with some fields of its only mapping replaced."""
    (child,) = Recipe().pair()[index].children
    return {"children": (replace(child, **values),)}  # type: ignore[arg-type]  # fields by their names


def test_phase_2_mismatches_are_named_by_both_sides() -> None:

    (proposal,) = TWO_MAPPINGS.pair()[1].children[0].proposals
    for changes, codes, facts in (
        (
            child_changes(1, proposals=(replace(proposal, integrity=("sha1",)),)),
            (Code.P2_PROPOSAL, Code.P2_INTEGRITY),
            ("sha256", "sha1"),
        ),
        (
            child_changes(1, proposals=(replace(proposal, dh=(19,)),), pfs=(19,)),
            (Code.P2_PROPOSAL, Code.PFS),
            ("off", "19"),
        ),
        (
            child_changes(1, remote=ip_network("10.9.0.0/24")),
            (Code.TRAFFIC_SELECTORS, Code.TRAFFIC_SELECTORS),
            (None, None),
        ),
    ):
        pair = pair_of(changes_b=changes)
        pair.a.initiate()
        pair.world.run_for(5)
        (ours,) = pair.a.of(ChildFailed)
        # What is refused without a key exchange is asked for once with one.
        theirs = pair.b.of(Failed)[0]
        assert (ours.diagnosis.code, theirs.diagnosis.code) == codes
        if facts[0] is not None:
            assert (theirs.diagnosis.fact("theirs"), theirs.diagnosis.fact("ours")) == facts
        assert len(pair.a.ike_sas()) == 1, "the ISAKMP SA lives"
        assert not pair.endpoint_a.snapshot().esp_spis
        assert not pair.endpoint_b.snapshot().esp_spis


def test_a_second_pfs_group_is_tried() -> None:
    (proposal,) = TWO_MAPPINGS.pair()[0].children[0].proposals
    both = {"proposals": (replace(proposal, dh=(19, 31)),), "pfs": (19, 31)}
    one = {"proposals": (replace(proposal, dh=(31,)),), "pfs": (31,)}
    pair = pair_of(changes_a=child_changes(0, **both), changes_b=child_changes(1, **one))
    pair.a.initiate()
    pair.world.settle()
    pair.assert_one_tunnel()
    assert pair.a.children()[0].suite.dh == 31


# ------------------------------------------------------------------------------------- keys on offer


@pytest.mark.parametrize("data", [b"", bytes(32), b"\1" + bytes(31), bytes(31), bytes(33), b"\xff" * 200])
@pytest.mark.parametrize("mode", MODES)
def test_bad_public_values_give_no_keys(mode: NegotiationMode, data: bytes) -> None:
    """V4: zero, small order, short, long."""
    stage = Stage(mode)
    puppet = stage.puppet()
    ke: list[Payload] = [KeyExchange(data), Nonce(puppet.nonce)]
    if puppet.aggressive:
        payloads = [*puppet.proposal()[:1], *ke, puppet.identity]
    else:
        stage.answered_first(puppet)
        payloads = ke
    before = len(stage.heard)
    stage.say(puppet.clear(puppet.exchange, payloads))
    for answer in stage.heard[before:]:
        assert all(isinstance(p, Notify) for p in puppet.open(answer).payloads)
    assert not stage.gateway.of(Established)


# ---------------------------------------------------------------------------------- what costs us something


def test_refusals_are_kept_for_a_few_quick_modes() -> None:
    """A peer that begins thousands that are refused is made no memory for: older ones are not known again."""
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    asked = []
    for _ in range(500):
        quick = puppet.begin_quick()
        payloads = [*puppet.quick1_payloads(quick, mapping=9), Unknown(200, bytes(1000))]
        asked.append(puppet.seal_quick(quick, payloads))
        assert len(stage.say(asked[-1])) == 1
    answered = [data for data in asked if stage.say(data)]
    assert answered == asked[-REFUSALS_KEPT:]


def deletes(puppet: Puppet, heard: list[bytes]) -> list[int]:
    """The SPIs of the IPsec SAs that the endpoint has told the puppet to delete."""
    infos = [one for one in heard if Header.decode(one).exchange == Exchange1.INFORMATIONAL]
    payloads = [p for one in infos for p in puppet.open_informational(one).payloads]
    return [int.from_bytes(spi, "big") for p in payloads if isinstance(p, Delete) for spi in p.spis]


def quick_modes(stage: Stage, puppet: Puppet, spis: range, every: float) -> None:
    """The puppet makes one pair for mapping 0 after another; each is sent on at once."""
    for spi in spis:
        quick = puppet.begin_quick()
        answer, *_ = stage.say(puppet.seal_quick(quick, puppet.quick1_payloads(quick, spi)))
        puppet.take_quick(quick, answer)
        stage.say(puppet.quick3(quick))
        assert stage.gateway.child().spi_out == spi
        stage.world.run_for(every)


@pytest.mark.parametrize("every", [0.0, 1.0])
def test_pairs_of_one_mapping_do_not_add_up(every: float) -> None:
    """An authenticated peer makes pair after pair: the oldest go, it is told which, the newest is sent on."""
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    quick_modes(stage, puppet, range(0x1001, 0x1001 + PAIRS_AT_MOST), every)
    made = list(stage.gateway.installed)
    assert len(made) == PAIRS_AT_MOST
    assert not deletes(puppet, stage.heard[3:])
    before = len(stage.heard)
    quick_modes(stage, puppet, range(0x2001, 0x2001 + 10), every)
    assert deletes(puppet, stage.heard[before:]) == made[:10]
    assert list(stage.gateway.installed)[: PAIRS_AT_MOST - 10] == made[10:]
    assert len(stage.endpoint.snapshot().esp_spis) == len(stage.gateway.installed) == PAIRS_AT_MOST


def test_the_pair_that_is_sent_on_is_none_of_too_many() -> None:
    """The oldest go, also one that the peer acknowledges last."""
    stage = Stage()
    puppet = stage.puppet()
    stage.with_child(puppet)
    late = stage.answered_quick(puppet, 0xC0FFEE02)
    quick_modes(stage, puppet, range(0x1001, 0x1001 + PAIRS_AT_MOST - 2), 0.0)
    newest = stage.gateway.child().spi_in
    stage.say(puppet.quick3(late))
    first, second, *_ = stage.gateway.installed
    assert stage.gateway.child().spi_in == newest
    before = len(stage.heard)
    for spi in (0x2001, 0x2002):
        quick = puppet.begin_quick()
        assert len(stage.say(puppet.seal_quick(quick, puppet.quick1_payloads(quick, spi)))) == 2
    assert deletes(puppet, stage.heard[before:]) == [first, second]
    assert stage.gateway.child().spi_in == newest
    assert len(stage.gateway.installed) == PAIRS_AT_MOST


def test_a_pair_of_ours_is_not_sent_on_sooner_because_an_old_one_goes() -> None:
    """The peer installs it once it has our third message."""
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    quick_modes(stage, puppet, range(0x1001, 0x1001 + PAIRS_AT_MOST), 0.0)
    first, *_, last = stage.gateway.installed
    stage.gateway.do("rekey_child", stage.gateway.tunnel, last)
    quick = puppet.answer_quick(stage.heard[-1])
    heard = stage.say(puppet.quick2(quick, 0x2001))
    assert deletes(puppet, heard) == [first]
    assert stage.gateway.child().spi_in == last
    stage.world.run_for(SETTLING_BESIDE)
    assert stage.gateway.child().spi_out == 0x2001


def test_a_bad_public_value_costs_no_key_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Main3 proves nothing: a holder of a cookie could make us compute a key pair with each."""
    counted = counting(monkeypatch.setattr)
    stage = Stage()
    puppet = stage.puppet()
    stage.answered_first(puppet)
    for number in range(50):
        nonce = Nonce(bytes([number]) * 16)
        assert stage.say(puppet.clear(puppet.exchange, [KeyExchange(bytes(32)), nonce])) == []
    assert counted.number == 0
    assert len(stage.say(puppet.clear(puppet.exchange, puppet.key_payloads()))) == 1


def test_without_a_nat_no_message_moves_the_peer() -> None:
    """Its address is not covered by what proves it: who sees a message could send it on from elsewhere."""
    stage = Stage()
    puppet = stage.puppet()
    stage.with_child(puppet)
    (answer,) = stage.say(puppet.informational(puppet.are_you_there()), STRANGER, 4501)
    assert answer
    assert not stage.gateway.of(PathMoved)
    assert stage.world.sent[-1].destination == ADDRESS_A
