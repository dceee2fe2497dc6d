"""Commands in the words of typer, which is imported only for what needs it: help, completion and mistakes.

    from vpnd.control import commandline as typer

A command line that is right is read here. typer takes pydantic and rich along, which is most of what a
command costs. What is not understood here word for word goes to typer, which says what is wrong with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from types import FunctionType, NoneType
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar, get_args, get_origin, get_type_hints

EXIT_ABORTED = 1
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 1
"""As typer ends then."""

F = TypeVar("F", bound=Callable[..., None])


class NotUnderstood(Exception):
    """typer has to look at this command line."""


class Context:
    """What the options before the command have left for it, in `obj`."""

    def __init__(self) -> None:
        self.obj: Any = None
        self.params: dict[str, Any] = {}

    def find_root(self) -> Context:
        """The context of the program, which is this one."""
        return self


class Parameter:
    """How a parameter of a command is declared for typer."""

    understood: ClassVar[frozenset[str]] = frozenset({"metavar", "help", "autocompletion", "min", "max"})

    def __init__(self, *flags: str, **more: Any) -> None:
        self.flags = flags
        self.more = more

    def for_typer(self) -> Any:
        """The same as typer has it."""
        import typer

        more = dict(self.more)
        if "autocompletion" in more:
            more["autocompletion"] = _for_typer(more["autocompletion"])
        return getattr(typer, type(self).__name__)(*self.flags, **more)


class Option(Parameter):
    """`--name VALUE`, or `--name` of a bool."""


class Argument(Parameter):
    """A word of its own; without a default it has to be there."""


class Commands:
    """A program, or a group of its commands. `more` are its settings for typer."""

    def __init__(self, **more: Any) -> None:
        self.more = more
        self.before: Callable[..., None] | None = None
        self.commands: dict[str, Callable[..., None]] = {}
        self.groups: dict[str, Commands] = {}
        self._asking: set[str] = set()
        self._made: Any = None

    def command(self, name: str | None = None, *, asks: bool = False) -> Callable[[F], F]:
        """A command of this name, or of the function's. `asks`: it asks questions, with typer's help."""

        def declare(function: F) -> F:
            known = name or function.__name__.replace("_", "-")
            self.commands[known] = function
            if asks:
                self._asking.add(known)
            return function

        return declare

    def callback(self) -> Callable[[F], F]:
        """What is called before the command, with the options that stand there."""

        def declare(function: F) -> F:
            self.before = function
            return function

        return declare

    def add_typer(self, group: Commands, name: str) -> None:
        """Commands of their own after this word."""
        self.groups[name] = group

    def __call__(self, arguments: Sequence[str] | None = None, prog_name: str | None = None) -> NoReturn:
        """Do what the command line says, and end the program."""
        words = list(sys.argv[1:] if arguments is None else arguments)
        try:
            if f"_{(prog_name or '').upper()}_COMPLETE" in os.environ:
                raise NotUnderstood
            steps = self.steps(list(words))
        except NotUnderstood:
            self.for_typer()(words, prog_name=prog_name)
        else:
            _run(steps)
        sys.exit(0)

    def for_typer(self) -> Any:
        """The same as typer has it."""
        if self._made is None:
            from vpnd.control import programs

            self._made = programs.Commands(**self.more)
            if self.before is not None:
                self._made.callback()(_for_typer(self.before))
            for name, function in self.commands.items():
                self._made.command(name)(_for_typer(function))
            for name, group in self.groups.items():
                self._made.add_typer(group.for_typer(), name=name)
        return self._made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.for_typer(), name)

    def steps(self, words: list[str], context: Context | None = None) -> list[Callable[[], None]]:
        """What has to be called, in this order, without typer. Raises NotUnderstood."""
        context, steps = context or Context(), []
        if self.before is not None:
            steps.append(_understood(self.before, words, context, leading=True))
        name = words.pop(0) if words else ""
        if name in self.groups:
            return steps + self.groups[name].steps(words, context)
        if name not in self.commands or name in self._asking:
            raise NotUnderstood
        return [*steps, _understood(self.commands[name], words, context)]


def _run(steps: Iterable[Callable[[], None]]) -> None:
    """As typer does: an interrupt, an end of the input and a reader that is gone have their exit codes."""
    try:
        for step in steps:
            step()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except EOFError:
        sys.stderr.write("\nAborted.\n")
        sys.exit(EXIT_ABORTED)
    except OSError as error:
        if error.errno != errno.EPIPE:
            raise
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.close()
        sys.exit(EXIT_READER_GONE)


def _for_typer(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with annotations as typer has them."""
    import typer

    def translated(hint: Any) -> Any:
        if hint is Context:
            return typer.Context
        if get_origin(hint) is not Annotated:
            return hint
        kind, *said = get_args(hint)
        known = (one.for_typer() if isinstance(one, Parameter) else one for one in said)
        return Annotated[(kind, *known)]

    if not isinstance(function, FunctionType):
        raise TypeError(f"{function} is no function")
    made = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__doc__, made.__module__ = function.__doc__, function.__module__
    hints = get_type_hints(function, include_extras=True)
    made.__annotations__ = {name: translated(hint) for name, hint in hints.items()}
    return made


