"""Changes with a way back, done by two whole daemons but for the kernel, which may be killed."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path

import pytest

from tests.unit.daemon.fakes import KEY, Machine, configuration
from tests.unit.daemon.pairs import Pair, with_pair
from vpnd.control.operations import Conflict, InvalidConfiguration, OperationError
from vpnd.daemon.commits import COME_UP
from vpnd.daemon.history import KEPT, History
from vpnd.daemon.state import replace_files

ROUTED = 'routes = ["10.2.0.0/16"]'
BACK = 'routes = ["10.1.0.0/16"]\nnegotiation = "passive"'
OTHER_ROUTE = 'routes = ["10.3.0.0/16"]'
OTHER_IKE = f'{ROUTED}\n[tunnels.t.ike]\nversion = "ikev1"'
TABLE = {
    "customer_gateway": {"address": "192.0.2.2"},
    "pre_shared_key": f"plain:{KEY}",
    "routes": ["10.7.0.0/16"],
}


def write(machine: Machine, rest: str, **more: str) -> None:
    """The file of hq: its tunnel `t`, and others."""
    peer = "192.0.2.2" if str(machine.address) == "192.0.2.1" else "192.0.2.1"
    machine.write(configuration("gw", str(machine.address), peer, {"t": rest, **more}))


async def up(pair: Pair) -> None:
    write(pair.hq, ROUTED)
    write(pair.branch, BACK)
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))


def routes(machine: Machine, name: str = "t") -> list[str]:
    return [str(network) for network in machine.service.gateway.tunnels[name].policy.routes]


async def killed(pair: Pair) -> Machine:
    """hq is killed and starts again on what the disk has; returns the new one."""
    old = pair.hq
    await old.operator.commits.close()
    old.wire.machines.pop(old.address)
    pair.hq = Machine(old.wire, old.directory, str(old.address), 7)
    return pair.hq


# --------------------------------------------------------------------------------- the way back


@with_pair
async def test_what_is_not_confirmed_goes_back_at_the_deadline(pair: Pair) -> None:
    await up(pair)
    operator, loop = pair.hq.operator, asyncio.get_running_loop()
    write(pair.hq, OTHER_ROUTE)
    began = loop.time()
    done = await operator.apply(20)
    assert (routes(pair.hq), done.confirm_in_s) == (["10.3.0.0/16"], 20)
    assert operator.status().gateway.confirm_in_s == 20
    await pair.until(lambda: routes(pair.hq) == ["10.2.0.0/16"])
    assert 20 <= loop.time() - began < 21
    gateway = operator.status().gateway
    assert gateway.confirm_in_s is None
    assert gateway.rolled_back is not None
    assert "not confirmed in time" in gateway.rolled_back.message
    assert (None, "rolled-back") in pair.hq.events()
    assert pair.state() == ("up", "up")


@with_pair
async def test_what_is_confirmed_stays(pair: Pair) -> None:
    await up(pair)
    operator = pair.hq.operator
    write(pair.hq, OTHER_ROUTE)
    number = (await operator.apply(20)).configuration
    assert (await operator.confirm()).configuration == number
    await asyncio.sleep(30)
    assert routes(pair.hq) == ["10.3.0.0/16"]
    gateway = operator.status().gateway
    assert (gateway.confirm_in_s, gateway.rolled_back) == (None, None)
    with pytest.raises(Conflict, match="no configuration waits"):
        await operator.confirm()


@pytest.mark.parametrize("verb", ["apply", "reload"])
@with_pair
async def test_an_apply_or_a_reload_without_a_deadline_confirms(pair: Pair, verb: str) -> None:
    await up(pair)
    operator = pair.hq.operator
    write(pair.hq, OTHER_ROUTE)
    await operator.apply(20)
    await (operator.apply(None) if verb == "apply" else operator.reload())
    await asyncio.sleep(30)
    assert routes(pair.hq) == ["10.3.0.0/16"]
    assert operator.commits.standing.pending is None
    assert [entry.confirmed for entry in operator.configurations().configurations] == [True, False]


@with_pair
async def test_another_apply_begins_the_time_again_and_goes_back_to_the_same(pair: Pair) -> None:
    await up(pair)
    operator = pair.hq.operator
    for route in (OTHER_ROUTE, 'routes = ["10.4.0.0/16"]'):
        write(pair.hq, route)
        await operator.apply(20)
        await asyncio.sleep(15)
    assert routes(pair.hq) == ["10.4.0.0/16"]
    await asyncio.sleep(6)
    assert routes(pair.hq) == ["10.2.0.0/16"]
    assert len(operator.configurations().configurations) == 1, "what was never confirmed is not kept"


@with_pair
async def test_a_tunnel_that_does_not_come_up_again_goes_back_at_once(pair: Pair) -> None:
    """The peer speaks IKEv2 alone: it does not answer."""
    await up(pair)
    loop = asyncio.get_running_loop()
    write(pair.hq, OTHER_IKE)
    began = loop.time()
    await pair.hq.operator.apply(600)
    assert pair.state()[0] != "up"
    await pair.until(lambda: pair.hq.operator.commits.standing.pending is None)
    assert loop.time() - began <= COME_UP + 1
    assert "t was up and did not come up again" in pair.hq.texts()
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert pair.hq.operator.tunnel("t").configuration["ike"]["version"] == "ikev2"


@with_pair
async def test_a_tunnel_that_the_peer_refuses_goes_back_at_once_and_says_why(pair: Pair) -> None:
    await up(pair)
    loop = asyncio.get_running_loop()
    write(pair.hq, SPD)
    began = loop.time()
    await pair.hq.operator.apply(600)
    await pair.until(lambda: pair.hq.operator.commits.standing.pending is None, 700)
    assert loop.time() - began < COME_UP
    rolled_back = pair.hq.operator.status().gateway.rolled_back
    assert rolled_back is not None
    assert "t was up and did not come up again: E-P2-PROPOSAL" in rolled_back.message


SPD = """communication = "spd-policy"
[[tunnels.t.spd]]
local = ["10.8.0.0/24"]
remote = ["10.9.0.0/24"]
[tunnels.t.ipsec]
encryption = "aes-256"
"""
"""Another communication mode, and what the peer does not accept."""


@with_pair
async def test_a_tunnel_that_is_taken_down_by_hand_does_not_bring_it_back(pair: Pair) -> None:
    await up(pair)
    write(pair.hq, OTHER_ROUTE)
    await pair.hq.operator.apply(600)
    await pair.hq.operator.down("t")
    await asyncio.sleep(2 * COME_UP)
    assert pair.hq.operator.commits.standing.pending is not None
    assert (await pair.hq.operator.confirm()).configuration


# ------------------------------------------------------------------------------------ a restart


@with_pair
async def test_the_time_goes_on_over_a_kill(pair: Pair) -> None:
    await up(pair)
    loop = asyncio.get_running_loop()
    write(pair.hq, OTHER_ROUTE)
    began = loop.time()
    await pair.hq.operator.apply(20)
    await asyncio.sleep(5)
    await killed(pair)
    await pair.hq.start()
    assert routes(pair.hq) == ["10.3.0.0/16"]
    await pair.until(lambda: routes(pair.hq) == ["10.2.0.0/16"])
    assert 20 <= loop.time() - began < 21


@with_pair
async def test_a_start_after_the_deadline_uses_the_confirmed_one(pair: Pair) -> None:
    await up(pair)
    write(pair.hq, OTHER_ROUTE)
    await pair.hq.operator.apply(20)
    await killed(pair)
    await asyncio.sleep(30)
    for _ in range(2):
        await pair.hq.start()
        assert routes(pair.hq) == ["10.2.0.0/16"], "never the other"
        rolled_back = pair.hq.operator.status().gateway.rolled_back
        assert rolled_back is not None
        assert "the files differ from what runs" in rolled_back.message
        await killed(pair)


@with_pair
async def test_a_start_uses_the_files_once_they_hold_another_version(pair: Pair) -> None:
    await up(pair)
    write(pair.hq, OTHER_ROUTE)
    await pair.hq.operator.apply(20)
    await asyncio.sleep(25)
    assert pair.hq.operator.status().gateway.rolled_back is not None
    write(pair.hq, 'routes = ["10.4.0.0/16"]')
    await killed(pair)
    await pair.hq.start()
    assert routes(pair.hq) == ["10.4.0.0/16"]
    assert pair.hq.operator.status().gateway.rolled_back is None


@pytest.mark.parametrize("verb", ["apply", "reload"])
@with_pair
async def test_the_files_are_in_force_again_by_the_next_apply_or_reload(pair: Pair, verb: str) -> None:
    await up(pair)
    operator = pair.hq.operator
    write(pair.hq, OTHER_ROUTE)
    await operator.apply(20)
    await operator.rollback(None)
    assert routes(pair.hq) == ["10.2.0.0/16"]
    await (operator.apply(None) if verb == "apply" else operator.reload())
    assert routes(pair.hq) == ["10.3.0.0/16"]
    assert operator.status().gateway.rolled_back is None
    await killed(pair)
    await pair.hq.start()
    assert routes(pair.hq) == ["10.3.0.0/16"]


@with_pair
async def test_a_key_that_stood_in_a_file_that_is_wrong_now_is_not_there_for_a_start(pair: Pair) -> None:
    """Without the tunnel its traffic would not be kept in: the start is refused as ever."""
    await up(pair)
    write(pair.hq, OTHER_ROUTE)
    await pair.hq.operator.apply(20)
    pair.hq.write("[gateway")
    await killed(pair)
    with pytest.raises(AssertionError, match="E-TOML"):
        await pair.hq.start()


@with_pair
async def test_a_start_leaves_out_what_the_files_do_not_have_either(pair: Pair) -> None:
    await up(pair)
    pair.hq.write(configuration("gw", "192.0.2.1", "192.0.2.2", {"u": OTHER_ROUTE}))
    await pair.hq.operator.apply(20)
    await killed(pair)
    for path in kept_keys(pair.hq):
        path.write_text("{")
    await asyncio.sleep(30)
    await pair.hq.start()
    assert [tunnel.name for tunnel in pair.hq.service.gateway.tunnels] == []
    assert ("t", "left-out") in pair.hq.events()
    assert "its key is gone" in pair.hq.texts()


@with_pair
async def test_a_key_file_that_is_gone_keeps_no_tunnel_from_coming_back(pair: Pair) -> None:
    """The daemon has its key."""
    write(pair.branch, BACK)
    key = pair.hq.directory / "t.psk"
    key.write_text(KEY)
    key.chmod(0o600)
    text = configuration("gw", "192.0.2.1", "192.0.2.2", {"t": ROUTED}).replace(f"plain:{KEY}", "file:t.psk")
    pair.hq.write(text)
    await pair.start()
    pair.hq.write(text.replace("10.2.0.0", "10.3.0.0"))
    await pair.hq.operator.apply(20)
    key.unlink()
    await asyncio.sleep(21)
    assert routes(pair.hq) == ["10.2.0.0/16"]
    await pair.until(lambda: pair.state() == ("up", "up"))


@with_pair
async def test_a_key_in_a_file_is_enough_for_a_return_from_files_that_are_wrong(pair: Pair) -> None:
    key = pair.hq.directory / "t.psk"
    key.parent.mkdir(exist_ok=True, parents=True)
    key.write_text(KEY)
    key.chmod(0o600)
    text = configuration("gw", "192.0.2.1", "192.0.2.2", {"t": ROUTED})
    write(pair.branch, BACK)
    pair.hq.write(text.replace(f"plain:{KEY}", "file:t.psk"))
    await pair.start()
    pair.hq.write(text.replace(f"plain:{KEY}", "file:t.psk").replace("10.2.0.0", "10.3.0.0"))
    await pair.hq.operator.apply(20)
    pair.hq.write("[gateway")
    await killed(pair)
    await pair.hq.start()
    assert routes(pair.hq) == ["10.3.0.0/16"], "it waits to be confirmed"
    await pair.until(lambda: routes(pair.hq) == ["10.2.0.0/16"])
    await pair.until(lambda: pair.state() == ("up", "up"))


# ----------------------------------------------------------------------------- keys that come back

NEW_KEY = "the key that came with it"


def kept_keys(machine: Machine) -> list[Path]:
    """The files with keys that its state directory has beside the configurations."""
    return sorted((machine.state / "configurations").glob("*.keys"))


async def up_with_a_key_in(pair: Pair, place: str) -> str:
    """Both are up, hq with its key in a file of its own or in the configuration; the key's fingerprint."""
    write(pair.branch, BACK)
    write(pair.hq, ROUTED)
    if place == "file":
        pair.hq.write(pair.hq.config.read_text().replace(f"plain:{KEY}", "file:t.psk"))
        set_key(pair, place, KEY)
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    return pair.hq.operator.tunnel("t").psk_fingerprint


