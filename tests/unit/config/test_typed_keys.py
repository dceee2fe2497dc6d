"""A key that is typed into the wrong field: a refusal never repeats it, whichever field it is.

What is accepted is configuration and is shown: a description, a name, an identity. The fields are read from
the models, so that a new one is tried as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from tests.unit.config.files import GATEWAY, TUNNEL, load_text
from vpnd.config import schema
from vpnd.config.configuration import Findings, Source
from vpnd.config.load import check
from vpnd.config.secrets import KEYS, new_key
from vpnd.control.rotation import Unusable, end_of
from vpnd.model.text import may_be_a_key, named

TYPED = {
    "made by vpnd": new_key(),
    "hex": "5f4dcc3b5aa765d61d8327deb882cf995f4dcc3b5aa765d61d8327deb882cf99",
    "base64": "mxLvUuPzRrOTgIwHLdJ3V7pmcyQb4+wWtYg0wXJqk5M=",
    "words": "what was typed in the wrong place 5678",
    "short": "Tr0ub4dor&3",
    "with its form": "plain:abc",
}
GATEWAY_SOURCE = Source(
    "vpnd.toml", {"gateway": {"name": "hq", "address": "192.0.2.1"}}, main=True, private=True
)
WHOLE = {"customer_gateway": {"address": "198.51.100.1"}, "pre_shared_key": "plain:a key of some length 123"}


def fields(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every field of a tunnel's table, those of its tables included."""
    for name, field in model.model_fields.items():
        inner = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type)]
        tables = [one for one in inner if issubclass(one, BaseModel)]
        yield (*above, name)
        for table in tables:
            yield from fields(table, (*above, name))


FIELDS = [path for path in fields(schema.TunnelTable) if path[-1] not in KEYS]


def with_value(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    table: dict[str, Any] = dict(WHOLE)
    inner = table
    for part in path[:-1]:
        inner[part] = {}
        inner = inner[part]
    inner[path[-1]] = value
    if path[0] == "spd" and len(path) > 1:
        table["spd"] = [{"local": ["10.1.0.0/24"], "remote": ["10.2.0.0/24"], **table["spd"]}]
        table["communication"] = "spd-policy"
    return table


def said(table: dict[str, Any]) -> tuple[bool, str]:
    """Whether it is accepted, and all that is said of it."""
    request = Source("request", {"tunnels": {"t": table}}, private=True, from_api=True)
    loaded = check([GATEWAY_SOURCE, request], Findings())
    return loaded.ok, repr(loaded.problems) + "".join(map(str, loaded.problems))


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_no_refusal_of_a_field_repeats_it(path: tuple[str, ...]) -> None:
    for secret in TYPED.values():
        for value in (secret, [secret], {"plain": secret}, {secret: 1}, [{"key": secret}]):
            accepted, text = said(with_value(path, value))
            assert accepted or secret not in text, text


@pytest.mark.parametrize("secret", TYPED.values(), ids=TYPED)
def test_no_refusal_of_a_name_repeats_it(secret: str) -> None:
    for table in ({**WHOLE, secret: 1}, {**WHOLE, "ike": {secret: "x"}}, {**WHOLE, "psk": secret}):
        accepted, text = said(table)
        assert not accepted
        assert secret not in text, text


def test_a_moment_beside_the_keys_is_not_repeated_however_short(tmp_path: Path) -> None:
    text = GATEWAY + TUNNEL + 'retire_after = "hunter2"\n'
    assert "hunter2" not in repr(load_text(tmp_path, text).problems)
    with pytest.raises(Unusable) as refused:
        end_of("hunter2")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(Unusable, match="2026-13-01"):
        end_of("2026-13-01")


@pytest.mark.parametrize(
    "text",
    [
        "aes-256-cbc", "AES256", "modp2048", "chacha20-poly1305", "10.2.0.0/33", "2001:db8::/129",
        "2026-12-31T00:00:00", "192.0.2.1-192.0.2.9", "gw.example.com", "*.example.com", "branch-shanghai-2",
        "traffic-triggerd", "ikev3", "vpn-lab", "tencent-cloud", "destination-rout", "headquarters-1",
    ],
)  # fmt: skip
def test_what_people_mistype_is_repeated(text: str) -> None:
    assert not may_be_a_key(text)
    assert named(text) == repr(text)
