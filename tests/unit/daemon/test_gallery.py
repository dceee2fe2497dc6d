"""A gallery of the diagnoses: each code where it can be seen in memory, at both ends and in both versions.

A row has the code at each end, what the advice says, and what was made of it: the change is applied, and the
tunnel comes up or the traffic passes. Then the failure is history. What cannot be played here stands in
`ELSEWHERE`, with the test that shows it.
"""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.tables import TellRow
from tests.unit.daemon.advice import is_new_and_possible, of_the_other
from tests.unit.daemon.fakes import KEY, Machine, configuration
from tests.unit.daemon.pairs import PROVED, Pair, with_pair
from tests.unit.daemon.test_stories import BACK, ROUTED, up
from tests.unit.daemon.test_traffic_watch import SECONDS, carry
from vpnd.config.kept import REASONS_FILE
from vpnd.console.suggestions import proposed
from vpnd.control.diagnoses import explain
from vpnd.control.explanation import About
from vpnd.control.simulation import document, simulate
from vpnd.daemon.kept_reasons import KeptReasons
from vpnd.datapath.interface import Drop, HardLimit, PathMtu
from vpnd.host.forwarding import Passed
from vpnd.host.resolver import NotResolved, Resolver
from vpnd.model.child import Path as NetworkPath
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.selectors import Address
from vpnd.model.unreachable import Unreachable
from vpnd.simulate.negotiation import Outcome, TunnelOutcome
from vpnd.wire.icmp import Echo

TABLE = "gallery of diagnoses"
MAPPED = 'communication = "spd-policy"\nspd = [{{ local = ["{}"], remote = ["{}"] }}]'


@dataclass(frozen=True)
class Case:
    """What differs, the tables of both ends, the code that each has, and the values that both may know.

    A responder of None reports nothing of its own. `mended`: what the tables are after the change, where the
    advice names no key and value; by default that of the peer.
    """

    what: str
    here: str
    there: str
    initiator: str
    responder: str | None
    values: tuple[str, ...] = ()
    versions: tuple[str, ...] = ("ikev2", "ikev1")
    ways: tuple[str, str] = (ROUTED, BACK)
    mended: tuple[str, str] | None = None
    mended_ways: tuple[str, str] | None = None


def ranges(local: str, remote: str) -> str:
    return MAPPED.format(local, remote)


