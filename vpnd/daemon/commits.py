"""Changes with a way back: what is in force, what is confirmed, and the return to that.

The files are the candidate. `apply` puts them in force, for good or until they are confirmed; without that
the confirmed configuration comes back by itself. What that takes is on the disk before anything changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from vpnd.config.classes import Difference, classify
from vpnd.config.configuration import Findings, Source
from vpnd.config.load import Loaded, load, read_disabled, read_sources
from vpnd.config.snapshot import Keys, Snapshot, Unreadable
from vpnd.control.diagnoses import message
from vpnd.control.operations import Conflict, OperationError
from vpnd.daemon.beginning import NO_KEYS, Beginning, moment, restore
from vpnd.daemon.changes import Change
from vpnd.daemon.history import Entry, History
from vpnd.daemon.refusals import invalid
from vpnd.daemon.service import Service
from vpnd.daemon.standing import Choice, Pending, Standing
from vpnd.model.policy import Negotiation
from vpnd.model.secret import Secret
from vpnd.tunnel.commands import TunnelState
from vpnd.tunnel.lifecycle import Tunnel

COME_UP = 30.0
"""Ours, in seconds: what a tunnel that was up has to come up again; `vpnctl up` waits as long."""

LOOK = 1.0
"""Ours, in seconds: the longest sleep before a deadline, since the loop's clock stands in suspension."""

LONG = 86400.0
"""Ours, in seconds: a watcher begins again after that."""

CREDENTIAL = "credential:"
"""How the reference to a key begins that systemd hands to the service."""

NOT_CONFIRMED = "it was not confirmed in time"


@dataclass(frozen=True, slots=True)
class Done:
    """A configuration that was put in force: what changed, its number, and how long `confirm` may take."""

    loaded: Loaded
    difference: Difference
    change: Change
    number: int | None
    seconds: float | None = None


