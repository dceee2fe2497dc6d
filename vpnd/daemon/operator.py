"""What an operator asks of the running daemon: `vpnd.control.operations`, done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from vpnd.config.compile import describe
from vpnd.config.configuration import Findings, Source
from vpnd.config.load import Loaded, check, load, load_with, load_without, read_file
from vpnd.config.origins import settings
from vpnd.config.secrets import new_key
from vpnd.config.values import AUTO
from vpnd.control.check import checked, named_gateways
from vpnd.control.diagnoses import explain, message
from vpnd.control.operations import (
    Conflict,
    Histogram,
    InvalidConfiguration,
    NegotiationFailed,
    OperationError,
    TunnelFigures,
    UnknownCustomerGateway,
    UnknownGroup,
    UnknownTunnel,
)
from vpnd.control.schema import (
    ActionResult,
    Applied,
    Bundle,
    CaptureRequest,
    CarriedRoute,
    Configurations,
    Confirmed,
    CustomerGatewayChange,
    CustomerGatewayStatus,
    Event,
    Fault,
    GatewayChange,
    GatewayDetail,
    GatewayStatus,
    GroupStatus,
    KeptConfiguration,
    KeyList,
    KeyRotation,
    KeyStatus,
    Plan,
    ProblemBody,
    ReloadProgress,
    ReloadResult,
    RotateRequest,
    SettingStatus,
    Status,
    Trace,
    TunnelChange,
    TunnelCheck,
    TunnelDetail,
    TunnelExport,
    TunnelSettings,
    Why,
)
from vpnd.daemon import planned
from vpnd.daemon.beginning import moment
from vpnd.daemon.bundling import collect
from vpnd.daemon.captures import Capture
from vpnd.daemon.changes import Change
from vpnd.daemon.commits import Commits, Done
from vpnd.daemon.key_rotations import KeyRotations
from vpnd.daemon.reasons import Reasons
from vpnd.daemon.refusals import body, invalid
from vpnd.daemon.report import DROP_FIELDS, Report
from vpnd.daemon.service import Service
from vpnd.daemon.state import REQUEST, Proposed, StateDirectory, exported
from vpnd.host.systemd import Supervisor
from vpnd.ike.outputs import LadderLine
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity
from vpnd.tunnel.commands import TunnelState
from vpnd.tunnel.failover import NoSuchGroup
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.mappings import Fault as TunnelFault


class Operator:
    """Implements `Operations` on a `Service`, its configuration file and its state directory."""

    def __init__(self, service: Service, config: Path, state: Path, supervisor: Supervisor) -> None:
        self._service = service
        self._gateway = service.gateway
        self._report = Report(service.gateway, service.interfaces, service.started)
        self._reasons = Reasons(service.gateway, service.interfaces.is_elsewhere)
        self._config = config
        self._state = state
        self._store = StateDirectory(state)
        self._supervisor = supervisor
        self._rotation = KeyRotations(service.gateway)
        service.key_ends.then(self._tidy_keys)
        self.commits = Commits(service, config, state)

    # ---------------------------------------------------------------------------------- queries

    def status(self) -> Status:
        """Every tunnel, in the order of the configuration."""
        return self._report.status(self._service.policy, self._standing())

    def tunnel(self, name: str) -> TunnelDetail:
        """Everything about one tunnel but its key."""
        tunnel, loaded = self._tunnel(name), self._loaded()
        now = self._gateway.clock.now()
        policy = tunnel.policy
        source = loaded.configuration.tunnels[name]
        ours = policy.peer.local_address
        local_id = _local_id(tunnel)
        configuration = describe(loaded, name, local_id)
        attached = self._service.interfaces.get(name)
        next_try = tunnel.next_try
        entry = self._report.tunnel(tunnel, now)
        kept = (*tunnel.standing.refused.values(), *(fault for fault, _ in tunnel.standing.faults))
        faults = (self._report.fault(fault, now) for fault in sorted(kept, key=lambda one: one.at))
        return TunnelDetail(
            **{field: getattr(entry, field) for field in type(entry).model_fields},
            gateway=self._service.policy.name,
            customer_gateway=_customer_gateway(configuration),
            local_address=AUTO if ours.is_unspecified else str(ours),
            address_followed=self._service.policy.address.is_unspecified,
            local_id=local_id or AUTO,
            remote_id=str(policy.peer.remote_id),
            communication=policy.communication.value,
            routes=[str(network) for network in policy.routes],
            interface=policy.interface,
            mtu=attached.mtu if attached is not None else None,
            source=source.place,
            from_api=source.source.from_api,
            psk_fingerprint=policy.peer.psk.fingerprint(),
            ike_sas=[self._report.ike(ike, now) for ike in self._gateway.endpoint.ike_sas(name)],
            errors=[fault for fault in faults if fault is not None],
            health_history=self._report.health_history(name, now),
            retry_in_s=max(0, round(next_try - now)) if next_try is not None else None,
            configuration=configuration,
        )

    def settings(self, name: str) -> TunnelSettings:
        """Every value of one tunnel that is in force, and where it comes from."""
        found = settings(self._loaded(), name, _local_id(self._tunnel(name)))
        values = [
            SettingStatus(key=s.key, value=s.value, origin=s.origin.value, place=s.place) for s in found
        ]
        return TunnelSettings(tunnel=name, settings=values)

    def export(self, name: str) -> TunnelExport:
        """One tunnel as a TOML file, as it was written, without its key."""
        fingerprint = self._tunnel(name).policy.peer.psk.fingerprint()
        return TunnelExport(tunnel=name, toml=exported(self._loaded().configuration, name, fingerprint))

    def why(self, name: str) -> Why:
        """The last failure of this tunnel, explained."""
        tunnel = self._tunnel(name)
        return self._reasons.why(tunnel, self._service.loaded, _local_id(tunnel))

    def trace(self, name: str) -> Trace:
        """The decoded last IKE messages, oldest first."""
        self._tunnel(name)
        return Trace(tunnel=name, lines=self._service.journal.traced(name))

    def captures_for_admins(self) -> bool:
        """Whether the configuration lets others than root capture."""
        gateway = self._loaded().configuration.gateway
        return gateway is not None and gateway.capture == "admin"

    def capture(self, name: str, wanted: CaptureRequest) -> AsyncGenerator[bytes, None]:
        """What the tunnel carries from now on, as the pieces of a pcapng file."""
        self._tunnel(name)
        captures, journal = self._gateway.captures, self._service.journal

        def ended(capture: Capture) -> None:
            lost = sum(capture.dropped)
            text = f"the capture ended with {capture.packets} packets" + (f", {lost} lost" if lost else "")
            journal.event(name, "capture-ended", text)

        return captures.run(name, captures.begin(name, wanted), ended)

    async def bundle(self, tunnels: Sequence[str]) -> Bundle:
        """What support needs, without a key: of these tunnels, or of all."""
        for name in tunnels:
            self._tunnel(name)
        return await collect(self, self._service.host_facts, tunnels)

    def events(self, follow: bool, after: str | None) -> AsyncIterator[Event]:
        """The events that are kept, and with `follow` new ones as they happen."""
        return self._service.journal.events.stream(follow, after)

    def gateway(self) -> GatewayStatus:
        """The gateway's part of the status."""
        return self._report.gateway(self._service.policy, self._standing())

    def figures(self) -> Iterator[TunnelFigures]:
        """What metrics show of each tunnel, read one after the other."""
        return self._report.figures()

    def counters(self) -> Mapping[str, int]:
        """Counts that belong to no tunnel, by reason."""
        counted = {
            f"ike_{reason.replace(' ', '_')}": count
            for reason, count in self._gateway.endpoint.counters.items()
        }
        for drop, count in self._gateway.engine.drops(None).items():
            counted[f"esp_{DROP_FIELDS[drop]}"] = count
        counted["internal_errors"] = self._gateway.faults
        return counted

    def loop_lag(self) -> Histogram:
        """How late the daemon came to what was due."""
        return self._service.loop_lag.histogram()

    # ---------------------------------------------------------------------------------- actions

    async def up(self, name: str, timeout: float) -> ActionResult:  # noqa: ASYNC109 (the operator's limit)
        """Negotiate, and wait until every mapping is up or has failed."""
        tunnel = await self._prepared(name, timeout)
        if not (tunnel.all_up and not tunnel.standing.closed):
            self._let_in(tunnel)
            with self._gateway.input("a command", name) as now:
                tunnel.up(now)
            self._has_peer(tunnel)
            await self._until_up(name, timeout)
        return ActionResult(tunnel=name, action="up", state=self._tunnel(name).state.value)

    async def down(self, name: str) -> ActionResult:
        """Close with DELETE and stay down."""
        tunnel = self._tunnel(name)
        with self._gateway.input("a command", name) as now:
            tunnel.down(now)
        return ActionResult(tunnel=name, action="down", state=tunnel.state.value)

    async def disable(self, name: str) -> ActionResult:
        """Close with DELETE and stay down, also after a start, until it is enabled."""
        async with self.commits.lock:
            return await self._set_disabled(name, True)

    async def enable(self, name: str) -> ActionResult:
        """Take `disable` back; what is active begins."""
        async with self.commits.lock:
            self._tunnel(name)
            known = self._loaded().configuration.tunnels[name]
            if known.table.enabled:
                return await self._set_disabled(name, False)
            if not known.source.from_api:
                hint = "set enabled = true there, then: vpnctl reload"
                raise Conflict("E-FROM-FILE", f"{name} has enabled = false in {known.place}", hint)
            self.commits.may_change()
            proposed = self._store.propose(name, {**known.written, "enabled": True})
            await self._keep(proposed, f"tunnel {name} enabled")
            return await self._set_disabled(name, False)

    async def _set_disabled(self, name: str, disabled: bool) -> ActionResult:
        """Keep it, then put it in force; the rest stays what runs, whatever the files say now."""
        tunnel, loaded = self._tunnel(name), self._loaded()
        configuration = loaded.configuration
        names = frozenset(one.name for one in configuration.tunnels.values() if one.disabled)
        names = names | {name} if disabled else names - {name}
        try:
            self._store.write_disabled(names)
        except OSError as failure:
            raise _unwritten(f"kept in {self._state}", failure) from None
        known = replace(configuration.tunnels[name], disabled=disabled)
        tunnels = {**configuration.tunnels, name: known}
        configuration = replace(configuration, tunnels=tunnels)
        sources = tuple(replace(source, disabled=names) for source in loaded.sources)
        await self._service.change(replace(loaded, configuration=configuration, sources=sources))
        tunnel = self._tunnel(name)
        if not disabled and tunnel.standing.closed:
            # Closed by `down` before: `enable` is the newer word.
            tunnel.standing.open()
            self._let_in(tunnel)
            with self._gateway.input("a command", name) as now:
                tunnel.start(now)
        action: Literal["disable", "enable"] = "disable" if disabled else "enable"
        return ActionResult(tunnel=name, action=action, state=tunnel.state.value)

    async def reset(self, name: str, timeout: float) -> ActionResult:  # noqa: ASYNC109 (the deadline, as of `up`)
        """Delete the SAs and negotiate again."""
        tunnel = await self._prepared(name, timeout)
        self._let_in(tunnel)
        with self._gateway.input("a command", name) as now:
            tunnel.reset(now)
        if not tunnel.policy.peer.any_address:
            await self._until_up(name, timeout)
        return ActionResult(tunnel=name, action="reset", state=self._tunnel(name).state.value)

    async def rekey(self, name: str, ike: bool, child: bool, timeout: float) -> ActionResult:  # noqa: ASYNC109 (part of the deadline is of each step)
        """Replace the SAs now: the children first, so that they are not held up by the IKE SA's own rekey."""
        tunnel = self._tunnel(name)
        if not any(mapping.owner for mapping in tunnel.mappings):
            raise Conflict(
                "E-NOT-UP", f"{name} is {tunnel.state.value}: there is nothing to rekey", f"vpnctl up {name}"
            )
        try:
            async with asyncio.timeout(timeout + 1):
                if child or not ike:
                    await self._rekey_children(tunnel, timeout)
                if ike or not child:
                    await self._rekey_ike(name, timeout)
        except TimeoutError:
            # Each had its successor in time, and all of them together did not.
            raise _no_successor(name, timeout) from None
        return ActionResult(tunnel=name, action="rekey", state=tunnel.state.value)

    async def switch(self, group: str, tunnel: str | None) -> GroupStatus:
        """Move a group's routes by hand, or give the choice back; done when the kernel has the routes."""
        selection = self._gateway.selection
        try:
            selection.group(group)
            chosen = self._gateway.tunnels.get(tunnel) if tunnel is not None else None
            if chosen is not None and chosen.state is not TunnelState.UP:
                raise Conflict(
                    "E-NOT-UP",
                    f"{chosen.name} is {chosen.state.value}: it cannot carry traffic now",
                    f"vpnctl show {chosen.name}",
                )
            with self._gateway.turn() as now:
                moved = selection.switch(now, group, tunnel)
        except NoSuchGroup as unknown:
            lone = self._gateway.tunnels.get(group)
            if lone is not None and not lone.policy.routes:
                mode = lone.policy.communication.value
                raise UnknownGroup(
                    "E-UNKNOWN-GROUP", f"{group} has no routes to move: {mode}", f"vpnctl show {group}"
                ) from None
            raise UnknownGroup("E-UNKNOWN-GROUP", str(unknown), "vpnctl status lists the tunnels") from None
        await self._service.interfaces.led()
        return GroupStatus(
            name=moved.name,
            tunnels=list(moved.members),
            routes=[
                CarriedRoute(route=str(route), tunnel=selection.carrier(route) or "")
                for route in moved.routes
            ],
            by_hand=moved.by_hand,
        )

    # ---------------------------------------------------------------------------- configuration

    async def reload(self) -> ReloadResult:
        """Apply the changed files, all or nothing."""
        self._supervisor.reloading()
        try:
            done = await self.commits.apply(None, "reload")
        finally:
            self._supervisor.ready(self._service.summary())
        change = done.change
        self._service.journal.event(None, "reloaded", f"configuration applied: {change}")
        return ReloadResult(
            applied=True,
            added=change.added,
            changed=change.changed,
            removed=change.removed,
            unchanged=change.same,
            problems=[body(problem) for problem in done.loaded.problems],
        )

    async def plan(self, back: int | None) -> Plan:
        """What `apply` would do, or with `back` what `rollback` would."""
        loaded, difference = await self.commits.plan(back)
        problems = [body(problem) for problem in loaded.problems]
        return Plan(**planned.difference(difference), problems=problems)

    async def apply(self, confirm_s: float | None) -> Applied:
        """Put the files in force, for good or until `confirm`."""
        done = await self.commits.apply(confirm_s)
        until = f", back in {confirm_s:g} s unless confirmed" if confirm_s is not None else ""
        self._service.journal.event(None, "applied", f"configuration applied: {done.change}{until}")
        return _applied(done)

    async def confirm(self) -> Confirmed:
        """What `apply` has put in force stays."""
        number = await self.commits.confirm()
        self._service.journal.event(None, "confirmed", f"configuration {number} is confirmed")
        return Confirmed(configuration=number)

    async def rollback(self, back: int | None) -> Applied:
        """An older configuration is in force again; the files stay as they are."""
        return _applied(await self.commits.rollback(back))

    def configurations(self) -> Configurations:
        """Those that are kept."""
        running, confirmed = self.commits.running_number, self.commits.standing.confirmed
        entries = [
            KeptConfiguration(
                configuration=entry.number,
                back=back,
                at=entry.at,
                what=entry.what,
                running=entry.number == running,
                confirmed=entry.number == confirmed,
            )
            for back, entry in self.commits.kept()
        ]
        return Configurations(configurations=entries)

    def reloading(self) -> ReloadProgress:
        """Whether a configuration is being applied, and how far that is."""
        progress = self._service.progress
        return ReloadProgress(running=progress.running, done=progress.done, total=progress.total)

    async def put_tunnel(self, name: str, table: Mapping[str, object]) -> TunnelChange:
        """Create or change a tunnel and keep it in the state directory."""
        async with self.commits.changing():
            known = self._loaded().configuration.tunnels.get(name)
            if known is not None and not known.source.from_api:
                raise _from_file(name, known.place)
            loaded, change = await self._keep(self._store.propose(name, table), f"tunnel {name}")
            done = "created" if name in change.added else "changed" if name in change.changed else "unchanged"
            return TunnelChange(tunnel=name, change=done, problems=_of_request(loaded))

    async def check_tunnel(self, name: str, table: Mapping[str, object]) -> TunnelCheck:
        """What `put_tunnel` would say, without changing anything."""
        known = self._loaded().configuration.tunnels.get(name)
        if known is not None and not known.source.from_api:
            raise _from_file(name, known.place)
        if known is None and "pre_shared_key" not in table:
            table = {**table, "pre_shared_key": f"plain:{new_key()}"}
        source = self._store.propose(name, table).source
        loaded = await self._service.in_thread(self._with, source)
        return checked(loaded, name, source.label)

    def gateway_detail(self) -> GatewayDetail:
        """The gateway, and where its labels can be changed."""
        configuration = self._loaded().configuration
        source, at = configuration.gateway_source, configuration.labels_in_file
        return GatewayDetail(
            **self.gateway().model_dump(),
            source=source.place(at or ("gateway",)) if source is not None else "",
            from_api=at is None,
        )

    async def put_gateway(self, table: Mapping[str, object]) -> GatewayChange:
        """Set the gateway's labels and keep them in the state directory; no tunnel is touched."""
        async with self.commits.changing():
            configuration, before = self._loaded().configuration, self._service.policy.labels
            source, at = configuration.gateway_source, configuration.labels_in_file
            if at is not None and source is not None:
                raise _from_file(f"the {at[-1]} of the gateway", source.place(at))
            loaded, _ = await self._keep(self._store.propose_labels(table), "labels of the gateway")
            done = "unchanged" if self._service.policy.labels == before else "changed"
            return GatewayChange(change=done, problems=_of_request(loaded))

    def customer_gateways(self) -> list[CustomerGatewayStatus]:
        """Those with a name of their own."""
        return named_gateways(self._loaded())

    def customer_gateway(self, name: str) -> CustomerGatewayStatus:
        """One of them."""
        for gateway in self.customer_gateways():
            if gateway.name == name:
                return gateway
        raise UnknownCustomerGateway(name)

    async def put_customer_gateway(self, name: str, table: Mapping[str, object]) -> CustomerGatewayChange:
        """Create or change a customer gateway, keep it in the state directory, and change its tunnels."""
        async with self.commits.changing():
            known = self._loaded().configuration.customer_gateways.get(name)
            if known is not None and not known.from_api:
                raise _from_file(name, known.place)
            before = known.table if known is not None else None
            proposed = self._store.propose_customer_gateway(name, table)
            loaded, change = await self._keep(proposed, f"customer gateway {name}")
            after = loaded.configuration.customer_gateways[name].table
            done = "created" if before is None else "unchanged" if before == after else "changed"
            return CustomerGatewayChange(
                customer_gateway=name, change=done, tunnels=change.changed, problems=_of_request(loaded)
            )

    async def delete_customer_gateway(self, name: str) -> CustomerGatewayChange:
        """Forget a customer gateway that was made through the API and that no tunnel names."""
        async with self.commits.changing():
            gateway = self.customer_gateway(name)
            if not gateway.from_api:
                raise _from_file(name, gateway.source)
            if gateway.tunnels:
                message = f"{name} is the customer gateway of {', '.join(gateway.tunnels[:10])}"
                raise Conflict("E-IN-USE", message, "delete these tunnels, or give them another one, first")
            source = self._loaded().configuration.customer_gateways[name].source
            await self._forget(source, f"customer gateway {name} removed")
            return CustomerGatewayChange(customer_gateway=name, change="removed")

    def command(self, by: str, text: str, tunnel: str | None = None) -> None:
        """Say in an event who has changed what."""
        self._service.journal.event(tunnel, "command", f"{text}, asked by {by}", by=by)

    def guessed(self, peer: str) -> None:
        """Say in an event that a token that is not valid came from this address."""
        self._service.journal.guessed(peer)

    def key_references(self, tunnel: str) -> Mapping[str, str]:
        """Where the keys of a tunnel of the API are, by their names in its table; none of a file's tunnel."""
        known = self._loaded().configuration.tunnels.get(tunnel)
        if known is None or not known.source.from_api:
            return {}
        table = known.table
        found = {"pre_shared_key": table.pre_shared_key, "next_pre_shared_key": table.next_pre_shared_key}
        return {key: reference for key, reference in found.items() if reference is not None}

    def keys(self) -> KeyList:
        """Those of every tunnel."""
        return KeyList(keys=[self._rotation.status(tunnel) for tunnel in self._gateway.tunnels])

    def keys_of(self, name: str) -> KeyStatus:
        """Those of one tunnel."""
        return self._rotation.status(self._tunnel(name))

    async def rotate_key(self, name: str, request: RotateRequest) -> KeyRotation:
        """One step in the replacement of a tunnel's key."""
        tunnel = self._tunnel(name)
        known = self._loaded().configuration.tunnels[name]
        self._rotation.check(tunnel, request)
        if request.step == "prove":
            await self._rotation.prove(tunnel, request.timeout_s)
        elif not known.source.from_api:
            lines = self._rotation.lines(known, request)
            return KeyRotation(tunnel=name, done=False, lines=lines, keys=self.keys_of(name))
        elif request.step == "finish":
            await self._next_key_alone(name)
        elif request.step == "begin" and request.key is None:
            raise InvalidConfiguration("E-MISSING", "the next key is missing", "send it: plain:TEXT")
        else:
            ends = request.retire_after
            end = ends.isoformat() if ends is not None and request.step == "begin" else None
            key = request.key if request.step == "begin" else None
            async with self.commits.changing():
                await self._keep(self._store.propose_next_key(name, key, end), f"next key of {name}")
        return KeyRotation(tunnel=name, done=True, keys=self.keys_of(name))

    async def _tidy_keys(self, name: str) -> bool:
        """A key has ended: what the API has kept needs no change by hand."""
        try:
            return await self._next_key_alone(name)
        except OperationError:
            return False

    async def _next_key_alone(self, name: str) -> bool:
        """The next key of a tunnel of the API takes the place of its own. False where a file has them."""
        async with self.commits.changing():
            known = self._loaded().configuration.tunnels.get(name)
            if known is None or not known.source.from_api or known.next_secret is None:
                return False
            await self._keep(self._store.propose_next_alone(name, known.next_secret), f"key of {name}")
            return True

    async def delete_tunnel(self, name: str) -> TunnelChange:
        """Close and forget a tunnel made through the API, and its key."""
        async with self.commits.changing():
            self._tunnel(name)
            known = self._loaded().configuration.tunnels[name]
            if not known.source.from_api:
                raise _from_file(name, known.place)
            await self._forget(known.source, f"tunnel {name} removed")
            return TunnelChange(tunnel=name, change="removed")

    # ----------------------------------------------------------------------------------- inside

    async def _keep(self, proposed: Proposed, what: str) -> tuple[Loaded, Change]:
        """Check what was sent, keep it, and put it in force: all, or nothing. Returns its findings."""
        loaded = await self._service.in_thread(self._with, proposed.source)
        if not loaded.ok:
            raise invalid(loaded)
        directory = proposed.path.parent
        try:
            put_back = self._store.write(proposed)
        except (OSError, ValueError) as failure:
            raise _unwritten(f"kept in {directory}", failure) from None
        kept = await self._service.in_thread(self._as_kept, proposed.path)
        if not kept.ok:
            # The file has changed since; what is not in force must not be kept either.
            try:
                put_back()
            except OSError as failure:
                raise _unwritten(f"put back in {directory}", failure) from None
            raise invalid(kept)
        change = await self._service.change(kept)
        await self.commits.record(kept, what)
        return loaded, change

    def _with(self, proposed: Source) -> Loaded:
        """What would be in force with this file in its place."""
        return load_with(self._config, self._state, proposed, self.commits.base(), self._service.sources)

    def _as_kept(self, path: Path) -> Loaded:
        """What is in force with this file as it is kept."""
        if self.commits.base() is None:
            return load(self._config, self._state, known=self._service.sources)
        findings = Findings()
        kept = read_file(path, findings)
        return self._with(kept) if kept is not None else check((), findings)

    async def _forget(self, source: Source, what: str) -> None:
        """Take what one file of the state directory holds out of force, and remove the file."""
        if source.path is None:
            raise OperationError("E-STATE", f"{source.label} is no file")
        base = self.commits.base()
        loaded = await self._service.in_thread(
            load_without, self._config, self._state, source.path, base, self._service.sources
        )
        if not loaded.ok:
            raise invalid(loaded)
        try:
            self._store.remove(source.path)
        except OSError as failure:
            raise _unwritten(f"removed from {source.path.parent}", failure) from None
        await self._service.change(loaded)
        await self.commits.record(loaded, what)

    def _standing(self) -> dict[str, Any]:
        """The fields of the gateway's status that say whether the files, what runs and what counts differ."""
        pending, rolled_back = self.commits.standing.pending, self.commits.standing.rolled_back
        left = pending.remaining(moment(self._gateway.clock)) if pending is not None else None
        fault = None
        if rolled_back is not None:
            fault = Fault(code="E-ROLLED-BACK", message=self.commits.differ(), at=rolled_back.at)
        return {"confirm_in_s": max(0, round(left)) if left is not None else None, "rolled_back": fault}

    def _tunnel(self, name: str) -> Tunnel:
        tunnel = self._gateway.tunnels.get(name)
        if tunnel is None:
            raise UnknownTunnel(name, [t.name for t in self._gateway.tunnels])
        return tunnel

    async def _prepared(self, name: str, seconds: float) -> Tunnel:
        """The tunnel, when it has its interface. Raises Conflict if it does not get it in time."""
        self._tunnel(name)
        waited = await self._gateway.watchers.wait(name, lambda: name not in self._service.pending, seconds)
        if not waited:
            raise Conflict("E-STARTING", f"{name} is not configured yet: try again", "vpnctl status")
        tunnel = self._tunnel(name)
        if not tunnel.policy.enabled:
            raise Conflict("E-DISABLED", f"{name} is disabled", f"vpnctl enable {name}")
        return tunnel

    def _let_in(self, tunnel: Tunnel) -> None:
        """The peer may negotiate; not yet where this machine has nothing that carries the packets."""
        if tunnel.standing.blocked is None:
            with self._gateway.turn() as now:
                self._gateway.endpoint.set_peer(now, tunnel.policy.peer)

    def _has_peer(self, tunnel: Tunnel) -> None:
        """Raises NegotiationFailed where nothing can be begun: it waits for a peer of any address."""
        if tunnel.policy.peer.any_address and not self._gateway.endpoint.ike_sas(tunnel.name):
            raise _failed(tunnel.name, Diagnosis.of(Code.PEER_BEGINS), 0, len(tunnel.mappings))

    def _loaded(self) -> Loaded:
        if self._service.loaded is None:
            raise OperationError("E-STARTING", "the daemon is starting: nothing is loaded yet")
        return self._service.loaded

    async def _until_up(self, name: str, seconds: float) -> None:
        """Wait until each mapping is up or has failed. Raises NegotiationFailed."""

        def decided() -> bool:
            tunnel = self._gateway.tunnels.get(name)
            if tunnel is None or tunnel.standing.closed or tunnel.standing.blocked is not None:
                return True
            return all(m.owner is not None or m.reason is not None for m in tunnel.mappings)

        in_time = await self._gateway.watchers.wait(name, decided, seconds)
        tunnel = self._tunnel(name)
        if tunnel.all_up:
            return
        if tunnel.standing.closed:
            raise Conflict("E-DOWN", f"{name} was taken down meanwhile")
        refused = tunnel.standing.blocked
        if refused is not None:
            # A new beginning forgot the failures of the peer; what this machine refuses still stands.
            with self._gateway.input("a command", name) as now:
                tunnel.standing.note(now, refused)
            raise _failed(name, refused, 0, len(tunnel.mappings))
        failed = [m for m in tunnel.mappings if m.reason is not None]
        if failed and failed[0].reason is not None:
            raise _failed(name, failed[0].reason.diagnosis, len(failed), len(tunnel.mappings))
        if tunnel.failure is not None:
            raise _failed(name, tunnel.failure.diagnosis, 0, len(tunnel.mappings))
        if not in_time:
            if not self._gateway.endpoint.ike_sas(name):
                with self._gateway.input("a command", name) as now:
                    tunnel.standing.note(now, self._unanswered(tunnel))
            missing = sum(m.owner is None for m in tunnel.mappings)
            which = (
                ""
                if len(tunnel.mappings) == 1
                else f" ({missing} of {len(tunnel.mappings)} mappings missing)"
            )
            raise NegotiationFailed(
                "E-TIMEOUT",
                f"{name} is not up after {seconds:g} s{which}: {self._stand(tunnel)}",
                f"it goes on trying; vpnctl why {name}, vpnctl trace {name}",
            )

    def _stand(self, tunnel: Tunnel) -> str:
        peer = tunnel.policy.remote
        if not self._gateway.endpoint.ike_sas(tunnel.name):
            return f"no answer from {peer} yet"
        return f"the IKE SA with {peer} is up, the rest is under way"

    def _unanswered(self, tunnel: Tunnel) -> Diagnosis:
        """What can be said of an attempt that goes on without an answer: what was sent since the last one."""
        sent: list[LadderLine] = []
        unread: LadderLine | None = None
        for line in self._service.journal.ladder(tunnel.name):
            sent = [*sent, line] if line.outbound else []
            if not line.outbound:
                unread = line if line.is_unreadable else None
        exchange = sent[-1].exchange if sent else None
        code = Code.UDP_4500 if exchange == "IKE_AUTH" else Code.SILENT
        peer = tunnel.policy.peer.remote_address or tunnel.policy.remote
        if unread is not None:
            # It does answer.
            detail = next(iter(unread.detail), None)
            return Diagnosis.of(Code.SYNTAX, peer=peer, exchange=unread.exchange, detail=detail)
        return Diagnosis.of(code, peer=peer, exchange=exchange, sent=len(sent) or None, received=0)

    async def _rekey_children(self, tunnel: Tunnel, seconds: float) -> None:
        for mapping in tunnel.mappings:
            old = mapping.owner
            if old is None:
                continue
            before = _latest(tunnel)
            with self._gateway.turn() as now:
                self._gateway.endpoint.rekey_child(now, tunnel.name, old.spi_in)
            await self._until_replaced(tunnel, before, seconds, lambda m=mapping, o=old: m.owner is not o)

    async def _rekey_ike(self, name: str, seconds: float) -> None:
        tunnel = self._tunnel(name)
        before = {(ike.spi_i, ike.spi_r) for ike in self._gateway.endpoint.ike_sas(name)}
        latest = _latest(tunnel)
        with self._gateway.turn() as now:
            self._gateway.endpoint.rekey_ike(now, name)

        def replaced() -> bool:
            return any((ike.spi_i, ike.spi_r) not in before for ike in self._gateway.endpoint.ike_sas(name))

        await self._until_replaced(tunnel, latest, seconds, replaced)

    async def _until_replaced(
        self, tunnel: Tunnel, before: TunnelFault | None, seconds: float, replaced: Any
    ) -> None:
        """Wait until something is replaced, or fails; `before` is the last failure of earlier."""

        def failed() -> TunnelFault | None:
            latest = _latest(tunnel)
            return latest if latest is not before else None

        def decided() -> bool:
            return replaced() or failed() is not None

        await self._gateway.watchers.wait(tunnel.name, decided, seconds)
        if replaced():
            return
        if (fault := failed()) is not None:
            raise _failed(tunnel.name, fault.diagnosis, 0, 1)
        raise _no_successor(tunnel.name, seconds)