def set_key(pair: Pair, place: str, key: str) -> None:
    if place == "file":
        path = pair.hq.directory / "t.psk"
        path.write_text(key)
        path.chmod(0o600)
    else:
        pair.hq.write(pair.hq.config.read_text().replace(KEY, key))


@pytest.mark.parametrize("place", ["file", "plain"])
@with_pair
async def test_a_key_that_the_peer_has_not_goes_back_to_the_one_that_worked(pair: Pair, place: str) -> None:
    before = await up_with_a_key_in(pair, place)
    operator = pair.hq.operator
    set_key(pair, place, NEW_KEY)
    await operator.apply(600)
    with_new_key = operator.tunnel("t").psk_fingerprint
    with pytest.raises(OperationError, match="key"):
        await operator.reset("t", 20)
    assert with_new_key != before
    await pair.until(lambda: operator.tunnel("t").psk_fingerprint == before)
    assert operator.commits.standing.pending is None
    await pair.until(lambda: pair.state() == ("up", "up"))


@pytest.mark.parametrize("after", [5, 30], ids=["before-the-deadline", "after-it"])
@pytest.mark.parametrize("place", ["file", "plain"])
@with_pair
async def test_the_key_comes_back_over_a_kill_too_and_stays_at_each_start(
    pair: Pair, place: str, after: int
) -> None:
    before = await up_with_a_key_in(pair, place)
    set_key(pair, place, NEW_KEY)
    await pair.hq.operator.apply(20)
    for pause in (after, 25, 1):
        await killed(pair)
        await asyncio.sleep(pause)
        await pair.hq.start()
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert pair.hq.operator.tunnel("t").psk_fingerprint == before
    assert pair.hq.operator.status().gateway.rolled_back is not None


