"""The tables at the end of a run."""

from __future__ import annotations

from tests.tables import lines


def test_rows_are_sorted_by_number_and_columns_are_aligned() -> None:
    rows = [
        {"result": "passed", "id": "F10", "figure": "1.2 s"},
        {"result": "failed", "id": "F2", "figure": "14 of 20", "remark": "once"},
    ]
    assert lines(rows) == [
        "id   figure    remark  result",
        "F2   14 of 20  once    failed",
        "F10  1.2 s             passed",
    ]
