"""The management API: `vpnctl`'s verbs over HTTP, with an OpenAPI document from which clients can be made."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Body, Depends, FastAPI, Header, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response, StreamingResponse
from pydantic import AfterValidator, BaseModel
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from vpnd.config.secrets import KEYS
from vpnd.control import metrics
from vpnd.control.access import Access, Caller
from vpnd.control.limits import RequestLimits
from vpnd.control.lists import CustomerGatewayFilter, EventFilter, PlanFilter, TraceFilter, TunnelFilter
from vpnd.control.openapi import API_VERSION, PROBLEM, document
from vpnd.control.operations import NegotiationFailed, OperationError, Operations
from vpnd.control.other_side import written_for
from vpnd.control.schema import (
    ActionResult,
    Applied,
    ApplyRequest,
    Bundle,
    CaptureRequest,
    Configurations,
    Confirmed,
    CustomerGatewayChange,
    CustomerGateways,
    CustomerGatewayStatus,
    ErrorBody,
    ErrorResponse,
    GatewayChange,
    GatewayDetail,
    GroupStatus,
    KeyList,
    KeyRotation,
    KeyStatus,
    Plan,
    PlanRequest,
    RekeyRequest,
    ReloadProgress,
    ReloadResult,
    RollbackRequest,
    RotateRequest,
    Status,
    SwitchRequest,
    TokenCreated,
    TokenList,
    TokenRequest,
    TokenRevoked,
    Trace,
    TunnelChange,
    TunnelCheck,
    TunnelDetail,
    TunnelExport,
    TunnelList,
    TunnelPeerConfig,
    TunnelSettings,
    UpRequest,
    Why,
)
from vpnd.control.streams import (
    EVENT_STREAM,
    NDJSON,
    PCAPNG,
    Stopping,
    events_as,
    prefers_event_stream,
    unless_closing,
    until,
)
from vpnd.control.tokens import Tokens
from vpnd.model.text import MASKED, may_be_a_key
from vpnd.translate.kinds import PeerKind

REPLACED = "\ufffd"
"""What the server makes of bytes in a path that are no UTF-8."""


def _is_utf8(name: str) -> str:
    """The name, unless it is not what the client has sent. Raises PydanticCustomError."""
    if REPLACED in name:
        raise PydanticCustomError("utf8", "the name in the path has to be UTF-8 (RFC 3986 section 2.5)")
    return name


Name = Annotated[str, AfterValidator(_is_utf8), Path(description="the tunnel's name", examples=["branch-a"])]

GatewayName = Annotated[
    str, AfterValidator(_is_utf8), Path(description="the customer gateway's name", examples=["branch"])
]

BundleTunnels = Annotated[
    list[str] | None, Query(description="Of this tunnel; may be repeated.", examples=[["branch-a"]])
]

Kind = Annotated[PeerKind, Query(description="What the peer is.", examples=["strongswan"])]

TokenName = Annotated[
    str, AfterValidator(_is_utf8), Path(description="the token's name", examples=["backup"])
]

_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorResponse, "description": "the request was not done: what, and what to change"},
    "5XX": {"model": ErrorResponse, "description": "it did not work: the reason"},
}


def create_app(operations: Operations, tokens: Tokens | None = None) -> FastAPI:
    """The application. `app.state.closing` is an event: once it is set, nothing waits any more.

    `tokens` are those of who comes over TCP; without them, new ones that end with the process.
    """
    tokens = tokens or Tokens()
    app = FastAPI(
        title="vpnd",
        version=API_VERSION,
        summary="IPsec tunnels of one gateway: what they are, and what to do with them",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        # No redirect has a body, and a client that asks for a tunnel without a name gets an error instead.
        redirect_slashes=False,
        responses=_ERRORS,
    )
    closing = asyncio.Event()
    app.state.closing = closing
    app.add_middleware(RequestLimits)
    # The last one added is asked first: nothing is read of who may not ask.
    app.add_middleware(Access, tokens=tokens, on_guess=lambda peer: operations.guessed(peer))
    _add_error_handlers(app)
    commands = Commands(operations, closing)
    _add_queries(app, operations)
    _add_recordings(app, operations)
    _add_streams(app, operations, tokens, closing)
    _add_actions(app, operations, commands)
    _add_captures(app, operations, commands, closing)
    _add_configuration(app, operations, commands)
    _add_gateway(app, operations, commands)
    _add_commits(app, operations, commands)
    _add_customer_gateways(app, operations, commands)
    _add_tokens(app, tokens, commands)
    app.openapi = lambda: document(app)  # type: ignore[method-assign] # FastAPI's documented way to extend it
    return app


def _add_queries(app: FastAPI, operations: Operations) -> None:
    @app.get("/v1/status", response_model=Status, tags=["status"], operation_id="status")
    async def status(wanted: Annotated[TunnelFilter, Query()]) -> Response:
        """The gateway, and every configured tunnel, up or not, or those that match."""
        whole = operations.status()
        found = wanted.matching(whole.tunnels)
        return _json(whole.model_copy(update={"tunnels": wanted.of(found), "total": len(found)}))

    @app.get("/v1/tunnels", response_model=TunnelList, tags=["status"], operation_id="tunnels")
    async def tunnels(wanted: Annotated[TunnelFilter, Query()]) -> Response:
        """The tunnels that match, without the gateway."""
        found = wanted.matching(operations.status().tunnels)
        return _json(TunnelList(tunnels=wanted.of(found), total=len(found)))

    @app.get("/v1/tunnels/{name}", response_model=TunnelDetail, tags=["status"], operation_id="show")
    async def show(name: Name) -> Response:
        """Everything about one tunnel but its key."""
        return _json(operations.tunnel(name))

    @app.get(
        "/v1/tunnels/{name}/settings", response_model=TunnelSettings, tags=["status"], operation_id="settings"
    )
    async def settings(name: Name) -> Response:
        """Every value that is in force, and where it comes from; a fingerprint stands for the key."""
        return _json(operations.settings(name))

    @app.get("/v1/tunnels/{name}/export", response_model=TunnelExport, tags=["status"], operation_id="export")
    async def export(name: Name) -> Response:
        """The tunnel as a TOML file, as it was written, without its key."""
        return _json(operations.export(name))

    @app.get(
        "/v1/tunnels/{name}/peer-config",
        response_model=TunnelPeerConfig,
        tags=["status"],
        operation_id="peer_config",
    )
    async def peer_config(name: Name, kind: Kind) -> Response:
        """What to put on the peer, for its product, without the key; 409 where that product cannot do it."""
        return _json(await written_for(operations.tunnel(name), kind))

    @app.get("/v1/keys", response_model=KeyList, tags=["keys"], operation_id="keys")
    async def keys() -> Response:
        """The pre-shared keys of every tunnel, as fingerprints, and which of them each end uses."""
        return _json(operations.keys())

    @app.get("/v1/tunnels/{name}/psk", response_model=KeyStatus, tags=["keys"], operation_id="keys_of")
    async def keys_of(name: Name) -> Response:
        """Those of one tunnel."""
        return _json(operations.keys_of(name))

    @app.get("/v1/tunnels/{name}/why", response_model=Why, tags=["status"], operation_id="why")
    async def why(name: Name) -> Response:
        """The last failure explained."""
        return _json(operations.why(name))


def _add_recordings(app: FastAPI, operations: Operations) -> None:
    @app.get("/v1/tunnels/{name}/trace", response_model=Trace, tags=["status"], operation_id="trace")
    async def trace(name: Name, wanted: Annotated[TraceFilter, Query()]) -> Response:
        """The decoded ladder of the last IKE messages, oldest first, or of those that match."""
        return _json(wanted.of(operations.trace(name)))

    @app.get("/v1/bundle", response_model=Bundle, tags=["status"], operation_id="bundle")
    async def bundle(tunnel: BundleTunnels = None) -> Response:
        """What support needs, as texts: versions, status, events, values, ladders, routes, rules, counters.

        Of these tunnels, or of all as long as there is room. It holds no key.
        """
        found = await operations.bundle(tunnel or ())
        return Response(await asyncio.to_thread(found.model_dump_json), media_type="application/json")


class NotForCapture(OperationError):
    """Who may not capture: packets are more than the API shows else."""

    http_status = 403


def _add_captures(app: FastAPI, operations: Operations, commands: Commands, closing: asyncio.Event) -> None:
    @app.post(
        "/v1/tunnels/{name}/capture",
        tags=["status"],
        operation_id="capture",
        response_class=StreamingResponse,
        responses={200: {"description": "pcapng, as it comes", "content": {PCAPNG: {}}}},
    )
    async def capture(request: Request, name: Name, body: CaptureRequest = CaptureRequest()) -> Response:  # noqa: B008 # immutable
        """What the tunnel carries from now on: inner packets, ESP, and IKE decrypted; no key is in it.

        For root over the socket; with `gateway.capture = "admin"` for who may change things there.
        """
        caller = caller_of(request)
        if caller.token is not None:
            raise NotForCapture("E-SOCKET-ONLY", "captures are taken over the socket only", "vpnctl capture")
        if not (caller.is_root or operations.captures_for_admins()):
            hint = 'sudo, or capture = "admin" in [gateway] for the group vpnd'
            raise NotForCapture("E-ROOT", "captures are for root over the socket", hint)
        stream = operations.capture(name, body)
        parts = [part for part in ("inner", "outer", "ike") if getattr(body, part)]
        commands.note(request, f"capture of {', '.join(parts)} for at most {body.seconds:g} s", name)
        return StreamingResponse(until(stream, closing), 200, {"Cache-Control": "no-store"}, PCAPNG)


def _add_streams(app: FastAPI, operations: Operations, tokens: Tokens, closing: asyncio.Event) -> None:
    @app.get(
        "/v1/events",
        tags=["status"],
        operation_id="events",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "one JSON object a line, or a server-sent event; newest last",
                "content": {
                    NDJSON: {"schema": {"$ref": "#/components/schemas/Event"}},
                    EVENT_STREAM: {"schema": {"type": "string"}},
                },
            }
        },
    )
    async def events(
        request: Request,
        wanted: Annotated[EventFilter, Query()],
        last_event_id: Annotated[
            str | None,
            Header(max_length=64, description="As `after`, as clients of server-sent events give it."),
        ] = None,
    ) -> Response:
        """State changes: those that are kept, then new ones, as newline-delimited JSON or server-sent events.

        `Accept: text/event-stream` chooses the latter: each has its `id` and, as `data`, the same JSON.
        """
        stream = operations.events(wanted.follow, last_event_id or wanted.after)
        accept = ",".join(request.headers.getlist("accept"))
        media_type = EVENT_STREAM if prefers_event_stream(accept) else NDJSON
        headers = {"Cache-Control": "no-store", "Vary": "Accept"}
        token = caller_of(request).token
        ends = [closing] if token is None else [closing, tokens.end_of(token)]
        return StreamingResponse(events_as(media_type, stream, wanted, *ends), 200, headers, media_type)

    @app.get("/metrics", tags=["status"], operation_id="metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        """Prometheus metrics; a tunnel that is configured but down is 0, not absent."""
        return Response(await metrics.exposition(operations), media_type=metrics.CONTENT_TYPE)


def _add_actions(app: FastAPI, operations: Operations, commands: Commands) -> None:
    @app.post("/v1/tunnels/{name}/up", response_model=ActionResult, tags=["actions"], operation_id="up")
    async def up(request: Request, name: Name, body: UpRequest = UpRequest()) -> Response:  # noqa: B008 # immutable
        """Negotiate, and wait until the tunnel is up; 502 with the diagnosis if that failed."""
        return await commands.do(request, operations.up(name, body.timeout_s), "up", name)

    @app.post("/v1/tunnels/{name}/down", response_model=ActionResult, tags=["actions"], operation_id="down")
    async def down(request: Request, name: Name) -> Response:
        """Close with DELETE, and stay down until `up` or a start of vpnd."""
        return await commands.do(request, operations.down(name), "down", name)

    @app.post(
        "/v1/tunnels/{name}/disable", response_model=ActionResult, tags=["actions"], operation_id="disable"
    )
    async def disable(request: Request, name: Name) -> Response:
        """Close with DELETE, and stay down until `enable`, also after a start of vpnd."""
        return await commands.do(request, operations.disable(name), "disable", name)

    @app.post(
        "/v1/tunnels/{name}/enable", response_model=ActionResult, tags=["actions"], operation_id="enable"
    )
    async def enable(request: Request, name: Name) -> Response:
        """Take `disable` back; 409 where a file says `enabled = false`."""
        return await commands.do(request, operations.enable(name), "enable", name)

    @app.post("/v1/tunnels/{name}/reset", response_model=ActionResult, tags=["actions"], operation_id="reset")
    async def reset(request: Request, name: Name, body: UpRequest = UpRequest()) -> Response:  # noqa: B008 # immutable
        """Delete the SAs and negotiate again."""
        return await commands.do(request, operations.reset(name, body.timeout_s), "reset", name)

    @app.post("/v1/tunnels/{name}/rekey", response_model=ActionResult, tags=["actions"], operation_id="rekey")
    async def rekey(request: Request, name: Name, body: RekeyRequest = RekeyRequest()) -> Response:  # noqa: B008 # immutable
        """Replace the SAs now, without loss."""
        action = operations.rekey(name, body.ike, body.child, body.timeout_s)
        return await commands.do(request, action, "rekey", name)

    @app.post(
        "/v1/tunnels/{name}/psk/rotate", response_model=KeyRotation, tags=["keys"], operation_id="rotate_key"
    )
    async def rotate_key(request: Request, name: Name, body: RotateRequest) -> Response:
        """One step in the replacement of a key; of a tunnel that a file defines, what to write for it."""
        if body.key is not None:
            with_own_keys(caller_of(request), {"next_pre_shared_key": body.key}, {})
        action = operations.rotate_key(name, body)
        return await commands.do(request, action, f"key {body.step}", name)

    @app.post("/v1/switch", response_model=GroupStatus, tags=["actions"], operation_id="switch")
    async def switch(request: Request, body: SwitchRequest) -> Response:
        """Move a group's routes to one of its tunnels, or back to what health and priority say."""
        where = "back to health and priority" if body.tunnel is None else f"to {body.tunnel}"
        action = operations.switch(body.group, body.tunnel)
        return await commands.do(request, action, f"switch of {body.group} {where}")


