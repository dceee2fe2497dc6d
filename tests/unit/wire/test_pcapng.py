"""Captures as files: another implementation reads the same out of them."""

from __future__ import annotations

from pathlib import Path
from struct import unpack_from
from typing import Any

import pytest
from scapy.utils import RawPcapNgReader

from vpnd.wire.pcapng import RAW_IP, file_header, packet_block, statistics_block

AT = 1_800_000_000.25


@pytest.mark.parametrize("length", range(20, 25))
def test_scapy_reads_what_is_written(length: int, tmp_path: Path) -> None:
    """Whatever is missing to a whole number of words."""
    packet = bytes(range(length))
    blocks = packet_block(1, AT, packet, outbound=True) + packet_block(0, AT + 1, packet, outbound=False)
    file = tmp_path / "capture.pcapng"
    file.write_bytes(file_header(("t inner", "t outer"), "vpnd") + blocks)
    with RawPcapNgReader(str(file)) as reader:
        packets: list[tuple[bytes, Any]] = list(reader)
    (first, seen), (second, later) = packets
    assert first == second == packet
    assert (seen.wirelen, seen.linktype, seen.ifname, seen.direction) == (length, RAW_IP, b"t outer", 2)
    assert (later.ifname, later.direction) == (b"t inner", 1)
    ticks = (seen.tshigh << 32) + seen.tslow
    assert ticks / seen.tsresol == AT


def test_what_is_not_in_the_file_is_counted_beside_it() -> None:
    block = statistics_block(1, AT, 7)
    kind, length, interface, high, low = unpack_from("<IIIII", block)
    assert (kind, length, interface) == (5, len(block), 1)
    assert ((high << 32) + low) / 1e6 == AT
    assert unpack_from("<HHQ", block, 20) == (5, 8, 7)
    assert unpack_from("<I", block, length - 4) == (length,)
