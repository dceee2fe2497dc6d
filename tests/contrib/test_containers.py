"""The image and the scenarios in containers: what can be said of them without a container engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.unit.config.files import write
from vpnd.config.compile import compile_gateway
from vpnd.config.load import Loaded, load

ROOT = Path(__file__).parents[2]
SCENARIOS = ROOT / "contrib/containers"
NAMES = sorted(path.parent.name for path in SCENARIOS.glob("*/vpnd.toml"))
IMAGE = (ROOT / "Containerfile").read_text()
SCRIPT = (ROOT / "contrib/containers.sh").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()


def loaded(name: str, directory: Path) -> Loaded:
    """The configuration of a scenario, with a key where its container has one."""
    key = write(directory, "a-key-that-nobody-will-guess-in-a-scenario\n", "psk")
    text = (SCENARIOS / name / "vpnd.toml").read_text()
    assert "file:/etc/vpnd/psk" in text
    return load(write(directory, text.replace("/etc/vpnd/psk", str(key))))


@pytest.mark.parametrize("name", NAMES)
def test_a_scenario_is_what_vpnd_takes(name: str, tmp_path: Path) -> None:
    found = loaded(name, tmp_path)
    warnings = ["W-AGGRESSIVE"] if name == "aggressive-mode" else []
    assert [problem.code for problem in found.problems] == warnings
    assert compile_gateway(found).tunnels


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_of_a_scenario_agree(name: str, tmp_path: Path) -> None:
    policy = compile_gateway(loaded(name, tmp_path))
    peers = "\n".join(path.read_text() for path in sorted((SCENARIOS / name).glob("*swanctl.conf")))
    ours = set(re.findall(r"remote_addrs = (\S+)", peers))
    assert ours == {str(policy.address)}
    assert set(re.findall(r"local_addrs = (\S+)", peers)) == {tunnel.remote for tunnel in policy.tunnels}
    versions = {str(tunnel.peer.version.value) for tunnel in policy.tunnels}
    assert set(re.findall(r"version = (\d)", peers)) == versions
    assert "secret =" not in peers, "the key is made for each run"
    for tunnel in policy.tunnels:
        for mapping in tunnel.peer.children:
            assert f"local_ts = {mapping.remote}" in peers
            assert f"remote_ts = {mapping.local}" in peers


def test_the_script_plays_every_scenario() -> None:
    listed = re.search(r"^all=\((.*)\)$", SCRIPT, re.M)
    assert listed is not None
    assert sorted(listed[1].split()) == NAMES
    assert set(NAMES) == {"main-mode", "aggressive-mode", "ikev2", "spd-policy", "failover"}


def test_nothing_in_the_image_is_root_s() -> None:
    assert re.findall(r"^USER (\S+)$", IMAGE, re.M) == ["vpnd"]
    granted = re.search(r"setcap (\S+)\+ep", IMAGE)
    assert granted is not None
    assert granted[1].split(",") == ["cap_net_admin", "cap_net_raw"]


def test_the_user_and_the_capabilities_are_the_same_everywhere() -> None:
    readme = (ROOT / "README.md").read_text()
    for text in (IMAGE, SCRIPT, COMPOSE, readme):
        assert "8500" in text
    vpnd = COMPOSE[COMPOSE.index("  vpnd:") : COMPOSE.index("  peer:")]
    assert "cap_drop: [ALL]" in vpnd
    assert "cap_add: [NET_ADMIN, NET_RAW]" in vpnd
    for text in (SCRIPT, readme):
        assert "--cap-drop ALL --cap-add NET_ADMIN --cap-add NET_RAW" in text
        assert "--privileged" not in text


@pytest.mark.parametrize("name", ["containers.sh", "engine.sh", "image.sh", "containers/peer.sh"])
def test_a_script_is_one_for_bash(name: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / "contrib" / name)], check=True)
