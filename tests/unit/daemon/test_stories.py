"""What `vpnctl events` says of each fault: the events in their order, in words that an operator needs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.unit.daemon.fakes import Machine
from tests.unit.daemon.pairs import PROVED, JumpingLoop, Pair, with_pair
from vpnd.control.operations import InvalidConfiguration, NegotiationFailed
from vpnd.control.schema import Event
from vpnd.datapath.interface import HardLimit, PeerMoved, PeerSends, SoftLimit, TunLost
from vpnd.host.routes import MAIN_TABLE, Wanted
from vpnd.ike.outputs import ChildLimited
from vpnd.model.child import ChildSa, Path

HERE, THERE = "192.0.2.1", "192.0.2.2"
ROUTED = 'routes = ["10.2.0.0/16"]'
BACK = 'routes = ["10.1.0.0/16"]\nnegotiation = "passive"'
VERSIONS = ["ikev2", "ikev1"]


async def up(pair: Pair, version: str = "ikev2", more: str = "", theirs: str = "") -> None:
    """The tunnel is up, and what was said until then is of no interest; `theirs` is of the branch alone."""
    ike = f'{more}\n[tunnels.t.ike]\nversion = "{version}"'
    pair.configure({"t": f"{ROUTED}{ike}"}, {"t": f"{BACK}{theirs}{ike}"})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    await asyncio.sleep(PROVED)
    for machine in (pair.hq, pair.branch):
        machine.journal.events.clear()


def story(machine: Machine) -> list[Event]:
    """What the operator of a machine was told."""
    return [event for event in machine.journal.events.recent() if event.tunnel == "t"]


def kinds(machine: Machine) -> list[str]:
    return [event.event for event in story(machine)]


def text(machine: Machine, kind: str) -> str:
    """What was said once under this heading."""
    (found,) = (event.text for event in story(machine) if event.event == kind)
    return found


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_the_peer_died(pair: Pair, version: str) -> None:
    await up(pair, version, theirs='\ndpd.action = "disconnect"')
    pair.wire.cut = True
    await asyncio.sleep(45)
    assert kinds(pair.hq) == ["tunnel-lost", "tunnel-connecting"]
    assert story(pair.hq)[0].code == "E-DPD"
    assert text(pair.hq, "tunnel-lost").startswith(f"{THERE} stopped answering (dead peer detection)")
    assert "nothing heard for 30 s" in text(pair.hq, "tunnel-lost")
    assert text(pair.hq, "tunnel-connecting") == f"connecting to {THERE}"
    assert kinds(pair.branch) == ["tunnel-lost", "tunnel-waiting"]
    assert text(pair.branch, "tunnel-waiting") == "waiting for the peer"
    await asyncio.sleep(30)
    assert "does not answer" in text(pair.hq, "attempt-failed")
    assert text(pair.hq, "attempt-failed").endswith("trying again")
    pair.wire.cut = False
    await pair.until(lambda: pair.state() == ("up", "up"), 90)
    assert text(pair.hq, "tunnel-up") == f"up with {THERE}"


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_the_peer_rebooted(pair: Pair, version: str) -> None:
    await up(pair, version)
    old = pair.hq
    old.service.gateway.close()
    old.host.closed = True
    pair.hq = Machine(pair.wire, old.directory.parent / "again", HERE, 77)
    pair.hq.write(old.config.read_text())
    await pair.hq.start()
    await pair.until(lambda: pair.state() == ("up", "up") and bool(story(pair.branch)))
    assert kinds(pair.branch) == ["tunnel-lost", "tunnel-waiting", "tunnel-up"]
    assert story(pair.branch)[0].code == "E-PEER-RESTARTED"
    assert text(pair.branch, "tunnel-lost").startswith(f"{HERE} has restarted and forgotten")


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_rekeys_of_both_kinds(pair: Pair, version: str) -> None:
    await up(pair, version)
    await pair.hq.operator.rekey("t", ike=True, child=False, timeout=9)
    (spi,) = pair.hq.engine.installed
    pair.hq.engine.on_notice(SoftLimit("t", spi))
    await asyncio.sleep(3)
    assert kinds(pair.hq) == kinds(pair.branch) == ["ike-rekeyed", "rekeyed"]
    assert text(pair.hq, "ike-rekeyed") == "the IKE SA was renewed, begun here"
    assert text(pair.hq, "rekeyed") == "the ESP SAs were renewed, begun here"
    assert text(pair.branch, "ike-rekeyed") == "the IKE SA was renewed, begun by the peer"
    assert text(pair.branch, "rekeyed") == "the ESP SAs were renewed, begun by the peer"


@with_pair
async def test_the_peer_refuses_a_rekey(pair: Pair) -> None:
    """PFS with a group that the other end has not shows at once, while the first SAs still work."""
    pair.configure({"t": f"{ROUTED}\nipsec.pfs = 15"}, {"t": BACK})
    await pair.start()
    await pair.until(lambda: "rekey-failed" in kinds(pair.hq))
    assert kinds(pair.hq) == ["tunnel-connecting", "tunnel-up", "rekey-failed"]
    assert [event.code for event in story(pair.hq)] == [None, None, "E-PFS"]
    assert text(pair.hq, "rekey-failed").endswith("; the present SAs go on until they end")
    (mapping,) = pair.hq.operator.status().tunnels[0].mappings
    assert (mapping.state, mapping.reason and mapping.reason.code) == ("up", "E-PFS")
    assert pair.hq.operator.status().tunnels[0].last_error is None
    error = pair.hq.operator.why("t").error
    assert error is not None
    assert error.code == "E-PFS"
    with pytest.raises(NegotiationFailed, match="PFS") as refused:
        await pair.hq.operator.rekey("t", ike=False, child=True, timeout=9)
    assert refused.value.code == "E-PFS"
    pair.configure({"t": f"{ROUTED}\nipsec.pfs = 15"}, {"t": f"{BACK}\nipsec.pfs = 15"})
    await pair.branch.operator.reload()
    await pair.until(lambda: kinds(pair.hq)[-1] == "rekeyed", 90)
    assert pair.hq.operator.status().tunnels[0].mappings[0].reason is None


@pytest.mark.parametrize("begins", ["the one that wants it", "the other"])
@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_pfs_that_only_the_peer_wants(pair: Pair, version: str, begins: str) -> None:
    """It works from the first rekey on, in IKEv1 from the first quick mode on, and is said once."""
    ike = f'\n[tunnels.t.ike]\nversion = "{version}"'
    wants, other = f"ipsec.pfs = 14{ike}", f'ipsec.pfs = "disable"{ike}'
    hq, branch = (wants, other) if begins == "the one that wants it" else (other, wants)
    pair.configure({"t": f"{ROUTED}\n{hq}"}, {"t": f"{BACK}\n{branch}"})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    await asyncio.sleep(PROVED)
    without = pair.branch if hq == wants else pair.hq
    ((mapping,),) = (tunnel.mappings for tunnel in without.operator.status().tunnels)
    assert mapping.reason is not None
    assert (mapping.state, mapping.pfs, mapping.reason.code) == ("up", 14, "W-PFS")
    assert [event.code for event in story(without) if event.event == "pfs-of-peer"] == ["W-PFS"]
    assert "wants perfect forward secrecy (PFS) with DH group 14" in text(without, "pfs-of-peer")
    why = without.operator.why("t")
    assert why.error is not None
    assert why.error.code == "W-PFS"
    assert without.operator.status().tunnels[0].last_error is None
    await without.operator.rekey("t", ike=False, child=True, timeout=9)
    assert without.operator.status().tunnels[0].mappings[0].pfs == 14
    assert not [event for event in story(without) if (event.code or "").startswith("E-")]


@with_pair
async def test_the_peer_refuses_to_rekey_the_ike_sa(pair: Pair) -> None:
    await up(pair)
    branch = pair.branch.service.gateway
    peer = branch.tunnels["t"].policy.peer
    stronger = tuple(replace(proposal, dh=(15,)) for proposal in peer.proposals)
    with branch.turn() as now:
        branch.endpoint.set_peer(now, replace(peer, proposals=stronger))
    with pytest.raises(NegotiationFailed, match="IKE SA") as refused:
        await pair.hq.operator.rekey("t", ike=True, child=False, timeout=9)
    # The branch, whose policy has changed, asks as well, and is refused here.
    assert refused.value.code in ("E-P1-PROPOSAL", "E-P1-DH")
    assert "rekey-failed" in kinds(pair.hq)
    assert text(pair.hq, "rekey-failed").endswith("; the present IKE SA goes on until it ends")


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_a_lifetime_ended(pair: Pair, version: str) -> None:
    await up(pair, version)
    (spi,) = pair.hq.engine.installed
    pair.hq.engine.on_notice(HardLimit("t", spi))
    await pair.until(lambda: kinds(pair.hq)[-1:] == kinds(pair.branch)[-1:] == ["tunnel-up"])
    assert kinds(pair.hq) == ["tunnel-lost", "tunnel-connecting", "tunnel-up"]
    assert text(pair.hq, "tunnel-lost").startswith("an SA reached the end of its lifetime")
    assert text(pair.branch, "tunnel-lost").startswith(f"{HERE} closed the tunnel with DELETE")


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_a_flood_with_a_wrong_key(pair: Pair, version: str) -> None:
    """Each failure would say the same: it is told with the first, and that it does not end, once."""
    ike = f'\nike.version = "{version}"'
    pair.configure({"t": f"{ROUTED}{ike}"}, {"t": f"{BACK}{ike}"})
    pair.hq.write(pair.hq.config.read_text().replace("nobody has to guess", "an attacker has guessed"))
    await pair.start()
    for _ in range(12):
        await pair.until(lambda: pair.hq.service.gateway.tunnels["t"].attempt.mapping is None)
        gateway = pair.hq.service.gateway
        with gateway.input("a command", "t") as now:
            gateway.tunnels["t"].up(now)
        await asyncio.sleep(3)
    assert text(pair.branch, "peer-throttled").startswith(f"{HERE} tries again and again with a wrong key")
    assert "from now on 1 each second is looked at" in text(pair.branch, "peer-throttled")
    assert [event.code for event in story(pair.branch)].count("E-FLOOD") == 1
    assert kinds(pair.branch).count("attempt-failed") <= 3, "once a minute"


MOVED = Path(ip_address(HERE), 4500, ip_address("203.0.113.9"), 31337)


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_the_nat_of_the_peer_moved(pair: Pair, version: str) -> None:
    """ESP and IKE go there together; the peer, which did not move, is asked, answers, and both come back."""
    await up(pair, version, theirs='\nipsec.encapsulation = "udp"')
    (spi,) = pair.hq.engine.installed
    before = pair.hq.engine.installed[spi].path
    for _ in range(3):
        pair.hq.engine.on_notice(PeerMoved("t", spi, MOVED))
    assert text(pair.hq, "peer-moved") == (
        f"the peer sends from 203.0.113.9 port 31337 now, not {THERE} port 4500: followed"
    )
    assert pair.hq.engine.moved[-1] == (spi, MOVED)
    assert pair.hq.operator.status().tunnels[0].peer.address == "203.0.113.9"
    await asyncio.sleep(4)
    assert pair.hq.engine.moved[-1] == (spi, before)
    assert pair.hq.operator.status().tunnels[0].peer.address == THERE


@pytest.mark.parametrize("version", VERSIONS)
@with_pair
async def test_without_a_nat_the_peer_does_not_move(pair: Pair, version: str) -> None:
    """One captured packet, sent on from elsewhere, must not take the traffic there."""
    await up(pair, version)
    (spi,) = pair.hq.engine.installed
    pair.hq.engine.on_notice(PeerMoved("t", spi, MOVED))
    await asyncio.sleep(1)
    assert pair.hq.engine.moved == []
    assert kinds(pair.hq) == []
    assert pair.hq.operator.status().tunnels[0].peer.address == THERE


@with_pair
async def test_an_address_of_this_machine_changed(pair: Pair) -> None:
    await up(pair)
    pair.hq.host.addresses = {ip_address("192.0.2.77")}
    pair.hq.host.source = ip_address("192.0.2.77")
    pair.hq.watch.on_change()
    await asyncio.sleep(5)
    assert kinds(pair.hq) == ["address-changed", "tunnel-lost", "tunnel-connecting"]
    assert text(pair.hq, "address-changed") == f"{HERE} is gone from this machine: using 192.0.2.77"
    assert text(pair.hq, "tunnel-lost") == "the tunnel's outer address is gone from this machine"


@with_pair
async def test_the_interface_was_deleted_and_made_again(pair: Pair) -> None:
    await up(pair)
    pair.hq.engine.on_notice(TunLost("t"))
    await pair.until(lambda: kinds(pair.hq)[-1:] == ["tunnel-up"])
    assert kinds(pair.hq) == [
        "interface-lost",
        "tunnel-lost",
        "tunnel-down",
        "interface-ready",
        "tunnel-connecting",
        "tunnel-up",
    ]
    (name,) = pair.hq.host.interfaces
    assert text(pair.hq, "interface-lost") == f"the interface {name} was deleted"
    assert text(pair.hq, "tunnel-lost") == (
        f"the tunnel has no interface {name} on this machine: it was deleted"
    )
    assert text(pair.hq, "tunnel-down") == "down until this machine can carry it again"
    assert text(pair.hq, "interface-ready") == f"the interface {name} is set up"


@with_pair
async def test_the_interface_was_set_down(pair: Pair) -> None:
    await up(pair)
    host = pair.hq.host
    (name,) = host.down = set(host.interfaces)
    # The kernel takes the routes by it away as well, which is no other matter.
    host.wanted = Wanted(frozenset(r for r in host.wanted.routes if r.device is None), host.wanted.rules)
    pair.hq.watch.on_change()
    await asyncio.sleep(1)
    assert kinds(pair.hq) == ["interface-raised"]
    assert text(pair.hq, "interface-raised") == f"the interface {name} was set down: it is up again"
    assert len(pair.hq.journal.events.recent()) == 1


@with_pair
async def test_the_link_to_the_peers_went_down_and_up(pair: Pair) -> None:
    await up(pair)
    for passes in (False, False, True, True):
        pair.hq.host.passes = passes
        pair.hq.watch.on_change()
        await asyncio.sleep(2)
    told = [(event.event, event.text) for event in pair.hq.journal.events.recent()]
    assert told == [
        ("link-down", "the interface eth0, by which peers are reached, is down"),
        ("link-up", "the interface eth0, by which peers are reached, is up again"),
    ]
    assert pair.state() == ("up", "up")


@with_pair
async def test_who_sets_the_interface_down_in_a_loop_is_told_of_once_a_minute(pair: Pair) -> None:
    await up(pair)
    for _ in range(65):
        pair.hq.host.down = set(pair.hq.host.interfaces)
        pair.hq.watch.on_change()
        await asyncio.sleep(1)
    first, second = (event.text for event in story(pair.hq))
    assert second == f"{first} (59 more times meanwhile)"


@with_pair
async def test_the_routes_were_flushed(pair: Pair) -> None:
    await up(pair)
    host = pair.hq.host
    (route,) = (r for r in host.wanted.routes if r.device is None and r.table == MAIN_TABLE)
    surplus = replace(route, destination=ip_network("10.77.0.0/16"))
    host.wanted = Wanted(host.wanted.routes - {route} | {surplus}, frozenset())
    pair.hq.watch.on_change()
    await asyncio.sleep(1)
    (said,) = pair.hq.journal.events.recent()
    assert said.event == "routes-restored"
    assert said.text == f"another program removed 1 route and 2 rules of vpnd: put back ({route}, ...)"
    pair.hq.watch.on_change()
    await asyncio.sleep(1)
    assert len(pair.hq.journal.events.recent()) == 1


@with_pair
async def test_the_filter_was_flushed(pair: Pair) -> None:
    await up(pair)
    pair.hq.host.flushed = True
    await asyncio.sleep(20)
    (said,) = pair.hq.journal.events.recent()
    assert said.event == "filter-restored"
    assert (
        said.text
        == "another program removed the nftables table inet vpnd, which keeps packets in clear out: put back"
    )


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (3600, "the calendar was set ahead by 1 h: no tunnel depends on it"),
        (-3600, "the calendar was set back by 1 h: no tunnel depends on it"),
        (10 * 365.25 * 86400, "the calendar was set ahead by 3652 d: no tunnel depends on it"),
    ],
)
@with_pair
async def test_the_calendar_was_set(pair: Pair, ahead: float, said: str) -> None:
    await up(pair)
    pair.hq.clock.calendar = ahead
    await asyncio.sleep(20)
    (event,) = pair.hq.journal.events.recent()
    assert (event.event, event.text) == ("calendar-set", said)
    assert pair.state() == ("up", "up")


@with_pair
async def test_the_machine_was_suspended(pair: Pair) -> None:
    """The peer answers after it: nothing else is to be told."""
    await up(pair)
    pair.hq.clock.asleep = pair.hq.clock.calendar = 630
    await asyncio.sleep(10)
    (event,) = pair.hq.journal.events.recent()
    assert event.event == "resumed"
    assert event.text == "this machine was suspended for 10 min: the peers are asked whether they are there"


@with_pair
async def test_the_daemon_was_stopped(pair: Pair) -> None:
    await up(pair)
    stand_still(40)
    await asyncio.sleep(10)
    (event,) = pair.hq.journal.events.recent()
    assert event.event == "stood-still"
    assert event.text == "vpnd did not run for 40 s: it was stopped, or the processor had no time for it"


def stand_still(seconds: float) -> None:
    """The loop gets no processor time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    loop.jump(seconds)


