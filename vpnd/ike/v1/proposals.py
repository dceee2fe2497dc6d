"""Between configuration words and the SA payloads of both phases (RFC 2409 appendix A, RFC 2407 section 4.5).

An IKEv1 transform is one combination, not a list of alternatives, so each `Proposal` of the policy becomes
the product of its words, the preferred first, and each transform that is read becomes a `Proposal` with one
word for each attribute, whose `number` is the transform's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import product
from typing import Unpack

from vpnd.crypto import suites
from vpnd.ike.v1.faults import NoProposalChosen
from vpnd.model.diagnosis import Code, Diagnosis, Known
from vpnd.model.numbers import DEFAULT_NUMBERS, Numbers
from vpnd.model.policy import ChildPolicy, Lifetimes
from vpnd.model.proposals import NO_GROUP, Attribute, Mismatch, Proposal, Suite, choose
from vpnd.wire.attributes import Attribute as WireAttribute
from vpnd.wire.attributes import decode_attributes
from vpnd.wire.errors import DecodeError
from vpnd.wire.iana import (
    AuthMethod1,
    EncapsulationMode,
    LifeType,
    Notify1,
    Phase1Attribute,
    Phase2Attribute,
    Protocol,
    TransformId1,
    name_of,
)
from vpnd.wire.ikev1 import IPSEC_DOI, SIT_IDENTITY_ONLY, Notify, ProposalPart, Sa, TransformPart

MAX_TRANSFORMS = 24
"""Of one offer: what fits into a datagram that no path cuts; the preferred ones come first."""
DEFAULT_LIFE_SECONDS = 28800
"""Of a phase-2 SA whose proposal names no lifetime (RFC 2407 section 4.5.4)."""
LEAST_LIFE_SECONDS = 60
"""What a peer cannot push us below: each SA costs both sides a negotiation."""
LEAST_LIFE_KILOBYTES = 1024
"""Likewise."""
ESP_SPI_LENGTH = 4
SMALLEST_ESP_SPI = 256
"""SPIs 1 to 255 are reserved by IANA (RFC 4303 section 2.1)."""

ESN_64_BIT = 1
"""The one value of attribute 11: extended sequence numbers (RFC 4304)."""


@dataclass(frozen=True, slots=True)
class _Classes:
    """The attributes of one phase: their registry, those that we have, the life type, and where only certain
    values have a meaning, which."""

    registry: type[IntEnum]
    ours: frozenset[int]
    life: int
    values: Mapping[int, frozenset[int]]


_PHASE1 = _Classes(
    Phase1Attribute,
    frozenset(
        {
            *(Phase1Attribute.ENCRYPTION, Phase1Attribute.HASH, Phase1Attribute.AUTHENTICATION_METHOD),
            *(Phase1Attribute.GROUP, Phase1Attribute.KEY_LENGTH),
            *(Phase1Attribute.LIFE_TYPE, Phase1Attribute.LIFE_DURATION),
        }
    ),
    Phase1Attribute.LIFE_TYPE,
    {Phase1Attribute.LIFE_TYPE: frozenset(LifeType)},
)
_PHASE2 = _Classes(
    Phase2Attribute,
    frozenset(
        {
            *(Phase2Attribute.LIFE_TYPE, Phase2Attribute.LIFE_DURATION, Phase2Attribute.GROUP),
            *(Phase2Attribute.ENCAPSULATION_MODE, Phase2Attribute.AUTHENTICATION),
            *(Phase2Attribute.KEY_LENGTH, Phase2Attribute.ESN),
        }
    ),
    Phase2Attribute.LIFE_TYPE,
    {Phase2Attribute.LIFE_TYPE: frozenset(LifeType), Phase2Attribute.ESN: frozenset({ESN_64_BIT})},
)
_UDP_MODES = (EncapsulationMode.UDP_TUNNEL, EncapsulationMode.UDP_TUNNEL_DRAFT)
_TUNNEL_MODES = (EncapsulationMode.TUNNEL, *_UDP_MODES)
PHASE1_CODES = {
    Attribute.ENCRYPTION: Code.P1_ENCRYPTION,
    Attribute.INTEGRITY: Code.P1_INTEGRITY,
    Attribute.PRF: Code.P1_INTEGRITY,
    Attribute.DH_GROUP: Code.P1_DH,
}
_PHASE2_CODES = {
    Attribute.ENCRYPTION: Code.P2_ENCRYPTION,
    Attribute.INTEGRITY: Code.P2_INTEGRITY,
    Attribute.DH_GROUP: Code.PFS,
    Attribute.ESN: Code.P2_ESN,
}


@dataclass(frozen=True, slots=True)
class Phase1Choice:
    """The suite of an ISAKMP SA, its lifetime in seconds, and the SA payload that says so."""

    suite: Suite
    lifetime: int
    answer: Sa


@dataclass(frozen=True, slots=True)
class Phase2Choice:
    """The suite of an IPsec SA, its lifetimes, the peer's SPI (4 bytes), and the offer that was taken."""

    suite: Suite
    lifetimes: Lifetimes
    spi: bytes
    part: ProposalPart
    transform: TransformPart

    @property
    def udp(self) -> bool:
        """Whether ESP is to travel in UDP (RFC 3947 section 5.1)."""
        return number_of(self.transform.attributes, Phase2Attribute.ENCAPSULATION_MODE) in _UDP_MODES

    def answer(self, spi: bytes) -> Sa:
        """The SA payload of Quick2: the transform as it was offered, with our SPI."""
        part = ProposalPart(self.part.number, self.part.protocol, spi, (self.transform,))
        return Sa(IPSEC_DOI, SIT_IDENTITY_ONLY, (part,))


