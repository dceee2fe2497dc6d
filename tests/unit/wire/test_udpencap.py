"""What a datagram on port 4500 is."""

import pytest

from vpnd.wire.udpencap import KEEPALIVE, NON_ESP_MARKER, Kind, classify


@pytest.mark.parametrize(
    ("datagram", "kind"),
    [
        (NON_ESP_MARKER + bytes.fromhex("a1a2a3a4a5a6a7a8"), Kind.IKE),
        (NON_ESP_MARKER, Kind.IKE),
        (bytes.fromhex("00000100 00000001"), Kind.ESP),
        (bytes.fromhex("ffffffff ffffffff"), Kind.ESP),
        (KEEPALIVE, Kind.KEEPALIVE),
        (b"", Kind.MALFORMED),
        (b"\x00", Kind.MALFORMED),
        (b"\x00\x00\x00", Kind.MALFORMED),
        (b"\xff\xff", Kind.MALFORMED),
        (b"\xfe", Kind.MALFORMED),
        (bytes.fromhex("00000100 000000"), Kind.MALFORMED),
    ],
)
def test_the_first_four_bytes_decide(datagram: bytes, kind: Kind) -> None:
    assert classify(datagram) is kind