A, B = "10.1.0.0/24", "10.2.0.0/24"
FOUR = 'communication = "spd-policy"\nspd = [{{ local = [{}], remote = ["10.2.0.0/24"] }}]'
LOCALS = ", ".join(f'"10.1.{n}.0/24"' for n in range(4))
SOME = '"10.1.0.0/24", "10.1.2.0/24"'
MIRROR = 'communication = "spd-policy"\nspd = [{{ local = ["10.2.0.0/24"], remote = [{}] }}]'
ASK = 'diagnose = "all"\n'
"""The peer is asked for algorithms that are not configured too, which names its value at the initiator."""
CASES = (
    Case(
        "encryption, not asked for",
        'ike.encryption = "aes-256"',
        'ike.encryption = "aes-128"',
        "E-P1-PROPOSAL",
        "E-P1-ENC",
        ("aes-256",),
        mended=('ike.encryption = "aes-128"',) * 2,
    ),
    Case(
        "encryption",
        ASK + 'ike.encryption = "aes-256"',
        'ike.encryption = "aes-128"',
        "E-P1-ENC",
        "E-P1-ENC",
        ("aes-256", "aes-128"),
    ),
    Case(
        "hash",
        ASK + 'ike.integrity = "sha512"',
        'ike.integrity = "sha256"',
        "E-P1-INTEG",
        "E-P1-INTEG",
        ("sha512", "sha256"),
    ),
    Case("DH group", ASK + "ike.dh_group = 5", "ike.dh_group = 14", "E-P1-DH", "E-P1-DH", ("5", "14")),
    Case("key", "", "KEY", "E-PSK", "E-PSK", mended=("", "")),
    Case(
        "the peer's identity",
        'ike.remote_id = "b.example"',
        'ike.local_id = "c.example"',
        "E-ID",
        None,
        ("b.example", "c.example"),
    ),
    Case(
        "our identity",
        'ike.local_id = "a.example"',
        'ike.remote_id = "d.example"',
        "E-PSK",
        "E-ID",
        ("a.example",),
        ("ikev2",),
        mended=('ike.local_id = "d.example"', 'ike.remote_id = "d.example"'),
    ),
    Case(
        "our identity",
        'ike.local_id = "a.example"',
        'ike.remote_id = "d.example"',
        "E-ID",
        "E-ID",
        ("a.example",),
        ("ikev1",),
        mended=('ike.local_id = "d.example"', 'ike.remote_id = "d.example"'),
    ),
    Case("version", 'ike.version = "ikev1"', 'ike.version = "ikev2"', "E-V1V2", "E-V1V2", (), ("",)),
    Case("version", 'ike.version = "ikev2"', 'ike.version = "ikev1"', "E-V1V2", "E-V1V2", (), ("",)),
    Case(
        "mode",
        'ike.negotiation_mode = "aggressive"',
        "",
        "E-MODE",
        "E-MODE",
        ("main", "aggressive"),
        ("ikev1",),
    ),
    Case(
        "mode",
        "",
        'ike.negotiation_mode = "aggressive"',
        "E-SILENT",
        "E-MODE",
        (),
        ("ikev1",),
        mended=('ike.negotiation_mode = "aggressive"',) * 2,
    ),
    Case("PFS", "ipsec.pfs = 15", "", "E-PFS", None, (), ("ikev2",), mended=("", "")),
    Case(
        "PFS",
        "ipsec.pfs = 15",
        "ipsec.pfs = 14",
        "E-P2-PROPOSAL",
        "E-PFS",
        (),
        ("ikev1",),
        mended=("ipsec.pfs = 14",) * 2,
    ),
    Case("PFS", "", "ipsec.pfs = 14", "W-PFS", None, ("14",), mended=("ipsec.pfs = 14",) * 2),
    Case(
        "two algorithms",
        ASK + 'ike.encryption = "aes-256"\nike.integrity = "sha512"',
        'ike.encryption = "aes-128"\nike.integrity = "sha256"',
        "E-P1-PROPOSAL",
        "E-P1-ENC",
        ("aes-256", "aes-128"),
        mended=('ike.encryption = "aes-128"\nike.integrity = "sha256"',) * 2,
    ),
    Case(
        "ranges narrowed",
        "",
        "",
        "E-NARROW",
        None,
        ("10.2.0.0/24",),
        ("ikev2",),
        ways=(ranges("10.1.0.0/24", "10.2.0.0/16"), ranges("10.2.0.0/24", "10.1.0.0/24")),
        mended_ways=(ranges("10.1.0.0/24", "10.2.0.0/24"), ranges("10.2.0.0/24", "10.1.0.0/24")),
        mended=("", ""),
    ),
    Case(
        "ESP encryption",
        'ipsec.encryption = "aes-256"',
        'ipsec.encryption = "aes-128"',
        "E-P2-PROPOSAL",
        "E-P2-ENC",
        ("aes-256",),
        mended=('ipsec.encryption = "aes-128"',) * 2,
    ),
    Case(
        "ESP hash",
        'ipsec.integrity = "sha512"',
        'ipsec.integrity = "sha256"',
        "E-P2-PROPOSAL",
        "E-P2-INTEG",
        ("sha512",),
        mended=('ipsec.integrity = "sha256"',) * 2,
    ),
    Case(
        "sequence numbers",
        'ipsec.esn = "yes"',
        'ipsec.esn = "no"',
        "E-P2-PROPOSAL",
        "E-P2-ESN",
        ("they are on here", "ipsec.esn"),
        ("ikev2",),
        mended=('ipsec.esn = "auto"', 'ipsec.esn = "no"'),
    ),
    Case(
        "sequence numbers",
        'ipsec.esn = "no"',
        'ipsec.esn = "yes"',
        "E-P2-PROPOSAL",
        "E-P2-ESN",
        ("they are off here", "ipsec.esn"),
        ("ikev2",),
        mended=('ipsec.esn = "no"', 'ipsec.esn = "auto"'),
    ),
    Case(
        "some ranges",
        "",
        "",
        "E-MAPPING",
        None,
        ("2 of 4 mappings are down: rows 2, 4; the peer has no such rule", "10.1.3.0/24"),
        ways=(FOUR.format(LOCALS), MIRROR.format(SOME)),
        mended=("", ""),
        mended_ways=(FOUR.format(LOCALS), MIRROR.format(LOCALS)),
    ),
    Case(
        "ranges",
        "",
        "",
        "E-TS",
        "E-TS",
        ("10.9.0.0/24",),
        ways=(ranges("10.9.0.0/24", B), ranges(B, A)),
        mended=("", ""),
        mended_ways=(ranges(A, B), ranges(B, A)),
    ),
)


def cases() -> list[object]:
    return [
        pytest.param(
            case, version, id=f"{case.what.replace(' ', '-')}-{version or case.here[-6:-1]}-{number}"
        )
        for number, case in enumerate(CASES)
        for version in case.versions
    ]


async def until(condition: Callable[[], bool], seconds: int = 60) -> None:
    """Let time pass until it holds; a look a second is enough here, and costs less than many."""
    for _ in range(seconds):
        if condition():
            return
        await asyncio.sleep(1)
    raise TimeoutError


def code_at(machine: Machine) -> str | None:
    error = machine.operator.why("t").error
    return error.code if error is not None else None


async def is_kept(machine: Machine, why: Any) -> None:
    """What `vpnctl why` says without the daemon is what the daemon said."""
    kept = KeptReasons(machine.service, machine.operator.why, machine.state)
    await kept.keep()
    document = json.loads((machine.state / REASONS_FILE).read_text())["tunnels"]["t"]
    assert document["explanation"] == why.model_dump(mode="json", by_alias=True)["explanation"]
    assert document["error"]["code"] == why.error.code


def is_good_advice(machine: Machine, why: Any, version: str) -> None:
    """What is advised can be set and is not; nothing of the other version is offered as a reason."""
    is_new_and_possible(machine.config, "t", why.explanation)
    if version:
        assert not of_the_other(version, why.explanation)


