"""What all sessions of one gateway share: policies, SPIs, the half-open count and outputs."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from vpnd.crypto.entropy import Entropy
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import Decrypted, LadderLine, Output
from vpnd.ike.pairs import Pairs
from vpnd.ike.policies import Policies
from vpnd.ike.session import Session, Snapshot
from vpnd.ike.sessions import Sessions
from vpnd.ike.shared_keys import SharedKeys
from vpnd.ike.strangers import Strangers
from vpnd.model.child import Path
from vpnd.model.policy import PeerPolicy
from vpnd.model.text import LONGEST_HEADLINE, LONGEST_TEXT, cut, cut_lines
from vpnd.wire.header import Header

SMALLEST_ESP_SPI = 256
"""SPIs 1 to 255 are reserved by IANA (RFC 4303 section 2.1)."""
NO_SPI = bytes(8)
"""The responder's SPI in the first message of an IKE SA."""


class Registry:
    """Endpoint owns it; each session is made with it."""

    def __init__(self, entropy: Entropy, limits: Limits) -> None:
        self.entropy = entropy
        self.limits = limits
        self.outputs: deque[Output] = deque()
        self.counters: Counter[str] = Counter()
        self.policies = Policies()
        self.shared_keys = SharedKeys()
        self.strangers = Strangers(limits, self.emit, self.count)
        self.sessions = Sessions()
        self.reinitiating: deque[str] = deque()
        """Tunnels for which an IKE SA beside the present one is to be begun."""
        self.beginning_again: deque[tuple[str, tuple[int, ...]]] = deque()
        """Tunnels, and mappings of theirs, whose attempt was refused and is begun at once in another way."""
        self.captured: set[str] = set()
        """Tunnels whose messages are also given out in clear."""
        self._pairs = Pairs()
        self._esp_spis: set[int] = set()

    def snapshot(self) -> Snapshot:
        return Snapshot(
            sas=tuple(session.snapshot() for session in self.sessions.all()),
            esp_spis=frozenset(self._esp_spis),
            half_open=self.strangers.half_open.addresses(),
            first_messages=self.sessions.first_messages,
            deadlines=len(self.sessions.deadlines),
            queued=self.sessions.deadlines.entries,
        )

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

    def show(self, tunnel: str, outbound: bool, path: Path, header: Header, first: int, body: bytes) -> None:
        """One message in clear, for who captures the tunnel: its payloads, of which the first is `first`."""
        self.emit(Decrypted(tunnel, outbound, path, header.encode_before(first, len(body)) + body))

    def count(self, reason: str) -> None:
        """A message was dropped for `reason`. Reasons are few and ours, never a peer's words."""
        self.counters[reason] += 1

    def forget(self, session: Session) -> None:
        """The session is gone: no message and no timer reaches it any more."""
        self.strangers.half_open.end(session)
        self.policies.note_vendor(session.sa.tunnel, session.vendor)
        self.sessions.forget(session)

    def is_first_contact(self, policy: PeerPolicy) -> bool:
        """Whether to say INITIAL_CONTACT: no SA with the peer is here, no other tunnel has its identities.

        Peers apply it to the identity pair, so a second tunnel between the same two would end the first.
        """
        if policy.probing:
            return False
        return not self.policies.shares_identities(policy) and self.sessions.established(policy.name) is None

    def new_ike_spi(self) -> bytes:
        """Eight random bytes, not zero and unlike every other local SPI."""
        while True:
            spi = self.entropy.bytes(8)
            if spi != NO_SPI and self.sessions.find(spi) is None:
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
