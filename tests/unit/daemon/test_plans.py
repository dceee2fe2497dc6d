"""Random pairs of configurations: the plan, what apply does, and the way back."""

from __future__ import annotations

from hypothesis import given, settings

from tests.unit.config.random_configurations import Tables, tunnels
from tests.unit.daemon.random_changes import check_plan

EXAMPLES = 25
"""A thousand of them are in tests/faults."""


@settings(max_examples=EXAMPLES)
@given(tunnels(), tunnels())
def test_the_plan_says_what_apply_does_and_rollback_undoes_it(a: Tables, b: Tables) -> None:
    check_plan(a, b)
