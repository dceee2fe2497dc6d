"""Two gateways negotiate in memory: what comes up, what is agreed, and what each end says of the rest.

It is the code of the daemon, with a clock and a network that are made up: `vpnd.ike` speaks, and
`vpnd.tunnel` decides who begins, what is tried again, and what is said of a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address

from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import ChildReplaced, IkeRekeyFailed, IkeReplaced, IkeSaInfo
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy, GatewayPolicy, Negotiation, TunnelPolicy
from vpnd.model.proposals import Suite
from vpnd.model.selectors import Address
from vpnd.simulate.ladder import Ladder
from vpnd.simulate.living import Living
from vpnd.simulate.world import Datagram, World
from vpnd.tunnel.commands import MappingState, TunnelState
from vpnd.tunnel.lifecycle import Tunnel, impaired
from vpnd.tunnel.mappings import Mapping

NAMES = ("a", "b")

UNKNOWN = tuple(ip_address(f"192.0.2.{number}") for number in (1, 2))
"""Stand for addresses that a configuration leaves open (RFC 5737)."""

ATTEMPTS = 2
"""After so many nothing new is learned."""

UP_WITHIN = 150.0
"""Seconds for a negotiation: longer than the last repeat of a message that nobody answers."""

PROVED_AFTER = 12.0
"""Seconds after which the early rekey of IKEv2 is over, whichever end began."""

RENEWED_WITHIN = 20.0
"""Seconds for a rekey."""


@dataclass(frozen=True, slots=True)
class MappingOutcome:
    """One mapping of an end: what protects it if it is up, and what is said of it."""

    policy: ChildPolicy
    state: MappingState
    suite: Suite | None
    udp: bool
    diagnosis: Diagnosis | None
    renewed: bool | None
    """Whether a rekey of its SAs succeeds; None: there was none to try."""


@dataclass(frozen=True, slots=True)
class TunnelOutcome:
    """One tunnel of an end. `diagnosis`: why it is not up, or what failed in a rekey."""

    policy: TunnelPolicy
    state: TunnelState
    ike: IkeSaInfo | None
    mappings: tuple[MappingOutcome, ...]
    diagnosis: Diagnosis | None
    ike_renewed: bool | None

    @property
    def name(self) -> str:
        """The tunnel's name."""
        return self.policy.name

    @property
    def works(self) -> bool:
        """Whether everything is up as it is configured, and outlives its first rekey."""
        renewals = (self.ike_renewed, *(mapping.renewed for mapping in self.mappings))
        narrowed = any(m.diagnosis is not None and m.diagnosis.code is Code.NARROWED for m in self.mappings)
        return (
            all(m.state is MappingState.UP for m in self.mappings) and not narrowed and False not in renewals
        )


@dataclass(frozen=True, slots=True)
class Round:
    """What comes of it when the end with this index begins; the tunnels of both ends."""

    beginner: int
    tunnels: tuple[tuple[TunnelOutcome, ...], tuple[TunnelOutcome, ...]]
    ladder: Ladder

    @property
    def works(self) -> bool:
        """Whether all tunnels of both ends do."""
        return all(one.works for end in self.tunnels for one in end)