@pytest.mark.parametrize("verb", ["confirm", "apply", "reload"])
@with_pair
async def test_no_key_is_kept_once_the_files_count(pair: Pair, verb: str) -> None:
    before = await up_with_a_key_in(pair, "plain")
    operator = pair.hq.operator
    set_key(pair, "plain", NEW_KEY)
    await operator.apply(20)
    (kept,) = kept_keys(pair.hq)
    assert kept.stat().st_mode & 0o777 == 0o600
    if verb == "confirm":
        await operator.confirm()
    else:
        await asyncio.sleep(21)
        assert kept_keys(pair.hq) == [kept]
        await (operator.apply(None) if verb == "apply" else operator.reload())
    assert kept_keys(pair.hq) == []
    assert operator.tunnel("t").psk_fingerprint != before


@with_pair
async def test_what_is_changed_over_the_api_meanwhile_keeps_its_own_key(pair: Pair) -> None:
    before = await up_with_a_key_in(pair, "plain")
    operator = pair.hq.operator
    await operator.put_tunnel("made", TABLE)
    set_key(pair, "plain", NEW_KEY)
    await operator.apply(5)
    await asyncio.sleep(6)
    await operator.put_tunnel("made", {**TABLE, "pre_shared_key": "plain:one more key, of the API"})
    made = operator.tunnel("made").psk_fingerprint
    await killed(pair)
    await pair.hq.start()
    operator = pair.hq.operator
    assert [operator.tunnel(name).psk_fingerprint for name in ("t", "made")] == [before, made]
    await operator.rollback(1)
    assert kept_keys(pair.hq) == [], "an older configuration has the keys of the files"


