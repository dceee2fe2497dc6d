"""What the API's tokens and the console's have in common."""

from __future__ import annotations

import hmac

import pytest

from vpnd.config.tokens import MAX_TOKEN, digest, new_token, whose


def test_a_token_is_known_by_its_digest() -> None:
    made = [new_token() for _ in range(3)]
    kept = [(digest(token), place) for place, token in enumerate(made)]
    assert [whose(token, kept) for token in made] == [0, 1, 2]
    assert len(set(made)) == 3
    assert min(map(len, made)) == 43, "256 bits"
    for wrong in ("", made[0][:-1], made[0] + "x", "\ud800", "x" * 10 * MAX_TOKEN):
        assert whose(wrong, kept) is None
    assert whose(made[0], []) is None


def test_each_is_compared_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    equal = hmac.compare_digest

    def count(known: str, given: str) -> bool:
        compared.append(known)
        return equal(known, given)

    monkeypatch.setattr(hmac, "compare_digest", count)
    kept = [(digest(word), word) for word in "abc"]
    for word in ("a", "c", "x"):
        compared.clear()
        whose(word, kept)
        assert compared == [known for known, _ in kept]
