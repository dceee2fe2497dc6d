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
from itertools import islice, product
from typing import Unpack

from vpnd.crypto import suites
from vpnd.ike.v1.faults import NoProposalChosen
from vpnd.model.diagnosis import Code, Known
from vpnd.model.numbers import DEFAULT_NUMBERS, Numbers
from vpnd.model.policy import ChildPolicy, Lifetimes
from vpnd.model.proposals import NO_GROUP, Attribute, Chosen, Proposal, Suite, as_offer, choose, describe
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

Row = tuple[ProposalPart, TransformPart]
"""A transform, with the proposal that it is of."""

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
class _Phase:
    """The attributes of one phase: their registry, and of those that we have the values with a meaning here,
    where that is not any; and what is wrong where the two sides have nothing in common."""

    registry: type[IntEnum]
    ours: Mapping[int, frozenset[int] | None]
    codes: Mapping[Attribute, Code]
    code: Code

    def strange(self, transform: TransformPart) -> tuple[int, str] | None:
        """The first attribute that we do not have, or that contradicts another: its type, its value in words.

        Life types alone may stand there more than once, each unit once (RFC 2407 sections 4.5.3 and 4.5.4).
        """
        life = self.registry["LIFE_TYPE"]
        seen: dict[tuple[int, int | None], int] = {}
        unit: int | None = None
        for one in transform.attributes:
            value = one.number
            if one.type not in self.ours or value not in (self.ours[one.type] or (value,)):
                return one.type, str(value)
            if one.type == life:
                unit = value
                continue
            key = one.type, unit if one.type == life + 1 else None
            if seen.setdefault(key, value) != value:
                return one.type, f"{seen[key]} and {value}"
        return None


_PHASE1 = _Phase(
    Phase1Attribute,
    {
        Phase1Attribute.ENCRYPTION: None,
        Phase1Attribute.HASH: None,
        Phase1Attribute.AUTHENTICATION_METHOD: None,
        Phase1Attribute.GROUP: None,
        Phase1Attribute.KEY_LENGTH: None,
        Phase1Attribute.LIFE_TYPE: frozenset(LifeType),
        Phase1Attribute.LIFE_DURATION: None,
    },
    {
        Attribute.ENCRYPTION: Code.P1_ENCRYPTION,
        Attribute.INTEGRITY: Code.P1_INTEGRITY,
        Attribute.PRF: Code.P1_INTEGRITY,
        Attribute.DH_GROUP: Code.P1_DH,
    },
    Code.P1_PROPOSAL,
)
_PHASE2 = _Phase(
    Phase2Attribute,
    {
        Phase2Attribute.LIFE_TYPE: frozenset(LifeType),
        Phase2Attribute.LIFE_DURATION: None,
        Phase2Attribute.GROUP: None,
        Phase2Attribute.ENCAPSULATION_MODE: None,
        Phase2Attribute.AUTHENTICATION: None,
        Phase2Attribute.KEY_LENGTH: None,
        Phase2Attribute.ESN: frozenset({ESN_64_BIT}),
    },
    {
        Attribute.ENCRYPTION: Code.P2_ENCRYPTION,
        Attribute.INTEGRITY: Code.P2_INTEGRITY,
        Attribute.DH_GROUP: Code.PFS,
        Attribute.ESN: Code.P2_ESN,
    },
    Code.P2_PROPOSAL,
)
_UDP_MODES = (EncapsulationMode.UDP_TUNNEL, EncapsulationMode.UDP_TUNNEL_DRAFT)
_TUNNEL_MODES = (EncapsulationMode.TUNNEL, *_UDP_MODES)


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
        return _number_of(self.transform.attributes, Phase2Attribute.ENCAPSULATION_MODE) in _UDP_MODES

    def answer(self, spi: bytes) -> Sa:
        """The SA payload of Quick2: the transform as it was offered, with our SPI."""
        part = replace(self.part, spi=spi, transforms=(self.transform,))
        return Sa(IPSEC_DOI, SIT_IDENTITY_ONLY, (part,))


# ------------------------------------------------------------------------------------- phase 1