# ------------------------------------------------------------------------------------- phase 1


def offer_phase1(
    proposals: Iterable[Proposal], lifetime: int, numbers: Numbers = DEFAULT_NUMBERS, group: int | None = None
) -> Sa:
    """The SA payload of Main1 or Aggressive1; with `group`, only transforms of that group."""
    transforms: list[TransformPart] = []
    for suite in _suites(proposals):
        if group is not None and suite.dh != group:
            continue
        transforms.append(_phase1_transform(len(transforms) + 1, suite, lifetime, numbers))
        if len(transforms) == MAX_TRANSFORMS:
            break
    part = ProposalPart(1, Protocol.IKE, b"", tuple(transforms))
    return Sa(IPSEC_DOI, SIT_IDENTITY_ONLY, (part,))


def first_group(proposals: Iterable[Proposal]) -> int:
    """The group that an aggressive mode begins with: it cannot be negotiated (RFC 2409 section 5.4)."""
    return next((proposal.dh[0] for proposal in proposals if proposal.dh), NO_GROUP)


def choose_phase1(
    offer: Sa,
    acceptable: Iterable[Proposal],
    lifetime: int,
    numbers: Numbers = DEFAULT_NUMBERS,
    answer: bool = False,
) -> Phase1Choice:
    """The best transform of a peer's offer; with `answer`, the check of the one that it chose of ours.

    Raises NoProposalChosen with the attribute that differs and both sides' values.
    """
    rows = [
        (part, transform)
        for part in offer.proposals
        for transform in part.transforms
        if part.protocol == Protocol.IKE and transform.id == TransformId1.KEY_IKE
    ]
    if answer:
        _check_single(offer, Code.P1_PROPOSAL)
    methods = [number_of(row.attributes, Phase1Attribute.AUTHENTICATION_METHOD) or 0 for _, row in rows]
    both = zip(rows, methods, strict=True)
    psk = [row for row, method in both if method == AuthMethod1.PRE_SHARED_KEY]
    if rows and not psk:
        theirs = ", ".join(name_of(AuthMethod1, method) for method in sorted(set(methods)))
        ours = AuthMethod1.PRE_SHARED_KEY.name
        raise NoProposalChosen(diagnosis=Diagnosis.of(Code.P1_AUTH_METHOD, theirs=theirs, ours=ours))
    usable = _without_strange(psk, _PHASE1, Code.P1_PROPOSAL)
    offered = [decode_phase1(index, transform, numbers) for index, (_, transform) in enumerate(usable)]
    chosen = choose(offered, tuple(acceptable))
    if isinstance(chosen, Mismatch):
        raise NoProposalChosen(diagnosis=mismatch(chosen, PHASE1_CODES, Code.P1_PROPOSAL))
    part, transform = usable[chosen.number]
    theirs_seconds = lifetime_of(transform.attributes, Phase1Attribute.LIFE_TYPE, LifeType.SECONDS)
    answer_sa = Sa(
        offer.doi,
        offer.situation,
        (ProposalPart(part.number, part.protocol, part.spi, (transform,)),),
    )
    seconds = min(lifetime, max(theirs_seconds or lifetime, LEAST_LIFE_SECONDS))
    return Phase1Choice(chosen.suite, seconds, answer_sa)


