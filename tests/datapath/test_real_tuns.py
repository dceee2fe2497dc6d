"""Two engines over real TUNs and sockets: ha - ga == gb - hb, each in a network namespace of its own.

The engines run as `bench/engine.py gateway`, with fixed keys and no IKE.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pytest

from bench.engine import HOSTS, INNER, OUTER, SPIS, topology

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
]

ENGINE = Path(__file__).parents[2] / "bench" / "engine.py"
SIZE = 8 << 20

SERVER = """
import hashlib, socket
with socket.create_server(("0.0.0.0", 7000)) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    digest, total = hashlib.sha256(), 0
    while data := connection.recv(1 << 16):
        digest.update(data)
        total += len(data)
    print(total, digest.hexdigest(), flush=True)
"""
CLIENT = """
import random, socket, sys
with socket.create_connection((sys.argv[1], 7000), timeout=60) as connection:
    connection.sendall(random.Random(1).randbytes(int(sys.argv[2])))
"""


LISTENER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
    sock.bind(("0.0.0.0", 7001))
    sock.settimeout(20)
    print("ready", flush=True)
    for _ in range(int(sys.argv[1])):
        data = sock.recv(2000)
        print(len(data), data[:8].hex(), len(set(data[8:])), flush=True)
"""
BURSTS = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    for burst in range(int(sys.argv[2])):
        head = [burst.to_bytes(4) + part.to_bytes(4) for part in range(20)]
        data = [part + bytes((burst,)) * 492 for part in head] + [bytes(8) + b"x" * 92]
        sock.sendmsg(data, [(17, 103, (500).to_bytes(2, sys.byteorder))], 0, (sys.argv[1], 7001))
        time.sleep(0.002)
"""


class Pair:
    """The namespaces, and what runs in them."""

    def __init__(self, engine: str, names: tuple[str, ...]) -> None:
        self.engine = engine
        self.ha, self.ga, self.gb, self.hb = names
        self.summaries: list[str] = []
        self.told: list[IO[str]] = []

    def notices(self, side: int = 0) -> list[str]:
        """What one engine has told of so far."""
        self.told[side].seek(0)
        return self.told[side].read().splitlines()

    def path_mtus(self, side: int = 0) -> list[str]:
        """The MTUs that it has learned."""
        return [notice for notice in self.notices(side) if notice.startswith("PathMtu")]

    def run(self, namespace: str, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", namespace, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def ping(self, namespace: str, target: str, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run(namespace, "ping", "-c", "3", "-i", "0.05", "-W", "10", *options, target)

    def received(self, gateway: str) -> int:
        """How many packets its TUN was given, each joined one once."""
        told = self.run(gateway, "cat", "/proc/net/dev").stdout
        return next(int(line.split()[2]) for line in told.splitlines() if line.strip().startswith("bench0:"))

    def bursts(self, source: str, sink: str, target: str, count: int) -> list[str]:
        """Send so many bursts of 21 datagrams, the last of them shorter; what arrived of each, in order."""
        words = ["ip", "netns", "exec", sink, sys.executable, "-c", LISTENER, str(21 * count)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as listener:
            try:
                assert listener.stdout is not None
                assert listener.stdout.readline() == "ready\n"
                sender = self.run(source, sys.executable, "-c", BURSTS, target, str(count))
                assert sender.returncode == 0, sender.stderr
                return listener.stdout.read().splitlines()
            finally:
                listener.kill()

    def transfer(self, source: str, sink: str, target: str) -> None:
        """Send SIZE bytes by TCP and compare what arrived."""
        with subprocess.Popen(
            ["ip", "netns", "exec", sink, sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
                client = self.run(source, sys.executable, "-c", CLIENT, target, str(SIZE))
                assert client.returncode == 0, client.stderr
                total, digest = server.stdout.readline().split()
            finally:
                server.kill()
        assert int(total) == SIZE
        assert digest == hashlib.sha256(random.Random(1).randbytes(SIZE)).hexdigest()


@contextmanager
def running(pair: Pair, suite: str, version: int, udp: bool) -> Iterator[None]:
    """Both gateways' engines."""
    children: list[subprocess.Popen[str]] = []
    with ExitStack() as files:
        try:
            for side, name in enumerate((pair.ga, pair.gb)):
                words = [sys.executable, str(ENGINE), "gateway", str(side), suite, str(version)]
                pair.told.append(files.enter_context(TemporaryFile("w+")))
                child = subprocess.Popen(
                    ["ip", "netns", "exec", name, *words, "udp" if udp else "raw", pair.engine],
                    stdout=subprocess.PIPE,
                    stderr=pair.told[-1],
                    text=True,
                )
                children.append(child)
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n", pair.notices(side)
            yield
        finally:
            for child in children:
                child.send_signal(signal.SIGTERM)
                assert child.stdout is not None
                pair.summaries.append(child.stdout.read())
                child.stdout.close()
                child.wait()


