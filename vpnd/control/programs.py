"""The command line of both programs: `-h`, help without noise, usage errors as JSON where that is wanted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

F = TypeVar("F", bound=Callable[..., Any])

# Typer shows those that say what was wrong; it exports one of them, and not what they have in common.
_ShownError: type[Any] = typer.BadParameter.__mro__[2]

HELP_OPTIONS = ["-h", "--help"]


class Command(TyperCommand):
    """A command whose switches have no `<bool>` behind them in its help: they take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options and arguments, that of the help included."""
        return _without_values(super().get_params(ctx))


class Program(TyperGroup):
    """Commands, likewise; with `--json` a wrong usage is one JSON document, as every other error."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options, that of the help included."""
        return _without_values(super().get_params(ctx))

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run a command; ends the process."""
        given = list(sys.argv[1:] if args is None else args)
        if "--json" not in given or not extra.get("standalone_mode", True):
            return super().main(args, *more, **extra)
        try:
            code = super().main(given, *more, **{**extra, "standalone_mode": False})
        except _ShownError as error:
            message = error.format_message() or "a command is missing"
            hint = f"{extra.get('prog_name') or sys.argv[0]} help"
            document = {"error": {"code": "E-USAGE", "message": message, "hint": hint}}
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
            code = error.exit_code
        except typer.Abort:
            code = 1
        sys.exit(code if isinstance(code, int) else 0)


class Commands(typer.Typer):
    """A program made of commands of this kind."""

    kind: ClassVar[type[TyperCommand]] = Command

    def __init__(self, **settings: Any) -> None:
        named = {"help_option_names": HELP_OPTIONS}
        super().__init__(cls=Program, context_settings=named, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[F], F]:
        """As Typer's."""
        return super().command(name, **{"cls": self.kind, **settings})


def _without_values(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return params
