"""What the life of a tunnel says to an operator."""

from __future__ import annotations

from vpnd.control.diagnoses import message
from vpnd.daemon.events.journal import Journal
from vpnd.ike.outputs import UnknownPeer
from vpnd.model.child import ChildSa, Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import Negotiation
from vpnd.tunnel.commands import (
    AttemptFailed,
    Impaired,
    MappingChanged,
    MappingState,
    StateChanged,
    TunnelState,
)
from vpnd.tunnel.failover import RouteMoved
from vpnd.tunnel.health import HealthChanged, HealthState, LossChanged
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.prober import Learned, ProbingBegan

_EVENTS = {
    TunnelState.DOWN: ("tunnel-down", "down"),
    TunnelState.WAITING: ("tunnel-waiting", "waiting"),
    TunnelState.CONNECTING: ("tunnel-connecting", "connecting"),
    TunnelState.UP: ("tunnel-up", "up"),
    TunnelState.UNHEALTHY: ("tunnel-unhealthy", "unhealthy: business traffic is interrupted"),
}


def state_changed(journal: Journal, tunnel: Tunnel, change: StateChanged) -> None:
    """The tunnel's state is another."""
    kind, text = _EVENTS[change.after]
    peer = tunnel.policy.remote
    if change.after is TunnelState.UP:
        journal.recovered(change.tunnel)
        text = "healthy again" if change.before is TunnelState.UNHEALTHY else f"up with {peer}"
    elif change.after is TunnelState.WAITING:
        text = _waiting(tunnel)
    elif change.after is TunnelState.CONNECTING:
        text = f"connecting to {peer}"
    elif change.after is TunnelState.DOWN:
        asked = "down, as asked" if tunnel.policy.enabled else "disabled"
        text = asked if tunnel.standing.closed else "down until this machine can carry it again"
    lost = change.before in (TunnelState.UP, TunnelState.UNHEALTHY)
    if lost and change.after is not TunnelState.UP and change.diagnosis is not None:
        journal.failure(change.tunnel, "tunnel-lost", change.diagnosis)
    journal.event(change.tunnel, kind, text)


def mapping_changed(journal: Journal, tunnel: Tunnel, change: MappingChanged) -> None:
    """One mapping came up, in whole or in part, or went down; the rest is said for tunnels with several."""
    mapping = tunnel.policy.peer.child(change.mapping)
    if change.state is MappingState.UP and change.diagnosis is not None:
        kind = "pfs-of-peer" if change.diagnosis.code is Code.PFS_OF_PEER else "mapping-narrowed"
        journal.failure(change.tunnel, kind, change.diagnosis)
    if len(tunnel.mappings) < 2:
        return
    if change.state is MappingState.UP:
        journal.event(change.tunnel, "mapping-up", f"{mapping} is up")
    elif change.diagnosis is not None and change.diagnosis.code is not Code.DOWN_BY_OPERATOR:
        journal.failure(change.tunnel, "mapping-down", change.diagnosis, f" ({mapping})")


def child_renewed(journal: Journal, tunnel: Tunnel, child: ChildSa) -> None:
    """A pair of ESP SAs has its successor."""
    which = f" of {tunnel.policy.peer.child(child.mapping)}" if len(tunnel.mappings) > 1 else ""
    journal.event(child.tunnel, "rekeyed", f"the ESP SAs{which} were renewed, {_begun_by(child.initiator)}")


def ike_renewed(journal: Journal, tunnel: str, initiator: bool) -> None:
    """The IKE SA has its successor."""
    journal.event(tunnel, "ike-rekeyed", f"the IKE SA was renewed, {_begun_by(initiator)}")


def attempt_failed(journal: Journal, tunnel: Tunnel, change: AttemptFailed) -> None:
    """An attempt ended without SAs, or without successors of those that there are."""
    if change.renewal:
        lasting = "IKE SA goes on until it ends" if change.mapping is None else "SAs go on until they end"
        journal.failure(change.tunnel, "rekey-failed", change.diagnosis, f"; the present {lasting}")
        return
    named = change.mapping is not None and change.diagnosis.fact("mapping") is None
    which = f" ({tunnel.policy.peer.child(change.mapping or 0)})" if named else ""
    kind = "peer-throttled" if change.diagnosis.code is Code.FLOOD else "attempt-failed"
    what_next = which + _next(change.retry_in)
    journal.failure(change.tunnel, kind, change.diagnosis, what_next, change.unproven)


_IMPAIRED = {
    Code.MAPPINGS_DOWN: ("mappings-down", "mappings-up", "no mapping is refused by the peer any more"),
    Code.FLAPPING: ("tunnel-flaps", "tunnel-steady", "up for longer than before, and its SAs were renewed"),
    Code.LOCAL_ROUTE: ("routes-refused", "routes-made", "the kernel has the tunnel's routes"),
    Code.MTU: ("path-mtu", "path-mtu-passes", "large packets pass as small ones do"),
}
"""Of what may be wrong with a tunnel that is up: the event, that of its end, and what is said then."""


def impaired(journal: Journal, change: Impaired) -> None:
    """Something is wrong with a tunnel that is up, or no longer is."""
    wrong, right, text = _IMPAIRED[change.code]
    if change.diagnosis is not None:
        journal.failure(change.tunnel, wrong, change.diagnosis)
    else:
        journal.event(change.tunnel, right, text)


