"""What Ansible writes is a configuration that `vpnd check` accepts, and what it shows has no key."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jinja2
import pytest

from tests.lab.plan import PSK
from vpnd.control.check import check

CONTRIB = Path(__file__).parents[2] / "contrib/ansible"
ROLE = CONTRIB / "roles/vpnd"


def rendered(keys: dict[str, str] | None = None, **variables: Any) -> str:
    """The file, as Ansible's template module makes it."""
    environment = jinja2.Environment(  # noqa: S701 (it writes TOML, no HTML)
        loader=jinja2.FileSystemLoader(ROLE / "templates"), trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["to_json"] = json.dumps
    environment.filters["combine"] = lambda one, other: {**one, **other}
    return environment.get_template("vpnd.toml.j2").render(vpnd_keys=keys or {}, **variables)


def test_every_kind_of_value_is_written() -> None:
    gateway = {"name": 'a "quoted" name \\', "address": "192.0.2.1", "max_tunnels": 20}
    tunnel = {
        "customer_gateway": "far",
        "communication": "spd-policy",
        "mtu": 1300,
        "ike": {"version": "ikev2", "encryption": ["aes-128", "aes-256"]},
        "dpd": {"enabled": True},
        "spd": [
            {"local": ["10.1.0.0/24", "10.3.0.0/24"], "remote": ["10.2.0.0/24"]},
            {"local": ["10.1.0.0/24"], "remote": ["10.4.0.0/24"]},
        ],
    }
    text = rendered(
        vpnd_gateway=gateway,
        vpnd_customer_gateways={"far": {"address": "198.51.100.1"}},
        vpnd_tunnels={"one": tunnel, "two words": {**tunnel, "pre_shared_key": "credential:two"}},
    )
    read = tomllib.loads(text)
    assert read["gateway"] == gateway
    assert read["customer_gateways"] == {"far": {"address": "198.51.100.1"}}
    assert read["tunnels"]["one"] == tunnel
    assert read["tunnels"]["two words"]["pre_shared_key"] == "credential:two"


def test_a_key_is_named_and_not_written(tmp_path: Path) -> None:
    variables: dict[str, Any] = {
        "vpnd_gateway": {"name": "hq", "address": "192.0.2.1"},
        "vpnd_customer_gateways": {"far": {"address": "198.51.100.1"}},
        "vpnd_tunnels": {"far": {"customer_gateway": "far", "routes": ["10.2.0.0/24"]}},
    }
    assert "pre_shared_key" not in rendered(**variables)
    text = rendered({"far": PSK}, **variables)
    assert PSK not in text
    file = tmp_path / "vpnd.toml"
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(f"{PSK}\n")
    assert "file:/etc/vpnd/psk/far" in text
    file.write_text(text.replace("/etc/vpnd/psk/far", str(tmp_path / "key")))
    out = io.StringIO()
    assert check(file, out=out) == 0, out.getvalue()


def test_the_key_is_in_no_output() -> None:
    (task,) = (ROLE / "tasks/configure.yml").read_text().split("- name: Write the keys")[1:]
    task = task.split("- name: ")[0]
    assert "item.value" in task
    assert "no_log: true" in task
    assert "diff: false" in task


@pytest.mark.skipif(shutil.which("ansible-playbook") is None, reason="no ansible-playbook on this machine")
def test_the_example_is_a_playbook() -> None:
    command = ["ansible-playbook", "--syntax-check", "example.yml"]
    subprocess.run(command, cwd=CONTRIB, check=True, capture_output=True, timeout=60)
