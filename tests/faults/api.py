"""The management API without the start of a program for each call: what is measured in seconds needs that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.lab.plan import Plan
from tests.lab.vpnd import UnixConnection, Vpnd
from vpnd.control import addition


def call(vpnd: Vpnd, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """One request; the answer's JSON. Raises RuntimeError for a refusal, with what was said."""
    connection = UnixConnection(vpnd.socket)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {content.decode(errors='replace')}")
        return json.loads(content) if content else None
    finally:
        connection.close()


def put(vpnd: Vpnd, plan: Plan) -> None:
    """Create or change a tunnel, as `vpnctl add` does."""
    (tunnel,) = addition.read(vpnd.write_tunnel(plan, vpnd.directory / f"{plan.name}.toml"))
    call(vpnd, "PUT", f"/v1/tunnels/{tunnel.name}", tunnel.table)


def delete(vpnd: Vpnd, name: str) -> None:
    """Remove a tunnel made so."""
    call(vpnd, "DELETE", f"/v1/tunnels/{name}")


def ike_sas(vpnd: Vpnd, name: str) -> list[dict[str, Any]]:
    """The IKE SAs of one tunnel, established or not."""
    found: list[dict[str, Any]] = call(vpnd, "GET", f"/v1/tunnels/{name}")["ike_sas"]
    return found
