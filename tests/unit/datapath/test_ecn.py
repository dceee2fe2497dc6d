"""ECN and DSCP through a tunnel (RFC 6040)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from vpnd.datapath.ecn import CE, ECT_0, ECT_1, NOT_ECT, apply_outer, decapsulated

# RFC 6040 figure 4, in its own order: columns Not-ECT, ECT(0), ECT(1), CE.
FIGURE_4 = {
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, None),
    ECT_0: (ECT_0, ECT_0, ECT_1, CE),
    ECT_1: (ECT_1, ECT_1, ECT_1, CE),
    CE: (CE, CE, CE, CE),
}
CASES = [
    (inner, outer, forwarded)
    for inner, row in FIGURE_4.items()
    for outer, forwarded in zip((NOT_ECT, ECT_0, ECT_1, CE), row, strict=True)
]


@pytest.mark.parametrize(("inner", "outer", "forwarded"), CASES)
@pytest.mark.parametrize("version", [4, 6])
def test_figure_4(version: int, inner: int, outer: int, forwarded: int | None) -> None:
    dscp = 46 << 2
    if version == 4:
        packet = bytes(IP(src="10.0.0.1", dst="10.0.0.2", tos=dscp | inner, id=99) / UDP() / b"data")
    else:
        packet = bytes(IPv6(src="fd00::1", dst="fd00::2", tc=dscp | inner, fl=0x12345) / UDP() / b"data")
    assert decapsulated(inner, outer) == forwarded
    changed = apply_outer(packet, 0b111100 << 2 | outer)
    if forwarded is None:
        assert changed is None
        return
    assert changed is not None
    assert len(changed) == len(packet)
    if version == 4:
        four = IP(packet)
        four.tos = dscp | forwarded
        del four.chksum
        assert changed == bytes(four)
    else:
        six = IPv6(packet)
        six.tc = dscp | forwarded
        assert changed == bytes(six)