def _phase1_transform(number: int, suite: Suite, lifetime: int, numbers: Numbers) -> TransformPart:
    cipher = suites.encryption(suite.encryption, numbers)
    hash_row = suites.integrity(suite.prf or "", numbers)
    attributes = [
        WireAttribute(Phase1Attribute.ENCRYPTION, cipher.ikev1_phase1 or 0),
        WireAttribute(Phase1Attribute.HASH, hash_row.ikev1_hash or 0),
        WireAttribute(Phase1Attribute.AUTHENTICATION_METHOD, AuthMethod1.PRE_SHARED_KEY),
        WireAttribute(Phase1Attribute.GROUP, suite.dh or NO_GROUP),
    ]
    if cipher.sends_key_length:
        attributes.append(WireAttribute(Phase1Attribute.KEY_LENGTH, cipher.key_bits))
    attributes += _life(Phase1Attribute.LIFE_TYPE, LifeType.SECONDS, lifetime)
    return TransformPart(number, TransformId1.KEY_IKE, tuple(attributes))


def decode_phase1(number: int, transform: TransformPart, numbers: Numbers) -> Proposal:
    """A phase-1 transform in configuration words; what has none is `encr-N`, `hash-N`."""
    values = _first_values(transform.attributes)
    cipher_number = values.get(Phase1Attribute.ENCRYPTION) or 0
    bits = values.get(Phase1Attribute.KEY_LENGTH)
    hash_number = values.get(Phase1Attribute.HASH) or 0
    cipher = suites.encryption_of_phase1(cipher_number, bits, numbers)
    row = suites.hash_of_phase1(hash_number, numbers)
    word = row.word if row else f"hash-{hash_number}"
    return Proposal(
        Protocol.IKE,
        encryption=(cipher.word if cipher else _unknown("encr", cipher_number, bits),),
        prf=(word,),
        integrity=(word,),
        dh=(values.get(Phase1Attribute.GROUP) or NO_GROUP,),
        number=number,
    )


# ------------------------------------------------------------------------------------- phase 2


def offer_phase2(
    policy: ChildPolicy, spi: bytes, group: int, mode: EncapsulationMode, numbers: Numbers = DEFAULT_NUMBERS
) -> Sa:
    """The SA payload of Quick1. `group` is that of the KE payload, 0 without PFS: every transform has it.

    A proposal for each ESP transform identifier would say the same in more bytes: an IKEv1 transform has its
    identifier for itself.
    """
    transforms: list[TransformPart] = []
    for suite in _suites(policy.proposals):
        if (suite.dh or NO_GROUP) == group and len(transforms) < MAX_TRANSFORMS:
            number = len(transforms) + 1
            transforms.append(_phase2_transform(number, suite, policy.lifetimes, mode, numbers))
    part = ProposalPart(1, Protocol.ESP, spi, tuple(transforms))
    return Sa(IPSEC_DOI, SIT_IDENTITY_ONLY, (part,))


