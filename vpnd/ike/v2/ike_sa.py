"""What is known of one IKE SA: SPIs, path, keys, and what the peer has told."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.ike.faults import Drop
from vpnd.ike.natt import NO_NAT, Nat
from vpnd.ike.outputs import IkeSaInfo
from vpnd.ike.registry import Registry
from vpnd.ike.session import Phase, Unreachable
from vpnd.ike.timers import Timers
from vpnd.ike.v2.keys import IkeKeys
from vpnd.ike.v2.protect import Protection
from vpnd.ike.v2.state import State, Timer
from vpnd.ike.v2.window import Window
from vpnd.model.child import Path
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import PeerPolicy
from vpnd.model.proposals import Suite
from vpnd.wire.iana import IkeVersion


@dataclass(slots=True)
class Init:
    """What IKE_AUTH signs of IKE_SA_INIT: both messages as they travelled, and the nonces."""

    request: bytes = b""
    response: bytes = b""
    nonce_i: bytes = b""
    nonce_r: bytes = b""


class IkeSa:
    """The facts of one IKE SA and what follows from them; `Session` adds what it does.

    `knows_childless`: the responder has announced that IKE_AUTH may come without a CHILD_SA (RFC 6023).

    `hint` and `unreachable` are what anyone may have told an attempt; `candidates` are the tunnels that a
    responder still chooses from. Times are seconds on the caller's clock, 0 before they happen.
    """

    def __init__(
        self,
        registry: Registry,
        policy: PeerPolicy,
        path: Path,
        initiator: bool,
        local_spi: bytes,
        peer_spi: bytes,
    ) -> None:
        self.registry = registry
        self.policy = policy
        self.tunnel = policy.name
        self.path = path
        self.former: Path | None = None
        """Where the peer was before it moved, until it has answered from where it is."""
        self.initiator = initiator
        self.local_spi = local_spi
        self.peer_spi = peer_spi
        self.candidates: tuple[PeerPolicy, ...] = (policy,)
        self.state = State.NEW
        self.window = Window()
        self.init = Init()
        self.nat: Nat = NO_NAT
        self.esp_in_udp = False
        self.fragmentation = False
        self.knows_childless = False
        self.vendor: str | None = None
        self.timers: Timers[object] = Timers()
        self.hint: Diagnosis | None = None
        self.unreachable: Unreachable | None = None
        self.began_at = 0.0
        self.established_at: float | None = None
        self.last_heard = 0.0
        self.last_message = 0.0
        """When the peer's last authentic message came; `last_heard` counts ESP as well."""
        self.sent = 0
        self.received = 0
        self.suite: Suite | None = None
        self.protection: Protection | None = None
        self._keys: IkeKeys | None = None

    @property
    def version(self) -> IkeVersion:
        return IkeVersion.V2

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def is_stranger(self) -> bool:
        """Whether a peer has begun it that has not proved itself."""
        return not self.initiator and self.phase is Phase.CONNECTING

    @property
    def is_undecided(self) -> bool:
        """Whether IKE_AUTH, with the tunnels that are configured then, decides which one it is."""
        return self.state is State.ANSWERED_INIT

    @property
    def spi_i(self) -> bytes:
        """The SPI of the IKE SA's initiator."""
        return self.local_spi if self.initiator else self.peer_spi

    @property
    def spi_r(self) -> bytes:
        """The SPI of the IKE SA's responder."""
        return self.peer_spi if self.initiator else self.local_spi

    @property
    def keys(self) -> IkeKeys:
        """Raises Drop before IKE_SA_INIT has made them."""
        if self._keys is None:
            raise Drop("no keys yet")
        return self._keys

    def groups_on_request(self) -> tuple[int, ...]:
        """The groups that a peer gets which asks for PFS where it is off, first that of this IKE SA."""
        return self.policy.groups_on_request(self.suite.dh if self.suite is not None else None)

    def suite_fits(self, policy: PeerPolicy) -> bool:
        """Whether the algorithms agreed on in IKE_SA_INIT are also this tunnel's."""
        suite = self.suite
        return suite is not None and any(
            suite.encryption in p.encryption
            and (suite.integrity in p.integrity if suite.integrity else not p.integrity)
            and suite.prf in p.prf
            and suite.dh in p.dh
            for p in policy.proposals
        )

    def answered_since(self, since: float) -> bool:
        return self.last_message > since

    def learn_keys(self, suite: Suite, keys: IkeKeys) -> None:
        """Algorithms and keys are agreed: messages are protected from now on."""
        self.suite = suite
        self._keys = keys
        self.protection = Protection(suite, keys, self.initiator, self.registry.entropy)

    def info(self) -> IkeSaInfo | None:
        if self.established_at is None or self.suite is None:
            return None
        return IkeSaInfo(
            tunnel=self.tunnel,
            version=IkeVersion.V2,
            mode=None,
            initiator=self.initiator,
            spi_i=self.spi_i,
            spi_r=self.spi_r,
            suite=self.suite,
            path=self.path,
            nat=self.nat.found,
            vendor=self.vendor,
            established_at=self.established_at,
            rekey_at=self.timers.deadline(Timer.REKEY),
            expires_at=self.timers.deadline(Timer.LIFETIME) or self.established_at,
            last_heard=self.last_heard,
        )