def _add_configuration(app: FastAPI, operations: Operations, commands: Commands) -> None:
    @app.put(
        "/v1/tunnels/{name}", response_model=TunnelChange, tags=["configuration"], operation_id="put_tunnel"
    )
    async def put_tunnel(request: Request, name: Name, table: Annotated[dict[str, Any], Body()]) -> Response:
        """Create or change a tunnel: the shape of its TOML table, checked as `vpnd check` does.

        The key is write-only: it is never shown, and a tunnel that exists keeps it if it is left out.
        """
        own = with_own_keys(caller_of(request), table, operations.key_references(name))
        return await commands.do(request, operations.put_tunnel(name, own), "tunnel", name)

    @app.post(
        "/v1/tunnels/{name}/check", response_model=TunnelCheck, tags=["configuration"], operation_id="check"
    )
    async def check(request: Request, name: Name, table: Annotated[dict[str, Any], Body()]) -> Response:
        """What PUT of this table would say: nothing is changed, and a key may be missing."""
        own = with_own_keys(caller_of(request), table, operations.key_references(name))
        return _json(await commands.wait(operations.check_tunnel(name, own)))

    @app.delete(
        "/v1/tunnels/{name}",
        response_model=TunnelChange,
        tags=["configuration"],
        operation_id="delete_tunnel",
    )
    async def delete_tunnel(request: Request, name: Name) -> Response:
        """Close and forget a tunnel that was made here."""
        return await commands.do(request, operations.delete_tunnel(name), "tunnel", name)

    @app.post("/v1/reload", response_model=ReloadResult, tags=["configuration"], operation_id="reload")
    async def reload(request: Request) -> Response:
        """Apply the changed files, all or nothing; the answer comes when every tunnel is as configured."""
        return await commands.do(request, operations.reload(), "reload")

    @app.get(
        "/v1/reload", response_model=ReloadProgress, tags=["configuration"], operation_id="reload_progress"
    )
    async def reload_progress() -> Response:
        """How far the daemon is with its configuration, at its start as well."""
        return _json(operations.reloading())


