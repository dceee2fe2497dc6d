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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.engine import HOSTS, INNER, topology

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/net/tun").exists(), reason="needs root and TUN"),
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


class Pair:
    """The namespaces, and what runs in them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.ha, self.ga, self.gb, self.hb = names
        self.summaries: list[str] = []

    def run(self, namespace: str, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", namespace, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    def ping(self, namespace: str, target: str, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run(namespace, "ping", "-c", "3", "-i", "0.05", "-W", "10", *options, target)

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
def engines(suite: str, version: int, udp: bool) -> Iterator[Pair]:
    with topology(version) as names:
        pair = Pair(names)
        children = []
        try:
            for side, name in enumerate((pair.ga, pair.gb)):
                words = [sys.executable, str(ENGINE), "gateway", str(side), suite, str(version)]
                child = subprocess.Popen(
                    ["ip", "netns", "exec", name, *words, "udp" if udp else "raw"],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                children.append(child)
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
            yield pair
        finally:
            for child in children:
                child.send_signal(signal.SIGTERM)
                assert child.stdout is not None
                pair.summaries.append(child.stdout.read())
                child.stdout.close()
                child.wait()


@pytest.mark.parametrize(
    ("suite", "version", "udp"),
    [
        ("aes-128-gcm", 4, True),
        ("aes-128/sha256", 4, False),
        ("chacha20-poly1305", 6, True),
        ("aes-256/sha512", 6, False),
    ],
)
def test_traffic_between_gateways_and_between_hosts(suite: str, version: int, udp: bool) -> None:
    with engines(suite, version, udp) as pair:
        for namespace, target in ((pair.ga, INNER[1]), (pair.hb, HOSTS[0])):
            assert pair.ping(namespace, target).returncode == 0
            # Larger than the tunnel carries at once: fragments inside, with DF clear.
            assert pair.ping(namespace, target, "-s", "4000", "-M", "dont").returncode == 0
        # Destined to the gateway itself, the kernel verifies the joined checksum; forwarded, the engine does.
        pair.transfer(pair.ga, pair.gb, INNER[1])
        pair.transfer(pair.ha, pair.hb, HOSTS[1])
        pair.transfer(pair.gb, pair.ga, INNER[0])
    assert all("dropped {}" in summary for summary in pair.summaries), pair.summaries


def test_a_host_that_sends_too_much_with_df_is_told() -> None:
    with engines("aes-128-gcm", 4, True) as pair:
        answer = pair.ping(pair.ha, HOSTS[1], "-s", "1472", "-M", "do")
        assert answer.returncode != 0
        assert "mtu" in (answer.stdout + answer.stderr).lower()
        assert pair.ping(pair.ha, HOSTS[1], "-s", "1400", "-M", "do").returncode == 0


def test_small_outer_links_are_no_obstacle() -> None:
    """A link below the MTU that the engines believe in: what does not fit is fragmented outside, and told."""
    with engines("aes-128-gcm", 4, True) as pair:
        for name in (pair.ga, pair.gb):
            subprocess.run(["ip", "-n", name, "link", "set", "wan", "mtu", "1300"], check=True)
        assert pair.ping(pair.ha, HOSTS[1], "-s", "1300").returncode == 0
        pair.transfer(pair.ha, pair.hb, HOSTS[1])


@contextmanager
def narrow_path(mtu: int, reports: bool) -> Iterator[tuple[Pair, list[str]]]:
    """ga - r - gb: a router whose second link is narrow; without `reports` its ICMP errors are lost."""
    prefix = f"vpndpath{os.getpid()}"
    ga, r, gb = (f"{prefix}-{name}" for name in ("ga", "r", "gb"))
    pair = Pair((ga, ga, gb, gb))

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    children: list[subprocess.Popen[str]] = []
    notices: list[str] = []
    try:
        for name in (ga, r, gb):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for gateway, link, ours, theirs in (
            (ga, "w0", "198.51.100.1", "198.51.100.2"),
            (gb, "w1", "198.51.100.2", "198.51.100.1"),
        ):
            ip("link", "add", "wan", "netns", gateway, "type", "veth", "peer", "name", link, "netns", r)
            ip("-n", gateway, "link", "set", "wan", "up")
            ip("-n", r, "link", "set", link, "up")
            ip("-n", gateway, "addr", "add", f"{ours}/32", "dev", "wan")
            ip("-n", gateway, "route", "add", "203.0.113.1", "dev", "wan")
            ip("-n", gateway, "route", "add", theirs, "via", "203.0.113.1")
            ip("-n", r, "addr", "add", "203.0.113.1/32", "dev", link)
            ip("-n", r, "route", "add", ours, "dev", link)
        ip("-n", r, "link", "set", "w1", "mtu", str(mtu))
        settings = {"net.ipv4.ip_forward": 1, "net.ipv4.icmp_ratemask": 0}
        for key, value in settings.items():
            pair.run(r, "sysctl", "-qw", f"{key}={value}")
        if not reports:
            ip("-n", r, "rule", "add", "pref", "1", "iif", "lo", "blackhole")
        for side, name in enumerate((ga, gb)):
            ip("-n", name, "addr", "add", f"{INNER[side]}/32", "dev", "lo")
            words = [sys.executable, str(ENGINE), "gateway", str(side), "aes-128-gcm", "4", "udp"]
            child = subprocess.Popen(
                ["ip", "netns", "exec", name, *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            children.append(child)
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        yield pair, notices
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
            output, errors = child.communicate()
            pair.summaries.append(output)
            notices += errors.splitlines()
        for name in (ga, r, gb):
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.parametrize("reports", [True, False])
def test_a_narrow_path_is_found_and_a_black_hole_is_passed(reports: bool) -> None:
    """A router fragments what is too large; where its ICMP arrives, the path's MTU becomes known."""
    with narrow_path(1400, reports) as (pair, notices):
        assert pair.ping(pair.ga, INNER[1]).returncode == 0
        pair.transfer(pair.ga, pair.gb, INNER[1])
        pair.transfer(pair.gb, pair.ga, INNER[0])
    told = [notice for notice in notices if notice.startswith("PathMtu")]
    if reports:
        assert told
        assert all("mtu=1400" in notice for notice in told)
    else:
        assert told == []
