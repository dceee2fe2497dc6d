"""What an explanation of a failure is made of: the facts of a diagnosis, and its parts for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vpnd.control.schema import ConfiguredHere, ExplanationBody
from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.policy import Diagnose, DpdAction, NegotiationMode, PeerPolicy, TunnelPolicy
from vpnd.model.selectors import ANY_PORT
from vpnd.model.text import printable
from vpnd.wire.iana import IkeVersion


@dataclass(frozen=True, slots=True)
class Explanation:
    """A failure for people; `change` and `try_` say what to do about it."""

    code: str
    what: str
    peer_said: str | None = None
    we_have: str | None = None
    also_possible: tuple[str, ...] = ()
    change: str | None = None
    try_: tuple[str, ...] = ()

    def body(self, where: Iterable[ConfiguredHere] = ()) -> ExplanationBody:
        """As the API says it; `where` are the values here that it is about."""
        return ExplanationBody(
            code=self.code,
            what=self.what,
            peer_said=self.peer_said,
            we_have=self.we_have,
            also_possible=list(self.also_possible),
            change=self.change,
            try_=list(self.try_),
            where=list(where),
        )


@dataclass(frozen=True, slots=True)
class About:
    """What the words depend on beside the facts; None where it is not known.

    `version` is the tunnel's, `ikev1` or `ikev2`. `vendor` is the peer's maker, as its vendor IDs say.
    `udp`: whether ESP travels in UDP. `gateway`: the key of its customer gateway's table,
    `customer_gateways.branch`. `configured`: the tunnel here, so that no advice is what is set already, or
    cannot be set beside the rest.
    """

    version: str | None = None
    vendor: str | None = None
    udp: bool | None = None
    gateway: str | None = None
    configured: TunnelPolicy | None = None

    @classmethod
    def of(
        cls, policy: TunnelPolicy, vendor: str | None, udp: bool | None, gateway: str | None = None
    ) -> About:
        """What is known of this tunnel."""
        version = "ikev1" if policy.peer.version is IkeVersion.V1 else "ikev2"
        return cls(version, vendor, udp, gateway, policy)

    @property
    def of_any_address(self) -> bool:
        """Whether the peer may be anywhere."""
        return self.configured is not None and self.configured.peer.any_address

    @property
    def is_aggressive(self) -> bool:
        """Whether aggressive mode is configured."""
        return self.configured is not None and self.configured.peer.mode is NegotiationMode.AGGRESSIVE

    @property
    def asks_for_all(self) -> bool:
        """Whether a peer that refuses is asked for what is not configured too."""
        return self.configured is not None and self.configured.diagnose is Diagnose.ALL

    @property
    def reconnects(self) -> bool:
        """Whether a dead peer is called again."""
        return self.configured is not None and self.configured.peer.dpd.action is DpdAction.RETRY

    @property
    def carries_ipv6(self) -> bool:
        """Whether IPv6 goes through the tunnel."""
        return self.configured is not None and any(
            child.local.version == 6 for child in self.configured.peer.children
        )

    @property
    def only_in_ikev2(self) -> tuple[str, ...]:
        """What is configured that IKEv1 does not have, as `ike.encryption: aes-128-gcm`."""
        return tuple(dict.fromkeys(_only_in_ikev2(self.configured.peer))) if self.configured else ()


def _only_in_ikev2(peer: PeerPolicy) -> Iterator[str]:
    for proposal in peer.proposals:
        for word in proposal.encryption:
            if ENCRYPTIONS[word].ikev1_phase1 is None:
                yield f"ike.encryption: {word}"
        for word in proposal.integrity or proposal.prf:
            if INTEGRITIES[word].ikev1_hash is None:
                yield f"ike.integrity: {word}"
    for child in peer.children:
        for proposal in child.proposals:
            for word in proposal.encryption:
                if ENCRYPTIONS[word].ikev1_esp is None:
                    yield f"ipsec.encryption: {word}"
            if proposal.esn == (True,):
                yield "ipsec.esn: yes"
        for key, ports in (("local_port", child.local_ports), ("remote_port", child.remote_ports)):
            if ports != ANY_PORT and ports[0] != ports[1]:
                yield f"spd.{key}: {ports[0]}-{ports[1]}"


UNKNOWN = About()


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one diagnosis, safe to print."""

    diagnosis: Diagnosis
    tunnel: str
    about: About = UNKNOWN

    def __getitem__(self, key: str) -> str | None:
        value = self.diagnosis.fact(key)
        return None if value is None else printable(value)

    @property
    def code(self) -> str:
        return self.diagnosis.code.value

    @property
    def notify(self) -> str | None:
        """`NO_PROPOSAL_CHOSEN in CREATE_CHILD_SA`, say; who sent the notify depends on the role."""
        where = self["exchange"]
        if self["notify"] is None:
            return None
        return f"{self['notify']} in {where}" if where else self["notify"]

    @property
    def peer(self) -> str:
        return self["peer"] or "the peer"

    @property
    def peer_key(self) -> str:
        """The key that has the peer's address."""
        return f"{printable(self.about.gateway or 'customer_gateways.NAME')}.address"

    def during(self) -> str:
        """` (IKE_AUTH)`, or nothing."""
        return f" ({self['exchange']})" if self["exchange"] else ""

    def mapping(self) -> str:
        """`10.1.0.0/24 - 10.2.0.0/24: `, or nothing."""
        return f"{self['mapping']}: " if self["mapping"] else ""
