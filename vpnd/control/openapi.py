"""The OpenAPI document: FastAPI's, with the shape of a tunnel's table where its type is only "an object"."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from vpnd.config.schema import TunnelTable

PROBLEM = "application/problem+json"
"""The media type of an error (RFC 9457)."""


def document(app: FastAPI) -> dict[str, Any]:
    """Made once, then kept in the application."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            openapi_version=app.openapi_version,
            summary=app.summary,
            routes=app.routes,
        )
        _describe_tunnel_table(made)
        _name_problems(made)
        _name_rights(made)
        app.openapi_schema = made
    return app.openapi_schema


def _describe_tunnel_table(made: dict[str, Any]) -> None:
    schema = TunnelTable.model_json_schema(ref_template="#/components/schemas/{model}")
    made["components"]["schemas"].update(schema.pop("$defs", {}))
    schema["properties"]["pre_shared_key"] |= {
        "writeOnly": True,
        "description": "file:PATH, credential:NAME or plain:TEXT; a tunnel that exists keeps its own without",
    }
    schema["required"] = [key for key in schema["required"] if key != "pre_shared_key"]
    made["components"]["schemas"]["TunnelTable"] = schema
    paths = made["paths"]
    for operation in (paths["/v1/tunnels/{name}"]["put"], paths["/v1/tunnels/{name}/check"]["post"]):
        body = operation["requestBody"]["content"]["application/json"]
        body["schema"] = {"$ref": "#/components/schemas/TunnelTable"}


def _name_problems(made: dict[str, Any]) -> None:
    """Errors have a media type of their own; FastAPI takes every model for `application/json`."""
    for operation in (one for methods in made["paths"].values() for one in methods.values()):
        for status, response in operation["responses"].items():
            if status[0] in "45":
                response["content"] = {PROBLEM: response["content"].pop("application/json")}


def _name_rights(made: dict[str, Any]) -> None:
    """What each operation takes: over the socket nothing more, over TCP a token that has the role."""
    made["components"]["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "Over TCP: a token of `vpnctl token create`. Over the Unix socket: none.",
        }
    }
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            is_local = path.startswith("/v1/tokens")
            role = "socket" if is_local else "read" if method == "get" else "admin"
            operation["x-role"] = role
            operation["security"] = [{}] if is_local else [{}, {"token": []}]