def _add_gateway(app: FastAPI, operations: Operations, commands: Commands) -> None:
    tags: list[str | Enum] = ["gateway"]

    @app.get("/v1/gateway", response_model=GatewayDetail, tags=tags, operation_id="gateway")
    async def gateway() -> Response:
        """This gateway, and whether its labels can be set here."""
        return _json(operations.gateway_detail())

    @app.put("/v1/gateway", response_model=GatewayChange, tags=tags, operation_id="put_gateway")
    async def put_gateway(request: Request, table: Annotated[dict[str, Any], Body()]) -> Response:
        """Set the gateway's labels, all of them: what is left out or null has none any more.

        They can be set here where the configuration file has none of them; no tunnel is touched.
        """
        return await commands.do(request, operations.put_gateway(table), "labels of the gateway")


def _add_commits(app: FastAPI, operations: Operations, commands: Commands) -> None:
    tags: list[str | Enum] = ["configuration"]

    @app.get("/v1/plan", response_model=Plan, tags=tags, operation_id="plan")
    async def plan(wanted: Annotated[PlanFilter, Query()]) -> Response:
        """What `apply` would change, or with `back` what `rollback` would, and what it costs.

        Nothing is changed by it, so who may only look may ask.
        """
        return _json(await commands.wait(operations.plan(wanted.back)))

    @app.post("/v1/plan", response_model=Plan, tags=tags, operation_id="plan_by_post", deprecated=True)
    async def plan_by_post(body: PlanRequest = PlanRequest()) -> Response:  # noqa: B008 # immutable
        """The same as `GET /v1/plan`, for who may change something."""
        return _json(await commands.wait(operations.plan(body.back)))

    @app.post("/v1/apply", response_model=Applied, tags=tags, operation_id="apply")
    async def apply(request: Request, body: ApplyRequest = ApplyRequest()) -> Response:  # noqa: B008 # immutable
        """Put the files in force, all or nothing; with `confirm_s` only until then, unless `confirm` comes.

        They also go back where a tunnel that was up does not come up again in 30 s.
        """
        back = f", back in {body.confirm_s:g} s unless confirmed" if body.confirm_s is not None else ""
        return await commands.do(request, operations.apply(body.confirm_s), f"apply{back}")

    @app.post("/v1/confirm", response_model=Confirmed, tags=tags, operation_id="confirm")
    async def confirm(request: Request) -> Response:
        """What `apply` has put in force stays; 409 if nothing waits for that."""
        return await commands.do(request, operations.confirm(), "confirm")

    @app.post("/v1/rollback", response_model=Applied, tags=tags, operation_id="rollback")
    async def rollback(request: Request, body: RollbackRequest = RollbackRequest()) -> Response:  # noqa: B008 # immutable
        """An older configuration is in force again: the confirmed one, or that of `back` before.

        The files stay as they are, and so do the keys.
        """
        return await commands.do(request, operations.rollback(body.back), "rollback")

    @app.get("/v1/configurations", response_model=Configurations, tags=tags, operation_id="configurations")
    async def configurations() -> Response:
        """The configurations that are kept, the one that runs first."""
        return _json(await asyncio.to_thread(operations.configurations))