def choose_phase2(
    offer: Sa,
    policy: ChildPolicy,
    group: int,
    numbers: Numbers = DEFAULT_NUMBERS,
    answer: bool = False,
    in_udp: bool | None = None,
) -> Phase2Choice:
    """The best transform of a peer's offer; with `answer`, the check of the one that it chose of ours.

    `group` is that of the peer's KE payload as its proposals name it, 0 without one. `in_udp`: of offers of
    both kinds take those that travel in UDP, or those that do not; an answer has to be of the kind that we
    offered. Raises NoProposalChosen.
    """
    if answer:
        _check_single(offer, Code.P2_PROPOSAL)
    rows = _without_strange(
        _esp_rows(offer, policy, in_udp, answer), _PHASE2, Code.P2_PROPOSAL, mapping=policy
    )
    offered = [decode_phase2(index, *row, numbers) for index, row in enumerate(rows)]
    chosen = choose(offered, policy.proposals)
    if isinstance(chosen, Mismatch):
        raise NoProposalChosen(
            diagnosis=mismatch(chosen, _PHASE2_CODES, Code.P2_PROPOSAL, mapping=str(policy))
        )
    if (chosen.suite.dh or NO_GROUP) != group:
        theirs, ours = group or "off", chosen.suite.dh or "off"
        raise NoProposalChosen(
            diagnosis=Diagnosis.of(Code.PFS, mapping=str(policy), theirs=theirs, ours=ours)
        )
    part, transform = rows[chosen.number]
    if len(part.spi) != ESP_SPI_LENGTH or int.from_bytes(part.spi, "big") < SMALLEST_ESP_SPI:
        raise NoProposalChosen(
            diagnosis=Diagnosis.of(
                Code.P2_PROPOSAL,
                attribute="spi",
                theirs=part.spi.hex() or "none",
                ours="4 bytes, from 256 on",
            )
        )
    agreed = _limited(policy.lifetimes, transform.attributes, DEFAULT_LIFE_SECONDS)
    return Phase2Choice(chosen.suite, agreed, part.spi, part, transform)


def _esp_rows(
    offer: Sa, policy: ChildPolicy, in_udp: bool | None, answer: bool
) -> list[tuple[ProposalPart, TransformPart]]:
    """The transforms of ESP in tunnel mode, each with its proposal. Raises NoProposalChosen without one.

    Proposals with one number stand for protocols one around the other (RFC 2408 section 4.2), of which ESP
    alone is not what was offered.
    """
    numbers = [part.number for part in offer.proposals]
    parts = [p for p in offer.proposals if p.protocol == Protocol.ESP and numbers.count(p.number) == 1]
    if not parts:
        theirs = ", ".join(dict.fromkeys(name_of(Protocol, part.protocol) for part in offer.proposals))
        raise _refused("protocol", theirs or "nothing", "ESP", policy)
    rows = [(part, transform) for part in parts for transform in part.transforms]
    modes = [number_of(transform.attributes, Phase2Attribute.ENCAPSULATION_MODE) for _, transform in rows]
    tunnels = [row for row, mode in zip(rows, modes, strict=True) if mode is None or mode in _TUNNEL_MODES]
    if not tunnels:
        theirs = ", ".join(dict.fromkeys(name_of(EncapsulationMode, mode or 0) for mode in modes))
        raise _refused("encapsulation mode", theirs or "nothing", "TUNNEL", policy)
    fitting = [
        row
        for row, mode in zip(rows, modes, strict=True)
        if mode in (_UDP_MODES if in_udp else (EncapsulationMode.TUNNEL,))
    ]
    if answer and in_udp is not None and not fitting:
        ours = EncapsulationMode.UDP_TUNNEL if in_udp else EncapsulationMode.TUNNEL
        raise _refused("encapsulation mode", name_of(EncapsulationMode, modes[0] or 0), ours.name, policy)
    return fitting if fitting and in_udp is not None else tunnels


