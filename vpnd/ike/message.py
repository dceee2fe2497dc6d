"""Payloads -> a typed message. The rule which payloads a message has is the type's annotations.

A message is a frozen dataclass whose fields are payload types: `T` stands for exactly one such payload,
`T | None` for at most one, `tuple[T, ...]` for any number. `read_message` refuses every other combination
before a handler runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

from vpnd.ike.faults import Drop
from vpnd.model.child import Path
from vpnd.wire.chain import RawPayload
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import Header

MAX_OF_A_KIND = 20
"""Payloads of one kind in a message, but for those that nobody looks at; an honest peer sends fewer."""

M = TypeVar("M")


@dataclass_transform(frozen_default=True)
class Message:
    """Base of the messages: frozen dataclasses, whose annotations are the payload rule."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


class Unfit(DecodeError):
    """Each payload can be read, and together they are no message that is expected."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message, the payloads that it was read from, decoded and as they travelled, and how it came.

    `data` is the message as it travelled; of a fragmented one of IKEv2 it is the fragment that came last.
    """

    message: Any
    payloads: tuple[Any, ...]
    raw: tuple[RawPayload, ...]
    header: Header
    path: Path
    data: bytes

    def of(self, kind: type[M]) -> M:
        """The message, of the type that the row of the table has. Raises Drop for another."""
        if not isinstance(self.message, kind):
            raise Drop("unexpected message")
        return self.message

    def body_of(self, payload: object) -> bytes:
        """The bytes of one payload's body as they travelled, reserved bits included."""
        return self.raw[next(i for i, one in enumerate(self.payloads) if one is payload)].body


def require_single(chain: Iterable[RawPayload], payload_type: int) -> None:
    """Refuse two payloads of a type before any is decoded: SA payloads cost most. Raises DecodeError."""
    if sum(raw.type == payload_type for raw in chain) > 1:
        raise DecodeError("Sa", "repeated")


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    least: int
    most: int


def read_message(
    candidates: Sequence[type[M]], payloads: Iterable[object], ignored: tuple[type, ...] = ()
) -> M:
    """The first of `candidates` that the payloads fit.

    Payloads of the types in `ignored` are left out where the candidate has no field for them. Raises Unfit
    with what keeps the payloads from being the last candidate, DecodeError for too many of a kind.
    """
    kinds = _by_kind(payloads)
    if not candidates:
        raise Unfit("payloads", "no message of this exchange is expected")
    *others, last = candidates
    for candidate in others:
        # No error is kept: it holds this call, which would hold it, and with it what the peer has sent.
        with suppress(Unfit):
            fitting: M = _read(candidate, kinds, ignored)
            return fitting
    wanted: M = _read(last, kinds, ignored)
    return wanted


def _by_kind(payloads: Iterable[object]) -> dict[type, list[object]]:
    kinds: dict[type, list[object]] = {}
    for payload in payloads:
        kinds.setdefault(type(payload), []).append(payload)
    return kinds


def _read(message: Any, kinds: dict[type, list[object]], ignored: tuple[type, ...]) -> Any:
    rules = _rules(message)
    for kind in kinds:
        if kind not in rules and kind not in ignored:
            raise Unfit(kind.__name__, f"no payload of {message.__name__}")
    values: dict[str, object] = {}
    for payload, rule in rules.items():
        found = kinds.get(payload, ())
        if len(found) > MAX_OF_A_KIND:
            raise DecodeError(payload.__name__, f"{len(found)} of them, more than {MAX_OF_A_KIND}")
        if not rule.least <= len(found) <= rule.most:
            problem = "missing" if len(found) < rule.least else "repeated"
            raise Unfit(payload.__name__, f"{problem} in {message.__name__}")
        values[rule.name] = tuple(found) if rule.most > 1 else (found[0] if found else None)
    return message(**values)


@cache
def _rules(message: Any) -> dict[type, _Field]:
    """By the type of the payload."""
    hints = get_type_hints(message)
    return dict(_rule(field.name, hints[field.name]) for field in fields(message))


def _rule(name: str, hint: Any) -> tuple[type, _Field]:
    if get_origin(hint) is tuple:
        return get_args(hint)[0], _Field(name, 0, MAX_OF_A_KIND)
    if isinstance(hint, UnionType):
        (payload,) = (arm for arm in get_args(hint) if arm is not NoneType)
        return payload, _Field(name, 0, 1)
    return hint, _Field(name, 1, 1)
