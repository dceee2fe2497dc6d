"""JSON as it was answered, as the dataclasses of `vpnd.sdk.models`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from vpnd.sdk.errors import UnexpectedAnswer

T = TypeVar("T")


def decode(kind: type[T], value: Mapping[str, Any]) -> T:
    """`value` as a dataclass. What is not known is left out: a newer daemon says more.

    Raises UnexpectedAnswer where a field is missing or no such value.
    """
    try:
        made: T = _decode(kind, value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer(
            f"the daemon's answer is no {kind.__name__} of this version: {error}"
        ) from None
    return made


def _decode(kind: Any, value: Any) -> Any:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        inner = [one for one in get_args(kind) if one is not type(None)]
        return None if value is None else _decode(inner[0], value)
    if origin is tuple:
        return tuple(_decode(get_args(kind)[0], one) for one in value)
    if kind is datetime:
        return datetime.fromisoformat(value)
    if isinstance(kind, type) and is_dataclass(kind):
        names = _fields(kind)
        return kind(
            **{name: _decode(names[key][1], value[key]) for key, (name, _) in names.items() if key in value}
        )
    return value


@cache
def _fields(kind: Any) -> dict[str, tuple[str, Any]]:
    """By JSON's name: the field and its type. A field that would be a word of Python ends in `_`."""
    hints = get_type_hints(kind)
    return {field.name.removesuffix("_"): (field.name, hints[field.name]) for field in fields(kind)}
