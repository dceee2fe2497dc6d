"""The facts of one ISAKMP SA and of the attempt at it. Nothing here sends, waits or moves a state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from vpnd.crypto.dh import KeyPair
from vpnd.ike import natt, session, vendors
from vpnd.ike.commands import Cause
from vpnd.ike.faults import Drop
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.v1.keys import Exchanged, Phase1Keys
from vpnd.ike.v1.protect import IvChain
from vpnd.ike.v1.state import State
from vpnd.model.child import Path
from vpnd.model.identity import Identity
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret
from vpnd.model.selectors import Address
from vpnd.wire.ikev1 import VendorId

ID_PREFIX = 4
"""Bytes before the value in the body of an Identification payload (RFC 2407 section 4.6.2)."""

DPD = bytes.fromhex("afcad71368a1f1c96b8696fc77570100")
"""Dead peer detection, version 1.0 (RFC 3706 section 5)."""
NAT_T_RFC = bytes.fromhex("4a131c81070358455c5728f20e95452f")
"""NAT traversal (RFC 3947 section 3.1)."""
NAT_T_03 = bytes.fromhex("7d9419a65310ca6f2c179d9215529d56")
NAT_T_02 = bytes.fromhex("cd60464335df21f87cfdb2fc68b6a448")
NAT_T_02N = bytes.fromhex("90cb80913ebb696e086381b5ec427b1f")
"""The drafts 03 and 02 before it; old gateways hash a newline behind 02's name."""
FRAGMENTATION = bytes.fromhex("4048b7d56ebce88525e7de7f00d6c2d3")
"""Fragments of IKE messages, a vendor's extension; some peers add four bytes of flags."""

NAT_T = (NAT_T_RFC, NAT_T_03, NAT_T_02N, NAT_T_02)
"""What we speak of it, the best first."""
OUR_VENDOR_IDS = (*NAT_T, FRAGMENTATION, DPD, vendors.VPND)


@dataclass(frozen=True, slots=True)
class PeerFeatures:
    """What the peer's vendor IDs say that it speaks."""

    dpd: bool = False
    nat_t: bytes = b""
    fragments: bool = False
    vendor: str | None = None

    @classmethod
    def read(cls, vendor_ids: Iterable[VendorId]) -> PeerFeatures:
        """From the vendor IDs of the peer's first message; `nat_t` is the best that both speak, or empty."""
        data = [vendor_id.data for vendor_id in vendor_ids]
        return cls(
            dpd=any(one[: len(DPD) - 2] == DPD[:-2] for one in data),
            nat_t=next((known for known in NAT_T if known in data), b""),
            fragments=any(one.startswith(FRAGMENTATION) for one in data),
            vendor=vendors.recognise(data),
        )

    def further(self, vendor_ids: Iterable[VendorId]) -> PeerFeatures:
        """With those of a later message: some products, as Cisco's ASA, say only there what they are."""
        later = vendors.recognise(vendor_id.data for vendor_id in vendor_ids)
        return self if self.vendor or later is None else replace(self, vendor=later)

    @property
    def nat_t_draft(self) -> bool:
        """Whether NAT traversal has the numbers of the drafts."""
        return bool(self.nat_t) and self.nat_t != NAT_T_RFC


@dataclass(slots=True)
class Negotiation:
    """Phase 1 so far. `sa_i`, `id_i`, `id_r` are payload bodies as they travelled, for the hashes."""

    mode: NegotiationMode
    key_pair: KeyPair = field(init=False)
    shared: Secret | None = None
    lifetime: int = 0
    sa_i: bytes = b""
    nonce_i: bytes = b""
    nonce_r: bytes = b""
    ke_i: bytes = b""
    ke_r: bytes = b""
    id_i: bytes = b""
    id_r: bytes = b""
    peer: PeerFeatures = PeerFeatures()


