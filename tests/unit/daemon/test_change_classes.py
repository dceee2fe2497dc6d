"""A reload applies each change by its class: what is negotiated, what stays, and that nothing goes down."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from tests.unit.daemon.fakes import Machine
from tests.unit.daemon.pairs import PROVED, Pair, with_pair
from vpnd.config.classes import CLASSES, ChangeClass

VERSIONS = ("ikev1", "ikev2")
SPD = 'communication = "spd-policy"\n'
BOTH = 'encryption = ["aes-128", "aes-256"]\nintegrity = ["sha256", "sha384"]\n'


def table(version: str, changed: str = "", wide: bool = False, **tables: str) -> str:
    """A tunnel; `wide`: it takes what the other end has before and after the change."""
    more = {name: tables.get(name, "") for name in ("ike", "ipsec", "dpd", "health_check", "sm_numbers")}
    text = changed + "\n"
    for name, lines in more.items():
        version_line = f'version = "{version}"\n' if name == "ike" else ""
        offers = BOTH + ("dh_group = [14, 15]\n" if name == "ike" else "") if wide else ""
        text += f"[tunnels.t.{name}]\n{version_line}{offers if name in ('ike', 'ipsec') else ''}{lines}\n"
    return text


def write(pair: Pair, hq: str, branch: str) -> None:
    pair.configure({"t": hq}, {"t": branch})


@dataclass(frozen=True)
class Seen:
    """What a tunnel has: its interface, its IKE SAs, and the SA pair of each mapping."""

    interface: int
    ike: frozenset[tuple[str, str]]
    pairs: dict[str, str | None]

    @classmethod
    def of(cls, machine: Machine) -> Seen:
        detail = machine.operator.tunnel("t")
        ike = frozenset((one.spi_i, one.spi_r) for one in detail.ike_sas)
        pairs = {f"{one.local} {one.remote} {one.remote_port}": one.spi_in for one in detail.mappings}
        return cls(machine.engine.tunnels["t"], ike, pairs)


async def begin(pair: Pair, hq: str, branch: str) -> Seen:
    """Up, and every rekey that proves something is over."""
    write(pair, hq, branch)
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    await asyncio.sleep(PROVED)
    return Seen.of(pair.hq)


def lost(pair: Pair) -> list[Any]:
    """Events at either end that a change without loss does not have."""
    bad = {"tunnel-lost", "tunnel-down", "mapping-down", "tunnel-removed", "internal-error"}
    return [event for machine in (pair.hq, pair.branch) for event in machine.events() if event[1] in bad]


IKE_LINES = {
    "encryption": 'encryption = "aes-256"',
    "integrity": 'integrity = "sha384"',
    "dh_group": "dh_group = 15",
    "lifetime": "lifetime = 7200",
    "rekey_margin": "rekey_margin = 20",
    "rekey_fuzz": "rekey_fuzz = 50",
}
IPSEC_LINES = {
    "encryption": 'encryption = "aes-256"',
    "integrity": 'integrity = "sha384"',
    "pfs": "pfs = 14",
    "lifetime": "lifetime = 1800",
    "lifetime_kb": "lifetime_kb = 100000",
    "encapsulation": 'encapsulation = "udp"',
    "rekey_margin": "rekey_margin = 20",
    "rekey_fuzz": "rekey_fuzz = 50",
    "replay_window": "replay_window = 64",
}
DPD_LINES = {"enabled": "enabled = false", "timeout": "timeout = 60", "action": 'action = "disconnect"'}
HEALTH_LINES = {
    "enabled": "enabled = true",
}
SM_LINES = {"sm4_ikev2": "sm4_ikev2 = 5000", "sm4_ikev1_phase1": "sm4_ikev1_phase1 = 5000"}
TUNNEL_LINES = {
    "routes": 'routes = ["10.9.0.0/16"]',
    "priority": "priority = 7",
    "description": 'description = "to the branch"',
    "mtu": "mtu = 1300",
    "mss": "mss = 1200",
    "negotiation": 'negotiation = "passive"',
}
CASES = [
    *(("", f"{key}", line) for key, line in TUNNEL_LINES.items()),
    *(("ike", key, line) for key, line in IKE_LINES.items()),
    *(("ipsec", key, line) for key, line in IPSEC_LINES.items()),
    *(("dpd", key, line) for key, line in DPD_LINES.items()),
    *(("health_check", key, line) for key, line in HEALTH_LINES.items()),
    *(("sm_numbers", key, line) for key, line in SM_LINES.items()),
]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("section", "key", "line"), CASES, ids=lambda value: value if len(value) < 20 else ""
)
@with_pair
async def test_a_key_is_applied_by_its_class(
    pair: Pair, section: str, key: str, line: str, version: str
) -> None:
    """What was there stays, or has a successor before it goes; nothing is ever down, at neither end."""
    branch = table(version, 'routes = []\nnegotiation = "passive"', wide=True)
    before = await begin(pair, table(version, 'routes = ["10.2.0.0/16"]'), branch)
    path = f"tunnels.NAME.{section}.{key}".replace("..", ".")
    carried = pair.wire.carried
    tables = {section: line} if section else {}
    new = table(version, 'routes = ["10.2.0.0/16"]' if section else line, False, **tables)
    write(pair, new, branch)
    result = await pair.hq.operator.reload()
    assert result.changed == ["t"]
    if CLASSES[path] in (ChangeClass.LIVE, ChangeClass.NEXT_SA):
        assert pair.wire.carried == carried, "nothing is negotiated"
    await asyncio.sleep(30)
    after = Seen.of(pair.hq)
    assert after.interface == before.interface
    # Nothing answers probes here.
    assert pair.state() == ("unhealthy" if section == "health_check" else "up", "up")
    assert lost(pair) == []
    expected = {
        ChangeClass.LIVE: (True, True),
        ChangeClass.NEXT_SA: (True, True),
        ChangeClass.REKEY: (True, False),
        # Where only algorithms of the IKE SA change it is rekeyed, and its ESP SAs stay.
        ChangeClass.NEW_IKE_SA: (False, section == "ike"),
    }[CLASSES[path]]
    assert (after.ike == before.ike, after.pairs == before.pairs) == expected
    for machine in (pair.hq, pair.branch):
        assert len(machine.operator.tunnel("t").ike_sas) == 1
        (mapping,) = machine.service.gateway.tunnels["t"].mappings
        assert mapping.owner is not None
    assert lost(pair) == []


PASSIVE = 'routes = []\nnegotiation = "passive"'
ACTIVE = 'routes = ["10.2.0.0/16"]'


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", ["hq", "branch"])
@with_pair
async def test_both_ends_change_one_after_the_other(pair: Pair, version: str, first: str) -> None:
    """What the end with the old configuration refuses costs nothing; the second change settles it."""
    old = {"hq": table(version, ACTIVE), "branch": table(version, PASSIVE)}
    lines = {
        "ike": 'encryption = "aes-256"\nlocal_id = "{}.example"\nremote_id = "{}.example"',
        "ipsec": 'encryption = "aes-256"\npfs = 15',
    }
    new = {
        name: table(version, more, ike=lines["ike"].format(name, other), ipsec=lines["ipsec"])
        for name, other, more in (("hq", "branch", ACTIVE), ("branch", "hq", PASSIVE))
    }
    before = await begin(pair, old["hq"], old["branch"])
    now = {**old, first: new[first]}
    write(pair, now["hq"], now["branch"])
    await (pair.hq if first == "hq" else pair.branch).operator.reload()
    await asyncio.sleep(70)
    assert pair.state() == ("up", "up")
    assert Seen.of(pair.hq) == before
    assert ("t", "rekey-failed") in (pair.hq if first == "hq" else pair.branch).events()
    write(pair, new["hq"], new["branch"])
    await (pair.branch if first == "hq" else pair.hq).operator.reload()
    await asyncio.sleep(70)
    after = Seen.of(pair.hq)
    assert lost(pair) == []
    assert (len(after.ike), after.ike & before.ike) == (1, frozenset())
    detail = pair.hq.operator.tunnel("t")
    assert detail.ike is not None
    assert (detail.ike.encryption, detail.mappings[0].encryption) == ("aes-256", "aes-256")
    assert (detail.remote_id, pair.branch.operator.tunnel("t").remote_id) == ("branch.example", "hq.example")
    assert len(pair.branch.operator.tunnel("t").ike_sas) == 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("wait", [0.0, 0.5, 3.0])
@with_pair
async def test_a_young_ike_sa_of_the_peer_is_succeeded_too(pair: Pair, version: str, wait: float) -> None:
    """The rule for two IKE SAs that both ends began at once must not keep the outdated one."""
    write(pair, table(version, PASSIVE.replace("[]", '["10.2.0.0/16"]')), table(version, "", wide=True))
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    await asyncio.sleep(wait)
    before = Seen.of(pair.hq)
    changed = table(version, PASSIVE.replace("[]", '["10.2.0.0/16"]'), ike='encryption = "aes-256"')
    write(pair, changed, table(version, "", wide=True))
    await pair.hq.operator.reload()
    await asyncio.sleep(60)
    after = Seen.of(pair.hq)
    assert (len(after.ike), after.ike & before.ike) == (1, frozenset())
    assert lost(pair) == []
    for machine in (pair.hq, pair.branch):
        detail = machine.operator.tunnel("t")
        assert [one.encryption for one in detail.ike_sas] == ["aes-256"]


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_pfs_that_is_switched_off_is_off(pair: Pair, version: str) -> None:
    """The successor of a pair with PFS asks for none, where the peer does not want it."""
    branch = table(version, PASSIVE, ipsec="pfs = 14")
    await begin(pair, table(version, ACTIVE, ipsec="pfs = 14"), branch)
    assert pair.hq.operator.tunnel("t").mappings[0].pfs == 14
    for machine in (pair.branch, pair.hq):
        write(pair, table(version, ACTIVE), table(version, PASSIVE))
        await machine.operator.reload()
    await asyncio.sleep(60)
    assert pair.hq.operator.tunnel("t").mappings[0].pfs is None
    assert lost(pair) == []


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_dead_peer_detection_goes_by_what_it_is_changed_to(pair: Pair, version: str) -> None:
    off, on = "enabled = false", "timeout = 10"
    await begin(pair, table(version, ACTIVE, dpd=off), table(version, PASSIVE, dpd=off))
    pair.wire.cut = True
    await asyncio.sleep(600)
    assert pair.state() == ("up", "up")
    write(pair, table(version, ACTIVE, dpd=on), table(version, PASSIVE, dpd=off))
    await pair.hq.operator.reload()
    await pair.until(lambda: pair.state()[0] != "up")
    assert ("t", "tunnel-lost") in pair.hq.events()


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_a_health_check_that_is_switched_off_interrupts_nothing_any_more(
    pair: Pair, version: str
) -> None:
    check = 'enabled = true\nlocal = "169.254.128.1"\nremote = "169.254.128.2"'
    await begin(pair, table(version, ACTIVE, health_check=check), table(version, PASSIVE))
    await pair.until(lambda: pair.state() == ("unhealthy", "up"))
    own = {str(address) for address in pair.hq.host.addresses}
    write(pair, table(version, ACTIVE), table(version, PASSIVE))
    await pair.hq.operator.reload()
    assert pair.state() == ("up", "up")
    assert pair.hq.engine.interrupted[-1][:2] == ("t", False)
    assert own - {str(address) for address in pair.hq.host.addresses} == {"169.254.128.1"}
    assert lost(pair) == []


def rule(numbers: range | list[int], turned: bool = False) -> str:
    """One local range with these remote ones; `turned`: from the other side."""
    one, many = '["10.0.0.0/16"]', "[" + ", ".join(f'"10.1.{number}.0/24"' for number in numbers) + "]"
    local, remote = (many, one) if turned else (one, many)
    return f"[[tunnels.t.spd]]\nlocal = {local}\nremote = {remote}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("first", ["hq", "branch"])
@with_pair
async def test_mappings_come_and_go_and_the_others_are_not_touched(
    pair: Pair, version: str, first: str
) -> None:
    """197 mappings, 3 come and 2 go: the 195 others keep their SAs, here and there."""
    old, new = range(197), [*range(2, 100), 250, 251, 252, *range(100, 197)]

    def configured(hq: Any, branch: Any) -> None:
        mine = table(version, SPD) + rule(hq)
        write(pair, mine, table(version, SPD + 'negotiation = "passive"') + rule(branch, turned=True))

    configured(old, old)
    await pair.start()
    await pair.until(lambda: pair.hq.service.gateway.tunnels["t"].all_up)
    await asyncio.sleep(PROVED)
    before = Seen.of(pair.hq)
    for machine in (pair.hq, pair.branch) if first == "hq" else (pair.branch, pair.hq):
        configured(new, new)
        await machine.operator.reload()
        await asyncio.sleep(1)
    await pair.until(lambda: pair.hq.service.gateway.tunnels["t"].all_up, 300)
    await asyncio.sleep(PROVED)
    after = Seen.of(pair.hq)
    assert (after.interface, after.ike) == (before.interface, before.ike)
    stay = before.pairs.keys() & after.pairs.keys()
    assert (len(stay), len(after.pairs)) == (195, 198)
    assert {key: after.pairs[key] for key in stay} == {key: before.pairs[key] for key in stay}
    for machine in (pair.hq, pair.branch):
        installed = machine.engine.installed.values()
        assert len(installed) == 198
        rows = {row.mapping for row in machine.engine.policies["t"]}
        assert {child.mapping for child in installed} == rows
    # A second change finds numbers that are not the places any more.
    configured(new, new[1:])
    configured(new[1:], new[1:])
    for machine in (pair.branch, pair.hq):
        await machine.operator.reload()
    await asyncio.sleep(PROVED)
    last = Seen.of(pair.hq)
    assert last.pairs == {key: after.pairs[key] for key in last.pairs}
    assert len(last.pairs) == 197
    assert pair.hq.service.gateway.tunnels["t"].all_up


@with_pair
async def test_a_mapping_that_is_being_negotiated_may_go(pair: Pair) -> None:
    """The peer does not answer; what is wanted after the change is begun when it does."""
    pair.configure({"t": table("ikev2", SPD) + rule([1])}, {})
    await pair.start()
    await asyncio.sleep(2)
    write(pair, table("ikev2", SPD) + rule([2, 3]), table("ikev2", SPD) + rule([2, 3], turned=True))
    await pair.hq.operator.reload()
    await pair.branch.operator.reload()
    await pair.until(lambda: pair.hq.service.gateway.tunnels["t"].all_up, 120)
    assert {child.mapping for child in pair.hq.engine.installed.values()} == {1, 2}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("wrong", ["key", "ike", "silent"])
@with_pair
async def test_a_change_of_what_does_not_come_up_is_tried_at_once(
    pair: Pair, version: str, wrong: str
) -> None:
    """No pause that failures have made longer, and no attempt with what was configured before."""
    wrong_line = 'encryption = "aes-256"' if wrong == "ike" else ""
    write(pair, table(version, ACTIVE, ike=wrong_line), table(version, PASSIVE))
    if wrong == "key":
        pair.hq.write(pair.hq.config.read_text().replace("plain:", "plain:another "))
    pair.wire.cut = wrong == "silent"
    await pair.start()
    await asyncio.sleep(300)
    assert pair.state()[0] != "up"
    descriptor = pair.hq.engine.tunnels["t"]
    pair.wire.cut = False
    write(pair, table(version, ACTIVE, dpd="timeout = 60"), table(version, PASSIVE))
    await pair.hq.operator.reload()
    await pair.until(lambda: pair.state() == ("up", "up"), 5)
    assert pair.hq.engine.tunnels["t"] == descriptor


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("renames", [True, False], ids=["renamed", "made again"])
@with_pair
async def test_an_interface_has_another_name(pair: Pair, version: str, renames: bool) -> None:
    """It is renamed as it is, with all other changes in place; a kernel that cannot makes it again."""
    before = await begin(pair, table(version, ACTIVE), table(version, PASSIVE, wide=True))
    pair.hq.host.renames = renames
    changed = f'{ACTIVE}\ninterface = "vpn-other"\ndescription = "x"'
    write(pair, table(version, changed, ike='encryption = "aes-256"'), table(version, PASSIVE, wide=True))
    result = await pair.hq.operator.reload()
    assert result.changed == ["t"]
    await asyncio.sleep(30)
    after = Seen.of(pair.hq)
    assert pair.state() == ("up", "up")
    assert list(pair.hq.host.interfaces) == ["vpn-other"]
    assert {route.device for route in pair.hq.host.wanted.routes} == {"vpn-other", None}
    detail = pair.hq.operator.tunnel("t")
    assert (detail.interface, detail.description) == ("vpn-other", "x")
    assert detail.ike is not None
    assert detail.ike.encryption == "aes-256"
    assert (after.interface == before.interface, after.pairs == before.pairs) == (renames, renames)
    assert (lost(pair) == []) is renames


@with_pair
async def test_two_tunnels_exchange_their_interfaces(pair: Pair) -> None:
    """Neither name is free when it is wanted: what cannot be renamed is made again, and both are up."""
    names = {"t": "vpn-a", "u": "vpn-b"}

    def ends(name: str, one: str, other: str, more: str) -> str:
        ids = f'local_id = "{one}.{name}.example"\nremote_id = "{other}.{name}.example"'
        return table("ikev2", more, ike=ids).replace("tunnels.t.", f"tunnels.{name}.")

    def configured(names: dict[str, str]) -> None:
        ours = {
            name: ends(name, "a", "b", f'routes = ["10.{at}.0.0/16"]\ninterface = "{interface}"')
            for at, (name, interface) in enumerate(names.items())
        }
        pair.configure(ours, {name: ends(name, "b", "a", PASSIVE) for name in names})

    configured(names)
    await pair.start()
    await pair.until(lambda: pair.state("t") == pair.state("u") == ("up", "up"))
    configured({"t": "vpn-b", "u": "vpn-a"})
    await pair.hq.operator.reload()
    await pair.until(lambda: pair.state("t") == pair.state("u") == ("up", "up"), 120)
    found = {name: pair.hq.operator.tunnel(name).interface for name in names}
    assert found == {"t": "vpn-b", "u": "vpn-a"}
    assert set(pair.hq.host.interfaces) == {"vpn-a", "vpn-b"}
