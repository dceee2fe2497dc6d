"""Why a tunnel is as it is: of all that is known the failure that stands, else the last one, explained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vpnd.config.load import Loaded
from vpnd.config.origins import Setting, settings
from vpnd.config.problems import Problem
from vpnd.control.diagnoses import explain, keys_of, message
from vpnd.control.explanation import About, Explanation, Facts
from vpnd.control.mismatches import nowhere, turned_round, unknown_caller
from vpnd.control.schema import AttemptStatus, ConfiguredHere, Fault, Why
from vpnd.daemon.events.event_text import unknown_peer_diagnosis
from vpnd.daemon.gateway import Gateway
from vpnd.host.clock import at_wall
from vpnd.ike.outputs import UnknownPeer
from vpnd.ike.session import Progress
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.selectors import Network
from vpnd.model.text import printable
from vpnd.tunnel.commands import TunnelState
from vpnd.tunnel.lifecycle import Tunnel, impaired
from vpnd.tunnel.mappings import Fault as TunnelFault

SHOWN_AFTER = 2.0
"""Ours: seconds after which an attempt without an answer is worth a word."""
UNANSWERED = (
    Code.SILENT,
    Code.PORT_CLOSED,
    Code.UNREACHABLE,
    Code.UDP_4500,
    Code.PEER_DEAD,
    Code.PEER_DELETED,
    Code.RESOLVE,
    Code.UNKNOWN_PEER,
)
"""Where the peer may be a machine that comes from another address than it is configured with."""
OFTEN = 3
"""Ours: first messages after which a machine is taken for one that means it: scanners send one or two."""
SHOWN_CALLERS = 3
"""Ours: such machines that are named."""
PREFERRED_AFTER = 5.0
"""Ours: seconds after which what it meets counts more than how the attempt before it ended."""


@dataclass(frozen=True, slots=True)
class _Reason:
    """A failure, and the mapping that it concerns, if not the tunnel. `so_far`: its attempt goes on."""

    fault: TunnelFault
    mapping: int | None = None
    stands: bool = True
    so_far: bool = False


class Reasons:
    """Reads what is known at one moment; changes nothing."""

    def __init__(self, gateway: Gateway, is_elsewhere: Callable[[Network], bool] = lambda _: False) -> None:
        self._gateway = gateway
        self._is_elsewhere = is_elsewhere

    def why(self, tunnel: Tunnel, loaded: Loaded | None, local_id: str | None = None) -> Why:
        """The failure that stands, else the last one that is over. `local_id`: as of `settings`."""
        now = self._gateway.clock.now()
        progress = self._progress(tunnel)
        reason = self._reason(now, tunnel, progress)
        fault = reason.fault if reason is not None else None
        index = reason.mapping if reason is not None else None
        mapping = tunnel.policy.peer.child(index) if index is not None else None
        since = tunnel.standing.since
        return Why(
            tunnel=tunnel.name,
            state=tunnel.state.value,
            error=self._fault(fault, now),
            mapping=str(mapping) if mapping is not None and len(tunnel.mappings) > 1 else None,
            tries=tunnel.standing.tries or None,
            since=at_wall(self._gateway.clock, now, since) if since is not None else None,
            explanation=None
            if fault is None
            else self._explanation(tunnel, fault.diagnosis, loaded).body(
                _where(tunnel, fault.diagnosis, loaded, local_id, index)
            ),
            standing=reason is not None and reason.stands,
            so_far=reason is not None and reason.so_far,
            attempt=attempt_status(progress, now),
        )

    def _progress(self, tunnel: Tunnel) -> Progress | None:
        if tunnel.state not in (TunnelState.CONNECTING, TunnelState.WAITING):
            return None
        return self._gateway.endpoint.progress(tunnel.name)

    def _reason(self, now: float, tunnel: Tunnel, progress: Progress | None) -> _Reason | None:
        """What stands: of the tunnel, else of a mapping; else what an attempt meets; else the last one."""
        standing, failure = tunnel.standing, tunnel.failure
        so_far = None
        if progress is not None and now - progress.began >= SHOWN_AFTER:
            so_far = _Reason(TunnelFault(progress.diagnosis, progress.began), so_far=True)
        if failure is not None and so_far is not None and progress is not None:
            explained = {failure.diagnosis.code, *(standing.learned or ())[:1]}
            if progress.diagnosis.code not in explained and now - progress.began >= PREFERRED_AFTER:
                return so_far
        if (useless := impaired(tunnel)) is not None:
            return _Reason(useless)
        if failure is not None:
            last = standing.faults[-1] if standing.faults else None
            return _Reason(failure, last[1] if last is not None and last[0] is failure else None)
        for mapping in tunnel.mappings:
            for fault in (mapping.reason, mapping.unrenewed, mapping.narrowed, mapping.with_pfs):
                if fault is not None:
                    return _Reason(fault, mapping.index)
        if so_far is not None:
            return so_far
        callers = self._callers(tunnel)
        if callers and tunnel.state is TunnelState.WAITING:
            first = unknown_peer_diagnosis(callers[0], tunnel.policy.remote)
            return _Reason(TunnelFault(first, callers[0].last))
        return _last(tunnel)

    def _callers(self, tunnel: Tunnel) -> list[UnknownPeer]:
        """Machines that no tunnel knows and that may be this one's peer, those that came more often first."""
        peer = tunnel.policy.peer
        if peer.any_address or tunnel.standing.is_down or any(m.owner for m in tunnel.mappings):
            return []
        return sorted(self._gateway.unknown_peers(), key=lambda one: one.count < OFTEN)[:SHOWN_CALLERS]

    def _explanation(self, tunnel: Tunnel, diagnosis: Diagnosis, loaded: Loaded | None) -> Explanation:
        owner = next((m.owner for m in tunnel.mappings if m.owner is not None), None)
        vendor = self._gateway.endpoint.vendor(tunnel.name)
        udp = owner.child.udp if owner is not None else None
        about = About.of(tunnel.policy, vendor, udp, _gateway_of(tunnel, loaded))
        explanation = explain(diagnosis, tunnel.name, about)
        if diagnosis.code in (Code.TRAFFIC_SELECTORS, Code.MAPPINGS_DOWN):
            also = (
                *map(turned_round, _the_other_way(tunnel)),
                *map(nowhere, self._local_ranges_elsewhere(tunnel)),
            )
            explanation = replace(explanation, also_possible=(*also, *explanation.also_possible))
        if diagnosis.code in UNANSWERED:
            also = tuple(
                unknown_caller(Facts(unknown_peer_diagnosis(one), tunnel.name, about))
                for one in self._callers(tunnel)
                if str(one.address) != diagnosis.fact("peer")
            )
            explanation = replace(explanation, also_possible=(*also, *explanation.also_possible))
        suspicious = tuple(_suspicions(tunnel, diagnosis, loaded))
        if not suspicious:
            return explanation
        also = tuple(printable(f"{one.message}: {one.hint} ({one.code})") for one in suspicious)
        change = printable(f"{suspicious[0].hint}; else {explanation.change}")
        return replace(explanation, change=change, also_possible=(*also, *explanation.also_possible))

    def _local_ranges_elsewhere(self, tunnel: Tunnel) -> list[str]:
        """Our ranges of mappings that are down, of which nothing is on an interface here."""
        down = {mapping.index for mapping in tunnel.mappings if mapping.owner is None}
        ranges = [child.local for child in tunnel.policy.peer.children if child.index in down]
        return [str(one) for one in dict.fromkeys(ranges) if one.prefixlen and self._is_elsewhere(one)][
            :SHOWN_RANGES
        ]

    def _fault(self, fault: TunnelFault | None, now: float) -> Fault | None:
        if fault is None:
            return None
        at = at_wall(self._gateway.clock, now, fault.at).replace(microsecond=0)
        return Fault(code=fault.diagnosis.code.value, message=message(fault.diagnosis), at=at)


