"""What Prometheus reads, as its text format has it: every configured tunnel has every series, up or not.

The text of a thousand tunnels takes a third of a second of computing, in which nothing else would happen. So
it is made in slices, and the loop goes on between them.

Labels come from the configuration (names, ranges) and from this program (states, reasons, codes), never from
what a peer or a stranger sends. https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from resource import getpagesize
from typing import get_args

from vpnd.control.operations import Histogram, Operations, TunnelFigures
from vpnd.control.schema import DropCounts, HealthStatus, MappingStatus, TunnelState, TunnelStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SLICE = 0.002
"""Ours, in seconds: the text is made for so long at a time, and then what is due has its turn."""

FAMILIES: Mapping[str, tuple[str, str]] = {
    "vpnd_build_info": ("gauge", "1, with the version of vpnd and of Python"),
    "vpnd_info": ("gauge", "1, with the gateway's name, the version and the engine that carries packets"),
    "vpnd_uptime_seconds": ("gauge", "Since the daemon began"),
    "process_cpu_seconds_total": ("counter", "Processor time of the daemon"),
    "process_resident_memory_bytes": ("gauge", "Memory of the daemon"),
    "vpnd_dropped_total": ("counter", "Messages and packets that belong to no tunnel"),
    "vpnd_loop_lag_seconds": ("histogram", "How late the daemon comes to what is due"),
    "vpnd_tunnel_up": ("gauge", "1 if the tunnel is up"),
    "vpnd_tunnel_state": ("gauge", "1 for the tunnel's state"),
    "vpnd_tunnel_carries_traffic": ("gauge", "1 if its routes point to it and it has an SA"),
    "vpnd_tunnel_last_heard_seconds": ("gauge", "Since the peer was last heard, while there is an IKE SA"),
    "vpnd_tunnel_drops_total": ("counter", "Packets dropped"),
    "vpnd_ike_sa_up": ("gauge", "1 if there is an IKE SA"),
    "vpnd_ike_sa_age_seconds": ("gauge", "Age of the IKE SA"),
    "vpnd_ike_sa_rekey_seconds": ("gauge", "Until the IKE SA is rekeyed"),
    "vpnd_ike_established_total": ("counter", "IKE SAs negotiated, without those that succeed another"),
    "vpnd_rekeys_total": ("counter", "SAs that got a successor: of IKE, and pairs of ESP"),
    "vpnd_failures_total": (
        "counter",
        "Attempts and tunnels that failed, by the code that vpnctl why explains",
    ),
    "vpnd_mapping_up": ("gauge", "1 if the mapping has an ESP SA pair"),
    "vpnd_mapping_bytes_total": ("counter", "Bytes of inner packets"),
    "vpnd_mapping_packets_total": ("counter", "Inner packets"),
    "vpnd_mapping_rekey_seconds": ("gauge", "Until its ESP SA pair is rekeyed"),
    "vpnd_health_up": ("gauge", "1 if the health check passes"),
    "vpnd_health_probes_sent_total": ("counter", "Probes sent"),
    "vpnd_health_probes_lost_total": ("counter", "Probes without an answer"),
    "vpnd_health_loss_ratio": ("gauge", "Part of the last 60 probes that was lost, 0 to 1"),
    "vpnd_health_rtt_seconds": ("gauge", "Round trip, the mean of the last 60 probes"),
    "vpnd_health_jitter_seconds": ("gauge", "Jitter, the mean of the last 60 probes"),
    "vpnd_health_probe_rtt_seconds": ("histogram", "Round trips of the probes"),
    "vpnd_health_probe_jitter_seconds": ("histogram", "From one round trip to the next"),
}
"""Every metric, in the order of the text: its type and what it says."""


async def exposition(operations: Operations) -> bytes:
    """The text of now; with many tunnels, of the moments in which each was read."""
    loop = asyncio.get_running_loop()
    text = _Text()
    _gateway(text, operations)
    until = loop.time() + SLICE
    for figures in operations.figures():
        _tunnel(text, figures)
        if loop.time() >= until:
            await asyncio.sleep(0)
            until = loop.time() + SLICE
    return text.encode()


class _Text:
    """The samples of each metric; they stand together in the text, whatever the order in which they come."""

    def __init__(self) -> None:
        self._samples: dict[str, list[str]] = {name: [] for name in FAMILIES}

    def add(self, name: str, labels: str, value: float) -> None:
        """One sample; `labels` as `_labels` makes them, or nothing."""
        self._samples[name].append(
            f"{name}{{{labels}}} {_number(value)}\n" if labels else f"{name} {_number(value)}\n"
        )

    def histogram(self, name: str, labels: str, measured: Histogram) -> None:
        """The samples of a histogram: how many values were at most so much."""
        samples, before, upto = self._samples[name], f"{labels}," if labels else "", 0
        for bound, count in zip((*measured.bounds, "+Inf"), measured.counts, strict=True):
            upto += count
            samples.append(f'{name}_bucket{{{before}le="{bound}"}} {upto}\n')
        around = f"{{{labels}}}" if labels else ""
        samples.append(f"{name}_sum{around} {measured.total!r}\n{name}_count{around} {upto}\n")

    def encode(self) -> bytes:
        """Everything. A metric that no tunnel has is left out."""
        parts = []
        for name, (kind, meaning) in FAMILIES.items():
            if self._samples[name]:
                parts += [f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n", *self._samples[name]]
        return "".join(parts).encode()


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, bool) else repr(value)


def _labels(**values: str) -> str:
    """`tunnel="branch-a",reason="replay"`, with what the format takes for its own escaped."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


