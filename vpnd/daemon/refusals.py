"""A configuration with errors, as the API refuses it."""

from __future__ import annotations

from vpnd.config.load import Loaded
from vpnd.config.problems import Problem
from vpnd.control.operations import InvalidConfiguration
from vpnd.control.schema import ProblemBody


def body(problem: Problem) -> ProblemBody:
    """One finding as the API says it."""
    return ProblemBody(
        file=problem.file,
        line=problem.line,
        code=problem.code,
        severity=problem.severity.value,
        key=problem.key,
        message=problem.message,
        hint=problem.hint,
    )


def invalid(loaded: Loaded) -> InvalidConfiguration:
    """The first error, with all of them."""
    first = loaded.errors[0]
    more = f" (and {len(loaded.errors) - 1} more)" if len(loaded.errors) > 1 else ""
    return InvalidConfiguration(
        first.code,
        f"{first.place}: {first.message}{more}",
        first.hint,
        [body(problem) for problem in loaded.problems],
    )