SHOWN_RANGES = 3
"""Ours: ranges that a guess about them names."""


def _the_other_way(tunnel: Tunnel) -> list[str]:
    """Mappings that are down, of which another one that is up has the local range behind the peer."""
    up = {mapping.index for mapping in tunnel.mappings if mapping.owner is not None}
    working = [child for child in tunnel.policy.peer.children if child.index in up]
    return [
        str(child)
        for child in tunnel.policy.peer.children
        if child.index not in up
        and any(_lies_in(child.local, one.remote) for one in working)
        and not any(_lies_in(child.local, one.local) for one in working)
    ][:SHOWN_RANGES]


def _lies_in(one: Network, other: Network) -> bool:
    return one.version == other.version and bool(one.prefixlen and other.prefixlen) and one.overlaps(other)


def attempt_status(progress: Progress | None, now: float) -> AttemptStatus | None:
    """An attempt as status shows it."""
    if progress is None:
        return None
    return AttemptStatus(
        since_s=int(now - progress.began),
        sent=progress.sent,
        received=progress.received,
        peer=str(progress.path.remote),
        port=progress.path.remote_port,
    )


def _last(tunnel: Tunnel) -> _Reason | None:
    """What is over."""
    standing = tunnel.standing
    if standing.faults:
        fault, mapping = standing.faults[-1]
        return _Reason(fault, mapping, stands=False)
    if standing.refused:
        return _Reason(next(reversed(standing.refused.values())), stands=False)
    return None


