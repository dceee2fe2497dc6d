"""What to ask a peer whose refusal does not say what it wants: attempts that differ in one thing from ours.

Each is the tunnel's own policy but for one attribute, for which everything is offered that vpnd has, ours
first. What the peer takes is what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from vpnd.crypto.suites import ENCRYPTIONS
from vpnd.model.diagnosis import Code, Diagnosis, Known
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.model.proposals import Proposal, Suite, describe_all
from vpnd.wire.iana import IkeVersion, Protocol

GROUPS = (14, 19, 20, 31, 15, 16, 21, 5, 2)
CIPHERS = ("aes-256", "aes-128", "aes-192", "3des")
AEADS = ("aes-256-gcm", "aes-128-gcm", "chacha20-poly1305")
HASHES = ("sha256", "sha512", "sha384", "sha1", "md5")
"""Ours: what is asked for, the likely ones first. It is never used: the attempt ends with the answer."""
LIKELY_CIPHERS, LIKELY_HASHES, LIKELY_GROUPS = (
    ("aes-128", "aes-256"),
    ("sha256", "sha1", "md5"),
    (14, 2, 5, 19),
)
"""Ours: of these, with one of our own first, the 24 combinations of one IKEv1 message."""


class Asked(Enum):
    """What a probe asks."""

    DH_GROUP = "the DH group"
    INTEGRITY = "the integrity algorithm"
    ENCRYPTION = "the encryption"
    ALGORITHMS = "everything"
    IDENTITY = "who the peer is"
    VERSION = "the IKE version"


ALGORITHMS = (Asked.DH_GROUP, Asked.ENCRYPTION, Asked.INTEGRITY, Asked.ALGORITHMS)


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt: what it asks, and the policy by which it is made."""

    asked: Asked
    policy: PeerPolicy


def probes(policy: PeerPolicy, failure: Diagnosis) -> tuple[Probe, ...]:
    """What may show why an attempt of this tunnel failed, in the order in which it is tried."""
    match failure.code:
        case Code.P1_PROPOSAL | Code.P1_ENCRYPTION | Code.P1_INTEGRITY | Code.P1_DH:
            return (*_of_algorithms(policy), _other_version(policy))
        case Code.SILENT | Code.VERSION | Code.PEER_REFUSED if not policy.any_address:
            return (_other_version(policy),)
        case Code.PSK if policy.version is IkeVersion.V2 and failure.fact("notify") is not None:
            # RFC 7296 section 1.2: without IDr the peer says who it is, and its AUTH proves it.
            return (Probe(Asked.IDENTITY, replace(policy, known_by_name=True, probing=True)),)
        case _:
            return ()


def found(probe: Probe, ours: PeerPolicy, suite: Suite | None) -> Diagnosis | None:
    """What it means that the peer has taken what a probe has offered."""
    if probe.asked is Asked.VERSION:
        theirs, here = (f"ikev{1 if p.version is IkeVersion.V1 else 2}" for p in (probe.policy, ours))
        return Diagnosis.of(Code.VERSION, theirs=theirs, ours=here, probed="yes")
    if suite is None:
        return None
    exchange = "IKE_SA_INIT" if ours.version is IkeVersion.V2 else "main mode"
    facts: Known = {"exchange": exchange, "notify": "NO_PROPOSAL_CHOSEN", "probed": "yes"}
    match probe.asked:
        case Asked.DH_GROUP:
            facts |= {"theirs": suite.dh, "ours": _listed(str(g) for p in ours.proposals for g in p.dh)}
            return Diagnosis.of(Code.P1_DH, **facts)
        case Asked.ENCRYPTION:
            words = _listed(word for p in ours.proposals for word in p.encryption)
            facts |= {"theirs": suite.encryption, "ours": words}
            return Diagnosis.of(Code.P1_ENCRYPTION, **facts)
        case Asked.INTEGRITY:
            words = _listed(word for p in ours.proposals for word in (p.integrity or p.prf))
            facts |= {"theirs": suite.integrity or suite.prf, "ours": words}
            return Diagnosis.of(Code.P1_INTEGRITY, **facts)
        case _:
            facts |= {"theirs": suite, "ours": describe_all(ours.proposals)}
            return Diagnosis.of(Code.P1_PROPOSAL, **facts)


def _of_algorithms(policy: PeerPolicy) -> Iterator[Probe]:
    for asked in ALGORITHMS:
        proposals = tuple(_widened(policy, asked))
        if proposals:
            mode = NegotiationMode.MAIN if policy.version is IkeVersion.V1 else None
            yield Probe(asked, replace(policy, proposals=proposals, mode=mode, probing=True))


def _widened(policy: PeerPolicy, asked: Asked) -> Iterator[Proposal]:
    """Ours with everything for one attribute, or for all."""
    if asked is Asked.ALGORITHMS:
        yield from _everything(policy.proposals[0], policy.version)
        return
    ours = policy.proposals[0]
    own_hashes = ours.integrity or ours.prf
    groups = _first(ours.dh, GROUPS) if asked is Asked.DH_GROUP else ours.dh
    hashes = _first(own_hashes, HASHES) if asked is Asked.INTEGRITY else own_hashes
    is_aead = ENCRYPTIONS[ours.encryption[0]].aead
    if asked is not Asked.ENCRYPTION:
        yield _proposal(ours.encryption, is_aead, hashes, groups)
        return
    yield _proposal(_first(ours.encryption, AEADS if is_aead else CIPHERS), is_aead, hashes, groups)
    if policy.version is IkeVersion.V2:
        yield _proposal(CIPHERS if is_aead else AEADS, not is_aead, hashes, groups)


def _everything(ours: Proposal, version: IkeVersion) -> Iterator[Proposal]:
    """All that the peer may take, ours first; of IKEv1, which has each combination, the likely ones."""
    is_aead = ENCRYPTIONS[ours.encryption[0]].aead
    own = () if is_aead else ours.encryption
    ciphers, hashes = _first(own, CIPHERS), _first(ours.integrity or ours.prf, HASHES)
    groups = _first(ours.dh, GROUPS)
    if version is IkeVersion.V1:
        few = _first(own[:1], LIKELY_CIPHERS)[:2], _first(hashes[:1], LIKELY_HASHES)[:3]
        yield _proposal(few[0], False, few[1], _first(ours.dh[:1], LIKELY_GROUPS)[:4])
        return
    yield _proposal(ciphers, False, hashes, groups)
    yield _proposal(_first(ours.encryption, AEADS) if is_aead else AEADS, True, hashes, groups)


def _proposal(
    encryption: tuple[str, ...], is_aead: bool, hashes: tuple[str, ...], groups: tuple[int, ...]
) -> Proposal:
    return Proposal(Protocol.IKE, encryption, hashes, () if is_aead else hashes, groups)


def _first(ours: tuple[object, ...], every: tuple[object, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*ours, *every)))


def _other_version(policy: PeerPolicy) -> Probe:
    """The first message of the other version: in IKEv1 of main mode, which shows nothing of us."""
    is_first = policy.version is IkeVersion.V1
    version, mode = (IkeVersion.V2, None) if is_first else (IkeVersion.V1, NegotiationMode.MAIN)
    proposals = tuple(_everything(policy.proposals[0], version))
    return Probe(
        Asked.VERSION, replace(policy, version=version, mode=mode, proposals=proposals, probing=True)
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
