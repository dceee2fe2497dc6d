"""The examples in `conf/` are what they say: right, complete, and without a warning but for the one meant."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.unit.config.files import write
from vpnd.config.compile import compile_gateway, describe
from vpnd.config.load import Loaded, load
from vpnd.config.schema import TunnelTable
from vpnd.model.policy import Communication, Negotiation, NegotiationMode
from vpnd.wire.iana import IkeVersion

EXAMPLES = Path(__file__).parents[3] / "conf"


def example(directory: Path, name: str) -> Loaded:
    """The example, with keys where it names files."""
    text = (EXAMPLES / name).read_text()
    for table in tomllib.loads(text)["tunnels"].values():
        key = table["pre_shared_key"].removeprefix("file:/etc/vpnd/psk/")
        write(directory, f"a-key-that-nobody-will-guess-for-{key}\n", f"psk/{key}")
    return load(write(directory, text.replace("/etc/vpnd/psk", str(directory / "psk"))))


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.toml")))
def test_an_example_is_right(tmp_path: Path, name: str) -> None:
    loaded = example(tmp_path, name)
    warnings = {"ikev1-aggressive.toml": ["W-AGGRESSIVE"]}.get(name, [])
    assert [p.code for p in loaded.problems] == warnings
    assert compile_gateway(loaded).tunnels


def test_there_is_an_example_of_each_kind(tmp_path: Path) -> None:
    tunnels = {
        path.stem: compile_gateway(example(tmp_path / path.stem, path.name)).tunnels
        for path in EXAMPLES.glob("*.toml")
    }
    assert tunnels["spd-policy"][0].communication is Communication.SPD_POLICY
    assert len(tunnels["spd-policy"][0].peer.children) == 5
    assert [child.protocol for child in tunnels["spd-policy"][0].peer.children] == [0, 0, 0, 6, 17]
    assert tunnels["ikev1-main"][0].peer.mode is NegotiationMode.MAIN
    assert tunnels["ikev1-aggressive"][0].peer.mode is NegotiationMode.AGGRESSIVE
    assert tunnels["passive"][0].negotiation is Negotiation.PASSIVE
    assert tunnels["traffic-triggered"][0].negotiation is Negotiation.TRAFFIC_TRIGGERED
    assert tunnels["tencent-cloud"][0].peer.version is IkeVersion.V2
    assert all(tunnel.peer.any_address for tunnel in tunnels["hub"])
    assert [str(tunnel.peer.remote_id) for tunnel in tunnels["hub"]][1] == "@203.0.113.1"
    primary, secondary = tunnels["primary-secondary"]
    assert primary.routes == secondary.routes
    assert primary.priority < secondary.priority
    assert primary.health is not None
    assert secondary.health is not None


def test_the_main_example_shows_every_key_with_its_default(tmp_path: Path) -> None:
    written = tomllib.loads((EXAMPLES / "vpnd.toml").read_text())["tunnels"]["branch-a"]
    loaded = example(tmp_path, "vpnd.toml")
    defaults = write(
        tmp_path / "bare",
        '[gateway]\nname = "hq"\naddress = "192.0.2.1"\n'
        '[customer_gateways.branch]\naddress = "198.51.100.1"\n'
        '[tunnels.branch-a]\ncustomer_gateway = "branch"\nroutes = ["10.2.0.0/16"]\n'
        'pre_shared_key = "plain:a-key-that-nobody-will-guess"\n',
    )
    assert describe(loaded, "branch-a") == describe(load(defaults), "branch-a")
    assert set(TunnelTable.model_fields) - set(written) == {
        "spd",
        "sm_numbers",
        "mtu",
        "mss",
        "next_pre_shared_key",
        "retire_after",
    }
    for section in ("ike", "ipsec", "dpd"):
        model = TunnelTable.model_fields[section].annotation
        assert set(getattr(model, "model_fields")) == set(written[section])  # noqa: B009 # a type to mypy