@with_pair
async def test_a_reload_changed_the_tunnel(pair: Pair) -> None:
    await up(pair)
    pair.configure({"t": f"{ROUTED}\ndpd.timeout = 60"}, {"t": BACK})
    await pair.hq.operator.reload()
    assert kinds(pair.hq)[0] == "tunnel-changed"
    said = "its configuration changed (dpd.timeout): live, its interface stays"
    assert text(pair.hq, "tunnel-changed") == said
    pair.configure({"t": f'{ROUTED}\nike.version = "ikev1"'}, {"t": BACK})
    await pair.hq.operator.reload()
    assert kinds(pair.hq)[-2:] == ["tunnel-changed", "tunnel-connecting"]
    said = "its configuration changed: closed, and negotiated again"
    assert [event.text for event in story(pair.hq) if event.event == "tunnel-changed"][1:] == [said]
    pair.configure({}, {"t": BACK})
    await pair.hq.operator.reload()
    assert kinds(pair.hq)[-1] == "tunnel-removed"


@with_pair
async def test_a_reload_with_an_error_says_which(pair: Pair) -> None:
    await up(pair)
    pair.hq.write(pair.hq.config.read_text() + "\nbad = 1\nworse = 1\n")
    with pytest.raises(InvalidConfiguration):
        await pair.hq.operator.reload()
    (said,) = (event for event in pair.hq.journal.events.recent() if event.event == "reload-refused")
    assert said.text.startswith(f"nothing was changed: {pair.hq.config}:")
    assert said.text.endswith('unknown key "bad" (and 1 more)')


