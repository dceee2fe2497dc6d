"""SA payloads and proposals in words, for the ladder and for diagnoses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vpnd.ike.v1.proposals import decode_phase1, decode_phase2, lifetime_of, number_of
from vpnd.model.numbers import Numbers
from vpnd.model.proposals import Proposal
from vpnd.wire.attributes import Attribute
from vpnd.wire.iana import (
    AuthMethod1,
    EncapsulationMode,
    LifeType,
    Phase1Attribute,
    Phase2Attribute,
    Protocol,
    name_of,
)
from vpnd.wire.ikev1 import ProposalPart, Sa, TransformPart


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


def _describe_life(attributes: tuple[Attribute, ...], kind: int) -> Iterator[str]:
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
