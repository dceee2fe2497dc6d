"""The command line of both programs: `-h`, help without noise, usage errors as JSON where that is wanted."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

F = TypeVar("F", bound=Callable[..., Any])

# Typer shows those that say what was wrong; it exports one of them, and not what they have in common.
_ShownError: type[Any] = typer.BadParameter.__mro__[2]

HELP_OPTIONS = ["-h", "--help"]

_BRACES = re.compile(r"^\{(.*?)(?:\.\.\.)?\}(\.\.\.)?$")


class Command(TyperCommand):
    """A command whose switches have no `<bool>` behind them in its help: they take no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options and arguments, that of the help included."""
        return _without_values(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The values of its parameters; what is wrong with one is said in plain words."""
        with _plain_words():
            return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`A B [NAME] FILE...`, without braces around what has to be there."""
        return [_BRACES.sub(r"\1\2", piece) for piece in super().collect_usage_pieces(ctx)]


class Program(TyperGroup):
    """Commands, likewise; with `--json` a wrong usage is one JSON document, as every other error."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its options, that of the help included."""
        return _without_values(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The values of its options, likewise."""
        with _plain_words():
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of the first word; a word that it begins with gets what may have been meant."""
        try:
            return super().resolve_command(ctx, args)
        except _ShownError as error:
            longer = [name for name in self.list_commands(ctx) if args[0] and name.startswith(args[0])]
            if longer and "Did you mean" not in error.message:
                error.message += f" Did you mean {' or '.join(map(repr, longer[:3]))}?"
            raise

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        """Run a command; ends the process."""
        given = list(sys.argv[1:] if args is None else args)
        if "--json" not in given or not extra.get("standalone_mode", True):
            return super().main(args, *more, **extra)
        try:
            code = super().main(given, *more, **{**extra, "standalone_mode": False})
        except _ShownError as error:
            message = error.format_message() or "a command is missing"
            program, *command = error.ctx.command_path.split() if error.ctx else [extra.get("prog_name")]
            hint = " ".join((program or sys.argv[0], "help", *command))
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


_PLAIN = (
    (
        re.compile(r"Input should be a valid integer\b.*", re.DOTALL),
        "it has to be a whole number, such as 10",
    ),
    (
        re.compile(r"Input should be a (?:valid|finite) number\b.*", re.DOTALL),
        "it has to be a number, such as 10",
    ),
    (re.compile(r"Input should be greater than or equal to (\S+)"), r"it has to be \1 at least"),
    (re.compile(r"Input should be less than or equal to (\S+)"), r"it has to be \1 at most"),
)
"""What pydantic says of a value, through Typer, and what people say."""


@contextmanager
def _plain_words() -> Iterator[None]:
    try:
        yield
    except _ShownError as error:
        for said, plain in _PLAIN:
            error.message = said.sub(plain, error.message)
        raise


def _without_values(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
        if param.param_type_name == "argument":
            # The name says what it is, and `<str>` nothing more.
            param.display_type_rich = lambda ctx: None
    return params
