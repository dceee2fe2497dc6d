"""Explicit congestion notification through a tunnel (RFC 6040), and the DSCP that travels beside it.

Encapsulation copies the whole traffic class to the outer header: the ECN field as RFC 6040's normal mode has
it, the DSCP as RFC 4301 section 5.1.2 has it. What is left to decide is decapsulation.
"""

from __future__ import annotations

from vpnd.wire.errors import DecodeError
from vpnd.wire.ip import DSCP_MASK, ECN_MASK, IPV4_HEADER_LENGTH, set_traffic_class, traffic_class

NOT_ECT, ECT_1, ECT_0, CE = range(4)

# Rows are the inner field, columns the outer one: Not-ECT, ECT(1), ECT(0), CE (RFC 6040 figure 4).
# None: the packet is dropped, for its sender would not understand the congestion mark.
_FORWARDED: tuple[tuple[int | None, ...], ...] = (
    (NOT_ECT, NOT_ECT, NOT_ECT, None),
    (ECT_1, ECT_1, ECT_1, CE),
    (ECT_0, ECT_1, ECT_0, CE),
    (CE, CE, CE, CE),
)


def decapsulated(inner: int, outer: int) -> int | None:
    """The ECN field to forward for the inner and outer fields, None to drop (RFC 6040 section 4.2)."""
    return _FORWARDED[inner & ECN_MASK][outer & ECN_MASK]


def apply_outer(packet: bytes, outer: int) -> bytes | None:
    """`packet` with the ECN field that follows from the outer traffic class; None if it must be dropped.

    The inner DSCP stays as it is (RFC 4301 section 5.1.2.1 note 5). Raises DecodeError for no IP packet.
    """
    inner = traffic_class(packet)
    if len(packet) < IPV4_HEADER_LENGTH:
        raise DecodeError("IP header", f"{len(packet)} bytes")
    field = decapsulated(inner, outer)
    if field is None or field == inner & ECN_MASK:
        return None if field is None else packet
    changed = bytearray(packet)
    set_traffic_class(changed, inner & DSCP_MASK | field)
    return bytes(changed)
