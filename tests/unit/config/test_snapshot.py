"""Configurations as they are kept: without keys, and whole again with those of the moment."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.unit.config.files import GATEWAY, KEY, TUNNEL, load_text, write
from tests.unit.config.random_configurations import KEYS, Tables, tunnels
from vpnd.config.compile import compile_gateway
from vpnd.config.configuration import Findings, Source
from vpnd.config.load import check, load
from vpnd.config.snapshot import FINGERPRINT, Snapshot, Unreadable
from vpnd.model.secret import Secret

PLAIN = KEY.partition("plain:")[2].strip('"')


def again(snapshot: Snapshot) -> Snapshot:
    """What is read of what was kept."""
    return Snapshot.from_document(json.loads(snapshot.text()))


def of(tables: Tables, key: str = KEYS[0]) -> Source:
    """A main file with these tunnels."""
    common = {"customer_gateway": "branch", "pre_shared_key": f"plain:{key}"}
    whole = {
        "gateway": {"name": "hq", "address": "192.0.2.1"},
        "customer_gateways": {"branch": {"address": "198.51.100.1"}},
        "tunnels": {name: {**common, **table} for name, table in tables.items()},
    }
    return Source("vpnd.toml", whole, path=Path("/etc/vpnd/vpnd.toml"), main=True, private=True)


@settings(max_examples=30)
@given(tunnels(), tunnels())
def test_what_was_kept_is_the_same_with_the_keys_of_the_files(a: Tables, b: Tables) -> None:
    """Whatever the files hold now: the keys are theirs, everything else is of what was kept."""
    loaded = check([of(a)], Findings())
    assert loaded.ok, loaded.errors
    kept = again(Snapshot.of(loaded.sources))
    assert kept.text() == Snapshot.of(loaded.sources).text()
    assert not any(key in kept.text() for key in KEYS)
    files = of({name: b.get(name, a[name]) for name in a}, KEYS[1])
    restored = check(kept.with_keys([files]), Findings())
    assert compile_gateway(restored) == compile_gateway(check([of(a, KEYS[1])], Findings()))


@settings(max_examples=30)
@given(tunnels(), tunnels())
def test_two_have_one_digest_if_they_are_the_same_but_for_keys(a: Tables, b: Tables) -> None:
    first, second = Snapshot.of([of(a)]), Snapshot.of([of(b, KEYS[1])])
    assert (first.digest == second.digest) == (list(a.items()) == list(b.items()))
    assert again(first).digest == first.digest


def test_a_key_in_a_file_is_named_and_one_in_the_table_is_not(tmp_path: Path) -> None:
    write(tmp_path, "the key of b, long enough\n", "b.psk")
    text = (
        GATEWAY
        + TUNNEL
        + TUNNEL.replace("tunnels.a", "tunnels.b").replace(KEY, 'pre_shared_key = "file:b.psk"')
    )
    loaded = load_text(tmp_path, text)
    assert loaded.ok
    (source,) = json.loads(again(Snapshot.of(loaded.sources)).text())
    tables = source["tables"]["tunnels"]
    assert tables["a"]["pre_shared_key"] == FINGERPRINT + Secret(PLAIN.encode()).fingerprint()
    assert tables["b"]["pre_shared_key"] == "file:b.psk"


def test_a_key_that_another_file_names_now_is_found_from_there(tmp_path: Path) -> None:
    kept = Snapshot.of(load_text(tmp_path, GATEWAY + TUNNEL).sources)
    write(tmp_path, GATEWAY)
    write(tmp_path / "tunnels.d", "the key of a, long enough\n", "a.psk")
    write(tmp_path, TUNNEL.replace(KEY, 'pre_shared_key = "file:a.psk"'), "tunnels.d/a.toml")
    files = load(tmp_path / "vpnd.toml").sources
    loaded = check(kept.with_keys(files), Findings())
    assert loaded.ok
    assert loaded.configuration.tunnels["a"].secret == Secret(b"the key of a, long enough")


def test_without_its_key_a_tunnel_is_an_error_unless_the_key_is_in_memory(tmp_path: Path) -> None:
    kept = Snapshot.of(load_text(tmp_path, GATEWAY + TUNNEL).sources)
    assert [p.code for p in check(kept.with_keys([]), Findings()).errors] == ["E-PSK-FORM"]
    secret = Secret(b"the key in memory, long enough")
    loaded = check(kept.with_keys([], {"a": (secret, None)}), Findings())
    assert loaded.configuration.tunnels["a"].secret == secret
    assert check(kept.without(["a"]).with_keys([]), Findings()).ok


def test_times_of_toml_are_times_again() -> None:
    tables = {
        "tunnels": {"a": {"at": datetime(2026, 12, 31, tzinfo=UTC), "on": date(2026, 1, 2), "in": time(1, 2)}}
    }
    (source,) = again(Snapshot.of([Source("x", tables)])).sources
    assert source.tables == tables


@pytest.mark.parametrize(
    "document", [None, 7, [7], [{}], [{"file": "x", "path": None, "main": 1, "tables": 7}]]
)
def test_what_is_no_snapshot_is_refused(document: object) -> None:
    with pytest.raises(Unreadable):
        Snapshot.from_document(document)
