"""How IKEv2 sessions begin: our own attempts, and the first messages of peers."""

from __future__ import annotations

from collections.abc import Iterable

from vpnd.ike import session
from vpnd.ike.commands import Want
from vpnd.ike.faults import Drop, Fault
from vpnd.ike.natt import initial_path
from vpnd.ike.outputs import Failed, Transmit
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.sessions import InitKey
from vpnd.ike.v2 import causes, ladder
from vpnd.ike.v2.children import Children, Fate
from vpnd.ike.v2.cookies import Cookies
from vpnd.ike.v2.exchanges.sa_init import SaInitExchange
from vpnd.ike.v2.faults import UnsupportedCriticalPayload
from vpnd.ike.v2.ike_sa import Attempt, IkeSa
from vpnd.ike.v2.protect import header_of, plain
from vpnd.ike.v2.session import Session
from vpnd.ike.v2.state import Timer
from vpnd.model.child import Path
from vpnd.model.policy import PeerPolicy
from vpnd.model.selectors import Address
from vpnd.wire import errors
from vpnd.wire.chain import decode_chain
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange2, IkeVersion, Notify2, Payload2, name_of
from vpnd.wire.ikev2 import Nonce, Notify


class Responder:
    """IKEv2 for one gateway. See `vpnd.ike.session.Version`."""

    number = IkeVersion.V2

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._cookies = Cookies(registry.entropy)

    def local_spis(self, header: Header) -> tuple[bytes, ...]:
        """The initiator flag tells which SPI is the sender's (RFC 7296 section 3.1)."""
        return (header.spi_r if header.has(Flag.INITIATOR) else header.spi_i,)

    def exchange_name(self, exchange: int) -> str:
        return name_of(Exchange2, exchange)

    def initiate(self, now: float, policy: PeerPolicy, remote: Address, mapping: int) -> None:
        self._initiate(now, policy, remote, (mapping,))

    def reinitiate(self, now: float, live: session.Session, remote: Address) -> None:
        """As `initiate`, for every mapping that is up. `duplicates` closes the older once both are there."""
        children: Children = live.context.children
        mappings = dict.fromkeys(child.sa.mapping for child in children if child.fate is Fate.LIVE)
        policy = self._registry.policies.by_name[live.sa.tunnel]
        self._initiate(now, policy, remote, mappings, beside=True)

    def _initiate(
        self, now: float, policy: PeerPolicy, remote: Address, mappings: Iterable[int], beside: bool = False
    ) -> None:
        path = initial_path(policy.local_address, remote)
        spi = self._registry.new_ike_spi()
        attempt = Attempt(begun_here=True, candidates=(policy,), beside=beside)
        begun = Session(self._registry, IkeSa(policy, path, True, spi, NO_SPI, attempt))
        for mapping in mappings:
            begun.command(now, Want(mapping))
        self._registry.sessions.add(begun)
        begun.command(now, causes.Begin(SaInitExchange(begun.context)))
        self._registry.sessions.arm(begun)

    def respond(self, now: float, path: Path, header: Header, data: bytes) -> None:
        """The first message of a peer: cookie or session. Everything else is for no IKE SA we have."""
        if header.exchange != Exchange2.IKE_SA_INIT or header.has(Flag.RESPONSE):
            raise Drop("unknown IKE SPI")
        first = header.has(Flag.INITIATOR) and header.spi_i != NO_SPI and header.spi_r == NO_SPI
        if not first or header.message_id:
            raise Drop("IKE_SA_INIT: not a first message")
        key = InitKey(header.spi_i, path.remote, path.remote_port)
        known = self._registry.sessions.find_init(key)
        if isinstance(known, Session) and known.sa.attempt.init.request == data:
            known.repeat_init(path)
            return
        proved = self._registry.strangers.is_crowded(now, path.remote)
        if proved and not self._proves_address(now, path, header, data):
            return
        try:
            self._begin(now, path, header, data, key, proved)
        except (Drop, DecodeError):
            self._registry.strangers.refused_first(now, path.remote)
            raise

    def proves_address(self, now: float, path: Path, header: Header, data: bytes) -> bool:
        # An initiator puts the cookie in front of all else.
        if header.exchange != Exchange2.IKE_SA_INIT or header.next_payload != Payload2.NOTIFY:
            return False
        try:
            nonce, cookie = _nonce_and_cookie(header, data)
        except (Drop, DecodeError):
            return False
        return cookie is not None and self._cookies.verify(now, cookie, path, header.spi_i, nonce)

    def _proves_address(self, now: float, path: Path, header: Header, data: bytes) -> bool:
        """Whether a first message has a cookie of ours; else it is answered with one (RFC 7296 section 2.6).

        Decodes nothing but the cookie and the nonce. Raises Drop for one cookie too many, and DecodeError.
        """
        nonce, cookie = _nonce_and_cookie(header, data)
        if cookie is not None and self._cookies.verify(now, cookie, path, header.spi_i, nonce):
            self._registry.strangers.check_room(path.remote)
            return True
        answer = Notify(Notify2.COOKIE, self._cookies.make(now, path, header.spi_i, nonce))
        self._answer_without_state(path, header, answer)
        return False

    def _begin(self, now: float, path: Path, header: Header, data: bytes, key: InitKey, proved: bool) -> None:
        """Take state, unless the request is at fault: the answer says so. Raises Drop, DecodeError."""
        candidates = self._registry.policies.candidates(IkeVersion.V2, path)
        spi = self._registry.new_ike_spi()
        attempt = Attempt(begun_here=False, candidates=candidates)
        begun = Session(self._registry, IkeSa(candidates[0], path, False, spi, header.spi_i, attempt))
        try:
            begun.respond(now, path, header, data)
        except errors.UnsupportedCriticalPayload as error:
            fault: Fault = UnsupportedCriticalPayload(bytes((error.payload_type,)), exchange="IKE_SA_INIT")
        except Fault as raised:
            fault = raised
        else:
            self._registry.sessions.forget_init(key)
            # The peer has a while to prove who it is.
            begun.sa.attempt.began_at = now
            self._registry.sessions.add(begun, key)
            begun.context.timers.arm(Timer.END, now + self._registry.limits.half_open_lifetime)
            self._registry.strangers.begin(now, begun, path.remote, proved)
            self._registry.sessions.arm(begun)
            return
        self._registry.strangers.refused_first(now, path.remote)
        self._answer_without_state(path, header, Notify(fault.notify, fault.data))
        if fault.notify != Notify2.INVALID_KE_PAYLOAD:
            self._registry.emit(Failed(candidates[0].name, fault.diagnosis, initiator=False, unproven=True))

    def _answer_without_state(self, path: Path, header: Header, notify: Notify) -> None:
        """An unprotected answer with one notify; the responder's SPI stays zero (RFC 7296 section 2.6)."""
        tunnel = self._registry.policies.candidates(IkeVersion.V2, path)[0].name
        answer = header_of(header.spi_i, NO_SPI, Exchange2.IKE_SA_INIT, Flag.RESPONSE, 0)
        data = plain(answer, (notify,))
        text = ladder.text_of(Exchange2.IKE_SA_INIT, 0, (notify,), response=True)
        self._registry.draw(tunnel, True, text, len(data), ladder.detail_of((notify,)), stranger=True)
        self._registry.emit(Transmit(tunnel, path, data))


def _nonce_and_cookie(header: Header, data: bytes) -> tuple[bytes, bytes | None]:
    """Ni of a first message, and the cookie if its first payload is one. Raises Drop and DecodeError."""
    chain = decode_chain(header.next_payload, data[HEADER_LENGTH:])
    nonces = [Nonce.decode(raw.body) for raw in chain if raw.type == Payload2.NONCE]
    if len(nonces) != 1:
        raise Drop("IKE_SA_INIT: not a first message")
    first = Notify.decode(chain[0].body) if chain[0].type == Payload2.NOTIFY else None
    return nonces[0].data, first.data if first is not None and first.type == Notify2.COOKIE else None