def offer_phase1(
    proposals: Iterable[Proposal], lifetime: int, numbers: Numbers = DEFAULT_NUMBERS, group: int | None = None
) -> Sa:
    """The SA payload of Main1 or Aggressive1; with `group`, only transforms of that group."""
    fitting = (suite for suite in _suites(proposals) if group in (None, suite.dh))
    return _offer(Protocol.IKE, b"", (_phase1_transform(suite, lifetime, numbers) for suite in fitting))


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
    if answer:
        _check_single(offer, _PHASE1)
    rows = [
        (part, transform)
        for part in offer.proposals
        for transform in part.transforms
        if part.protocol == Protocol.IKE and transform.id == TransformId1.KEY_IKE
    ]
    methods = [_number_of(row.attributes, Phase1Attribute.AUTHENTICATION_METHOD) or 0 for _, row in rows]
    psk = [row for row, method in zip(rows, methods, strict=True) if method == AuthMethod1.PRE_SHARED_KEY]
    if rows and not psk:
        theirs = ", ".join(name_of(AuthMethod1, method) for method in sorted(set(methods)))
        raise NoProposalChosen(code=Code.P1_AUTH_METHOD, theirs=theirs, ours=AuthMethod1.PRE_SHARED_KEY.name)
    usable = _without_strange(psk, _PHASE1)
    offered = [_decode_phase1(index, transform, numbers) for index, (_, transform) in enumerate(usable)]
    chosen = _choose(offered, tuple(acceptable), _PHASE1)
    part, transform = usable[chosen.number]
    theirs_seconds = _lifetime_of(transform.attributes, Phase1Attribute.LIFE_TYPE, LifeType.SECONDS)
    sa = replace(offer, proposals=(replace(part, transforms=(transform,)),))
    return Phase1Choice(chosen.suite, _shorter(lifetime, theirs_seconds), sa)


def require_suite(proposals: Sequence[Proposal], suite: Suite) -> None:
    """The suite was chosen before the tunnel was known. Raises NoProposalChosen if it is none of its own."""
    _choose([as_offer(suite)], proposals, _PHASE1)


def _phase1_transform(suite: Suite, lifetime: int, numbers: Numbers) -> tuple[int, list[WireAttribute]]:
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
    return TransformId1.KEY_IKE, attributes


def _decode_phase1(number: int, transform: TransformPart, numbers: Numbers) -> Proposal:
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
        dh=_groups(values.get(Phase1Attribute.GROUP)),
        number=number,
    )


# ------------------------------------------------------------------------------------- phase 2


def offer_phase2(
    policy: ChildPolicy, spi: bytes, group: int, mode: EncapsulationMode, numbers: Numbers = DEFAULT_NUMBERS
) -> Sa:
    """The SA payload of Quick1. `group` is that of the KE payload, 0 without PFS: every transform has it."""
    fitting = (suite for suite in _suites(policy.proposals) if (suite.dh or NO_GROUP) == group)
    transforms = (_phase2_transform(suite, policy.lifetimes, mode, numbers) for suite in fitting)
    return _offer(Protocol.ESP, spi, transforms)


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
        _check_single(offer, _PHASE2)
    rows = _without_strange(_esp_rows(offer, policy, in_udp, answer), _PHASE2, mapping=policy)
    offered = [_decode_phase2(index, *row, numbers) for index, row in enumerate(rows)]
    chosen = _choose(offered, policy.proposals, _PHASE2, mapping=policy)
    if (chosen.suite.dh or NO_GROUP) != group:
        theirs, ours = group or "off", chosen.suite.dh or "off"
        raise NoProposalChosen(code=Code.PFS, mapping=policy, theirs=theirs, ours=ours)
    part, transform = rows[chosen.number]
    if len(part.spi) != ESP_SPI_LENGTH or int.from_bytes(part.spi, "big") < SMALLEST_ESP_SPI:
        raise NoProposalChosen(
            code=Code.P2_PROPOSAL,
            attribute="spi",
            theirs=part.spi.hex() or "none",
            ours="4 bytes, from 256 on",
        )
    agreed = _limited(policy.lifetimes, transform.attributes, DEFAULT_LIFE_SECONDS)
    return Phase2Choice(chosen.suite, agreed, part.spi, part, transform)


def _esp_rows(offer: Sa, policy: ChildPolicy, in_udp: bool | None, answer: bool) -> list[Row]:
    """The transforms of ESP in tunnel mode, each with its proposal. Raises NoProposalChosen without one.

    Proposals with one number stand for protocols one around the other (RFC 2408 section 4.2), of which ESP
    alone is not what was offered.
    """
    numbers = [part.number for part in offer.proposals]
    parts = [p for p in offer.proposals if p.protocol == Protocol.ESP and numbers.count(p.number) == 1]
    if not parts:
        theirs = ", ".join(dict.fromkeys(name_of(Protocol, part.protocol) for part in offer.proposals))
        raise _refused("protocol", theirs, "ESP", policy)
    rows = [(part, transform) for part in parts for transform in part.transforms]
    modes = [_number_of(transform.attributes, Phase2Attribute.ENCAPSULATION_MODE) for _, transform in rows]
    tunnels = [row for row, mode in zip(rows, modes, strict=True) if mode is None or mode in _TUNNEL_MODES]
    if not tunnels:
        theirs = ", ".join(dict.fromkeys(name_of(EncapsulationMode, mode or 0) for mode in modes))
        raise _refused("encapsulation mode", theirs, "TUNNEL", policy)
    wanted = _UDP_MODES if in_udp else (EncapsulationMode.TUNNEL,)
    fitting = [row for row, mode in zip(rows, modes, strict=True) if mode in wanted]
    if answer and in_udp is not None and not fitting:
        theirs = name_of(EncapsulationMode, modes[0] or 0)
        raise _refused("encapsulation mode", theirs, wanted[0].name, policy)
    return fitting if fitting and in_udp is not None else tunnels


