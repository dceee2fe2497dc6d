"""Each key of the file by itself: its type, its ends, its words, and what is said of a slip of the pen.

The keys are read from the models, so that a new one is tried as well; each must be refused on its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tests.unit.config.files import GATEWAY, TUNNEL, load_text, marked_line
from vpnd.config import schema
from vpnd.config.problems import Problem
from vpnd.crypto.suites import ENCRYPTIONS, INTEGRITIES

BASE = GATEWAY + TUNNEL
SECTIONS: dict[str, type[BaseModel]] = {
    "": schema.TunnelTable,
    "ike.": schema.IkeTable,
    "ipsec.": schema.IpsecTable,
    "dpd.": schema.DpdTable,
    "health_check.": schema.HealthCheckTable,
    "sm_numbers.": schema.SmNumbersTable,
}
WRITTEN = {"customer_gateway", "pre_shared_key"}
"""Keys that the base has."""
ALGORITHMS: dict[str, Mapping[str, object]] = {
    "ike.encryption": ENCRYPTIONS,
    "ipsec.encryption": ENCRYPTIONS,
    "ike.integrity": INTEGRITIES,
    "ipsec.integrity": INTEGRITIES,
}
SOURCES = Path(schema.__file__).parent
TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Key:
    """One key of a tunnel, as it is written below `[tunnels.a]`."""

    name: str
    field: FieldInfo

    @property
    def ends(self) -> tuple[int, int] | None:
        """The least and the largest number that it takes."""
        low = [m.ge for m in self.field.metadata if isinstance(m, Ge)]
        high = [m.le for m in self.field.metadata if isinstance(m, Le)]
        return (_number(low[0]), _number(high[0])) if low and high else None

    @property
    def words(self) -> tuple[str, ...]:
        """The words that it takes, where those are few."""
        if self.name in ALGORITHMS:
            return tuple(ALGORITHMS[self.name])
        annotation = self.field.annotation
        return get_args(annotation) if get_origin(annotation) is Literal else ()


def _number(limit: Any) -> int:
    assert isinstance(limit, int)
    return limit


def keys() -> Iterator[Key]:
    for section, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
                yield Key(section + name, field)


KEYS = list(keys())
RANGES = [key for key in KEYS if key.ends is not None]
WORDS = [key for key in KEYS if key.words]


def refused(tmp_path: Path, line: str) -> Problem:
    """The one error of the base with this line in it, which must name it."""
    text = BASE + f"{line} #!\n"
    loaded = load_text(tmp_path, text)
    (problem,) = loaded.errors
    assert (problem.file, problem.line) == (str(tmp_path / "vpnd.toml"), marked_line(text)), problem
    assert problem.hint, problem
    return problem


def about(tmp_path: Path, line: str, key: str) -> list[str]:
    """What is wrong with the value of this key by itself."""
    problems = load_text(tmp_path, BASE + line + "\n").errors
    itself = ("E-VALUE", "E-RANGE", "E-TYPE")
    return [str(problem) for problem in problems if key in str(problem.key) and problem.code in itself]


def test_there_are_keys_of_each_kind() -> None:
    assert len(KEYS) >= 40
    assert {"dpd.timeout", "priority", "health_check.failures"} <= {key.name for key in RANGES}
    assert {"ike.version", "negotiation", "ipsec.encryption"} <= {key.name for key in WORDS}


@pytest.mark.parametrize("key", RANGES, ids=lambda key: key.name)
def test_a_number_beyond_its_ends_is_refused_and_the_ends_are_not(tmp_path: Path, key: Key) -> None:
    assert key.ends is not None
    low, high = key.ends
    for value in (low - 1, high + 1):
        problem = refused(tmp_path, f"{key.name} = {value}")
        assert problem.code == "E-RANGE"
        assert f"{key.name} is {value}; allowed: {low} to {high}" in problem.message.replace(",", "")
    for value in (low, high):
        assert about(tmp_path, f"{key.name} = {value}", key.name) == []


@pytest.mark.parametrize("key", WORDS, ids=lambda key: key.name)
def test_a_word_that_is_none_of_them_is_refused_with_the_nearest(tmp_path: Path, key: Key) -> None:
    for word in key.words:
        assert about(tmp_path, f'{key.name} = "{word}"', key.name) == []
    slip = max(key.words, key=len)[:-1] + "x"
    problem = refused(tmp_path, f'{key.name} = "{slip}"')
    assert problem.code == "E-VALUE"
    assert f'"{slip}" is not' in problem.message
    assert problem.hint is not None
    assert "did you mean" in problem.hint
    assert "one of: " in problem.hint
    assert refused(tmp_path, f"{key.name} = 7").code in ("E-VALUE", "E-TYPE")


@pytest.mark.parametrize("key", [key for key in KEYS if key.name not in WRITTEN], ids=lambda key: key.name)
@pytest.mark.parametrize("value", ["1979-05-27", "{ a = 1 }", "[[1]]"])
def test_a_value_of_another_kind_is_refused_by_its_key(tmp_path: Path, key: Key, value: str) -> None:
    problem = refused(tmp_path, f"{key.name} = {value}")
    assert problem.code.startswith("E-")
    assert key.name in str(problem.key)


@pytest.mark.parametrize(
    "key", [key for key in KEYS if len(key.name.split(".")[-1]) > 3], ids=lambda k: k.name
)
def test_a_key_with_a_letter_missing_is_refused_with_the_right_one(tmp_path: Path, key: Key) -> None:
    *section, last = key.name.split(".")
    problem = refused(tmp_path, ".".join([*section, last[:-2] + last[-1]]) + " = 1")
    assert problem.code == "E-KEY"
    assert problem.hint is not None
    assert "did you mean" in problem.hint
    assert last in problem.hint


@pytest.mark.parametrize("table", ["gateway", "customer_gateways.branch", "tunnels.a.spd"])
def test_the_other_tables_know_their_keys_too(tmp_path: Path, table: str) -> None:
    text = {
        "gateway": GATEWAY.replace("[gateway]", '[gateway]\nadress = "192.0.2.1" #!'),
        "customer_gateways.branch": GATEWAY.replace(
            "[customer_gateways.branch]", '[customer_gateways.branch]\nadress = "192.0.2.1" #!'
        ),
        "tunnels.a.spd": BASE
        + 'communication = "spd-policy"\n[[tunnels.a.spd]]\nlocal = ["10.0.0.0/24"]\n'
        + 'remote = ["10.1.0.0/24"]\nremotes = ["10.2.0.0/24"] #!\n',
    }[table]
    (problem,) = load_text(tmp_path, text).errors
    assert (problem.code, problem.line) == ("E-KEY", marked_line(text))
    assert problem.hint is not None
    assert "did you mean" in problem.hint


@pytest.mark.parametrize("kind", ["E", "W"])
def test_no_rule_is_without_a_test(kind: str) -> None:
    """Every code that the check can print stands in one of these tests."""
    pattern = re.compile(f'"({kind}-[A-Z0-9-]+)"')
    printed = {code for file in SOURCES.glob("*.py") for code in pattern.findall(file.read_text())}
    tried = {code for file in TESTS.glob("test_*.py") for code in pattern.findall(file.read_text())}
    assert len(printed) >= 10
    assert printed - tried == set()