def _add_customer_gateways(app: FastAPI, operations: Operations, commands: Commands) -> None:
    tags: list[str | Enum] = ["customer gateways"]
    path = "/v1/customer-gateways/{name}"

    @app.get(
        "/v1/customer-gateways", response_model=CustomerGateways, tags=tags, operation_id="customer_gateways"
    )
    async def customer_gateways(wanted: Annotated[CustomerGatewayFilter, Query()]) -> Response:
        """The customer gateways that have a name of their own, or those that match."""
        return _json(wanted.list(operations.customer_gateways()))

    @app.get(path, response_model=CustomerGatewayStatus, tags=tags, operation_id="customer_gateway")
    async def customer_gateway(name: GatewayName) -> Response:
        """One customer gateway, and the tunnels to it."""
        return _json(operations.customer_gateway(name))

    @app.put(path, response_model=CustomerGatewayChange, tags=tags, operation_id="put_customer_gateway")
    async def put_customer_gateway(
        request: Request, name: GatewayName, table: Annotated[dict[str, Any], Body()]
    ) -> Response:
        """Create or change a customer gateway: the shape of its TOML table, checked as `vpnd check` does.

        Tunnels that name it are negotiated again where its address changes.
        """
        action = operations.put_customer_gateway(name, table)
        return await commands.do(request, action, f"customer gateway {name}")

    @app.delete(path, response_model=CustomerGatewayChange, tags=tags, operation_id="delete_customer_gateway")
    async def delete_customer_gateway(request: Request, name: GatewayName) -> Response:
        """Forget a customer gateway that was made here and that no tunnel names."""
        action = operations.delete_customer_gateway(name)
        return await commands.do(request, action, f"customer gateway {name}")


