"""Prometheus metrics, made from the status: every configured tunnel has every series, up or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from vpnd.control.operations import Histogram
from vpnd.control.schema import DropCounts, MappingStatus, Status, TunnelState, TunnelStatus

CONTENT_TYPE = CONTENT_TYPE_LATEST

_MAPPING = ["tunnel", "local", "remote"]
_DIRECTIONS = ("in", "out")


def render(status: Status, counters: Mapping[str, int], loop_lag: Histogram) -> bytes:
    """The exposition text of one moment."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(status, counters, loop_lag))
    return generate_latest(registry)


class _Snapshot(Collector):
    """The metrics of one status."""

    def __init__(self, status: Status, counters: Mapping[str, int], loop_lag: Histogram) -> None:
        self._status = status
        self._counters = counters
        self._loop_lag = loop_lag

    def collect(self) -> Iterator[Metric]:
        yield from self._gateway()
        yield from self._tunnels()
        yield from self._mappings()
        yield from self._health()

    def _gateway(self) -> Iterator[Metric]:
        gateway = self._status.gateway
        info = GaugeMetricFamily("vpnd_info", "The gateway", labels=["name", "version", "engine"])
        info.add_metric([gateway.name, gateway.version, gateway.engine], 1)
        yield info
        yield GaugeMetricFamily("vpnd_uptime_seconds", "Since the daemon began", value=gateway.uptime_s)
        dropped = CounterMetricFamily(
            "vpnd_dropped", "Messages and packets that belong to no tunnel", labels=["reason"]
        )
        for reason, count in self._counters.items():
            dropped.add_metric([reason], count)
        yield dropped
        yield self._lag()

    def _lag(self) -> Metric:
        lag, upto, buckets = self._loop_lag, 0, []
        for bound, count in zip((*lag.bounds, float("inf")), lag.counts, strict=True):
            upto += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), upto))
        return HistogramMetricFamily(
            "vpnd_loop_lag_seconds", "How late the daemon comes to what is due", buckets, lag.total
        )

    def _tunnels(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("vpnd_tunnel_up", "1 if the tunnel is up", labels=["tunnel"])
        state = GaugeMetricFamily("vpnd_tunnel_state", "1 for the tunnel's state", labels=["tunnel", "state"])
        carries = GaugeMetricFamily(
            "vpnd_tunnel_carries_traffic", "1 if its routes point to it and it has an SA", labels=["tunnel"]
        )
        heard = GaugeMetricFamily(
            "vpnd_tunnel_last_heard_seconds", "Since the peer was last heard", labels=["tunnel"]
        )
        ike = GaugeMetricFamily("vpnd_ike_sa_up", "1 if there is an IKE SA", labels=["tunnel"])
        age = GaugeMetricFamily("vpnd_ike_sa_age_seconds", "Age of the IKE SA", labels=["tunnel"])
        rekey = GaugeMetricFamily(
            "vpnd_ike_sa_rekey_seconds", "Until the IKE SA is rekeyed", labels=["tunnel"]
        )
        drops = CounterMetricFamily("vpnd_tunnel_drops", "Packets dropped", labels=["tunnel", "reason"])
        for tunnel in self._status.tunnels:
            name = tunnel.name
            up.add_metric([name], tunnel.state == "up")
            for word in get_args(TunnelState):
                state.add_metric([name, word], tunnel.state == word)
            carries.add_metric([name], tunnel.carries_traffic)
            ike.add_metric([name], tunnel.ike is not None)
            if tunnel.ike is not None:
                age.add_metric([name], tunnel.ike.age_s)
                if tunnel.ike.rekey_in_s is not None:
                    rekey.add_metric([name], tunnel.ike.rekey_in_s)
            if tunnel.dpd.last_heard_s is not None:
                heard.add_metric([name], tunnel.dpd.last_heard_s)
            for reason in DropCounts.model_fields:
                drops.add_metric([name, reason], getattr(tunnel.drops, reason))
        yield from (up, state, carries, heard, ike, age, rekey, drops)

    def _mappings(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("vpnd_mapping_up", "1 if the mapping has an ESP SA pair", labels=_MAPPING)
        size = CounterMetricFamily(
            "vpnd_mapping_bytes", "Bytes of inner packets", labels=[*_MAPPING, "direction"]
        )
        packets = CounterMetricFamily(
            "vpnd_mapping_packets", "Inner packets", labels=[*_MAPPING, "direction"]
        )
        rekey = GaugeMetricFamily(
            "vpnd_mapping_rekey_seconds", "Until its ESP SA pair is rekeyed", labels=_MAPPING
        )
        for tunnel in self._status.tunnels:
            for mapping in tunnel.mappings:
                labels = [tunnel.name, *(_side(mapping, end) for end in ("local", "remote"))]
                up.add_metric(labels, mapping.state == "up")
                if mapping.rekey_in_s is not None:
                    rekey.add_metric(labels, mapping.rekey_in_s)
                for direction in _DIRECTIONS:
                    size.add_metric([*labels, direction], getattr(mapping, f"bytes_{direction}"))
                    packets.add_metric([*labels, direction], getattr(mapping, f"packets_{direction}"))
        yield from (up, size, packets, rekey)

    def _health(self) -> Iterator[Metric]:
        healthy = GaugeMetricFamily("vpnd_health_up", "1 if the health check passes", labels=["tunnel"])
        sent = CounterMetricFamily("vpnd_health_probes_sent", "Probes sent", labels=["tunnel"])
        lost = CounterMetricFamily("vpnd_health_probes_lost", "Probes without an answer", labels=["tunnel"])
        rtt = GaugeMetricFamily("vpnd_health_rtt_seconds", "Round trip", labels=["tunnel"])
        jitter = GaugeMetricFamily("vpnd_health_jitter_seconds", "Jitter", labels=["tunnel"])
        for tunnel in self._checked():
            health = tunnel.health
            if health is None:
                continue
            healthy.add_metric([tunnel.name], health.state == "healthy")
            sent.add_metric([tunnel.name], health.sent)
            lost.add_metric([tunnel.name], health.lost)
            if health.rtt_ms is not None:
                rtt.add_metric([tunnel.name], health.rtt_ms / 1000)
            if health.jitter_ms is not None:
                jitter.add_metric([tunnel.name], health.jitter_ms / 1000)
        yield from (healthy, sent, lost, rtt, jitter)

    def _checked(self) -> Iterator[TunnelStatus]:
        return (tunnel for tunnel in self._status.tunnels if tunnel.health is not None)


def _side(mapping: MappingStatus, end: str) -> str:
    """`10.1.0.0/24[tcp/443]`: two mappings may have the same ranges, and differ in their ports."""
    parts = (mapping.protocol, mapping.local_port if end == "local" else mapping.remote_port)
    narrowed = "/".join(part for part in parts if part)
    network = mapping.local if end == "local" else mapping.remote
    return f"{network}[{narrowed}]" if narrowed else network