def tables(case: Case, version: str, here: str, there: str, ways: tuple[str, str]) -> tuple[str, str]:
    ike = f'\nike.version = "{version}"\n' if version else "\n"
    passive = "" if "passive" in ways[1] else 'negotiation = "passive"\n'
    return f"{ways[0]}{ike}{here}", f"{passive}{ways[1]}{ike}{there}"


@pytest.mark.parametrize(("case", "version"), cases())
@with_pair
async def test_each_end_names_what_differs(pair: Pair, case: Case, version: str, row: TellRow) -> None:
    first, second = both(case, version)
    pair.hq.write(first)
    pair.branch.write(second)
    await pair.start()

    def named() -> bool:
        said = pair.hq.operator.why("t").model_dump_json()
        codes = code_at(pair.hq) == case.initiator and case.responder in (None, code_at(pair.branch))
        return codes and all(value in said for value in case.values)

    for _ in range(300):
        if named():
            break
        await asyncio.sleep(1)
    else:
        raise AssertionError((code_at(pair.hq), code_at(pair.branch)))
    said: dict[str, str | None] = {}
    for end, machine in (("initiator", pair.hq), ("responder", pair.branch)):
        why = machine.operator.why("t")
        if end == "responder" and case.responder is None:
            continue
        assert why.explanation is not None
        assert why.explanation.change
        said[end] = why.error.code if why.error is not None else None
        is_good_advice(machine, why, version)
        await is_kept(machine, why)
    why = pair.hq.operator.why("t")
    assert why.explanation is not None
    change = why.explanation.change
    applied = await mend(pair, case, version, why.explanation)
    row(TABLE, differs=case.what, version=version or "both", **said, change=change, then=applied)


def both(case: Case, version: str) -> tuple[str, str]:
    """The files of both ends."""
    theirs = "" if case.there == "KEY" else case.there
    first, second = tables(case, version, case.here, theirs, case.ways)
    here, there = files(first, second)
    return here, there.replace(KEY, "another key that is long enough") if case.there == "KEY" else there


def files(first: str, second: str) -> tuple[str, str]:
    """Of these tables."""
    hq, branch = ("hq", "192.0.2.1", "192.0.2.2"), ("branch", "192.0.2.2", "192.0.2.1")
    return configuration(*hq, {"t": first}), configuration(*branch, {"t": second})


async def mend(pair: Pair, case: Case, version: str, explanation: Any) -> str:
    """Make the change that is named, by which the tunnel comes up and the failure is history."""
    how, first, second = mended(case, version, explanation)
    pair.hq.write(first)
    pair.branch.write(second)
    for machine in (pair.branch, pair.hq):
        await machine.operator.reload()

    def works() -> bool:
        standing = any(machine.operator.why("t").standing for machine in (pair.hq, pair.branch))
        return pair.state() == ("up", "up") and not standing

    await until(works, 400)
    await asyncio.sleep(2 * PROVED)
    for machine in (pair.hq, pair.branch):
        why = machine.operator.why("t")
        assert not why.standing, why
        assert not machine.operator.tunnel("t").last_error
    return how


def mended(case: Case, version: str, explanation: Any) -> tuple[str, str, str]:
    """The change that is named, or that of the case, and both files with it."""
    found = proposed(explanation)
    if case.mended is None:
        assert found is not None, explanation.change
        key, value = found
        here = [line for line in case.here.splitlines() if not line.startswith(f"{key} ")]
        here, there = [*here, f"{key} = {json.dumps(value)}"], case.there
        assert here[-1] not in case.here.splitlines(), "the value that is set already"
        ours = "\n".join(here)
        how = here[-1]
    else:
        ours, there = case.mended
        how = " | ".join(filter(None, (ours, *(case.mended_ways or ())))) or "the same at both ends"
    first, second = tables(case, version, ours, there, case.mended_ways or case.ways)
    if case.mended is None and found is not None and found[0] == "ike.version":
        first, second = (f"{way}\n" for way in (f"{case.ways[0]}\n{ours}", f"{case.ways[1]}\n{there}"))
    return how.replace("\n", " "), *files(first, second)


@pytest.mark.parametrize(("case", "version"), cases())
def test_a_simulation_says_the_same(tmp_path: Path, case: Case, version: str) -> None:
    """The code of each end as above, the same values, and with the change that is named it works."""
    outcome = simulated(tmp_path, both(case, version))
    assert not outcome.works or case.initiator.startswith("W-")
    codes = [said_in(tunnel) for (tunnel,) in outcome.rounds[0].tunnels]
    assert codes[0] == case.initiator
    assert case.responder in (None, codes[1])
    told = json.dumps(document(outcome, [])["rounds"][0]["gateways"][0])
    (here,) = outcome.rounds[0].tunnels[0]
    found = diagnosis_of(here)
    assert found is not None
    explanation = explain(found, "t", About(version or None)).body()
    assert all(value in told + explanation.model_dump_json() for value in case.values)
    _, *mended_files = mended(case, version, explanation)
    assert simulated(tmp_path, (mended_files[0], mended_files[1])).works


def simulated(directory: Path, texts: tuple[str, str]) -> Outcome:
    """What two files come to."""
    paths = directory / "hq.toml", directory / "branch.toml"
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
        path.chmod(0o600)
    outcome, assumed = simulate(*paths)
    assert not assumed
    return outcome


