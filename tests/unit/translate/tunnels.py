"""A tunnel as `GET /v1/tunnels/NAME` answers it, made from lines of TOML."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tests.unit.config.files import GATEWAY, load_text
from tests.unit.control.fakes import FakeOperations
from vpnd.config.compile import describe
from vpnd.config.mappings import mappings_of
from vpnd.model.selectors import ANY_PORT, ports_text, protocol_text
from vpnd.translate.kinds import PeerKind
from vpnd.translate.peer_config import peer_config

KEY_TEXT = "correct-horse-battery-staple"


_KNOWN: dict[str, dict[str, Any]] = {}
"""Those that were made once: each is asked for by every kind."""


def tunnel_of(directory: Path, extra: str) -> dict[str, Any]:
    """The tunnel `a` with these lines."""
    if extra not in _KNOWN:
        _KNOWN[extra] = _make(directory, extra)
    return copy.deepcopy(_KNOWN[extra])


def _make(directory: Path, extra: str) -> dict[str, Any]:
    text = f'[tunnels.a]\ncustomer_gateway = "branch"\npre_shared_key = "plain:{KEY_TEXT}"\n{extra}\n'
    loaded = load_text(directory, GATEWAY + text)
    assert loaded.ok, loaded.errors
    tunnel = copy.deepcopy(FakeOperations().tunnel("branch-a").model_dump(mode="json", by_alias=True))
    table = loaded.configuration.tunnels["a"].table
    tunnel["name"] = "a"
    tunnel["configuration"] = describe(loaded, "a")
    tunnel["mappings"] = [
        {
            "local": str(m.local),
            "remote": str(m.remote),
            "protocol": protocol_text(m.protocol) if m.protocol else None,
            "local_port": ports_text(m.local_ports) if m.local_ports != ANY_PORT else None,
            "remote_port": ports_text(m.remote_ports) if m.remote_ports != ANY_PORT else None,
        }
        for m in mappings_of(table)
    ]
    return tunnel


def peer_of(directory: Path, extra: str, kind: PeerKind = "strongswan") -> str:
    """What `vpnctl peer-config` prints for a tunnel with these lines."""
    return peer_config(tunnel_of(directory, extra), kind).text