def _refused(attribute: str, theirs: str, ours: str, policy: ChildPolicy) -> NoProposalChosen:
    facts: Known = {"attribute": attribute, "theirs": theirs or "nothing", "ours": ours, "mapping": policy}
    return NoProposalChosen(code=Code.P2_PROPOSAL, **facts)


def limited(lifetimes: Lifetimes, notifies: Iterable[Notify]) -> Lifetimes:
    """The lifetimes cut to what a responder says it will keep to (RFC 2407 section 4.6.3.1)."""
    for notify in notifies:
        if notify.type == Notify1.RESPONDER_LIFETIME:
            with suppress(DecodeError):
                lifetimes = _limited(lifetimes, decode_attributes(notify.data), lifetimes.seconds)
    return lifetimes


def limited_phase1(seconds: int, notifies: Iterable[Notify]) -> int:
    """As `limited`, of the seconds of an ISAKMP SA; peers name them by the attributes of either phase."""
    for notify in notifies:
        if notify.type == Notify1.RESPONDER_LIFETIME and notify.protocol == Protocol.IKE:
            with suppress(DecodeError):
                attributes = decode_attributes(notify.data)
                kinds = (Phase1Attribute.LIFE_TYPE, Phase2Attribute.LIFE_TYPE)
                found = [_lifetime_of(attributes, kind, LifeType.SECONDS) for kind in kinds]
                seconds = _shorter(seconds, next(filter(None, found), None))
    return seconds


def _limited(ours: Lifetimes, attributes: tuple[WireAttribute, ...], default: int) -> Lifetimes:
    """The shorter of our lifetimes and those that the attributes name; `default` without seconds."""
    seconds = _lifetime_of(attributes, Phase2Attribute.LIFE_TYPE, LifeType.SECONDS) or default
    kilobytes = _lifetime_of(attributes, Phase2Attribute.LIFE_TYPE, LifeType.KILOBYTES)
    limits = [ours.kilobytes] if ours.kilobytes else []
    if kilobytes:
        limits.append(max(kilobytes, LEAST_LIFE_KILOBYTES))
    return replace(ours, seconds=_shorter(ours.seconds, seconds), kilobytes=min(limits, default=None))


def _shorter(ours: int, theirs: int | None) -> int:
    return min(ours, max(theirs or ours, LEAST_LIFE_SECONDS))


def offered_group(offer: Sa) -> int:
    """The PFS group that the proposals of a Quick1 name; 0 if none does."""
    transforms = (transform for part in offer.proposals for transform in part.transforms)
    groups = (_number_of(transform.attributes, Phase2Attribute.GROUP) for transform in transforms)
    return next(filter(None, groups), NO_GROUP)


def _phase2_transform(
    suite: Suite, lifetimes: Lifetimes, mode: EncapsulationMode, numbers: Numbers
) -> tuple[int, list[WireAttribute]]:
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
    return cipher.ikev1_esp or 0, attributes


def _decode_phase2(number: int, part: ProposalPart, transform: TransformPart, numbers: Numbers) -> Proposal:
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
        dh=_groups(values.get(Phase2Attribute.GROUP)),
        esn=(extended,),
        number=number,
        spi=part.spi,
    )


# -------------------------------------------------------------------------------------- shared


def _offer(protocol: Protocol, spi: bytes, transforms: Iterable[tuple[int, list[WireAttribute]]]) -> Sa:
    """One proposal with the first of these transforms, each an identifier and its attributes."""
    numbered = tuple(
        TransformPart(number, kind, tuple(attributes))
        for number, (kind, attributes) in enumerate(islice(transforms, MAX_TRANSFORMS), start=1)
    )
    return Sa(IPSEC_DOI, SIT_IDENTITY_ONLY, (ProposalPart(1, protocol, spi, numbered),))