def diagnosis_of(tunnel: TunnelOutcome) -> Diagnosis | None:
    """What is said of the tunnel, else of a mapping."""
    said = (tunnel.diagnosis, *(mapping.diagnosis for mapping in tunnel.mappings))
    return next((one for one in said if one is not None), None)


def said_in(tunnel: TunnelOutcome) -> str | None:
    found = diagnosis_of(tunnel)
    return found.code.value if found is not None else None


# ------------------------------------------------------------- what is no difference of two tables

Play = Callable[[Pair, str], AsyncIterator[str]]


@dataclass(frozen=True)
class Story:
    """`play` makes it and pauses, with the change that was made for a row; then it is made.

    `at`: the end that says so. A `standing` of False is history at once: it works.
    """

    code: Code
    play: Play
    at: str = "initiator"
    versions: tuple[str, ...] = ("ikev2", "ikev1")
    says: tuple[str, ...] = ()
    standing: bool = True


async def silent(pair: Pair, version: str) -> AsyncIterator[str]:
    ike = f'\nike.version = "{version}"'
    pair.configure({"t": f"{ROUTED}{ike}"}, {"t": f"{BACK}{ike}"})
    pair.wire.cut = True
    await pair.start()
    yield "the way is free"
    pair.wire.cut = False


def icmp(reason: Unreachable) -> Play:
    async def play(pair: Pair, version: str) -> AsyncIterator[str]:
        async for change in silent(pair, version):
            path = NetworkPath(pair.hq.address, 500, pair.branch.address, 500)
            pair.hq.service.gateway.on_unreachable(path, reason)
            yield change

    return play


async def port_4500(pair: Pair, version: str) -> AsyncIterator[str]:
    ike = f'\nipsec.encapsulation = "udp"\nike.version = "{version}"'
    pair.configure({"t": f"{ROUTED}{ike}"}, {"t": f"{BACK}{ike}"})
    whole = pair.wire.carry
    pair.wire.carry = lambda path, data: whole(path, data) if path.remote_port != 4500 else None  # type: ignore[method-assign] # a firewall
    await pair.start()
    yield "UDP 4500 passes"
    pair.wire.carry = whole  # type: ignore[method-assign] # it is gone


async def dead(pair: Pair, version: str) -> AsyncIterator[str]:
    await up(pair, version)
    pair.wire.cut = True
    yield "the way is free"
    pair.wire.cut = False


async def closed(pair: Pair, version: str) -> AsyncIterator[str]:
    await up(pair, version)
    await pair.branch.operator.disable("t")
    yield "vpnctl enable at the peer"
    await pair.branch.operator.enable("t")


async def restarted(pair: Pair, version: str) -> AsyncIterator[str]:
    """The peer of branch, hq, begins as one that has forgotten everything."""
    await up(pair, version)
    old = pair.hq
    old.service.gateway.close()
    old.host.closed = True
    pair.hq = Machine(pair.wire, old.directory.parent / "again", "192.0.2.1", 77)
    pair.hq.write(old.config.read_text())
    await pair.hq.start()
    yield "nothing: the tunnel comes up again"


async def no_interface(pair: Pair, version: str) -> AsyncIterator[str]:
    pair.configure({"t": f'{ROUTED}\ninterface = "broken"'}, {"t": BACK})
    pair.hq.host.refuse.add("broken")
    await pair.start()
    yield "the interface can be made"
    pair.hq.host.refuse.clear()


async def no_socket(pair: Pair, version: str) -> AsyncIterator[str]:
    pair.configure({"t": ROUTED}, {"t": BACK})
    pair.hq.ports_refused = 5
    await pair.start()
    yield "the port can be opened"
    pair.hq.ports_refused = 0


async def bug(pair: Pair, version: str) -> AsyncIterator[str]:
    pair.configure({"t": ROUTED}, {"t": BACK})
    await pair.branch.start()
    begun = asyncio.ensure_future(pair.hq.start())
    await begun
    pair.hq.engine.fail_install = 1
    yield "nothing: it is negotiated again"


def stuck(came: bool, left: bool, passed: Passed | None = None, forwarding: bool = True) -> Play:
    async def play(pair: Pair, version: str) -> AsyncIterator[str]:
        await up(pair, version)
        pair.hq.host.passed, pair.hq.host.forwarding = passed or Passed(0, 0, 0), forwarding
        await carry(pair, SECONDS + 4, came=came, left=left)
        yield "packets both ways"
        await carry(pair, 4, came=True, left=True)

    return play


async def cut_icv(pair: Pair, version: str) -> AsyncIterator[str]:
    await up(pair, version)
    for _ in range(SECONDS):
        pair.hq.engine.dropped[Drop.INTEGRITY] = pair.hq.engine.dropped.get(Drop.INTEGRITY, 0) + 1
        await carry(pair, 1, left=True)
    yield "ipsec.sha256_96 = true"
    await carry(pair, 12, came=True, left=True)


CHECKED = "\n[tunnels.t.health_check]\nenabled = true\ninterval_ms = 1000\n"
ENDS = 'local = "169.254.9.{}"\nremote = "169.254.9.{}"'


