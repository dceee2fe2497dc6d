"""What may protect an SA, in configuration words: a proposal's alternatives, and the choice among them.

Both IKE versions translate their payloads to and from these values, so one `choose` serves both and a
mismatch can be named with both sides' words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from vpnd.wire.iana import Protocol


class Attribute(Enum):
    """What a proposal has alternatives of; the value is the configuration key."""

    PROTOCOL = "protocol"
    ENCRYPTION = "encryption"
    PRF = "prf"
    INTEGRITY = "integrity"
    DH_GROUP = "dh_group"
    ESN = "esn"
    ADDITION = "additional key exchange"


NO_GROUP = 0
"""The DH "group" of a proposal that also works without a key exchange (transform NONE)."""
NO_INTEGRITY = "none"
"""The integrity word of a proposal that also works without such an algorithm, for an AEAD cipher."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """One proposal: for each attribute the alternatives, the preferred first.

    `encryption`, `prf` and `integrity` hold configuration words (`aes-128`, `sha256`); a transform that has
    no word is written `encr-99`, `prf-99`, `integ-99`, with `-KEYLENGTH` behind it where it had one. `dh`
    holds group numbers, 0 for "none"; empty means that no group was listed. `integrity` is empty for an
    AEAD cipher, or has "none" among others. `esn` is empty where none was listed. `spi` is the sender's SPI:
    empty, or 4 or 8 bytes.

    Transforms of other types are a peer's only. `demands` are those that it insists on, in words: nothing
    here can satisfy them. `declinable` are the types whose list has NONE, so that they can be declined.
    """

    protocol: Protocol
    encryption: tuple[str, ...]
    prf: tuple[str, ...] = ()
    integrity: tuple[str, ...] = ()
    dh: tuple[int, ...] = ()
    esn: tuple[bool, ...] = (False,)
    number: int = 1
    spi: bytes = b""
    demands: tuple[str, ...] = ()
    declinable: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Suite:
    """The chosen algorithms of one SA: one word for each attribute.

    `integrity` is None with an AEAD cipher, `prf` is None for a child, `dh` is None without a key exchange.
    `icv_length` is in bytes, where the integrity algorithm's is not the one of the table (HMAC-SM3).
    """

    encryption: str
    prf: str | None
    integrity: str | None
    dh: int | None
    esn: bool = False
    icv_length: int | None = None

    def __str__(self) -> str:
        words = [self.encryption, self.integrity or "", f"dh{self.dh}" if self.dh else ""]
        return "/".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The proposal that was taken: its number and SPI as offered, and the suite.

    `offer` is that proposal whole: an answer has one alternative of each kind that it lists.
    """

    number: int
    spi: bytes
    suite: Suite
    offer: Proposal | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why nothing was chosen: the first attribute with nothing in common in the closest proposal."""

    attribute: Attribute
    theirs: tuple[str, ...]
    ours: tuple[str, ...]


def choose(offered: Sequence[Proposal], acceptable: Sequence[Proposal]) -> Chosen | Mismatch:
    """The first of our `acceptable` proposals that one `offered` can satisfy, with our preferences first.

    The caller gives `acceptable` in its own order of preference; the responder's order decides, as RFC 7296
    section 2.7 leaves it to do.
    """
    closest: Mismatch | None = None
    depth = -1
    for ours in acceptable:
        for theirs in offered:
            outcome, reached = _match(theirs, ours)
            if isinstance(outcome, Chosen):
                return outcome
            if reached > depth:
                closest, depth = outcome, reached
    if closest is None:
        return Mismatch(Attribute.PROTOCOL, (), tuple(str(p.protocol.name) for p in acceptable))
    return closest


COMPARED: tuple[tuple[Attribute, Callable[[Proposal], tuple[object, ...]]], ...] = (
    (Attribute.ENCRYPTION, lambda proposal: proposal.encryption),
    (Attribute.INTEGRITY, lambda proposal: proposal.integrity or (NO_INTEGRITY,)),
    (Attribute.PRF, lambda proposal: proposal.prf),
    (Attribute.ESN, lambda proposal: proposal.esn or (False,)),
    (Attribute.DH_GROUP, lambda proposal: proposal.dh or (NO_GROUP,)),
)
"""What two proposals are compared by, in this order; most of many differ in the first.

The DH group is the last: a CHILD_SA that was refused without a key exchange is asked for again with one,
and what was wrong the first time is wrong then too.
"""


def _match(theirs: Proposal, ours: Proposal) -> tuple[Chosen | Mismatch, int]:
    """The suite both allow, or the first attribute that differs and how many agreed before it."""
    if theirs.protocol != ours.protocol:
        return Mismatch(Attribute.PROTOCOL, (theirs.protocol.name,), (ours.protocol.name,)), 0
    picked: list[object] = []
    for reached, (attribute, words) in enumerate(COMPARED, start=1):
        their_words, our_words = words(theirs), words(ours)
        common = next((word for word in our_words if word in their_words), None)
        if common is None and (their_words or our_words):
            return Mismatch(attribute, _words(their_words), _words(our_words)), reached
        picked.append(common)
    if theirs.demands:
        return Mismatch(Attribute.ADDITION, theirs.demands, ("none",)), len(COMPARED) + 1
    encryption, integrity, prf, esn, dh = picked
    suite = Suite(
        encryption=str(encryption),
        prf=_word(prf),
        integrity=None if integrity == NO_INTEGRITY else str(integrity),
        dh=int(str(dh)) or None,
        esn=bool(esn),
    )
    return Chosen(theirs.number, theirs.spi, suite, theirs), len(COMPARED)


def as_offer(suite: Suite) -> Proposal:
    """The suite of an IKE SA as the one proposal of a peer."""
    integrity = (suite.integrity,) if suite.integrity else ()
    return Proposal(Protocol.IKE, (suite.encryption,), (suite.prf or "",), integrity, (suite.dh or NO_GROUP,))


def describe(proposal: Proposal) -> str:
    """`aes-128/sha256/dh14`, alternatives joined by `+`: for a ladder or a diagnosis."""
    words = [
        "+".join(proposal.encryption),
        "+".join(word for word in proposal.integrity if word != NO_INTEGRITY),
        "+".join(f"prf-{word}" for word in proposal.prf if word not in proposal.integrity),
        "+".join(f"dh{group}" if group else "no-dh" for group in proposal.dh),
        "esn" if True in proposal.esn else "",
    ]
    return "/".join(word for word in words if word)


def describe_all(proposals: Iterable[Proposal]) -> str:
    """All proposals, in order."""
    return ", ".join(map(describe, proposals))


def _word(value: object) -> str | None:
    return None if value is None else str(value)


_FLAGS = {True: "on", False: "off"}


def _words(values: tuple[object, ...]) -> tuple[str, ...]:
    return tuple(_FLAGS[value] if isinstance(value, bool) else str(value) for value in values) or ("none",)
