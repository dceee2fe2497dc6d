"""What an output says of itself."""

from __future__ import annotations

import pytest

from vpnd.ike.outputs import CANNOT_BE_READ, LadderLine
from vpnd.ike.steps import Step, table


@pytest.mark.parametrize(
    ("text", "exchange", "unreadable", "life"),
    [
        ("IKE_AUTH 1 {IDi, AUTH, SA, TSi, TSr}", "IKE_AUTH", False, False),
        ("INFORMATIONAL 3 {}", "INFORMATIONAL", False, True),
        ("INFORMATIONAL 1f2e3d4c* {HASH, N(R_U_THERE)}", "INFORMATIONAL", False, True),
        ("INFORMATIONAL 1f2e3d4c* {HASH, N(R_U_THERE_ACK)}", "INFORMATIONAL", False, True),
        (f"CREATE_CHILD_SA {CANNOT_BE_READ}", "CREATE_CHILD_SA", True, False),
    ],
)
def test_a_line_of_the_ladder_says_what_it_is(text: str, exchange: str, unreadable: bool, life: bool) -> None:
    line = LadderLine("t", False, text, 100)
    assert (line.exchange, line.is_unreadable, line.is_sign_of_life) == (exchange, unreadable, life)


def test_a_table_has_one_row_for_a_cause_in_a_state() -> None:
    step: Step[str, str] = Step("a story", "an action")
    rows = table({("one", "two"): {"cause": step}})
    assert set(rows) == {("one", "cause"), ("two", "cause")}
    with pytest.raises(ValueError, match="two rows"):
        table({("one", "two"): {"cause": step}, ("two",): {"cause": step}})
