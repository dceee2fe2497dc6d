"""A tunnel with a virtual clock, and IKE as a list of what it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildReplaced,
    ChildUp,
    Established,
    Failed,
    IkeDown,
    IkeRekeyFailed,
    IkeSaInfo,
    Offered,
    OutboundReady,
    Output,
    PathMoved,
    PeerDead,
    PeerRenews,
)
from vpnd.model.child import ChildSa, EspKeys, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity
from vpnd.model.policy import (
    ChildPolicy,
    Communication,
    DpdAction,
    DpdPolicy,
    Lifetimes,
    Negotiation,
    PeerPolicy,
    TunnelPolicy,
)
from vpnd.model.proposals import Proposal, Suite
from vpnd.model.secret import Secret
from vpnd.model.selectors import Selector
from vpnd.tunnel.commands import AttemptFailed, Command, Initiate, Resolve, StateChanged
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.tunnels import Tunnels
from vpnd.wire.iana import IkeVersion, Protocol

LOCAL, REMOTE = ip_address("192.0.2.1"), ip_address("198.51.100.1")
ESP = Proposal(Protocol.ESP, ("aes-128",), integrity=("sha256",))
IKE = Proposal(Protocol.IKE, ("aes-128",), ("sha256",), ("sha256",), (14,))
SILENT = Diagnosis.of(Code.SILENT, peer=REMOTE)
SELECTORS = Diagnosis.of(Code.TRAFFIC_SELECTORS)
DEAD = Diagnosis.of(Code.PEER_DEAD)
DELETED = Diagnosis.of(Code.PEER_DELETED)
SPIS = (b"initiatr", b"responds")


def policy(
    negotiation: Negotiation = Negotiation.ACTIVE,
    mappings: int = 1,
    action: DpdAction = DpdAction.RETRY,
    remote: str = str(REMOTE),
    name: str = "branch",
) -> TunnelPolicy:
    """A tunnel of `mappings` mappings; a `remote` that is no address is a name that is not resolved."""
    children = tuple(
        ChildPolicy(
            index,
            ip_network(f"10.1.{index}.0/24"),
            ip_network(f"10.2.{index}.0/24"),
            (ESP,),
            (),
            Lifetimes(3600),
        )
        for index in range(mappings)
    )
    peer = PeerPolicy(
        name=name,
        version=IkeVersion.V2,
        mode=None,
        local_address=LOCAL,
        remote_address=REMOTE if remote == str(REMOTE) else None,
        local_id=Identity.of_address(LOCAL),
        remote_id=Identity.of_address(REMOTE),
        psk=Secret(b"a key that nobody has to guess"),
        proposals=(IKE,),
        lifetime=86400,
        children=children,
        dpd=DpdPolicy(action=action),
    )
    return TunnelPolicy(
        name=name,
        peer=peer,
        remote=remote,
        negotiation=negotiation,
        communication=Communication.SPD_POLICY,
        routes=(),
        priority=0,
        interface="vpn-branch",
    )


def child(mapping: int = 0, spi_in: int = 0x1000, initiator: bool = True, tunnel: str = "branch") -> ChildSa:
    """An SA pair of one mapping."""
    keys = EspKeys(Secret(bytes(16)), Secret(bytes(32)), Secret(b""))
    return ChildSa(
        tunnel=tunnel,
        mapping=mapping,
        spi_in=spi_in,
        spi_out=spi_in + 1,
        suite=Suite("aes-128", None, "sha256", None),
        keys_in=keys,
        keys_out=keys,
        ts_local=(Selector.of(ip_network(f"10.1.{mapping}.0/24")),),
        ts_remote=(Selector.of(ip_network(f"10.2.{mapping}.0/24")),),
        path=Path(LOCAL, 4500, REMOTE, 4500),
        udp=True,
        lifetimes=Lifetimes(3600),
        initiator=initiator,
    )


def ike_info(spis: tuple[bytes, bytes]) -> IkeSaInfo:
    """An IKE SA, of which the life of a tunnel knows the SPIs."""
    return IkeSaInfo(
        tunnel="branch",
        version=IkeVersion.V2,
        mode=None,
        initiator=True,
        spi_i=spis[0],
        spi_r=spis[1],
        suite=Suite("aes-128", "sha256", "sha256", 14),
        path=Path(LOCAL, 500, REMOTE, 500),
        nat=False,
        vendor=None,
        established_at=0.0,
        rekey_at=None,
        expires_at=86400.0,
        last_heard=0.0,
    )


REPORTS: dict[str, Callable[..., Output]] = {
    "established": lambda spi_i, spi_r: Established("branch", ike_info((spi_i, spi_r))),
    "ike_down": lambda spi_i, spi_r, diagnosis: IkeDown("branch", spi_i, spi_r, diagnosis),
    "child_up": ChildUp,
    "child_replaced": lambda old, child: ChildReplaced(old, child, outbound=True),
    "outbound_ready": lambda spi_in: OutboundReady("branch", spi_in),
    "child_down": lambda index, spi_in, diagnosis: ChildDown("branch", index, spi_in, diagnosis),
    "child_failed": lambda index, diagnosis: ChildFailed("branch", index, diagnosis),
    "offered": lambda indexes: Offered("branch", indexes),
    "peer_renews": lambda: PeerRenews("branch"),
    "peer_dead": lambda diagnosis: PeerDead("branch", diagnosis),
    "path_moved": lambda path: PathMoved("branch", path),
    "ike_rekey_failed": lambda diagnosis: IkeRekeyFailed("branch", diagnosis),
    "refused": lambda diagnosis: Failed("branch", diagnosis, initiator=False, unproven=True),
    "failed": lambda diagnosis, initiator: Failed("branch", diagnosis, initiator),
}
"""What IKE reports of the tunnel, by the words of the tests."""


class Life:
    """One tunnel in a tunnels, told what happens; `commands` is what it asked for, newest last."""

    def __init__(self, configured: TunnelPolicy, seed: int = 1) -> None:
        self.now = 1000.0
        self.tunnels = Tunnels(SeededEntropy(seed))
        self.tunnel: Tunnel = self.tunnels.add(configured)
        self.commands: list[Command] = []
        self._spis: Iterator[int] = iter(range(0x2000, 0xFFFFFF, 2))
        self.tell("start")

    def tell(self, what: str, *arguments: Any) -> None:
        """What IKE reports, or a method of the tunnel that takes the time first."""
        if what in REPORTS:
            self.tunnels.handle_ike(self.now, REPORTS[what](*arguments))
        else:
            getattr(self.tunnels["branch"], what)(self.now, *arguments)
        self._take()

    def pass_time(self, seconds: float) -> None:
        """Let every deadline of the next `seconds` come, in order."""
        end = self.now + seconds
        while (at := self.tunnels.next_timeout()) is not None and at <= end:
            self.now = max(self.now, at)
            self.tunnels.handle_timeout(self.now)
            self._take()
        self.now = end
        self._take()

    def bring_up(self) -> None:
        """IKE does whatever it is asked for, until nothing is asked."""
        self.tell("established", *SPIS)
        while self.tunnel.attempt.mapping is not None:
            self.tell("child_up", child(self.tunnel.attempt.mapping, next(self._spis)))

    def lose(self, diagnosis: Diagnosis) -> None:
        """Every SA goes."""
        for mapping in self.tunnel.mappings:
            if mapping.owner is not None:
                self.tell("child_down", mapping.index, mapping.owner.spi_in, diagnosis)
        self.tell("ike_down", *SPIS, diagnosis)

    def resolve(self) -> None:
        """The name servers answer."""
        configured = self.tunnel.policy
        bound = replace(configured, peer=replace(configured.peer, remote_address=REMOTE))
        self.tell("resolved", bound)

    @property
    def state(self) -> str:
        """The tunnel's state, as an operator reads it."""
        return self.tunnel.state.value

    @property
    def attempts(self) -> int:
        """How many attempts it has begun since it was last asked, which forgets them."""
        return len(self.taken(Initiate))

    def taken(self, kind: type[Command]) -> list[Command]:
        """The commands of one kind since they were last asked for, which forgets them."""
        found = [command for command in self.commands if isinstance(command, kind)]
        self.commands = [command for command in self.commands if not isinstance(command, kind)]
        return found

    def story(self) -> list[str]:
        """The states it went through since it was last asked."""
        return [c.after.value for c in self.taken(StateChanged) if isinstance(c, StateChanged)]

    def retries(self) -> list[float | None]:
        """What each failed attempt said about the next one."""
        return [c.retry_in for c in self.taken(AttemptFailed) if isinstance(c, AttemptFailed)]

    def asked_to_resolve(self) -> int:
        """How many look-ups it wanted."""
        return len(self.taken(Resolve))

    def _take(self) -> None:
        self.commands += self.tunnels.outputs
        self.tunnels.outputs.clear()
