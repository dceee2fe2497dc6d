"""The key that takes the place of a tunnel's pre-shared key: where it comes from, and when the other ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.config.files import GATEWAY, TUNNEL, load_text
from vpnd.config.compile import compile_gateway
from vpnd.config.load import Loaded
from vpnd.model.policy import TunnelPolicy

NEXT = 'next_pre_shared_key = "plain:the-key-from-now-on-1234"\n'
END = datetime(2030, 6, 1, 12, tzinfo=UTC)


def loaded(directory: Path, lines: str) -> Loaded:
    return load_text(directory, GATEWAY + TUNNEL + lines)


def policy(directory: Path, lines: str) -> TunnelPolicy:
    found = loaded(directory, lines)
    assert found.ok, found.errors
    return compile_gateway(found).tunnels[0]


def test_both_keys_are_accepted_and_neither_is_shown(tmp_path: Path) -> None:
    tunnel = policy(tmp_path, NEXT)
    assert [len(psk) for psk in tunnel.peer.keys] == [28, 24]
    table = loaded(tmp_path, NEXT).configuration.tunnels["a"].table
    assert "the-key" not in repr(tunnel) + repr(table)


def test_without_it_there_is_one_key(tmp_path: Path) -> None:
    assert len(policy(tmp_path, "").peer.keys) == 1
    assert policy(tmp_path, "").retire_after is None


@pytest.mark.parametrize(
    "written", ["2030-06-01T12:00:00Z", '"2030-06-01T12:00:00Z"', "2030-06-01T14:00:00+02:00"]
)
def test_a_key_ends_at_its_moment(tmp_path: Path, written: str) -> None:
    tunnel = policy(tmp_path, f"{NEXT}retire_after = {written}\n")
    assert tunnel.retire_after == END
    current, following = tunnel.peer.keys
    before, after = tunnel.at(END - timedelta(seconds=1)), tunnel.at(END)
    assert before is tunnel
    assert (after.peer.psk, after.peer.keys, after.retire_after) == (following, (following,), None)
    assert after.at(END) == after
    assert current not in after.peer.keys


@pytest.mark.parametrize(
    ("lines", "code", "line"),
    [
        ("retire_after = 2030-06-01T12:00:00Z\n", "E-RETIRE", "retire_after"),
        (NEXT + "retire_after = 2030-06-01T12:00:00\n", "E-VALUE", "retire_after"),
        (NEXT + 'retire_after = "soon"\n', "E-VALUE", "retire_after"),
        (NEXT + "retire_after = 2030-06-01\n", "E-VALUE", "retire_after"),
        (NEXT + "retire_after = 0001-01-01T00:00:00+14:00\n", "E-VALUE", "retire_after"),
        (NEXT + 'retire_after = "9999-12-31T23:59:59-12:00"\n', "E-VALUE", "retire_after"),
        ('next_pre_shared_key = "file:missing"\n', "E-PSK-FILE", "next_pre_shared_key"),
        ('next_pre_shared_key = "the key"\n', "E-PSK-FORM", "next_pre_shared_key"),
        ("next_pre_shared_key = 1234567890\n", "E-TYPE", "next_pre_shared_key"),
    ],
)
def test_what_is_wrong_with_it(tmp_path: Path, lines: str, code: str, line: str) -> None:
    (problem,) = loaded(tmp_path, lines).errors
    assert (problem.code, problem.key) == (code, f"tunnels.a.{line}")
    assert "1234567890" not in f"{problem.message} {problem.hint}"


def test_the_same_key_again_draws_a_warning(tmp_path: Path) -> None:
    found = loaded(tmp_path, 'next_pre_shared_key = "plain:correct-horse-battery-staple"\n')
    assert "W-PSK-SAME" in [p.code for p in found.problems]
    short = loaded(tmp_path, 'next_pre_shared_key = "plain:short"\n')
    assert ("W-PSK-SHORT", "tunnels.a.next_pre_shared_key") in [(p.code, p.key) for p in short.problems]
