"""The alert rules and the dashboard of `conf/prometheus` name metrics that there are, and all of them.

What Prometheus makes of them is in `tests/monitoring`, by `make monitoring`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vpnd.control.metrics import FAMILIES

CONF = Path(__file__).parents[3] / "conf/prometheus"
SERIES = {
    f"{name}{suffix}"
    for name, (kind, _) in FAMILIES.items()
    for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
}


def named(text: str) -> set[str]:
    """Names of metrics in queries; those in words, such as a label's value, are none."""
    return set(re.findall(r"\b((?:vpnd|process)_[a-z_]+)\b", text))


def queries() -> list[str]:
    board = json.loads((CONF / "vpnd.grafana.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("name", ["vpnd.rules.yml", "vpnd.grafana.json"])
def test_no_metric_is_named_that_there_is_not(name: str) -> None:
    found = named((CONF / name).read_text())
    assert found
    assert found - SERIES == set()


def test_every_metric_is_on_the_dashboard() -> None:
    shown = named("\n".join(queries()))
    assert [name for name in FAMILIES if not any(one.startswith(name) for one in shown)] == []


def test_a_counter_is_shown_as_a_rate_and_its_name_says_that_it_is_one() -> None:
    counters = {name for name, (kind, _) in FAMILIES.items() if kind == "counter"}
    assert counters == {name for name in FAMILIES if name.endswith("_total")}
    for query in queries():
        for name in named(query) & counters:
            assert re.search(rf"(rate|increase)\({name}\{{", query), query


def test_panels_do_not_lie_over_each_other() -> None:
    board = json.loads((CONF / "vpnd.grafana.json").read_text())
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in mine) < 24
        assert not mine & cells, panel["title"]
        cells |= mine
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
