"""The OpenAPI document: FastAPI's, with the shape of a tunnel's table where its type is only "an object"."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from vpnd.config.schema import CustomerGatewayTable, GatewayLabels, TunnelTable
from vpnd.control.schema import Event

API_VERSION = "1.1"
"""The first number is that of the paths (`/v1`), the second grows with what is added to the document."""

PROBLEM = "application/problem+json"
"""The media type of an error (RFC 9457)."""

SPD_EXAMPLE = {"local": ["10.1.0.0/24"], "remote": ["10.2.0.0/24"]}


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
        _describe_tables(made)
        _name_problems(made)
        _name_rights(made)
        _parameters_are_text(made)
        app.openapi_schema = made
    return app.openapi_schema


def _describe_tables(made: dict[str, Any]) -> None:
    event = Event.model_json_schema(ref_template="#/components/schemas/{model}")
    made["components"]["schemas"]["Event"] = event
    gateway = CustomerGatewayTable.model_json_schema(ref_template="#/components/schemas/{model}")
    made["components"]["schemas"]["CustomerGatewayTable"] = gateway
    labels = GatewayLabels.model_json_schema(ref_template="#/components/schemas/{model}")
    made["components"]["schemas"]["GatewayLabelsTable"] = labels
    labels["examples"] = [{"type": "vpc", "vpc": "vpc-1", "region": "eu-1"}]
    schema = TunnelTable.model_json_schema(ref_template="#/components/schemas/{model}")
    made["components"]["schemas"].update(schema.pop("$defs", {}))
    schema["properties"]["pre_shared_key"] |= {
        "writeOnly": True,
        "description": "file:PATH, credential:NAME or plain:TEXT; a tunnel that exists keeps its own without",
    }
    schema["properties"]["next_pre_shared_key"]["writeOnly"] = True
    schema["required"] = [key for key in schema["required"] if key != "pre_shared_key"]
    schema["examples"] = [
        {
            "customer_gateway": "branch",
            "pre_shared_key": "plain:TEXT",
            "communication": "spd-policy",
            "spd": [SPD_EXAMPLE],
        }
    ]
    made["components"]["schemas"]["TunnelTable"] = schema
    made["components"]["schemas"]["SpdTable"]["examples"] = [SPD_EXAMPLE]
    gateway["examples"] = [{"address": "198.51.100.1"}]
    paths = made["paths"]
    for operation, table in (
        (paths["/v1/tunnels/{name}"]["put"], "TunnelTable"),
        (paths["/v1/tunnels/{name}/check"]["post"], "TunnelTable"),
        (paths["/v1/gateway"]["put"], "GatewayLabelsTable"),
        (paths["/v1/customer-gateways/{name}"]["put"], "CustomerGatewayTable"),
    ):
        body = operation["requestBody"]["content"]["application/json"]
        body["schema"] = {"$ref": f"#/components/schemas/{table}"}


def _name_problems(made: dict[str, Any]) -> None:
    """Errors have a media type of their own; FastAPI takes every model for `application/json`."""
    for operation in (one for methods in made["paths"].values() for one in methods.values()):
        for status, response in operation["responses"].items():
            if status[0] in "45":
                response["content"] = {PROBLEM: next(iter(response["content"].values()))}


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
            is_local = path.startswith("/v1/tokens") or path.endswith("/capture")
            role = "socket" if is_local else "read" if method == "get" else "admin"
            operation["x-role"] = role
            operation["security"] = [{}] if is_local else [{}, {"token": []}]


def _parameters_are_text(made: dict[str, Any]) -> None:
    """A parameter is left out, and never null: what a query holds is text."""
    for operation in (one for methods in made["paths"].values() for one in methods.values()):
        for parameter in operation.get("parameters", ()):
            schema = parameter["schema"]
            kinds = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
            if len(kinds) == 1:
                del schema["anyOf"]
                schema.update(kinds[0])