def peer_moved(journal: Journal, tunnel: Tunnel, path: Path) -> None:
    """The peer is reached along another path; said where that is news."""
    before = next((m.owner.path for m in tunnel.mappings if m.owner is not None), None)
    if before is not None and (before.remote, before.remote_port) != (path.remote, path.remote_port):
        now_at, was_at = (f"{one.remote} port {one.remote_port}" for one in (path, before))
        journal.event(tunnel.name, "peer-moved", f"the peer sends from {now_at} now, not {was_at}: followed")


def peer_renews(journal: Journal, tunnel: str) -> None:
    """Redundant SAs are not closed any more."""
    text = "the peer begins again what is closed as redundant (close_action = start, or the like): both stay"
    journal.event(tunnel, "peer-begins-again", text)


def next_key_proved(journal: Journal, tunnel: Tunnel) -> None:
    """The other end has the key that takes the place of the current one."""
    peer = tunnel.policy.peer
    key = peer.next_psk.fingerprint() if peer.next_psk is not None else "the next key"
    text = f"the peer was seen with the next key, {key}: the current one, {peer.psk.fingerprint()}, can go"
    journal.event(tunnel.name, "next-key-proved", text)


def health_diagnosis(tunnel: Tunnel, change: HealthChanged) -> Diagnosis | None:
    """How the health check of a tunnel fails; None: it does not."""
    policy = tunnel.policy.health
    if change.after is not HealthState.UNHEALTHY or policy is None:
        return None
    return Diagnosis.of(Code.HEALTH, ours=policy.local, theirs=policy.remote, sent=change.in_a_row)


def health_changed(journal: Journal, change: HealthChanged) -> None:
    """The health check has another verdict."""
    if change.after is HealthState.UNHEALTHY:
        probes = f"{change.in_a_row} probes in a row were not answered"
        text = f"the health check fails: {probes}"
        journal.event(change.tunnel, "health-failed", text, Code.HEALTH.value)
    elif change.before is HealthState.UNHEALTHY:
        probes = "a probe was" if change.in_a_row == 1 else f"{change.in_a_row} probes in a row were"
        journal.event(change.tunnel, "health-passed", f"the health check passes again: {probes} answered")
    else:
        journal.event(change.tunnel, "health-passed", "the health check passes")


def loss_changed(journal: Journal, change: LossChanged) -> None:
    """The tunnel loses too much, or no longer."""
    percent = f"{100 * change.loss:.0f} % of the last probes"
    if change.lossy:
        journal.event(change.tunnel, "loss-high", f"the path loses too much: {percent} were lost")
    else:
        journal.event(change.tunnel, "loss-low", f"the path loses little again: {percent} were lost")


def unknown_peer_diagnosis(peer: UnknownPeer, ours: str | None = None) -> Diagnosis:
    """That it is no tunnel's peer; `ours`: the peer's address that a tunnel has."""
    version = f"ikev{peer.version.value}"
    return Diagnosis.of(
        Code.UNKNOWN_PEER, peer=peer.address, port=peer.port, theirs=version, received=peer.count, ours=ours
    )


def unknown_peer(journal: Journal, peer: UnknownPeer, lacking: bool) -> None:
    """A machine that no tunnel has as its peer begins IKE. `lacking`: a tunnel is not up."""
    diagnosis = unknown_peer_diagnosis(peer)
    journal.event(
        None, "unknown-peer", message(diagnosis), diagnosis.code.value, unproven=True, quiet=not lacking
    )


def probing_began(journal: Journal, began: ProbingBegan) -> None:
    """The peer is asked what it takes."""
    why = f"attempts fail with {began.code.value}"
    text = f'{why}: asking the peer what it takes (diagnose = "off" prevents it)'
    journal.event(began.tunnel, "probing", text)


def probing_ended(journal: Journal, learned: Learned) -> None:
    """The peer has shown why, or not."""
    if learned.diagnosis is None:
        journal.event(learned.tunnel, "probed", "the peer has shown no more than was known")
    else:
        journal.event(learned.tunnel, "probed", message(learned.diagnosis), learned.diagnosis.code.value)


def carrier_changed(journal: Journal, change: RouteMoved) -> None:
    """Another tunnel carries a route."""
    if change.before is not None:
        how = ", as asked" if change.by_hand else ""
        journal.event(
            change.tunnel, "carries-traffic", f"carries {change.route} in place of {change.before}{how}"
        )


def _begun_by(initiator: bool) -> str:
    return "begun here" if initiator else "begun by the peer"


def _next(retry_in: float | None) -> str:
    if retry_in is None:
        return ""
    return "; trying again" if retry_in < 1 else f"; trying again in {retry_in:.0f} s"


def _waiting(tunnel: Tunnel) -> str:
    """What a tunnel waits for that begins nothing by itself."""
    match tunnel.policy.negotiation:
        case Negotiation.PASSIVE:
            return "waiting for the peer"
        case Negotiation.ACTIVE if tunnel.standing.disconnected:
            return f"disconnected: waiting for the peer or vpnctl up {tunnel.name}"
        case _:
            return "waiting for traffic"
