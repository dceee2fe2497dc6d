"""How much memory something holds: everything that is reachable from it and is data."""

from __future__ import annotations

import enum
import gc
import sys
import types

_CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, enum.Enum)


def footprint(*roots: object) -> tuple[int, int]:
    """Objects and bytes reachable from `roots`; classes, functions, modules and enum members do not count."""
    seen: set[int] = set()
    waiting: list[object] = list(roots)
    size = 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, _CODE):
            continue
        seen.add(id(one))
        size += sys.getsizeof(one)
        waiting += gc.get_referents(one)
    return len(seen), size