async def checked(pair: Pair, version: str, answers: Callable[[bytes], bool]) -> None:
    """A tunnel with a health check, whose echo requests are answered if `answers`."""
    ike = f'\nike.version = "{version}"'
    ours, theirs = (f"{CHECKED}{ENDS.format(*ends)}" for ends in ((1, 2), (2, 1)))
    pair.configure({"t": f"{ROUTED}{ike}{ours}"}, {"t": f"{BACK}{ike}{theirs}"})
    await pair.start()
    loop = asyncio.get_running_loop()
    for machine in (pair.hq, pair.branch):

        def answer(tunnel: str, packet: bytes, machine: Machine = machine) -> None:
            echo = Echo.decode(packet)
            if echo is not None and answers(packet):
                loop.call_later(0.01, machine.service.gateway.on_reply, tunnel, echo.answer())

        machine.engine.send_packet = answer  # type: ignore[method-assign] # in place of a wire for packets
    await until(lambda: pair.state()[0] in ("up", "unhealthy"))


async def unanswered(pair: Pair, version: str) -> AsyncIterator[str]:
    works: list[bool] = []
    await checked(pair, version, lambda _: bool(works))
    yield "the peer has the address and answers"
    works.append(True)


async def large_ones_vanish(pair: Pair, version: str) -> AsyncIterator[str]:
    most = [1200]
    await checked(pair, version, lambda packet: len(packet) <= most[0])
    yield "fragments and ICMP pass"
    most[0] = 1500
    for here, there in ((pair.hq, pair.branch), (pair.branch, pair.hq)):
        here.engine.on_notice(PathMtu(there.address, 1500))


async def a_router_tells(pair: Pair, version: str) -> AsyncIterator[str]:
    await up(pair, version)
    pair.hq.engine.on_notice(PathMtu(pair.branch.address, 1300))
    yield "nothing: it works"


TWO = (
    'communication = "spd-policy"\n[[tunnels.t.spd]]\nlocal = ["10.1.0.0/24"]\nremote = ["10.2.0.0/16"]\n'
    '[[tunnels.t.spd]]\nlocal = ["{}"]\nremote = ["{}"]\n'
)


async def one_is_turned_round(pair: Pair, version: str) -> AsyncIterator[str]:
    """The first mapping is up, and has the second one's local range behind the peer."""
    ike = f'ike.version = "{version}"\n'
    there = TWO.replace('"10.1.0.0/24"', '"10.2.0.0/16"', 1).replace(
        'remote = ["10.2.0.0/16"]', 'remote = ["10.1.0.0/24"]', 1
    )
    theirs = f'{ike}negotiation = "passive"\n{there.format("10.3.0.0/24", "10.1.5.0/24")}'
    pair.configure({"t": ike + TWO.format("10.2.5.0/24", "10.1.5.0/24")}, {"t": theirs})
    await pair.start()
    yield "local and remote are exchanged"
    pair.configure({"t": ike + TWO.format("10.1.5.0/24", "10.3.0.0/24")}, {"t": theirs})
    await pair.hq.operator.reload()
    await until(lambda: all(m.state == "up" for m in pair.hq.operator.tunnel("t").mappings), 400)


async def ended_without_a_successor(pair: Pair, version: str) -> AsyncIterator[str]:
    """PFS is here alone: the first SA of IKEv2 does without, and what follows it is refused."""
    short = "\nipsec.lifetime = 60"
    pair.configure({"t": f"{ROUTED}{short}\nipsec.pfs = 15"}, {"t": f"{BACK}{short}"})
    await pair.start()
    await until(lambda: pair.state()[0] == "up")
    await until(lambda: pair.state()[0] != "up", 200)
    await until(lambda: pair.hq.operator.why("t").standing)
    yield "PFS is off here"
    pair.configure({"t": f"{ROUTED}{short}"}, {"t": f"{BACK}{short}"})
    await pair.hq.operator.reload()


async def drops_at_the_rekey(pair: Pair, version: str) -> AsyncIterator[str]:
    """No message passes when the SAs are to be renewed."""
    await up(pair, version, "\nipsec.lifetime = 60")
    while code_at(pair.hq) != "E-FLAP":
        await until(lambda: pair.state()[0] == "up", 200)
        await asyncio.sleep(45)
        pair.wire.cut = True
        await until(lambda: pair.state()[0] != "up", 200)
        pair.wire.cut = False
        await until(lambda: pair.state()[0] == "up", 200)
    yield "the messages of the rekey pass"


def comes_from_elsewhere(negotiation: str) -> Play:
    """The peer has another address than it is configured with here, and begins."""

    async def comes_from_elsewhere(pair: Pair, version: str) -> AsyncIterator[str]:
        ike = f'\nike.version = "{version}"\nike.remote_id = "b.example"'
        here = {"t": f'negotiation = "{negotiation}"\n{ROUTED}{ike}'}
        there = f'{ROUTED}\nike.version = "{version}"\nike.local_id = "b.example"'
        pair.configure(here, {"t": there})
        pair.hq.write(configuration("hq", "192.0.2.1", "192.0.2.9", here))
        await pair.start()
        yield "the address is that of the peer"
        pair.configure(here, {"t": there})
        await pair.hq.operator.reload()

    return comes_from_elsewhere