@contextmanager
def engines(engine: str, suite: str, version: int, udp: bool) -> Iterator[Pair]:
    with topology(version) as names:
        pair = Pair(engine, names)
        with running(pair, suite, version, udp):
            yield pair


@pytest.mark.parametrize(
    ("suite", "version", "udp"),
    [
        ("aes-128-gcm", 4, True),
        ("aes-128/sha256", 4, False),
        ("chacha20-poly1305", 6, True),
        ("aes-256/sha512", 6, False),
    ],
)
def test_traffic_between_gateways_and_between_hosts(engine: str, suite: str, version: int, udp: bool) -> None:
    with engines(engine, suite, version, udp) as pair:
        for namespace, target in ((pair.ga, INNER[1]), (pair.hb, HOSTS[0])):
            assert pair.ping(namespace, target).returncode == 0
            # Larger than the tunnel carries at once: fragments inside, with DF clear.
            assert pair.ping(namespace, target, "-s", "4000", "-M", "dont").returncode == 0
        # Destined to the gateway itself, the kernel verifies the joined checksum; forwarded, the engine does.
        pair.transfer(pair.ga, pair.gb, INNER[1])
        pair.transfer(pair.ha, pair.hb, HOSTS[1])
        pair.transfer(pair.gb, pair.ga, INNER[0])
    assert all("dropped {}" in summary for summary in pair.summaries), pair.summaries


