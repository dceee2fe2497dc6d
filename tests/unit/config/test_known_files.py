"""A file that was read before and has the same content: neither parsed nor validated again."""

from __future__ import annotations

from pathlib import Path

import pytest

from vpnd.config.configuration import Source
from vpnd.config.load import Loaded, load, load_with, load_without

MAIN = '[gateway]\nname = "hq"\naddress = "192.0.2.1"\n'
TUNNEL = """[tunnels.{name}]
customer_gateway = {{ address = "{address}" }}
pre_shared_key = "plain:a key that is long enough to be one"
routes = ["{route}"]
"""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    (tmp_path / "tunnels.d").mkdir()
    write(tmp_path / "vpnd.toml", MAIN)
    for number in (1, 2, 3):
        write(one(tmp_path, number), tunnel(number))
    return tmp_path / "vpnd.toml"


def one(directory: Path, number: int) -> Path:
    return directory / "tunnels.d" / f"t{number}.toml"


def tunnel(number: int, address: str = "") -> str:
    where = address or f"198.51.100.{number}"
    return TUNNEL.format(name=f"t{number}", address=where, route=f"10.{number}.0.0/16")


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


def tables(loaded: Loaded) -> dict[str, object]:
    return {name: tunnel.table for name, tunnel in loaded.configuration.tunnels.items()}


def same(first: Loaded, second: Loaded) -> set[str]:
    """The tunnels whose table is the very same object in both."""
    before = tables(first)
    return {name for name, table in tables(second).items() if table is before.get(name)}


def test_only_a_file_that_has_changed_is_read_again(main: Path) -> None:
    first = load(main)
    assert first.ok
    write(one(main.parent, 2), tunnel(2, "198.51.100.77"))
    second, fresh = load(main, known=first.sources), load(main)
    assert same(first, second) == {"t1", "t3"}
    assert tables(second) == tables(fresh)
    assert second.problems == fresh.problems
    again = load(main, known=second.sources)
    assert same(second, again) == {"t1", "t2", "t3"}


def test_a_change_over_the_api_reads_the_files_that_are_known_no_more_than_a_reload(main: Path) -> None:
    first, state = load(main), main.parent / "state"
    proposed = Source("request", {"tunnels": {}}, path=state / "tunnels.d" / "new.toml", from_api=True)
    assert same(first, load_with(main, state, proposed, None, first.sources)) == {"t1", "t2", "t3"}
    gone = load_without(main, state, one(main.parent, 1), None, first.sources)
    assert same(first, gone) == {"t2", "t3"} == set(tables(gone))


def test_what_was_wrong_is_said_again_and_who_can_read_a_file_is_looked_at_again(main: Path) -> None:
    write(one(main.parent, 2), tunnel(2).replace("routes", "rotes"))
    first = load(main)
    assert not first.ok
    assert load(main, known=first.sources).problems == first.problems
    write(one(main.parent, 2), tunnel(2))
    good = load(main, known=first.sources)
    assert good.ok
    one(main.parent, 3).chmod(0o644)
    assert [problem.code for problem in load(main, known=good.sources).errors] == ["E-PSK-MODE"]
