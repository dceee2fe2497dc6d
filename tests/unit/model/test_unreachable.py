"""What types and codes of ICMP mean for a peer that does not answer."""

from __future__ import annotations

import pytest

from vpnd.model.unreachable import Unreachable

CASES = [
    (4, 3, 3, Unreachable.PORT),
    (4, 3, 0, Unreachable.HOST),
    (4, 3, 1, Unreachable.HOST),
    (4, 3, 9, Unreachable.PROHIBITED),
    (4, 3, 10, Unreachable.PROHIBITED),
    (4, 3, 13, Unreachable.PROHIBITED),
    (4, 11, 0, None),
    (6, 1, 4, Unreachable.PORT),
    (6, 1, 0, Unreachable.HOST),
    (6, 1, 3, Unreachable.HOST),
    (6, 1, 1, Unreachable.PROHIBITED),
    (6, 1, 5, Unreachable.PROHIBITED),
    (6, 1, 6, Unreachable.PROHIBITED),
    (6, 3, 0, None),
    (6, 2, 0, None),
]


@pytest.mark.parametrize(("version", "kind", "code", "reason"), CASES)
def test_what_icmp_means(version: int, kind: int, code: int, reason: Unreachable | None) -> None:
    assert Unreachable.of_icmp(version, kind, code) is reason
