"""Writing TOML, which `tomllib` only reads: any table that a test makes up."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping


def dump(tables: Mapping[str, object]) -> str:
    """The text that `tomllib.loads` reads back as `tables`.

    Text, whole numbers, true and false, lists of these, tables and lists of tables; ValueError for another
    kind of value, and for text that is not Unicode.
    """
    lines: list[str] = []
    _table(tables, (), lines)
    text = "\n".join(lines).strip() + "\n"
    text.encode()
    return text


def _table(table: Mapping[str, object], path: tuple[str, ...], lines: list[str]) -> None:
    """The plain values first, for a table's keys end where the next header begins."""
    inner: list[tuple[str, object]] = []
    for key, value in table.items():
        if isinstance(value, Mapping) or _is_table_list(value):
            inner.append((key, value))
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in inner:
        here = (*path, key)
        header = ".".join(_key(part) for part in here)
        if isinstance(value, Mapping):
            lines += ["", f"[{header}]"]
            _table(value, here, lines)
        elif isinstance(value, list):
            for element in value:
                lines += ["", f"[[{header}]]"]
                _table(element, here, lines)


def _is_table_list(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(element, Mapping) for element in value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _text(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(element) for element in value) + "]"
    raise ValueError(f"a {type(value).__name__} has no place in a configuration")


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for DEL, which JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
