"""All IKE of one gateway: finds the session of a message, picks the version, begins and ends sessions.

The only file that knows that there are two versions. Three kinds of input drive it, as they drive each
session: a command of the operator or the lifecycle, a datagram, the time. Each appends its effects to
`outputs`; the caller drains them before the next input.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

from vpnd.crypto.entropy import Entropy
from vpnd.ike.commands import (
    Cause,
    Close,
    CloseChild,
    Moved,
    PolicyChanged,
    Probe,
    RekeyChildNow,
    RekeyNow,
    Want,
)
from vpnd.ike.faults import Drop
from vpnd.ike.limits import LARGEST_FIRST_MESSAGE, UNREADABLE_BY_ADDRESS, UNREADABLE_IN_ALL, Limits, too_long
from vpnd.ike.message import Unfit
from vpnd.ike.outputs import CANNOT_BE_READ, ChildSaInfo, Failed, IkeSaInfo, Output, UnknownPeer
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.session import Phase, Progress, Session, Snapshot, Version
from vpnd.ike.shared_keys import KeysInUse
from vpnd.ike.strangers import Lately
from vpnd.ike.unknown_peers import UnknownPeers, begins
from vpnd.ike.v1 import version as ikev1
from vpnd.ike.v2 import version as ikev2
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import PeerPolicy
from vpnd.model.selectors import Address
from vpnd.model.unreachable import Unreachable
from vpnd.wire.cursor import Cursor
from vpnd.wire.errors import DecodeError, UnsupportedMajorVersion
from vpnd.wire.header import HEADER_LENGTH, Header
from vpnd.wire.udpencap import KEEPALIVE

__all__ = ["UNKNOWN_PEER", "Endpoint", "Limits", "Unreachable"]

UNKNOWN_PEER = "unknown peer"
"""The counter of messages from addresses that are no peer's."""

NO_MESSAGE = "no IKE message"
"""The counter of datagrams whose first bytes tell that they are none, beyond those that are named."""

UNREADABLE_AGAIN = 60.0
"""Ours: seconds after which an operator hears again that a peer's messages cannot be read: anyone can send
them from the peer's address, each in its own words."""


