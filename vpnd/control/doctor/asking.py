"""What doctor sends itself: a first message of IKEv2 that no peer can take, so that nothing comes of it.

    vpnctl                                      peer, UDP 500 and 4500
    IKE_SA_INIT {SA, KE, Ni}            -->
                                        <--     IKE_SA_INIT {N(NO_PROPOSAL_CHOSEN)}

Every algorithm of its one proposal is a number for private use. Any answer proves that UDP passes both ways.
It comes from a port of its own, since the daemon has 500 and 4500.
"""

from __future__ import annotations

import errno
import os
import socket
from time import monotonic

from vpnd.ike.v2.proposals import never_taken
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import DhGroup, Exchange2
from vpnd.wire.ikev2 import KeyExchange, Nonce, Sa, encode_payloads
from vpnd.wire.udpencap import NON_ESP_MARKER

NAT_T_PORT = 4500
VERSION = 0x20
PUBLIC_VALUE = 64
NONCE = 32
"""Bytes: of a point of ECP-256, which nobody computes with, and of a nonce."""

TRIES, EACH = 2, 1.0
"""Ours: a datagram may be lost once; seconds for each answer."""

LARGEST_ANSWER = 4096


def question(random: bytes) -> bytes:
    """The message; `random`: 8 + 64 + 32 bytes for the SPI, the public value and the nonce."""
    spi, value, nonce = random[:8], random[8 : 8 + PUBLIC_VALUE], random[8 + PUBLIC_VALUE :]
    offer = Sa((never_taken(1, DhGroup.ECP_256),))
    first, body = encode_payloads((offer, KeyExchange(DhGroup.ECP_256, value), Nonce(nonce)))
    length = HEADER_LENGTH + len(body)
    header = Header(spi, bytes(8), first, VERSION, Exchange2.IKE_SA_INIT, Flag.INITIATOR, 0, length)
    return header.encode() + body


def ask(address: str, port: int) -> str | None:
    """None if the peer answers; else what happened: `silent`, or the kernel's word for what ICMP said."""
    data = question(os.urandom(8 + PUBLIC_VALUE + NONCE))
    marker = NON_ESP_MARKER if port == NAT_T_PORT else b""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, port))
            for _ in range(TRIES):
                sock.send(marker + data)
                if _answered(sock, marker, data[:8]):
                    return None
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "EIO")
    return "silent"


def _answered(sock: socket.socket, marker: bytes, spi: bytes) -> bool:
    """Whether what comes in time is an answer to this SPI."""
    end = monotonic() + EACH
    while (left := end - monotonic()) > 0:
        sock.settimeout(left)
        try:
            answer = sock.recv(LARGEST_ANSWER)
        except TimeoutError:
            return False
        if answer.startswith(marker + spi):
            return True
    return False
