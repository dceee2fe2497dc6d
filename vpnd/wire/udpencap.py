"""What a datagram on UDP port 4500 is: IKE, ESP or a NAT-keepalive (RFC 3948)."""

from __future__ import annotations

from enum import Enum

from vpnd.wire.esp import ESP_HEADER_LENGTH

NON_ESP_MARKER = bytes(4)
"""Stands before an IKE message where an ESP packet has its SPI, which is never 0 (RFC 3948 section 2.2)."""

KEEPALIVE = b"\xff"
"""The whole payload of a NAT-keepalive (RFC 3948 section 2.3); the receiver ignores it."""


class Kind(Enum):
    """What `classify` found."""

    IKE = "ike"
    ESP = "esp"
    KEEPALIVE = "keepalive"
    MALFORMED = "malformed"


def classify(datagram: bytes) -> Kind:
    """The kind of a datagram that arrived on port 4500.

    An IKE message follows its 4-byte marker; whether it is one is not looked at. What is shorter than the
    ESP header and neither a marker nor a keepalive is malformed.
    """
    if datagram.startswith(NON_ESP_MARKER):
        return Kind.IKE
    if len(datagram) >= ESP_HEADER_LENGTH:
        return Kind.ESP
    return Kind.KEEPALIVE if datagram == KEEPALIVE else Kind.MALFORMED
