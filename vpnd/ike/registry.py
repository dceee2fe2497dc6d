"""What all sessions of one gateway share: policies, SPIs, the half-open count, outputs and timers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from vpnd.crypto.entropy import Entropy
from vpnd.ike.deadlines import Deadlines
from vpnd.ike.faults import Drop
from vpnd.ike.half_open import HalfOpen
from vpnd.ike.lately import Lately
from vpnd.ike.limits import (
    REFUSALS_BY_ADDRESS,
    REFUSALS_IN_ALL,
    UNPROVED_KEYS_BY_ADDRESS,
    UNPROVED_KEYS_IN_ALL,
    Limits,
)
from vpnd.ike.outputs import Failed, LadderLine, Output
from vpnd.ike.pairs import Pairs
from vpnd.ike.renewals import Renewals
from vpnd.ike.session import Phase, Session
from vpnd.ike.snapshot import Snapshot
from vpnd.ike.throttle import FREE_FAILURES, PER_SECOND, Throttle
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import PeerPolicy
from vpnd.model.selectors import Address
from vpnd.model.text import LONGEST_HEADLINE, LONGEST_TEXT, cut, cut_lines
from vpnd.wire.iana import IkeVersion

SMALLEST_ESP_SPI = 256
"""SPIs 1 to 255 are reserved by IANA (RFC 4303 section 2.1)."""
NO_SPI = bytes(8)
"""The responder's SPI in the first message of an IKE SA."""


@dataclass(frozen=True, slots=True)
class InitKey:
    """What a repeated first message has in common with the first: the peer's SPI, address and port."""

    peer_spi: bytes
    remote: Address
    remote_port: int