# ------------------------------------------------------------------------------------ the gateway


def _gateway(text: _Text, operations: Operations) -> None:
    gateway = operations.gateway()
    text.add("vpnd_build_info", _labels(version=gateway.version, python=platform.python_version()), 1)
    info = _labels(name=gateway.name, version=gateway.version, engine=gateway.engine)
    text.add("vpnd_info", info, 1)
    text.add("vpnd_uptime_seconds", "", gateway.uptime_s)
    text.add("process_cpu_seconds_total", "", time.process_time())
    text.add("process_resident_memory_bytes", "", _resident_bytes())
    for reason, count in operations.counters().items():
        text.add("vpnd_dropped_total", _labels(reason=reason), count)
    text.histogram("vpnd_loop_lag_seconds", "", operations.loop_lag())


def _resident_bytes() -> int:
    """proc(5): the second number of statm, in pages."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()


# ------------------------------------------------------------------------------------- one tunnel

_STATES = get_args(TunnelState)
_REASONS = tuple(DropCounts.model_fields)


def _tunnel(text: _Text, figures: TunnelFigures) -> None:
    status = figures.status
    tunnel = _labels(tunnel=status.name)
    text.add("vpnd_tunnel_up", tunnel, status.state == "up")
    for state in _STATES:
        text.add("vpnd_tunnel_state", f'{tunnel},state="{state}"', status.state == state)
    text.add("vpnd_tunnel_carries_traffic", tunnel, status.carries_traffic)
    if status.dpd.last_heard_s is not None:
        text.add("vpnd_tunnel_last_heard_seconds", tunnel, status.dpd.last_heard_s)
    for reason in _REASONS:
        text.add("vpnd_tunnel_drops_total", f'{tunnel},reason="{reason}"', getattr(status.drops, reason))
    _ike(text, tunnel, status)
    text.add("vpnd_ike_established_total", tunnel, figures.established)
    for sa, count in figures.rekeys.items():
        text.add("vpnd_rekeys_total", f'{tunnel},sa="{sa}"', count)
    for code, count in figures.failures.items():
        text.add("vpnd_failures_total", f'{tunnel},code="{code}"', count)
    for mapping in status.mappings:
        _mapping(text, tunnel, mapping)
    if status.health is not None:
        _health(text, tunnel, status.health, figures)


def _ike(text: _Text, tunnel: str, status: TunnelStatus) -> None:
    text.add("vpnd_ike_sa_up", tunnel, status.ike is not None)
    if status.ike is not None:
        text.add("vpnd_ike_sa_age_seconds", tunnel, status.ike.age_s)
        if status.ike.rekey_in_s is not None:
            text.add("vpnd_ike_sa_rekey_seconds", tunnel, status.ike.rekey_in_s)


def _mapping(text: _Text, tunnel: str, mapping: MappingStatus) -> None:
    ends = f"{tunnel},{_labels(local=_side(mapping, 'local'), remote=_side(mapping, 'remote'))}"
    inbound, outbound = f'{ends},direction="in"', f'{ends},direction="out"'
    text.add("vpnd_mapping_up", ends, mapping.state == "up")
    text.add("vpnd_mapping_bytes_total", inbound, mapping.bytes_in)
    text.add("vpnd_mapping_bytes_total", outbound, mapping.bytes_out)
    text.add("vpnd_mapping_packets_total", inbound, mapping.packets_in)
    text.add("vpnd_mapping_packets_total", outbound, mapping.packets_out)
    if mapping.rekey_in_s is not None:
        text.add("vpnd_mapping_rekey_seconds", ends, mapping.rekey_in_s)


def _health(text: _Text, tunnel: str, health: HealthStatus, figures: TunnelFigures) -> None:
    text.add("vpnd_health_up", tunnel, health.state == "healthy")
    text.add("vpnd_health_probes_sent_total", tunnel, health.sent)
    text.add("vpnd_health_probes_lost_total", tunnel, health.lost)
    if health.loss_percent is not None:
        text.add("vpnd_health_loss_ratio", tunnel, health.loss_percent / 100)
    if health.rtt_ms is not None:
        text.add("vpnd_health_rtt_seconds", tunnel, health.rtt_ms / 1000)
    if health.jitter_ms is not None:
        text.add("vpnd_health_jitter_seconds", tunnel, health.jitter_ms / 1000)
    if figures.rtt is not None:
        text.histogram("vpnd_health_probe_rtt_seconds", tunnel, figures.rtt)
    if figures.jitter is not None:
        text.histogram("vpnd_health_probe_jitter_seconds", tunnel, figures.jitter)


def _side(mapping: MappingStatus, end: str) -> str:
    """`10.1.0.0/24[tcp/443]`: two mappings may have the same ranges, and differ in their ports."""
    parts = (mapping.protocol, mapping.local_port if end == "local" else mapping.remote_port)
    narrowed = "/".join(part for part in parts if part)
    network = mapping.local if end == "local" else mapping.remote
    return f"{network}[{narrowed}]" if narrowed else network