@with_pair
async def test_another_tunnel_takes_over(pair: Pair) -> None:
    """The tunnel that carries the route goes; the one with the next priority says what it does now."""
    second = ROUTED + "\npriority = 100"
    pair.configure({"t": ROUTED, "u": second}, {"t": BACK, "u": BACK})
    await pair.start()
    gateway = pair.hq.service.gateway
    await pair.until(lambda: {t.state.value for t in gateway.tunnels} == {"up"})
    pair.hq.journal.events.clear()
    await pair.hq.operator.down("t")
    told = [event for event in pair.hq.journal.events.recent() if event.event == "carries-traffic"]
    assert [(event.tunnel, event.text) for event in told] == [("u", "carries 10.2.0.0/16 in place of t")]


@with_pair
async def test_what_the_operators_did(pair: Pair) -> None:
    await up(pair)
    await pair.hq.operator.down("t")
    await asyncio.sleep(1)
    assert kinds(pair.hq) == ["tunnel-down"]
    assert text(pair.hq, "tunnel-down") == "down, as asked"
    assert text(pair.branch, "tunnel-lost").startswith(f"{HERE} closed the tunnel with DELETE")


@with_pair
async def test_a_pair_that_the_peer_has_begun_receives_before_it_is_sent_on(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IKEv1: from the answer on. It is installed once, and a packet on it is passed on to IKE."""
    said: list[tuple[str, int]] = []
    engine, endpoint = pair.branch.engine, pair.branch.service.gateway.endpoint
    install, use = engine.install, engine.use_outbound

    def installed(child: ChildSa, outbound: bool = True) -> None:
        said.append((f"install {outbound}", child.spi_in))
        install(child, outbound)

    def used(spi_in: int) -> None:
        said.append(("use", spi_in))
        use(spi_in)

    monkeypatch.setattr(engine, "install", installed)
    monkeypatch.setattr(engine, "use_outbound", used)
    await up(pair, "ikev1")
    (spi,) = engine.installed
    assert said == [("install False", spi), ("use", spi)]
    monkeypatch.setattr(endpoint, "peer_sends", lambda _now, name, spi_in: said.append((name, spi_in)))
    engine.on_notice(PeerSends("t", spi))
    assert said[2:] == [("t", spi)]


@with_pair
async def test_what_the_peer_lets_an_sa_carry_reaches_the_engine(pair: Pair) -> None:
    await up(pair, "ikev1")
    gateway, engine = pair.hq.service.gateway, pair.hq.engine
    (spi,) = engine.installed
    with gateway.turn():
        gateway.endpoint.outputs.append(ChildLimited("t", spi, 70_000))
    assert engine.kilobytes == {spi: 70_000}