@with_pair
async def test_a_credential_is_not_written_down(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await up_with_a_key_in(pair, "file")
    operator = pair.hq.operator
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(pair.hq.directory))
    pair.hq.write(pair.hq.config.read_text().replace("file:t.psk", "credential:t.psk"))
    await operator.apply(None)
    pair.hq.write(pair.hq.config.read_text().replace("credential:t.psk", f"plain:{NEW_KEY}"))
    await operator.apply(5)
    (kept,) = kept_keys(pair.hq)
    assert json.loads(kept.read_text())["tunnels"] == {}
    await asyncio.sleep(6)
    assert operator.tunnel("t").psk_fingerprint == before


# ------------------------------------------------------------------------------------- rollback


@with_pair
async def test_rollback_by_number_and_again(pair: Pair) -> None:
    await up(pair)
    operator = pair.hq.operator
    for number in (3, 4, 5):
        write(pair.hq, f'routes = ["10.{number}.0.0/16"]')
        await operator.apply(None)
    planned = await operator.plan(3)
    assert [change.key for change in planned.tunnels[0].keys] == ["routes"]
    done = await operator.rollback(3)
    assert [one.model_dump() for one in done.tunnels] == [one.model_dump() for one in planned.tunnels]
    assert routes(pair.hq) == ["10.2.0.0/16"]
    await operator.rollback(None)
    assert routes(pair.hq) == ["10.5.0.0/16"], "the one before that"
    assert operator.status().gateway.rolled_back is None, "the files hold that"
    with pytest.raises(Conflict, match="of 19 before"):
        await operator.rollback(19)