def _gateway_of(tunnel: Tunnel, loaded: Loaded | None) -> str | None:
    """The key of its customer gateway's table: `customer_gateways.branch`, or that in its own table."""
    known = loaded.configuration.tunnels.get(tunnel.name) if loaded is not None else None
    peer = loaded.configuration.customer_gateway(known) if loaded is not None and known is not None else None
    if peer is None:
        return None
    top, name, *more = map(str, peer.path)
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", name)
    return ".".join(more) if more else f"{top}.{name if bare else json.dumps(name)}"


def _suspicions(tunnel: Tunnel, diagnosis: Diagnosis, loaded: Loaded | None) -> Iterator[Problem]:
    """What the check has found odd about the key, where the key may be what differs."""
    if diagnosis.code not in (Code.PSK, Code.UDP_4500) or loaded is None:
        return
    known = loaded.configuration.tunnels.get(tunnel.name)
    if known is None:
        return
    mine = f"tunnels.{tunnel.name}.", f'tunnels."{tunnel.name}".'
    for problem in loaded.warnings:
        if problem.code.startswith("W-PSK") and (problem.key or "").startswith(mine):
            yield problem


def _where(
    tunnel: Tunnel, diagnosis: Diagnosis, loaded: Loaded | None, local_id: str | None, mapping: int | None
) -> Iterator[ConfiguredHere]:
    """The values that a failure is about, each with its place."""
    keys = keys_of(diagnosis)
    if not keys or loaded is None or tunnel.name not in loaded.configuration.tunnels:
        return
    known = loaded.configuration.tunnels[tunnel.name]
    children = tunnel.policy.peer.children
    rows = [int(row) for row in (diagnosis.fact("places") or "").split(", ") if row]
    about = [children[row - 1] for row in rows if row <= len(children)]
    if not rows and mapping is not None and (child := tunnel.policy.peer.child(mapping)) is not None:
        about = [child]
    ranges = [str(one) for child in about for one in (child.local, child.remote)]
    for setting in settings(loaded, tunnel.name, local_id):
        if not _is_about(setting, keys) or (ranges and not _has_range(setting, ranges)):
            continue
        place = setting.place or known.place
        written = setting.place is not None
        api = known.source.from_api
        yield ConfiguredHere(
            key=setting.key, value=setting.value, place=None if api else place, written=written
        )


def _is_about(setting: Setting, keys: tuple[str, ...]) -> bool:
    key = setting.key
    if key.startswith("spd"):
        return "spd" in keys and key.endswith((".local", ".remote"))
    return key in keys


def _has_range(setting: Setting, ranges: Sequence[str]) -> bool:
    """Whether a rule's list has one of the mappings' ranges; other settings have none to look at."""
    if not setting.key.startswith("spd"):
        return True
    return isinstance(setting.value, list) and any(one in setting.value for one in ranges)