def _refused(attribute: str, theirs: str, ours: str, policy: ChildPolicy) -> NoProposalChosen:
    facts: Known = {"attribute": attribute, "theirs": theirs, "ours": ours, "mapping": policy}
    return NoProposalChosen(diagnosis=Diagnosis.of(Code.P2_PROPOSAL, **facts))


def limited(lifetimes: Lifetimes, notifies: Iterable[Notify]) -> Lifetimes:
    """The lifetimes cut to what a responder says it will keep to (RFC 2407 section 4.6.3.1)."""
    for notify in notifies:
        if notify.type == Notify1.RESPONDER_LIFETIME:
            try:
                lifetimes = _limited(lifetimes, decode_attributes(notify.data), lifetimes.seconds)
            except DecodeError:
                continue
    return lifetimes


def limited_phase1(seconds: int, notifies: Iterable[Notify]) -> int:
    """The seconds of an ISAKMP SA, cut to what its responder says it will keep to (RFC 2407 section 4.6.3.1).

    Peers name them by the attributes of either phase.
    """
    for notify in notifies:
        if notify.type == Notify1.RESPONDER_LIFETIME and notify.protocol == Protocol.IKE:
            with suppress(DecodeError):
                attributes = decode_attributes(notify.data)
                kinds = (Phase1Attribute.LIFE_TYPE, Phase2Attribute.LIFE_TYPE)
                found = [lifetime_of(attributes, kind, LifeType.SECONDS) for kind in kinds]
                theirs = next((one for one in found if one), seconds)
                seconds = min(seconds, max(theirs, LEAST_LIFE_SECONDS))
    return seconds


def _limited(ours: Lifetimes, attributes: tuple[WireAttribute, ...], default: int) -> Lifetimes:
    """The shorter of our lifetimes and those that the attributes name; `default` without seconds."""
    seconds = lifetime_of(attributes, Phase2Attribute.LIFE_TYPE, LifeType.SECONDS) or default
    kilobytes = lifetime_of(attributes, Phase2Attribute.LIFE_TYPE, LifeType.KILOBYTES)
    limits = [ours.kilobytes] if ours.kilobytes else []
    if kilobytes:
        limits.append(max(kilobytes, LEAST_LIFE_KILOBYTES))
    seconds = min(ours.seconds, max(seconds, LEAST_LIFE_SECONDS))
    return replace(ours, seconds=seconds, kilobytes=min(limits, default=None))


def offered_group(offer: Sa) -> int:
    """The PFS group that the proposals of a Quick1 name; 0 if none does."""
    for part in offer.proposals:
        for transform in part.transforms:
            group = number_of(transform.attributes, Phase2Attribute.GROUP)
            if group:
                return group
    return NO_GROUP


def _phase2_transform(
    number: int, suite: Suite, lifetimes: Lifetimes, mode: EncapsulationMode, numbers: Numbers
) -> TransformPart:
    cipher = suites.encryption(suite.encryption, numbers)
    attributes = [WireAttribute(Phase2Attribute.ENCAPSULATION_MODE, mode)]
    attributes += _life(Phase2Attribute.LIFE_TYPE, LifeType.SECONDS, lifetimes.seconds)
    if lifetimes.kilobytes is not None:
        attributes += _life(Phase2Attribute.LIFE_TYPE, LifeType.KILOBYTES, lifetimes.kilobytes)
    if suite.integrity is not None:
        authentication = suites.integrity(suite.integrity, numbers).ikev1_esp or 0
        attributes.append(WireAttribute(Phase2Attribute.AUTHENTICATION, authentication))
    if cipher.sends_key_length:
        attributes.append(WireAttribute(Phase2Attribute.KEY_LENGTH, cipher.key_bits))
    if suite.dh:
        attributes.append(WireAttribute(Phase2Attribute.GROUP, suite.dh))
    return TransformPart(number, cipher.ikev1_esp or 0, tuple(attributes))


