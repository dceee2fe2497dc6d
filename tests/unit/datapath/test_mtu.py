"""How large an inner packet may be."""

from __future__ import annotations

import pytest

from tests.unit.datapath.parts import SUITES, keys_for
from vpnd.crypto.entropy import SeededEntropy
from vpnd.datapath.esp import make_sealer
from vpnd.datapath.mtu import believed, inner_mtu, mss
from vpnd.model.proposals import Suite


@pytest.mark.parametrize(
    ("encryption", "integrity", "plain", "in_udp"),
    [
        ("aes-128", "sha1", 1438, 1422),
        ("aes-256", "sha256", 1438, 1422),
        ("aes-128", "sha512", 1422, 1406),
        ("3des", "md5", 1446, 1438),
        ("aes-128-gcm", None, 1446, 1438),
        ("aes-256-gcm", None, 1446, 1438),
    ],
)
def test_a_path_of_1500_bytes(encryption: str, integrity: str | None, plain: int, in_udp: int) -> None:
    suite = Suite(encryption, None, integrity, None)
    assert inner_mtu(1500, suite, udp=False, outer_version=4) == plain
    assert inner_mtu(1500, suite, udp=True, outer_version=4) == in_udp


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: f"{s}-esn{s.esn:d}")
@pytest.mark.parametrize(("udp", "version"), [(True, 4), (False, 4), (True, 6), (False, 6)])
def test_the_largest_packet_fits_and_one_byte_more_does_not(suite: Suite, udp: bool, version: int) -> None:
    outer = {4: 20, 6: 40}[version] + (8 if udp else 0)
    sealer = make_sealer(suite, keys_for(suite), 0x1000, SeededEntropy(1))
    for path in (1500, 1492, 1400, 1280, 576):
        largest = inner_mtu(path, suite, udp, version)
        assert outer + sealer.sealed_length(largest) <= path
        assert outer + sealer.sealed_length(largest + 1) > path


def test_mss_leaves_room_for_the_headers_of_the_family() -> None:
    assert mss(1400, 4) == 1360
    assert mss(1400, 6) == 1340


def test_a_path_below_what_every_path_carries_is_not_believed() -> None:
    assert (believed(68, 4), believed(1000, 4), believed(576, 6), believed(1400, 6)) == (
        576,
        1000,
        1280,
        1400,
    )
