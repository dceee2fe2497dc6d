"""Prometheus metrics: valid text, and no configured tunnel is absent."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.control.fakes import FakeOperations, tunnel_failed, tunnel_up
from vpnd.control import metrics
from vpnd.control.schema import HealthStatus

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(operations: FakeOperations) -> Samples:
    return parsed(asyncio.run(metrics.exposition(operations)).decode())


def parsed(text: str) -> Samples:
    """What another reader of the format finds in it."""
    found = [
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found), "a sample is there twice"
    return dict(found)


def test_a_tunnel_that_is_down_is_zero_and_not_absent() -> None:
    found = samples(FakeOperations(tunnel_up("a"), tunnel_failed("b")))
    for name, value in (("a", 1.0), ("b", 0.0)):
        assert found["vpnd_tunnel_up", (("tunnel", name),)] == value
        assert found["vpnd_ike_sa_up", (("tunnel", name),)] == value
        assert found["vpnd_tunnel_drops_total", (("reason", "replay"), ("tunnel", name))] == 0
    assert found["vpnd_mapping_up", (("local", "0.0.0.0/0"), ("remote", "0.0.0.0/0"), ("tunnel", "b"))] == 0
    assert found["vpnd_tunnel_state", (("state", "down"), ("tunnel", "b"))] == 1
    assert found["vpnd_tunnel_state", (("state", "up"), ("tunnel", "b"))] == 0


def test_counters_of_traffic_health_and_the_gateway() -> None:
    health = HealthStatus(
        state="healthy",
        sent=12,
        lost=5,
        rtt_ms=0.7,
        jitter_ms=0.1,
        loss_percent=12.5,
        local="169.254.1.1",
        remote="169.254.1.2",
    )
    found = samples(FakeOperations(tunnel_up("a", health=health)))
    mapping = (("direction", "in"), ("local", "10.1.0.0/24"), ("remote", "10.2.0.0/24"), ("tunnel", "a"))
    assert found["vpnd_mapping_bytes_total", mapping] == 3_400_000
    assert found["vpnd_mapping_packets_total", mapping] == 2
    assert found["vpnd_health_rtt_seconds", (("tunnel", "a"),)] == 0.0007
    for bound, upto in (("0.01", 5), ("0.1", 7), ("+Inf", 7)):
        assert found["vpnd_health_probe_rtt_seconds_bucket", (("le", bound), ("tunnel", "a"))] == upto
    assert found["vpnd_health_probe_rtt_seconds_sum", (("tunnel", "a"),)] == 0.25
    assert found["vpnd_health_probe_rtt_seconds_count", (("tunnel", "a"),)] == 7
    assert found["vpnd_health_probe_jitter_seconds_count", (("tunnel", "a"),)] == 6
    assert found["vpnd_health_loss_ratio", (("tunnel", "a"),)] == 0.125
    assert found["vpnd_health_jitter_seconds", (("tunnel", "a"),)] == 0.0001
    assert found["vpnd_health_probes_sent_total", (("tunnel", "a"),)] == 12
    assert found["vpnd_health_probes_lost_total", (("tunnel", "a"),)] == 5
    assert found["vpnd_health_up", (("tunnel", "a"),)] == 1
    assert found["vpnd_dropped_total", (("reason", "ike_unknown_peer"),)] == 7
    assert found["vpnd_uptime_seconds", ()] == 61


def test_what_was_negotiated_rekeyed_and_refused() -> None:
    found = samples(FakeOperations(tunnel_up("a"), tunnel_failed("b")))
    for name in ("a", "b"):
        assert found["vpnd_ike_established_total", (("tunnel", name),)] == 3
        assert found["vpnd_rekeys_total", (("sa", "ike"), ("tunnel", name))] == 1
        assert found["vpnd_rekeys_total", (("sa", "esp"), ("tunnel", name))] == 4
    assert found["vpnd_failures_total", (("code", "E-PSK"), ("tunnel", "b"))] == 6
    assert not [name for name, labels in found if name == "vpnd_failures_total" and ("tunnel", "a") in labels]


def test_what_runs_and_what_it_takes() -> None:
    found = samples(FakeOperations())
    assert found["vpnd_info", (("engine", "python"), ("name", "hq"), ("version", "0.1.0"))] == 1
    assert [labels for name, labels in found if name == "vpnd_build_info"]
    assert found["process_cpu_seconds_total", ()] > 0
    assert found["process_resident_memory_bytes", ()] > 1_000_000


def test_the_loop_goes_on_between_two_tunnels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due waits for one tunnel's part and not for all of them."""
    monkeypatch.setattr(metrics, "SLICE", 0.0)
    operations = FakeOperations(*(tunnel_up(f"t{number}") for number in range(50)))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scrape() -> bytes:
        other = asyncio.create_task(count_turns())
        try:
            return await metrics.exposition(operations)
        finally:
            other.cancel()

    found = parsed(asyncio.run(scrape()).decode())
    assert sum(name == "vpnd_tunnel_up" for name, _ in found) == 50
    assert turns >= 50


def test_samples_of_one_metric_stand_together() -> None:
    """As the format wants it: the parser of Prometheus keeps the type of the group that it is in."""
    operations = FakeOperations(tunnel_up("a"), tunnel_failed("b"), tunnel_up("c"))
    lines = asyncio.run(metrics.exposition(operations)).decode().splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    current = ""
    for line in lines:
        if line.startswith("# TYPE"):
            current = line.split()[2]
        elif not line.startswith("#"):
            assert line.startswith(current), f"{line} below {current}"


def test_when_the_next_rekeys_are() -> None:
    """Of a tunnel that is up, and while none is under way."""
    found = samples(FakeOperations(tunnel_up("a"), tunnel_failed("b")))
    assert found["vpnd_ike_sa_rekey_seconds", (("tunnel", "a"),)] == 77000
    mapping = (("local", "10.1.0.0/24"), ("remote", "10.2.0.0/24"), ("tunnel", "a"))
    assert found["vpnd_mapping_rekey_seconds", mapping] == 3100
    up = tunnel_up("a")
    under_way = up.model_copy(
        update={"mappings": [one.model_copy(update={"rekey_in_s": None}) for one in up.mappings]}
    )
    assert ("vpnd_mapping_rekey_seconds", mapping) not in samples(FakeOperations(under_way))


def test_how_late_the_daemon_comes() -> None:
    found = samples(FakeOperations())
    for bound, upto in (("0.01", 7), ("0.02", 9), ("+Inf", 10)):
        assert found["vpnd_loop_lag_seconds_bucket", (("le", bound),)] == upto
    assert found["vpnd_loop_lag_seconds_count", ()] == 10
    assert found["vpnd_loop_lag_seconds_sum", ()] == 0.5


@pytest.mark.parametrize(
    "name",
    ['a"b\\c\n分支', "分" * 60, "مكتب-القاهرة", "a{b}=c,d", "\\n", "ends in \\", "🛰️ two \u00a0 spaces"],
)
def test_any_name_is_escaped(name: str) -> None:
    assert samples(FakeOperations(tunnel_up(name)))["vpnd_tunnel_up", (("tunnel", name),)] == 1