@with_pair
async def test_keys_are_not_kept_and_not_rolled_back(pair: Pair) -> None:
    await up(pair)
    operator = pair.hq.operator
    before = operator.tunnel("t").psk_fingerprint
    write(pair.hq, OTHER_ROUTE)
    pair.hq.write(pair.hq.config.read_text().replace(KEY, "another key, of the moment"))
    await operator.apply(None)
    await operator.rollback(1)
    assert routes(pair.hq) == ["10.2.0.0/16"]
    assert operator.tunnel("t").psk_fingerprint != before
    kept = list((pair.hq.state / "configurations").iterdir())
    assert len(kept) == 4
    for file in kept:
        assert file.stat().st_mode & 0o777 == 0o600
        assert KEY not in file.read_text()
        assert "another key" not in file.read_text()
    assert (pair.hq.state / "configurations").stat().st_mode & 0o777 == 0o700


@with_pair
async def test_a_tunnel_whose_key_is_gone_is_refused_and_named(pair: Pair) -> None:
    await up(pair)
    operator = pair.hq.operator
    pair.hq.write(configuration("gw", "192.0.2.1", "192.0.2.2", {"u": OTHER_ROUTE}))
    await operator.apply(None)
    with pytest.raises(Conflict, match="has t, which cannot be used any more: its key is gone") as refused:
        await operator.rollback(1)
    assert refused.value.code == "E-LEFT-OUT"
    assert [tunnel.name for tunnel in pair.hq.service.gateway.tunnels] == ["u"]


