"""A daemon without tunnels of its own: `Operations` over a table of statuses, and what was asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from vpnd.config.configuration import Findings, Source
from vpnd.config.load import check
from vpnd.control.check import checked, named_gateways
from vpnd.control.diagnoses import explain, message
from vpnd.control.eventlog import EventLog
from vpnd.control.operations import (
    Conflict,
    Histogram,
    InvalidConfiguration,
    NegotiationFailed,
    TunnelFigures,
    UnknownCustomerGateway,
    UnknownGroup,
    UnknownTunnel,
)
from vpnd.control.schema import (
    ActionResult,
    Applied,
    Bundle,
    BundleFile,
    CaptureRequest,
    CarriedRoute,
    Configurations,
    Confirmed,
    CustomerGatewayChange,
    CustomerGatewayStatus,
    DpdStatus,
    Event,
    Fault,
    GatewayChange,
    GatewayDetail,
    GatewayStatus,
    GroupStatus,
    HealthStatus,
    IkeStatus,
    KeptConfiguration,
    KeyChangeBody,
    KeyList,
    KeyRotation,
    KeyStatus,
    KeyUse,
    MappingStatus,
    PeerStatus,
    Plan,
    ProblemBody,
    ReloadProgress,
    ReloadResult,
    RotateRequest,
    SettingStatus,
    Status,
    Trace,
    TraceLine,
    TunnelChange,
    TunnelCheck,
    TunnelDetail,
    TunnelExport,
    TunnelPlan,
    TunnelSettings,
    TunnelStatus,
    Why,
)
from vpnd.model.diagnosis import Code, Diagnosis

AT = datetime(2026, 3, 1, 14, 2, 11, tzinfo=UTC)

WRONG_KEY = Diagnosis.of(
    Code.PSK,
    exchange="IKE_AUTH",
    notify="AUTHENTICATION_FAILED",
    ours="3f9a-77c1",
    detail="we said IDi 192.0.2.1 (IPV4_ADDR)",
)


def ike(age_s: int = 12) -> IkeStatus:
    return IkeStatus(
        version="ikev2",
        mode=None,
        spi_i="81aaf615053ac3d0",
        spi_r="a7c74a3942a62381",
        encryption="aes-128",
        integrity="sha256",
        dh_group=14,
        age_s=age_s,
        rekey_in_s=77000,
        expires_in_s=86388,
    )


def mapping_up(local: str = "10.1.0.0/24", remote: str = "10.2.0.0/24") -> MappingStatus:
    return MappingStatus(
        local=local,
        remote=remote,
        state="up",
        spi_in="df39ebcd",
        spi_out="46a1ff04",
        encryption="aes-128",
        integrity="sha256",
        encapsulation="udp",
        packets_in=2,
        packets_out=2,
        bytes_in=3_400_000,
        bytes_out=168,
        age_s=12,
        rekey_in_s=3100,
        expires_in_s=3588,
    )


def tunnel_up(name: str = "branch-a", **changes: Any) -> TunnelStatus:
    values: dict[str, Any] = {
        "name": name,
        "state": "up",
        "negotiation": "active",
        "priority": 0,
        "carries_traffic": True,
        "peer": PeerStatus(address="198.51.100.1", port=4500, vendor="strongSwan", nat=True, nat_at="here"),
        "ike": ike(),
        "mappings": [mapping_up()],
        "health": HealthStatus(
            state="healthy",
            sent=12,
            lost=0,
            rtt_ms=0.7,
            jitter_ms=0.1,
            local="169.254.128.1",
            remote="169.254.128.2",
        ),
        "dpd": DpdStatus(enabled=True, last_heard_s=3),
    }
    return TunnelStatus(**(values | changes))


def tunnel_failed(name: str = "branch-b") -> TunnelStatus:
    return TunnelStatus(
        name=name,
        state="down",
        negotiation="passive",
        priority=100,
        carries_traffic=False,
        peer=PeerStatus(address="203.0.113.7"),
        mappings=[MappingStatus(local="0.0.0.0/0", remote="0.0.0.0/0", state="down")],
        dpd=DpdStatus(enabled=True),
        last_error=Fault(code="E-PSK", message=message(WRONG_KEY), at=AT),
    )


class FakeOperations:
    """Implements `vpnd.control.operations.Operations`. `calls` records the actions, newest last."""

    def __init__(self, *tunnels: TunnelStatus) -> None:
        self.begin_again(*tunnels)

    def begin_again(self, *tunnels: TunnelStatus) -> None:
        """Forget everything: one daemon serves many tests."""
        self.tunnels = {t.name: t for t in tunnels or (tunnel_up(), tunnel_failed())}
        self.calls: list[tuple[object, ...]] = []
        self.admins_capture = False
        self.log = EventLog()
        self.received: dict[str, Mapping[str, object]] = {}
        self.hang = asyncio.Event()
        self.labels: dict[str, Any] = {"region": "eu-1"}
        self.labels_from_api = True
        self.standing: dict[str, Any] = {}
        """What the gateway's status says of the configuration."""
        self.next_key: str | None = "51b2-0e9d"
        self.used_key = "3f9a-77c1"
        self.gateways: dict[str, str] = {}
        self.commands: list[tuple[str, str, str | None]] = []
        self.guesses: list[str] = []
        self.references: dict[str, str] = {}
        self.looked = 0
        self.from_api = False
        self.configuration: Mapping[str, Any] = CONFIGURATION
        self.cut_off = False
        self.reload_waits: asyncio.Event | None = None
        self.progress = ReloadProgress(running=False, done=0, total=0)

    def _known(self, name: str) -> TunnelStatus:
        if name not in self.tunnels:
            raise UnknownTunnel(name, tuple(self.tunnels))
        return self.tunnels[name]

    def status(self) -> Status:
        gateway = GatewayStatus(
            name="hq", address="192.0.2.1", version="0.1.0", engine="python", uptime_s=61, **self.labels
        ).model_copy(update=self.standing)
        return Status(gateway=gateway, tunnels=list(self.tunnels.values()), total=len(self.tunnels))

    def tunnel(self, name: str) -> TunnelDetail:
        status = self._known(name)
        return TunnelDetail(
            **dict(status),
            gateway="hq",
            customer_gateway="branch",
            local_address="192.0.2.1",
            local_id="192.0.2.1",
            remote_id="gw.branch.example",
            communication="destination-route",
            routes=["10.2.0.0/16"],
            interface=f"vpn-{name}",
            mtu=1400,
            source="/etc/vpnd/vpnd.toml:8",
            from_api=self.from_api,
            psk_fingerprint="3f9a-77c1",
            ike_sas=[status.ike] if status.ike else [],
            errors=[status.last_error] if status.last_error else [],
            configuration=dict(self.configuration),
        )

    async def up(self, name: str, timeout_s: float) -> ActionResult:
        self.calls.append(("up", name, timeout_s))
        if name == "hangs":
            await self.hang.wait()
        status = self._known(name)
        if status.last_error is not None:
            raise NegotiationFailed(
                status.last_error.code, status.last_error.message, f"vpnctl why {name} says more"
            )
        return ActionResult(tunnel=name, action="up", state="up")

    async def down(self, name: str) -> ActionResult:
        self.calls.append(("down", name))
        self._known(name)
        return ActionResult(tunnel=name, action="down", state="down")

    async def disable(self, name: str) -> ActionResult:
        self.calls.append(("disable", name))
        self._known(name)
        return ActionResult(tunnel=name, action="disable", state="down")

    async def enable(self, name: str) -> ActionResult:
        self.calls.append(("enable", name))
        self._known(name)
        return ActionResult(tunnel=name, action="enable", state="waiting")

    async def reset(self, name: str, timeout_s: float) -> ActionResult:
        self.calls.append(("reset", name, timeout_s))
        self._known(name)
        return ActionResult(tunnel=name, action="reset", state="up")

    async def rekey(self, name: str, ike: bool, child: bool, timeout_s: float) -> ActionResult:
        self.calls.append(("rekey", name, ike, child))
        if self._known(name).state != "up":
            raise Conflict("E-NOT-UP", f"{name} is not up")
        return ActionResult(tunnel=name, action="rekey", state="up")

    async def switch(self, group: str, tunnel: str | None) -> GroupStatus:
        self.calls.append(("switch", group, tunnel))
        if group not in self.tunnels:
            raise UnknownGroup("E-UNKNOWN-GROUP", f"no group is called {group!r}")
        carrier = tunnel or "branch-a"
        routes = [CarriedRoute(route="10.2.0.0/16", tunnel=carrier)]
        return GroupStatus(name=group, tunnels=list(self.tunnels), routes=routes, by_hand=tunnel)

    def why(self, name: str) -> Why:
        status = self._known(name)
        fault = status.last_error or status.impaired
        failed = fault is not None
        return Why(
            tunnel=name,
            state=status.state,
            error=fault,
            tries=6 if failed else None,
            since=AT if failed else None,
            explanation=explain(WRONG_KEY, name).body() if failed else None,
            standing=failed,
        )

    def settings(self, name: str) -> TunnelSettings:
        self._known(name)
        values = [
            SettingStatus(key="pre_shared_key", value="3f9a-77c1", origin="file", place="vpnd.toml:9"),
            SettingStatus(key="ike.encryption", value=["aes-128"], origin="default"),
        ]
        return TunnelSettings(tunnel=name, settings=values)

    def export(self, name: str) -> TunnelExport:
        self._known(name)
        return TunnelExport(tunnel=name, toml=f"[tunnels.{name}]\n")

    def keys(self) -> KeyList:
        return KeyList(keys=[self.keys_of(name) for name in self.tunnels])

    def keys_of(self, name: str) -> KeyStatus:
        self._known(name)
        used = KeyUse(fingerprint=self.used_key, since=AT)
        return KeyStatus(tunnel=name, current="3f9a-77c1", next=self.next_key, ours=used, theirs=used)

    async def rotate_key(self, name: str, request: RotateRequest) -> KeyRotation:
        keys = self.keys_of(name)
        self.calls.append(("rotate_key", name, request.step, request.key, request.force))
        if name == "branch-a":
            return KeyRotation(tunnel=name, done=True, keys=keys)
        return KeyRotation(tunnel=name, done=False, lines=["# in [tunnels.x]"], keys=keys)

    def trace(self, name: str) -> Trace:
        self._known(name)
        lines = [
            TraceLine(
                id=1, at=AT, direction="out", text="IKE_SA_INIT 0 {SA, KE, Ni}", size=420, detail=["aes-128"]
            ),
            TraceLine(id=2, at=AT, direction="in", text="IKE_SA_INIT 0 {SA, KE, Nr}\x1b[2J", size=400),
        ]
        return Trace(tunnel=name, lines=lines)

    def captures_for_admins(self) -> bool:
        return self.admins_capture

    async def capture(self, name: str, wanted: CaptureRequest) -> AsyncGenerator[bytes, None]:
        self.calls.append(("capture", name, wanted.model_dump()))
        yield b"the file, "
        yield b"in pieces"

    async def bundle(self, tunnels: Sequence[str]) -> Bundle:
        for name in tunnels:
            self._known(name)
        names = tunnels or list(self.tunnels)
        files = [BundleFile(name=f"tunnels/{name}/trace.json", text=f"of {name}") for name in names]
        return Bundle(files=[BundleFile(name="versions.json", text="{}"), *files])

    def events(self, follow: bool, after: str | None) -> AsyncIterator[Event]:
        return self.log.stream(follow, after)

    def _change(self) -> dict[str, Any]:
        key = KeyChangeBody(key="ike.lifetime", before=86400, after=28800, class_="next SA")
        tunnels = [
            TunnelPlan(tunnel="branch-a", change="changed", class_="next SA", cost="nothing", keys=[key]),
            TunnelPlan(tunnel="branch-c", change="added", class_="live", cost="nothing: it is new"),
        ]
        return {"tunnels": tunnels, "unchanged": ["branch-b"]}

    async def plan(self, back: int | None) -> Plan:
        self.calls.append(("plan", back))
        if back == 19:
            raise Conflict("E-NO-CONFIGURATION", "no configuration of 19 before is kept: there are 1")
        return Plan(**self._change()) if back is None else Plan(tunnels=[], unchanged=["branch-a"])

    async def apply(self, confirm_s: float | None) -> Applied:
        self.calls.append(("apply", confirm_s))
        return Applied(**self._change(), configuration=2, confirm_in_s=confirm_s)

    async def confirm(self) -> Confirmed:
        self.calls.append(("confirm",))
        if "branch-b" not in self.tunnels:
            raise Conflict("E-NOT-PENDING", "no configuration waits to be confirmed")
        return Confirmed(configuration=2)

    async def rollback(self, back: int | None) -> Applied:
        self.calls.append(("rollback", back))
        return Applied(tunnels=[], unchanged=["branch-a", "branch-b"], configuration=3)

    def configurations(self) -> Configurations:
        kept = [(2, 0, "apply", True, False), (1, 1, "start", False, True)]
        entries = [
            KeptConfiguration(configuration=n, back=back, at=AT, what=what, running=runs, confirmed=confirmed)
            for n, back, what, runs, confirmed in kept
        ]
        return Configurations(configurations=entries)

    def reloading(self) -> ReloadProgress:
        self.looked += 1
        return self.progress

    async def reload(self) -> ReloadResult:
        self.calls.append(("reload",))
        if self.cut_off:
            raise asyncio.CancelledError
        if self.reload_waits is not None:
            await self.reload_waits.wait()
        if "broken" in self.tunnels:
            problem = ProblemBody(
                file="vpnd.toml",
                line=3,
                code="E-KEY",
                severity="error",
                message="unknown key",
                hint="remove it",
            )
            raise InvalidConfiguration("E-CONFIG", "nothing was changed", None, [problem])
        return ReloadResult(applied=True, changed=["branch-a"], unchanged=["branch-b"])

    async def put_tunnel(self, name: str, table: Mapping[str, object]) -> TunnelChange:
        if table.get("routes") == ["nonsense"]:
            problem = ProblemBody(
                file="request",
                line=None,
                code="E-PREFIX",
                severity="error",
                message="routes: not a CIDR block",
                key=f"tunnels.{name}.routes[0]",
            )
            raise InvalidConfiguration("E-CONFIG", "the tunnel was not taken", None, [problem])
        self.received[name] = table
        return TunnelChange(tunnel=name, change="created")

    def _gateway(self) -> Source:
        tables = {
            "gateway": {"name": "hq", "address": "192.0.2.1"},
            "customer_gateways": {"branch": {"address": "198.51.100.1"}},
        }
        return Source("vpnd.toml", tables, main=True, private=True)

    async def check_tunnel(self, name: str, table: Mapping[str, object]) -> TunnelCheck:
        """As `vpnd check` says it, on a gateway without another tunnel."""
        filled = {"pre_shared_key": "plain:pKz8wTq2mB5vX9cL4nR7jH3gpKz8wTq2", **table}
        request = Source("request", {"tunnels": {name: filled}}, private=True, from_api=True)
        return checked(check([self._gateway(), request], Findings()), name, "request")

    def gateway_detail(self) -> GatewayDetail:
        place = "vpnd.toml:1"
        return GatewayDetail(**self.gateway().model_dump(), source=place, from_api=self.labels_from_api)

    async def put_gateway(self, table: Mapping[str, object]) -> GatewayChange:
        if not self.labels_from_api:
            raise Conflict("E-FROM-FILE", "the region of the gateway is defined in vpnd.toml:4")
        labels = {key: one for key, one in table.items() if one is not None}
        request = Source("request", {"gateway": labels}, private=True, from_api=True)
        found = check([self._gateway(), request], Findings())
        if not found.ok:
            first = found.errors[0]
            values = {field.name: getattr(first, field.name) for field in fields(first)}
            raise InvalidConfiguration(
                first.code, first.message, first.hint, [ProblemBody(**values | {"severity": "error"})]
            )
        before, self.labels = self.labels, labels
        return GatewayChange(change="unchanged" if before == self.labels else "changed")

    def customer_gateways(self) -> list[CustomerGatewayStatus]:
        made = {name: {"address": address} for name, address in self.gateways.items()}
        request = Source("state", {"customer_gateways": made}, private=True, from_api=True)
        return named_gateways(check([self._gateway(), request], Findings()))

    def customer_gateway(self, name: str) -> CustomerGatewayStatus:
        for gateway in self.customer_gateways():
            if gateway.name == name:
                return gateway
        raise UnknownCustomerGateway(name)

    async def put_customer_gateway(self, name: str, table: Mapping[str, object]) -> CustomerGatewayChange:
        if name == "branch":
            raise Conflict("E-FROM-FILE", "branch is defined in vpnd.toml")
        change: Any = "changed" if name in self.gateways else "created"
        self.gateways[name] = str(table["address"])
        return CustomerGatewayChange(customer_gateway=name, change=change)

    async def delete_customer_gateway(self, name: str) -> CustomerGatewayChange:
        if not self.customer_gateway(name).from_api:
            raise Conflict("E-FROM-FILE", f"{name} is defined in vpnd.toml")
        del self.gateways[name]
        return CustomerGatewayChange(customer_gateway=name, change="removed")

    def command(self, by: str, text: str, tunnel: str | None = None) -> None:
        self.commands.append((by, text, tunnel))

    def guessed(self, peer: str) -> None:
        self.guesses.append(peer)

    def key_references(self, tunnel: str) -> Mapping[str, str]:
        known = self.references.get(tunnel)
        return {} if known is None else {"pre_shared_key": known}

    async def delete_tunnel(self, name: str) -> TunnelChange:
        self._known(name)
        raise Conflict(
            "E-FROM-FILE", f"{name} is defined in vpnd.toml", "remove it there, then vpnctl reload"
        )

    def gateway(self) -> GatewayStatus:
        return self.status().gateway

    def figures(self) -> Iterator[TunnelFigures]:
        for tunnel in self.tunnels.values():
            checked = tunnel.health is not None
            yield TunnelFigures(
                status=tunnel,
                established=3,
                rekeys={"ike": 1, "esp": 4},
                failures={tunnel.last_error.code: 6} if tunnel.last_error else {},
                rtt=Histogram((0.01, 0.1), (5, 2, 0), 0.25) if checked else None,
                jitter=Histogram((0.01, 0.1), (6, 0, 0), 0.006) if checked else None,
            )

    def loop_lag(self) -> Histogram:
        return Histogram((0.01, 0.02), (7, 2, 1), 0.5)

    def counters(self) -> Mapping[str, int]:
        return {"ike_unknown_peer": 7}


CONFIGURATION: dict[str, Any] = {
    "customer_gateway": {"name": "branch", "address": "198.51.100.1"},
    "negotiation": "active",
    "communication": "destination-route",
    "routes": ["10.2.0.0/16"],
    "priority": 0,
    "interface": "vpn-branch-a",
    "profile": "default",
    "spd": [],
    "ike": {
        "version": "ikev2",
        "negotiation_mode": "main",
        "encryption": ["aes-128-gcm", "aes-256"],
        "integrity": ["sha256"],
        "dh_group": [14, 31],
        "local_id": "192.0.2.1",
        "remote_id": "gw.branch.example",
        "lifetime": 86400,
    },
    "ipsec": {
        "encryption": ["aes-128"],
        "integrity": ["sha256"],
        "pfs": "disable",
        "lifetime": 3600,
        "lifetime_kb": 1843200,
        "encapsulation": "auto",
        "esn": "auto",
        "replay_window": 1024,
        "sha256_96": False,
    },
    "dpd": {"enabled": True, "timeout": 30, "action": "retry"},
    "health_check": {"enabled": False, "local": None, "remote": None},
}