def decode_phase2(number: int, part: ProposalPart, transform: TransformPart, numbers: Numbers) -> Proposal:
    """A phase-2 transform in configuration words; what has none is `esp-N`, `auth-N`."""
    values = _first_values(transform.attributes)
    bits = values.get(Phase2Attribute.KEY_LENGTH)
    authentication = values.get(Phase2Attribute.AUTHENTICATION)
    cipher = suites.encryption_of_esp1(transform.id, bits, numbers)
    extended = values.get(Phase2Attribute.ESN) == ESN_64_BIT
    row = suites.integrity_of_esp1(authentication, numbers) if authentication else None
    word = row.word if row else f"auth-{authentication}"
    return Proposal(
        Protocol.ESP,
        encryption=(cipher.word if cipher else _unknown("esp", transform.id, bits),),
        integrity=(word,) if authentication else (),
        dh=(values.get(Phase2Attribute.GROUP) or NO_GROUP,),
        esn=(extended,),
        number=number,
        spi=part.spi,
    )


# -------------------------------------------------------------------------------------- shared


def _without_strange(
    rows: Sequence[tuple[ProposalPart, TransformPart]], classes: _Classes, code: Code, **facts: Unpack[Known]
) -> list[tuple[ProposalPart, TransformPart]]:
    """The rows that we can agree to word for word, for an answer repeats the transform as it was offered.

    Raises NoProposalChosen with the first attribute that we do not have, if none is left of some.
    """
    usable = [row for row in rows if _strange(row[1], classes) is None]
    if rows and not usable:
        name, theirs = _strange(rows[0][1], classes) or ("", "")
        named: Known = {
            "attribute": name,
            "theirs": f"{name} {theirs}",
            "ours": "an offer without it",
            **facts,
        }
        raise NoProposalChosen(diagnosis=Diagnosis.of(code, **named))
    return usable


def _strange(transform: TransformPart, classes: _Classes) -> tuple[str, str] | None:
    """The first attribute that we do not have, or that contradicts another, with its value in words.

    Life types alone may stand there more than once, each unit once (RFC 2407 sections 4.5.3 and 4.5.4).
    """
    seen: dict[tuple[int, int | None], int] = {}
    unit: int | None = None
    for one in transform.attributes:
        value = one.number
        if one.type not in classes.ours or value not in classes.values.get(one.type, (value,)):
            return _attribute_name(classes, one.type), str(value)
        if one.type == classes.life:
            unit = value
            continue
        key = one.type, unit if one.type == classes.life + 1 else None
        if seen.setdefault(key, value) != value:
            return _attribute_name(classes, one.type), f"{seen[key]} and {value}"
    return None


def _attribute_name(classes: _Classes, kind: int) -> str:
    return name_of(classes.registry, kind).lower().replace("_", " ")


def _check_single(answer: Sa, code: Code) -> None:
    """The answer is one transform of one proposal (RFC 2408 section 4.2). Raises NoProposalChosen."""
    transforms = sum(len(part.transforms) for part in answer.proposals)
    if len(answer.proposals) != 1 or transforms != 1:
        theirs = f"{len(answer.proposals)} proposals with {transforms} transforms"
        raise NoProposalChosen(
            diagnosis=Diagnosis.of(code, theirs=theirs, ours="one transform of one proposal")
        )


def mismatch(
    found: Mismatch, codes: dict[Attribute, Code], otherwise: Code, **facts: Unpack[Known]
) -> Diagnosis:
    """The diagnosis of an attribute without a common value, with both sides' words."""
    theirs, ours = (
        ", ".join("off" if word == "0" else word for word in side) for side in (found.theirs, found.ours)
    )
    code = codes.get(found.attribute, otherwise)
    facts |= {"attribute": found.attribute.value, "theirs": theirs, "ours": ours}
    return Diagnosis.of(code, **facts)


