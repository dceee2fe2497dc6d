"""The configuration of simulated tunnels, with the cheapest algorithms as the default."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

from vpnd.model.identity import Identity
from vpnd.model.policy import ChildPolicy, DpdPolicy, Encapsulation, Lifetimes, PeerPolicy
from vpnd.model.proposals import Proposal
from vpnd.model.secret import Secret
from vpnd.model.selectors import Address
from vpnd.wire.iana import IkeVersion, Protocol

ADDRESS_A = ip_address("192.0.2.1")
ADDRESS_B = ip_address("192.0.2.2")
ADDRESS_C = ip_address("192.0.2.3")
STRANGER = ip_address("203.0.113.66")

CURVE25519 = 31
"""The fastest group, so that a thousand handshakes fit in a test."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the two ends of a tunnel have in common; `policy_pair` makes both sides' configuration of it.

    `prove`: the first CHILD_SA is rekeyed early, as for every tunnel of the daemon.
    """

    mappings: int = 1
    dh: tuple[int, ...] = (CURVE25519,)
    pfs: tuple[int, ...] = ()
    encryption: tuple[str, ...] = ("aes-128",)
    integrity: tuple[str, ...] = ("sha256",)
    psk: bytes = b"correct horse battery staple"
    ike_lifetime: int = 86_400
    child_lifetime: int = 14_400
    encapsulation: Encapsulation = Encapsulation.AUTO
    dpd: bool = True
    prove: bool = False

    def ike_proposal(self) -> Proposal:
        """The IKE proposal of both sides."""
        return Proposal(Protocol.IKE, self.encryption, ("sha256",), self.integrity, self.dh)

    def child(self, index: int, here: int, there: int) -> ChildPolicy:
        """Mapping `index` between 10.HERE.INDEX.0/24 and 10.THERE.INDEX.0/24."""
        return ChildPolicy(
            index=index,
            local=ip_network(f"10.{here}.{index}.0/24"),
            remote=ip_network(f"10.{there}.{index}.0/24"),
            proposals=(Proposal(Protocol.ESP, self.encryption, (), self.integrity, self.pfs),),
            pfs=self.pfs,
            lifetimes=Lifetimes(self.child_lifetime),
        )

    def policy(self, name: str, local: Address, remote: Address, here: int, there: int) -> PeerPolicy:
        """One side's configuration; `here` and `there` are the second octets of its subnets."""
        return PeerPolicy(
            name=name,
            version=IkeVersion.V2,
            mode=None,
            local_address=local,
            remote_address=remote,
            local_id=Identity.of_address(local),
            remote_id=Identity.of_address(remote),
            psk=Secret(self.psk),
            proposals=(self.ike_proposal(),),
            lifetime=self.ike_lifetime,
            children=tuple(self.child(i, here, there) for i in range(self.mappings)),
            encapsulation=self.encapsulation,
            dpd=DpdPolicy(enabled=self.dpd),
            prove_rekey=self.prove,
        )

    def pair(self) -> tuple[PeerPolicy, PeerPolicy]:
        """The configuration of gateway a at 192.0.2.1 and of gateway b at 192.0.2.2."""
        return (
            self.policy("to-b", ADDRESS_A, ADDRESS_B, 1, 2),
            self.policy("to-a", ADDRESS_B, ADDRESS_A, 2, 1),
        )


NAME = "t"
"""What both ends call the tunnel of `policy`."""
IKE = (Proposal(Protocol.IKE, ("aes-128",), ("sha256",), ("sha256",), (CURVE25519,)),)
ESP = (Proposal(Protocol.ESP, ("aes-128-gcm",)),)


def policy(name: str = NAME, **changes: Any) -> PeerPolicy:
    """A tunnel as gateway a has it, without signs of life; `changes` are other values of its fields."""
    peer = PeerPolicy(
        name=name,
        version=IkeVersion.V2,
        mode=None,
        local_address=ADDRESS_A,
        remote_address=ADDRESS_B,
        local_id=Identity.of("a.example"),
        remote_id=Identity.of("b.example"),
        psk=Secret(b"a long enough key"),
        proposals=IKE,
        lifetime=86_400,
        children=(mapping(),),
        dpd=DpdPolicy(enabled=False),
    )
    return replace(peer, **changes)


def mapping(index: int = 0, **changes: Any) -> ChildPolicy:
    """Mapping `index` as gateway a has it: 10.1.INDEX.0/24 here, 10.2.INDEX.0/24 there."""
    child = ChildPolicy(
        index=index,
        local=ip_network(f"10.1.{index}.0/24"),
        remote=ip_network(f"10.2.{index}.0/24"),
        proposals=ESP,
        pfs=(),
        lifetimes=Lifetimes(3600),
    )
    return replace(child, **changes)


def with_pfs(child: ChildPolicy, *groups: int) -> ChildPolicy:
    """The same mapping with perfect forward secrecy."""
    return replace(child, pfs=groups, proposals=tuple(replace(p, dh=groups) for p in child.proposals))


def mirrored(peer: PeerPolicy) -> PeerPolicy:
    """The same tunnel as the other side has it."""
    assert peer.remote_address is not None
    return replace(
        peer,
        local_address=peer.remote_address,
        remote_address=peer.local_address,
        local_id=peer.remote_id,
        remote_id=peer.local_id,
        children=tuple(replace(c, local=c.remote, remote=c.local) for c in peer.children),
    )
