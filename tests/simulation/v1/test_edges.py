"""The rare branches of IKEv1: what only a damaged, odd or very talkative peer reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.simulation.bounds import LINGER
from tests.simulation.policies import ADDRESS_A, ADDRESS_B
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, pair_of, policy_of
from tests.simulation.v1.puppet import ISAKMP_SA, PHASE_2, esp_sa, sa_of, subnet
from tests.simulation.v1.stage import RECIPE, Stage, stage_in
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import ChildFailed, Established, Failed, LadderLine
from vpnd.ike.v1 import keys
from vpnd.ike.v1.faults import WeakKey
from vpnd.ike.v1.proposals import limited, offered_group
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code
from vpnd.model.policy import Lifetimes
from vpnd.wire.attributes import Attribute, encode_attributes
from vpnd.wire.iana import Exchange1, LifeType, Notify1, Phase2Attribute, Protocol
from vpnd.wire.ikev1 import Fragment, Hash, Nonce, Notify, Payload, Sa, VendorId

PATH = Path(ADDRESS_B, 500, ADDRESS_A, 500)


def waits(stage: Stage) -> Mapping[str, float]:
    """What the only session waits for, and until when."""
    (sa,) = stage.endpoint.snapshot().sas
    return sa.deadlines


def details(stage: Stage) -> str:
    """The last line of the ladder with everything in it."""
    lines = [event for event in stage.gateway.events if isinstance(event, LadderLine)]
    return "\n".join(map(str, lines[-1].detail))


# ------------------------------------------------------------------------------------- phase 1


def test_a_damaged_initial_contact_is_no_proof() -> None:
    """Only its cookies tell: no hash covers it, and the IV chain would go on from the damaged block."""
    stage = Stage()
    puppet = stage.puppet()
    stage.answered_key(puppet)
    iv = puppet.iv
    contact = Notify(Notify1.INITIAL_CONTACT, spi=bytes(16))
    assert stage.say(puppet.seal_phase1([*puppet.proof_payloads(), contact])) == []
    assert stage.endpoint.counters["damaged notify"] == 1
    assert not stage.gateway.of(Established)
    puppet.iv = iv
    assert len(stage.say(puppet.seal_phase1(puppet.proof_payloads()))) == 1


def test_a_second_first_message_with_the_same_cookie_is_dropped() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.say(puppet.first_message())
    other = puppet.clear(puppet.exchange, [*puppet.proposal(), VendorId(b"another")])
    assert stage.say(other) == []
    assert stage.endpoint.counters["cookies"] == 1


def test_an_answer_with_two_transforms_chooses_none() -> None:
    """RFC 2409 section 5: the responder answers with one of those that were offered."""
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    stage.begin(puppet)
    (part,) = ISAKMP_SA.proposals
    two = (*part.transforms, replace(part.transforms[0], number=2))
    answer = replace(ISAKMP_SA, proposals=(replace(part, transforms=two),))
    assert stage.say(puppet.clear(puppet.exchange, [answer])) == []
    stage.world.run_for(40)
    assert not stage.gateway.ike_sas()
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.P1_PROPOSAL
    assert failed.diagnosis.fact("ours") == "one transform of one proposal"


def test_what_was_told_once_is_not_told_again() -> None:
    stage = Stage(AGGRESSIVE)
    puppet = stage.puppet()
    stage.answered_first(puppet)
    wrong = puppet.seal_phase1([Hash(bytes(32))])
    for _ in range(2):
        stage.say(wrong)
    assert len(stage.gateway.of(Failed)) == 1
    stage.say(puppet.clear(Exchange1.INFORMATIONAL, [Notify(Notify1.AUTHENTICATION_FAILED)], 5))
    stage.world.run_for(3)
    assert len(stage.gateway.of(Failed)) == 1


def test_half_open_attempts_of_all_addresses_are_bounded() -> None:
    stage = Stage(limits=Limits(half_open_in_all=2))
    for seed in range(4):
        stage.answered_first(stage.puppet(seed=seed))
    assert len(stage.endpoint.snapshot().half_open) == 2
    assert stage.endpoint.counters["half-open: the oldest made room"] == 2


# ------------------------------------------------------------------------------------- quick mode


def test_a_weak_key_of_a_child_is_refused_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = pair_of()
    pair.establish()

    def refuse(word: str, key: bytes) -> None:
        raise WeakKey(detail="weak DES key")

    monkeypatch.setattr(keys, "refuse_weak_key", refuse)
    held = len(pair.endpoint_b.snapshot().esp_spis)
    (child,) = pair.a.children()
    pair.a.do("rekey_child", "to-b", child.spi_in)
    pair.world.run_for(3)
    assert pair.a.of(ChildFailed)
    assert len(pair.endpoint_b.snapshot().esp_spis) == held
    pair.assert_one_tunnel()


def test_a_refusal_is_kept_for_repeats_and_then_forgotten() -> None:
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    quick = puppet.begin_quick()
    stage.say(puppet.seal_quick(quick, puppet.quick1_payloads(quick, mapping=9)))
    assert "quick modes" in waits(stage)
    for _ in range(4):
        stage.world.run_for((LINGER + 2) / 4)
        stage.say(puppet.informational(puppet.are_you_there()))
    assert "quick modes" not in waits(stage)


def lifetime(*attributes: tuple[int, int]) -> Notify:
    """RESPONDER-LIFETIME with these attributes."""
    data = encode_attributes(tuple(Attribute(kind, value) for kind, value in attributes))
    return Notify(Notify1.RESPONDER_LIFETIME, data)


def test_a_responder_may_shorten_the_lifetimes() -> None:
    kind, duration = Phase2Attribute.LIFE_TYPE, Phase2Attribute.LIFE_TYPE + 1
    ours = Lifetimes(3600, None)
    both = lifetime((kind, LifeType.SECONDS), (duration, 600), (kind, LifeType.KILOBYTES), (duration, 2000))
    assert limited(ours, [both]) == Lifetimes(600, 2000)
    assert limited(ours, [Notify(Notify1.R_U_THERE), Notify(Notify1.RESPONDER_LIFETIME, b"\0")]) == ours
    longer = lifetime((kind, LifeType.SECONDS), (duration, 7200))
    assert limited(Lifetimes(3600, 5000), [longer]) == Lifetimes(3600, 5000)


def test_the_lifetimes_of_a_responder_hold_for_the_sa_that_quick_mode_makes() -> None:
    kind, duration = Phase2Attribute.LIFE_TYPE, Phase2Attribute.LIFE_TYPE + 1
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    quick = stage.established_from_here(puppet)
    quick.nonce_r = bytes(32)
    shorter = lifetime(
        (kind, LifeType.SECONDS), (duration, 600), (kind, LifeType.KILOBYTES), (duration, 2000)
    )
    payloads: list[Payload] = [
        esp_sa(0xC0FFEE01),
        Nonce(quick.nonce_r),
        subnet(2),
        subnet(1),
        shorter,
    ]
    stage.say(puppet.seal_quick(quick, payloads, quick.nonce_i))
    (installed,) = stage.gateway.installed.values()
    assert installed.child.lifetimes == Lifetimes(600, 2000)


def test_the_group_of_an_offer_is_the_first_that_it_names() -> None:
    plain = sa_of(Protocol.ESP, bytes(4), 12, ((4, 1), (5, 5)))
    assert offered_group(plain) == 0
    assert offered_group(sa_of(Protocol.ESP, bytes(4), 12, ((4, 1), (Phase2Attribute.GROUP, 14)))) == 14


# ------------------------------------------------------------------------------------- what is drawn


def test_the_ladder_says_what_a_notify_is_about() -> None:
    stage, puppet = stage_in("with a child")
    spi = bytes.fromhex("c0ffee01")
    stage.say(puppet.informational(Notify(Notify1.NO_PROPOSAL_CHOSEN, b"\1\2", Protocol.ESP, spi)))
    assert "N(NO_PROPOSAL_CHOSEN): ESP c0ffee01 0102" in details(stage)


def test_the_ladder_shows_offers_of_protocols_that_are_not_spoken() -> None:
    stage, puppet = stage_in("established, main")
    quick = puppet.begin_quick()
    payloads: list[Payload] = puppet.quick1_payloads(quick)
    payloads[0] = sa_of(2, bytes.fromhex("c0ffee01"), 3, ((4, 1),))
    stage.say(puppet.seal_quick(quick, payloads))
    lines = [event for event in stage.gateway.events if isinstance(event, LadderLine)]
    assert any("AH transform 3, spi c0ffee01" in str(line.detail) for line in lines)


# ------------------------------------------------------------------------------------- what cannot be read


def test_one_wrong_proof_is_told_when_the_attempt_is_over() -> None:
    stage = Stage()
    puppet = stage.puppet(psk=b"a guess")
    stage.say(stage.last_of_phase1(puppet))
    assert not stage.gateway.of(Failed)
    stage.world.run_for(40)
    (failed,) = stage.gateway.of(Failed)
    assert failed.diagnosis.code is Code.PSK


def test_noise_and_odd_messages_are_dropped_by_name() -> None:
    """Under an ISAKMP SA that is established: counted, answered by nothing, without effect."""
    stage, puppet = stage_in("with a child")
    number, wrong_iv = 0x99, bytes(16)
    delete: list[Payload] = [Hash(bytes(32)), puppet.delete_ike()]
    part = Fragment(1, 1, True, b"x")
    sealed = bytearray(puppet.informational(puppet.delete_ike()))
    cut = bytes(sealed[:24]) + (len(sealed) - 3).to_bytes(4, "big") + bytes(sealed[28:-3])
    stranger = puppet.informational(puppet.delete_ike())
    said = {
        "undecryptable": puppet.seal(Exchange1.INFORMATIONAL, number, delete, wrong_iv),
        "malformed: payloads": puppet.seal_quick(puppet.begin_quick(), [Nonce(bytes(16))]),
        "exchange not spoken": puppet.clear(3, [Nonce(bytes(16))]),
        "fragment with other payloads": puppet.clear(puppet.exchange, [part, Nonce(bytes(16))]),
        "malformed: encrypted payloads": cut,
        "cookies": bytes(8) + stranger[8:],
    }
    installed = sorted(stage.gateway.installed)
    for reason, data in said.items():
        before = sum(stage.endpoint.counters.values())
        assert stage.say(data) == [], reason
        assert sum(stage.endpoint.counters.values()) == before + 1, reason
        assert reason.startswith("malformed") or stage.endpoint.counters[reason], stage.endpoint.counters
    assert sorted(stage.gateway.installed) == installed
    assert len(stage.gateway.ike_sas()) == 1


def test_an_answer_to_our_proof_that_cannot_be_opened_is_not_the_end() -> None:
    stage, puppet = stage_in("sent Main5")
    iv = puppet.iv
    assert stage.say(puppet.seal(puppet.exchange, 0, puppet.proof_payloads(), bytes(16))) == []
    assert stage.endpoint.counters["undecryptable"] == 1
    puppet.iv = iv
    assert stage.say(puppet.seal_phase1(puppet.proof_payloads()))
    assert stage.gateway.of(Established)


def test_a_refused_peer_may_think_again() -> None:
    """Another first message with the same cookie is a new attempt."""
    stage = Stage()
    puppet = stage.puppet()
    other = sa_of(1, b"", 1, ((1, 5), (2, 1), (3, 1), (4, 2)))
    (refusal,) = stage.say(puppet.clear(puppet.exchange, [other]))
    assert isinstance(puppet.open(refusal).payloads[0], Notify)
    (answer,) = stage.say(puppet.first_message())
    assert any(isinstance(payload, Sa) for payload in puppet.take(answer).payloads)


# ------------------------------------------------------------------------------------- commands


def test_a_renewal_is_not_begun_twice() -> None:
    pair = pair_of()
    pair.establish()
    pair.world.silence("b")
    for _ in range(2):
        pair.a.rekey_ike()
    assert len(pair.endpoint_a.snapshot().sas) == 2


def test_commands_for_what_is_not_there_do_nothing() -> None:
    endpoint = Endpoint(SeededEntropy(1))
    endpoint.set_peer(0.0, policy_of(RECIPE, MAIN))
    endpoint.reinitiate(0.0, "to-a")
    endpoint.reinitiate(0.0, "to-b")
    assert not endpoint.outputs


@pytest.mark.parametrize("notify", [Notify(Notify1.INITIAL_CONTACT), Notify(40000)])
def test_a_status_that_has_no_meaning_any_more_changes_nothing(notify: Notify) -> None:
    stage, puppet = stage_in("replaced")
    installed, sas = sorted(stage.gateway.installed), stage.gateway.ike_sas()
    assert stage.say(puppet.informational(notify)) == []
    assert (sorted(stage.gateway.installed), stage.gateway.ike_sas()) == (installed, sas)


@pytest.mark.parametrize("first", ["it begins", "we begin"])
def test_extended_sequence_numbers_are_refused_and_named(first: str) -> None:
    """Attribute 11, which we do not offer: with an answer that repeats it, no packet would verify."""
    attributes = (*PHASE_2, (Phase2Attribute.ESN, 1))
    odd = sa_of(Protocol.ESP, bytes.fromhex("c0ffee01"), 12, attributes)
    if first == "it begins":
        stage, puppet = stage_in("established, main")
        quick = puppet.begin_quick()
        payloads: list[Payload] = puppet.quick1_payloads(quick)
        payloads[0] = odd
        (refusal,) = stage.say(puppet.seal_quick(quick, payloads))
        (notify,) = puppet.open_informational(refusal).payloads[1:]
        assert isinstance(notify, Notify)
        assert notify.type == Notify1.NO_PROPOSAL_CHOSEN
        (refused,) = stage.gateway.of(Failed)
        diagnosis = refused.diagnosis
    else:
        stage = Stage()
        puppet = stage.puppet(initiator=False)
        quick = stage.established_from_here(puppet)
        quick.nonce_r = bytes(32)
        payloads = [odd, Nonce(quick.nonce_r), subnet(2), subnet(1)]
        stage.say(puppet.seal_quick(quick, payloads, quick.nonce_i))
        (failed,) = stage.gateway.of(ChildFailed)
        diagnosis = failed.diagnosis
    assert diagnosis.code is Code.P2_ESN
    assert not stage.gateway.installed
