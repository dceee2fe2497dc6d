"""The record of one mapping: which SA pair owns it, which others still live, and why it is not up."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.crypto.entropy import Entropy
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy
from vpnd.model.selectors import covered, describe
from vpnd.tunnel.backoff import Backoff
from vpnd.tunnel.commands import MappingState

STABLE_AFTER = 30.0
"""Ours: seconds that a mapping must have been up for its next loss to count as the first one."""


ENDED_HERE = (Code.DOWN_BY_OPERATOR, Code.LOCAL_ADDRESS)
"""Why an attempt is ended from this side, where what follows is decided: no failure, and no wish is lost."""

REFUSED = (Code.TRAFFIC_SELECTORS, Code.PEER_REFUSED)
"""What a peer says that wants no SA for a mapping."""

KEPT_FAULTS = 10
"""Ours: failures that `vpnctl show` lists for each tunnel."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure and when it happened, in seconds on the caller's clock."""

    diagnosis: Diagnosis
    at: float


@dataclass(slots=True)
class SaPair:
    """One installed SA pair: who began it, when (seconds on the caller's clock), and the path it uses now."""

    spi_in: int
    spi_out: int
    initiator: bool
    since: float
    child: ChildSa
    path: Path

    def move(self, path: Path) -> None:
        """The peer is at another address or port."""
        self.path = path