@with_pair
async def test_a_tunnel_that_was_removed_comes_back_with_its_key_at_the_deadline(pair: Pair) -> None:
    """The daemon still has it, though the file has not."""
    await up(pair)
    pair.hq.write(configuration("gw", "192.0.2.1", "192.0.2.2", {}))
    await pair.hq.operator.apply(20)
    await asyncio.sleep(21)
    await pair.until(lambda: pair.state() == ("up", "up"))


@with_pair
async def test_what_an_operator_has_disabled_stays_so_on_the_way_back(pair: Pair) -> None:
    await up(pair)
    operator = pair.hq.operator
    write(pair.hq, OTHER_ROUTE)
    await operator.apply(20)
    await operator.disable("t")
    await asyncio.sleep(21)
    assert routes(pair.hq) == ["10.2.0.0/16"]
    await operator.put_tunnel("u", TABLE)
    for _ in range(2):
        assert pair.state()[0] == "down"
        await killed(pair)
        await pair.hq.start()
    await pair.hq.operator.enable("t")
    await pair.until(lambda: pair.state() == ("up", "up"))


# ------------------------------------------------------------------------------ over the API


@with_pair
async def test_nothing_is_changed_over_the_api_beside_what_waits(pair: Pair) -> None:
    await up(pair)
    operator = pair.hq.operator
    write(pair.hq, OTHER_ROUTE)
    await operator.apply(20)
    for change in (
        operator.put_tunnel("u", TABLE),
        operator.delete_tunnel("t"),
        operator.put_customer_gateway("x", {"address": "192.0.2.9"}),
        operator.delete_customer_gateway("other"),
    ):
        with pytest.raises(Conflict) as refused:
            await change
        assert refused.value.code == "E-UNCONFIRMED"


@with_pair
async def test_a_tunnel_of_the_api_is_changed_without_the_files_that_were_rolled_back(pair: Pair) -> None:
    await up(pair)
    write(pair.hq, OTHER_ROUTE)
    await pair.hq.operator.apply(20)
    await asyncio.sleep(21)
    await pair.hq.operator.put_tunnel("u", TABLE)
    assert (routes(pair.hq), routes(pair.hq, "u")) == (["10.2.0.0/16"], ["10.7.0.0/16"])
    for _ in range(2):
        await killed(pair)
        await pair.hq.start()
        assert (routes(pair.hq), routes(pair.hq, "u")) == (["10.2.0.0/16"], ["10.7.0.0/16"])
        assert pair.hq.operator.status().gateway.rolled_back is not None
    await pair.hq.operator.delete_tunnel("u")
    assert routes(pair.hq) == ["10.2.0.0/16"]
    await pair.hq.operator.apply(None)
    assert routes(pair.hq) == ["10.3.0.0/16"]


@with_pair
async def test_the_last_20_are_kept(pair: Pair) -> None:
    await up(pair)
    for number in range(25):
        await pair.hq.operator.put_tunnel("u", {**TABLE, "priority": number})
    kept = pair.hq.operator.configurations().configurations
    assert [entry.back for entry in kept] == list(range(KEPT))
    assert len(list((pair.hq.state / "configurations").glob("[0-9]*.json"))) == KEPT
    assert (kept[0].what, kept[0].running, kept[0].confirmed) == ("tunnel u", True, True)


# ------------------------------------------------------------------------------------- refusals


