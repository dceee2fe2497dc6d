"""The generated pages have every state, cause, key and diagnosis; the tables have all that moves a state."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contrib.reference import TABLES as CONFIGURATION
from docs import configuration, generate, states
from docs.states import StateTable
from tests.unit.config.files import GATEWAY, TUNNEL, load_text
from vpnd.config.classes import classify
from vpnd.config.values import UNIT
from vpnd.model.diagnosis import Code

LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
EACH_TABLE = pytest.mark.parametrize("shown", states.TABLES, ids=lambda shown: shown.name)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the site."""
    place = tmp_path_factory.mktemp("site") / "source"
    generate.write(place)
    return place


@EACH_TABLE
def test_the_page_of_a_table_has_each_state_and_each_row(shown: StateTable, site: Path) -> None:
    page = (site / f"states-{shown.name}.md").read_text()
    for state in shown.states:
        assert f"| `{state.name}` | {state.value} |" in page
    matrix = page[page.index("## Every state") : page.index("## The rows")]
    arrows = sum(step.to not in (None, state) for (state, _), step in shown.rows.items())
    assert (matrix.count("→ "), matrix.count("| · ")) == (arrows, len(shown.rows) - arrows)
    for (_, cause), step in shown.rows.items():
        moves = "" if step.to is None else f"→ {step.to.name}"
        row = f"| `{states.name(cause)}` | {step.story} | {moves} | `{states.place(step.action)}` |"
        assert row in page
        assert f"| `{states.name(cause)}` |" in matrix


@EACH_TABLE
def test_the_drawing_has_each_row_that_moves_the_state(shown: StateTable) -> None:
    drawing = states.drawing(shown)
    for (state, cause), step in shown.rows.items():
        if step.to not in (None, state):
            (arrow,) = re.findall(rf'^  {state.name} -> {step.to.name} \[label="(.*)"\];$', drawing, re.M)
            assert states.name(cause) in arrow.split("\\n")


@EACH_TABLE
def test_each_state_is_reached_by_a_row(shown: StateTable) -> None:
    reached = {step.to for step in shown.rows.values()}
    assert set(shown.states) - reached == {shown.first}


@EACH_TABLE
def test_each_action_is_where_the_page_says(shown: StateTable) -> None:
    for action in [*(step.action for step in shown.rows.values()), *shown.answers.values()]:
        path, _, function = states.place(action).partition(" ")
        assert f"def {function.rpartition('.')[2]}(" in (generate.ROOT / path).read_text()


@pytest.mark.parametrize(("heading", "model"), CONFIGURATION, ids=[heading for heading, _ in CONFIGURATION])
def test_each_key_has_a_meaning_and_each_number_a_unit_or_none(heading: str, model: type) -> None:
    page = configuration.configuration_page()
    section = page[page.index(f"## `[{heading}]`") :]
    for key, found, required in configuration.keys(model):
        (row,) = re.findall(rf"^\| `{key}` \|.*$", section.partition("\n## ")[0], re.M)
        assert str(found["description"]).split("|")[0] in row
        assert str(found.get(UNIT, "")) in row
        assert required == (" required |" in row)


OTHER = {
    "routes": '["10.9.0.0/16"]',
    "priority": "7",
    "negotiation": '"passive"',
    "mtu": "1300",
    "mss": "1200",
    "description": '"to the branch"',
    "interface": '"vpn-z"',
    "ike.lifetime": "4000",
    "ipsec.replay_window": "64",
    "dpd.timeout": "45",
    "health_check.enabled": "true",
}
"""Another value than the default's."""


@pytest.mark.parametrize("key", OTHER)
def test_the_class_of_a_key_is_what_its_change_costs(key: str, tmp_path: Path) -> None:
    before = load_text(tmp_path / "before", GATEWAY + TUNNEL)
    after = load_text(tmp_path / "after", f"{GATEWAY}{TUNNEL}{key} = {OTHER[key]}\n")
    (change,) = classify(before, after).tunnels
    section, _, name = f"tunnels.NAME.{key}".rpartition(".")
    assert configuration.change_class(section, name) is change.change_class


def test_each_diagnosis_has_a_section_that_says_what_to_do(site: Path) -> None:
    sections = (site / "diagnoses.md").read_text().split("\n## ")[1:]
    assert [section.partition("\n")[0] for section in sections] == [code.value for code in Code]
    assert [section for section in sections if "**What to do:**" not in section] == []


def test_each_link_leads_somewhere(site: Path) -> None:
    pages = {str(path.relative_to(site)): path.read_text() for path in site.rglob("*.md")}
    for name, text in pages.items():
        for target, anchor in LINK.findall(text):
            page = str((site / name).parent.joinpath(target).resolve().relative_to(site)) if target else name
            assert page in pages, f"{name} links to {page}"
            headings = re.findall(r"^#+ (.*)$", pages[page], re.M)
            assert not anchor or anchor in [slug(one) for one in headings], f"{name} links to {page}#{anchor}"
    (listed,) = (set(re.findall(r"^([\w/-]+)$", pages["index.md"], re.M)),)
    assert {f"{one}.md" for one in listed} == set(pages) - {"index.md"}


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
