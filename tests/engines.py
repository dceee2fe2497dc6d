"""Both engines, for tests that speak of what an engine does and not of how: `engine` runs them on each.

A test that takes this fixture, or whose file has it for all of its tests, runs once for each name. Where the
native engine is not built it is skipped with the reason; with CI=true that is a failure. The end of a run
says how many tests each engine has had.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib import import_module, invalidate_caches
from typing import Any, cast

import pytest

from tests.requirements import require
from vpnd.crypto.entropy import Entropy, chance
from vpnd.datapath.carrier import PythonCarrier
from vpnd.datapath.engines import NATIVE as NATIVE_MODULE
from vpnd.datapath.engines import EngineUnavailable, Maker, choose
from vpnd.datapath.interface import (
    Acquire,
    Carried,
    Carrier,
    Datagram,
    Drop,
    HardLimit,
    Notice,
    PathMtu,
    PeerMoved,
    PeerSends,
    PolicyRow,
    SaStats,
    SoftLimit,
    Train,
    UnknownSpi,
)
from vpnd.model.child import ChildSa, Path
from vpnd.model.policy import EngineChoice
from vpnd.model.selectors import Address

PYTHON, NATIVE = "python", "native"
ENGINES = (PYTHON, NATIVE)
THREADS = "native, one thread a direction"
"""Not one of those that tests run on by themselves: nothing in the daemon uses it yet."""


BUILDING = "VPND_ENGINE_BUILDING"
"""Names a file that is there while `make test` builds the native engine."""


def missing_for_native() -> str | None:
    """Why tests of the native engine cannot run here, or None. It may be under construction: then wait."""
    while os.path.exists(os.environ.get(BUILDING, "")):
        time.sleep(0.2)
    invalidate_caches()
    try:
        choose(EngineChoice.NATIVE)
    except EngineUnavailable as unavailable:
        return str(unavailable)
    return None


class NativeModule:
    """`vpnd_engine`, imported when a test asks for one of its parts: it may not be there before."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(NATIVE_MODULE), name)


def maker(engine: str) -> Maker:
    """What makes an engine on an event loop."""
    if engine == THREADS:
        return partial(NativeModule().NativeEngine, threads=True)
    return choose(EngineChoice(engine))


def carrier(engine: str, entropy: Entropy) -> Carrier:
    """An engine without input and output."""
    return NativeCarrier(entropy) if engine == NATIVE else PythonCarrier(entropy)


