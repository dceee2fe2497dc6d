"""Between configuration words and the SA payloads of both phases (RFC 2409 appendix A, RFC 2407 section 4.5).

An IKEv1 transform is one combination, not a list of alternatives, so each `Proposal` of the policy becomes
the product of its words, the preferred first, and each transform that is read becomes a `Proposal` with one
word for each attribute, whose `number` is the transform's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from vpnd.crypto import suites
from vpnd.ike.v1.faults import NoProposalChosen
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy, Lifetimes
from vpnd.model.proposals import NO_GROUP, Attribute, Mismatch, Proposal, Suite, choose
from vpnd.wire.attributes import Attribute as WireAttribute
from vpnd.wire.iana import (
    AuthMethod1,
    EncapsulationMode,
    LifeType,
    Phase1Attribute,
    Phase2Attribute,
    Protocol,
    TransformId1,
    name_of,
)
from vpnd.wire.ikev1 import IPSEC_DOI, SIT_IDENTITY_ONLY, ProposalPart, Sa, TransformPart

MAX_TRANSFORMS = 24
"""Of one offer: what fits into a datagram that no path cuts; the preferred ones come first."""
DEFAULT_LIFE_SECONDS = 28800
"""Of a phase-2 SA whose proposal names no lifetime (RFC 2407 section 4.5.4)."""

_TUNNEL_MODES = {
    EncapsulationMode.TUNNEL,
    EncapsulationMode.UDP_TUNNEL,
    EncapsulationMode.UDP_TUNNEL_DRAFT,
}
_PHASE1_CODES = {
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

    def answer(self, spi: bytes) -> Sa:
        """The SA payload of Quick2: the transform as it was offered, with our SPI."""
        part = ProposalPart(self.part.number, self.part.protocol, spi, (self.transform,))
        return Sa(IPSEC_DOI, SIT_IDENTITY_ONLY, (part,))


# ------------------------------------------------------------------------------------- phase 1


def offer_phase1(proposals: Iterable[Proposal], lifetime: int, group: int | None = None) -> Sa:
    """The SA payload of Main1 or Aggressive1; with `group`, only transforms of that group."""
    transforms: list[TransformPart] = []
    for suite in _suites(proposals):
        if group is not None and suite.dh != group:
            continue
        transforms.append(_phase1_transform(len(transforms) + 1, suite, lifetime))
        if len(transforms) == MAX_TRANSFORMS:
            break
    part = ProposalPart(1, Protocol.IKE, b"", tuple(transforms))
    return Sa(IPSEC_DOI, SIT_IDENTITY_ONLY, (part,))


def first_group(proposals: Iterable[Proposal]) -> int:
    """The group that an aggressive mode begins with: it cannot be negotiated (RFC 2409 section 5.4)."""
    return next((proposal.dh[0] for proposal in proposals if proposal.dh), NO_GROUP)


def choose_phase1(offer: Sa, acceptable: Iterable[Proposal], lifetime: int) -> Phase1Choice:
    """The best transform of a peer's offer, or the check of its answer to ours.

    Raises NoProposalChosen with the attribute that differs and both sides' values.
    """
    rows: dict[int, tuple[ProposalPart, TransformPart]] = {}
    methods: set[int] = set()
    for part in offer.proposals:
        for transform in part.transforms:
            if part.protocol == Protocol.IKE and transform.id == TransformId1.KEY_IKE:
                methods.add(_number(transform.attributes, Phase1Attribute.AUTHENTICATION_METHOD) or 0)
                rows[len(rows)] = (part, transform)
    psk = {
        index: row
        for index, row in rows.items()
        if _number(row[1].attributes, Phase1Attribute.AUTHENTICATION_METHOD) == AuthMethod1.PRE_SHARED_KEY
    }
    if rows and not psk:
        theirs = ", ".join(name_of(AuthMethod1, method) for method in sorted(methods))
        ours = AuthMethod1.PRE_SHARED_KEY.name
        raise NoProposalChosen(diagnosis=Diagnosis.of(Code.P1_AUTH_METHOD, theirs=theirs, ours=ours))
    offered = [_phase1_proposal(index, transform) for index, (_, transform) in psk.items()]
    chosen = choose(offered, tuple(acceptable))
    if isinstance(chosen, Mismatch):
        raise NoProposalChosen(diagnosis=mismatch(chosen, _PHASE1_CODES, Code.P1_PROPOSAL))
    part, transform = psk[chosen.number]
    theirs_seconds = _lifetime(transform.attributes, Phase1Attribute.LIFE_TYPE, LifeType.SECONDS)
    answer = Sa(
        offer.doi,
        offer.situation,
        (ProposalPart(part.number, part.protocol, part.spi, (transform,)),),
    )
    return Phase1Choice(chosen.suite, min(lifetime, theirs_seconds or lifetime), answer)


def _phase1_transform(number: int, suite: Suite, lifetime: int) -> TransformPart:
    cipher = suites.ENCRYPTIONS[suite.encryption]
    attributes = [
        WireAttribute(Phase1Attribute.ENCRYPTION, cipher.ikev1_phase1 or 0),
        WireAttribute(Phase1Attribute.HASH, suites.INTEGRITIES[suite.prf or ""].ikev1_hash or 0),
        WireAttribute(Phase1Attribute.AUTHENTICATION_METHOD, AuthMethod1.PRE_SHARED_KEY),
        WireAttribute(Phase1Attribute.GROUP, suite.dh or NO_GROUP),
    ]
    if cipher.sends_key_length:
        attributes.append(WireAttribute(Phase1Attribute.KEY_LENGTH, cipher.key_bits))
    attributes += _life(Phase1Attribute.LIFE_TYPE, LifeType.SECONDS, lifetime)
    return TransformPart(number, TransformId1.KEY_IKE, tuple(attributes))


def _phase1_proposal(number: int, transform: TransformPart) -> Proposal:
    attributes = transform.attributes
    cipher_number = _number(attributes, Phase1Attribute.ENCRYPTION) or 0
    bits = _number(attributes, Phase1Attribute.KEY_LENGTH)
    hash_number = _number(attributes, Phase1Attribute.HASH) or 0
    cipher = suites.encryption_of_phase1(cipher_number, bits)
    row = suites.hash_of_phase1(hash_number)
    word = row.word if row else f"hash-{hash_number}"
    return Proposal(
        Protocol.IKE,
        encryption=(cipher.word if cipher else _unknown("encr", cipher_number, bits),),
        prf=(word,),
        integrity=(word,),
        dh=(_number(attributes, Phase1Attribute.GROUP) or NO_GROUP,),
        number=number,
    )


# ------------------------------------------------------------------------------------- phase 2


def offer_phase2(policy: ChildPolicy, spi: bytes, group: int, mode: EncapsulationMode) -> Sa:
    """The SA payload of Quick1. `group` is that of the KE payload, 0 without PFS: every transform has it."""
    transforms: list[TransformPart] = []
    for suite in _suites(policy.proposals):
        if (suite.dh or NO_GROUP) == group and len(transforms) < MAX_TRANSFORMS:
            transforms.append(_phase2_transform(len(transforms) + 1, suite, policy.lifetimes, mode))
    part = ProposalPart(1, Protocol.ESP, spi, tuple(transforms))
    return Sa(IPSEC_DOI, SIT_IDENTITY_ONLY, (part,))


def choose_phase2(offer: Sa, policy: ChildPolicy, group: int) -> Phase2Choice:
    """The best transform of a peer's offer, or the check of its answer to ours.

    `group` is that of the peer's KE payload as its proposals name it, 0 without one. Raises NoProposalChosen.
    """
    rows: dict[int, tuple[ProposalPart, TransformPart]] = {}
    for part in offer.proposals:
        for transform in part.transforms:
            mode = _number(transform.attributes, Phase2Attribute.ENCAPSULATION_MODE)
            if part.protocol == Protocol.ESP and (mode is None or mode in _TUNNEL_MODES):
                rows[len(rows)] = (part, transform)
    offered = [_phase2_proposal(index, part, transform) for index, (part, transform) in rows.items()]
    chosen = choose(offered, policy.proposals)
    if isinstance(chosen, Mismatch):
        raise NoProposalChosen(
            diagnosis=mismatch(chosen, _PHASE2_CODES, Code.P2_PROPOSAL, mapping=str(policy))
        )
    if (chosen.suite.dh or NO_GROUP) != group:
        facts = {"theirs": group or "off", "ours": chosen.suite.dh or "off"}
        raise NoProposalChosen(diagnosis=Diagnosis.of(Code.PFS, mapping=str(policy), **facts))
    part, transform = rows[chosen.number]
    life = policy.lifetimes
    seconds = _lifetime(transform.attributes, Phase2Attribute.LIFE_TYPE, LifeType.SECONDS)
    kilobytes = _lifetime(transform.attributes, Phase2Attribute.LIFE_TYPE, LifeType.KILOBYTES)
    limits = [value for value in (life.kilobytes, kilobytes) if value]
    agreed = Lifetimes(min(life.seconds, seconds or DEFAULT_LIFE_SECONDS), min(limits, default=None))
    return Phase2Choice(chosen.suite, agreed, part.spi, part, transform)


def offered_group(offer: Sa) -> int:
    """The PFS group that the proposals of a Quick1 name; 0 if none does."""
    for part in offer.proposals:
        for transform in part.transforms:
            group = _number(transform.attributes, Phase2Attribute.GROUP)
            if group:
                return group
    return NO_GROUP


def _phase2_transform(
    number: int, suite: Suite, lifetimes: Lifetimes, mode: EncapsulationMode
) -> TransformPart:
    cipher = suites.ENCRYPTIONS[suite.encryption]
    attributes = [WireAttribute(Phase2Attribute.ENCAPSULATION_MODE, mode)]
    attributes += _life(Phase2Attribute.LIFE_TYPE, LifeType.SECONDS, lifetimes.seconds)
    if lifetimes.kilobytes is not None:
        attributes += _life(Phase2Attribute.LIFE_TYPE, LifeType.KILOBYTES, lifetimes.kilobytes)
    if suite.integrity is not None:
        authentication = suites.INTEGRITIES[suite.integrity].ikev1_esp or 0
        attributes.append(WireAttribute(Phase2Attribute.AUTHENTICATION, authentication))
    if cipher.sends_key_length:
        attributes.append(WireAttribute(Phase2Attribute.KEY_LENGTH, cipher.key_bits))
    if suite.dh:
        attributes.append(WireAttribute(Phase2Attribute.GROUP, suite.dh))
    return TransformPart(number, cipher.ikev1_esp or 0, tuple(attributes))


def _phase2_proposal(number: int, part: ProposalPart, transform: TransformPart) -> Proposal:
    attributes = transform.attributes
    bits = _number(attributes, Phase2Attribute.KEY_LENGTH)
    authentication = _number(attributes, Phase2Attribute.AUTHENTICATION)
    cipher = suites.encryption_of_esp1(transform.id, bits)
    row = suites.integrity_of_esp1(authentication) if authentication else None
    word = row.word if row else f"auth-{authentication}"
    return Proposal(
        Protocol.ESP,
        encryption=(cipher.word if cipher else _unknown("esp", transform.id, bits),),
        integrity=(word,) if authentication else (),
        dh=(_number(attributes, Phase2Attribute.GROUP) or NO_GROUP,),
        number=number,
        spi=part.spi,
    )


# -------------------------------------------------------------------------------------- shared


def mismatch(found: Mismatch, codes: dict[Attribute, Code], otherwise: Code, **facts: object) -> Diagnosis:
    """The diagnosis of an attribute without a common value, with both sides' words."""
    theirs, ours = (
        ", ".join("off" if word == "0" else word for word in side) for side in (found.theirs, found.ours)
    )
    code = codes.get(found.attribute, otherwise)
    return Diagnosis.of(code, attribute=found.attribute.value, theirs=theirs, ours=ours, **facts)


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


def _lifetime(attributes: Iterable[WireAttribute], kind: int, unit: LifeType) -> int | None:
    """The duration that stands behind a LIFE_TYPE of `unit`, or None."""
    current = None
    for attribute in attributes:
        if attribute.type == kind:
            current = attribute.number
        elif attribute.type == kind + 1 and current == unit:
            return attribute.number
    return None


def _number(attributes: Iterable[WireAttribute], kind: int) -> int | None:
    return next((attribute.number for attribute in attributes if attribute.type == kind), None)


def _unknown(kind: str, number: int, bits: int | None) -> str:
    return f"{kind}-{number}" if bits is None else f"{kind}-{number}-{bits}"
