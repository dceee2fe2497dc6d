"""SA payloads of both phases: what is offered, what is chosen, and how two sides can differ."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from vpnd.ike.v1.faults import NoProposalChosen
from vpnd.ike.v1.proposals import (
    MAX_TRANSFORMS,
    choose_phase1,
    choose_phase2,
    describe_sa,
    first_group,
    limited,
    offer_phase1,
    offer_phase2,
    offered_group,
)
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.numbers import DEFAULT_NUMBERS, Numbers
from vpnd.model.policy import ChildPolicy, Lifetimes
from vpnd.model.proposals import Proposal
from vpnd.wire.attributes import Attribute, encode_attributes
from vpnd.wire.iana import EncapsulationMode, Notify1, Phase2Attribute, Protocol
from vpnd.wire.ikev1 import Notify, Sa

SPI = b"\x0c\x0f\xfe\xe1"
TUNNEL = EncapsulationMode.TUNNEL


def ike(encryption: str = "aes-128", integrity: str = "sha256", *groups: int) -> Proposal:
    """An ISAKMP proposal."""
    return Proposal(Protocol.IKE, (encryption,), (integrity,), (integrity,), groups or (14,))


def child(
    encryption: str = "aes-128",
    integrity: str = "sha256",
    *groups: int,
    seconds: int = 3600,
    kilobytes: int | None = None,
) -> ChildPolicy:
    """A mapping with one ESP proposal."""
    integrities = (integrity,) if integrity else ()
    proposal = Proposal(Protocol.ESP, (encryption,), (), integrities, groups)
    networks = ip_network("10.1.0.0/24"), ip_network("10.2.0.0/24")
    return ChildPolicy(0, *networks, (proposal,), groups, Lifetimes(seconds, kilobytes))


def offered(policy: ChildPolicy, mode: EncapsulationMode = TUNNEL) -> Sa:
    """Its Quick1 offer."""
    return offer_phase2(policy, SPI, policy.pfs[0] if policy.pfs else 0, mode)


def refusal_of_phase1(theirs: Proposal, ours: Proposal) -> Diagnosis:
    """Why ours does not accept theirs."""
    with pytest.raises(NoProposalChosen) as caught:
        choose_phase1(offer_phase1([theirs], 3600), [ours], 3600)
    return caught.value.diagnosis


def refusal_of_phase2(theirs: Sa, ours: ChildPolicy, group: int = 0) -> Diagnosis:
    """Why ours does not accept theirs."""
    with pytest.raises(NoProposalChosen) as caught:
        choose_phase2(theirs, ours, group)
    return caught.value.diagnosis


@pytest.mark.parametrize("integrity", ["md5", "sha1", "sha256", "sha384", "sha512", "sm3"])
@pytest.mark.parametrize("encryption", ["aes-128", "aes-192", "aes-256", "3des", "des", "sm4"])
def test_every_algorithm_of_phase_1_is_offered_and_chosen(encryption: str, integrity: str) -> None:
    proposal = ike(encryption, integrity, 1, 2, 5, 14, 24)
    choice = choose_phase1(Sa.decode(offer_phase1([proposal], 3600).encode()), [proposal], 3600)
    assert (choice.suite.encryption, choice.suite.integrity, choice.suite.dh) == (encryption, integrity, 1)


@pytest.mark.parametrize("integrity", ["md5", "sha1", "sha256", "sha384", "sha512", "sm3"])
@pytest.mark.parametrize("encryption", ["aes-128", "aes-192", "aes-256", "3des", "des", "sm4"])
def test_every_algorithm_of_phase_2_is_offered_and_chosen(encryption: str, integrity: str) -> None:
    policy = child(encryption, integrity, 2)
    choice = choose_phase2(Sa.decode(offered(policy).encode()), policy, 2)
    assert (choice.suite.encryption, choice.suite.integrity, choice.suite.dh) == (encryption, integrity, 2)
    assert choice.spi == SPI


def test_gcm_goes_without_an_authentication_attribute() -> None:
    policy = child("aes-256-gcm", "")
    (part,) = offered(policy).proposals
    assert 5 not in [attribute.type for attribute in part.transforms[0].attributes]
    assert choose_phase2(offered(policy), policy, 0).suite.integrity is None


def test_an_offer_is_the_product_of_the_alternatives_and_bounded() -> None:
    proposal = Proposal(Protocol.IKE, ("aes-256", "3des"), ("sha1", "md5"), ("sha1", "md5"), (14, 2))
    (part,) = offer_phase1([proposal], 3600).proposals
    assert len(part.transforms) == 8
    assert [transform.number for transform in part.transforms] == list(range(1, 9))
    (part,) = offer_phase1([proposal] * 9, 3600).proposals
    assert len(part.transforms) == MAX_TRANSFORMS
    (part,) = offer_phase1([proposal], 3600, group=2).proposals
    assert len(part.transforms) == 4
    assert first_group([proposal]) == 14


@pytest.mark.parametrize(
    ("theirs", "ours", "code", "facts"),
    [
        (ike("3des"), ike("aes-128"), Code.P1_ENCRYPTION, ("3des", "aes-128")),
        (ike("aes-128", "md5"), ike("aes-128", "sha1"), Code.P1_INTEGRITY, ("md5", "sha1")),
        (ike("aes-128", "sha1", 2), ike("aes-128", "sha1", 14), Code.P1_DH, ("2", "14")),
    ],
)
def test_a_mismatch_of_phase_1_names_both_values(
    theirs: Proposal, ours: Proposal, code: Code, facts: tuple[str, str]
) -> None:
    diagnosis = refusal_of_phase1(theirs, ours)
    assert (diagnosis.code, diagnosis.fact("theirs"), diagnosis.fact("ours")) == (code, *facts)


def test_another_authentication_method_is_named() -> None:
    offer = offer_phase1([ike()], 3600)
    (part,) = offer.proposals
    transform = part.transforms[0]
    signature = tuple(replace(a, value=3) if a.type == 3 else a for a in transform.attributes)
    offer = replace(offer, proposals=(replace(part, transforms=(replace(transform, attributes=signature),)),))
    with pytest.raises(NoProposalChosen) as caught:
        choose_phase1(offer, [ike()], 3600)
    assert caught.value.diagnosis.code is Code.P1_AUTH_METHOD
    assert caught.value.diagnosis.fact("theirs") == "RSA_SIGNATURE"
    assert caught.value.diagnosis.fact("ours") == "PRE_SHARED_KEY"


@pytest.mark.parametrize(
    ("theirs", "ours", "code", "facts"),
    [
        (child("3des"), child("aes-256"), Code.P2_ENCRYPTION, ("3des", "aes-256")),
        (child("3des", "md5"), child("3des", "sha1"), Code.P2_INTEGRITY, ("md5", "sha1")),
        (child("3des", "md5", 2), child("3des", "md5", 5), Code.PFS, ("2", "5")),
        (child("3des", "md5", 2), child("3des", "md5"), Code.PFS, ("2", "off")),
        (child("3des", "md5"), child("3des", "md5", 2), Code.PFS, ("off", "2")),
    ],
)
def test_a_mismatch_of_phase_2_names_both_values(
    theirs: ChildPolicy, ours: ChildPolicy, code: Code, facts: tuple[str, str]
) -> None:
    diagnosis = refusal_of_phase2(offered(theirs), ours, theirs.pfs[0] if theirs.pfs else 0)
    assert (diagnosis.code, diagnosis.fact("theirs"), diagnosis.fact("ours")) == (code, *facts)
    assert diagnosis.fact("mapping") == "10.1.0.0/24 - 10.2.0.0/24"


def test_a_group_without_a_key_exchange_is_a_pfs_mismatch() -> None:
    policy = child("aes-128", "sha1", 2)
    diagnosis = refusal_of_phase2(offered(policy), policy, group=0)
    assert (diagnosis.code, diagnosis.fact("theirs"), diagnosis.fact("ours")) == (Code.PFS, "off", "2")


def test_transport_mode_and_ah_are_named() -> None:
    policy = child()
    transport = offered(policy, EncapsulationMode.TRANSPORT)
    assert refusal_of_phase2(transport, policy).fact("theirs") == "TRANSPORT"
    (part,) = offered(policy).proposals
    ah = Sa(1, 1, (replace(part, protocol=Protocol.AH),))
    assert refusal_of_phase2(ah, policy).fact("theirs") == "AH"


def test_esp_that_belongs_to_a_bundle_is_not_taken_alone() -> None:
    """RFC 2408 section 4.2: proposals with one number are one offer."""
    policy = child()
    (part,) = offered(policy).proposals
    bundle = Sa(1, 1, (part, replace(part, protocol=Protocol.AH)))
    assert refusal_of_phase2(bundle, policy).code is Code.P2_PROPOSAL


def test_of_both_encapsulations_the_fitting_one_is_taken() -> None:
    policy = child()
    (plain,), (udp,) = (offered(policy, mode).proposals for mode in (TUNNEL, EncapsulationMode.UDP_TUNNEL))
    both = Sa(1, 1, (plain, replace(udp, number=2)))
    for in_udp, number in ((False, 1), (True, 2)):
        assert choose_phase2(both, policy, 0, in_udp=in_udp).part.number == number


@pytest.mark.parametrize("spi", [b"", b"\0\0\0\1", b"\0\0\0\xff", bytes(8)])
def test_an_spi_that_no_sa_may_have_is_refused(spi: bytes) -> None:
    policy = child()
    (part,) = offered(policy).proposals
    assert refusal_of_phase2(Sa(1, 1, (replace(part, spi=spi),)), policy).fact("attribute") == "spi"


def test_an_answer_is_one_transform_of_one_proposal() -> None:
    proposal = Proposal(Protocol.IKE, ("aes-128", "3des"), ("sha1",), ("sha1",), (2,))
    with pytest.raises(NoProposalChosen):
        choose_phase1(offer_phase1([proposal], 60), [proposal], 60, answer=True)
    policy = child()
    part = offered(policy).proposals[0]
    with pytest.raises(NoProposalChosen):
        choose_phase2(Sa(1, 1, (part, part)), policy, 0, answer=True)
    with pytest.raises(NoProposalChosen):
        choose_phase2(Sa(1, 1, ()), policy, 0, answer=True)


def test_an_answer_repeats_the_transform_as_it_was_offered() -> None:
    policy = child(seconds=100_000)
    offer = offered(policy)
    answer = choose_phase2(offer, child(seconds=60), 0).answer(b"\1\2\3\4")
    assert answer.proposals[0].transforms == offer.proposals[0].transforms
    assert answer.proposals[0].spi == b"\1\2\3\4"


# ------------------------------------------------------------------------------------- lifetimes


@pytest.mark.parametrize(
    ("theirs", "ours", "agreed"), [(3600, 86400, 3600), (86400, 3600, 3600), (1, 3600, 60)]
)
def test_the_shorter_lifetime_counts_within_reason(theirs: int, ours: int, agreed: int) -> None:
    assert choose_phase1(offer_phase1([ike()], theirs), [ike()], ours).lifetime == agreed
    choice = choose_phase2(offered(child(seconds=theirs)), child(seconds=ours), 0)
    assert choice.lifetimes.seconds == agreed


def test_long_lifetimes_travel_as_tlv_and_both_forms_are_read() -> None:
    policy = child(seconds=14_400, kilobytes=4_096_000_000)
    (part,) = Sa.decode(offered(policy).encode()).proposals
    values = {attribute.type: attribute.value for attribute in part.transforms[0].attributes[:3]}
    assert values[2] == 14_400
    assert any(
        isinstance(a.value, bytes) and a.number == 4_096_000_000 for a in part.transforms[0].attributes
    )
    choice = choose_phase2(Sa(1, 1, (part,)), child(seconds=9999, kilobytes=5_000_000_000), 0)
    assert choice.lifetimes == Lifetimes(9999, 4_096_000_000)


def test_without_a_lifetime_it_is_eight_hours() -> None:
    """RFC 2407 section 4.5.4."""
    policy = child(seconds=100_000)
    (part,) = offered(policy).proposals
    bare = replace(
        part.transforms[0], attributes=tuple(a for a in part.transforms[0].attributes if a.type > 2)
    )
    offer = Sa(1, 1, (replace(part, transforms=(bare,)),))
    assert choose_phase2(offer, policy, 0).lifetimes.seconds == 28800


def test_responder_lifetime_shortens() -> None:
    data = encode_attributes([Attribute(1, 1), Attribute(2, 1800), Attribute(1, 2), Attribute(2, 70_000)])
    notify = Notify(Notify1.RESPONDER_LIFETIME, data, Protocol.ESP, SPI)
    assert limited(Lifetimes(3600, None), [notify]) == Lifetimes(1800, 70_000)
    assert limited(Lifetimes(600, 50_000), [notify]) == Lifetimes(600, 50_000)
    assert limited(Lifetimes(600), [replace(notify, data=b"\0")]) == Lifetimes(600)


# ------------------------------------------------------------------------------------- numbers


def test_numbers_of_sm4_and_sm3_are_the_peers() -> None:
    numbers = Numbers(sm4_ikev1_phase1=65001, sm4_ikev1_esp=249, sm3_ikev1_hash=65002, sm3_ikev1_esp=65003)
    phase1 = offer_phase1([ike("sm4", "sm3")], 3600, numbers)
    assert choose_phase1(phase1, [ike("sm4", "sm3")], 3600, numbers).suite.encryption == "sm4"
    with pytest.raises(NoProposalChosen) as caught:
        choose_phase1(phase1, [ike("sm4", "sm3")], 3600)
    assert caught.value.diagnosis.fact("theirs") == "encr-65001"
    policy = child("sm4", "sm3")
    phase2 = offer_phase2(policy, SPI, 0, TUNNEL, numbers)
    assert phase2.proposals[0].transforms[0].id == 249
    assert choose_phase2(phase2, policy, 0, numbers).suite.integrity == "sm3"
    assert refusal_of_phase2(phase2, policy).fact("theirs") == "esp-249"


def test_the_retired_number_of_sm4_is_accepted() -> None:
    retired = offer_phase1([ike("sm4", "sm3")], 3600, Numbers(sm4_ikev1_phase1=127))
    assert choose_phase1(retired, [ike("sm4", "sm3")], 3600).suite.encryption == "sm4"


def test_offers_in_words() -> None:
    assert list(describe_sa(offer_phase1([ike()], 3600), DEFAULT_NUMBERS)) == [
        "SA 1.1: IKE aes-128/sha256/dh14, PRE_SHARED_KEY, 3600 s"
    ]
    policy = child("3des", "md5", 2, kilobytes=2560)
    assert list(describe_sa(offered(policy), DEFAULT_NUMBERS)) == [
        "SA 1.1: ESP 3des/md5/dh2, TUNNEL, 3600 s, 2560 KB, spi 0c0ffee1"
    ]
    assert offered_group(offered(policy)) == 2


def test_an_offer_without_a_mode_says_0_in_its_place() -> None:
    (part,) = offered(child()).proposals
    (transform,) = part.transforms
    without = replace(transform, attributes=transform.attributes[1:])
    assert transform.attributes[0] == Attribute(Phase2Attribute.ENCAPSULATION_MODE, TUNNEL)
    offer = replace(offered(child()), proposals=(replace(part, transforms=(without,)),))
    assert list(describe_sa(offer, DEFAULT_NUMBERS)) == [
        "SA 1.1: ESP aes-128/sha256, 0, 3600 s, spi 0c0ffee1"
    ]
