"""Two daemons in one network namespace."""

from __future__ import annotations

import pytest

from vpnd.daemon import once
from vpnd.daemon.once import AnotherRuns, only_one_here


def test_the_second_is_refused_until_the_first_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "NAME", "\0vpnd-test-once")
    first = only_one_here()
    with pytest.raises(AnotherRuns):
        only_one_here()
    first.close()
    only_one_here().close()
