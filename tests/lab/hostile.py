"""A flood of datagrams that mean harm: `python -m tests.lab.hostile PCAP TARGET COUNT SEED`.

A third of them is random, the rest are packets of the capture with bits flipped, cut short, or lengthened.
They go to UDP 500 and 4500 and to IP protocol 50, from the addresses and ports of the capture where they
come from it: an attacker who sees the wire can write anything into a packet but the keys' proof.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
from collections.abc import Iterator

from scapy.layers.inet import IP, UDP
from scapy.utils import rdpcap

BURST = 50
PAUSE = 0.004
"""Seconds between bursts: 10,000 datagrams a second at most, so that the transfer has a processor too."""
ESP = 50


def udp(source_port: int, target_port: int, payload: bytes) -> bytes:
    """A UDP datagram without a checksum."""
    return struct.pack("!HHHH", source_port, target_port, 8 + len(payload), 0) + payload


def mutate(seed: random.Random, payload: bytes) -> bytes:
    """Flip up to eight bits, cut the end off, append, or repeat as it was (a replay)."""
    changed = bytearray(payload)
    match seed.randrange(4):
        case 0:
            for _ in range(seed.randint(1, 8)):
                position = seed.randrange(len(changed) * 8)
                changed[position >> 3] ^= 1 << (position & 7)
        case 1:
            del changed[seed.randrange(len(changed)) :]
        case 2:
            changed += seed.randbytes(seed.randint(1, 64))
    return bytes(changed)


def datagrams(seed: random.Random, captured: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Endless (IP protocol, its payload); `captured` holds (UDP port, or 0 for ESP; payload)."""
    while True:
        if seed.randrange(3) == 0 or not captured:
            payload = seed.randbytes(seed.choice((0, 1, 3, 4, 8, 27, 28, 29, 64, 200, 1200)))
            port = seed.choice((500, 4500, 0))
        else:
            port, payload = seed.choice(captured)
            payload = mutate(seed, payload)
        if port == 0:
            yield ESP, payload
        else:
            source = port if seed.randrange(2) else seed.randint(1024, 65535)
            yield socket.IPPROTO_UDP, udp(source, port, payload)


def read_capture(path: str) -> list[tuple[int, bytes]]:
    """The IKE and ESP payloads of a capture that are not empty."""
    found = []
    for frame in rdpcap(path):
        if UDP in frame and frame[UDP].dport in (500, 4500):
            found.append((frame[UDP].dport, bytes(frame[UDP].payload)))
        elif IP in frame and frame[IP].proto == ESP:
            found.append((0, bytes(frame[IP].payload)))
    return [(port, payload) for port, payload in found if payload]


def main() -> None:
    """Send, and print how many were sent."""
    path, target, count, number = sys.argv[1:]
    seed = random.Random(int(number))
    sockets = {
        protocol: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
        for protocol in (socket.IPPROTO_UDP, ESP)
    }
    flood = datagrams(seed, read_capture(path))
    sent = 0
    while sent < int(count):
        for _ in range(BURST):
            protocol, payload = next(flood)
            sockets[protocol].sendto(payload, (target, 0))
            sent += 1
        time.sleep(PAUSE)
    print(sent)


if __name__ == "__main__":
    main()
