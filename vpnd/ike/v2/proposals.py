"""SA payloads <-> the proposals of `vpnd.model`, in configuration words (RFC 7296 section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from vpnd.crypto.suites import (
    Encryption,
    Integrity,
    by_numbers,
    encryption,
    encryption_of_ikev2,
    integrity,
    integrity_of_ikev2,
    prf_of_ikev2,
)
from vpnd.model.numbers import DEFAULT_NUMBERS, Numbers
from vpnd.model.proposals import (
    COMPARED,
    NO_GROUP,
    NO_INTEGRITY,
    Attribute,
    Chosen,
    Mismatch,
    Proposal,
    choose,
)
from vpnd.wire.iana import DhGroup, Esn, Integ2, Kem, Protocol, TransformType, name_of
from vpnd.wire.ikev2 import ProposalPart, Sa, Transform

ESP_SPI_LENGTH = 4
IKE_SPI_LENGTH = 8

ADDITIONAL_KE_TYPES = range(6, 13)
"""Transform types of further key exchanges (RFC 9370 section 2.2.1): of these vpnd takes NONE only."""
NONE = 0
"""The transform ID that declines a whole type."""
UNUSED = 65535
"""The last transform ID for private use."""


def encode_sa(proposals: Iterable[Proposal], spi: bytes = b"", numbers: Numbers = DEFAULT_NUMBERS) -> Sa:
    """Our proposals, numbered from 1, each with our SPI."""
    return Sa(tuple(_encode(p, n, spi, numbers) for n, p in enumerate(proposals, start=1)))


def decode_sa(sa: Sa, numbers: Numbers = DEFAULT_NUMBERS) -> tuple[Proposal, ...]:
    """The peer's proposals.

    One of another protocol than IKE and ESP is left out. One with a transform type we do not know must not
    be chosen (RFC 7296 section 3.3.6), unless the type can be declined: it is a demand. A transform with an
    unknown attribute or number stays as a word that is nobody's. So a mismatch can name either.
    """
    return tuple(_decode(p, numbers) for p in sa.proposals if p.protocol in (Protocol.IKE, Protocol.ESP))


def answer_sa(chosen: Chosen, protocol: Protocol, spi: bytes = b"", numbers: Numbers = DEFAULT_NUMBERS) -> Sa:
    """The proposal that we accept, with our SPI: one transform of each type that it lists (RFC 7296 2.7)."""
    suite, offer = chosen.suite, chosen.offer
    integrity, dh = suite.integrity or NO_INTEGRITY, suite.dh or NO_GROUP
    proposal = Proposal(
        protocol=protocol,
        encryption=(suite.encryption,),
        prf=(suite.prf,) if suite.prf else (),
        integrity=(integrity,) if suite.integrity or (offer and integrity in offer.integrity) else (),
        dh=(dh,) if suite.dh or (offer and dh in offer.dh) else (),
        esn=(suite.esn,) if offer is None or offer.esn else (),
        declinable=offer.declinable if offer else (),
    )
    return Sa((_encode(proposal, chosen.number, spi, numbers),))


def never_taken(number: int, group: int) -> ProposalPart:
    """A proposal whose algorithms are numbers for private use (RFC 7296 section 3.3.2), which nobody has."""
    kinds = (TransformType.ENCR, TransformType.PRF, TransformType.INTEG)
    transforms = (*(Transform(kind, UNUSED) for kind in kinds), Transform(TransformType.DH, group))
    return ProposalPart(number, Protocol.IKE, b"", transforms)


def choose_by(
    numbers: Numbers, offered: Sequence[Proposal], acceptable: Sequence[Proposal]
) -> Chosen | Mismatch:
    """`choose`, with the ICV length that `numbers` give the suite."""
    chosen = choose(offered, acceptable)
    if isinstance(chosen, Mismatch) or (suite := by_numbers(chosen.suite, numbers)) is chosen.suite:
        return chosen
    return replace(chosen, suite=suite)


def choose_near(
    numbers: Numbers, offered: Sequence[Proposal], acceptable: Sequence[Proposal], group: int | None
) -> Chosen | Mismatch:
    """As `choose_by`, with the group of the peer's KE payload if that is acceptable: no second round then."""
    same_group = tuple(replace(p, dh=(group,)) for p in acceptable if group in p.dh) if group else ()
    chosen = choose_by(numbers, offered, same_group)
    return chosen if isinstance(chosen, Chosen) else choose_by(numbers, offered, acceptable)


def read_answer(sa: Sa, offered: Iterable[Proposal], numbers: Numbers = DEFAULT_NUMBERS) -> Chosen | Mismatch:
    """What the peer chose of our `offered` proposals; Mismatch if that is none of them or not one thing."""
    answers = decode_sa(sa, numbers)
    if len(sa.proposals) != 1 or len(answers) != 1:
        return Mismatch(Attribute.PROTOCOL, (f"{len(sa.proposals)} proposals",), ("1 proposal",))
    answer = answers[0]
    for attribute, alternatives in COMPARED:
        if len(words := alternatives(answer)) > 1:
            return Mismatch(attribute, tuple(map(str, words)), ("one value",))
    ours = tuple(p for number, p in enumerate(offered, start=1) if number == answer.number)
    if not ours:
        return Mismatch(Attribute.PROTOCOL, (f"proposal {answer.number}",), ("a proposal we made",))
    return choose_by(numbers, answers, ours)


