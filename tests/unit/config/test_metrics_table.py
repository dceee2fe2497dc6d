"""`[metrics]`: where Prometheus reads, what is no such place, and that an open port is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.files import GATEWAY, ROUTES, TUNNEL, load_text, write
from vpnd.config.compile import compile_gateway
from vpnd.config.load import load

BASE = GATEWAY + TUNNEL + ROUTES


@pytest.mark.parametrize("where", ["127.0.0.1:9150", "[::1]:9150", "127.8.9.10:1", "127.0.0.1:65535"])
def test_loopback_is_nobody_s_business(tmp_path: Path, where: str) -> None:
    loaded = load_text(tmp_path, f'{BASE}[metrics]\nlisten = "{where}"\n')
    assert loaded.problems == ()
    assert str(compile_gateway(loaded).metrics) == where


@pytest.mark.parametrize("where", ["192.0.2.1:9150", "0.0.0.0:9150", "[::]:9150", "[2001:db8::1]:9150"])
def test_a_port_that_others_reach_is_named_in_the_check(tmp_path: Path, where: str) -> None:
    loaded = load_text(tmp_path, f'{BASE}[metrics]\nlisten = "{where}"\n')
    (problem,) = loaded.problems
    assert (problem.code, problem.key) == ("W-METRICS-OPEN", "metrics.listen")
    assert f"metrics at {where} are open to others" in problem.message
    assert problem.line == BASE.count("\n") + 2
    assert str(compile_gateway(loaded).metrics) == where


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("127.0.0.1", "E-ADDRESS"),
        ("9150", "E-ADDRESS"),
        (":9150", "E-ADDRESS"),
        ("localhost:9150", "E-ADDRESS"),
        ("::1:9150", "E-ADDRESS"),
        ("[127.0.0.1]:9150", "E-ADDRESS"),
        ("[::1:9150", "E-ADDRESS"),
        ("224.0.0.1:9150", "E-ADDRESS"),
        ("127.0.0.1:0", "E-RANGE"),
        ("127.0.0.1:65536", "E-RANGE"),
        ("127.0.0.1:", "E-RANGE"),
        ("127.0.0.1:http", "E-RANGE"),
        ("127.0.0.1:-1", "E-RANGE"),
        ("127.0.0.1:٩", "E-RANGE"),
    ],
)
def test_what_is_no_place_is_refused_with_an_example(tmp_path: Path, where: str, code: str) -> None:
    loaded = load_text(tmp_path, f'{BASE}[metrics]\nlisten = "{where}"\n')
    (problem,) = loaded.problems
    assert (problem.code, problem.key) == (code, "metrics.listen")
    assert "127.0.0.1:9150" in (problem.hint or "")


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ("[metrics]\n", "E-MISSING"),
        ("[metrics]\nlisten = 9150\n", "E-ADDRESS"),
        ('[metrics]\nlisten = "127.0.0.1:9150"\nport = 1\n', "E-KEY"),
        ("metrics = 1\n", "E-TYPE"),
    ],
)
def test_the_table_has_its_one_key(tmp_path: Path, table: str, code: str) -> None:
    text = table + BASE if table.startswith("metrics") else BASE + table
    assert code in [problem.code for problem in load_text(tmp_path, text).problems]


def test_without_the_table_nothing_listens(tmp_path: Path) -> None:
    assert compile_gateway(load_text(tmp_path, BASE)).metrics is None


def test_it_stands_in_one_file(tmp_path: Path) -> None:
    metrics = '[metrics]\nlisten = "127.0.0.1:{}"\n'
    path = write(tmp_path, BASE + metrics.format(9150))
    write(tmp_path, metrics.format(9151), "tunnels.d/more.toml")
    (problem,) = load(path).problems
    assert (problem.code, problem.key) == ("E-DUPLICATE", "metrics")
    assert str(path) in problem.message
