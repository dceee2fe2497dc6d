"""For each ESP packet that leaves here in UDP, a hostile one to the same gateway: half of what arrives.

`python -m tests.lab.shadow DEVICE` runs until SIGTERM and then prints how many of each kind it sent. It
copies what it sees leave: with a number to come and a wrong ICV, as it is, with an SPI of nobody, and cut
short.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType

from vpnd.model.policy import NAT_T_PORT
from vpnd.wire.iana import IpProtocol
from vpnd.wire.ip import checksum

ETHERNET, IP, UDP, ESP = 14, 20, 8, 8
AHEAD = 7
"""Numbers by which a packet is ahead of what has been sent: it is within what the window lets through."""


def bad_icv(esp: bytes) -> bytes:
    number = int.from_bytes(esp[4:8]) + AHEAD
    return esp[:4] + (number & 0xFFFFFFFF).to_bytes(4) + esp[8:-1] + bytes((esp[-1] ^ 1,))


def replay(esp: bytes) -> bytes:
    return esp


def unknown_spi(esp: bytes) -> bytes:
    return bytes((esp[0] ^ 0x80,)) + esp[1:]


def truncated(esp: bytes) -> bytes:
    return esp[:ESP] + esp[ESP:29]


KINDS: tuple[Callable[[bytes], bytes], ...] = (bad_icv, replay, unknown_spi, truncated)


def framed(frame: bytes, esp: bytes) -> bytes:
    """The frame with another ESP packet in it. UDP of IPv4 may have no checksum."""
    ip = bytearray(frame[ETHERNET : ETHERNET + IP])
    ip[2:4] = (IP + UDP + len(esp)).to_bytes(2)
    ip[10:12] = bytes(2)
    ip[10:12] = checksum(bytes(ip)).to_bytes(2)
    ports = frame[ETHERNET + IP : ETHERNET + IP + 4]
    return frame[:ETHERNET] + bytes(ip) + ports + (UDP + len(esp)).to_bytes(2) + bytes(2) + esp


def esp_of(frame: bytes) -> bytes | None:
    """The ESP packet in an IPv4 frame to port 4500, None if there is none."""
    ip = frame[ETHERNET:]
    if len(ip) < IP + UDP + 40 or ip[0] != 0x45 or ip[9] != IpProtocol.UDP:
        return None
    length = int.from_bytes(ip[2:4])
    is_esp = ip[IP + UDP : IP + UDP + 4] != bytes(4)
    if int.from_bytes(ip[IP + 2 : IP + 4]) != NAT_T_PORT or not is_esp:
        return None
    return ip[IP + UDP : length]


def main(device: str) -> None:
    sent: Counter[str] = Counter()

    def end(_number: int, _frame: FrameType | None) -> None:
        print(json.dumps(sent), flush=True)
        sys.exit()

    signal.signal(signal.SIGTERM, end)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        sock.bind((device, 0))
        print("ready", flush=True)
        count = 0
        while True:
            frame, (_, _, kind, *_) = sock.recvfrom(70000)
            # Its own are not shown to it.
            if kind != socket.PACKET_OUTGOING or (esp := esp_of(frame)) is None:
                continue
            make = KINDS[count % len(KINDS)]
            count += 1
            sock.send(framed(frame, make(esp)))
            sent[make.__name__] += 1


if __name__ == "__main__":
    main(sys.argv[1])
