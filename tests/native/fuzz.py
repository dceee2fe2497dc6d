"""Both engines on the same packets, in and out, good and hostile and after every command, until they differ.

    python -m tests.native.fuzz --packets 10000000        as `make fuzz` does it, on all processors
    python -m tests.native.fuzz --seed 7 --case 1234      the case that a failure has named

A case is a life of two engines without input and output: some hundred commands and batches, after each of
which trains, writes, IKE messages, notices, counters and drops are compared. Trains are compared byte by
byte, those with random IVs once they are decrypted. What the fuzzers of `engine/fuzz/corpus` have found is
put in between as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path as File
from random import Random

from tests.native.both import Arrival, Both
from tests.unit.datapath.parts import (
    CBC,
    EVERYTHING,
    GCM,
    LOCAL,
    LOCAL6,
    REMOTE,
    REMOTE6,
    child,
    selector,
    tcp_packet,
    udp_packet,
)
from vpnd.crypto.entropy import SeededEntropy
from vpnd.datapath.esp import Sealer, make_sealer
from vpnd.datapath.interface import PolicyRow
from vpnd.model.child import ChildSa, Path
from vpnd.model.policy import Lifetimes, Margin
from vpnd.model.proposals import Suite
from vpnd.wire.icmp import Echo
from vpnd.wire.ip import checksum, set_traffic_class

CORPUS = File(__file__).parents[2] / "engine" / "fuzz" / "corpus"
STEPS = 150
"""Commands and batches of a case."""
SHARE = 20
"""Cases of one task of a process."""

SPIS = (0x1001, 0x1002, 0x1003)
PATHS = (Path(LOCAL, 4500, REMOTE, 4500), Path(LOCAL6, 4500, REMOTE6, 4501))
SUITES = (
    *(GCM,) * 3,
    replace(GCM, esn=True),
    Suite("aes-256-gcm", None, None, None),
    Suite("chacha20-poly1305", None, None, None, esn=True),
    CBC,
    replace(CBC, esn=True),
    Suite("3des", None, "md5", None),
    Suite("sm4", None, "sm3", None),
)
ROWS = (
    (PolicyRow(0, EVERYTHING, EVERYTHING),),
    (
        PolicyRow(0, (selector("10.1.0.0/16"),), (selector("10.2.0.0/16"),)),
        PolicyRow(1, (selector("fd01::/16"),), (selector("fd02::/16"), selector("ff00::/8"))),
    ),
    (
        PolicyRow(0, (selector("0.0.0.0/0", 17, (1000, 1003)),), EVERYTHING),
        PolicyRow(1, EVERYTHING, (selector("0.0.0.0/0", 6), selector("::/0", 6, (80, 90)))),
        PolicyRow(2, (selector("10.1.0.0/16"), selector("::/0", 58)), EVERYTHING),
    ),
)
NARROW = (
    *(EVERYTHING,) * 4,
    (selector("10.1.0.0/24"), selector("fd01::/16")),
    (selector("0.0.0.0/0", 17), selector("::/0")),
    (selector("0.0.0.0/0", 17, (1000, 1003)),),
)
OUR_HOSTS = ("10.1.0.1", "10.1.0.1", "10.1.0.2", "fd01::1", "127.0.0.1", "192.0.2.1")
THEIR_HOSTS = {4: ("10.2.0.1", "10.2.0.1", "10.2.0.7", "224.0.0.5"), 6: ("fd02::1", "ff02::5")}
SIZES = (60, 64, 100, 200, 600, 1000, 1300, 1348, 1400, 1480, 2900)
OPTIONS = (b"", b"", b"\x01\x01\x08\x0a" + bytes(8), b"\x02\x04\x05\xb4", b"\x01\x02\x04\x23\x00\x00\x00\x00")
SENDERS = (("192.0.2.2", 4500),) * 12 + (("192.0.2.2", 1234), ("192.0.2.77", 4500), ("2001:db8::2", 4501))


class Peer:
    """The far end of one SA."""

    def __init__(self, sa: ChildSa, seed: int) -> None:
        self.sa = sa
        self.number = 0
        self.last = (1 << (64 if sa.suite.esn else 32)) - 1
        self.sealer: Sealer = make_sealer(sa.suite, sa.keys_in, sa.spi_in, SeededEntropy(seed))

    def seal(self, packets: Sequence[bytes], step: int) -> list[bytes]:
        """Packets of one length and version; their numbers go on `step` after the last."""
        first = min(max(self.number + step, 0), self.last - len(packets))
        self.number = first + len(packets) - 1
        buffers = self.sealer.seal(list(packets), 0, first, 4 if packets[0][0] >> 4 == 4 else 41)
        return [head + rest for head, rest in zip(buffers[::2], buffers[1::2], strict=True)]


@lru_cache(4096)
def around(ends: tuple[str, str], size: int, flags: int, options: bytes) -> tuple[bytes, bytes, bytes, int]:
    """Of a segment of so many bytes: what is before the sequence number, between that and the checksum, and
    between that and the data, and the sum of it all."""
    packet = tcp_packet(*ends, 0, bytes(size), flags, options, ports=(1003, 85), window=500)
    at = 20 if packet[0] >> 4 == 4 else 40
    total = ~int.from_bytes(packet[at + 16 : at + 18]) & 0xFFFF
    return packet[: at + 4], packet[at + 8 : at + 16], packet[at + 18 : len(packet) - size], total


def segment(ends: tuple[str, str], sequence: int, data: bytes, flags: int, options: bytes) -> bytes:
    """What `tcp_packet` makes, of which most is the same for the whole flow."""
    first, middle, last, total = around(ends, len(data), flags, options)
    sequence &= 0xFFFFFFFF
    value = checksum(data, total + (sequence >> 16) + (sequence & 0xFFFF))
    return b"".join((first, sequence.to_bytes(4), middle, value.to_bytes(2), last, data))


class Case:
    """One life of both engines."""

    def __init__(self, seed: int, number: int, corpus: Sequence[bytes] = ()) -> None:
        self.dice = Random(f"{seed}/{number}")
        headed = self.dice.random() < 0.8
        self.both = Both(headed, headed and self.dice.random() < 0.6)
        self.corpus = corpus
        self.peers: dict[int, Peer] = {}
        self.seen: deque[bytes] = deque(maxlen=64)
        """ESP packets that came once."""
        self.sequence = self.dice.choice([1, 1000, (1 << 32) - 30_000])

    def run(self, steps: int = STEPS) -> int:
        """Returns how many packets were put in; raises AssertionError where the engines differ."""
        both, dice = self.both, self.dice
        both.replace_policies(dice.choice(ROWS[:1] * 3 + ROWS))
        both.answer_probes(ip_address("10.1.0.9"), ip_address("10.2.0.9"))
        self.install()
        for _ in range(steps):
            kind = dice.random()
            if kind < 0.42:
                both.send(self.outgoing())
            elif kind < 0.84:
                both.receive(self.incoming(), dice.choice([4500, 4500, 4500, 4500, 0]))
            else:
                dice.choice(self.commands)(self)
        return both.packets

    # ------------------------------------------------------------------------- commands

    def install(self) -> None:
        dice = self.dice
        kilobytes = dice.choice([None, None, None, None, 4, 20, 300])
        sa = child(
            spi_in=dice.choice(SPIS),
            spi_out=dice.choice([0x2001, 0x2002]),
            suite=dice.choice(SUITES),
            mapping=dice.choice([0, 0, 0, 1, 2]),
            udp=dice.random() < 0.7,
            lifetimes=Lifetimes(3600, kilobytes, Margin(10, 0)),
            local=dice.choice(NARROW),
            path=dice.choice(PATHS),
        )
        if self.both.install(sa, dice.random() < 0.8) is not None:
            self.peers[sa.spi_in] = Peer(sa, dice.getrandbits(32))

    def renew(self) -> None:
        """Another SA in place of one: what a rekey does."""
        self.remove()
        self.install()

    def remove(self) -> None:
        spi = self.dice.choice([*SPIS, 0x9999])
        self.both.remove(spi)
        self.peers.pop(spi, None)

    def use_outbound(self) -> None:
        self.both.use_outbound(self.dice.choice([*SPIS, 0x9999]))

    def wait(self) -> None:
        self.both.now += self.dice.choice([0.001, 0.25, 1.0, 29.5, 31.0])

    def replace_policies(self) -> None:
        self.both.replace_policies(self.dice.choice(ROWS))

    def set_limits(self) -> None:
        self.both.set_limits(self.dice.choice([None, None, 600, 1400]), self.dice.choice([None, None, 500]))

    def set_mtu(self) -> None:
        self.both.set_mtu(self.dice.choice([0, 576, 1280, 1500, 1500, 9000]))

    def interrupt(self) -> None:
        keep = [ip_address(host) for host in self.dice.sample(("10.1.0.1", "10.2.0.1", "fd01::1"), 1)]
        self.both.interrupt(self.dice.choice([None, None, None, keep, []]))

    def answer_probes(self) -> None:
        ends = self.dice.choice([("10.1.0.9", "10.2.0.9"), ("fd01::1", "fd02::1")])
        self.both.answer_probes(*map(ip_address, ends))

    def own(self) -> None:
        self.both.own([ip_address(host) for host in self.dice.choice([(), (), ("10.2.0.1",), ("fd02::1",)])])

    def with_peer(self) -> Peer | None:
        return self.dice.choice(list(self.peers.values())) if self.peers else None

    def limit(self) -> None:
        if (peer := self.with_peer()) is not None:
            self.both.limit(peer.sa, self.dice.choice([1, 8, 1000]))

    def move(self) -> None:
        if (peer := self.with_peer()) is not None:
            remote = ip_address(self.dice.choice(["192.0.2.2", "192.0.2.77", "2001:db8::2"]))
            self.both.move(peer.sa, Path(LOCAL, 4500, remote, self.dice.choice([4500, 1234])))

    def believe(self) -> None:
        remote = ip_address(self.dice.choice(["192.0.2.2", "192.0.2.77", "2001:db8::2"]))
        quote = self.dice.choice([None, b"", (0x2001).to_bytes(4), (0x2002).to_bytes(4) + bytes(4)])
        self.both.believe(
            remote, self.dice.choice([4500, 4501, 0]), self.dice.choice([70, 600, 1400, 1500]), quote
        )

    commands = (
        *(install,) * 2,
        *(renew,) * 2,
        remove,
        *(use_outbound,) * 2,
        *(wait,) * 3,
        replace_policies,
        set_limits,
        set_mtu,
        *(interrupt,) * 2,
        answer_probes,
        own,
        limit,
        move,
        believe,
    )

    # -------------------------------------------------------------------------- packets

    def outgoing(self) -> list[bytes]:
        packets: list[bytes] = []
        while not packets or self.dice.random() < 0.5:
            packets += self.flow(inbound=False)
        return packets[:80]

    def flow(self, inbound: bool) -> list[bytes]:
        """Some packets of one flow."""
        dice = self.dice
        here = dice.choice(OUR_HOSTS)
        there = dice.choice(THEIR_HOSTS[6 if ":" in here else 4])
        ends = (there, here) if inbound else (here, there)
        kind, count = dice.random(), dice.choice([1, 2, 4, 20, 44, 60])
        if kind < 0.45:
            packets = self.datagrams(ends, count)
        elif kind < 0.85:
            packets = self.segments(ends, count)
        elif kind < 0.9:
            probe = Echo(
                ip_address("10.2.0.9" if inbound else "10.1.0.9"),
                ip_address("10.1.0.9" if inbound else "10.2.0.9"),
                dice.random() < 0.2,
                7,
                dice.randrange(1000),
                bytes(dice.choice([0, 10, 1400])),
            )
            packets = [probe.encode()]
        elif self.corpus and kind < 0.95:
            packets = [dice.choice(self.corpus)]
        else:
            packets = [dice.randbytes(dice.randrange(120))]
        if dice.random() < 0.25:
            at = dice.randrange(len(packets))
            packets[at] = self.damaged(packets[at])
        return packets

    def datagrams(self, ends: tuple[str, str], count: int) -> list[bytes]:
        dice = self.dice
        packet = udp_packet(
            *ends, dice.choice(SIZES), dice.choice([(1000, 2000), (1003, 80), (5, 80), (85, 53)])
        )
        if dice.random() < 0.2:
            marked = bytearray(packet)
            set_traffic_class(marked, dice.randrange(256))
            packet = bytes(marked)
        if packet[0] == 0x45 and dice.random() < 0.3:
            packet = packet[:6] + bytes(2) + packet[8:]
        packets = [packet] * count
        if dice.random() < 0.3:
            packets.append(udp_packet(*ends, 60, (1000, 2000)))
        return packets

    def segments(self, ends: tuple[str, str], count: int) -> list[bytes]:
        dice = self.dice
        size, options = dice.choice([0, 63, 64, 65, 500, 999, 1000, 1348]), dice.choice(OPTIONS)
        flags = dice.choice([0x10] * 8 + [0x02, 0x12, 0x11, 0x50])
        packets = []
        for index in range(min(count, 20) if size else 3):
            last = 0x18 if dice.random() < 0.05 else flags
            gap = dice.random() < 0.03
            data = dice.randbytes(4) * (size // 4) + bytes(size % 4)
            packets.append(segment(ends, self.sequence + gap, data, last, options))
            self.sequence = (self.sequence + size) % (1 << 32)
            if ends[0][0] == "f" or dice.random() < 0.9:
                continue
            changed = bytearray(packets[-1])
            changed[4:6] = index.to_bytes(2)
            packets[-1] = bytes(changed)
        return packets

    def damaged(self, packet: bytes) -> bytes:
        dice = self.dice
        if not packet or dice.random() < 0.3:
            return packet[: dice.randrange(len(packet) + 1)] or b"\x45"
        at = dice.randrange(min(len(packet), 60)) if dice.random() < 0.8 else dice.randrange(len(packet))
        return packet[:at] + bytes((packet[at] ^ 1 << dice.randrange(8),)) + packet[at + 1 :]

    def incoming(self) -> list[Arrival]:
        arrivals: list[Arrival] = []
        while not arrivals or self.dice.random() < 0.4:
            arrivals += self.arrival()
        return arrivals

    def arrival(self) -> list[Arrival]:
        dice = self.dice
        sender, mark = dice.choice(SENDERS), dice.choice([0, 0, 0, 0, 1, 2, 3, 0xB8])
        peer = self.with_peer()
        esp = [self.stranger()] if peer is None or dice.random() < 0.05 else self.sealed(peer)
        if dice.random() < 0.3:
            at = dice.randrange(len(esp))
            fault = dice.random()
            if fault < 0.3:
                esp[at] = self.damaged(esp[at])
            elif fault < 0.5 and self.seen:
                esp[at] = dice.choice(self.seen)
            elif fault < 0.7:
                esp.insert(at, esp[at])
            elif fault < 0.85:
                dice.shuffle(esp)
            else:
                esp[at] = dice.choice([b"\xff", bytes(4) + b"an IKE message", bytes(3), self.stranger()])
        self.seen.append(dice.choice(esp))
        if dice.random() < 0.3:
            return [Arrival(one, len(one), mark, sender) for one in esp if one]
        joined: list[Arrival] = []
        for one in esp:
            size = len(joined[-1].data) % joined[-1].length if joined else 1
            if joined and not size and len(one) <= joined[-1].length and len(joined[-1].data) < 60_000:
                joined[-1] = replace(joined[-1], data=joined[-1].data + one)
            elif one:
                joined.append(Arrival(one, len(one), mark, sender))
        if dice.random() < 0.03:
            joined[-1] = replace(joined[-1], length=dice.randrange(1, len(joined[-1].data) + 1))
        return joined or [Arrival(b"\xff", 1)]

    def sealed(self, peer: Peer) -> list[bytes]:
        dice = self.dice
        esp: list[bytes] = []
        run: list[bytes] = []
        for packet in [*self.flow(inbound=True), b""]:
            if run and (len(packet) != len(run[0]) or packet[0] >> 4 != run[0][0] >> 4):
                step = dice.choice([1] * 30 + [0, -3, 2, 40, -40, 5000])
                esp += peer.seal(run, step)
                run = []
            if packet:
                run.append(packet)
        return esp or [self.stranger()]

    def stranger(self) -> bytes:
        dice = self.dice
        spi = dice.choice([*SPIS, 0x9999, 0, 1])
        return spi.to_bytes(4) + dice.randbytes(dice.randrange(80))


def differing(seed: int, first: int, corpus: Sequence[bytes] = ()) -> tuple[int, int | None, str]:
    """Run some cases: packets that were put in, and the case in which the engines differ, with its error."""
    packets = 0
    for number in range(first, first + SHARE):
        try:
            packets += Case(seed, number, corpus).run()
        except Exception as found:  # whatever it is, it has to be looked at
            return packets, number, f"{type(found).__name__}: {str(found)[:2000]}"
    return packets, None, ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.native.fuzz", description=__doc__)
    parser.add_argument("--packets", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--case", type=int, help="this one alone, with its traceback")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    corpus = [file.read_bytes() for file in sorted(CORPUS.rglob("*")) if file.is_file()]
    if arguments.case is not None:
        print(f"{Case(arguments.seed, arguments.case, corpus).run()} packets: no difference")
        return 0
    done, case, began, told = 0, 0, time.monotonic(), 0
    with ProcessPoolExecutor(arguments.jobs) as pool:
        waiting: deque[Future[tuple[int, int | None, str]]] = deque()
        while done < arguments.packets:
            while len(waiting) < 2 * arguments.jobs:
                waiting.append(pool.submit(differing, arguments.seed, case, corpus))
                case += SHARE
            packets, found, what = waiting.popleft().result()
            done += packets
            if found is not None:
                pool.shutdown(cancel_futures=True)
                print(f"the engines differ: --seed {arguments.seed} --case {found}\n{what}")
                return 1
            if done // 1_000_000 > told:
                told = done // 1_000_000
                print(f"{done:,} packets, {case:,} cases, {time.monotonic() - began:.0f} s: 0 differences")
        pool.shutdown(cancel_futures=True)
    print(f"{done:,} packets, seed {arguments.seed}, {time.monotonic() - began:.0f} s: 0 differences")
    return 0


if __name__ == "__main__":
    sys.exit(main())
