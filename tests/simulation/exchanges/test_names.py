"""Every case of every suite is a test here or has its reason not to be."""

from __future__ import annotations

from importlib import import_module

import pytest

from tests.tables import TellRow

from . import NOT_APPLICABLE, SUITES


@pytest.mark.parametrize("suite", SUITES)
def test_every_case_is_played_or_has_its_reason(suite: str, row: TellRow) -> None:
    module = import_module(f"tests.simulation.exchanges.test_{suite}")
    played = {name.removeprefix("test_") for name in vars(module) if name.startswith("test_")}
    excused = {case for of, case in NOT_APPLICABLE if of == suite}
    cases = SUITES[suite]
    row(
        "exchanges, cases of strongSwan's suites",
        suite=suite,
        cases=len(cases),
        played=len(played & set(cases)),
        excused=len(excused),
    )
    assert sorted(case for case in cases if case not in played | excused) == []
    assert not excused & played
    assert excused <= set(cases)


def test_the_list_is_whole() -> None:
    multiple = [case for case in NOT_APPLICABLE if "RFC 9370" in NOT_APPLICABLE[case]]
    assert sum(map(len, SUITES.values())) - len(multiple) == 54