@dataclass(slots=True)
class Attempt(session.Attempt):
    """What matters until the ISAKMP SA is up, and what speaks for and against it.

    `began` is when its first message was sent or came, on the caller's clock. `configured_remote` is where
    the peer was by the configuration then.
    """

    began: float
    configured_remote: Address | None
    renews: bool = False
    """Whether it was begun to succeed an ISAKMP SA that works."""
    doubted: tuple[State, float, int] | None = None
    """The state in which something first spoke against it, when, and how much had been sent by then."""
    doubtful: bytes = b""
    """The peer's message that did not verify."""
    reported: bool = False
    """Whether the operator knows why the peer's attempt comes to nothing."""
    rejected_cookie: bytes = NO_SPI
    """The cookie of a responder whose first message did not verify."""
    held: Cause | None = None
    """The peer's proof, while another has the tunnel and is asked whether it is alive."""
    proof_iv: bytes | None = None
    """As responder: the IV before the peer's proof, until the peer shows that it has our answer."""
    accepted: bool = False
    """Whether the peer has gone on after it was shown who we are."""
    confirmed_at: float | None = None
    """Since when the peer is known to have the SA."""


@dataclass(slots=True, eq=False)
class IsakmpSa(session.Sa[Phase1Keys]):
    """One ISAKMP SA. Times are seconds on the caller's clock, 0 before they happen."""

    attempt: Attempt
    state: State = State.NEW
    negotiation: Negotiation = field(kw_only=True)
    established_at: float = 0.0
    yielded_at: float = 0.0
    """Since when it is to go because both sides had begun one."""
    _chain: IvChain | None = None

    @classmethod
    def new(
        cls,
        now: float,
        registry: Registry,
        policy: PeerPolicy,
        path: Path,
        peer_cookie: bytes | None = None,
        renews: bool = False,
    ) -> IsakmpSa:
        """An attempt at one, with a new cookie; without `peer_cookie` this side is the initiator."""
        attempt = Attempt(now, policy.remote_address, renews)
        negotiation = Negotiation(policy.mode or NegotiationMode.MAIN)
        cookies = registry.new_ike_spi(), peer_cookie or NO_SPI
        return cls(policy, path, peer_cookie is None, *cookies, attempt, negotiation=negotiation)

    @property
    def about(self) -> str:
        return f"IKEv1 {self.mode.value} mode: "

    @property
    def mode(self) -> NegotiationMode:
        return self.negotiation.mode

    @property
    def cookies(self) -> bytes:
        """Both, as they name the ISAKMP SA in a notify or DELETE."""
        return self.spi_i + self.spi_r

    @property
    def chain(self) -> IvChain:
        """The IV chain of phase 1. Raises Drop before there are keys."""
        if self._chain is None:
            raise Drop("no keys yet")
        return self._chain

    def set_keys(self, keys: Phase1Keys, chain: IvChain | None = None) -> IvChain:
        """Both sides can compute the keys. Returns the IV chain, which is a new one unless it is given."""
        self._keys, self._chain = keys, chain or IvChain(keys, keys.iv)
        return self._chain

    def set_suite(self, suite: Suite, lifetime: int) -> None:
        self._suite, self.negotiation.lifetime = suite, lifetime

    def exchanged(self) -> Exchanged:
        one = self.negotiation
        return Exchanged(one.nonce_i, one.nonce_r, one.ke_i, one.ke_r, self.spi_i, self.spi_r)

    def path_of_successor(self) -> Path:
        """Where a new phase 1 begins: here where there is a NAT, unless the peer's name moved since."""
        remote = self.policy.remote_address
        if self.nat.found and remote == self.attempt.configured_remote:
            return self.path
        return natt.initial_path(self.policy.local_address, remote or self.path.remote)

    @property
    def we_are_lower(self) -> bool:
        """Whether our identity comes before the peer's, as it said it: the peer compares with that."""
        body = self.negotiation.id_r if self.initiator else self.negotiation.id_i
        said = (one for one in self.policy.peer_ids if len(body) == ID_PREFIX + len(one.value))
        theirs = next((one for one in said if body.endswith(one.value)), self.policy.remote_id)
        return _order(self.policy.local_id) < _order(theirs)

    @property
    def begun_by_the_lower(self) -> bool:
        """Whether the side with the lower identity has begun it: both sides find the same."""
        return self.initiator == self.we_are_lower


def _order(identity: Identity) -> tuple[int, bytes]:
    return identity.type, identity.value.lower().rstrip(b".")