def without_dh(proposals: Iterable[Proposal]) -> tuple[Proposal, ...]:
    """The same without key exchange: the first CHILD_SA has none (RFC 7296 section 1.2)."""
    return tuple(dict.fromkeys(replace(proposal, dh=()) for proposal in proposals))


def _encode(proposal: Proposal, number: int, spi: bytes, numbers: Numbers) -> ProposalPart:
    transforms: list[Transform] = []
    for word in proposal.encryption:
        row = encryption(word, numbers)
        bits = row.key_bits if row.sends_key_length else None
        transforms.append(Transform(TransformType.ENCR, row.ikev2, bits))
    for word in proposal.prf:
        transforms.append(Transform(TransformType.PRF, integrity(word, numbers).ikev2_prf))
    for word in proposal.integrity:
        kind = Integ2.NONE if word == NO_INTEGRITY else integrity(word, numbers).ikev2_integ
        transforms.append(Transform(TransformType.INTEG, kind))
    for group in proposal.dh:
        transforms.append(Transform(TransformType.DH, group))
    if proposal.protocol == Protocol.ESP:
        for extended in proposal.esn:
            transforms.append(Transform(TransformType.ESN, Esn.YES if extended else Esn.NO))
    transforms += [Transform(kind, NONE) for kind in proposal.declinable]
    return ProposalPart(number, proposal.protocol, spi, tuple(transforms))


def _decode(part: ProposalPart, numbers: Numbers) -> Proposal:
    words: dict[int, dict[Any, None]] = {kind: {} for kind in _WORDS}
    others: dict[int, list[Transform]] = {}
    for transform in part.transforms:
        word_of = _WORDS.get(transform.type)
        word = None if word_of is None else word_of(transform, numbers)
        if word is None:
            others.setdefault(transform.type, []).append(transform)
        else:
            words[transform.type][word] = None
    if esn := tuple(words[TransformType.ESN]):
        others.pop(TransformType.ESN, None)
    declinable = tuple(kind for kind, found in others.items() if _is_declinable(kind, found))
    demands = (_demand(t) for kind, found in others.items() if kind not in declinable for t in found)
    return Proposal(
        Protocol(part.protocol),
        tuple(words[TransformType.ENCR]),
        tuple(words[TransformType.PRF]),
        tuple(words[TransformType.INTEG]),
        tuple(words[TransformType.DH]),
        esn or ((False,) if part.protocol == Protocol.IKE else ()),
        part.number,
        part.spi,
        tuple(dict.fromkeys(demands)),
        declinable,
    )


def _is_declinable(kind: int, found: Iterable[Transform]) -> bool:
    """Whether a list of further key exchanges has NONE in it (RFC 9370 section 2.2.1)."""
    return kind in ADDITIONAL_KE_TYPES and any(t.id == NONE and not t.attributes for t in found)


def _demand(transform: Transform) -> str:
    """A transform of a type that we have nothing of, in words."""
    if transform.type == TransformType.ESN:
        return f"sequence numbers of kind {transform.id}"
    if transform.type not in ADDITIONAL_KE_TYPES:
        return f"transform type {transform.type}"
    known = Kem if transform.id in frozenset(Kem) else DhGroup
    return f"additional key exchange {name_of(known, transform.id)}"


def _encryption_word(transform: Transform, numbers: Numbers) -> str:
    return _word("encr", transform, encryption_of_ikev2(transform.id, transform.key_length, numbers))


def _prf_word(transform: Transform, numbers: Numbers) -> str:
    return _word("prf", transform, prf_of_ikev2(transform.id, numbers))


def _integrity_word(transform: Transform, numbers: Numbers) -> str:
    """NONE is a word where it is one of several: an AEAD cipher takes it (RFC 7296 section 3.3.6)."""
    if transform.id == Integ2.NONE and not transform.attributes:
        return NO_INTEGRITY
    return _word("integ", transform, integrity_of_ikev2(transform.id, numbers))


def _group(transform: Transform, numbers: Numbers) -> int:
    return transform.id if not transform.attributes else -1


def _esn(transform: Transform, numbers: Numbers) -> bool | None:
    """None: another kind of sequence numbers, which matters where it is the only one."""
    return _KINDS_OF_ESN.get(transform.id)


def _word(kind: str, transform: Transform, row: Encryption | Integrity | None) -> str:
    """That of its row of the table; what has none, or unknown attributes, is nobody's."""
    if row is not None and not transform.attributes:
        return row.word
    length = f"-{transform.key_length}" if transform.key_length is not None else ""
    return f"{kind}-{transform.id}{length}" + ("+attributes" if transform.attributes else "")


_KINDS_OF_ESN: dict[int, bool] = {Esn.NO: False, Esn.YES: True}
_WORDS: dict[int, Callable[[Transform, Numbers], str | int | bool | None]] = {
    TransformType.ENCR: _encryption_word,
    TransformType.PRF: _prf_word,
    TransformType.INTEG: _integrity_word,
    TransformType.DH: _group,
    TransformType.ESN: _esn,
}
"""What a transform of each type that we know stands for in a proposal."""
