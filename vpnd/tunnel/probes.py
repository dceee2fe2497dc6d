"""What to ask a peer whose refusal does not say what it wants.

Single algorithms of what is configured: some peers refuse a long list, and take one of it alone. The first
message of the other IKE version, by what is configured too; the same in main mode, of a tunnel in aggressive
mode. Who the peer is. Only where the operator allows
it (`diagnose = "all"`) also algorithms that are not configured, which shows what a peer has that takes none
of ours. IKEv2 is asked by an offer that cannot be taken as it stands, and the answer names a group if the
rest of it could be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice, product
from typing import Any

from vpnd.crypto.suites import ENCRYPTIONS
from vpnd.model.diagnosis import Code, Diagnosis, Known
from vpnd.model.policy import Diagnose, NegotiationMode, PeerPolicy, Probing
from vpnd.model.proposals import Proposal, Suite, describe_all
from vpnd.wire.iana import IkeVersion, Protocol

SINGLES = 12
"""Ours: combinations of what is configured that a peer is asked about, the preferred first."""
GROUPS = (14, 19, 20, 31, 15, 16, 21, 5, 2)
CIPHERS = ("aes-256", "aes-128", "aes-192", "3des")
AEADS = ("aes-256-gcm", "aes-128-gcm", "chacha20-poly1305")
HASHES = ("sha256", "sha512", "sha384", "sha1", "md5")
"""Ours: what is asked for beside ours where that is allowed, the likely ones first. It is never used."""
LIKELY_CIPHERS, LIKELY_HASHES, LIKELY_GROUPS = (
    ("aes-128", "aes-256"),
    ("sha256", "sha1", "md5"),
    (14, 2, 5, 19),
)
"""Ours: of these, with one of our own first, the 24 combinations of one IKEv1 message."""


class Asked(Enum):
    """What a probe asks."""

    ALONE = "one combination of ours"
    DH_GROUP = "the DH group"
    INTEGRITY = "the integrity algorithm"
    ENCRYPTION = "the encryption"
    ALGORITHMS = "everything"
    IDENTITY = "who the peer is"
    VERSION = "the IKE version"
    MODE = "the negotiation mode"


NOT_CONFIGURED = (Asked.DH_GROUP, Asked.ENCRYPTION, Asked.INTEGRITY, Asked.ALGORITHMS)


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt: what it asks, and the policy by which it is made."""

    asked: Asked
    policy: PeerPolicy

    @property
    def proves(self) -> bool:
        """Whether it goes on until both have proved who they are, and then closes what it has made."""
        return self.policy.probing is Probing.IDENTITY


def probes(policy: PeerPolicy, failure: Diagnosis, diagnose: Diagnose) -> tuple[Probe, ...]:
    """What may show why an attempt of this tunnel failed, in the order in which it is tried."""
    every = diagnose is Diagnose.ALL
    match failure.code:
        case Code.P1_PROPOSAL | Code.P1_ENCRYPTION | Code.P1_INTEGRITY | Code.P1_DH:
            others = _not_configured(policy) if every else ()
            return (
                *_main_mode(policy, Probing.OFFER),
                *_alone(policy),
                *others,
                *_other_version(policy, every),
            )
        case Code.SILENT | Code.VERSION | Code.PEER_REFUSED if not policy.any_address:
            return (*_main_mode(policy, Probing.OFFER), *_other_version(policy, every))
        case Code.IDENTITY if failure.fact("whose") == "ours":
            # strongSwan compares the mode only where it looks for the identity, also in main mode.
            return tuple(_main_mode(policy, Probing.IDENTITY))
        case Code.PSK if policy.version is IkeVersion.V2 and failure.fact("notify") is not None:
            # RFC 7296 section 1.2: without IDr the peer says who it is, and its AUTH proves it.
            asking = replace(policy, known_by_name=True, probing=Probing.IDENTITY)
            return (Probe(Asked.IDENTITY, asking),)
        case _:
            return ()


def taken(probe: Probe, group: int) -> Suite | None:
    """The suite of an offer of IKEv2 of which the peer would take this group; None if that is not in it."""
    proposal = probe.policy.proposals[0]
    if not any(group in one.dh for one in probe.policy.proposals):
        return None
    integrity = proposal.integrity[0] if proposal.integrity else None
    return Suite(proposal.encryption[0], proposal.prf[0], integrity, group)


def found(probe: Probe, ours: PeerPolicy, suite: Suite) -> Diagnosis:
    """What it means that the peer has chosen a suite of what a probe has offered."""
    if probe.asked is Asked.VERSION:
        theirs, here = (f"ikev{1 if p.version is IkeVersion.V1 else 2}" for p in (probe.policy, ours))
        return Diagnosis.of(Code.VERSION, theirs=theirs, ours=here, probed="yes")
    if probe.asked is Asked.MODE:
        return of_main_mode(probe)
    exchange = "IKE_SA_INIT" if ours.version is IkeVersion.V2 else "main mode"
    facts: Known = {"exchange": exchange, "notify": "NO_PROPOSAL_CHOSEN", "probed": "yes"}
    match probe.asked:
        case Asked.ALONE:
            facts |= {"theirs": suite, "ours": describe_all(ours.proposals), "probed": "alone"}
            return Diagnosis.of(Code.P1_PROPOSAL, **facts)
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


def of_main_mode(probe: Probe) -> Diagnosis:
    """What it means that main mode works where aggressive mode was refused."""
    key = "proved" if probe.proves else None
    facts: Known = {"theirs": "main", "ours": "aggressive", "probed": "yes", "key": key}
    return Diagnosis.of(Code.MODE, **facts | {"exchange": "aggressive mode"})


