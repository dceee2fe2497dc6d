"""Prometheus metrics: valid text, and no configured tunnel is absent."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.unit.control.fakes import FakeOperations, tunnel_failed, tunnel_up
from vpnd.control import metrics
from vpnd.control.schema import HealthStatus


def samples(operations: FakeOperations) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render(operations.status(), operations.counters(), operations.loop_lag()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


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
        state="healthy", sent=12, lost=5, rtt_ms=0.7, jitter_ms=0.1, local="169.254.1.1", remote="169.254.1.2"
    )
    found = samples(FakeOperations(tunnel_up("a", health=health)))
    mapping = (("direction", "in"), ("local", "10.1.0.0/24"), ("remote", "10.2.0.0/24"), ("tunnel", "a"))
    assert found["vpnd_mapping_bytes_total", mapping] == 3_400_000
    assert found["vpnd_mapping_packets_total", mapping] == 2
    assert found["vpnd_health_rtt_seconds", (("tunnel", "a"),)] == 0.0007
    assert found["vpnd_health_jitter_seconds", (("tunnel", "a"),)] == 0.0001
    assert found["vpnd_health_probes_sent_total", (("tunnel", "a"),)] == 12
    assert found["vpnd_health_probes_lost_total", (("tunnel", "a"),)] == 5
    assert found["vpnd_health_up", (("tunnel", "a"),)] == 1
    assert found["vpnd_dropped_total", (("reason", "ike_unknown_peer"),)] == 7
    assert found["vpnd_uptime_seconds", ()] == 61


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


def test_any_name_is_escaped() -> None:
    name = 'a"b\\c\n分支'
    assert samples(FakeOperations(tunnel_up(name)))["vpnd_tunnel_up", (("tunnel", name),)] == 1
