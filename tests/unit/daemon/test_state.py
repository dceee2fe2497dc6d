"""The files of tunnels that were made through the API."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpnd.daemon.state import StateDirectory, to_toml

PLAIN = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])), st.integers(-(2**63), 2**63 - 1), st.booleans()
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
VALUES = st.one_of(
    PLAIN, st.lists(PLAIN), st.dictionaries(KEYS, st.one_of(PLAIN, st.lists(PLAIN)), max_size=3)
)
RULES = st.lists(st.dictionaries(KEYS, st.lists(PLAIN, max_size=3), min_size=1, max_size=2), max_size=3)


@given(st.dictionaries(KEYS, VALUES, max_size=5), RULES)
def test_what_is_written_is_read(table: dict[str, object], rules: list[dict[str, object]]) -> None:
    tables = {"tunnels": {"a b/c": {**table, "spd": rules}}}
    assert tomllib.loads(to_toml(tables)) == tables


def test_what_toml_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        to_toml({"tunnels": {"t": {"key": b"bytes"}}})


LONG = "\u968a" * 60
"""The longest name there may be, of characters that take nine bytes each once quoted."""


@pytest.mark.parametrize(
    "name",
    ["branch", "a b", "..", "a/b", "ü", "%2e", "x" * 60, LONG, "\U0001f4a1" * 60, "ab" + "\u968a" * 58],
)
def test_a_tunnel_is_kept_in_files_of_its_own(tmp_path: Path, name: str) -> None:
    state = StateDirectory(tmp_path)
    proposed = state.propose(name, {"pre_shared_key": "plain:secret words", "priority": 1})
    assert not state.tunnels.exists()
    state.write(proposed)
    assert sorted(p.parent for p in state.tunnels.iterdir()) == [state.tunnels] * 2
    assert state.key_file(name).read_bytes() == b"secret words\n"
    assert "secret" not in state.tunnel_file(name).read_text()
    for path in state.tunnels.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    again = state.propose(name, {"priority": 2})
    assert not again.keys
    state.write(again)
    assert state.key_file(name).exists()
    other = state.propose(name, {"pre_shared_key": "file:/etc/vpnd/psk/x"})
    state.write(other)
    assert not state.key_file(name).exists()
    state.remove(state.tunnel_file(name))
    state.remove(state.tunnel_file(name))
    assert list(state.tunnels.iterdir()) == []


def test_names_have_files_of_their_own(tmp_path: Path) -> None:
    """Also those that begin alike, and one that is written as the file of another."""
    state = StateDirectory(tmp_path)
    names = [LONG, LONG[:-1], LONG[:-1] + "x", LONG[:27], LONG[:28], state.tunnel_file(LONG).stem[:60]]
    files = {state.tunnel_file(name) for name in names} | {state.key_file(name) for name in names}
    assert len(files) == 2 * len(names)
    assert all(len(os.fsencode(path.name)) <= 255 for path in files)
    assert state.tunnel_file(LONG).name.startswith("%E9%9A%8A%E9%9A%8A")


@pytest.mark.parametrize("length", [27, 28])
def test_the_longest_name_that_fits_is_kept_as_it_was(tmp_path: Path, length: int) -> None:
    name = LONG[:length]
    state = StateDirectory(tmp_path)
    assert (state.tunnel_file(name).name == f"{quote(name)}.toml") == (len(quote(name)) + len(".toml") <= 255)


@pytest.mark.parametrize("text", ["\ud800abc", "abc\udfff", "a\udc80"])
def test_a_key_that_is_no_text_is_not_made_into_another(tmp_path: Path, text: str) -> None:
    proposed = StateDirectory(tmp_path).propose("t", {"pre_shared_key": f"plain:{text}"})
    assert not proposed.keys
    tunnels = proposed.source.tables["tunnels"]
    assert tunnels == {"t": {"pre_shared_key": f"plain:{text}"}}
    with pytest.raises(ValueError, match="surrogate"):
        to_toml(proposed.source.tables)


def test_a_file_that_cannot_be_replaced_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = StateDirectory(tmp_path)
    state.write(state.propose("t", {"priority": 1}))
    before = state.tunnel_file("t").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        state.write(state.propose("t", {"priority": 2}))
    assert state.tunnel_file("t").read_text() == before
    assert [path.name for path in state.tunnels.iterdir()] == ["t.toml"]


FULL = OSError(28, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("known", [True, False])
def test_a_key_and_its_tunnel_are_replaced_together_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fails_at: int, known: bool
) -> None:
    state = StateDirectory(tmp_path)
    if known:
        state.write(state.propose("t", {"pre_shared_key": "plain:the old key", "priority": 1}))
    before = _files(state)
    real, calls = getattr(os, call), iter(range(1, 100))

    def full(*arguments: object) -> object:
        if next(calls) == fails_at:
            raise FULL
        return real(*arguments)

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        state.write(state.propose("t", {"pre_shared_key": "plain:the new key", "priority": 2}))
    assert _files(state) == before


@pytest.mark.parametrize("reference", ["plain:the new key", "file:/etc/vpnd/psk/x"])
def test_what_was_written_can_be_put_back(tmp_path: Path, reference: str) -> None:
    state = StateDirectory(tmp_path)
    state.write(state.propose("t", {"pre_shared_key": "plain:the old key", "priority": 1}))
    before = _files(state)
    put_back = state.write(state.propose("t", {"pre_shared_key": reference, "priority": 2}))
    assert _files(state) != before
    put_back()
    assert _files(state) == before
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in state.tunnels.iterdir())


def _files(state: StateDirectory) -> dict[str, bytes]:
    paths = state.tunnels.iterdir() if state.tunnels.exists() else ()
    return {path.name: path.read_bytes() for path in paths}