# --------------------------------------------------------------------------------------- reading


class Known:
    """A parameter of a command: what it is called, and how its words become a value."""

    def __init__(self, name: str, hint: Any, has_default: bool) -> None:
        kind, self.said = get_args(hint)[:2]
        kinds = (
            [one for one in get_args(kind) if one is not NoneType] if NoneType in get_args(kind) else [kind]
        )
        self.name, self.has_default = name, has_default
        self.kind: Any = kinds[0]
        self.many = get_origin(self.kind) is list
        if self.many:
            (self.kind,) = get_args(self.kind)
        self.is_argument = isinstance(self.said, Argument)

    def value(self, word: str) -> Any:
        """Raises NotUnderstood."""
        more = self.said.more
        if not word or not more.keys() <= Parameter.understood:
            raise NotUnderstood
        if self.kind in (str, Path):
            return self.kind(word)
        if issubclass(self.kind, Enum) and word in {one.value for one in self.kind}:
            return self.kind(word)
        digits = word.replace(".", "", 1) if self.kind is float else word
        if self.kind not in (int, float) or not (digits.isascii() and digits.isdecimal()):
            raise NotUnderstood
        number = self.kind(word)
        if not more.get("min", number) <= number <= more.get("max", number):
            raise NotUnderstood
        return number


def parameters_of(function: Callable[..., None]) -> list[Known]:
    """Those that are typed on a command line."""
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    hints = get_type_hints(function, include_extras=True)
    first_default = len(names) - len(defaults)
    return [
        Known(name, hints[name], at >= first_default)
        for at, name in enumerate(names)
        if hints[name] is not Context
    ]


def _understood(
    function: Callable[..., None], words: list[str], context: Context, leading: bool = False
) -> Callable[[], None]:
    """The call that the words ask for, which are taken away. `leading`: only the options before a command.

    Raises NotUnderstood.
    """
    parameters = parameters_of(function)
    flags = {flag: known for known in parameters for flag in known.said.flags}
    places = [known for known in parameters if known.is_argument]
    values: dict[str, Any] = {}
    while words and not (leading and not words[0].startswith("-")):
        word = words.pop(0)
        if word.startswith("-") and word != "-":
            _take_option(word, words, flags, values)
        elif places and places[0].many:
            values.setdefault(places[0].name, []).append(places[0].value(word))
        elif places:
            known = places.pop(0)
            values[known.name] = known.value(word)
        else:
            raise NotUnderstood
    if not all(known.has_default or known.name in values for known in parameters):
        raise NotUnderstood
    if get_type_hints(function).get("context") is Context:
        values["context"] = context
    return lambda: function(**values)


def _take_option(word: str, words: list[str], flags: dict[str, Known], values: dict[str, Any]) -> None:
    flag, given, value = word.partition("=") if word.startswith("--") else (word, "", "")
    known = flags.get(flag)
    if known is None or (known.name in values and not known.many):
        raise NotUnderstood
    if known.kind is bool:
        if given or not known.said.more.keys() <= Parameter.understood:
            raise NotUnderstood
        values[known.name] = True
        return
    if not given:
        if not words or words[0].startswith("-"):
            raise NotUnderstood
        value = words.pop(0)
    if known.many:
        values.setdefault(known.name, []).append(known.value(value))
    else:
        values[known.name] = known.value(value)