class Commits:
    """Owns `Standing` and its timers. What changes the configuration holds `lock`."""

    def __init__(self, service: Service, config: Path, state: Path) -> None:
        self.lock = asyncio.Lock()
        self.standing = Standing()
        self._planning = asyncio.Lock()
        self._service = service
        self._config = config
        self._state = state
        self._history = History(state)
        self._keys: Mapping[str, Keys] = NO_KEYS
        """Those of the confirmed configuration, by tunnel, while the files hold something else: it comes
        back, and runs, with the keys that it was confirmed with."""
        self._waiting: set[asyncio.Task[None]] = set()
        """What ends with the time for `confirm`: its deadline, and who watches the tunnels."""
        self._is_whole = False
        """Whether every tunnel that is configured runs since the start."""

    # ------------------------------------------------------------------------------- the start

    async def begin(self, beginning: Beginning) -> None:
        """The daemon runs with this: keep what that means."""
        self.standing = self._history.standing()
        if self.standing.pending is not None or beginning.choice is Choice.CONFIRMED:
            self._keys = self._history.keys(self.standing.confirmed)
        event = self._service.journal.event
        self._is_whole = beginning.loaded.ok and not beginning.left_out
        for name, why in beginning.left_out.items():
            event(
                name, "left-out", f"the kept configuration has it, and it does not run: {why}", "E-LEFT-OUT"
            )
        if beginning.choice is Choice.PENDING and self.standing.pending is not None:
            left = self.standing.pending.remaining(moment(self._service.gateway.clock))
            event(
                None,
                "unconfirmed",
                f"the configuration goes back in {max(0, left):.0f} s unless it is confirmed",
            )
            self._wait(self.standing.pending)
            return
        async with self.lock:
            pending = self.standing.pending
            if beginning.choice is Choice.OVERDUE and pending is not None:
                await self._keep_return(NOT_CONFIRMED)
            elif beginning.choice is not Choice.CONFIRMED:
                # A reload may have come before this.
                await self.record(self._service.loaded or beginning.loaded, "start")
                await self._forget(pending)
            if self.standing.rolled_back is not None:
                event(None, "rolled-back", self.differ(), "E-ROLLED-BACK")

    def watch(self) -> None:
        """Every tunnel has been prepared: those that were up have their time from now on.

        The recordings of what is configured no more go, unless a tunnel may come back.
        """
        if self.standing.pending is not None:
            self._watch_tunnels(self.standing.pending)
        elif self._is_whole:
            self._service.journal.recorder.prune()

    # ------------------------------------------------------------------------------ who changes

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """A change of what is configured over the API, one at a time. Raises as `may_change`."""
        async with self.lock:
            self.may_change()
            yield

    def may_change(self) -> None:
        """Raises Conflict while a configuration waits to be confirmed: another change would go with it."""
        pending = self.standing.pending
        if pending is not None:
            left = max(0.0, pending.remaining(moment(self._service.gateway.clock)))
            message = f"the configuration waits to be confirmed, for {left:.0f} s more"
            raise Conflict("E-UNCONFIRMED", message, "vpnctl confirm, or vpnctl rollback")

    def base(self) -> tuple[Source, ...] | None:
        """What a change of one tunnel starts from where the files hold what was rolled back; else None."""
        loaded = self._service.loaded
        return loaded.sources if self.standing.rolled_back is not None and loaded is not None else None

    async def record(self, loaded: Loaded, what: str) -> int | None:
        """Keep what is in force as confirmed; returns its number. An event says what cannot be kept."""
        try:
            entry = await self._keep(loaded, what)
            standing = self.standing.applied(entry.number)
            if (rolled_back := self.standing.rolled_back) is not None and what != "start":
                files = await self._service.in_thread(self._digest)
                standing = replace(standing, rolled_back=replace(rolled_back, digest=files))
            is_own = bool(self._keys) and standing.rolled_back is not None
            await self._set(standing, _keys(loaded) if is_own else NO_KEYS)
            return entry.number
        except OSError as failure:
            self._not_kept("the configuration cannot be kept", failure)
            return None

    # ------------------------------------------------------------------------------- the verbs

    async def plan(self, back: int | None = None) -> tuple[Loaded, Difference]:
        """What `apply` would do, or `rollback` by `back`. Raises InvalidConfiguration, Conflict.

        One at a time: who may only look may ask, and with many tunnels it takes seconds of the processor.
        """
        async with self._planning:
            loaded = await self._candidate(None) if back is None else (await self._older(back))[0]
            return loaded, await self._service.in_thread(classify, self._running(), loaded)

    async def apply(self, seconds: float | None, what: str = "apply") -> Done:
        """Put the files in force; with `seconds` until then, unless they are confirmed.

        Without it what waits to be confirmed is, as the files hold it now. Raises InvalidConfiguration or
        OperationError (E-STATE), having changed nothing.
        """
        async with self.lock:
            loaded = await self._candidate("reload-refused")
            difference = await self._service.in_thread(classify, self._running(), loaded)
            before, keys = self.standing, self._keys
            try:
                if seconds is None:
                    entry = await self._keep(loaded, what)
                    await self._set(before.applied(entry.number))
                else:
                    before = await self._with_way_back(before)
                    entry = await self._keep(loaded, what, fresh=True)
                    own = keys if before.pending is not None else _keys(self._service.loaded)
                    await self._set(before.tried(self._pending(entry, seconds, loaded)), own)
            except OSError as failure:
                if seconds is not None:
                    raise OperationError(
                        "E-STATE",
                        f"it cannot be kept, so there is no way back: {failure.strerror or failure}",
                    ) from None
                entry = None
                self.standing = replace(before, pending=None, rolled_back=None)
                self._not_kept("the configuration cannot be kept", failure)
            change = await self._put_in_force(loaded, before, keys)
            if self.standing.pending is not None:
                self._wait(self.standing.pending)
                self._watch_tunnels(self.standing.pending)
            await self._forget(before.pending)
            number = entry.number if entry is not None else None
            return Done(loaded, difference, change, number, seconds)

    async def _with_way_back(self, standing: Standing) -> Standing:
        """What runs is what it goes back to, also where it could not be kept before. Raises OSError."""
        if standing.pending is not None:
            return standing
        entry = await self._keep(self._running(), "start")
        return replace(standing, confirmed=entry.number)

    async def confirm(self) -> int:
        """What waits to be confirmed is; returns its number. Raises Conflict, OperationError (E-STATE)."""
        async with self.lock:
            pending = self.standing.pending
            if pending is None:
                raise Conflict(
                    "E-NOT-PENDING", "no configuration waits to be confirmed", "vpnctl rollback --list"
                )
            try:
                await self._set(self.standing.confirm())
            except OSError as failure:
                message = f"it cannot be kept that it is confirmed: {failure.strerror or failure}"
                raise OperationError("E-STATE", message) from None
            self._end_waiting()
            return pending.number

    async def rollback(self, back: int | None) -> Done:
        """The confirmed configuration again, if one waits to be confirmed, else the one before; or N before.

        Raises Conflict or InvalidConfiguration, having changed nothing.
        """
        async with self.lock:
            if back is None and self.standing.pending is not None:
                loaded, left_out = await self._confirmed()
                difference = await self._service.in_thread(classify, self._running(), loaded)
                change = await self._return("vpnctl rollback", loaded, left_out)
                return Done(loaded, difference, change, self.standing.confirmed)
            loaded, number = await self._older(back if back is not None else 1)
            difference = await self._service.in_thread(classify, self._running(), loaded)
            files, before, keys = await self._service.in_thread(self._digest), self.standing, self._keys
            snapshot = Snapshot.of(loaded.sources)
            try:
                entry = await self._keep(loaded, f"rollback to {number}")
                held = None if files == snapshot.digest else files
                reason = f"vpnctl rollback went back to configuration {number}"
                await self._set(before.rolled(entry.number, held, reason, self._service.gateway.clock.wall()))
            except OSError as failure:
                raise OperationError("E-STATE", f"it cannot be kept: {failure.strerror or failure}") from None
            change = await self._put_in_force(loaded, before, keys)
            await self._forget(before.pending)
            return Done(loaded, difference, change, entry.number)

    def kept(self) -> list[tuple[int, Entry]]:
        """Those that are kept, the one that runs first: each behind how far back it is."""
        found = []
        for back, number in enumerate(self._older_numbers()):
            with contextlib.suppress(Unreadable):
                found.append((back, self._history.read(number)))
        return found

    # ---------------------------------------------------------------------------------- inside

    def _not_kept(self, what: str, failure: OSError) -> None:
        text = f"{what}: {failure.strerror or failure}"
        self._service.journal.event(None, "not-kept", text, "E-STATE")

    def _running(self) -> Loaded:
        if self._service.loaded is None:
            raise OperationError("E-STARTING", "the daemon is starting: nothing is loaded yet")
        return self._service.loaded

    @property
    def running_number(self) -> int | None:
        """Which of those that are kept is in force; None: none is kept."""
        pending = self.standing.pending
        return pending.number if pending is not None else self.standing.confirmed

    def _older_numbers(self) -> list[int]:
        """The configuration that runs, then those before it."""
        running = self.running_number
        return [number for number in self._history.numbers() if running is None or number <= running]

    def differ(self) -> str:
        """The files differ from what runs, and why."""
        rolled_back = self.standing.rolled_back
        why = f" ({rolled_back.reason})" if rolled_back is not None else ""
        return f"the files differ from what runs: they hold a version that was rolled back{why}"

    async def _candidate(self, kind: str | None) -> Loaded:
        """The files; `kind` is the event of a refusal. Raises InvalidConfiguration."""
        known = self._service.sources
        loaded = await self._service.in_thread(load, self._config, self._state, known=known)
        if not loaded.ok:
            refusal = invalid(loaded)
            if kind is not None:
                text = f"nothing was changed: {refusal.message}"
                self._service.journal.event(None, kind, text, "E-CONFIG")
            raise refusal
        return loaded

    async def _older(self, back: int) -> tuple[Loaded, int]:
        """The configuration of so many before the one that runs, and its number."""
        older = await self._service.in_thread(self._older_numbers)
        if back >= len(older):
            message = f"no configuration of {back} before is kept: there are {max(0, len(older) - 1)}"
            raise Conflict("E-NO-CONFIGURATION", message, "vpnctl rollback --list")
        number = older[back]
        try:
            snapshot = (await self._service.in_thread(self._history.read, number)).snapshot
        except Unreadable as failure:
            raise Conflict("E-NO-CONFIGURATION", str(failure), "vpnctl rollback --list") from None
        loaded, left_out = await self._service.in_thread(self._restore, snapshot)
        for name, why in left_out.items():
            message = f"the configuration {number} has {name}, which cannot be used any more: {why}"
            raise Conflict("E-LEFT-OUT", message, "keys are not kept: put it where it was, or into the files")
        if not loaded.ok:
            raise invalid(loaded)
        return loaded, number

    def _restore(
        self, snapshot: Snapshot, own: Mapping[str, Keys] = NO_KEYS
    ) -> tuple[Loaded, dict[str, str]]:
        keys = {**self._keys, **_keys(self._service.loaded)}
        files = read_sources(self._config, self._state, Findings(), self._service.sources)
        return restore(snapshot, files, keys, read_disabled(self._state, Findings()), own=own)

    def _digest(self) -> str:
        files = read_sources(self._config, self._state, Findings(), self._service.sources)
        return Snapshot.of(files).digest

    async def _keep(self, loaded: Loaded, what: str, fresh: bool = False) -> Entry:
        """Keep a configuration; the same as the one that runs is that one, unless it has to be `fresh`."""
        snapshot = Snapshot.of(loaded.sources)
        wall, confirmed = self._service.gateway.clock.wall(), self.standing.confirmed

        def write() -> Entry:
            if not fresh and confirmed is not None:
                with contextlib.suppress(Unreadable):
                    known = self._history.same(confirmed, snapshot)
                    if known is not None:
                        return known
            return self._history.keep(snapshot, wall, what, confirmed)

        return await self._service.in_thread(write)

    async def _set(self, standing: Standing, keys: Mapping[str, Keys] = NO_KEYS) -> None:
        """It holds from now on, and is on the disk. Raises OSError.

        `keys` are those that the confirmed configuration comes back with, where the files hold another.
        """
        if keys is not self._keys and keys and standing.confirmed is not None:
            await self._service.in_thread(self._history.keep_keys, standing.confirmed, self._to_be_kept(keys))
        await self._service.in_thread(self._history.keep_standing, standing)
        self.standing, self._keys = standing, keys
        await self._service.in_thread(self._history.forget_keys, standing.confirmed if keys else None)

    def _to_be_kept(self, keys: Mapping[str, Keys]) -> dict[str, Keys]:
        """All but credentials: they are not for the disk, and do not change as long as the service runs."""
        tables = self._running().configuration.tables
        names = [name for name in keys if not tables[name].pre_shared_key.startswith(CREDENTIAL)]

        def following(name: str) -> Secret | None:
            return None if (tables[name].next_pre_shared_key or "").startswith(CREDENTIAL) else keys[name][1]

        return {name: (keys[name][0], following(name)) for name in names}

    async def _put_in_force(self, loaded: Loaded, before: Standing, keys: Mapping[str, Keys]) -> Change:
        """Change to it; where that fails as a whole, what counted `before` does again, with its `keys`."""
        self._end_waiting()
        try:
            return await self._service.change(loaded)
        except BaseException:
            await self._restore_standing(before, keys)
            raise

    async def _restore_standing(self, before: Standing, keys: Mapping[str, Keys]) -> None:
        with contextlib.suppress(OSError):
            await self._set(before, keys)
        if before.pending is not None:
            self._wait(before.pending)

    async def _forget(self, pending: Pending | None) -> None:
        """A configuration that was never confirmed is not one to go back to."""
        if pending is not None and pending.number != self.standing.confirmed:
            await self._service.in_thread(self._history.forget, pending.number)

    def _pending(self, entry: Entry, seconds: float, loaded: Loaded) -> Pending:
        clock = self._service.gateway.clock
        now = moment(clock)
        up = tuple(
            tunnel.name
            for tunnel in self._service.gateway.tunnels
            if tunnel.state is TunnelState.UP and tunnel.name in loaded.configuration.tunnels
        )
        if self.standing.pending is not None:
            up = tuple(dict.fromkeys((*self.standing.pending.up, *up)))
        return Pending(
            number=entry.number,
            digest=entry.snapshot.digest,
            seconds=seconds,
            deadline=now.now + seconds,
            boot=now.boot,
            deadline_wall=now.wall + timedelta(seconds=seconds),
            up=up,
        )

    # -------------------------------------------------------------------------------- the return

    def _wait(self, pending: Pending) -> None:
        self._spawn(self._at_deadline(pending))

    def _watch_tunnels(self, pending: Pending) -> None:
        for name in pending.up:
            self._spawn(self._watch(pending, name))

    async def _at_deadline(self, pending: Pending) -> None:
        clock = self._service.gateway.clock
        while (left := pending.remaining(moment(clock))) > 0:  # noqa: ASYNC110 (a suspended machine's loop is late)
            await asyncio.sleep(min(left, LOOK))
        await self._go_back(pending, NOT_CONFIRMED)

    async def _watch(self, pending: Pending, name: str) -> None:
        """Until a tunnel that was up has had its time to come up again, and is not."""
        watchers, tunnels = self._service.gateway.watchers, self._service.gateway.tunnels
        while name in tunnels:
            if await watchers.wait(name, lambda: not _is_up(tunnels.get(name)), LONG):
                await watchers.wait(name, lambda: _verdict(tunnels.get(name)) is not None, COME_UP)
                verdict = _verdict(tunnels.get(name))
                if verdict == "" and not _is_up(tunnels.get(name)):
                    return
                if verdict != "":
                    text = verdict or f"not up after {COME_UP:g} s"
                    await self._go_back(pending, f"{name} was up and did not come up again: {text}")
                    return

    async def _go_back(self, pending: Pending, reason: str) -> None:
        async with self.lock:
            if self.standing.pending == pending:
                try:
                    await self._return(reason, *await self._confirmed())
                except OperationError as failure:
                    text = f"the confirmed configuration cannot come back: {failure.message}"
                    self._service.journal.event(None, "rollback-failed", text, failure.code)
                except Exception as error:  # whatever it is: an operator can still act
                    self._service.journal.fault(None, "internal error on the way back", error)

    async def _confirmed(self) -> tuple[Loaded, dict[str, str]]:
        """What comes back, and the tunnels whose keys are gone. Raises OperationError."""
        number = self.standing.confirmed
        if self.standing.pending is None or number is None:
            raise Conflict("E-NOT-PENDING", "no configuration waits to be confirmed")
        try:
            snapshot = (await self._service.in_thread(self._history.read, number)).snapshot
        except Unreadable as failure:
            raise OperationError("E-STATE", str(failure)) from None
        loaded, left_out = await self._service.in_thread(self._restore, snapshot, self._keys)
        if not loaded.ok:
            raise invalid(loaded)
        return loaded, left_out

    async def _return(self, reason: str, loaded: Loaded, left_out: Mapping[str, str]) -> Change:
        """The confirmed configuration is in force again."""
        await self._keep_return(reason)
        change = await self._service.change(loaded)
        for name, why in left_out.items():
            self._service.journal.event(name, "left-out", f"it does not run: {why}", "E-LEFT-OUT")
        text = f"the confirmed configuration is in force again: {reason}"
        self._service.journal.event(None, "rolled-back", text, "E-ROLLED-BACK")
        return change

    async def _keep_return(self, reason: str) -> None:
        """It is on the disk that the confirmed configuration counts again."""
        pending = self.standing.pending
        standing = self.standing.went_back(reason, self._service.gateway.clock.wall())
        try:
            await self._set(standing, self._keys)
        except OSError as failure:
            # The next start finds the deadline over, and comes to the same.
            self.standing = standing
            self._not_kept("the return cannot be kept", failure)
        self._end_waiting()
        await self._forget(pending)

    def _end_waiting(self) -> None:
        this = asyncio.current_task()
        for task in self._waiting - {this}:
            task.cancel()
        self._waiting = {task for task in self._waiting if task is this}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._waiting.add(task)
        task.add_done_callback(lambda done: self._waiting.discard(done))

    async def close(self) -> None:
        """The daemon ends; what waits to be confirmed does so over a restart."""
        tasks = tuple(self._waiting)
        self._end_waiting()
        await asyncio.gather(*tasks, return_exceptions=True)


def _keys(loaded: Loaded | None) -> dict[str, Keys]:
    tunnels = loaded.configuration.tunnels.values() if loaded is not None else ()
    return {one.name: (one.secret, one.next_secret) for one in tunnels if one.secret is not None}


def _is_up(tunnel: Tunnel | None) -> bool:
    return tunnel is not None and tunnel.state is TunnelState.UP


def _verdict(tunnel: Tunnel | None) -> str | None:
    """Empty: it is up, or nobody expects it to be; else why it is not; None: not decided."""
    if tunnel is None or _is_up(tunnel) or tunnel.standing.closed or not tunnel.policy.enabled:
        return ""
    if tunnel.policy.negotiation is Negotiation.TRAFFIC_TRIGGERED and tunnel.state is TunnelState.WAITING:
        return ""
    failed = [tunnel.standing.blocked] if tunnel.standing.blocked is not None else []
    failed += [mapping.reason.diagnosis for mapping in tunnel.mappings if mapping.reason is not None]
    return f"{failed[0].code.value} {message(failed[0])}" if failed else None