class NativeCarrier:
    """`vpnd_engine.Engine` with the interface's types."""

    def __init__(self, entropy: Entropy) -> None:
        self._engine: Any = import_module(NATIVE_MODULE).Engine()
        self._entropy = entropy
        self._tunnels: list[str] = []
        self._headers = False
        self._children: dict[int, ChildSa] = {}

    def add_tunnel(self, tunnel: str, vnet_header: bool, joins_udp: bool = False) -> None:
        self._engine.add_tunnel(tunnel, vnet_header)
        self._engine.join_udp(tunnel, joins_udp)
        self._tunnels.append(tunnel)
        self._headers = vnet_header

    def remove_tunnel(self, tunnel: str) -> None:
        self._engine.remove_tunnel(tunnel)
        if tunnel in self._tunnels:
            self._tunnels.remove(tunnel)

    def set_own(self, addresses: Sequence[Address]) -> None:
        self._engine.set_own(list(addresses))

    def set_mtu(self, tunnel: str, path_mtu: int) -> None:
        self._engine.set_mtu(tunnel, path_mtu)

    def set_limits(self, tunnel: str, mtu: int | None, mss: int | None) -> None:
        self._engine.set_limits(tunnel, mtu, mss)

    def replace_policies(self, tunnel: str, rows: tuple[PolicyRow, ...]) -> None:
        self._engine.replace_policies(tunnel, list(rows))

    def interrupt(self, tunnel: str, interrupted: bool, keep: tuple[Address, ...] = ()) -> None:
        self._engine.interrupt(tunnel, list(keep) if interrupted else None)

    def answer_probes(self, tunnel: str, local: Address, remote: Address) -> None:
        self._engine.answer_probes(tunnel, local, remote)

    def install(self, now: float, child: ChildSa, outbound: bool = True) -> Carried:
        limits: tuple[int, int] | tuple[None, None] = (None, None)
        if child.lifetimes.kilobytes is not None:
            limits = self._limits(child, child.lifetimes.kilobytes)
        seed = self._entropy.bytes(32)
        writes, ike, sent = self._engine.install(now, child, limits, seed, outbound)
        self._children[child.spi_in] = child
        return self._carried(child.tunnel, sent, writes, ike)

    def use_outbound(self, now: float, spi_in: int) -> Carried:
        child = self._children.get(spi_in)
        return self._carried(child.tunnel if child else "", self._engine.use_outbound(now, spi_in))

    def limit(self, spi_in: int, kilobytes: int) -> None:
        if (child := self._children.get(spi_in)) is not None:
            self._engine.limit(spi_in, *self._limits(child, kilobytes))

    def remove(self, spi_in: int) -> None:
        self._engine.remove(spi_in)
        self._children.pop(spi_in, None)

    def move(self, spi_in: int, path: Path) -> None:
        if (child := self._children.get(spi_in)) is not None:
            self._engine.move(spi_in, path, child.udp)

    def send(self, now: float, tunnel: str, packets: Sequence[bytes]) -> Carried:
        return self._carried(tunnel, self._engine.send(now, tunnel, list(packets)))

    def receive(self, now: float, datagrams: Sequence[Datagram], local: Address, port: int) -> Carried:
        writes, ike, sent = self._engine.receive(now, list(datagrams), port)
        return self._carried("", sent, writes, ike)

    def believe(self, now: float, remote: Address, port: int, mtu: int, quote: bytes | None) -> None:
        self._engine.believe(now, remote, port, mtu, quote)

    def take_notices(self) -> list[Notice]:
        return [notice_of(*told) for told in self._engine.take_notices()]

    def stats(self, spi_in: int) -> SaStats | None:
        counted = self._engine.stats(spi_in)
        return None if counted is None else SaStats(*counted)

    def take_heard(self) -> dict[str, float]:
        return self._times(self._engine.take_heard)

    def take_sent(self) -> dict[str, float]:
        return self._times(self._engine.take_sent)

    def drops(self, tunnel: str | None = None) -> dict[Drop, int]:
        return dict(zip(Drop, self._engine.drops(tunnel), strict=True))

    # ------------------------------------------------------------------------------- inside

    def _times(self, take: Any) -> dict[str, float]:
        times = {tunnel: take(tunnel) for tunnel in self._tunnels}
        return {tunnel: at for tunnel, at in times.items() if at is not None}

    def _limits(self, child: ChildSa, kilobytes: int) -> tuple[int, int]:
        hard = kilobytes * 1024
        return int(child.lifetimes.margin.soft(hard, chance(self._entropy))), hard

    def _carried(self, tunnel: str, sent: Any, writes: Any = (), ike: Any = ()) -> Carried:
        trains, answers = sent
        head = bytes(10) if self._headers else b""
        written = [*writes, *((tunnel, head + answer) for answer in answers)]
        return Carried([Train(*train) for train in trains], written, list(ike))


_NOTICES = {
    kind.__name__: kind for kind in (Acquire, SoftLimit, HardLimit, UnknownSpi, PeerSends, PeerMoved, PathMtu)
}


def notice_of(name: str, *fields: Any) -> Notice:
    """A notice of `vpnd_engine.Engine` as the interface has it."""
    told = [Path(*field) if isinstance(field, tuple) else field for field in fields]
    kind: Any = _NOTICES[name]
    return cast(Notice, kind(*told))


# --------------------------------------------------------------------------------- in pytest


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn, by its name."""
    name: str = request.param
    if name == NATIVE:
        require(missing_for_native())
    return name


@pytest.fixture
def on_each_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `Gateway` and `Carrying` of the test is of this engine."""
    from tests.unit.datapath.parts import Gateway

    monkeypatch.setattr(Gateway, "engine", engine)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    name = engine_of(item)
    if name is not None:
        item.user_properties.append(("engine", name))


def engine_of(item: pytest.Item) -> str | None:
    """The engine that a test runs on, if it is one of those that run on each."""
    callspec = getattr(item, "callspec", None)
    name = callspec.params.get("engine") if callspec is not None else None
    return name if name in ENGINES else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests each engine has had."""
    told = []
    for name in ENGINES:
        counts: Counter[str] = Counter()
        for outcome in ("passed", "failed", "skipped"):
            for report in terminalreporter.getreports(outcome):
                is_last = report.when == "call" or outcome != "passed"
                if is_last and ("engine", name) in getattr(report, "user_properties", ()):
                    counts[outcome] += 1
        if counts:
            told.append(f"{name} engine: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    if told:
        terminalreporter.write_line("; ".join(told))
