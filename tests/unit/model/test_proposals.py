"""The choice among proposals, and what is said where there is none."""

from typing import TypedDict, Unpack

import pytest

from vpnd.model.proposals import Attribute, Chosen, Mismatch, Proposal, Suite, choose
from vpnd.wire.iana import Protocol

IKE, ESP, AH = Protocol.IKE, Protocol.ESP, Protocol.AH


class Rest(TypedDict, total=False):
    """What else a proposal may say."""

    number: int
    spi: bytes
    prf: tuple[str, ...]
    esn: tuple[bool, ...]


def ike(
    encryption: tuple[str, ...],
    integrity: tuple[str, ...] = ("sha256",),
    dh: tuple[int, ...] = (14,),
    **rest: Unpack[Rest],
) -> Proposal:
    said: Rest = {"prf": ("sha256",), **rest}
    return Proposal(IKE, encryption, integrity=integrity, dh=dh, **said)


def esp(
    encryption: tuple[str, ...],
    integrity: tuple[str, ...] = ("sha256",),
    dh: tuple[int, ...] = (),
    **rest: Unpack[Rest],
) -> Proposal:
    return Proposal(ESP, encryption, integrity=integrity, dh=dh, **rest)


# --------------------------------------------------------------------------------------- chosen


def test_the_responders_preference_decides_within_a_proposal() -> None:
    outcome = choose([ike(("aes-256", "aes-128"), dh=(14, 31))], [ike(("aes-128", "aes-256"), dh=(31, 14))])
    assert outcome == Chosen(1, b"", Suite("aes-128", "sha256", "sha256", 31))


def test_the_responders_preference_decides_among_proposals() -> None:
    offered = [
        ike(("aes-128",), number=1),
        ike(("aes-256-gcm",), integrity=(), number=2, spi=b"12345678"),
    ]
    acceptable = [ike(("aes-256-gcm",), integrity=()), ike(("aes-128",))]
    assert choose(offered, acceptable) == Chosen(2, b"12345678", Suite("aes-256-gcm", "sha256", None, 14))


def test_the_first_offer_that_satisfies_is_taken() -> None:
    offered = [esp(("aes-128",), number=3, spi=b"1111"), esp(("aes-128",), number=4, spi=b"2222")]
    assert choose(offered, [esp(("aes-128",))]) == Chosen(3, b"1111", Suite("aes-128", None, "sha256", None))


def test_an_attribute_that_neither_lists_plays_no_part() -> None:
    outcome = choose([esp(("aes-128-gcm",), ())], [esp(("aes-128-gcm",), ())])
    assert outcome == Chosen(1, b"", Suite("aes-128-gcm", None, None, None))


def test_no_group_and_group_none_are_the_same() -> None:
    for theirs, ours in [((), (0,)), ((0,), ()), ((14, 0), ()), ((), (14, 0))]:
        outcome = choose([esp(("aes-128",), dh=theirs)], [esp(("aes-128",), dh=ours)])
        assert isinstance(outcome, Chosen)
        assert outcome.suite.dh is None


def test_extended_sequence_numbers_are_an_attribute_like_the_others() -> None:
    outcome = choose([esp(("aes-128",), esn=(True, False))], [esp(("aes-128",), esn=(True,))])
    assert isinstance(outcome, Chosen)
    assert outcome.suite.esn is True
    silent = choose([esp(("aes-128",), esn=())], [esp(("aes-128",), esn=(False,))])
    assert isinstance(silent, Chosen)
    assert silent.suite.esn is False


# ------------------------------------------------------------------------------------- mismatch


@pytest.mark.parametrize(
    ("theirs", "ours", "mismatch"),
    [
        (
            ike(("3des", "encr-99")),
            ike(("aes-128", "aes-256")),
            Mismatch(Attribute.ENCRYPTION, ("3des", "encr-99"), ("aes-128", "aes-256")),
        ),
        (
            ike(("aes-128",), integrity=("sha1",)),
            ike(("aes-128",)),
            Mismatch(Attribute.INTEGRITY, ("sha1",), ("sha256",)),
        ),
        (
            ike(("aes-128",), integrity=()),
            ike(("aes-128",)),
            Mismatch(Attribute.INTEGRITY, ("none",), ("sha256",)),
        ),
        (
            ike(("aes-128",), prf=("md5",)),
            ike(("aes-128",)),
            Mismatch(Attribute.PRF, ("md5",), ("sha256",)),
        ),
        (
            ike(("aes-128",), dh=(2, 5)),
            ike(("aes-128",), dh=(14,)),
            Mismatch(Attribute.DH_GROUP, ("2", "5"), ("14",)),
        ),
        (
            esp(("aes-128",)),
            esp(("aes-128",), dh=(14,)),
            Mismatch(Attribute.DH_GROUP, ("0",), ("14",)),
        ),
        (
            esp(("aes-128",), esn=(True,)),
            esp(("aes-128",)),
            Mismatch(Attribute.ESN, ("on",), ("off",)),
        ),
        (
            esp(("aes-128",), dh=(14,), esn=(True,)),
            esp(("aes-128",)),
            Mismatch(Attribute.ESN, ("on",), ("off",)),
        ),
        (
            Proposal(AH, (), integrity=("sha256",)),
            esp(("aes-128",)),
            Mismatch(Attribute.PROTOCOL, ("AH",), ("ESP",)),
        ),
    ],
    ids=lambda item: item.attribute.value if isinstance(item, Mismatch) else "",
)
def test_the_first_difference_is_named_with_both_sides_words(
    theirs: Proposal, ours: Proposal, mismatch: Mismatch
) -> None:
    assert choose([theirs], [ours]) == mismatch


def test_the_closest_proposal_is_the_one_that_is_explained() -> None:
    offered = [ike(("3des",)), ike(("aes-128",), dh=(2,)), ike(("des",))]
    acceptable = [ike(("aes-256",)), ike(("aes-128",))]
    assert choose(offered, acceptable) == Mismatch(Attribute.DH_GROUP, ("2",), ("14",))


def test_an_empty_offer_differs_in_its_protocol() -> None:
    assert choose([], [esp(("aes-128",))]) == Mismatch(Attribute.PROTOCOL, (), ("ESP",))
    assert choose([esp(("aes-128",))], []) == Mismatch(Attribute.PROTOCOL, (), ())


# ----------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("suite", "text"),
    [
        (Suite("aes-128", "sha256", "sha256", 14), "aes-128/sha256/dh14"),
        (Suite("aes-256-gcm", None, None, None), "aes-256-gcm"),
        (Suite("aes-256-gcm", None, None, 31), "aes-256-gcm/dh31"),
    ],
)
def test_the_words_of_a_suite(suite: Suite, text: str) -> None:
    assert str(suite) == text
