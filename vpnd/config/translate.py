"""From pydantic's errors to findings: our codes, our words, the line in the file."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from vpnd.config.configuration import Findings, Source
from vpnd.config.places import Path as KeyPath
from vpnd.config.problems import did_you_mean, quoted
from vpnd.config.secrets import KEYS

_SECRET_KEYS = frozenset(KEYS)
"""Keys whose value no message repeats."""

_TYPE_WORDS = {
    "string_type": "text in quotes",
    "int_type": "a whole number without quotes",
    "bool_type": "true or false",
    "list_type": "a list in [ ]",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def translate(
    detail: ErrorDetails, model: type[BaseModel], source: Source, path: KeyPath, findings: Findings
) -> None:
    """Report one of pydantic's errors about the table at `path`, which should be a `model`."""
    place = (*path, *detail["loc"])
    kind, value = detail["type"], detail.get("input")
    context: dict[str, Any] = detail.get("ctx", {})
    key = ".".join(str(part) for part in detail["loc"] if isinstance(part, str))
    last = key.rpartition(".")[2]
    if kind.startswith("E-"):
        findings.error(source, place, kind, f"{key}: {context['message']}", context["hint"])
    elif kind == "extra_forbidden":
        known = _known_keys(model, detail["loc"][:-1])
        hint = did_you_mean(last, known) or "known here: " + ", ".join(known)
        findings.error(source, place, "E-KEY", f"unknown key {quoted(last)}", hint)
    elif kind == "missing":
        findings.error(
            source, place, "E-MISSING", f"{key} is missing", f"add {last} to [{_header(place[:-1])}]"
        )
    elif kind in _TYPE_WORDS:
        shown = "the value" if key in _SECRET_KEYS else quoted(value)
        findings.error(
            source, place, "E-TYPE", f"{key}: {shown} has the wrong type", f"write {_TYPE_WORDS[kind]}"
        )
    elif kind in ("greater_than_equal", "less_than_equal"):
        low, high = _bounds(model, detail["loc"])
        hint = f"set {key} to a number from {low} to {high}"
        findings.error(source, place, "E-RANGE", f"{key} is {value}; allowed: {low} to {high}", hint)
    elif kind in ("string_too_short", "too_short"):
        findings.error(source, place, "E-VALUE", f"{key} is empty", f"give {key} a value")
    elif kind == "string_too_long":
        message = f"{key} has {len(str(value))} characters; at most {context['max_length']} are allowed"
        findings.error(source, place, "E-NAME", message, "shorten it")
    elif kind == "string_unicode":
        message = f"{key or path[-1]}: the name of a key is no Unicode text (half a surrogate pair)"
        findings.error(source, place, "E-KEY", message, "write the key in letters")
    else:
        findings.error(source, place, "E-VALUE", f"{key}: {detail['msg'].lower()}", f"correct {key}")


def _header(path: KeyPath) -> str:
    return ".".join(str(part) for part in path if isinstance(part, str))


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model of the table at `loc` within `model`."""
    current: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part) if current is not None else None
        current = _table_type(field.annotation) if field is not None else None
    return current


def _table_type(annotation: object) -> type[BaseModel] | None:
    """The model within `X`, `X | None` or `list[X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (list, typing.Union, types.UnionType):
        found = (_table_type(argument) for argument in typing.get_args(annotation))
        return next((model for model in found if model is not None), None)
    return None


def _known_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    table = _model_at(model, loc)
    return list(table.model_fields) if table is not None else []


def _bounds(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[object, object]:
    """The smallest and the largest value of a number."""
    table = _model_at(model, loc[:-1])
    metadata = table.model_fields[str(loc[-1])].metadata if table is not None else []
    low = next((m.ge for m in metadata if getattr(m, "ge", None) is not None), None)
    high = next((m.le for m in metadata if getattr(m, "le", None) is not None), None)
    return low, high