class SocketOnly(OperationError):
    """What a token may not do, whatever its role."""

    http_status = 403


def _require_socket(request: Request) -> None:
    """A token must not make others, which would outlive it. Raises SocketOnly."""
    if caller_of(request).token is not None:
        message = "tokens are made and revoked over the socket only"
        raise SocketOnly("E-SOCKET-ONLY", message, "vpnctl token, on the gateway")


def _add_tokens(app: FastAPI, tokens: Tokens, commands: Commands) -> None:
    tags: list[str | Enum] = ["tokens"]
    local = [Depends(_require_socket)]

    @app.get("/v1/tokens", response_model=TokenList, tags=tags, dependencies=local, operation_id="tokens")
    async def list_tokens() -> Response:
        """The tokens for the API over TCP, but for what they are. Over the socket only."""
        return _json(TokenList(tokens=tokens.list()))

    @app.post(
        "/v1/tokens", response_model=TokenCreated, tags=tags, dependencies=local, operation_id="create_token"
    )
    async def create_token(request: Request, body: TokenRequest) -> Response:
        """Make a token, which this answer shows and nothing else ever. Over the socket only."""
        made = TokenCreated(name=body.name, role=body.role, token=tokens.create(body.name, body.role))
        commands.note(request, f"token {made.name} for {made.role} created")
        return _json(made)

    @app.delete(
        "/v1/tokens/{name}",
        response_model=TokenRevoked,
        tags=tags,
        dependencies=local,
        operation_id="revoke_token",
    )
    async def revoke_token(request: Request, name: TokenName) -> Response:
        """The token is of no use from now on. Over the socket only."""
        tokens.revoke(name)
        commands.note(request, f"token {name} revoked")
        return _json(TokenRevoked(name=name))