@pytest.mark.parametrize("udp", [True, False], ids=["udp", "raw"])
def test_datagrams_are_joined_and_arrive_as_they_were(engine: str, udp: bool) -> None:
    """To the gateway itself and to a host behind it; what a kernel before 6.2 gets is not joined."""
    last = "100 " + "0" * 16 + " 1"
    bursts = [[f"500 {burst:08x}{part:08x} 1" for part in range(20)] for burst in range(30)]
    sent = [line for burst in bursts for line in (*burst, last)]
    version = tuple(map(int, os.uname().release.split(".")[:2]))
    with engines(engine, "aes-128-gcm", 4, udp) as pair:
        for source, sink, target in ((pair.ga, pair.gb, INNER[1]), (pair.ha, pair.hb, HOSTS[1])):
            before = pair.received(pair.gb)
            assert pair.bursts(source, sink, target, 30) == sent
            written = pair.received(pair.gb) - before
            assert (written < len(sent) // 3) == (version >= (6, 2)), written
    assert all("dropped {}" in summary for summary in pair.summaries), pair.summaries


def test_a_host_that_sends_too_much_with_df_is_told(engine: str) -> None:
    with engines(engine, "aes-128-gcm", 4, True) as pair:
        answer = pair.ping(pair.ha, HOSTS[1], "-s", "1472", "-M", "do")
        assert answer.returncode != 0
        assert "mtu" in (answer.stdout + answer.stderr).lower()
        assert pair.ping(pair.ha, HOSTS[1], "-s", "1400", "-M", "do").returncode == 0


FORGED = """
import socket, struct, sys
from ipaddress import ip_address
from vpnd.wire.ip import checksum, encode_ipv4, encode_ipv6
source, destination, protocol, spi, mtu = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
esp = struct.pack("!II", spi, 1) + bytes(600)
payload = struct.pack("!HHHH", 4500, 4500, 8 + len(esp), 0) + esp if protocol == 17 else esp
here, there = ip_address(source), ip_address(destination)
if here.version == 4:
    quoted = encode_ipv4(here, there, protocol, payload)[:576 - 28]
    message = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) as icmp:
        icmp.sendto(message, (source, 0))
else:
    quoted = encode_ipv6(here, there, protocol, payload)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58) as icmp:
        icmp.sendto(struct.pack("!BBHI", 2, 0, 0, mtu) + quoted, (source, 0))
"""


@contextmanager
def outer_lengths(pair: Pair) -> Iterator[list[int]]:
    """The lengths of the packets that `ga` sends to `gb` outside, as the far end of its link sees them."""
    lengths: list[int] = []
    words = ["ip", "netns", "exec", pair.gb, sys.executable, "-c", SNIFFER]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as sniffer:
        assert sniffer.stdout is not None
        assert sniffer.stdout.readline() == "ready\n"
        try:
            yield lengths
        finally:
            sniffer.send_signal(signal.SIGTERM)
            lengths += map(int, sniffer.stdout.read().split())


SNIFFER = """
import signal, socket
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as packets:
    packets.bind(("wan", 0))
    # What has arrived by then is shown: the end interrupts nothing between a packet and its line.
    signal.signal(signal.SIGTERM, lambda *_: packets.setblocking(False))
    packets.settimeout(0.05)
    print("ready", flush=True)
    while True:
        try:
            data, (_, _, kind, *_) = packets.recvfrom(1 << 16)
        except TimeoutError:
            continue
        except BlockingIOError:
            break
        if kind != socket.PACKET_OUTGOING:
            print(len(data), flush=True)
"""


@pytest.mark.parametrize("udp", [True, False], ids=["udp", "raw"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_forged_report_of_a_small_path_changes_nothing(engine: str, version: int, udp: bool) -> None:
    """A sender that cannot see our packets does not know the SPI, and the kernel's belief has no say."""
    ours, theirs, _ = OUTER[version]
    with engines(engine, "aes-128-gcm", version, udp) as pair:
        assert pair.ping(pair.ga, INNER[1], "-s", "1300").returncode == 0

        def report(spi: int) -> None:
            words = [sys.executable, "-c", FORGED, ours, theirs, "17" if udp else "50", str(spi), "1290"]
            sent = pair.run(pair.gb, *words)
            assert sent.returncode == 0, sent.stderr

        def longest() -> int:
            # One at a time: two that leave together are seen as one, which the kernel has not cut yet.
            with outer_lengths(pair) as lengths:
                assert pair.ping(pair.ga, INNER[1], "-c", "1", "-s", "1300").returncode == 0
            return max(lengths)

        before = longest()
        assert before > 1300
        for spi in (0x9999, SPIS[0]):
            report(spi)
        assert longest() == before
        assert pair.path_mtus() == []
        # The same with the SPI of a live SA is what a router on the way says.
        report(SPIS[1])
        until(lambda: bool(pair.path_mtus()))
        assert all("mtu=1290" in notice for notice in pair.path_mtus())


def until(condition: Callable[[], bool]) -> None:
    """Wait for it, at most 20 s."""
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


ROUTER = {4: "203.0.113.1", 6: "2001:db8:52::1"}
INNER_V6 = ("fd00:91:1::1", "fd00:91:2::1")


@contextmanager
def narrow_path(
    engine: str, mtu: int, reports: bool = True, version: int = 4, udp: bool = True
) -> Iterator[Pair]:
    """ga - r - gb: the second link is narrow; without `reports` the ICMP errors of the router are lost."""
    prefix = f"vpndpath{os.getpid()}"
    ga, r, gb = (f"{prefix}-{name}" for name in ("ga", "r", "gb"))
    pair = Pair(engine, (ga, ga, gb, gb))
    router, bits = ROUTER[version], 32 if version == 4 else 128
    once = () if version == 4 else ("nodad",)

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        for name in (ga, r, gb):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        settings = {"net.ipv4.ip_forward": 1, "net.ipv4.icmp_ratemask": 0, "net.ipv6.conf.all.forwarding": 1}
        for key, value in settings.items():
            pair.run(r, "sysctl", "-qw", f"{key}={value}")
        for side, (gateway, link) in enumerate(((ga, "w0"), (gb, "w1"))):
            first, second, _ = OUTER[version]
            ours, theirs = (second, first) if side else (first, second)
            ip("link", "add", "wan", "netns", gateway, "type", "veth", "peer", "name", link, "netns", r)
            ip("-n", gateway, "link", "set", "wan", "up")
            ip("-n", r, "link", "set", link, "up")
            ip("-n", gateway, "addr", "add", f"{ours}/{bits}", "dev", "wan", *once)
            ip("-n", gateway, "route", "add", router, "dev", "wan")
            ip("-n", gateway, "route", "add", theirs, "via", router, "dev", "wan")
            ip("-n", r, "addr", "add", f"{router}/{bits}", "dev", link, *once)
            ip("-n", r, "route", "add", ours, "dev", link)
            for address in (f"{INNER[side]}/32", f"{INNER_V6[side]}/128"):
                ip("-n", gateway, "addr", "add", address, "dev", "lo")
        for name, link in ((r, "w1"), (gb, "wan")):
            ip("-n", name, "link", "set", link, "mtu", str(mtu))
        if not reports:
            ip("-n", r, "rule", "add", "pref", "1", "iif", "lo", "blackhole")
        with running(pair, "aes-128-gcm", version, udp):
            for side, gateway in enumerate((ga, gb)):
                ip("-n", gateway, "route", "add", INNER_V6[1 - side], "dev", "bench0", "src", INNER_V6[side])
            yield pair
    finally:
        for name in (ga, r, gb):
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.parametrize("udp", [True, False], ids=["udp", "raw"])
@pytest.mark.parametrize("reports", [True, False])
def test_a_narrow_path_is_found_and_a_black_hole_is_passed(engine: str, reports: bool, udp: bool) -> None:
    """A router fragments what is too large; where its ICMP arrives, the path's MTU becomes known."""
    with narrow_path(engine, 1400, reports, udp=udp) as pair:
        assert pair.ping(pair.ga, INNER[1]).returncode == 0
        pair.transfer(pair.ga, pair.gb, INNER[1])
        pair.transfer(pair.gb, pair.ga, INNER[0])
        told = pair.path_mtus()
    if reports:
        assert told
        assert all("mtu=1400" in notice for notice in told)
    else:
        assert told == []


@pytest.mark.parametrize("udp", [True, False], ids=["udp", "raw"])
def test_a_narrow_path_of_ipv6_is_found(engine: str, udp: bool) -> None:
    """Its routers fragment nothing: what must not be cut inside goes in fragments from here."""
    with narrow_path(engine, 1300, version=6, udp=udp) as pair:
        assert pair.ping(pair.ga, INNER[1]).returncode == 0
        pair.transfer(pair.ga, pair.gb, INNER[1])
        assert pair.path_mtus()
        assert all("mtu=1300" in notice for notice in pair.path_mtus())
        # An inner IPv6 packet of 1280 bytes fits every link, this one as well.
        assert pair.ping(pair.ga, INNER_V6[1], "-s", str(1280 - 48)).returncode == 0


@pytest.mark.parametrize("udp", [True, False], ids=["udp", "raw"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_narrow_interface_is_found(engine: str, version: int, udp: bool) -> None:
    """The kernel's own word needs no SPI; nothing is lost until it is known."""
    with engines(engine, "aes-128-gcm", version, udp) as pair:
        for name in (pair.ga, pair.gb):
            subprocess.run(["ip", "-n", name, "link", "set", "wan", "mtu", "1300"], check=True)
        assert pair.ping(pair.ha, HOSTS[1], "-s", "1300").returncode == 0
        pair.transfer(pair.ha, pair.hb, HOSTS[1])
        assert pair.path_mtus()
        assert all("mtu=1300" in notice for notice in pair.path_mtus())


def test_a_tun_that_is_deleted_is_told_once(engine: str) -> None:
    with engines(engine, "aes-128-gcm", 4, True) as pair:
        assert pair.ping(pair.ga, INNER[1]).returncode == 0
        subprocess.run(["ip", "-n", pair.ga, "link", "del", "bench0"], check=True)
        until(lambda: bool(pair.notices()))
        assert pair.notices() == ["TunLost(tunnel='t')"]
