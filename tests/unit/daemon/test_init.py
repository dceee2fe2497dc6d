"""`vpnd init`: what it writes is what `vpnd check` accepts, and it changes nothing that exists."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vpnd.config.load import load
from vpnd.daemon.main import app

KEY = "a-long-key-that-the-other-side-has"
ANSWERS = {
    "gateway": "hq",
    "name": "branch",
    "peer": "198.51.100.7",
    "own": "192.0.2.1",
    "kind": "ikev2",
    "networks": "10.2.0.0/16, 10.3.0.0/16",
    "begins": "active",
    "key": "",
}


def run(config: Path, **changed: str) -> Result:
    answers = {**ANSWERS, **changed}
    return CliRunner().invoke(
        app.for_typer(),
        ["init", "--config", str(config)],
        input="".join(f"{answer}\n" for answer in answers.values()),
    )


@pytest.mark.parametrize("kind", ["ikev2", "ikev1", "tencent-cloud"])
def test_it_writes_what_check_accepts(kind: str, tmp_path: Path) -> None:
    config = tmp_path / "etc" / "vpnd.toml"
    done = run(config, kind=kind)
    assert done.exit_code == 0, done.output
    loaded = load(config)
    assert loaded.ok, loaded.problems
    table = loaded.configuration.tunnels["branch"].table
    assert [str(route) for route in table.routes] == ["10.2.0.0/16", "10.3.0.0/16"]
    assert table.ike.version == ("ikev2" if kind == "ikev2" else "ikev1")
    key = config.parent / "psk" / "branch"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_text().strip()) == 43
    assert key.read_text().strip() not in done.output


@pytest.mark.parametrize(("peer", "own"), [("192.0.2.1", "192.0.2.2"), ("198.51.100.1", "198.51.100.2")])
def test_what_has_not_been_asked_yet_is_in_no_answer_s_way(peer: str, own: str, tmp_path: Path) -> None:
    config = tmp_path / "vpnd.toml"
    done = run(config, peer=peer, own=own, networks="203.0.113.0/24")
    assert done.exit_code == 0, done.output
    assert load(config).ok


def test_a_key_that_is_typed_twice_is_kept(tmp_path: Path) -> None:
    config = tmp_path / "vpnd.toml"
    done = run(config, key=f"{KEY}\n{KEY}")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "psk" / "branch").read_text() == f"{KEY}\n"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "a/b"}, "without a slash"),
        ({"name": "n" * 61}, "60"),
        ({"peer": "198.51.100.300"}, "198.51.100.300"),
        ({"own": "nowhere"}, "nowhere"),
        ({"kind": "ikev3"}, "one of: ikev2"),
        ({"networks": "10.2.0.1/16"}, 'write "10.2.0.0/16"'),
        ({"begins": "later"}, "later"),
        ({"key": f"{KEY}\nanother"}, "the two keys differ"),
    ],
    ids=str,
)
def test_a_wrong_answer_is_explained_and_nothing_is_written(
    changed: dict[str, str], said: str, tmp_path: Path
) -> None:
    config = tmp_path / "etc" / "vpnd.toml"
    done = run(config, **changed)
    assert done.exit_code == 2
    assert said in done.output
    assert KEY not in done.output
    assert not config.parent.exists()


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    config = tmp_path / "vpnd.toml"
    config.write_text("mine")
    assert run(config).exit_code == 2
    assert config.read_text() == "mine"
    config.unlink()
    (tmp_path / "psk").mkdir()
    (tmp_path / "psk" / "branch").write_text("mine")
    done = run(config)
    assert done.exit_code == 2
    assert (tmp_path / "psk" / "branch").read_text() == "mine"
    assert not config.exists()


def test_a_place_that_cannot_be_seen(tmp_path: Path) -> None:
    """As a directory of root is for others: it is said before the first question, or where it comes up."""
    done = run(tmp_path / ("n" * 300) / "vpnd.toml")
    assert done.exit_code == 2
    assert "File name too long" in done.output
    assert isinstance(done.exception, SystemExit)


def test_a_place_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    done = run(tmp_path / "etc" / "vpnd.toml")
    assert done.exit_code == 2
    assert "use sudo" in done.output