def _json(model: BaseModel) -> Response:
    """The model as JSON, once: FastAPI would validate and encode it again."""
    return Response(model.model_dump_json(by_alias=True), media_type="application/json")


# ------------------------------------------------------------------------------------- commands

M = TypeVar("M", bound=BaseModel)


class Commands:
    """What changes something: it is done unless the daemon stops, and an event says who has asked for it."""

    def __init__(self, operations: Operations, closing: asyncio.Event) -> None:
        self._operations = operations
        self._closing = closing

    async def do(
        self, request: Request, action: Coroutine[Any, Any, BaseModel], what: str, tunnel: str | None = None
    ) -> Response:
        """The answer. `what` is done in the words of the event; a refusal that changes nothing is none."""
        try:
            done = await self.wait(action)
        except (NegotiationFailed, Stopping):
            self.note(request, what, tunnel)
            raise
        change = getattr(done, "change", None)
        if change != "unchanged":
            self.note(request, f"{what} {change}" if change else what, tunnel)
        return _json(done)

    async def wait(self, action: Coroutine[Any, Any, M]) -> M:
        """The result, or a refusal as soon as the daemon stops."""
        return await unless_closing(action, self._closing)

    def note(self, request: Request, what: str, tunnel: str | None = None) -> None:
        """Say in an event who has asked for what."""
        self._operations.command(caller_of(request).words, what, tunnel)


