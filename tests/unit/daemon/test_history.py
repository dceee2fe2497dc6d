"""What is kept of the configurations that were in force, on the disk and beside it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vpnd.config.configuration import Source
from vpnd.config.snapshot import Snapshot, Unreadable
from vpnd.daemon.history import History

AT = datetime(2026, 11, 29, tzinfo=UTC)


def of(**table: object) -> Snapshot:
    tables = {"tunnels": {"t": {"pre_shared_key": "plain:a key", **table}}}
    return Snapshot.of(
        [Source(label="vpnd.toml", tables=tables, path=Path("/etc/vpnd/vpnd.toml"), main=True)]
    )


@pytest.mark.parametrize("again", [False, True], ids=["by who kept it", "after a start"])
def test_the_same_is_found(tmp_path: Path, again: bool) -> None:
    history = History(tmp_path)
    entry = history.keep(of(priority=1), AT, "apply", None)
    if again:
        history = History(tmp_path)
    found = history.same(entry.number, of(priority=1))
    assert found is not None
    assert (found.number, found.at, found.what) == (entry.number, AT, "apply")
    assert found.snapshot.digest == entry.snapshot.digest
    assert history.same(entry.number, of(priority=2)) is None
    (history.path / f"{entry.number}.json").unlink()
    with pytest.raises(Unreadable):
        history.same(entry.number, of(priority=1))
    history.path = tmp_path / ("n" * 300)
    with pytest.raises(Unreadable, match="File name too long"):
        history.same(entry.number, of(priority=1))


def test_an_older_one_is_read(tmp_path: Path) -> None:
    history = History(tmp_path)
    first = history.keep(of(priority=1), AT, "start", None)
    history.keep(of(priority=2), AT, "apply", first.number)
    assert history.same(first.number, of(priority=1)) is not None
    assert history.same(first.number, of(priority=2)) is None


def test_what_is_written_is_json_with_a_time_and_no_key(tmp_path: Path) -> None:
    history = History(tmp_path)
    entry = history.keep(of(note="a \udcff \U0001f512", retire_after=AT), AT, 'a "tunnel"', None)
    text = (history.path / f"{entry.number}.json").read_text()
    document = json.loads(text)
    assert (document["format"], document["what"]) == (1, 'a "tunnel"')
    assert "a key" not in text
    assert history.read(entry.number).snapshot.text() == entry.snapshot.text()
