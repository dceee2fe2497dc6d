"""How fast the datapath is: one transform at a time, and two engines with iperf3 between them.

    bench/engine.py micro                      nanoseconds a packet to seal and to open, by suite and batch
    sudo bench/engine.py pair aes-128/sha256   two engines with fixed keys in namespaces of their own: TCP
                                               rate, CPU time, ping; see --help for what can be varied

No IKE is involved. `--forward` puts a host behind each gateway, so that packets are forwarded; `--plain`
moves bytes without a tunnel, for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path as FilePath

sys.path.insert(0, str(FilePath(__file__).resolve().parent.parent))

from vpnd.crypto.entropy import OsEntropy
from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES
from vpnd.datapath.engines import choose
from vpnd.datapath.esp import make_opener, make_sealer
from vpnd.datapath.interface import EngineOptions, Notice, PathMtu, PolicyRow
from vpnd.datapath.mtu import inner_mtu
from vpnd.host.tun import open_tun
from vpnd.model.child import ChildSa, EspKeys, Path
from vpnd.model.policy import EngineChoice, Lifetimes
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret
from vpnd.model.selectors import Selector

PREFIX = "vpndbench"
OUTER = {4: ("198.51.100.1", "198.51.100.2", 24), 6: ("2001:db8:51::1", "2001:db8:51::2", 64)}
INNER = ("10.91.1.1", "10.91.2.1")
HOSTS = ("10.91.1.2", "10.91.2.2")
SPIS = (0x1000, 0x2000)
SUITES = (
    "aes-128/sha256",
    "aes-128/sha1",
    "aes-256/sha512",
    "aes-128-gcm",
    "chacha20-poly1305",
    "3des/sha1",
    "sm4/sm3",
)


def suite_of(text: str) -> Suite:
    encryption, _, integrity = text.partition("/")
    return Suite(encryption, None, integrity or None, None)


def keys_of(suite: Suite, label: int) -> EspKeys:
    """Keys that both processes derive from a number: this is a benchmark."""
    cipher = ENCRYPTIONS[suite.encryption]
    mac = INTEGRITIES[suite.integrity].key_length if suite.integrity else 0
    return EspKeys(
        Secret(bytes((label + i) % 256 for i in range(cipher.key_length))),
        Secret(bytes((label + 100 + i) % 256 for i in range(mac))),
        Secret(bytes((label + 200 + i) % 256 for i in range(cipher.salt_length))),
    )


# ------------------------------------------------------------------------------------- micro


def micro(batches: tuple[int, ...] = (1, 16, 44), size: int = 1400) -> None:
    """Print nanoseconds a packet, the best of several short runs."""
    print(
        f"{'suite':22}"
        + "".join(f"{f'seal x{b}':>10}{f'open x{b}':>10}" for b in batches)
        + f"   ns, {size} bytes"
    )
    for name in SUITES:
        suite = suite_of(name)
        keys = keys_of(suite, 1)
        row = f"{name:22}"
        for batch in batches:
            sealer, opener = make_sealer(suite, keys, 0x1000, OsEntropy()), make_opener(suite, keys)
            packets = [bytes(10) + os.urandom(size)] * batch
            data = b"".join(sealer.seal(packets, 10, 1, 4))
            length = sealer.sealed_length(size)
            sequences = list(range(1, batch + 1))
            row += f"{best(lambda: sealer.seal(packets, 10, 1, 4), batch):10.0f}"  # noqa: B023 (called at once)
            row += f"{best(lambda: opener.open(data, 0, length, batch, sequences), batch):10.0f}"  # noqa: B023 (called at once)
        print(row)


def best(call: object, batch: int) -> float:
    assert callable(call)
    rounds = max(1, 2000 // batch)
    fastest = float("inf")
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(rounds):
            call()
        fastest = min(fastest, time.perf_counter() - start)
        if fastest > 0.2:
            break
    return fastest / rounds / batch * 1e9


# -------------------------------------------------------------------------------------- pair


def run(*words: str, check: bool = True) -> str:
    return subprocess.run(words, check=check, capture_output=True, text=True).stdout


@contextmanager
def topology(version: int) -> Iterator[tuple[str, ...]]:
    """ha - ga == gb - hb: two gateways and a host behind each; taken down whatever happens."""
    names = tuple(f"{PREFIX}{os.getpid()}-{n}" for n in ("ha", "ga", "gb", "hb"))
    ha, ga, gb, hb = names
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for left, right, lname, rname in (
            (ga, gb, "wan", "wan"),
            (ha, ga, "lan", "lan"),
            (gb, hb, "lan", "lan"),
        ):
            run(
                "ip",
                "link",
                "add",
                lname,
                "netns",
                left,
                "type",
                "veth",
                "peer",
                "name",
                rname,
                "netns",
                right,
            )
            run("ip", "-n", left, "link", "set", lname, "up")
            run("ip", "-n", right, "link", "set", rname, "up")
        first, second, bits = OUTER[version]
        extra = ("nodad",) if version == 6 else ()
        run("ip", "-n", ga, "addr", "add", f"{first}/{bits}", "dev", "wan", *extra)
        run("ip", "-n", gb, "addr", "add", f"{second}/{bits}", "dev", "wan", *extra)
        for gateway, host, ours, theirs in ((ga, ha, INNER[0], HOSTS[0]), (gb, hb, INNER[1], HOSTS[1])):
            run("ip", "-n", gateway, "addr", "add", f"{ours}/24", "dev", "lan")
            run("ip", "-n", host, "addr", "add", f"{theirs}/24", "dev", "lan")
            run("ip", "-n", host, "route", "add", "default", "via", ours)
        yield names
    finally:
        for name in names:
            run("ip", "netns", "del", name, check=False)


def gateway(side: int, suite_name: str, version: int, udp: bool, choice: str) -> None:
    """One engine, until SIGTERM; runs within its namespace."""
    suite = suite_of(suite_name)
    loop = asyncio.new_event_loop()
    ours, theirs = OUTER[version][side], OUTER[version][1 - side]
    local = ip_address(ours)
    mtu = inner_mtu(1500, suite, udp, version)

    def notice(value: Notice) -> None:
        print(value, file=sys.stderr, flush=True)
        if isinstance(value, PathMtu):
            engine.set_mtu("t", value.mtu)

    make = choose(EngineChoice(choice))
    engine = make(loop, [local], lambda path, data: None, notice, EngineOptions())
    tun = open_tun("bench0")
    segments = ("gso_max_segs", str(engine.segments))
    run("ip", "link", "set", "bench0", "up", "mtu", str(mtu), "txqueuelen", "10000", *segments)
    source = ("src", INNER[side])
    run("ip", "route", "add", f"{INNER[1 - side]}/24".replace(".1/24", ".0/24"), "dev", "bench0", *source)
    everything = (Selector.of(ip_network("0.0.0.0/0")), Selector.of(ip_network("::/0")))
    engine.add_tunnel("t", tun.fd, mtu)
    engine.replace_policies("t", (PolicyRow(0, everything, everything),))
    engine.install(
        ChildSa(
            "t", 0, SPIS[side], SPIS[1 - side], suite, keys_of(suite, side), keys_of(suite, 1 - side),
            everything, everything, Path(local, 4500, ip_address(theirs), 4500), udp,
            Lifetimes(3600), side == 0,
        )
    )  # fmt: skip
    loop.add_signal_handler(signal.SIGTERM, loop.stop)
    print("ready", flush=True)
    before = os.times()
    if os.environ.get("BENCH_PROFILE"):
        import cProfile

        profile = cProfile.Profile()
        profile.runcall(loop.run_forever)
        profile.dump_stats(f"{os.environ['BENCH_PROFILE']}.{side}")
    else:
        loop.run_forever()
    used = os.times()
    cpu = used.user + used.system - before.user - before.system
    stats = engine.stats(SPIS[side])
    assert stats is not None
    packets = max(stats.packets_in, stats.packets_out, 1)
    drops = {drop.name: count for drop, count in engine.drops("t").items() if count}
    print(
        f"{packets} packets, {cpu:.2f} s of CPU, {cpu / packets * 1e6:.2f} us each, dropped {drops}",
        flush=True,
    )
    engine.close()
    loop.close()


def pair(arguments: argparse.Namespace) -> None:
    """Two engines, iperf3 and ping between them."""
    version = 6 if arguments.ipv6 else 4
    with topology(version) as (ha, ga, gb, hb):
        engines = []
        if not arguments.plain:
            for side, name in enumerate((ga, gb)):
                words = [sys.executable, __file__, "gateway", str(side), arguments.suite, str(version)]
                words += ["raw" if arguments.raw else "udp", arguments.engine]
                child = subprocess.Popen(
                    ["ip", "netns", "exec", name, *words], stdout=subprocess.PIPE, text=True
                )
                engines.append(child)
            for child in engines:
                assert child.stdout is not None
                assert child.stdout.readline().strip() == "ready"
        server, client = (hb, ha) if arguments.forward else (gb, ga)
        target = HOSTS[1] if arguments.forward else OUTER[version][1] if arguments.plain else INNER[1]
        try:
            measure(arguments, server, client, target)
        finally:
            for side, child in enumerate(engines):
                child.send_signal(signal.SIGTERM)
                assert child.stdout is not None
                print(f"  gateway {side}:", child.stdout.read().strip())
                child.wait()


def measure(arguments: argparse.Namespace, server: str, client: str, target: str) -> None:
    listener = subprocess.Popen(
        ["ip", "netns", "exec", server, "iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(0.5)
        words = ["iperf3", "-c", target, "-t", str(arguments.seconds), "-J", "-P", str(arguments.streams)]
        words += ["-R"] if arguments.reverse else []
        words += ["-u", "-b", arguments.udp_rate, "-l", str(arguments.size)] if arguments.udp_rate else []
        for _ in range(arguments.runs):
            answer = json.loads(run("ip", "netns", "exec", client, *words, check=False))
            if "error" in answer:
                print("  iperf3:", answer["error"])
                continue
            total = answer["end"].get("sum_received") or answer["end"]["sum"]
            rate = total["bits_per_second"] / 1e9
            lost = f", lost {answer['end']['sum'].get('lost_percent', 0):.2f} %" if arguments.udp_rate else ""
            again = answer["end"].get("sum_sent", {}).get("retransmits", 0)
            print(f"  {rate:.2f} Gbit/s{lost}, {again} retransmits")
        idle = run(
            "ip", "netns", "exec", client, "ping", "-c", "200", "-i", "0.005", "-q", target, check=False
        )
        print(" ", *idle.strip().splitlines()[-2:])
    finally:
        listener.terminate()
        listener.wait()


def main() -> None:
    if sys.argv[1:2] == ["gateway"]:
        gateway(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5] == "udp", sys.argv[6])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("micro")
    both = commands.add_parser("pair")
    both.add_argument("suite")
    for flag in ("raw", "ipv6", "reverse", "forward", "plain"):
        both.add_argument(f"--{flag}", action="store_true")
    both.add_argument("--engine", choices=[choice.value for choice in EngineChoice], default="auto")
    both.add_argument("--seconds", type=int, default=4)
    both.add_argument("--runs", type=int, default=1)
    both.add_argument("--streams", type=int, default=1)
    both.add_argument("--udp-rate", default="")
    both.add_argument("--size", type=int, default=1400)
    arguments = parser.parse_args()
    if arguments.command == "micro":
        micro()
    else:
        print(f"{arguments.suite}:")
        pair(arguments)


if __name__ == "__main__":
    main()