def caller_of(request: Request) -> Caller:
    """Who asks, as `Access` has found out."""
    caller: Caller = request.state.caller
    return caller


class KeyOfAnother(OperationError):
    """A key that stands where the caller need not be able to read it. All refusals are alike."""

    http_status = 403

    def __init__(self) -> None:
        message = "keys in files and credentials are for root over the socket"
        super().__init__("E-KEY-SOURCE", message, "send the key itself: plain:TEXT")


def with_own_keys(caller: Caller, table: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
    """The table with the keys that this caller may name. Raises KeyOfAnother, before anything is read.

    The daemon reads a key from a file for root alone: others could have it use, and compare, files that they
    cannot read themselves. Over the socket they may repeat what is `known`, the tunnel's own; it is left out,
    as that keeps the key.
    """
    own = dict(table)
    for key in KEYS:
        reference = own.get(key)
        if caller.is_root or not isinstance(reference, str):
            continue
        if reference.partition(":")[0] not in ("file", "credential"):
            continue
        if caller.token is not None or reference != known.get(key):
            raise KeyOfAnother
        del own[key]
    return own


# -------------------------------------------------------------------------------------- errors


def _add_error_handlers(app: FastAPI) -> None:
    """Every refusal has the same shape, and none repeats what was sent: it may be a key."""

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, OperationError):
            body = ErrorBody(
                code=error.code, message=error.message, hint=error.hint, problems=list(error.problems)
            )
            return error_response(error.http_status, body)
        if isinstance(error, RequestValidationError):
            return _invalid_request(request, error)
        if isinstance(error, HTTPException):
            code = {404: "E-NOT-FOUND", 405: "E-METHOD"}.get(error.status_code, "E-REQUEST")
            message = f"{request.method} {request.url.path}: {str(error.detail).lower()}"
            answer = error_response(
                error.status_code, ErrorBody(code=code, message=message, hint=_OPENAPI_HINT)
            )
            if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                answer.headers["Allow"] = ", ".join(_methods(app, request))
            return answer
        body = ErrorBody(code="E-INTERNAL", message="vpnd failed inside", hint="see its log")
        return error_response(500, body)

    for kind in (OperationError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, refused)


def _methods(app: FastAPI, request: Request) -> list[str]:
    """Those that this path takes (RFC 9110 section 15.5.6), whichever route has them."""
    found: set[str] = set()
    for route in app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


_OPENAPI_HINT = "GET /v1/openapi.json lists what there is"


_JSON_HINT = "the body has to be JSON, and to say so (curl -H 'Content-Type: application/json')"


def _invalid_request(request: Request, error: RequestValidationError) -> Response:
    details = error.errors()
    if any(detail["type"] == "json_invalid" for detail in details):
        body = ErrorBody(code="E-JSON", message="the body is not JSON", hint=_OPENAPI_HINT)
        return error_response(400, body)
    places = (
        ".".join(MASKED if may_be_a_key(str(part)) else str(part) for part in d["loc"][1:]) for d in details
    )
    wrong = "; ".join(f"{place or 'body'}: {d['msg']}" for place, d in zip(places, details, strict=True))
    declared = "json" in request.headers.get("content-type", "json")
    hint = _OPENAPI_HINT if declared else _JSON_HINT
    return error_response(422, ErrorBody(code="E-REQUEST", message=wrong, hint=hint))


def _place(path: Sequence[object]) -> str:
    """`ike.dh_group`; a name that is no key of the document may be anything that was typed there."""
    return ".".join(MASKED if may_be_a_key(str(part)) else str(part) for part in path)


def error_response(status: int, body: ErrorBody) -> Response:
    """An answer that says what was not done."""
    content = ErrorResponse.of(status, body).model_dump_json()
    return Response(content, status, media_type=PROBLEM)