async def no_route(pair: Pair, version: str) -> AsyncIterator[str]:
    """What is sent comes to nothing, as the kernel says; the route comes later."""
    pair.hq.host.no_way = True
    async for change in silent(pair, version):
        path = NetworkPath(pair.hq.address, 500, pair.branch.address, 500)
        pair.hq.service.gateway.on_unreachable(path, Unreachable.HOST)
        yield change
        pair.hq.host.no_way = False


async def into_a_tunnel(pair: Pair, version: str) -> AsyncIterator[str]:
    pair.hq.host.through = "vpn-t"
    async for change in silent(pair, version):
        yield f"{change} of the tunnel"
        pair.hq.host.through = None


async def routes_are_refused(pair: Pair, version: str) -> AsyncIterator[str]:
    pair.hq.host.routes_refused = 10_000
    await up(pair, version)
    yield "the kernel takes them"
    pair.hq.host.routes_refused = 0


async def a_lifetime_ends(pair: Pair, version: str) -> AsyncIterator[str]:
    """The packets that an SA may carry are used up before it has a successor."""
    await up(pair, version)
    (spi,) = pair.hq.engine.installed
    pair.hq.engine.on_notice(HardLimit("t", spi))
    yield "nothing: it is negotiated again"


def damaged(by: str) -> Play:
    """What this end sends has a header and no payload that can be read."""

    async def damaged(pair: Pair, version: str) -> AsyncIterator[str]:
        ike = f'\nike.version = "{version}"'
        pair.configure({"t": f"{ROUTED}{ike}"}, {"t": f"{BACK}{ike}"})
        whole, sender = pair.wire.carry, getattr(pair, by).address

        def carry(path: NetworkPath, data: bytes) -> None:
            whole(path, data[:28] + bytes(len(data) - 28) if path.local == sender else data)

        pair.wire.carry = carry  # type: ignore[method-assign] # a fault of an implementation
        await pair.start()
        yield "messages arrive whole"
        pair.wire.carry = whole  # type: ignore[method-assign] # it is mended

    return damaged


async def no_name(pair: Pair, version: str) -> AsyncIterator[str]:
    known: list[Address] = []

    async def look_up(_resolver: Resolver, name: str, version: int) -> tuple[Address, ...]:
        if not known:
            raise NotResolved(Diagnosis.of(Code.RESOLVE, peer=name, detail=f"{name}: no such name"))
        return tuple(known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Resolver, "addresses_of", look_up)
        ike = f'\nike.version = "{version}"'
        here = {"t": f'{ROUTED}{ike}\nike.remote_id = "192.0.2.2"'}
        pair.configure(here, {"t": f"{BACK}{ike}"})
        pair.hq.write(configuration("hq", "192.0.2.1", "branch.example", here))
        await pair.start()
        yield "the name has an address"
        known.append(pair.branch.address)
        await until(lambda: pair.state() == ("up", "up"), 400)


async def no_address(pair: Pair, version: str) -> AsyncIterator[str]:
    """This machine has no address, as before DHCP answers."""
    ike = f'\nike.version = "{version}"'
    here = {"t": f'{ROUTED}{ike}\nike.local_id = "192.0.2.1"'}
    pair.configure(here, {"t": f"{BACK}{ike}"})
    pair.hq.write(configuration("hq", "auto", "192.0.2.2", here))
    pair.hq.host.addresses, pair.hq.host.source = set(), None
    await pair.start()
    yield "it has one"
    pair.hq.host.addresses, pair.hq.host.source = {pair.hq.address}, pair.hq.address
    pair.hq.watch.on_change()


