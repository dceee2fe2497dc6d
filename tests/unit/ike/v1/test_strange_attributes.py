"""Attributes of an offer that we do not have: an answer repeats the transform, and so would agree to them.

RFC 2407 sections 4.5.3 and 4.5.4, RFC 2409 appendix A.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.ike.v1.test_proposals import SPI, TUNNEL, child, ike, offered
from vpnd.control.diagnoses import message
from vpnd.ike.v1.faults import NoProposalChosen
from vpnd.ike.v1.proposals import choose_phase1, choose_phase2, offer_phase1
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.wire.attributes import Attribute
from vpnd.wire.iana import EncapsulationMode, Notify1
from vpnd.wire.ikev1 import Sa, TransformPart


def transform_of(offer: Sa) -> TransformPart:
    """Its first."""
    return offer.proposals[0].transforms[0]


def with_more(offer: Sa, *more: tuple[int, int], beside: bool = False) -> Sa:
    """The offer with more attributes in its transform; with `beside`, the plain one stands behind it."""
    (part,) = offer.proposals
    plain = part.transforms[0]
    odd = replace(plain, attributes=(*plain.attributes, *(Attribute(*one) for one in more)))
    transforms = (odd, replace(plain, number=2)) if beside else (odd,)
    return replace(offer, proposals=(replace(part, transforms=transforms),))


PHASE_1 = {
    "group type": ((5, 1),),
    "group prime": ((6, 23),),
    "group curve a": ((9, 1),),
    "prf": ((13, 1),),
    "field size": ((15, 233),),
    "unknown": ((20, 2),),
    "private": ((16384, 1),),
    "another cipher": ((1, 5),),
    "another hash": ((2, 1),),
    "another method": ((3, 65001),),
    "another group": ((4, 2),),
    "another key length": ((14, 256),),
    "a life type of another kind": ((11, 3), (12, 9)),
    "two lifetimes": ((11, 1), (12, 99)),
}
PHASE_2 = {
    "ESN": ((11, 1),),
    "ESN of an unknown kind": ((11, 0),),
    "ECN tunnel": ((10, 1),),
    "compression": ((8, 9),),
    "key rounds": ((7, 16),),
    "authentication key length": ((12, 128),),
    "unknown": ((15, 1),),
    "private": ((32001, 1),),
    "another mode": ((4, 2),),
    "another authentication": ((5, 1),),
    "another key length": ((6, 256),),
    "another group": ((3, 14), (3, 2)),
    "a life type of another kind": ((1, 3), (2, 9)),
    "two lifetimes": ((1, 1), (2, 99)),
}


def refusal_of_phase1(offer: Sa, answer: bool = False) -> Diagnosis:
    """Why it is not taken."""
    with pytest.raises(NoProposalChosen) as caught:
        choose_phase1(offer, [ike()], 3600, answer=answer)
    assert caught.value.notify == Notify1.NO_PROPOSAL_CHOSEN
    return caught.value.diagnosis


def refusal_of_phase2(offer: Sa, answer: bool = False, in_udp: bool | None = None) -> Diagnosis:
    """Why it is not taken."""
    with pytest.raises(NoProposalChosen) as caught:
        choose_phase2(offer, child(), 0, answer=answer, in_udp=in_udp)
    assert caught.value.notify == Notify1.NO_PROPOSAL_CHOSEN
    return caught.value.diagnosis


@pytest.mark.parametrize("answer", [False, True], ids=["offered", "answered"])
@pytest.mark.parametrize("more", PHASE_1.values(), ids=PHASE_1.keys())
def test_phase_1_agrees_to_nothing_that_it_does_not_have(
    more: tuple[tuple[int, int], ...], answer: bool
) -> None:
    odd = with_more(offer_phase1([ike()], 3600), *more)
    assert message(refusal_of_phase1(odd, answer))


@pytest.mark.parametrize("more", PHASE_1.values(), ids=PHASE_1.keys())
def test_phase_1_takes_the_transform_without_it(more: tuple[tuple[int, int], ...]) -> None:
    odd = with_more(offer_phase1([ike()], 3600), *more, beside=True)
    assert transform_of(choose_phase1(odd, [ike()], 3600).answer).number == 2


@pytest.mark.parametrize("answer", [False, True], ids=["offered", "answered"])
@pytest.mark.parametrize("more", PHASE_2.values(), ids=PHASE_2.keys())
def test_quick_mode_agrees_to_nothing_that_it_does_not_have(
    more: tuple[tuple[int, int], ...], answer: bool
) -> None:
    diagnosis = refusal_of_phase2(with_more(offered(child()), *more), answer)
    assert diagnosis.fact("mapping") == "10.1.0.0/24 - 10.2.0.0/24"


@pytest.mark.parametrize("more", PHASE_2.values(), ids=PHASE_2.keys())
def test_quick_mode_takes_the_transform_without_it(more: tuple[tuple[int, int], ...]) -> None:
    choice = choose_phase2(with_more(offered(child()), *more, beside=True), child(), 0)
    assert transform_of(choice.answer(SPI)).number == 2


def test_what_keeps_an_offer_from_being_taken_is_named() -> None:
    assert refusal_of_phase2(with_more(offered(child()), (11, 1))).code is Code.P2_ESN
    ecn = refusal_of_phase2(with_more(offered(child()), (10, 1)))
    assert (ecn.code, ecn.fact("theirs")) == (Code.P2_PROPOSAL, "ecn tunnel 1")
    twice = refusal_of_phase1(with_more(offer_phase1([ike()], 3600), (14, 256)))
    assert (twice.code, twice.fact("theirs")) == (Code.P1_PROPOSAL, "key length 128 and 256")


def test_what_is_said_twice_alike_is_said_once() -> None:
    assert choose_phase1(with_more(offer_phase1([ike()], 3600), (14, 128), (4, 14)), [ike()], 3600)
    assert choose_phase2(with_more(offered(child()), (6, 128), (4, 1)), child(), 0)


def test_a_lifetime_of_each_unit_is_no_contradiction() -> None:
    choice = choose_phase2(with_more(offered(child()), (1, 2), (2, 9000)), child(), 0)
    assert choice.lifetimes.kilobytes == 9000


@pytest.mark.parametrize(
    ("mode", "in_udp"),
    [(EncapsulationMode.UDP_TUNNEL, False), (TUNNEL, True), (EncapsulationMode.UDP_TUNNEL_DRAFT, False)],
)
def test_an_answer_in_the_other_encapsulation_is_refused(mode: EncapsulationMode, in_udp: bool) -> None:
    diagnosis = refusal_of_phase2(offered(child(), mode), answer=True, in_udp=in_udp)
    assert diagnosis.fact("attribute") == "encapsulation mode"
    assert choose_phase2(offered(child(), mode), child(), 0, in_udp=in_udp), "an offer may be of one kind"
