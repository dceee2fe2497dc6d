"""One gateway of the simulated world: a real Endpoint, and a datapath that only remembers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, assert_never

from vpnd.ike.outputs import (
    ChildDown,
    ChildExpected,
    ChildFailed,
    ChildLimited,
    ChildReplaced,
    ChildRetired,
    ChildSaInfo,
    ChildUp,
    Decrypted,
    Established,
    Failed,
    IkeDown,
    IkeRekeyFailed,
    IkeReplaced,
    IkeSaInfo,
    Keepalive,
    KeysChanged,
    LadderLine,
    NextKeyProved,
    Offered,
    OutboundReady,
    Output,
    PathMoved,
    PeerDead,
    PeerRenews,
    Story,
    Transmit,
    UnknownPeer,
)
from vpnd.ike.session import Snapshot
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import PeerPolicy
from vpnd.model.selectors import Address

Event = TypeVar("Event", bound=Output)
Diagnosed = TypeVar("Diagnosed", Failed, ChildFailed, ChildDown, IkeDown, PeerDead, IkeRekeyFailed)

LOWEST_SPI = 256
"""SPIs 1 to 255 are reserved (RFC 4303 section 2.1)."""


class Broken(AssertionError):
    """An endpoint broke a rule that holds at every moment; the text says which, and in which world."""


class EndpointLike(Protocol):
    """What the world needs of `vpnd.ike.endpoint.Endpoint`."""

    @property
    def outputs(self) -> deque[Output]: ...
    @property
    def counters(self) -> Counter[str]: ...

    def set_peer(self, now: float, policy: PeerPolicy) -> None: ...
    def initiate(self, now: float, name: str, mapping: int) -> None: ...
    def handle_datagram(self, now: float, path: Path, data: bytes) -> None: ...
    def handle_timeout(self, now: float) -> None: ...
    def next_timeout(self) -> float | None: ...
    def ike_sas(self, name: str) -> tuple[IkeSaInfo, ...]: ...
    def child_sas(self, name: str) -> dict[int, ChildSaInfo]: ...
    def snapshot(self) -> Snapshot: ...


@dataclass(slots=True)
class Installed:
    """An SA pair in the stand-in for the datapath.

    `turn` is 0 while only its inbound half is used; of several pairs of a mapping the one with the highest
    turn sends.
    """

    child: ChildSa
    since: float
    turn: int = 0


class Gateway:
    """One side. Every command and every input ends with the outputs drained, as the daemon does it.

    `installed` holds the SA pairs by inbound SPI; `events` every output but Transmit, in order. The rules of
    `vpnd.ike.outputs` are checked at each output, and a breach raises `Broken`.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        endpoint: EndpointLike,
        clock: Callable[[], float],
        send: Callable[[Gateway, Transmit], None],
        drawn: Callable[[Gateway, LadderLine], None],
    ) -> None:
        self.name = name
        self.address = address
        self.endpoint = endpoint
        self.installed: dict[int, Installed] = {}
        self.events: list[Output] = []
        self.policies: dict[str, PeerPolicy] = {}
        self.peers: dict[str, str] = {}
        self._turns = 0
        self._clock = clock
        self._send = send
        self._drawn = drawn

    # ------------------------------------------------------------------------------- commands

    def set_peer(self, peer: str, policy: PeerPolicy) -> None:
        """Configure a tunnel to the gateway called `peer`."""
        self.policies[policy.name] = policy
        self.peers[policy.name] = peer
        self.endpoint.set_peer(self._clock(), policy)
        self.drain()

    def do(self, command: str, *arguments: object) -> None:
        """Call `endpoint.command(now, *arguments)`, then drain."""
        getattr(self.endpoint, command)(self._clock(), *arguments)
        self.drain()

    def initiate(self, mapping: int = 0, tunnel: str | None = None) -> None:
        """Ask for an SA pair of this mapping."""
        self.do("initiate", tunnel or self.tunnel, mapping)

    def close(self, tunnel: str | None = None) -> None:
        """Take the tunnel down, as `vpnctl down` does."""
        self.do("close", tunnel or self.tunnel, Diagnosis.of(Code.DOWN_BY_OPERATOR))

    def close_child(self, mapping: int = 0) -> None:
        """Delete the SA pair that carries this mapping."""
        child = self.child(mapping)
        self.do("close_child", child.tunnel, child.spi_in)

    def rekey_child(self, mapping: int = 0) -> None:
        """Replace the SA pair that carries this mapping."""
        child = self.child(mapping)
        self.do("rekey_child", child.tunnel, child.spi_in)

    def rekey_ike(self) -> None:
        """Replace the IKE SA of the only tunnel."""
        self.do("rekey_ike", self.tunnel)

    def probe(self) -> None:
        """Ask the peer of the only tunnel whether it is alive."""
        self.do("probe", self.tunnel)

    # ------------------------------------------------------------------------------- inputs

    def receive(self, path: Path, data: bytes) -> None:
        """One datagram arrives along `path`, as this gateway sees it."""
        self.endpoint.handle_datagram(self._clock(), path, data)
        self.drain()

    def timeout(self) -> None:
        """The earliest deadline is due."""
        self.endpoint.handle_timeout(self._clock())
        self.drain()

    def next_timeout(self) -> float | None:
        """The earliest deadline."""
        return self.endpoint.next_timeout()

    # ------------------------------------------------------------------------------- queries

    @property
    def tunnel(self) -> str:
        """The only tunnel's name."""
        (name,) = self.policies
        return name

    def ike_sas(self, tunnel: str | None = None) -> tuple[IkeSaInfo, ...]:
        """The established IKE SAs of a tunnel."""
        return self.endpoint.ike_sas(tunnel or self.tunnel)

    def children(self, mapping: int | None = None, tunnel: str | None = None) -> list[ChildSa]:
        """The installed SA pairs, oldest first."""
        return [
            pair.child
            for pair in self.installed.values()
            if mapping in (None, pair.child.mapping) and tunnel in (None, pair.child.tunnel)
        ]

    def sends(self, mapping: int = 0) -> bool:
        """Whether packets of this mapping have an SA pair."""
        return any(pair.turn and pair.child.mapping == mapping for pair in self.installed.values())

    def child(self, mapping: int = 0) -> ChildSa:
        """The SA pair on which packets of this mapping are sent."""
        sending = [p for p in self.installed.values() if p.turn and p.child.mapping == mapping]
        if not sending:
            raise Broken(f"{self.name} has no SA pair to send on for mapping {mapping}")
        return max(sending, key=lambda pair: pair.turn).child

    def of(self, kind: type[Event]) -> list[Event]:
        """The recorded outputs of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def last(self, kind: type[Event]) -> Event:
        """The newest recorded output of one kind."""
        found = self.of(kind)
        if not found:
            raise Broken(f"{self.name} has announced no {kind.__name__}")
        return found[-1]

    def diagnosis(self, kind: type[Diagnosed]) -> Diagnosis:
        """That of the newest output of one kind."""
        return self.last(kind).diagnosis

    def sending(self) -> dict[int, ChildSa]:
        """The SA pair on which packets of each mapping are sent."""
        mappings = {pair.child.mapping for pair in self.installed.values() if pair.turn}
        return {mapping: self.child(mapping) for mapping in sorted(mappings)}

    # ------------------------------------------------------------------------------- outputs

    def drain(self) -> None:
        """Apply every waiting output in order, then look at the one timer."""
        while self.endpoint.outputs:
            self._apply(self.endpoint.outputs.popleft())
        deadline = self.endpoint.next_timeout()
        if deadline is not None and not abs(deadline) < float("inf"):
            raise Broken(f"{self.name}: the next timeout is {deadline}")

    def _apply(self, output: Output) -> None:
        match output:
            case Transmit():
                self._send(self, output)
                return
            case LadderLine():
                self._drawn(self, output)
            case ChildExpected():
                self._install(output.child, sending=False)
            case ChildUp():
                self._install(output.child, output.outbound, output.expected)
            case ChildReplaced():
                self._known(output.old_spi_in, "ChildReplaced")
                self._install(output.child, output.outbound, output.expected)
            case OutboundReady():
                self._use(self._known(output.spi_in, "OutboundReady"))
            case ChildLimited():
                self._known(output.spi_in, "ChildLimited")
            case ChildRetired():
                self._known(output.spi_in, "ChildRetired").turn = 0
            case ChildDown():
                self._known(output.spi_in, "ChildDown")
                del self.installed[output.spi_in]
            case (
                IkeReplaced()
                | Keepalive()
                | Established()
                | IkeDown()
                | ChildFailed()
                | Offered()
                | IkeRekeyFailed()
                | Failed()
                | PeerDead()
                | PeerRenews()
                | KeysChanged()
                | NextKeyProved()
                | PathMoved()
                | Story()
                | UnknownPeer()
                | Decrypted()
            ):
                pass
            case _:
                assert_never(output)
        self.events.append(output)

    def _install(self, child: ChildSa, sending: bool, expected: bool = False) -> None:
        if expected:
            pair = self._known(child.spi_in, "an expected SA pair")
            if sending:
                self._use(pair)
            return
        if child.spi_in in self.installed:
            raise Broken(f"{self.name} installed the inbound SPI {child.spi_in:08x} twice")
        if not (LOWEST_SPI <= child.spi_in < 2**32 and LOWEST_SPI <= child.spi_out < 2**32):
            raise Broken(f"{self.name} installed the reserved SPI {child.spi_in:08x}/{child.spi_out:08x}")
        if not self.of(Established):
            raise Broken(f"{self.name} installed an SA pair before any IKE SA was established")
        pair = self.installed[child.spi_in] = Installed(child, self._clock())
        if sending:
            self._use(pair)

    def _use(self, pair: Installed) -> None:
        """Packets of its mapping go out on this pair from now on."""
        self._turns += 1
        pair.turn = self._turns

    def _known(self, spi_in: int, output: str) -> Installed:
        if spi_in not in self.installed:
            raise Broken(f"{self.name}: {output} names the inbound SPI {spi_in:08x}, which is not installed")
        return self.installed[spi_in]