@with_pair
async def test_wrong_files_change_nothing(pair: Pair) -> None:
    await up(pair)
    pair.hq.write(pair.hq.config.read_text().replace("10.2.0.0/16", "10.2.0.0/33"))
    with pytest.raises(InvalidConfiguration):
        await pair.hq.operator.plan(None)
    assert (None, "reload-refused") not in pair.hq.events(), "nobody wanted to change anything"
    for refused in (pair.hq.operator.apply(None), pair.hq.operator.apply(20)):
        with pytest.raises(InvalidConfiguration):
            await refused
    assert (routes(pair.hq), pair.state()) == (["10.2.0.0/16"], ("up", "up"))
    assert pair.hq.operator.commits.standing.pending is None


@with_pair
async def test_without_a_disk_there_is_no_way_back_and_a_reload_all_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await up(pair)
    write(pair.hq, OTHER_ROUTE)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vpnd.daemon.history.replace_files", refuse)
    with pytest.raises(OperationError, match="no way back: No space left") as refused:
        await pair.hq.operator.apply(20)
    assert refused.value.code == "E-STATE"
    assert routes(pair.hq) == ["10.2.0.0/16"]
    await pair.hq.operator.apply(None)
    assert routes(pair.hq) == ["10.3.0.0/16"]
    assert "cannot be kept: No space left" in pair.hq.texts()
    monkeypatch.undo()
    write(pair.hq, 'routes = ["10.4.0.0/16"]')
    await pair.hq.operator.apply(20)
    await asyncio.sleep(21)
    assert routes(pair.hq) == ["10.3.0.0/16"], "what ran, though it was not kept then"


@with_pair
async def test_what_is_broken_on_the_disk_is_as_if_it_were_not_there(pair: Pair) -> None:
    await up(pair)
    directory = pair.hq.state / "configurations"
    for path in directory.iterdir():
        path.write_text("{")
    await killed(pair)
    await pair.hq.start()
    assert routes(pair.hq) == ["10.2.0.0/16"]
    assert len(History(pair.hq.state).numbers()) == 2
    standing = json.loads((directory / "standing.json").read_text())
    assert standing == {"confirmed": 2, "pending": None, "rolled_back": None}


def test_a_directory_without_anything_has_no_configurations(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.numbers() == []
    assert history.standing().confirmed is None


# ------------------------------------------------------------------------ killed while it writes


class Killed(BaseException):
    """The process is gone; nothing that catches errors may go on."""


@pytest.mark.parametrize("late", [False, True], ids=["before-the-deadline", "after-it"])
@pytest.mark.parametrize("written", [False, True], ids=["unwritten", "written"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
@with_pair
async def test_killed_at_each_write(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, number: int, written: bool, late: bool
) -> None:
    """Of `apply` the configuration, then the keys to go back to, then what counts; of the return what counts.

    Before the third is written nothing has changed, and a start takes the files, as ever.
    """
    await up(pair)
    write(pair.hq, OTHER_ROUTE)
    writes = 0

    def replace(files: dict[Path, object]) -> None:
        nonlocal writes
        writes += 1
        if writes < number or (writes == number and written):
            replace_files(files)  # type: ignore[arg-type] # as it came
        if writes >= number:
            raise Killed

    monkeypatch.setattr("vpnd.daemon.history.replace_files", replace)
    try:
        await pair.hq.operator.apply(20)
        await asyncio.sleep(21)
    except Killed:
        pass
    assert writes >= number
    await killed(pair)
    monkeypatch.setattr("vpnd.daemon.history.replace_files", replace_files)
    counted = number > 3 or (number == 3 and written)
    await asyncio.sleep(30 if late else 0)
    await pair.hq.start()
    if not counted:
        assert routes(pair.hq) == ["10.3.0.0/16"]
        assert pair.hq.operator.commits.standing.pending is None
        return
    if not late and number == 3:
        assert routes(pair.hq) == ["10.3.0.0/16"]
        await asyncio.sleep(21)
    assert routes(pair.hq) == ["10.2.0.0/16"]
    assert pair.hq.operator.status().gateway.rolled_back is not None
    await pair.until(lambda: pair.state() == ("up", "up"))