def _offer(policy: PeerPolicy, *proposals: Proposal) -> PeerPolicy:
    mode = NegotiationMode.MAIN if policy.version is IkeVersion.V1 else None
    return replace(policy, proposals=proposals, mode=mode, probing=Probing.OFFER)


def _main_mode(policy: PeerPolicy, probing: Probing) -> Iterator[Probe]:
    """What a peer has refused in aggressive mode, in main mode: that shows less of us, not more."""
    if policy.mode is not NegotiationMode.AGGRESSIVE:
        return
    group = next((one.dh[0] for one in policy.proposals if one.dh), None)
    same = tuple(replace(one, dh=(group,)) for one in policy.proposals if group in one.dh)
    yield Probe(Asked.MODE, replace(policy, proposals=same, mode=NegotiationMode.MAIN, probing=probing))


def _alone(policy: PeerPolicy) -> Iterator[Probe]:
    """Each combination of what is configured, if there are several: one was asked for already."""
    found = list(islice(_combinations(policy.proposals), SINGLES))
    if len(found) > 1:
        yield from (Probe(Asked.ALONE, _offer(policy, one)) for one in found)


def _combinations(proposals: Iterable[Proposal]) -> Iterator[Proposal]:
    for proposal in proposals:
        hashes = proposal.integrity or proposal.prf
        for cipher, word, group in product(proposal.encryption, hashes, proposal.dh):
            yield _proposal((cipher,), ENCRYPTIONS[cipher].aead, (word,), (group,))


def _not_configured(policy: PeerPolicy) -> Iterator[Probe]:
    for asked in NOT_CONFIGURED:
        proposals = tuple(_widened(policy, asked))
        if policy.version is IkeVersion.V1:
            yield Probe(asked, _offer(policy, *proposals))
        else:
            # The answer names a group and nothing else, so that each of the rest is asked about by itself.
            for proposal in proposals:
                for cipher, word in product(proposal.encryption, proposal.integrity or proposal.prf):
                    is_aead = ENCRYPTIONS[cipher].aead
                    alone = _proposal((cipher,), is_aead, (word,), proposal.dh)
                    yield Probe(asked, _offer(policy, alone))


def _widened(policy: PeerPolicy, asked: Asked) -> Iterator[Proposal]:
    """Ours with everything for one attribute, or for all; in IKEv2 without what is ours of that."""
    ours, at_once = policy.proposals[0], policy.version is IkeVersion.V1
    if asked is Asked.ALGORITHMS:
        yield from _everything(ours, policy.version)
        return
    own_hashes = ours.integrity or ours.prf
    groups = _first(ours.dh, GROUPS) if asked is Asked.DH_GROUP else ours.dh
    hashes = own_hashes if at_once or asked is not Asked.INTEGRITY else ()
    hashes = _first(hashes, HASHES) if asked is Asked.INTEGRITY else hashes
    is_aead = ENCRYPTIONS[ours.encryption[0]].aead
    if asked is not Asked.ENCRYPTION:
        yield _proposal(ours.encryption, is_aead, hashes, groups)
        return
    own = ours.encryption if at_once else ()
    yield _proposal(_first(own, AEADS if is_aead else CIPHERS), is_aead, hashes, groups)
    if not at_once:
        yield _proposal(CIPHERS if is_aead else AEADS, not is_aead, hashes, groups)


def _everything(ours: Proposal, version: IkeVersion) -> Iterator[Proposal]:
    """All that the peer may take, ours first; of IKEv1, which has each combination, the likely ones."""
    is_aead = ENCRYPTIONS[ours.encryption[0]].aead
    own, hashes = () if is_aead else ours.encryption, _first(ours.integrity or ours.prf, HASHES)
    if version is IkeVersion.V1:
        few = _first(own[:1], LIKELY_CIPHERS)[:2], _first(hashes[:1], LIKELY_HASHES)[:3]
        yield _proposal(few[0], False, few[1], _first(ours.dh[:1], LIKELY_GROUPS)[:4])
        return
    groups = _first(ours.dh, GROUPS)
    yield _proposal(LIKELY_CIPHERS, False, LIKELY_HASHES, groups)
    yield _proposal(AEADS[:2], True, hashes[:2], groups)


def _proposal(
    encryption: tuple[str, ...], is_aead: bool, hashes: tuple[str, ...], groups: tuple[int, ...]
) -> Proposal:
    return Proposal(Protocol.IKE, encryption, hashes, () if is_aead else hashes, groups)


def _first(ours: tuple[object, ...], every: tuple[object, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*ours, *every)))


def _other_version(policy: PeerPolicy, every: bool) -> Iterator[Probe]:
    """The first message of the other version: in IKEv1 of main mode, which shows nothing of us."""
    version = IkeVersion.V2 if policy.version is IkeVersion.V1 else IkeVersion.V1
    if every:
        proposals = tuple(_everything(policy.proposals[0], version))
    else:
        proposals = tuple(
            _proposal(one.encryption, is_aead, one.integrity or one.prf, one.dh)
            for one in policy.proposals
            # IKEv1 has no AEAD cipher in phase 1.
            if not (is_aead := ENCRYPTIONS[one.encryption[0]].aead) or version is IkeVersion.V2
        )
    if proposals:
        yield Probe(Asked.VERSION, _offer(replace(policy, version=version), *proposals))


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))