def _suites(proposals: Iterable[Proposal]) -> Iterator[Suite]:
    """Every combination that the proposals allow, in order of preference; the hash is the PRF as well."""
    for proposal in proposals:
        integrities = proposal.integrity or (None,)
        for cipher, integrity, group in product(proposal.encryption, integrities, proposal.dh or (NO_GROUP,)):
            prf = integrity if proposal.protocol == Protocol.IKE else None
            yield Suite(cipher, prf, integrity, group or None)


def _life(kind: int, unit: LifeType, amount: int) -> list[WireAttribute]:
    """LIFE_TYPE and, behind it, LIFE_DURATION."""
    return [WireAttribute(kind, unit), WireAttribute(kind + 1, amount)]


def lifetime_of(attributes: Iterable[WireAttribute], kind: int, unit: LifeType) -> int | None:
    """The duration that stands behind a LIFE_TYPE of `unit`, or None."""
    current = None
    for attribute in attributes:
        if attribute.type == kind:
            current = attribute.number
        elif attribute.type == kind + 1 and current == unit:
            return attribute.number
    return None


def number_of(attributes: Iterable[WireAttribute], kind: int) -> int | None:
    """The value of the first attribute of this kind."""
    return next((attribute.number for attribute in attributes if attribute.type == kind), None)


def _first_values(attributes: Sequence[WireAttribute]) -> dict[int, int]:
    """`number_of` for every kind, in one pass."""
    return {attribute.type: attribute.number for attribute in reversed(attributes)}


def _unknown(kind: str, number: int, bits: int | None) -> str:
    return f"{kind}-{number}" if bits is None else f"{kind}-{number}-{bits}"


# ------------------------------------------------------------------------------------- in words


def describe_sa(sa: Sa, numbers: Numbers) -> Iterator[str]:
    """One line for each transform: `SA 1.2: ESP aes-128/sha1/dh14, TUNNEL, 3600 s, spi 0c0ffee1`."""
    for part in sa.proposals:
        spi = f", spi {part.spi.hex()}" if part.spi else ""
        for transform in part.transforms:
            head = f"SA {part.number}.{transform.number}: {name_of(Protocol, part.protocol)} "
            if part.protocol == Protocol.IKE:
                yield head + _describe_phase1(transform, numbers)
            elif part.protocol == Protocol.ESP:
                yield head + _describe_phase2(part, transform, numbers) + spi
            else:
                yield f"{head}transform {transform.id}{spi}"


def _describe_phase1(transform: TransformPart, numbers: Numbers) -> str:
    method = number_of(transform.attributes, Phase1Attribute.AUTHENTICATION_METHOD) or 0
    life = _describe_life(transform.attributes, Phase1Attribute.LIFE_TYPE)
    words = describe(decode_phase1(0, transform, numbers))
    return ", ".join((words, name_of(AuthMethod1, method), *life))


def _describe_phase2(part: ProposalPart, transform: TransformPart, numbers: Numbers) -> str:
    mode = number_of(transform.attributes, Phase2Attribute.ENCAPSULATION_MODE)
    life = _describe_life(transform.attributes, Phase2Attribute.LIFE_TYPE)
    words = describe(decode_phase2(0, part, transform, numbers))
    return ", ".join((words, name_of(EncapsulationMode, mode or 0), *life))


def _describe_life(attributes: tuple[WireAttribute, ...], kind: int) -> Iterator[str]:
    for unit, word in ((LifeType.SECONDS, "s"), (LifeType.KILOBYTES, "KB")):
        amount = lifetime_of(attributes, kind, unit)
        if amount is not None:
            yield f"{amount} {word}"


def describe(proposal: Proposal) -> str:
    """`aes-128/sha256/dh14`, alternatives joined by `+`."""
    words = (
        "+".join(proposal.encryption),
        "+".join(proposal.integrity),
        "+".join(
            f"dh{group}" if group else "no-dh" for group in proposal.dh if group or len(proposal.dh) > 1
        ),
    )
    return "/".join(word for word in words if word)


def describe_all(proposals: Iterable[Proposal]) -> str:
    """All proposals, in order."""
    return ", ".join(map(describe, proposals))
