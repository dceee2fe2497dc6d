"""What of the Python engine's tests on loopback sockets looks in from outside, run on the native engine."""

from __future__ import annotations

import pytest
from tests.datapath import test_engine as suite
from tests.datapath.test_engine import (  # noqa: F401 - collected here
    pair,
    sides,
    test_a_closed_port_does_not_stop_the_traffic,
    test_a_rekey_loses_nothing,
    test_a_smaller_path_makes_smaller_packets,
    test_a_tcp_stream_is_the_same_behind_the_joined_writes,
    test_an_address_that_cannot_be_had_leaves_the_one_that_is_used,
    test_an_address_that_is_taken_is_an_error_and_leaves_nothing_open,
    test_garbage_is_counted_and_told_once,
    test_ike_messages_share_the_port,
    test_interruption_spares_the_probes,
    test_one_side_without_segmentation_or_joining,
    test_packets_cross_both_ways,
    test_raw_esp,
    test_the_peer_that_stays_where_it_is_has_not_moved,
    test_tunnels_come_and_go,
    test_waiting_packets_leave_when_the_sa_is_there,
    test_what_cannot_be_sent_is_counted,
)
from vpnd.datapath.interface import Engine
from vpnd_engine import NativeEngine


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "PythonEngine", NativeEngine)


def test_it_has_all_that_the_interface_has() -> None:
    wanted = {name for name in vars(Engine) if not name.startswith("_")}
    assert wanted <= set(dir(NativeEngine))
    assert NativeEngine.name == "native"
