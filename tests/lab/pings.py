"""Pings at a steady rate: `python -m tests.lab.pings LOCAL REMOTE RATE SECONDS`.

Prints how many were sent, and how many were answered.

ping(8) waits for its timer in steps of the kernel's clock, so that `-i 0.01` sends some sixty a second.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from contextlib import suppress

from tests.lab.echo import ECHO_REPLY, ECHO_REQUEST, HEADER, SMALLEST_IP_HEADER, checksum

IDENTIFIER = 0x7070
PATIENCE = 2.0
"""Seconds for the last answers."""
SIZE = 56
SOL_RAW, ICMP_FILTER = 255, 1
ONLY_REPLIES = struct.pack("=I", ~(1 << ECHO_REPLY) & 0xFFFFFFFF)


def request(number: int) -> bytes:
    """The echo request of this number; in the header there is room for its last 16 bits."""
    data = number.to_bytes(8, "big") + bytes(SIZE - 8)
    blank = HEADER.pack(ECHO_REQUEST, 0, 0, IDENTIFIER, number & 0xFFFF) + data
    return HEADER.pack(ECHO_REQUEST, 0, checksum(blank), IDENTIFIER, number & 0xFFFF) + data


def number_of(packet: bytes) -> int | None:
    """Which request an IPv4 packet answers."""
    message = packet[4 * (packet[0] & 15) :]
    if len(packet) < SMALLEST_IP_HEADER or len(message) != HEADER.size + SIZE:
        return None
    kind, _, _, identifier, _ = HEADER.unpack_from(message)
    if (kind, identifier) != (ECHO_REPLY, IDENTIFIER):
        return None
    return int.from_bytes(message[HEADER.size : HEADER.size + 8], "big")


def main(local: str, remote: str, rate: float, seconds: float) -> None:
    """Send at the rate for so long; a packet that the machine is late with is sent at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.setsockopt(SOL_RAW, ICMP_FILTER, ONLY_REPLIES)
        sock.setblocking(False)
        sock.bind((local, 0))
        sock.connect((remote, 0))
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        began, sent, answered = time.monotonic(), 0, set[int]()
        while (elapsed := time.monotonic() - began) < seconds + PATIENCE:
            due = min(int(elapsed * rate) + 1, int(seconds * rate))
            while sent < due:
                with suppress(OSError):  # it counts as sent, and so as lost
                    sock.send(request(sent))
                sent += 1
            if sent == int(seconds * rate):
                if len(answered) == sent:
                    break
                wait = 0.1
            else:
                wait = max(0.0, sent / rate - (time.monotonic() - began))
            if poll.poll(1000 * wait):
                try:
                    found = number_of(sock.recv(0x10000))
                except OSError:
                    continue  # an ICMP error
                if found is not None:
                    answered.add(found)
    print(sent, len(answered))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
