"""Every kind of key and value that TOML has, and the line that it is found on."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.config import toml
from vpnd.config.places import Places

TEXT = '''\
# a comment with [brackets] and = signs
title = "a # in text"          # and one behind
[tunnels."quoted name"]
key = 'literal ]'
ike.version = "ikev1"
"ike" . encryption = [
  "aes-128",   # first ] "
  [ 1,
    2 ],
]
inline = { a = 1, b = { c = [ 2, 3 ] } }
multi = """
[not.a.table]
x = \\"""1
"""
after = true
  [ tunnels . b ]
when = 1979-05-27 07:32:00
[[tunnels.b.spd]]
local = ["10.0.0.0/24"]
[[tunnels.b.spd]]
local = [
"10.1.0.0/24"
, "10.2.0.0/24"]
[tunnels.b.spd.deeper]
x = \'\'\'
y = 1\'\'\'
z = 0x1F
'in quotes' = 2
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("tunnels",), 3),
        (("tunnels", "quoted name"), 3),
        (("tunnels", "quoted name", "key"), 4),
        (("tunnels", "quoted name", "ike"), 5),
        (("tunnels", "quoted name", "ike", "version"), 5),
        (("tunnels", "quoted name", "ike", "encryption"), 6),
        (("tunnels", "quoted name", "ike", "encryption", 0), 7),
        (("tunnels", "quoted name", "ike", "encryption", 1, 1), 9),
        (("tunnels", "quoted name", "inline", "b", "c", 1), 11),
        (("tunnels", "quoted name", "multi"), 12),
        (("tunnels", "quoted name", "after"), 16),
        (("tunnels", "b"), 17),
        (("tunnels", "b", "when"), 18),
        (("tunnels", "b", "spd", 0), 19),
        (("tunnels", "b", "spd", 0, "local", 0), 20),
        (("tunnels", "b", "spd", 1, "local", 1), 24),
        (("tunnels", "b", "spd", 1, "deeper", "x"), 26),
        (("tunnels", "b", "spd", 1, "deeper", "z"), 28),
        (("tunnels", "b", "spd", 1, "deeper", "in quotes"), 29),
    ],
)
def test_every_key_is_found_on_its_line(path: tuple[str | int, ...], line: int) -> None:
    assert Places(TEXT).exact(path) == line


def test_a_comment_may_begin_right_behind_a_header() -> None:
    places = Places("[a]# = '\nx = 2\n[[c]]# = '\nx = 2\n")
    assert (places.exact(("a", "x")), places.exact(("c", 0, "x"))) == (2, 4)


def test_lines_are_the_same_with_carriage_returns() -> None:
    assert Places(TEXT.replace("\n", "\r\n")).exact(("tunnels", "b", "spd", 1, "deeper", "z")) == 28


def test_a_value_that_is_not_written_is_placed_at_its_table() -> None:
    places = Places(TEXT)
    assert places.line(("tunnels", "b", "spd", 0, "remote", 3)) == 19
    assert places.exact(("tunnels", "b", "spd", 0, "remote")) is None
    assert places.line(("nothing",)) == 1


def paths_of(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every key and element."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths_of(inner, (*path, index))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
SCALARS = st.one_of(TEXTS, st.integers(-(2**40), 2**40), st.booleans())
TABLES = st.recursive(
    st.dictionaries(TEXTS, st.one_of(SCALARS, st.lists(SCALARS, max_size=3)), max_size=4),
    lambda inner: st.dictionaries(
        TEXTS, st.one_of(SCALARS, inner, st.lists(inner, min_size=1, max_size=3)), max_size=4
    ),
    max_leaves=12,
)


@given(TABLES)
def test_whatever_is_written_is_read_back_and_found(tables: dict[str, object]) -> None:
    text = toml.dump(tables)
    assert tomllib.loads(text) == tables
    places = Places(text)
    for path in paths_of(tables):
        assert places.exact(path) is not None, path