class Registry:
    """The sessions of one gateway and what they share. Endpoint owns it; each session is made with it."""

    def __init__(self, entropy: Entropy, limits: Limits) -> None:
        self.entropy = entropy
        self.limits = limits
        self.outputs: deque[Output] = deque()
        self.counters: Counter[str] = Counter()
        self.policies: dict[str, PeerPolicy] = {}
        self._index: _PolicyIndex | None = None
        self._throttle = Throttle()
        self.changed: deque[Session] = deque()
        self.reinitiating: deque[str] = deque()
        """Tunnels for which an IKE SA beside the present one is to be begun."""
        self.beginning_again: deque[tuple[str, tuple[int, ...]]] = deque()
        """Tunnels, and mappings of theirs, whose attempt was refused and is begun at once in another way."""
        self.renewals = Renewals()
        self.childless: set[str] = set()
        """Tunnels whose peer wants the first CHILD_SA after IKE_AUTH, as a refusal has shown (RFC 6023)."""
        self.refused_for_child: set[str] = set()
        """Tunnels whose last attempt was refused for its CHILD_SA, or the lack of it."""
        self._pairs = Pairs()
        self._rekeys_proved: dict[str, PeerPolicy] = {}
        self._sessions: dict[bytes, Session] = {}
        self._by_tunnel: dict[str, dict[Session, None]] = {}
        self._tunnel_of: dict[Session, str] = {}
        self._attempts: dict[Session, None] = {}
        self._init_of: dict[Session, InitKey] = {}
        self._half_open = HalfOpen()
        self._refusals = Lately(REFUSALS_BY_ADDRESS, REFUSALS_IN_ALL)
        self._unproved_keys = Lately(UNPROVED_KEYS_BY_ADDRESS, UNPROVED_KEYS_IN_ALL)
        self._by_init: dict[InitKey, Session] = {}
        self._esp_spis: set[int] = set()
        self._deadlines: Deadlines[Session] = Deadlines()

    def snapshot(self) -> Snapshot:
        """What is held at this moment."""
        return Snapshot(
            sas=tuple(session.snapshot() for session in self._sessions.values()),
            esp_spis=frozenset(self._esp_spis),
            half_open=self._half_open.addresses(),
            first_messages=len(self._by_init),
            deadlines=len(self._deadlines),
            queued=self._deadlines.entries,
        )

    # --- effects

    def emit(self, output: Output) -> None:
        """Append one effect for the caller of Endpoint, after the change of what sends that goes with it."""
        if (ready := self._pairs.follow(output)) is not None:
            self.outputs.append(ready)
        self.outputs.append(output)

    def draw(
        self,
        tunnel: str,
        outbound: bool,
        text: str,
        size: int,
        detail: Iterable[str] = (),
        stranger: bool = False,
    ) -> None:
        """One rung of the ladder; no more of `detail` is made than is kept.

        `stranger`: it belongs to an attempt whose peer has not proved itself. While there are many of those
        the details are left out: of a flood a few lines are kept, and most details would be made in vain.
        """
        many = stranger and len(self._half_open) >= self.limits.half_open_before_cookies
        lines = () if many else cut_lines(detail, LONGEST_TEXT - LONGEST_HEADLINE)
        self.emit(LadderLine(tunnel, outbound, cut(text, LONGEST_HEADLINE), size, lines, stranger))

    def count(self, reason: str) -> None:
        """A message was dropped for `reason`. Reasons are few and ours, never a peer's words."""
        self.counters[reason] += 1

    # --- policies

    def set_policy(self, policy: PeerPolicy) -> None:
        """Add or change the tunnel of this name."""
        self.policies[policy.name] = policy
        self._index = None

    def remove_policy(self, name: str) -> None:
        """Forget a tunnel; an unknown name is ignored."""
        self.policies.pop(name, None)
        self.childless.discard(name)
        self.refused_for_child.discard(name)
        self.renewals.forget(name)
        self._rekeys_proved.pop(name, None)
        self._index = None

    def candidates(self, version: IkeVersion, path: Path) -> tuple[PeerPolicy, ...]:
        """The tunnels between the two addresses of `path` that speak `version`, in configuration order."""
        return self._indexed().candidates(version, path)

    def between(self, path: Path) -> tuple[PeerPolicy, ...]:
        """The tunnels between the two addresses of `path`, whatever they speak.

        Those that have the peer's address come first, then those whose peer may have any.
        """
        return self._indexed().candidates(None, path)

    def distinct(self, version: IkeVersion, path: Path) -> tuple[PeerPolicy, ...]:
        """Of the candidates the first of each kind: before the identity is known the others are the same."""
        return self._indexed().distinct(version, path)

    def knows(self, path: Path) -> bool:
        """Whether a tunnel has the peer's address in its configuration."""
        return (path.local, path.remote) in self._indexed().between

    def sharing_identities(self, policy: PeerPolicy) -> int:
        """How many tunnels have the identity pair of `policy`, itself included."""
        return self._indexed().identities[policy.local_id.key, policy.remote_id.key]

    def _indexed(self) -> _PolicyIndex:
        if self._index is None:
            self._index = _PolicyIndex(self.policies.values())
        return self._index

    def has_rekey_to_prove(self, policy: PeerPolicy) -> bool:
        """Whether it is not known yet how the peer takes a rekey under this policy."""
        return policy.prove_rekey and self._rekeys_proved.get(policy.name) != policy

    def rekey_is_proved(self, policy: PeerPolicy) -> None:
        """A CHILD_SA was rekeyed under this policy, or the peer has said that it cannot be."""
        if policy.prove_rekey and policy.name in self.policies:
            self._rekeys_proved[policy.name] = policy

    # --- sessions

    def add(self, session: Session, init_key: InitKey | None = None) -> None:
        """Messages to `session.local_spi` are the session's from now on, and repeats of its first message."""
        self._sessions[session.local_spi] = session
        self._file(session)
        if session.initiator and session.phase is Phase.CONNECTING:
            self._attempts[session] = None
        if init_key is not None:
            self._by_init[init_key] = session
            self._init_of[session] = init_key

    def forget(self, session: Session) -> None:
        """The session is gone: no message and no timer reaches it any more."""
        self.half_open_ends(session)
        self._sessions.pop(session.local_spi, None)
        self._deadlines.disarm(session)
        self._attempts.pop(session, None)
        self._unfile(session)
        key = self._init_of.pop(session, None)
        if key is not None and self._by_init.get(key) is session:
            del self._by_init[key]

    def find(self, local_spi: bytes) -> Session | None:
        """The session whose SPI this is."""
        return self._sessions.get(local_spi)

    def find_init(self, key: InitKey) -> Session | None:
        """The session that a first message with this key has made."""
        return self._by_init.get(key)

    def forget_init(self, key: InitKey) -> None:
        """A first message with this key begins again; the session of an earlier one is found by SPI only."""
        self._by_init.pop(key, None)

    def sessions(self, tunnel: str | None = None) -> Iterator[Session]:
        """All sessions, or those of one tunnel, oldest first. A copy: the caller may end them meanwhile."""
        return iter(tuple(self._sessions.values() if tunnel is None else self._by_tunnel.get(tunnel, ())))

    def attempts(self) -> Iterator[Session]:
        """Our own attempts that are under way, oldest first."""
        return iter(tuple(self._attempts))

    def established(self, tunnel: str) -> Session | None:
        """The newest established session of a tunnel."""
        found = [s for s in self.sessions(tunnel) if s.phase is Phase.ESTABLISHED]
        return found[-1] if found else None

    def phase_changed(self, session: Session) -> None:
        """Endpoint looks at this session after the present input; its tunnel may have changed as well."""
        if session.phase is not Phase.CONNECTING:
            self._attempts.pop(session, None)
        if self._tunnel_of.get(session, session.tunnel) != session.tunnel:
            self._unfile(session)
            self._file(session)
        self.changed.append(session)

    def _file(self, session: Session) -> None:
        self._tunnel_of[session] = session.tunnel
        self._by_tunnel.setdefault(session.tunnel, {})[session] = None

    def _unfile(self, session: Session) -> None:
        tunnel = self._tunnel_of.pop(session, None)
        if tunnel is not None:
            filed = self._by_tunnel[tunnel]
            filed.pop(session, None)
            if not filed:
                del self._by_tunnel[tunnel]

    # --- peers that do not prove their key

    def admit(self, now: float, address: Address) -> None:
        """A peer's new attempt is about to cost a key exchange. Raises Drop if it failed too often before."""
        if not self._throttle.admits(now, address):
            raise Drop("too many attempts with a wrong key")

    def not_proved(self, now: float, tunnel: str, address: Address) -> None:
        """A peer's attempt at this tunnel ended without the proof of its key. A flood is logged."""
        if self._throttle.failed(now, address):
            detail = f"{FREE_FAILURES} failed; from now on {PER_SECOND:.0f} each second is looked at"
            diagnosis = Diagnosis.of(Code.FLOOD, peer=address, detail=detail)
            self.emit(Failed(tunnel, diagnosis, initiator=False, unproven=True))

    def proved(self, address: Address) -> None:
        """A peer at this address has proved its key."""
        self._throttle.proved(address)

    # --- half-open responders

    def is_crowded(self, now: float, address: Address) -> bool:
        """Whether a newcomer at `address` has to prove it: many are half-open, or were refused lately.

        Who forges the address of a peer brings it to this, and no further (RFC 7296 section 2.6).
        """
        limits, refusals = self.limits, self._refusals
        here = self._half_open.of(address) + refusals.of(now, address)
        everywhere = len(self._half_open) + refusals.in_all(now)
        return (
            here >= limits.half_open_before_cookies_per_address
            or everywhere >= limits.half_open_before_cookies
        )

    def refused_first(self, now: float, address: Address) -> None:
        """A first message from `address` came to nothing, and left no state."""
        self._refusals.add(now, address)

    def check_room(self, address: Address) -> None:
        """A peer that has proved its address may have one more half-open attempt. Raises Drop if not."""
        if self._half_open.proved_of(address) >= self.limits.half_open_per_address:
            raise Drop("half-open: too many of this address")

    def half_open_begins(self, now: float, session: Session, address: Address, proved: bool) -> None:
        """A peer's attempt has taken state here, unauthenticated; the oldest goes if there are too many."""
        half_open, limits = self._half_open, self.limits
        half_open.begin(session, address, proved)
        while half_open.unproved_of(address) > limits.half_open_unproved_per_address:
            self._make_room(now, half_open.oldest(address))
        while len(half_open) > limits.half_open_in_all:
            self._make_room(now, half_open.oldest())

    def address_proved(self, session: Session, address: Address) -> None:
        """A half-open attempt shows that its peer receives at `address`. Raises Drop if that has too many."""
        self.check_room(address)
        self._half_open.prove(session)

    def half_open_ends(self, session: Session) -> None:
        """It has been authenticated, refused or forgotten."""
        self._half_open.end(session)

    def half_open(self, address: Address | None = None) -> int:
        """How many there are, in all or of one address."""
        return len(self._half_open) if address is None else self._half_open.of(address)

    def check_key_exchange(self, now: float, address: Address) -> None:
        """Raises Drop if `spend_key_exchange` would: what leads to it need not be read then."""
        if self._unproved_keys.is_full(now, address):
            raise Drop("too many key exchanges without proof of the address")

    def spend_key_exchange(self, now: float, address: Address) -> None:
        """A key exchange for a peer whose address nothing proves. Raises Drop after too many of them."""
        self.check_key_exchange(now, address)
        self._unproved_keys.add(now, address)

    def key_exchange_was_worth_it(self, now: float, address: Address) -> None:
        """The peer has proved its key: what was spent for it counts against nobody."""
        self._unproved_keys.take_back(now, address)

    def _make_room(self, now: float, oldest: Session | None) -> None:
        if oldest is not None:
            self.count("half-open: the oldest made room")
            oldest.close(now, Diagnosis.of(Code.SILENT, peer=oldest.path.remote))

    # --- SPIs

    def new_ike_spi(self) -> bytes:
        """Eight random bytes, not zero and unlike every other local SPI."""
        while True:
            spi = self.entropy.bytes(8)
            if spi != NO_SPI and spi not in self._sessions:
                return spi

    def new_esp_spi(self) -> int:
        """A random inbound SPI that no SA of this gateway has; `release_esp_spi` gives it back."""
        while True:
            spi = int.from_bytes(self.entropy.bytes(4), "big")
            if spi >= SMALLEST_ESP_SPI and spi not in self._esp_spis:
                self._esp_spis.add(spi)
                return spi

    def release_esp_spi(self, spi: int) -> None:
        """The SA with this inbound SPI is gone, or never came to be."""
        self._esp_spis.discard(spi)

    # --- timers

    def arm(self, session: Session) -> None:
        """Take note of the session's next deadline; called after everything that may have moved it."""
        self._deadlines.arm(session, None if session.phase is Phase.GONE else session.next_timeout())

    def next_timeout(self) -> float | None:
        """The earliest deadline of all sessions."""
        return self._deadlines.next_timeout()

    def serve_due(self, now: float, serve: Callable[[Session], None]) -> None:
        """Call `serve` with each session whose deadline has come, once; as `Deadlines.serve` after a bug."""
        self._deadlines.serve(now, serve)