def _without_strange(rows: Sequence[Row], phase: _Phase, **facts: Unpack[Known]) -> list[Row]:
    """The rows that we can agree to word for word, for an answer repeats the transform as it was offered.

    Raises NoProposalChosen with the first attribute that we do not have, if none is left of some.
    """
    usable = [row for row in rows if phase.strange(row[1]) is None]
    if rows and not usable:
        kind, theirs = phase.strange(rows[0][1]) or (0, "")
        name = name_of(phase.registry, kind).lower().replace("_", " ")
        named: Known = {"attribute": name, "theirs": f"{name} {theirs}", "ours": "an offer without it"}
        raise NoProposalChosen(code=phase.code, **(named | facts))
    return usable


def _check_single(answer: Sa, phase: _Phase) -> None:
    """The answer is one transform of one proposal (RFC 2408 section 4.2). Raises NoProposalChosen."""
    transforms = sum(len(part.transforms) for part in answer.proposals)
    if len(answer.proposals) != 1 or transforms != 1:
        theirs = f"{len(answer.proposals)} proposals with {transforms} transforms"
        raise NoProposalChosen(code=phase.code, theirs=theirs, ours="one transform of one proposal")


def _choose(
    offered: Sequence[Proposal], acceptable: Sequence[Proposal], phase: _Phase, **facts: Unpack[Known]
) -> Chosen:
    """As `choose`. Raises NoProposalChosen with both sides' words of the attribute that differs."""
    found = choose(offered, acceptable)
    if isinstance(found, Chosen):
        return found
    theirs, ours = (
        ", ".join("off" if word == "0" else word for word in side) for side in (found.theirs, found.ours)
    )
    facts |= {"attribute": found.attribute.value, "theirs": theirs, "ours": ours}
    raise NoProposalChosen(code=phase.codes.get(found.attribute, phase.code), **facts)


def _groups(number: int | None) -> tuple[int, ...]:
    return (number,) if number else ()


def _suites(proposals: Iterable[Proposal]) -> Iterator[Suite]:
    """Every combination that the proposals allow, in order of preference; the hash is the PRF as well."""
    for proposal in proposals:
        integrities = proposal.integrity or (None,)
        for cipher, integrity, group in product(proposal.encryption, integrities, proposal.dh or (NO_GROUP,)):
            prf = integrity if proposal.protocol == Protocol.IKE else None
            yield Suite(cipher, prf, integrity, group or None)


def _life(kind: int, unit: LifeType, amount: int) -> list[WireAttribute]:
    return [WireAttribute(kind, unit), WireAttribute(kind + 1, amount)]


def _lifetime_of(attributes: Iterable[WireAttribute], kind: int, unit: LifeType) -> int | None:
    """The duration that stands behind a LIFE_TYPE of `unit`."""
    return _lifetimes(attributes, kind).get(unit)


def _lifetimes(attributes: Iterable[WireAttribute], kind: int) -> dict[int, int]:
    """The first duration of each unit, by the unit in the LIFE_TYPE before it."""
    found: dict[int, int] = {}
    unit = None
    for attribute in attributes:
        if attribute.type == kind:
            unit = attribute.number
        elif attribute.type == kind + 1 and unit is not None:
            found.setdefault(unit, attribute.number)
    return found


def _number_of(attributes: Iterable[WireAttribute], kind: int) -> int | None:
    return next((attribute.number for attribute in attributes if attribute.type == kind), None)


def _first_values(attributes: Sequence[WireAttribute]) -> dict[int, int]:
    """`_number_of` for every kind, in one pass."""
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
                method = _number_of(transform.attributes, Phase1Attribute.AUTHENTICATION_METHOD) or 0
                life = _describe_life(transform.attributes, Phase1Attribute.LIFE_TYPE)
                words = describe(_decode_phase1(0, transform, numbers))
                yield head + ", ".join((words, name_of(AuthMethod1, method), *life))
            elif part.protocol == Protocol.ESP:
                mode = _number_of(transform.attributes, Phase2Attribute.ENCAPSULATION_MODE) or 0
                life = _describe_life(transform.attributes, Phase2Attribute.LIFE_TYPE)
                words = describe(_decode_phase2(0, part, transform, numbers))
                yield head + ", ".join((words, name_of(EncapsulationMode, mode), *life)) + spi
            else:
                yield f"{head}transform {transform.id}{spi}"


def _describe_life(attributes: tuple[WireAttribute, ...], kind: int) -> Iterator[str]:
    amounts = _lifetimes(attributes, kind)
    for unit, word in ((LifeType.SECONDS, "s"), (LifeType.KILOBYTES, "KB")):
        if unit in amounts:
            yield f"{amounts[unit]} {word}"
