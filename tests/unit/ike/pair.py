"""Two endpoints back to back in memory: a virtual clock, a wire in between, ladders as text."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint, Limits
from vpnd.ike.outputs import (
    ChildDown,
    ChildReplaced,
    ChildUp,
    IkeSaInfo,
    LadderLine,
    OutboundReady,
    Output,
    Transmit,
)
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.identity import Identity
from vpnd.model.policy import ChildPolicy, DpdPolicy, Lifetimes, PeerPolicy
from vpnd.model.proposals import Proposal
from vpnd.model.secret import Secret
from vpnd.wire.iana import IkeVersion, Protocol

A, B = IPv4Address("192.0.2.1"), IPv4Address("198.51.100.1")
NAME = "t"

IKE = (Proposal(Protocol.IKE, ("aes-128",), ("sha256",), ("sha256",), (31,)),)
ESP = (Proposal(Protocol.ESP, ("aes-128-gcm",)),)
T = TypeVar("T")


def mapping(index: int = 0, **changes: object) -> ChildPolicy:
    """Mapping `index` as side A has it: 10.1.index.0/24 here, 10.2.index.0/24 there."""
    child = ChildPolicy(
        index=index,
        local=IPv4Network(f"10.1.{index}.0/24"),
        remote=IPv4Network(f"10.2.{index}.0/24"),
        proposals=ESP,
        pfs=(),
        lifetimes=Lifetimes(3600),
    )
    return replace(child, **changes)  # type: ignore[arg-type]


def with_pfs(child: ChildPolicy, *groups: int) -> ChildPolicy:
    """The same mapping with perfect forward secrecy."""
    return replace(child, pfs=groups, proposals=tuple(replace(p, dh=groups) for p in child.proposals))


def policy(name: str = NAME, **changes: object) -> PeerPolicy:
    """A tunnel as side A has it."""
    peer = PeerPolicy(
        name=name,
        version=IkeVersion.V2,
        mode=None,
        local_address=A,
        remote_address=B,
        local_id=Identity.of("a.example"),
        remote_id=Identity.of("b.example"),
        psk=Secret(b"a long enough key"),
        proposals=IKE,
        lifetime=86400,
        children=(mapping(),),
        dpd=DpdPolicy(enabled=False),
    )
    return replace(peer, **changes)  # type: ignore[arg-type]


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


@dataclass
class Datagram:
    """One datagram under way, with the path as its sender sees it."""

    sender: Side
    path: Path
    data: bytes


@dataclass(eq=False)
class Side:
    """One endpoint and everything that it has put out."""

    name: str
    endpoint: Endpoint
    wire: Pair
    outputs: list[Output] = field(default_factory=list)
    children: dict[int, ChildSa] = field(default_factory=dict)
    outbound: dict[int, int] = field(default_factory=dict)

    def drain(self) -> None:
        """Collect the outputs; put datagrams on the wire and follow what is installed."""
        outputs = self.endpoint.outputs
        while outputs:
            output = outputs.popleft()
            self.outputs.append(output)
            match output:
                case Transmit():
                    self.wire.send(Datagram(self, output.path, output.data))
                case LadderLine(outbound=True):
                    self.wire.lines.append((self.name, output.text))
                case ChildUp(child, outbound):
                    self.children[child.spi_in] = child
                    if outbound:
                        self.outbound[child.mapping] = child.spi_in
                case ChildReplaced(_, child, outbound):
                    self.children[child.spi_in] = child
                    if outbound:
                        self.outbound[child.mapping] = child.spi_in
                case OutboundReady(_, spi_in):
                    self.outbound[self.children[spi_in].mapping] = spi_in
                case ChildDown(_, index, spi_in):
                    del self.children[spi_in]
                    if self.outbound.get(index) == spi_in:
                        del self.outbound[index]
                case _:
                    pass

    def all(self, kind: type[T]) -> list[T]:
        """Every output of a type, oldest first."""
        return [output for output in self.outputs if isinstance(output, kind)]

    def last(self, kind: type[T]) -> T:
        """The newest output of a type."""
        found = self.all(kind)
        assert found, f"{self.name} put out no {kind.__name__}: {self.outputs}"
        return found[-1]

    def diagnosis(self, kind: type) -> Diagnosis:
        """That of the newest output of a type."""
        found = self.last(kind).diagnosis
        assert isinstance(found, Diagnosis)
        return found

    @property
    def ike_sas(self) -> tuple[IkeSaInfo, ...]:
        """The established IKE SAs of the tunnel."""
        return self.endpoint.ike_sas(NAME)


class Pair:
    """Two endpoints, `a` and `b`, whose datagrams wait on the wire until `run` or `deliver` takes them.

    `filter` may replace, drop (empty) or multiply each datagram; it is given the sender's name and the bytes.
    """

    def __init__(
        self,
        ours: PeerPolicy | None = None,
        theirs: PeerPolicy | None = None,
        seed: int = 1,
        limits: Limits = Limits(),  # noqa: B008 - a frozen value
    ) -> None:
        self.now = 1000.0
        self.lines: list[tuple[str, str]] = []
        self.wire: deque[Datagram] = deque()
        self.filter: Callable[[str, bytes], list[bytes]] = lambda _, data: [data]
        self.nat: dict[str, Callable[[Path], Path]] = {}
        self.a = Side("a", Endpoint(SeededEntropy(seed), limits), self)
        self.b = Side("b", Endpoint(SeededEntropy(seed + 1), limits), self)
        self.ours = ours or policy()
        self.theirs = theirs or mirrored(self.ours)
        self.a.endpoint.set_peer(self.now, self.ours)
        self.b.endpoint.set_peer(self.now, self.theirs)

    # --- the wire

    def send(self, datagram: Datagram) -> None:
        """Take a datagram from a side."""
        for data in self.filter(datagram.sender.name, datagram.data):
            self.wire.append(Datagram(datagram.sender, datagram.path, data))

    def other(self, side: Side) -> Side:
        """The peer of a side."""
        return self.b if side is self.a else self.a

    def deliver(self, datagram: Datagram) -> None:
        """Hand one datagram to its receiver."""
        receiver = self.other(datagram.sender)
        path = datagram.path
        path = Path(path.remote, path.remote_port, path.local, path.local_port)
        path = self.nat.get(receiver.name, lambda p: p)(path)
        receiver.endpoint.handle_datagram(self.now, path, datagram.data)
        receiver.drain()

    def run(self) -> None:
        """Deliver until the wire is empty."""
        self.a.drain()
        self.b.drain()
        for _ in range(10_000):
            if not self.wire:
                return
            self.deliver(self.wire.popleft())
        raise AssertionError("the two never stop talking")

    def step(self, name: str, carries: bool = True) -> None:
        """Deliver the oldest datagram that the side of this name has sent; the others wait.

        `carries`: no packet may be lost by it.
        """
        self.deliver(self.take(name))
        if carries:
            self.assert_carries()

    def take(self, name: str) -> Datagram:
        """Take the oldest datagram of a side off the wire, to deliver it later or never."""
        self.a.drain()
        self.b.drain()
        datagram = next(d for d in self.wire if d.sender.name == name)
        self.wire.remove(datagram)
        return datagram

    def assert_carries(self) -> None:
        """No packet is lost: each side sends on an SA that the other receives on."""
        for side in (self.a, self.b):
            for spi_in in side.outbound.values():
                assert side.children[spi_in].spi_out in self.other(side).children

    # --- the clock

    def next_timeout(self) -> float | None:
        """The earlier of both sides' deadlines."""
        due = [t for t in (self.a.endpoint.next_timeout(), self.b.endpoint.next_timeout()) if t is not None]
        return min(due, default=None)

    def advance(self, seconds: float) -> None:
        """Let time pass, with everything that happens meanwhile."""
        end = self.now + seconds
        self.run()
        while (due := self.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            for side in (self.a, self.b):
                side.endpoint.handle_timeout(self.now)
            self.run()
        self.now = end
        for side in (self.a, self.b):
            side.endpoint.handle_timeout(self.now)
        self.run()

    def wait(self, seconds: float) -> None:
        """Let time pass for a alone; what it sends stays on the wire."""
        end = self.now + seconds
        while (due := self.a.endpoint.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.a.endpoint.handle_timeout(self.now)
            self.a.drain()
            if self.wire:
                return
        self.now = end

    # --- what tests do

    def initiate(self, side: Side | None = None, index: int = 0) -> None:
        """Ask one side (a) for a mapping, and let the exchange run."""
        (side or self.a).endpoint.initiate(self.now, NAME, index)
        self.run()

    def establish(self) -> None:
        """Bring the tunnel up from a; fail unless it comes up."""
        self.initiate()
        assert self.a.ike_sas, self.a.outputs
        assert self.b.ike_sas, self.b.outputs
        self.lines.clear()

    def ladder(self) -> str:
        """The messages since the tunnel was established, one line each."""
        return "\n".join(f"{'a -> b' if name == 'a' else 'a <- b'}  {text}" for name, text in self.lines)

    def assert_agreed(self) -> None:
        """Both sides have the same SAs with the same keys, and send on SAs that the other has."""
        ours = sorted((c.spi_in, c.spi_out) for c in self.a.children.values())
        theirs = sorted((c.spi_out, c.spi_in) for c in self.b.children.values())
        assert ours == theirs
        for child in self.a.children.values():
            peer = self.b.children[child.spi_out]
            assert (child.keys_in, child.keys_out) == (peer.keys_out, peer.keys_in)
            assert (child.ts_local, child.ts_remote) == (peer.ts_remote, peer.ts_local)
            assert child.suite == peer.suite
            assert child.udp == peer.udp
        assert set(self.a.outbound) == set(self.b.outbound)
        assert {(s.spi_i, s.spi_r) for s in self.a.ike_sas} == {(s.spi_i, s.spi_r) for s in self.b.ike_sas}
