"""Writes `vpnd/sdk/models.py` from the API's OpenAPI document: python contrib/sdk_models.py"""

from __future__ import annotations

import keyword
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "vpnd/sdk/models.py"

RENAMED = {"ProblemBody": "Problem", "ExplanationBody": "Explanation"}
NOT_ANSWERED = (
    "CaptureRequest",
    "ErrorBody",
    "ErrorResponse",
    "RekeyRequest",
    "RotateRequest",
    "SwitchRequest",
    "TokenRequest",
    "UpRequest",
)

HEADER = '''"""What the API answers. Made by contrib/sdk_models.py from the OpenAPI document, not by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
'''


def document() -> dict[str, Any]:
    """The OpenAPI document of this checkout."""
    from vpnd.control.api import create_app
    from vpnd.control.operations import Operations

    # The document is the same whatever is behind the API.
    return create_app(cast("Operations", object())).openapi()


def models(openapi: dict[str, Any]) -> str:
    """The module's text: a dataclass for each schema that is answered, those first that others name."""
    schemas = openapi["components"]["schemas"]
    wanted = [name for name in schemas if not name.endswith("Table") and name not in NOT_ANSWERED]
    done: list[str] = []
    while len(done) < len(wanted):
        done += [
            name for name in wanted if name not in done and all(one in done for one in _named(schemas[name]))
        ]
    return HEADER + "".join("\n\n" + _model(name, schemas[name]) for name in done)


def _named(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for one in schema for name in _named(one)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
    return own + [name for one in schema.values() for name in _named(one)]


def _model(name: str, schema: dict[str, Any]) -> str:
    lines = ["@dataclass(frozen=True, slots=True, kw_only=True)", f"class {RENAMED.get(name, name)}:"]
    text = (
        '"""' + schema.get("description", f"{name}.") + ('\n"""' if "\n" in schema["description"] else '"""')
    )
    lines += textwrap.indent(text, "    ").splitlines()
    lines.append("")
    required = schema.get("required", [])
    for key, field in schema.get("properties", {}).items():
        kind = _type(field)
        own = f"{key}_" if keyword.iskeyword(key) else key
        lines.append(f"    {own}: {kind}" + ("" if key in required else f" = {_default(field, kind)}"))
    return "\n".join(lines) + "\n"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return RENAMED.get(name, name)
    if "anyOf" in field:
        return " | ".join(dict.fromkeys(_type(one) for one in field["anyOf"]))
    if "enum" in field:
        words = ", ".join(f'"{word}"' for word in field["enum"])
        return f"Literal[{words}]"
    if field.get("format") == "date-time":
        return "datetime"
    if field.get("type") == "array":
        return f"tuple[{_type(field['items'])}, ...]"
    if "type" not in field:
        return "Any"
    plain = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
    return plain.get(field["type"], "Mapping[str, Any]")


def _default(field: dict[str, Any], kind: str) -> str:
    if kind.startswith("tuple"):
        return "()"
    if "$ref" in field:
        return f"{kind}()"
    default = field.get("default")
    return f'"{default}"' if isinstance(default, str) else repr(default)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    TARGET.write_text(models(document()))
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(TARGET)], check=True)  # noqa: S603 (our own interpreter)