DROPPED = Passed(3, 0, 0)
SET_PEER = r"set customer_gateways.other.address = \"192.0.2.2\""
"""As JSON has it."""
STORIES = (
    Story(Code.SILENT, silent, says=("0 received",)),
    Story(Code.PORT_CLOSED, icmp(Unreachable.PORT), says=("192.0.2.2",)),
    Story(Code.UNREACHABLE, icmp(Unreachable.HOST), says=("ip route get 192.0.2.2",)),
    Story(Code.UNREACHABLE, icmp(Unreachable.PROHIBITED), says=("a firewall",)),
    Story(Code.UNREACHABLE, no_route, says=("this machine has no route to 192.0.2.2", "ip route")),
    Story(Code.LOCAL_ROUTE, into_a_tunnel, says=("leads into vpn-t", "192.0.2.2 a route of its own")),
    Story(Code.LOCAL_ROUTE, routes_are_refused, says=("10.2.0.0/16: No buffer space",)),
    Story(
        Code.UNKNOWN_PEER,
        comes_from_elsewhere("passive"),
        says=("a machine at 192.0.2.2 (UDP 500)", "192.0.2.9", f"if that is the peer, {SET_PEER}"),
    ),
    Story(
        Code.SILENT,
        comes_from_elsewhere("active"),
        says=("192.0.2.9 does not answer", "a machine at 192.0.2.2 begins", f"if it is the peer, {SET_PEER}"),
    ),
    Story(Code.UDP_4500, port_4500, says=("sent, ",)),
    Story(Code.PEER_DEAD, dead, says=("192.0.2.2",)),
    Story(Code.PEER_DEAD, dead, at="responder", says=("192.0.2.1",)),
    Story(Code.PEER_DELETED, closed, says=("192.0.2.2",)),
    Story(Code.PEER_RESTARTED, restarted, at="responder", standing=False),
    Story(Code.ONE_WAY, stuck(False, True), says=("route back",)),
    Story(Code.NO_FORWARD, stuck(True, False, DROPPED, False), says=("ip_forward = 1",)),
    Story(Code.NO_FORWARD, stuck(True, False, DROPPED), says=("a firewall rule drops them",)),
    Story(Code.NO_REPLY, stuck(True, False, Passed(3, 3, 0)), says=("a route to the peer's ranges",)),
    Story(Code.ESP_ICV, cut_icv, says=("ipsec.sha256_96 = true",)),
    Story(Code.HEALTH, unanswered, says=("169.254.9.1", "169.254.9.2")),
    Story(Code.HEALTH, unanswered, at="responder", says=("169.254.9.1", "169.254.9.2")),
    Story(Code.MTU, large_ones_vanish, says=("small packets pass", "set mtu = 119")),
    Story(Code.MTU, large_ones_vanish, at="responder", says=("small packets pass", "set mtu = 119")),
    Story(Code.MTU, a_router_tells, says=("1300 bytes", "says a router"), standing=False),
    Story(Code.MAPPINGS_DOWN, one_is_turned_round, says=("10.2.5.0/24 - 10.1.5.0/24", "wrong way round")),
    Story(Code.PFS, ended_without_a_successor, versions=("ikev2",), says=("ipsec.pfs",)),
    Story(Code.FLAPPING, drops_at_the_rekey, says=("goes down every ", "10 % longer")),
    Story(Code.FLAPPING, drops_at_the_rekey, at="responder", says=("goes down every ", "10 % longer")),
    Story(Code.LIFETIME, a_lifetime_ends, standing=False),
    Story(Code.SYNTAX, damaged("branch"), says=("192.0.2.2",)),
    Story(Code.SYNTAX, damaged("hq"), at="responder", says=("192.0.2.1",)),
    Story(Code.RESOLVE, no_name, says=("branch.example",)),
    Story(Code.LOCAL_ADDRESS, no_address, says=("no default route",)),
    Story(Code.LOCAL_INTERFACE, no_interface, versions=("ikev2",), says=("broken",)),
    Story(Code.LOCAL_SOCKET, no_socket, versions=("ikev2",), says=("Too many open files",)),
    Story(Code.INTERNAL, bug, versions=("ikev2",), standing=False),
)


def stories() -> list[object]:
    return [
        pytest.param(story, version, id=f"{story.code.value}-{story.at}-{version}-{number}")
        for number, story in enumerate(STORIES)
        for version in story.versions
    ]


@pytest.mark.parametrize(("story", "version"), stories())
@with_pair
async def test_what_goes_wrong_is_named_kept_and_healed(
    pair: Pair, story: Story, version: str, row: TellRow
) -> None:
    playing = story.play(pair, version)
    then = await anext(playing)

    def machine() -> Machine:
        return pair.hq if story.at == "initiator" else pair.branch

    def named() -> bool:
        why = machine().operator.why("t")
        said = why.model_dump_json()
        standing = why.standing or not story.standing
        return code_at(machine()) == story.code.value and standing and all(w in said for w in story.says)

    for _ in range(600):
        if named():
            break
        await asyncio.sleep(1)
    else:
        raise AssertionError(machine().operator.why("t").model_dump_json(indent=1))
    why = machine().operator.why("t")
    assert why.explanation is not None
    assert why.explanation.change
    is_good_advice(machine(), why, version)
    await is_kept(machine(), why)
    row(
        TABLE,
        differs=story.play.__name__.replace("_", " "),
        version=version,
        **{story.at: story.code.value},
        change=why.explanation.change,
        then=then,
    )
    assert [one async for one in playing] == []
    await until(lambda: not machine().operator.why("t").standing, 900)
    await until(lambda: pair.state() == ("up", "up"), 400)
    assert machine().operator.tunnel("t").impaired is None


