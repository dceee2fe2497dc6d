"""The API's tunnels: proposed, checked before anything is written, kept, changed without the key, removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.files import GATEWAY, TUNNEL, write
from vpnd.config.load import load, load_with, load_without
from vpnd.config.store import TunnelStore

TABLE: dict[str, object] = {
    "customer_gateway": {"address": "198.51.100.9"},
    "pre_shared_key": "plain:a-key-that-came-over-the-api",
    "routes": ["10.9.0.0/16"],
    "ike": {"encryption": ["aes-256", "aes-128"]},
}


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return write(tmp_path, GATEWAY + TUNNEL)


@pytest.fixture
def store(tmp_path: Path) -> TunnelStore:
    return TunnelStore(tmp_path / "state")


def test_a_tunnel_is_checked_before_it_is_kept(tmp_path: Path, main: Path, store: TunnelStore) -> None:
    proposed = store.propose("b", TABLE)
    checked = load_with(main, tmp_path / "state", proposed.source)
    assert checked.problems == ()
    assert list(checked.configuration.tunnels) == ["a", "b"]
    assert not (tmp_path / "state").exists()
    store.write(proposed)
    kept = load(main, tmp_path / "state")
    assert kept.problems == ()
    secret = kept.configuration.tunnels["b"].secret
    assert secret is not None
    assert secret.reveal() == b"a-key-that-came-over-the-api"
    assert kept.configuration.tunnels["b"].table == checked.configuration.tunnels["b"].table


def test_the_key_is_in_a_file_of_its_own(tmp_path: Path, store: TunnelStore) -> None:
    store.write(store.propose("b", TABLE))
    files = sorted((tmp_path / "state" / "tunnels.d").iterdir())
    assert [f.name for f in files] == ["b.psk", "b.toml"]
    assert all(f.stat().st_mode & 0o777 == 0o600 for f in files)
    assert "a-key-that" not in files[1].read_text()
    assert files[0].parent.stat().st_mode & 0o777 == 0o700


def test_an_error_in_a_proposal_names_the_key_and_no_line(
    tmp_path: Path, main: Path, store: TunnelStore
) -> None:
    source = store.propose(
        "b", TABLE | {"routes": ["10.9.0.0/16", "127.0.0.0/8"], "ike": {"lifetime": "1"}}
    ).source
    problems = load_with(main, tmp_path / "state", source).errors
    assert [(p.file, p.line, p.code, p.key) for p in problems] == [
        ("request", None, "E-PREFIX", "tunnels.b.routes[1]"),
        ("request", None, "E-TYPE", "tunnels.b.ike.lifetime"),
    ]


def test_a_change_without_the_key_keeps_it(tmp_path: Path, main: Path, store: TunnelStore) -> None:
    store.write(store.propose("b", TABLE))
    changed = store.propose("b", {k: v for k, v in TABLE.items() if k != "pre_shared_key"} | {"priority": 7})
    assert load_with(main, tmp_path / "state", changed.source).problems == ()
    store.write(changed)
    after = load(main, tmp_path / "state").configuration.tunnels["b"]
    assert after.table.priority == 7
    assert after.secret is not None
    assert after.secret.reveal() == b"a-key-that-came-over-the-api"


def test_a_new_tunnel_without_a_key_is_refused(tmp_path: Path, main: Path, store: TunnelStore) -> None:
    source = store.propose("b", {k: v for k, v in TABLE.items() if k != "pre_shared_key"}).source
    assert [p.code for p in load_with(main, tmp_path / "state", source).errors] == ["E-MISSING"]


def test_a_tunnel_of_a_file_cannot_be_made_again(tmp_path: Path, main: Path, store: TunnelStore) -> None:
    (problem,) = load_with(main, tmp_path / "state", store.propose("a", TABLE).source).errors
    assert problem.code == "E-DUPLICATE"
    assert str(main) in problem.message


def test_a_key_elsewhere_leaves_none_behind(tmp_path: Path, store: TunnelStore) -> None:
    store.write(store.propose("b", TABLE))
    key = write(tmp_path, "another-key-of-good-length\n", "key")
    store.write(store.propose("b", TABLE | {"pre_shared_key": f"file:{key}"}))
    assert not store.key_path("b").exists()


@pytest.mark.parametrize("name", ["b", "with space", "分支 1", "..", "a.b%2F"])
def test_any_name_is_a_file_of_its_own(tmp_path: Path, main: Path, store: TunnelStore, name: str) -> None:
    store.write(store.propose(name, TABLE))
    assert store.path(name).parent == tmp_path / "state" / "tunnels.d"
    assert store.holds(name)
    if name != "..":
        assert name in load(main, tmp_path / "state").configuration.tunnels
    store.remove(name)
    assert list((tmp_path / "state" / "tunnels.d").iterdir()) == []


def test_what_would_be_left(tmp_path: Path, main: Path, store: TunnelStore) -> None:
    store.write(store.propose("b", TABLE))
    assert list(load_without(main, tmp_path / "state", store.path("b")).configuration.tunnels) == ["a"]
    assert store.holds("b")


def test_a_key_that_is_not_text_is_refused(tmp_path: Path, main: Path, store: TunnelStore) -> None:
    for value in (None, 5, "", "plain:", "nonsense", ["plain:x"]):
        source = store.propose("b", TABLE | {"pre_shared_key": value}).source
        assert not load_with(main, tmp_path / "state", source).ok, value
