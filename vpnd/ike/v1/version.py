"""How IKEv1 sessions begin: our attempts, and a peer's first message.

A stranger hears nothing. There are no cookies in IKEv1: a first message takes state, which the next one may
take away until Main3 has shown that its peer received Main2. In aggressive mode nothing shows that before
the key exchange, so that these are bounded. No message is repeated before the peer has proved itself.
"""

from __future__ import annotations

from vpnd.ike import commands, session
from vpnd.ike.faults import Drop
from vpnd.ike.fragments import Reassemblies, TooLong
from vpnd.ike.limits import LARGEST_FIRST_MESSAGE, too_long
from vpnd.ike.natt import initial_path
from vpnd.ike.outputs import Failed
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.session import Phase
from vpnd.ike.sessions import InitKey
from vpnd.ike.v1 import causes, ladder
from vpnd.ike.v1.context import Context
from vpnd.ike.v1.isakmp_sa import IsakmpSa
from vpnd.ike.v1.message_transport import fragment_of, is_fragment
from vpnd.ike.v1.phase1_messages import EXCHANGES
from vpnd.ike.v1.session import Session
from vpnd.ike.v1.state import State, Timer
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity, describe_some
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.model.selectors import Address
from vpnd.wire.chain import decode_chain
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import IkeVersion, Payload1
from vpnd.wire.ikev1 import Id

_MODES: dict[int, NegotiationMode] = {exchange: mode for mode, exchange in EXCHANGES.items()}

REASSEMBLIES = 8
"""Ours: first messages that are put together of fragments at once; nobody has proved anything yet."""


class Responder:
    """IKEv1 as Endpoint drives it."""

    number = IkeVersion.V1

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._fragments: Reassemblies[InitKey] = Reassemblies(REASSEMBLIES, LARGEST_FIRST_MESSAGE)

    def local_spis(self, header: Header) -> tuple[bytes, ...]:
        """The cookie of the initiator or of the responder may be ours."""
        return tuple(spi for spi in (header.spi_r, header.spi_i) if spi != NO_SPI)

    def exchange_name(self, exchange: int) -> str:
        return ladder.exchange_name(exchange)

    def proves_address(self, now: float, path: Path, header: Header, data: bytes) -> bool:
        """There are no cookies."""
        return False

    def initiate(self, now: float, policy: PeerPolicy, remote: Address, mapping: int) -> None:
        path = initial_path(policy.local_address, remote)
        begun = Session(self._registry, IsakmpSa.new(now, self._registry, policy, path))
        self._registry.sessions.add(begun)
        begun.command(now, commands.Want(mapping))
        begun.command(now, causes.begin(begun.sa.mode))
        self._registry.sessions.arm(begun)

    def reinitiate(self, now: float, live: session.Session, remote: Address) -> None:
        """A new phase 1, and a successor of every pair of IPsec SAs, which a peer that forgot has not."""
        live.command(now, commands.RekeyNow())
        context: Context = live.context
        for one in context.siblings():
            if one.sa.initiator and one.sa.phase is Phase.CONNECTING:
                for mapping, spi_in in context.peer.children.current.items():
                    one.command(now, commands.Want(mapping, spi_in))

    def respond(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """A first message, or a repeat of one. Raises Drop with the reason, DecodeError."""
        mode = _MODES.get(header.exchange)
        late = header.message_id or header.has(Flag.ENCRYPTION)
        if mode is None or header.spi_r != NO_SPI or header.spi_i == NO_SPI or late:
            raise Drop("no session")
        if is_fragment(header):
            whole = self._take_fragment(path, header, data)
            if whole is not None:
                self.respond(now, path, Header.decode(whole), whole)
            return
        key = InitKey(header.spi_i, path.remote, path.remote_port)
        known = self._registry.sessions.find_init(key)
        if isinstance(known, Session):
            if not known.refuses_another(data):
                try:
                    known.handle_message(now, path, header, data)
                finally:
                    self._registry.sessions.arm(known)
                return
            # What was refused was not what the peer has sent, or it has thought again.
            self._registry.forget(known)
        if mode is NegotiationMode.AGGRESSIVE:
            self._registry.strangers.check_key_exchange(now, path.remote)
        policy = self._policy(path, mode, header, data)
        begun = Session(self._registry, IsakmpSa.new(now, self._registry, policy, path, header.spi_i))
        self._registry.sessions.add(begun, key)
        begun.context.timers.arm(Timer.HALF_OPEN, now + self._registry.limits.half_open_lifetime)
        try:
            begun.handle_message(now, path, header, data)
        finally:
            if begun.sa.state is State.NEW:
                # Nothing of the message was of use: it leaves no state.
                self._registry.forget(begun)
            else:
                self._registry.strangers.begin(now, begun, path.remote, proved=False)
                self._registry.sessions.arm(begun)

    def _take_fragment(self, path: Path, header: Header, data: bytes) -> bytes | None:
        """A piece of a first message; the message with its last piece. Raises Drop, DecodeError."""
        fragment = fragment_of(header, data)
        sender = InitKey(header.spi_i, path.remote, path.remote_port)
        total = fragment.number if fragment.last else None
        try:
            whole = self._fragments.add(sender, fragment.id, fragment.number, total, fragment.data)
        except TooLong as drop:
            self._registry.count(drop.reason)
            raise too_long(drop.length) from drop
        if whole is not None and is_fragment(Header.decode(whole)):
            raise Drop("fragment of a fragment")
        return whole

    def _policy(self, path: Path, mode: NegotiationMode, header: Header, data: bytes) -> PeerPolicy:
        """The tunnel that fits the addresses, the mode and, in aggressive mode, the identity.

        Raises Drop; where the mode or the identity is what differs, the operator hears of it.
        """
        candidates = self._registry.policies.candidates(IkeVersion.V1, path)
        fitting = [policy for policy in candidates if policy.mode is mode]
        if not fitting:
            ours = (candidates[0].mode or NegotiationMode.MAIN).value
            diagnosis = Diagnosis.of(Code.MODE, theirs=mode.value, ours=ours, peer=path.remote)
            raise self._refused(candidates[0], diagnosis, "the other mode is configured")
        if mode is NegotiationMode.MAIN:
            return fitting[0]
        identity = _identity(header, data)
        for policy in fitting:
            if policy.is_peer(identity):
                return policy
        ours = describe_some(fitting[0].peer_ids)
        diagnosis = Diagnosis.of(Code.IDENTITY, theirs=identity.describe(), ours=ours, peer=path.remote)
        raise self._refused(fitting[0], diagnosis, "unknown identity")

    def _refused(self, policy: PeerPolicy, diagnosis: Diagnosis, reason: str) -> Drop:
        self._registry.emit(Failed(policy.name, diagnosis, initiator=False, unproven=True))
        return Drop(reason)


def _identity(header: Header, data: bytes) -> Identity:
    """IDii of Aggressive1, before any other work is done. Raises Drop without one, DecodeError."""
    for raw in decode_chain(header.next_payload, data[HEADER_LENGTH:], padded=True):
        if raw.type == Payload1.ID:
            identity = Id.decode(raw.body)
            return Identity(identity.type, identity.value)
    raise Drop("no identity")