V1_PROPOSALS = "tests/unit/ike/v1/test_proposals.py"
WRONG_PEER = "tests/simulation/test_ikev2_wrong_peer.py"
V2_VALUES = "tests/unit/ike/v2/test_values.py"
ANY = "tests/simulation/test_any_address.py"
ELSEWHERE: dict[Code, tuple[str, dict[str, str]]] = {
    Code.P1_PRF: (
        "vpnd sets it with the integrity algorithm, so another implementation has to differ; IKEv1 has none",
        {"ikev2 responder": "tests/simulation/test_ikev2_establish.py::test_no_common_proposal"},
    ),
    Code.P1_AUTH_METHOD: (
        "vpnd has no other method that a peer could have; the initiator of IKEv1 hears NO_PROPOSAL_CHOSEN",
        {
            "ikev2 responder": f"{WRONG_PEER}::test_another_method_than_the_shared_key_is_refused",
            "ikev2 initiator": f"{WRONG_PEER}::test_a_wrong_proof_of_the_responder",
            "ikev1 responder": f"{V1_PROPOSALS}::test_another_authentication_method_is_named",
        },
    ),
    Code.ADDITION: (
        "of a peer that demands what vpnd does not have (RFC 9370); the initiator hears NO_PROPOSAL_CHOSEN",
        {
            "ikev2 responder": f"{V2_VALUES}"
            "::test_a_transform_of_a_type_that_we_lack_is_a_demand_and_said_to_be_one"
        },
    ),
    Code.FLOOD: (
        "needs a peer that tries again and again",
        {"both responder": "tests/unit/daemon/test_stories.py::test_a_flood_with_a_wrong_key"},
    ),
    Code.PEER_REFUSED: (
        "needs a peer that gives no reason",
        {
            "ikev2 initiator": f"{V2_VALUES}::test_errors_of_a_child",
            "ikev1 initiator": "tests/simulation/v1/test_refusals.py"
            "::test_an_error_under_the_keys_is_not_about_the_key",
        },
    ),
    Code.PEER_BUSY: (
        "needs a peer that has no time (RFC 7296 section 2.25)",
        {"ikev2 initiator": f"{WRONG_PEER}::test_a_busy_peer_is_asked_again_and_not_for_ever"},
    ),
    Code.PEER_BEGINS: (
        "said to who asks for such a tunnel, whatever its version, and no failure that stands",
        {
            "both responder": "tests/unit/daemon/test_any_address.py"
            "::test_up_says_that_only_the_peer_can_begin"
        },
    ),
    Code.PEER_ELSEWHERE: (
        "needs a third machine",
        {"both responder": f"{ANY}::test_a_peer_that_has_moved_is_let_in_once_its_old_place_is_silent"},
    ),
    Code.IDENTITY_TAKEN: (
        "needs a third machine",
        {
            "both responder": f"{ANY}"
            "::test_another_machine_with_the_same_identity_is_refused_while_the_first_answers"
        },
    ),
    Code.DOWN_BY_OPERATOR: (
        "no failure: asked for",
        {"both initiator": "tests/unit/tunnel/test_lifecycle.py::*"},
    ),
}
"""Codes that two daemons in memory do not come to by themselves: why, and the test that shows each, by the
version and the end that say it. An end that is not named cannot know it."""

SEEN = [(code, where) for code, (_, places) in ELSEWHERE.items() for where in places.values()]

NO_NEGOTIATION = {
    **dict.fromkeys(
        (Code.SILENT, Code.PORT_CLOSED, Code.UNREACHABLE, Code.UDP_4500), "the network between them"
    ),
    **dict.fromkeys(
        (Code.PEER_DEAD, Code.PEER_DELETED, Code.PEER_RESTARTED, Code.FLAPPING, Code.LIFETIME),
        "what happens to it later",
    ),
    Code.SYNTAX: "a fault of one implementation",
    **dict.fromkeys(
        (Code.ONE_WAY, Code.NO_FORWARD, Code.NO_REPLY, Code.ESP_ICV, Code.HEALTH, Code.MTU),
        "packets in the tunnel, and what carries them",
    ),
    Code.UNKNOWN_PEER: "from where the peer comes",
    **dict.fromkeys(
        (
            Code.LOCAL_INTERFACE,
            Code.LOCAL_ROUTE,
            Code.LOCAL_SOCKET,
            Code.LOCAL_ADDRESS,
            Code.RESOLVE,
            Code.INTERNAL,
        ),
        "one of the machines",
    ),
}
"""What decides, if not the two configurations: no simulation of them can say so."""


def test_what_a_negotiation_yields_is_simulated() -> None:
    of_a_case = {Code.PFS, Code.MAPPINGS_DOWN}
    assert set(NO_NEGOTIATION) == {story.code for story in STORIES} - of_a_case


REFUSED_BY_CHECK = {
    "E-OVERLAP": "tests/unit/config/test_rules.py",
    "W-WEAK": "tests/unit/config/test_rules.py",
}
"""Diagnoses of a configuration: `vpnd check` says them, and no tunnel comes of it."""

TESTS = Path(__file__).parents[3]


def test_every_code_is_in_the_gallery_or_has_a_reason() -> None:
    shown = {Code(code) for case in CASES for code in (case.initiator, case.responder) if code}
    shown |= {story.code for story in STORIES}
    assert shown | set(ELSEWHERE) == set(Code)
    assert not shown & set(ELSEWHERE), "it is shown here"


@pytest.mark.parametrize(("code", "where"), SEEN)
def test_what_is_shown_elsewhere_is_there(code: Code, where: str) -> None:
    path, _, name = where.partition("::")
    text = (TESTS / path).read_text()
    functions = {
        one.name: one
        for one in ast.walk(ast.parse(text))
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    found = text if name == "*" else _with_marks(text, functions[name])
    assert f"Code.{code.name}" in found or code.value in found


def _with_marks(text: str, function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    first = min([function.lineno, *(mark.lineno for mark in function.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : function.end_lineno])


@pytest.mark.parametrize("code", REFUSED_BY_CHECK)
def test_what_the_check_refuses_is_tested_there(code: str) -> None:
    assert f'"{code}"' in (TESTS / REFUSED_BY_CHECK[code]).read_text()
