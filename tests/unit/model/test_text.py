"""Texts that are kept have an end."""

from __future__ import annotations

from collections.abc import Iterator

from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.text import GOES_ON, LONGEST_FACT, LONGEST_TEXT, cut, cut_lines


def test_a_short_text_stays_as_it_is() -> None:
    assert cut("x" * LONGEST_TEXT) == "x" * LONGEST_TEXT
    assert cut("") == ""


def test_a_long_text_is_cut_and_says_so() -> None:
    assert len(cut("x" * (LONGEST_TEXT + 1))) == LONGEST_TEXT
    assert cut("x" * 100, 10) == "x" * 6 + GOES_ON


def test_no_more_lines_are_made_than_are_kept() -> None:
    made: list[str] = []

    def lines() -> Iterator[str]:
        while True:
            made.append("x" * 30)
            yield made[-1]

    assert cut_lines(lines(), 100) == ("x" * 30, "x" * 30, "x" * 30, "x" * 6 + GOES_ON)
    assert len(made) == 4
    assert cut_lines(["a", "b"], 100) == ("a", "b")


def test_a_value_of_a_diagnosis_has_an_end() -> None:
    diagnosis = Diagnosis.of(Code.P1_ENCRYPTION, theirs="x" * 99_000, ours="aes-128")
    assert len(diagnosis.fact("theirs") or "") == LONGEST_FACT
    assert diagnosis.fact("ours") == "aes-128"
