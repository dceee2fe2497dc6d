"""The pages of the state tables: for each table a drawing, its states, its causes, and every row.

All that is known here of a version is in `TABLES`: an enumeration of states, and rows of `Step` by state and
cause.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from docs.markdown import code, page, table
from vpnd.ike.steps import Step
from vpnd.ike.v1 import state as state1
from vpnd.ike.v1 import table as table1
from vpnd.ike.v2 import state as state2
from vpnd.ike.v2 import table as table2


@dataclass(frozen=True)
class StateTable:
    """One table. `answers`: what an answer means by the exchange that asked, where a version has that."""

    name: str
    title: str
    about: str
    states: type[Enum]
    rows: Mapping[tuple[Any, Any], Step[Any, Any]]
    answers: Mapping[tuple[type, type], Callable[..., Any]] = field(default_factory=dict)

    @property
    def first(self) -> Enum:
        """The state that all begins with."""
        return next(iter(self.states))

    @property
    def causes(self) -> list[Any]:
        """Every cause that has a row, in the order of the table."""
        return list(dict.fromkeys(cause for _, cause in self.rows))


TABLES = (
    StateTable(
        "ikev2",
        "IKEv2",
        "One IKE SA, or the attempt at one.",
        state2.State,
        table2.STEPS,
        table2.ANSWERS,
    ),
    StateTable(
        "ikev1",
        "IKEv1",
        "One ISAKMP SA, or the attempt at one, in main and aggressive mode.",
        state1.State,
        table1.STEPS,
    ),
)


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    return {f"states-{one.name}.md": state_page(one) for one in TABLES}


def state_page(shown: StateTable) -> str:
    """The whole page of one table."""
    return page(
        f"States of {shown.title}",
        f"{shown.about} Generated from {code(_source(shown))}.",
        f"```{{graphviz}}\n:alt: The states of {shown.title}, and what moves them\n{drawing(shown)}\n```",
        "The arrows are the rows that move the state; a row that leaves it where it is has none.",
        "## States",
        table(("state", "what has happened"), [(code(one.name), str(one.value)) for one in shown.states]),
        "## Causes",
        table(("cause", "kind", "what it is"), [(code(name(one)), *meaning(one)) for one in shown.causes]),
        "## Every state and every cause",
        "An arrow: the row moves the state. A dot: the row leaves it. Nothing: there is no row, so a message"
        " or an outcome is a counted drop, a command does nothing, and a timer does not run.",
        _matrix(shown),
        "## The rows",
        *(part for state in shown.states for part in _rows_of(shown, state)),
        *_answers(shown),
    )


def drawing(shown: StateTable) -> str:
    """The table as a drawing in the language of Graphviz."""
    arrows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (state, cause), step in shown.rows.items():
        if step.to is not None and step.to is not state:
            arrows[state.name, step.to.name].append(name(cause))
    lines = [
        "digraph states {",
        '  graph [rankdir=TB, nodesep=0.5, ranksep=0.6, fontname="sans-serif"];',
        '  node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];',
        '  edge [fontname="sans-serif", fontsize=9];',
    ]
    for state in shown.states:
        more = ", peripheries=2" if state is shown.first else ""
        lines.append(f'  {state.name} [label="{state.name}\\n{state.value}"{more}];')
    for (begin, end), labels in arrows.items():
        text = "\\n".join(labels)
        lines.append(f'  {begin} -> {end} [label="{text}"];')
    return "\n".join([*lines, "}"])


def name(cause: Any) -> str:
    """`AuthRequest`, or `Timer.LIFETIME`."""
    return f"{type(cause).__name__}.{cause.name}" if isinstance(cause, Enum) else str(cause.__name__)


def meaning(cause: Any) -> tuple[str, str]:
    """What kind of cause it is, and what it says of itself."""
    if isinstance(cause, Enum):
        return "timer", str(cause.value)
    kind = "message" if cause.__module__.endswith(".messages") else "command or outcome"
    return kind, (inspect.getdoc(cause) or "").partition("\n\n")[0]


def place(action: Any) -> str:
    """Where an action is: file and function."""
    return f"{action.__module__.replace('.', '/')}.py {action.__qualname__}"


def _source(shown: StateTable) -> str:
    module = next(m for m in (table2, table1) if any(one is shown.rows for one in vars(m).values()))
    return f"{module.__name__.replace('.', '/')}.py"


def _matrix(shown: StateTable) -> str:
    rows = []
    for cause in shown.causes:
        cells = []
        for state in shown.states:
            step = shown.rows.get((state, cause))
            cells.append("" if step is None else "·" if step.to in (None, state) else f"→ {step.to.name}")
        rows.append((code(name(cause)), *cells))
    return table(("cause", *(state.name for state in shown.states)), rows)


def _rows_of(shown: StateTable, state: Enum) -> list[str]:
    rows = [
        (
            code(name(cause)),
            step.story,
            "" if step.to is None else f"→ {step.to.name}",
            code(place(step.action)),
        )
        for (at, cause), step in shown.rows.items()
        if at is state
    ]
    if not rows:
        return []
    return [f"### In {state.name}", table(("cause", "story", "moves", "decided in"), rows)]


def _answers(shown: StateTable) -> list[str]:
    if not shown.answers:
        return []
    rows = [
        (code(name(asked)), code(name(message)), code(place(action)))
        for (asked, message), action in shown.answers.items()
    ]
    return [
        "## Answers",
        "What an answer means, by the exchange that asked. Any other is INVALID_SYNTAX.",
        table(("asked by", "answer", "decided in"), rows),
    ]
