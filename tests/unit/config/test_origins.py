"""The effective values of a tunnel, and where each comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.files import GATEWAY, write
from vpnd.config.compile import describe
from vpnd.config.load import Loaded, load
from vpnd.config.origins import Origin, Setting, settings
from vpnd.config.schema import TunnelTable

KEY = "correct-horse-battery-staple"

TEXT = f"""{GATEWAY}
[tunnels.a]
customer_gateway = "branch"
pre_shared_key = "plain:{KEY}"
profile = "tencent-cloud"
communication = "spd-policy"
ike = {{ encryption = ["aes-256", "aes-128"] }}

[[tunnels.a.spd]]
local = ["10.1.0.0/24"]
remote = ["10.2.0.0/24"]

[tunnels.a.health_check]
enabled = false

[tunnels.h]
customer_gateway = "other"
pre_shared_key = "plain:{KEY}"
routes = ["10.9.0.0/16"]
health_check = {{ enabled = true }}
"""


def found(loaded: Loaded, name: str = "a") -> dict[str, Setting]:
    return {one.key: one for one in settings(loaded, name)}


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    loaded = load(write(tmp_path, TEXT))
    assert loaded.ok
    return loaded


def line(text: str) -> int:
    """The 1-based line that begins so."""
    (number,) = (n for n, content in enumerate(TEXT.splitlines(), 1) if content.startswith(text))
    return number


@pytest.mark.parametrize(
    ("key", "value", "origin", "begins"),
    [
        ("communication", "spd-policy", Origin.FILE, "communication"),
        ("ike.encryption", ["aes-256", "aes-128"], Origin.FILE, "ike ="),
        ("spd[0].remote", ["10.2.0.0/24"], Origin.FILE, "remote"),
        ("health_check.enabled", False, Origin.FILE, "enabled"),
        ("ipsec.integrity", ["md5"], Origin.PROFILE, "profile"),
        ("ike.dh_group", [1], Origin.PROFILE, "profile"),
        ("ike.local_id", "192.0.2.1", Origin.DERIVED, 'address = "192.0.2.1"'),
        ("ike.remote_id", "198.51.100.1", Origin.DERIVED, 'address = "198.51.100.1"'),
        ("interface", "vpn-a", Origin.DERIVED, None),
        ("health_check.interval_ms", 5000, Origin.DEFAULT, None),
        ("mtu", None, Origin.DEFAULT, None),
    ],
)
def test_a_value_and_its_origin(
    loaded: Loaded, key: str, value: object, origin: Origin, begins: str | None
) -> None:
    one = found(loaded)[key]
    assert (one.value, one.origin) == (value, origin)
    place = None if begins is None else line(begins)
    assert (one.place or "").rpartition(":")[2] == (str(place) if place else "")


def test_addresses_of_the_health_check_are_made_by_vpnd(loaded: Loaded) -> None:
    one = found(loaded, "h")["health_check.local"]
    assert str(one.value).startswith("169.254.")
    assert (one.origin, one.place) == (Origin.DERIVED, None)


def test_the_customer_gateway_has_name_and_address_of_its_own_place(loaded: Loaded) -> None:
    one = found(loaded)["customer_gateway"]
    assert one.value == {"name": "branch", "address": "198.51.100.1"}
    assert one.place is not None
    number = line('address = "198.51.100.1"')
    assert one.place.endswith(f":{number}")


def test_a_fingerprint_stands_for_the_key(loaded: Loaded) -> None:
    one = found(loaded)["pre_shared_key"]
    secret = loaded.configuration.tunnels["a"].secret
    assert secret is not None
    assert one.value == secret.fingerprint()
    assert KEY not in repr(settings(loaded, "a"))


def test_every_key_of_the_schema_is_there(loaded: Loaded) -> None:
    """Nothing that is configured is left out."""
    tops = {key.partition(".")[0].partition("[")[0] for key in found(loaded)}
    assert tops == set(TunnelTable.model_fields) - {"next_pre_shared_key"}, "which is not written here"


def test_the_values_are_those_of_show(loaded: Loaded) -> None:
    shown, values = describe(loaded, "a"), found(loaded)
    for section in ("ike", "ipsec", "dpd", "health_check", "sm_numbers"):
        assert {key: values[f"{section}.{key}"].value for key in shown[section]} == shown[section]