class Endpoint:
    """All IKE of one gateway, both versions, sans-I/O.

    Times are seconds on the caller's monotonic clock and never go back. Nothing that a peer sends raises
    out of a `handle_` method: what cannot be read or does not belong is counted in `counters`.
    """

    def __init__(self, entropy: Entropy, limits: Limits = Limits()) -> None:  # noqa: B008 (a frozen value)
        self._registry = Registry(entropy, limits)
        self._sessions = self._registry.sessions
        self._versions = _versions(self._registry)
        self._waiting: dict[Address, dict[tuple[str, int], None]] = {}
        self._knocks = 0
        self._unknown_peers = UnknownPeers()
        self._unreadable: dict[str, float] = {}
        self._looked_at = Lately(UNREADABLE_BY_ADDRESS, UNREADABLE_IN_ALL)
        """Datagrams of peers that are no IKE message."""

    @property
    def outputs(self) -> deque[Output]:
        """The effects so far, oldest first; the caller removes them."""
        return self._registry.outputs

    @property
    def counters(self) -> Counter[str]:
        """Dropped messages by reason."""
        return self._registry.counters

    @property
    def knocks(self) -> int:
        """First messages from addresses that no tunnel has in its configuration."""
        return self._knocks

    def unknown_peers(self, now: float) -> tuple[UnknownPeer, ...]:
        """Who has begun IKE lately from an address that no tunnel's peer has, the last one first."""
        return self._unknown_peers.present(now)

    # --- commands

    def set_peer(self, now: float, policy: PeerPolicy) -> None:
        """Add a tunnel, or change it: its SAs stay, and what comes next is negotiated by the new policy.

        Dead peer detection goes by it at once. An IKE SA that was made by other terms is succeeded at once:
        where only its algorithms differ it is rekeyed, else another one is made beside it, after which it
        goes. An attempt of ours goes on by the terms that it was begun with, and is succeeded in its turn.
        For the CHILD_SAs see `rekey_child` and `close_child`.
        """
        self._registry.policies.set_policy(policy)
        for session in self._sessions.of(policy.name):
            if session.version == policy.version:
                begun = session.sa.initiator and session.sa.phase is Phase.CONNECTING
                session.sa.policy = policy.on_terms_of(session.sa.policy) if begun else policy
                self._command(now, session, PolicyChanged())

    def remove_peer(self, now: float, name: str) -> None:
        """DELETE to the peer and forget the tunnel, but for `known_keys`. An unknown name is ignored."""
        self.close(now, name, Diagnosis.of(Code.DOWN_BY_OPERATOR))
        self._registry.policies.remove_policy(name)
        self._registry.shared_keys.end_attempts(name)
        self._unreadable.pop(name, None)

    def initiate(self, now: float, name: str, mapping: int) -> None:
        """Bring the CHILD_SA of one mapping up, with an IKE SA first if there is none; no-op when under way.

        One attempt at a time for each peer address, for peers limit half-open IKE SAs by it; the others wait.
        Raises KeyError for an unknown tunnel.
        """
        policy = self._registry.policies.by_name[name]
        session = self._live(name)
        if session is not None:
            self._command(now, session, Want(mapping))
        elif policy.remote_address is None:
            code = Code.PEER_BEGINS if policy.any_address else Code.RESOLVE
            self._registry.emit(Failed(name, Diagnosis.of(code), initiator=True))
        elif self._connecting_to(policy.remote_address):
            self._waiting.setdefault(policy.remote_address, {})[name, mapping] = None
        else:
            self._versions[policy.version].initiate(now, policy, policy.remote_address, mapping)
            self._settle(now)

    def reinitiate(self, now: float, name: str) -> None:
        """The peer may have forgotten the tunnel: negotiate it once more, beside what there is.

        The old SAs stay until the new ones are there, and if nothing comes of it nothing has changed. No-op
        without an IKE SA, and while an attempt with the peer is under way.
        """
        session = self._sessions.established(name)
        policy = self._registry.policies.by_name.get(name)
        if session is None or policy is None or policy.remote_address is None:
            return
        if not self._connecting_to(policy.remote_address):
            self._versions[session.version].reinitiate(now, session, policy.remote_address)
            self._settle(now)

    def prove_next_key(self, now: float, name: str) -> None:
        """Authenticate once more, with the tunnel's next key, beside what there is; as `reinitiate` else."""
        policy = self._registry.policies.by_name.get(name)
        if policy is not None and policy.next_psk is not None:
            self._registry.shared_keys.try_next(name, policy.next_psk)
            self.reinitiate(now, name)

    def remember_keys(self, known: Mapping[str, KeysInUse]) -> None:
        """What `known_keys` was before a restart: attempts begin with the key that the peer was seen with."""
        self._registry.shared_keys.remember(known)

    def forget_keys(self, name: str) -> None:
        """The tunnel is not configured any more. An unknown name is ignored."""
        self._registry.shared_keys.forget(name)

    def close(self, now: float, name: str, diagnosis: Diagnosis, local_spi: bytes | None = None) -> None:
        """DELETE to the peer; all SAs of the tunnel go: ChildDown each, then IkeDown.

        With `local_spi` only the IKE SA that has this SPI on our side, and what was made under it. A peer's
        attempt goes on until its proof says what tunnel it means: else the peer would ask in vain.
        """
        if local_spi is None:
            self._stop_waiting(name)
        for session in self._sessions.of(name):
            if local_spi in (None, session.sa.local_spi) and not session.is_undecided:
                self._command(now, session, Close(diagnosis))

    def close_child(self, now: float, name: str, spi_in: int) -> None:
        """DELETE one CHILD_SA. An unknown SPI is ignored."""
        self._command_child(now, name, spi_in, CloseChild(spi_in, Diagnosis.of(Code.LIFETIME)))

    def rekey_ike(self, now: float, name: str, local_spi: bytes | None = None) -> None:
        """Replace the newest IKE SA of a tunnel, or that with `local_spi`; no-op without one."""
        session = self._sessions.established(name) if local_spi is None else self._sessions.find(local_spi)
        if session is not None and session.sa.tunnel == name:
            self._command(now, session, RekeyNow())

    def rekey_child(self, now: float, name: str, spi_in: int) -> None:
        """Replace one CHILD_SA without loss. An unknown SPI is ignored."""
        self._command_child(now, name, spi_in, RekeyChildNow(spi_in))

    def capture(self, name: str, captured: bool) -> None:
        """Give the messages of a tunnel out in clear as well, as `Decrypted`, or no longer."""
        if captured:
            self._registry.captured.add(name)
        else:
            self._registry.captured.discard(name)

    def probe(self, now: float, name: str) -> None:
        """Ask the peer of a tunnel for a sign of life now."""
        session = self._sessions.established(name)
        if session is not None:
            self._command(now, session, Probe())

    def note_activity(self, now: float, name: str) -> None:
        """Authenticated traffic (ESP) came from the peer of a tunnel: it lives."""
        session = self._sessions.established(name)
        if session is not None:
            session.note_activity(now)
            self._sessions.arm(session)

    def peer_sends(self, now: float, name: str, spi_in: int) -> None:
        """The first packet came, authenticated, on an SA pair of a tunnel that is not sent on yet."""
        for session in self._sessions.of(name):
            session.peer_sends(now, spi_in)
            self._settle(now, session)

    def moved(self, now: float, name: str, path: Path) -> None:
        """Authentic ESP came from elsewhere: PathMoved if the peer is there now (`natt.follows`)."""
        for session in self._sessions.of(name):
            self._command(now, session, Moved(path))

    # --- inputs

    def handle_datagram(self, now: float, path: Path, data: bytes) -> None:
        """One IKE message, from the UDP header on; on port 4500 without the non-ESP marker."""
        try:
            self._hear(now, path, Header.decode(data), data)
        except DecodeError as error:
            self._cannot_read(now, path, data, error)
        except Drop as drop:
            self._registry.count(drop.reason)
        self._settle(now)

    def drop_unread(self, now: float, path: Path, data: bytes) -> bool:
        """Count a datagram that is no IKE message, and say that this was all; False: it is to be handled.

        The first ones of a peer are handled, so that an operator hears what it sends. Of a flood the others
        would be work for nothing.
        """
        if Header.is_readable(data):
            return False
        if self._registry.policies.knows(path) and not self._looked_at.is_full(now, path.remote):
            self._looked_at.add(now, path.remote)
            return False
        self._registry.count(NO_MESSAGE)
        return True

    def may_wait(self, now: float, path: Path, data: bytes) -> bool:
        """Whether a datagram is one that sessions come before: it can only begin something, and costs work.

        All else is for a session, is dropped at once, or has a cookie of ours, so that no flood of forged
        ones is between it and what it answers. Changes no state.
        """
        try:
            header = Header.decode(data)
        except (UnsupportedMajorVersion, DecodeError):
            return False
        version = self._versions[header.major]
        if any(map(self._sessions.find, version.local_spis(header))):
            return False
        if len(data) > LARGEST_FIRST_MESSAGE or not self._registry.policies.candidates(None, path):
            return False
        return not version.proves_address(now, path, header, data)

    def handle_unreachable(self, now: float, path: Path, reason: Unreachable) -> None:
        """An ICMP error for the peer of `path`: words for an attempt that ends without an answer, no more."""
        for session in self._sessions.attempts():
            if session.sa.path == path:
                session.sa.attempt.unreachable = path, reason

    def set_way(self, path: Path, reason: Unreachable | None, interface: str | None = None) -> None:
        """Why this machine itself has no way to the peer of `path`, as its routes are; None: it has one.

        `interface`: that of a tunnel, where the way leads into it.
        """
        for session in self._sessions.attempts():
            if session.sa.path == path:
                session.sa.attempt.way = None if reason is None else (reason, interface)

    def handle_timeout(self, now: float) -> None:
        """Time has come to `next_timeout()` or later."""

        def serve(session: Session) -> None:
            session.handle_timeout(now)
            self._settle(now, session)

        self._sessions.deadlines.serve(now, serve)

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout` next; None: no need."""
        return self._sessions.deadlines.next_timeout()

    # --- queries

    def ike_sas(self, name: str) -> tuple[IkeSaInfo, ...]:
        """The established IKE SAs of a tunnel, oldest first; usually one."""
        return tuple(s.info() for s in self._sessions.of(name) if s.sa.phase is Phase.ESTABLISHED)

    def progress(self, name: str) -> Progress | None:
        """How far our attempt at an IKE SA of this tunnel is; None: none is under way."""
        attempts = (one.progress() for one in self._sessions.attempts() if one.sa.tunnel == name)
        return next(attempts, None)

    def vendor(self, name: str) -> str | None:
        """The maker of a tunnel's peer, by the vendor IDs that came last; None: not known."""
        present = (session.vendor for session in self._sessions.of(name))
        return next(filter(None, present), None) or self._registry.policies.vendors.get(name)

    def keys_in_use(self, name: str) -> KeysInUse | None:
        """The keys that both ends of a tunnel have proved themselves with last; None: nothing was up yet."""
        return self._registry.shared_keys.in_use(name)

    def known_keys(self) -> dict[str, KeysInUse]:
        """As `keys_in_use`, of all tunnels by name, to be kept over a restart: no key is in it."""
        return self._registry.shared_keys.known()

    def child_sas(self, name: str) -> dict[int, ChildSaInfo]:
        """The SA pairs of a tunnel by inbound SPI: when each is rekeyed, and ends."""
        sessions = self._sessions.of(name)
        return {info.spi_in: info for session in sessions for info in session.child_sas()}

    def snapshot(self) -> Snapshot:
        """All that is held at this moment, also what is only kept until a peer has noticed its end."""
        return self._registry.snapshot()

    # --- inside

    def _command(self, now: float, session: Session, cause: Cause) -> None:
        session.command(now, cause)
        self._settle(now, session)

    def _command_child(self, now: float, name: str, spi_in: int, cause: Cause) -> None:
        for session in self._sessions.of(name):
            if session.has_child(spi_in):
                self._command(now, session, cause)

    def _live(self, name: str) -> Session | None:
        """The session on which a new child is wanted: the newest established, else our own attempt."""
        attempts = (one for one in self._sessions.attempts() if one.sa.tunnel == name)
        return self._sessions.established(name) or next(attempts, None)

    def _connecting_to(self, address: Address) -> bool:
        return any(session.sa.path.remote == address for session in self._sessions.attempts())

    def _hear(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """Find the session of a message. Raises Drop or DecodeError; deadlines are noted all the same."""
        version = self._versions[header.major]
        session = self._session_of(version, header)
        if session is None:
            self._hear_stranger(now, path, version, header, data)
            return
        try:
            session.handle_message(now, path, header, data)
        finally:
            self._sessions.arm(session)

    def _session_of(self, version: Version, header: Header) -> Session | None:
        session = next(filter(None, map(self._sessions.find, version.local_spis(header))), None)
        return session if session is not None and session.version == version.number else None

    def _cannot_read(self, now: float, path: Path, data: bytes, error: DecodeError) -> None:
        """A message does not follow its format. Counted; one of a configured peer is named as well."""
        spoken = not isinstance(error, UnsupportedMajorVersion)
        self._registry.count(f"malformed: {error.field}" if spoken else "version not spoken")
        self._name(now, path, data, error)

    def _name(self, now: float, path: Path, data: bytes, error: DecodeError) -> None:
        """Tell the operator of a message of a configured peer that is of no use, and why."""
        spoken = not isinstance(error, UnsupportedMajorVersion)
        if not self._registry.policies.knows(path) or data == KEEPALIVE:
            return
        between = self._registry.policies.candidates(None, path)
        policy, exchange, session = between[0], "message", None
        if len(data) >= HEADER_LENGTH:
            header = Header.read(Cursor(data))
            session = self._sessions.find(header.spi_r) or self._sessions.find(header.spi_i)
        if len(data) >= HEADER_LENGTH and spoken:
            version = self._versions[header.major]
            exchange = version.exchange_name(header.exchange)
            policy = next((one for one in between if one.version == version.number), policy)
        tunnel = policy.name if session is None else session.sa.tunnel
        stranger = session is None or session.sa.is_stranger
        text = f"{exchange} {CANNOT_BE_READ}"
        self._registry.draw(tunnel, False, text, len(data), (str(error),), stranger)
        diagnosis = Diagnosis.of(Code.SYNTAX, exchange=exchange, detail=str(error), peer=path.remote)
        expected = session is None or session.cannot_read(diagnosis)
        late = session is not None and isinstance(error, Unfit)
        if expected and not late and now >= self._unreadable.get(tunnel, now):
            self._unreadable[tunnel] = now + UNREADABLE_AGAIN
            self._registry.emit(Failed(tunnel, diagnosis, initiator=False, unproven=stranger))

    def _hear_stranger(self, now: float, path: Path, version: Version, header: Header, data: bytes) -> None:
        """A message that no session has. Who cannot be a peer by its address hears nothing at all."""
        self._knocks += not self._registry.policies.knows(path)
        between = self._registry.policies.candidates(None, path)
        if not between:
            self._note_unknown(now, path, version, header)
            raise Drop(UNKNOWN_PEER)
        # What an IKE SA that we do not have leaves behind, such as a repeated DELETE, begins nothing.
        begins = header.spi_r == NO_SPI
        if begins and len(data) > LARGEST_FIRST_MESSAGE:
            self._name(now, path, data, too_long(len(data)))
            raise Drop("first message: too long")
        if begins and all(policy.version != version.number for policy in between):
            spoken = f"ike{between[0].version.name.lower()}"
            diagnosis = Diagnosis.of(
                Code.VERSION, theirs=f"ike{version.number.name.lower()}", ours=spoken, peer=path.remote
            )
            self._registry.emit(Failed(between[0].name, diagnosis, initiator=False, unproven=True))
            raise Drop("the other version is configured")
        version.respond(now, path, header, data)

    def _note_unknown(self, now: float, path: Path, version: Version, header: Header) -> None:
        """Who begins IKE and is no peer may be one that has another address than is configured."""
        if begins(header, NO_SPI):
            said = self._unknown_peers.note(now, path, version.number)
            if said is not None:
                self._registry.emit(said)

    def _settle(self, now: float, session: Session | None = None) -> None:
        """After each input: note new deadlines, and let attempts begin whose turn has come."""
        if session is not None:
            self._sessions.arm(session)
        changed = self._sessions.changed
        while changed:
            other = changed.popleft()
            self._sessions.arm(other)
            if other.sa.phase is not Phase.CONNECTING:
                self._next_attempt(now, other.sa.path.remote)
        while self._registry.reinitiating:
            self.reinitiate(now, self._registry.reinitiating.popleft())
        while self._registry.beginning_again:
            name, mappings = self._registry.beginning_again.popleft()
            for mapping in mappings if name in self._registry.policies.by_name else ():
                self.initiate(now, name, mapping)

    def _next_attempt(self, now: float, address: Address) -> None:
        """Begin the attempt that has waited longest for this peer address, if none is under way."""
        waiting = self._waiting.get(address, {})
        while waiting and not self._connecting_to(address):
            name, mapping = next(iter(waiting))
            del waiting[name, mapping]
            self.initiate(now, name, mapping)
        if not waiting:
            self._waiting.pop(address, None)

    def _stop_waiting(self, name: str) -> None:
        for waiting in self._waiting.values():
            for key in [key for key in waiting if key[0] == name]:
                del waiting[key]


def _versions(registry: Registry) -> dict[int, Version]:
    responders: tuple[Version, ...] = (ikev1.Responder(registry), ikev2.Responder(registry))
    return {one.number: one for one in responders}
