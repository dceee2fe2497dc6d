"""The flight recorder: what is kept of the IKE messages, how much that takes, and what a restart leaves."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from pathlib import Path

import pytest

from tests.unit.daemon.fakes import KEY, Machine
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_stories import up
from vpnd.daemon.events.recorder import (
    ALL_BYTES,
    DIRECTORY,
    KEPT_MESSAGES,
    KEPT_OF_STRANGERS,
    KEPT_SIGNS,
    LONGEST_FILE,
    TUNNEL_BYTES,
    WRITE_AFTER,
    Recorder,
)
from vpnd.ike.outputs import LadderLine

REKEY = "CREATE_CHILD_SA {} {{N(REKEY_SA), SA, Ni, TSi, TSr}}"
DETAIL = (
    "N(REKEY_SA): ESP c0ffee00",
    "SA 1: ESP aes-128/sha256 spi 0badcafe",
    "TSi: 10.1.0.0/24",
    "TSr: 10.2.0.0/24",
)


def recorder(state: Path | None = None, first: int = 0, *tunnels: str) -> Recorder:
    made = Recorder(state, first)
    for name in tunnels or ("t",):
        made.admit(name)
    return made


def said(kept: Recorder, tunnel: str = "t") -> list[str]:
    return [one.line.text for one in kept.recorded(tunnel)]


def rekey(kept: Recorder, number: int, tunnel: str = "t", detail: tuple[str, ...] = DETAIL) -> None:
    kept.add(float(number), LadderLine(tunnel, number % 2 == 0, REKEY.format(number), 320, detail))


def write(kept: Recorder) -> None:
    kept.write(kept.take())


def test_a_thousand_tunnels_keep_their_last_messages_within_the_bound() -> None:
    names = [f"tunnel-{number}" for number in range(20)]
    kept = recorder(None, 0, *names)
    for name in names:
        for number in range(KEPT_MESSAGES + 20):
            rekey(kept, number, name)
    assert 0 < kept.size * 1000 / len(names) <= ALL_BYTES
    assert {len(kept.recorded(name)) for name in names} == {KEPT_MESSAGES}


def test_a_peer_of_long_messages_fills_neither_its_tunnel_nor_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vpnd.daemon.events.recorder.ALL_BYTES", 3 * TUNNEL_BYTES)
    names = [f"t{number}" for number in range(8)]
    kept = recorder(None, 0, "quiet", *names)
    rekey(kept, 0, "quiet")
    for name in names:
        for number in range(KEPT_MESSAGES):
            rekey(kept, number, name, ("x" * 4000,))
            assert kept.size <= 3 * TUNNEL_BYTES
    assert len(kept.recorded("quiet")) == 1
    assert all(said(kept, name)[-1] == REKEY.format(KEPT_MESSAGES - 1) for name in names)


def test_a_restart_keeps_the_messages_and_their_order(tmp_path: Path) -> None:
    before = recorder(tmp_path)
    for number in range(5):
        rekey(before, number)
    write(before)
    after = recorder(tmp_path, 1000)
    assert said(after) == [REKEY.format(number) for number in range(5)]
    rekey(after, 5)
    assert said(after) == [REKEY.format(number) for number in range(6)]
    assert after.recorded("t")[0].line.detail == DETAIL
    assert [one.line.text for one in [*after.recorded("t")][-1:]] == [
        line.text for line in after.present("t")
    ]
    numbers = [one.number for one in after.recorded("t")]
    assert numbers == sorted(numbers)
    write(after)
    write(after)
    assert said(recorder(tmp_path, 2000)) == [REKEY.format(number) for number in range(6)]


def test_nobody_else_reads_the_files(tmp_path: Path) -> None:
    kept = recorder(tmp_path / "state")
    rekey(kept, 1)
    write(kept)
    (file,) = (tmp_path / "state" / DIRECTORY).iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_file_that_is_cut_off_or_damaged_costs_those_lines_only(tmp_path: Path) -> None:
    kept = recorder(tmp_path)
    for number in range(4):
        rekey(kept, number)
    write(kept)
    (file,) = (tmp_path / DIRECTORY).iterdir()
    head, first, second, third, fourth = file.read_bytes().splitlines(keepends=True)
    noise = b'{"a": 1}\n[]\n\x00\xff\n[1,2,3,4,5,6,99]\n["a",1e999,1,1,"x",[],0]\n[1,1,1,1,1,1,1]\n'
    file.write_bytes(head + first + second[:20] + b"\n" + noise + third + fourth[:-9])
    assert said(recorder(tmp_path, 1000)) == [REKEY.format(0), REKEY.format(2)]
    file.write_bytes(b"")
    assert said(recorder(tmp_path, 1000)) == []


def test_a_file_does_not_grow_without_end(tmp_path: Path) -> None:
    kept = recorder(tmp_path)
    largest = 0
    for number in range(8000):
        rekey(kept, number)
        if number % 50 == 0:
            write(kept)
            (file,) = (tmp_path / DIRECTORY).iterdir()
            largest = max(largest, file.stat().st_size)
    write(kept)
    assert largest <= LONGEST_FILE + 50 * 400
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    texts = [REKEY.format(number) for number in range(8000 - KEPT_MESSAGES, 8000)]
    assert said(kept) == said(recorder(tmp_path, 10_000)) == texts
    assert json.loads(file.read_bytes().splitlines()[0]) == {"tunnel": "t"}


def test_signs_of_life_and_strangers_wait_for_another_message_to_be_written(tmp_path: Path) -> None:
    kept = recorder(tmp_path)
    for _ in range(100):
        kept.add(1.0, LadderLine("t", True, "INFORMATIONAL 2 {}", 80))
        kept.add(1.0, LadderLine("t", False, "IKE_SA_INIT 0 {SA, KEi, Ni}", 400, stranger=True))
    assert kept.take() == {}
    rekey(kept, 1)
    write(kept)
    assert len(said(recorder(tmp_path, 1000))) == KEPT_SIGNS + KEPT_OF_STRANGERS + 1
    kept.add(1.0, LadderLine("t", True, "INFORMATIONAL 3 {}", 80))
    kept.write(kept.take(everything=True))
    assert said(recorder(tmp_path, 1000))[-1] == "INFORMATIONAL 3 {}"


def test_a_removed_tunnel_leaves_no_recording(tmp_path: Path) -> None:
    kept = recorder(tmp_path)
    rekey(kept, 1)
    taken = kept.take()
    kept.forget("t")
    # What was under way is written all the same, and the answer to our DELETE comes when nothing is left.
    kept.write(taken)
    kept.tidy(taken)
    rekey(kept, 2)
    kept.write(kept.take(everything=True))
    assert list((tmp_path / DIRECTORY).iterdir()) == []
    assert (said(kept), kept.size) == ([], 0)


@with_pair
async def test_a_tunnel_that_is_removed_while_nothing_runs_leaves_no_recording(pair: Pair) -> None:
    await up(pair)
    await asyncio.sleep(WRITE_AFTER + 1)
    directory = pair.hq.state / DIRECTORY
    assert len(list(directory.iterdir())) == 1
    again = Machine(pair.wire, pair.hq.directory, "192.0.2.3", 3)
    await again.start()
    assert len(list(directory.iterdir())) == 1, "it is configured still"
    await again.stop()
    again = Machine(pair.wire, pair.hq.directory, "192.0.2.4", 4)
    text = again.config.read_text()
    again.write(text[: text.index("[tunnels.")])
    await again.start()
    assert list(directory.iterdir()) == []
    await again.stop()


@pytest.mark.parametrize("name", ["a/../../b", "." * 60, "\N{CJK UNIFIED IDEOGRAPH-9AA8}" * 60])
def test_any_name_has_a_file_of_its_own(tmp_path: Path, name: str) -> None:
    kept = recorder(tmp_path, 0, name)
    rekey(kept, 1, name)
    write(kept)
    assert len(list((tmp_path / DIRECTORY).iterdir())) == 1
    assert len(said(recorder(tmp_path, 10, name), name)) == 1


@with_pair
async def test_what_a_daemon_that_is_killed_has_said_is_there_at_the_next_start(pair: Pair) -> None:
    await up(pair)
    await asyncio.sleep(WRITE_AFTER + 1)
    before = [line.text for line in pair.hq.operator.trace("t").lines]
    # It is not stopped: what is on the disk is all that the next one has.
    again = Machine(pair.wire, pair.hq.directory, "192.0.2.3", 3)
    again.journal.recorder.admit("t")
    assert [line.text for line in again.journal.traced("t")] == before
    assert any("IKE_AUTH" in text for text in before)
    assert again.journal.ladder("t") == []


@with_pair
async def test_another_configuration_of_a_tunnel_goes_on_with_its_record(pair: Pair) -> None:
    await up(pair)
    pair.hq.host.renames = False  # so that it is made again
    numbers = [line.id for line in pair.hq.operator.trace("t").lines]
    pair.hq.write(pair.hq.config.read_text().replace("[tunnels.t]", "[tunnels.t]\ninterface = 'other'"))
    await pair.hq.operator.reload()
    lines = pair.hq.operator.trace("t").lines
    assert [line.id for line in lines[: len(numbers)]] == numbers
    assert len(pair.hq.journal.ladder("t")) < len(lines)


@with_pair
async def test_a_full_disk_is_said_once_and_costs_nothing_else(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(taken: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pair.hq.journal.recorder, "write", full)
    warned: list[str] = []
    monkeypatch.setattr(pair.hq.journal, "warn", lambda tunnel, text, **facts: warned.append(text))
    await up(pair)
    await asyncio.sleep(WRITE_AFTER + 1)
    assert "IKE messages cannot be kept over a restart: No space left on device" in warned
    assert pair.state() == ("up", "up")
    assert pair.hq.operator.trace("t").lines


@with_pair
async def test_no_secret_in_a_recording_or_a_bundle(pair: Pair) -> None:
    await up(pair)
    await pair.hq.operator.rekey("t", ike=True, child=True, timeout=10)
    await asyncio.sleep(WRITE_AFTER + 1)
    bundle = await pair.hq.operator.bundle(())
    names = {file.name for file in bundle.files}
    assert {"versions.json", "status.json", "events.jsonl", "counters.json", "host.txt"} < names
    assert {f"tunnels/t/{what}.json" for what in ("show", "values", "why", "trace")} < names
    assert bundle.left_out == []
    files = (pair.hq.state / DIRECTORY).iterdir()
    said = "".join([*(file.read_text() for file in files), *(file.text for file in bundle.files)])
    assert "CREATE_CHILD_SA" in said
    for secret in secrets_of(pair):
        for shown in shown_as(secret):
            assert shown not in said


def secrets_of(pair: Pair) -> list[bytes]:
    """The pre-shared key, and every key of the SAs of both ends."""
    found = [KEY.encode()]
    for machine in (pair.hq, pair.branch):
        for child in machine.engine.installed.values():
            for keys in (child.keys_in, child.keys_out):
                found += [keys.encryption.reveal(), keys.integrity.reveal()]
    return [secret for secret in found if secret]


def shown_as(secret: bytes) -> list[str]:
    """Raw, hex, base64, repr."""
    encoded = [base64.b64encode(bytes(shift) + secret)[4:-4].decode() for shift in range(3)]
    return [secret.decode("latin-1"), secret.hex(), secret.hex().upper(), repr(secret)[2:-1], *encoded]


@with_pair
async def test_a_bundle_without_room_names_the_tunnels_that_it_leaves_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await up(pair)
    monkeypatch.setattr("vpnd.daemon.bundling.MOST_BYTES", 0)
    assert (await pair.hq.operator.bundle(())).left_out == ["t"]