class _PolicyIndex:
    """The tunnels by what messages are matched with; made again after a change, since changes are rare."""

    def __init__(self, policies: Iterable[PeerPolicy]) -> None:
        self.between: dict[tuple[Address, Address], list[PeerPolicy]] = {}
        self.anywhere: dict[Address, list[PeerPolicy]] = {}
        self.identities: Counter[tuple[tuple[int, bytes], tuple[int, bytes]]] = Counter()
        self._candidates: dict[tuple[object, ...], tuple[PeerPolicy, ...]] = {}
        self._distinct: dict[tuple[object, ...], tuple[PeerPolicy, ...]] = {}
        for policy in policies:
            if policy.any_address:
                self.anywhere.setdefault(policy.local_address, []).append(policy)
            elif policy.remote_address is not None:
                self.between.setdefault((policy.local_address, policy.remote_address), []).append(policy)
            self.identities[policy.local_id.key, policy.remote_id.key] += 1

    def candidates(self, version: IkeVersion | None, path: Path) -> tuple[PeerPolicy, ...]:
        """The tunnels that a peer along `path` may mean."""
        key = self._key(version, path)
        found = self._candidates.get(key)
        if found is None:
            found = self._candidates[key] = self._find_candidates(version, path)
        return found

    def distinct(self, version: IkeVersion, path: Path) -> tuple[PeerPolicy, ...]:
        """The first of each kind of them, by all that an offer is compared with."""
        key = self._key(version, path)
        found = self._distinct.get(key)
        if found is None:
            kinds: dict[tuple[object, ...], PeerPolicy] = {}
            for one in self.candidates(version, path):
                kinds.setdefault((one.mode, one.proposals, one.lifetime, one.numbers, one.encapsulation), one)
            found = self._distinct[key] = tuple(kinds.values())
        return found

    def _key(self, version: IkeVersion | None, path: Path) -> tuple[object, ...]:
        """Strangers have one entry for all of them, so that they cannot fill the memory."""
        here = (path.local, path.remote)
        return (version, *here) if here in self.between else (version, path.local)

    def _find_candidates(self, version: IkeVersion | None, path: Path) -> tuple[PeerPolicy, ...]:
        own = self.between.get((path.local, path.remote), ())
        every = (*own, *self.anywhere.get(path.local, ()))
        return tuple(policy for policy in every if version in (None, policy.version))
