"""What the daemon tells of itself and its tunnels, in the shapes of `vpnd.control.schema`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from vpnd import __version__
from vpnd.config.values import AUTO
from vpnd.control.diagnoses import message
from vpnd.control.operations import Histogram, TunnelFigures
from vpnd.control.schema import (
    DpdStatus,
    DropCounts,
    Fault,
    GatewayStatus,
    HealthSample,
    HealthStatus,
    IkeStatus,
    MappingStatus,
    PeerStatus,
    Status,
    TunnelStatus,
)
from vpnd.daemon.events.counts import ESP_REKEYED, ESTABLISHED, IKE_REKEYED
from vpnd.daemon.gateway import Gateway
from vpnd.daemon.reasons import attempt_status
from vpnd.daemon.upkeep.interfaces import Interfaces
from vpnd.datapath.interface import Drop
from vpnd.host.clock import at_wall
from vpnd.ike.outputs import ChildSaInfo, IkeSaInfo
from vpnd.model.policy import ChildPolicy, GatewayPolicy
from vpnd.model.selectors import ANY_PORT, ports_text, protocol_text
from vpnd.tunnel.commands import TunnelState
from vpnd.tunnel.history import BOUNDS, Distribution
from vpnd.tunnel.lifecycle import Tunnel, impaired
from vpnd.tunnel.mappings import Fault as TunnelFault
from vpnd.tunnel.mappings import Mapping
from vpnd.wire.iana import IkeVersion

DROP_FIELDS = {
    Drop.MALFORMED: "malformed",
    Drop.NO_SA: "no_sa",
    Drop.REPLAY: "replay",
    Drop.INTEGRITY: "integrity",
    Drop.POLICY: "policy",
    Drop.TOO_BIG: "too_big",
    Drop.LIFETIME: "lifetime",
    Drop.ECN: "ecn",
    Drop.DECRYPTED_BAD_PATH: "path",
    Drop.SEND: "send",
}


class Report:
    """Reads what is known at one moment; changes nothing and waits for nothing."""

    def __init__(self, gateway: Gateway, interfaces: Interfaces, started: float) -> None:
        self._gateway = gateway
        self._interfaces = interfaces
        self._started = started

    def status(self, policy: GatewayPolicy, standing: dict[str, Any]) -> Status:
        """`vpnctl status`."""
        now = self._gateway.clock.now()
        tunnels = [self.tunnel(tunnel, now) for tunnel in self._gateway.tunnels]
        return Status(gateway=self.gateway(policy, standing), tunnels=tunnels, total=len(tunnels))

    def gateway(self, policy: GatewayPolicy, standing: dict[str, Any]) -> GatewayStatus:
        """The gateway's part of it. `standing`: its fields that say what waits or was rolled back."""
        labels = dict(policy.labels)
        kind = labels.get("type")
        return GatewayStatus(
            name=policy.name,
            address=self._address(policy),
            version=__version__,
            engine=self._gateway.engine.name,
            uptime_s=int(self._gateway.clock.now() - self._started),
            type=kind if kind in ("vpc", "ccn") else None,
            vpc=labels.get("vpc"),
            region=labels.get("region"),
            **standing,
        )

    def tunnel(self, tunnel: Tunnel, now: float) -> TunnelStatus:
        """One tunnel's entry."""
        ikes = self._gateway.endpoint.ike_sas(tunnel.name)
        ike = ikes[-1] if ikes else None
        sas = self._gateway.endpoint.child_sas(tunnel.name)
        policy = tunnel.policy
        heard = max(tunnel.last_heard, ike.last_heard if ike is not None else 0.0)
        remote = ike.path.remote if ike is not None else policy.peer.remote_address
        return TunnelStatus(
            name=tunnel.name,
            state=tunnel.state.value,
            negotiation=policy.negotiation.value,
            priority=policy.priority,
            description=policy.description,
            enabled=policy.enabled,
            carries_traffic=self._carries(tunnel),
            peer=PeerStatus(
                address=None if remote is None and policy.peer.any_address else str(remote or policy.remote),
                port=ike.path.remote_port if ike is not None else None,
                vendor=ike.vendor if ike is not None else None,
                nat=ike.nat if ike is not None else False,
                nat_at=ike.nat_at if ike is not None else None,
            ),
            ike=self.ike(ike, now) if ike is not None else None,
            mappings=[
                self._mapping(tunnel, mapping, child, sas, now)
                for mapping, child in zip(tunnel.mappings, policy.peer.children, strict=True)
            ],
            health=self._health(tunnel),
            dpd=DpdStatus(
                enabled=policy.peer.dpd.enabled,
                last_heard_s=int(now - heard) if heard and ike is not None else None,
            ),
            drops=self._drops(tunnel.name),
            last_error=self.fault(tunnel.failure, now),
            impaired=self.fault(impaired(tunnel), now),
            attempt=attempt_status(self._gateway.endpoint.progress(tunnel.name), now),
        )

    def figures(self) -> Iterator[TunnelFigures]:
        """What metrics show of each tunnel, read one after the other."""
        for name in [tunnel.name for tunnel in self._gateway.tunnels]:
            tunnel = self._gateway.tunnels.get(name)
            if tunnel is None:
                continue
            counted, check = self._gateway.counts.of(name), self._gateway.selection.check(name)
            yield TunnelFigures(
                status=self.tunnel(tunnel, self._gateway.clock.now()),
                established=counted.done[ESTABLISHED],
                rekeys={"ike": counted.done[IKE_REKEYED], "esp": counted.done[ESP_REKEYED]},
                failures={code.value: count for code, count in counted.failures.items()},
                rtt=_histogram(check.history.rtts) if check is not None else None,
                jitter=_histogram(check.history.jitters) if check is not None else None,
            )

    def ike(self, ike: IkeSaInfo, now: float) -> IkeStatus:
        """One IKE SA."""
        mode: Literal["main", "aggressive"] | None = None
        if ike.mode == "main":
            mode = "main"
        elif ike.mode == "aggressive":
            mode = "aggressive"
        return IkeStatus(
            version="ikev1" if ike.version is IkeVersion.V1 else "ikev2",
            mode=mode,
            spi_i=ike.spi_i.hex(),
            spi_r=ike.spi_r.hex(),
            encryption=ike.suite.encryption,
            integrity=ike.suite.integrity or ike.suite.prf,
            dh_group=ike.suite.dh,
            age_s=int(now - ike.established_at),
            rekey_in_s=_until(ike.rekey_at, now),
            expires_in_s=max(0, int(ike.expires_at - now)),
        )

    def fault(self, fault: TunnelFault | None, now: float) -> Fault | None:
        """An error as status shows it."""
        if fault is None:
            return None
        at: datetime = at_wall(self._gateway.clock, now, fault.at).replace(microsecond=0)
        return Fault(code=fault.diagnosis.code.value, message=message(fault.diagnosis), at=at)

    # ----------------------------------------------------------------------------------- inside

    def _address(self, policy: GatewayPolicy) -> str:
        """The one in use, where it follows the default route."""
        if not policy.address.is_unspecified:
            return str(policy.address)
        used = (tunnel.policy.peer.local_address for tunnel in self._gateway.tunnels)
        return next((str(address) for address in used if not address.is_unspecified), AUTO)

    def _mapping(
        self,
        tunnel: Tunnel,
        mapping: Mapping,
        policy: ChildPolicy,
        sas: dict[int, ChildSaInfo],
        now: float,
    ) -> MappingStatus:
        counted = self._gateway.traffic(tunnel.name, mapping)
        reason = mapping.reason or mapping.unrenewed or mapping.narrowed or mapping.with_pfs
        if mapping.owner is None and reason is None and tunnel.standing.blocked is not None:
            reason = tunnel.failure
        entry = MappingStatus(
            local=str(policy.local),
            remote=str(policy.remote),
            protocol=protocol_text(policy.protocol) if policy.protocol else None,
            local_port=ports_text(policy.local_ports) if policy.local_ports != ANY_PORT else None,
            remote_port=ports_text(policy.remote_ports) if policy.remote_ports != ANY_PORT else None,
            state=mapping.state(tunnel.standing.closed).value,
            reason=self.fault(reason, now),
            packets_in=counted.packets_in,
            packets_out=counted.packets_out,
            bytes_in=counted.bytes_in,
            bytes_out=counted.bytes_out,
        )
        pair = mapping.owner
        if pair is None:
            return entry
        child, ahead = pair.child, sas.get(pair.spi_in)
        return entry.model_copy(
            update={
                "spi_in": f"{child.spi_in:08x}",
                "spi_out": f"{child.spi_out:08x}",
                "encryption": child.suite.encryption,
                "integrity": child.suite.integrity,
                "pfs": child.suite.dh,
                "encapsulation": "udp" if child.udp else "esp",
                "age_s": int(now - pair.since),
                "rekey_in_s": _until(ahead.rekey_at, now) if ahead is not None else None,
                "expires_in_s": _until(ahead.expires_at, now) if ahead is not None else None,
            }
        )

    def _carries(self, tunnel: Tunnel) -> bool:
        """Whether traffic is led to it, and has an SA to go by."""
        attached = self._interfaces.get(tunnel.name) is not None
        linked = any(mapping.owner is not None for mapping in tunnel.mappings)
        interrupted = tunnel.state is TunnelState.UNHEALTHY
        return attached and linked and not interrupted and self._gateway.selection.carries(tunnel.policy)

    def health_history(self, tunnel: str, now: float) -> list[HealthSample]:
        """The health check's last hour, one sample a minute, oldest first."""
        check = self._gateway.selection.check(tunnel)
        if check is None:
            return []
        return [
            HealthSample(
                at=at_wall(self._gateway.clock, now, minute.start).replace(microsecond=0),
                sent=minute.sent,
                lost=minute.lost,
                rtt_ms=_milliseconds(minute.rtt),
                jitter_ms=_milliseconds(minute.jitter),
            )
            for minute in check.history.last_hour(now)
        ]

    def _health(self, tunnel: Tunnel) -> HealthStatus | None:
        check = self._gateway.selection.check(tunnel.name)
        if check is None:
            return None
        recent = check.history.recent()
        return HealthStatus(
            state=check.state.value,
            sent=check.history.sent,
            lost=check.history.lost,
            rtt_ms=_milliseconds(recent.rtt),
            jitter_ms=_milliseconds(recent.jitter),
            loss_percent=round(100 * recent.lost / recent.sent, 1) if recent.sent else None,
            lossy=check.lossy,
            local=str(check.policy.local),
            remote=str(check.policy.remote),
        )

    def _drops(self, name: str) -> DropCounts:
        if self._interfaces.get(name) is None:
            return DropCounts()
        counted = self._gateway.engine.drops(name)
        return DropCounts(**{field: counted.get(drop, 0) for drop, field in DROP_FIELDS.items()})


def _histogram(counted: Distribution) -> Histogram:
    return Histogram(BOUNDS, tuple(counted.counts), counted.total)


def _milliseconds(seconds: float | None) -> float | None:
    return round(seconds * 1000, 3) if seconds is not None else None


def _until(at: float | None, now: float) -> int | None:
    return max(0, int(at - now)) if at is not None else None