@dataclass(frozen=True, slots=True)
class End:
    """One gateway: its tunnels to the other, and those that lead elsewhere."""

    gateway: GatewayPolicy
    address: Address
    tunnels: tuple[TunnelPolicy, ...]
    elsewhere: tuple[TunnelPolicy, ...]

    @property
    def begins(self) -> bool:
        """Whether it begins by its configuration."""
        return any(
            one.negotiation is not Negotiation.PASSIVE and not one.peer.any_address for one in self.tunnels
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What two configurations come to: a round for each end that begins by its configuration.

    `nat` is an end's own address and the one that the other end knows it by; None: they agree.
    """

    ends: tuple[End, End]
    nat: tuple[Address, Address] | None
    rounds: tuple[Round, ...]

    @property
    def works(self) -> bool:
        """Whether it comes up, whichever end begins."""
        return bool(self.rounds) and all(one.works for one in self.rounds)


def negotiate(gateways: tuple[GatewayPolicy, GatewayPolicy], seed: int = 1) -> Outcome:
    """Let the two negotiate all tunnels that they have with each other, and rekey what came up."""
    addresses = _addresses(gateways)
    chosen = [_tunnels(gateways[i], addresses[1 - i], gateways[1 - i]) for i in (0, 1)]
    nat = _nat(addresses, chosen)
    found = [
        End(
            gateways[i],
            addresses[i],
            tuple(_bound(one, addresses, i, nat) for one in chosen[i]),
            tuple(one for one in gateways[i].tunnels if one not in chosen[i]),
        )
        for i in (0, 1)
    ]
    ends = found[0], found[1]
    rounds = tuple(_round(ends, i, nat, seed) for i in (0, 1) if ends[i].begins and ends[1 - i].tunnels)
    return Outcome(ends, nat, rounds)


def _round(ends: tuple[End, End], beginner: int, nat: tuple[Address, Address] | None, seed: int) -> Round:
    world = _Translated(nat)
    living: list[Living] = []
    for i, name in enumerate(NAMES):
        entropy = SeededEntropy(2 * seed + i)
        end = world.add(Living, name, ends[i].address, Endpoint(entropy))
        end.configure(NAMES[1 - i], ends[i].tunnels, entropy)
        living.append(end)
    _live(world, living, beginner)
    renewed = _renew(world, living[beginner], living)
    first, second = (tuple(_outcome(end, one, renewed) for one in end.tunnels) for end in living)
    return Round(beginner, (first, second), world.ladder())


# ------------------------------------------------------------------------------------ addresses


def _addresses(gateways: tuple[GatewayPolicy, GatewayPolicy]) -> tuple[Address, Address]:
    """Where each end is; one that follows a default route is where the other looks for it."""
    found: list[Address] = []
    for i in (0, 1):
        own, other = gateways[i].address, gateways[1 - i]
        sought = [one.peer.remote_address for one in other.tunnels if one.peer.remote_address is not None]
        if own.is_unspecified:
            own = sought[0] if len(set(sought)) == 1 else UNKNOWN[i]
        found.append(own)
    if found[0] == found[1]:
        return UNKNOWN[0], UNKNOWN[1]
    return found[0], found[1]


def _tunnels(gateway: GatewayPolicy, there: Address, other: GatewayPolicy) -> tuple[TunnelPolicy, ...]:
    """The tunnels that may lead to the other end: by its address, by a name, or from anywhere.

    Where no tunnel of either end does, and each has one, it is that: a NAT may stand between.
    """
    enabled = [one for one in gateway.tunnels if one.enabled]
    leading = tuple(one for one in enabled if one.peer.remote_address in (there, None))
    if not leading and len(enabled) == 1 and len(other.tunnels) == 1:
        return tuple(enabled)
    return leading


def _nat(
    addresses: tuple[Address, Address], chosen: Sequence[tuple[TunnelPolicy, ...]]
) -> tuple[Address, Address] | None:
    """An end that the other knows by an address that is not its own is behind a NAT."""
    for i in (1, 0):
        known = {one.peer.remote_address for one in chosen[1 - i]} - {None, addresses[i]}
        if len(known) == 1 and all(one.peer.remote_address != addresses[i] for one in chosen[1 - i]):
            (outside,) = known
            if outside is not None and outside.version == addresses[i].version:
                return addresses[i], outside
    return None


def _bound(
    tunnel: TunnelPolicy,
    addresses: tuple[Address, Address],
    i: int,
    nat: tuple[Address, Address] | None,
) -> TunnelPolicy:
    """The tunnel with both addresses known: a name leads to the other end."""
    peer, there = tunnel.peer, addresses[1 - i]
    if nat is not None and nat[0] == there:
        there = nat[1]
    if peer.remote_address is None and not peer.any_address:
        peer = replace(peer, remote_address=there)
    if peer.local_address.is_unspecified:
        own = peer.local_id == type(peer.local_id).of_address(peer.local_address)
        identity = type(peer.local_id).of_address(addresses[i]) if own else peer.local_id
        peer = replace(peer, local_address=addresses[i], local_id=identity)
    return replace(tunnel, peer=peer)


class _Translated(World):
    """A world with a NAT before one end, which keeps ports."""

    def __init__(self, nat: tuple[Address, Address] | None) -> None:
        super().__init__()
        self._nat = nat

    def _outbound(self, datagram: Datagram) -> Datagram:
        if self._nat is None or datagram.source != self._nat[0]:
            return datagram
        return replace(datagram, source=self._nat[1])

    def _inbound(self, datagram: Datagram) -> Datagram | None:
        if self._nat is None or datagram.destination != self._nat[1]:
            return datagram
        return replace(datagram, destination=self._nat[0])


# ------------------------------------------------------------------------------------- the life


def _live(world: World, ends: Sequence[Living], beginner: int) -> None:
    """One end begins, as it is configured, and the other answers, until all is up or has failed."""
    end = ends[beginner]
    for tunnel in list(end.tunnels):
        end.ask(tunnel.name, "start")
        if tunnel.policy.negotiation is Negotiation.TRAFFIC_TRIGGERED:
            for mapping in tunnel.mappings:
                end.ask(tunnel.name, "acquire", mapping.index)
    limit = world.now + UP_WITHIN
    while world.now < limit and not _all_up(ends) and not _given_up(end):
        world.run_for(1.0)
    world.run_for(PROVED_AFTER)


def _given_up(end: Living) -> bool:
    """Whether each tunnel that is not up has failed often enough to know why, and its peer was asked."""
    return not end.prober.is_busy and all(one.all_up or one.standing.tries >= ATTEMPTS for one in end.tunnels)


def _all_up(ends: Sequence[Living]) -> bool:
    return all(tunnel.all_up for end in ends for tunnel in end.tunnels)


# --------------------------------------------------------------------------------- the first rekey

Renewed = dict[tuple[str, int | None], bool]
"""By tunnel and mapping; None is the IKE SA. Under both ends' names."""


def _renew(world: World, end: Living, ends: Sequence[Living]) -> Renewed:
    """Rekey every SA pair that is up, then each IKE SA; this end begins all."""
    found: Renewed = {}
    for tunnel in list(end.tunnels):
        for mapping in tunnel.mappings:
            if (owner := mapping.owner) is None:
                continue
            spi = owner.spi_in
            done = partial(_replaced, end, spi)
            works = _renewal(world, end, done, "rekey_child", tunnel.name, spi)
            found |= dict.fromkeys(_both(ends, end, tunnel, mapping), works)
        if end.ike_sas(tunnel.name):
            done = partial(_ike_replaced, end, tunnel.name, len(end.events))
            works = _renewal(world, end, done, "rekey_ike", tunnel.name)
            found |= {(name, None): works for name in _names(ends, tunnel, end)}
    return found


def _renewal(world: World, end: Living, done: Callable[[], bool], command: str, *arguments: object) -> bool:
    """Whether it succeeds in time."""
    end.do(command, *arguments)
    limit = world.now + RENEWED_WITHIN
    while world.now < limit and not done():
        world.run_for(0.5)
    return done()


def _replaced(end: Living, spi_in: int) -> bool:
    return any(isinstance(event, ChildReplaced) and event.old_spi_in == spi_in for event in end.events)


def _ike_replaced(end: Living, tunnel: str, since: int) -> bool:
    return any(isinstance(event, IkeReplaced) and event.tunnel == tunnel for event in end.events[since:])


def _names(ends: Sequence[Living], tunnel: Tunnel, end: Living) -> list[str]:
    """The tunnel's name at either end, by the IKE SA that they share."""
    spis = {info.spi_i for info in end.ike_sas(tunnel.name)}
    names = [tunnel.name]
    for other in ends:
        names += [
            one.name for one in other.tunnels if spis & {info.spi_i for info in other.ike_sas(one.name)}
        ]
    return names


def _both(
    ends: Sequence[Living], end: Living, tunnel: Tunnel, mapping: Mapping
) -> list[tuple[str, int | None]]:
    """The mapping under both ends' names, by the ranges of its SA."""
    policy = tunnel.policy.peer.child(mapping.index)
    found: list[tuple[str, int | None]] = [(tunnel.name, mapping.index)]
    for name in _names(ends, tunnel, end):
        for other in ends:
            known = other.policies.get(name)
            if known is None or policy is None or other is end:
                continue
            found += [(name, one.index) for one in known.children if one.ts_local == policy.ts_remote]
    return found


# ---------------------------------------------------------------------------------- the outcome


def _outcome(end: Living, tunnel: Tunnel, renewed: Renewed) -> TunnelOutcome:
    ikes = end.ike_sas(tunnel.name)
    failure = impaired(tunnel) or tunnel.failure
    diagnosis = failure.diagnosis if failure is not None else None
    mappings = tuple(
        _mapping(tunnel, mapping, policy, renewed)
        for mapping, policy in zip(tunnel.mappings, tunnel.policy.peer.children, strict=True)
    )
    refused = [event.diagnosis for event in end.events if isinstance(event, IkeRekeyFailed)]
    return TunnelOutcome(
        policy=tunnel.policy,
        state=tunnel.state,
        ike=ikes[-1] if ikes else None,
        mappings=mappings,
        diagnosis=diagnosis or (refused[-1] if refused else None),
        ike_renewed=renewed.get((tunnel.name, None)),
    )


def _mapping(tunnel: Tunnel, mapping: Mapping, policy: ChildPolicy, renewed: Renewed) -> MappingOutcome:
    said = mapping.reason or mapping.unrenewed or mapping.narrowed or mapping.with_pfs
    owner = mapping.owner
    return MappingOutcome(
        policy=policy,
        state=mapping.state(tunnel.standing.closed),
        suite=owner.child.suite if owner is not None else None,
        udp=owner.child.udp if owner is not None else False,
        diagnosis=said.diagnosis if said is not None else None,
        renewed=renewed.get((tunnel.name, mapping.index)),
    )