def _latest(tunnel: Tunnel) -> TunnelFault | None:
    """The last failure, each an object of its own; None: there was none."""
    faults = tunnel.standing.faults
    return faults[-1][0] if faults else None


def _local_id(tunnel: Tunnel) -> str | None:
    """Who we say we are; None while that is an address that is not known."""
    ours, identity = tunnel.policy.peer.local_address, tunnel.policy.peer.local_id
    return None if ours.is_unspecified and identity == Identity.of_address(ours) else str(identity)


def _applied(done: Done) -> Applied:
    return Applied(
        **planned.difference(done.difference),
        problems=[body(problem) for problem in done.loaded.problems],
        configuration=done.number,
        confirm_in_s=done.seconds,
    )


def _no_successor(name: str, seconds: float) -> NegotiationFailed:
    return NegotiationFailed("E-TIMEOUT", f"{name}: no successor after {seconds:g} s", f"vpnctl trace {name}")


def _customer_gateway(configuration: Mapping[str, Any]) -> str:
    named = configuration.get("customer_gateway")
    return str(named["name"]) if isinstance(named, Mapping) else ""


def _unwritten(what: str, failure: OSError | ValueError) -> OperationError:
    reason = failure.strerror if isinstance(failure, OSError) else None
    return OperationError("E-STATE", f"it cannot be {what}: {reason or failure}")


def _of_request(loaded: Loaded) -> list[ProblemBody]:
    """The findings about what was sent, and of no file."""
    return [body(problem) for problem in loaded.problems if problem.file == REQUEST]


def _from_file(name: str, place: str) -> Conflict:
    return Conflict("E-FROM-FILE", f"{name} is defined in {place}", "change that file, then: vpnctl reload")


def _failed(name: str, diagnosis: Diagnosis, failed: int, mappings: int) -> NegotiationFailed:
    which = f" ({failed} of {mappings} mappings)" if mappings > 1 and failed else ""
    explanation = explain(diagnosis, name)
    hint = explanation.change or (explanation.try_[0] if explanation.try_ else None)
    return NegotiationFailed(diagnosis.code.value, f"{message(diagnosis)}{which}", hint)
