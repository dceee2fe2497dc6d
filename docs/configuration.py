"""The reference of the configuration, from its schema: meaning, unit, values, default, class of each key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from contrib.reference import TABLES, plain, values_of
from docs.markdown import code, page, table
from vpnd.config import schema
from vpnd.config.classes import CLASSES, COSTS, ChangeClass
from vpnd.config.values import UNIT


def configuration_page() -> str:
    """Every table of the file, with every key."""
    return page(
        "Configuration",
        "`/etc/vpnd/vpnd.toml` and the files of `/etc/vpnd/tunnels.d/` hold the gateway, its peers and its"
        " tunnels in TOML. `vpnd check` names every problem with its line; unknown keys are errors. The"
        " examples of `conf/` are whole files. Generated from `vpnd/config/schema.py`.",
        "The class of a key says what a change of it costs at a reload; of several changes of a tunnel the"
        " dearest counts.",
        table(("class", "what it costs"), [(one.value, COSTS[one]) for one in ChangeClass]),
        *(part for heading, model in TABLES for part in _table(heading, model)),
        "## Profiles",
        "What `profile` puts in place of the defaults above.",
        table(
            ("profile", "key", "value"),
            [
                (code(profile), code(f"{section}.{key}"), code(value))
                for profile, sections in schema.PROFILES.items()
                for section, keys in sections.items()
                for key, value in keys.items()
            ],
        ),
    )


def keys(model: type[Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """The keys of a table that are not tables themselves: name, schema, whether it is required."""
    shape = model.model_json_schema()
    for key, found in shape["properties"].items():
        if "$ref" not in found and "$ref" not in str(found.get("items", "")):
            yield key, found, key in shape.get("required", ())


def change_class(heading: str, key: str) -> ChangeClass:
    """What a change of a key costs."""
    return CLASSES[f"{heading.strip('[]')}.{key}"]


def _table(heading: str, model: type[Any]) -> list[str]:
    rows = [
        (
            code(key),
            str(found["description"]),
            str(found.get(UNIT, "")),
            values_of(found) or "",
            "required" if required else code(_default(found.get("default"))),
            change_class(heading, key).value,
        )
        for key, found, required in keys(model)
    ]
    about = plain(model.__doc__ or "").removeprefix(f"`[{heading}]`").lstrip(":. ")
    return [
        f"## `[{heading}]`",
        about[:1].upper() + about[1:],
        table(("key", "meaning", "unit", "values", "default", "class"), rows),
    ]


def _default(value: object) -> str:
    if value in (None, [], ""):
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