class Mapping:
    """One mapping of a tunnel.

    `owner` is the SA pair that IKE says has it; the others only receive, until IKE removes them.
    `narrowed` is said of a mapping that is up, but for less than it asks for; `with_pfs` of one whose peer
    wanted PFS, which is off here; `unrenewed` of one whose last rekey failed, so that it ends with the
    lifetime of its SAs, and `without_successor` says why they have. `offered`: the peer wants it, in one SA
    with another mapping.
    """

    __slots__ = (
        "_pairs",
        "backoff",
        "connecting",
        "index",
        "narrowed",
        "offered",
        "owner",
        "reason",
        "retry_at",
        "unrenewed",
        "up_since",
        "wanted",
        "with_pfs",
        "without_successor",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.owner: SaPair | None = None
        self._pairs: dict[int, SaPair] = {}
        self.reason: Fault | None = None
        self.narrowed: Fault | None = None
        self.with_pfs: Fault | None = None
        self.unrenewed: Fault | None = None
        self.without_successor: Diagnosis | None = None
        self.backoff = Backoff()
        self.retry_at: float | None = None
        self.up_since: float | None = None
        self.wanted = False
        self.offered = False
        self.connecting = False

    def installed(self, now: float, child: ChildSa) -> bool:
        """A new SA pair came up and owns the mapping. Whether it had none."""
        first = self.owner is None
        if first:
            self.up_since = now
        self.owner = self._add(now, child)
        return first

    def replaced(self, now: float, old_spi_in: int, child: ChildSa) -> bool:
        """A successor came up: it owns the mapping if the old pair did. Whether that had none."""
        if self.owner is None or self.owner.spi_in == old_spi_in:
            return self.installed(now, child)
        self._add(now, child)
        return False

    def use(self, spi_in: int) -> None:
        """IKE says that this SA pair carries outbound packets; one of another mapping is ignored."""
        self.owner = self._pairs.get(spi_in, self.owner)

    def removed(self, spi_in: int) -> None:
        """An SA pair is gone. Where another one takes its part, IKE has said so before."""
        self._pairs.pop(spi_in, None)
        if self.owner is not None and self.owner.spi_in == spi_in:
            if self.unrenewed is not None:
                self.without_successor = self.unrenewed.diagnosis
            self.owner = self.narrowed = self.unrenewed = self.with_pfs = None

    def _add(self, now: float, child: ChildSa) -> SaPair:
        pair = SaPair(child.spi_in, child.spi_out, child.initiator, now, child, child.path)
        self._pairs[child.spi_in] = pair
        self._settled()
        return pair

    def compare(self, now: float, policy: ChildPolicy) -> tuple[Fault, ...]:
        """Whether its SAs are what it asks for; returns what is new about that, if they are not."""
        narrowed, with_pfs = self._narrowed(now, policy), self._with_pfs(now, policy)
        return tuple(fault for fault in (narrowed, with_pfs) if fault is not None)

    def _with_pfs(self, now: float, policy: ChildPolicy) -> Fault | None:
        """The peer has asked for PFS, which is off here, and got it."""
        group = self.owner.child.suite.dh if self.owner is not None else None
        if not group or policy.pfs:
            self.with_pfs = None
            return None
        diagnosis = Diagnosis.of(Code.PFS_OF_PEER, theirs=group, ours="off", mapping=policy)
        if self.with_pfs is not None and self.with_pfs.diagnosis == diagnosis:
            return None
        self.with_pfs = Fault(diagnosis, now)
        return self.with_pfs

    def _narrowed(self, now: float, policy: ChildPolicy) -> Fault | None:
        """The peer has agreed to a part of the ranges (RFC 7296 section 2.9)."""
        child = self.owner.child if self.owner is not None else None
        if child is None or (
            covered(policy.ts_local, child.ts_local) and covered(policy.ts_remote, child.ts_remote)
        ):
            self.narrowed = None
            return None
        theirs = f"{describe(child.ts_local)} - {describe(child.ts_remote)}"
        diagnosis = Diagnosis.of(Code.NARROWED, theirs=theirs, ours=policy)
        if self.narrowed is not None and self.narrowed.diagnosis == diagnosis:
            return None
        self.narrowed = Fault(diagnosis, now)
        return self.narrowed

    # --- what is wanted, and the attempt at it

    def state(self, closed: bool) -> MappingState:
        """What an operator sees of it; one that failed is down until its next try."""
        if self.owner is not None:
            return MappingState.UP
        if closed:
            return MappingState.DOWN
        if self.connecting or (self.wanted and self.reason is None):
            return MappingState.CONNECTING
        return MappingState.WAITING if self.reason is None else MappingState.DOWN

    def set_wanted(self, wanted: bool) -> None:
        """Whether SAs for it are wanted."""
        self.wanted = wanted

    def offer(self) -> None:
        """The peer wants it too."""
        if self.owner is None:
            self.wanted = self.offered = True

    def forget_offer(self, wanted: bool) -> None:
        """The IKE SA is gone under which the peer has offered it; it will do so again under the next one."""
        if self.offered and not self.connecting:
            self.offered, self.wanted = False, wanted

    def begin(self) -> None:
        """It is negotiated."""
        self.connecting, self.retry_at = True, None

    def end(self) -> None:
        """Its negotiation has a result, or is given up."""
        self.connecting = False

    def give_up(self) -> None:
        """It is not wanted any more."""
        self.wanted = self.connecting = False

    def start_over(self) -> None:
        """Forgets what failed before: the next attempt is the first."""
        self.backoff.reset()
        self.retry_at = self.reason = self.without_successor = None

    def renewal_failed(self, fault: Fault) -> None:
        """Its SAs have found no successor."""
        self.unrenewed = fault

    def setup_failed(self, fault: Fault, retry: bool) -> None:
        """The IKE SA that it waits for did not come about; the tunnel's own timer says when to go on."""
        self.reason, self.wanted, self.retry_at = fault, retry, None

    def try_again(self, now: float, diagnosis: Diagnosis, entropy: Entropy, retry: bool) -> None:
        """Its SAs are gone; with `retry` they are negotiated again, as soon as its backoff allows."""
        self.wanted = retry
        if retry:
            self.reason = Fault(diagnosis, now)
            self.retry_at = now + self.backoff.next_delay(entropy)

    def _settled(self) -> None:
        self.wanted = self.offered = False
        self.retry_at = None
        self.reason = self.unrenewed = self.without_successor = None

    def lost(self, now: float) -> None:
        """Forgets that it was up; the backoff of a mapping that was up for long starts over."""
        if self.up_since is not None and now - self.up_since >= STABLE_AFTER:
            self.backoff.reset()
        self.up_since = None

    def failed(self, now: float, diagnosis: Diagnosis, entropy: Entropy, retry: bool) -> float | None:
        """An attempt for it failed. Returns the seconds to the next try, or None if none is wanted."""
        self.reason = Fault(diagnosis, now)
        self.connecting = False
        delay = self.backoff.next_delay(entropy)
        self.wanted = retry
        self.retry_at = now + delay
        return delay if retry else None

    def pauses(self, now: float) -> bool:
        """Whether its next try has to wait."""
        return self.retry_at is not None and self.retry_at > now

    def pairs(self) -> tuple[SaPair, ...]:
        """Every SA pair that is installed, the owner first."""
        others = tuple(pair for pair in self._pairs.values() if pair is not self.owner)
        return others if self.owner is None else (self.owner, *others)


def numbered(mappings: tuple[Mapping, ...], index: int) -> Mapping | None:
    """The mapping with this number; None for one that is not configured (any more)."""
    if index < len(mappings) and mappings[index].index == index:
        return mappings[index]
    return next((mapping for mapping in mappings if mapping.index == index), None)


def without_rule(mappings: tuple[Mapping, ...], policies: tuple[ChildPolicy, ...]) -> Diagnosis | None:
    """Which of the mappings the peer has no rule for, while others are up; None: of none it is known.

    Nothing is said before each one that is wanted has been tried.
    """
    down = [mapping for mapping in mappings if mapping.owner is None]
    tried = all(mapping.reason is not None or not mapping.wanted for mapping in down)
    refused = [m for m in down if m.reason is not None and m.reason.diagnosis.code in REFUSED]
    if len(down) == len(mappings) or not tried or not refused or refused[0].reason is None:
        return None
    indexes = {mapping.index for mapping in refused}
    rows = [row for row, policy in enumerate(policies, 1) if policy.index in indexes]
    why = refused[0].reason.diagnosis
    return Diagnosis.of(
        Code.MAPPINGS_DOWN,
        count=len(refused),
        total=len(mappings),
        places=", ".join(map(str, rows)),
        reason=why.code.value,
        exchange=why.fact("exchange"),
        notify=why.fact("notify"),
        theirs=why.fact("theirs"),
        ours=", ".join(str(policy) for policy in policies if policy.index in indexes),
    )


def as_before(mapping: Mapping, diagnosis: Diagnosis) -> Diagnosis:
    """What a refusal means to one whose SAs ended since the peer refused their successor: the same still.

    A first SA of IKEv2 is made without a key exchange, so that it showed that only PFS can differ.
    """
    before = mapping.without_successor
    same = before is not None and before.code is Code.PFS and diagnosis.code is Code.P2_PROPOSAL
    return before if before is not None and same else diagnosis


def reason_of_offer(diagnosis: Diagnosis, policy: ChildPolicy) -> Diagnosis:
    """Why a mapping that the peer has offered beside another one has no SA of its own.

    A peer that refuses it wants both in one SA, which has the selectors of one mapping here.
    """
    if diagnosis.code not in REFUSED:
        return diagnosis
    return Diagnosis.of(
        Code.NARROWED,
        exchange=diagnosis.fact("exchange"),
        notify=diagnosis.fact("notify"),
        mapping=policy,
        detail="offered beside another mapping",
    )
