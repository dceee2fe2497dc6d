"""What all sessions of one gateway share: policies, SPIs, the half-open count, outputs and timers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vpnd.crypto.entropy import Entropy
from vpnd.ike.deadlines import Deadlines
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import LadderLine, Output
from vpnd.ike.pairs import Pairs
from vpnd.ike.policies import Policies
from vpnd.ike.session import Phase, Session, Snapshot
from vpnd.ike.strangers import Strangers
from vpnd.model.policy import PeerPolicy
from vpnd.model.selectors import Address
from vpnd.model.text import LONGEST_HEADLINE, LONGEST_TEXT, cut, cut_lines

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
        self.policies = Policies()
        self.strangers = Strangers(limits, self.emit, self.count)
        self.changed: deque[Session] = deque()
        self.reinitiating: deque[str] = deque()
        """Tunnels for which an IKE SA beside the present one is to be begun."""
        self.beginning_again: deque[tuple[str, tuple[int, ...]]] = deque()
        """Tunnels, and mappings of theirs, whose attempt was refused and is begun at once in another way."""
        self._pairs = Pairs()
        self._sessions: dict[bytes, Session] = {}
        self._by_tunnel: dict[str, dict[Session, None]] = {}
        self._tunnel_of: dict[Session, str] = {}
        self._attempts: dict[Session, None] = {}
        self._init_of: dict[Session, InitKey] = {}
        self._by_init: dict[InitKey, Session] = {}
        self._esp_spis: set[int] = set()
        self.deadlines: Deadlines[Session] = Deadlines()

    def snapshot(self) -> Snapshot:
        return Snapshot(
            sas=tuple(session.snapshot() for session in self._sessions.values()),
            esp_spis=frozenset(self._esp_spis),
            half_open=self.strangers.half_open.addresses(),
            first_messages=len(self._by_init),
            deadlines=len(self.deadlines),
            queued=self.deadlines.entries,
        )

    # --- effects

    def emit(self, output: Output) -> None:
        """Append one effect for the caller of Endpoint, after the change of what sends that goes with it."""
        if (ready := self._pairs.follow(output)) is not None:
            self.outputs.append(ready)
        self.outputs.append(output)

    def sends(self, tunnel: str, mapping: int) -> int | None:
        """The inbound SPI of the pair that a mapping sends on, of whichever IKE SA."""
        return self._pairs.sends(tunnel, mapping)

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
        left_out = stranger and self.strangers.are_many
        lines = () if left_out else cut_lines(detail, LONGEST_TEXT - LONGEST_HEADLINE)
        self.emit(LadderLine(tunnel, outbound, cut(text, LONGEST_HEADLINE), size, lines, stranger))

    def count(self, reason: str) -> None:
        """A message was dropped for `reason`. Reasons are few and ours, never a peer's words."""
        self.counters[reason] += 1

    # --- sessions

    def add(self, session: Session, init_key: InitKey | None = None) -> None:
        """Messages to its own SPI are the session's from now on, and repeats of its first message."""
        self._sessions[session.sa.local_spi] = session
        self._file(session)
        if session.sa.initiator and session.sa.phase is Phase.CONNECTING:
            self._attempts[session] = None
        if init_key is not None:
            self._by_init[init_key] = session
            self._init_of[session] = init_key

    def forget(self, session: Session) -> None:
        """The session is gone: no message and no timer reaches it any more."""
        self.strangers.half_open.end(session)
        self._sessions.pop(session.sa.local_spi, None)
        self.deadlines.disarm(session)
        self._attempts.pop(session, None)
        self._unfile(session)
        key = self._init_of.pop(session, None)
        if key is not None and self._by_init.get(key) is session:
            del self._by_init[key]

    def find(self, local_spi: bytes) -> Session | None:
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
        return iter(tuple(self._attempts))

    def established(self, tunnel: str) -> Session | None:
        found = [s for s in self.sessions(tunnel) if s.sa.phase is Phase.ESTABLISHED]
        return found[-1] if found else None

    def is_first_contact(self, policy: PeerPolicy) -> bool:
        """Whether to say INITIAL_CONTACT: no SA with the peer is here, no other tunnel has its identities.

        Peers apply it to the identity pair, so a second tunnel between the same two would end the first.
        """
        return not self.policies.shares_identities(policy) and self.established(policy.name) is None

    def phase_changed(self, session: Session) -> None:
        """Endpoint looks at this session after the present input; its tunnel may have changed as well."""
        if session.sa.phase is not Phase.CONNECTING:
            self._attempts.pop(session, None)
        if self._tunnel_of.get(session, session.sa.tunnel) != session.sa.tunnel:
            self._unfile(session)
            self._file(session)
        self.changed.append(session)

    def _file(self, session: Session) -> None:
        self._tunnel_of[session] = session.sa.tunnel
        self._by_tunnel.setdefault(session.sa.tunnel, {})[session] = None

    def _unfile(self, session: Session) -> None:
        tunnel = self._tunnel_of.pop(session, None)
        if tunnel is not None:
            filed = self._by_tunnel[tunnel]
            filed.pop(session, None)
            if not filed:
                del self._by_tunnel[tunnel]

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

    def arm(self, session: Session) -> None:
        """Take note of the session's next deadline; called after everything that may have moved it."""
        self.deadlines.arm(session, None if session.sa.phase is Phase.GONE else session.next_timeout())
