"""What the daemon starts with: the files, or a configuration that is kept. Nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from vpnd.config.configuration import Findings, Source
from vpnd.config.load import Loaded, check, read_disabled, read_sources
from vpnd.config.snapshot import Keys, Snapshot, Unreadable, tunnel_of
from vpnd.daemon.history import History
from vpnd.daemon.standing import Choice, Moment, Standing
from vpnd.host.clock import Clock, boot

NO_KEYS: Mapping[str, Keys] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Beginning:
    """The configuration of a start, and why it is that one.

    `left_out` are tunnels of a kept configuration that cannot be used any more, and why: keys are not kept.
    """

    loaded: Loaded
    choice: Choice = Choice.FILES
    left_out: Mapping[str, str] = field(default_factory=dict)


def moment(clock: Clock) -> Moment:
    """Now, as `Standing` understands it."""
    return Moment(clock.now(), boot(), clock.wall())


def begin(config: Path, state: Path, clock: Clock, *, offline: bool = False) -> Beginning:
    """What to start with. Where what is kept cannot be used, that is the files. `offline`: as of `load`."""
    history, findings = History(state), Findings()
    standing = history.standing()
    sources = read_sources(config, state, findings)
    choice = standing.at_start(moment(clock), Snapshot.of(sources).digest)
    number = number_of(standing, choice)
    files = Beginning(check(sources, findings, offline=offline))
    if number is None:
        return files
    try:
        disabled = read_disabled(state, findings)
        kept = history.read(number).snapshot
        own = history.keys(number)
        loaded, left_out = restore(kept, sources, None, disabled, own=own, offline=offline)
    except Unreadable:
        return files
    # The traffic of a tunnel that is left out is not kept in: not where files with errors may be the reason.
    usable = loaded.ok and (files.loaded.ok or not left_out)
    return Beginning(loaded, choice, left_out) if usable else files


def number_of(standing: Standing, choice: Choice) -> int | None:
    """Which of the configurations that are kept is meant; None: the files."""
    if choice is Choice.PENDING and standing.pending is not None:
        return standing.pending.number
    return None if choice is Choice.FILES else standing.confirmed


def restore(
    snapshot: Snapshot,
    files: Sequence[Source],
    keys: Mapping[str, Keys] | None = None,
    disabled: frozenset[str] = frozenset(),
    *,
    own: Mapping[str, Keys] = NO_KEYS,
    offline: bool = False,
) -> tuple[Loaded, dict[str, str]]:
    """What is kept, with its `own` keys, else those of the files as they are now, else `keys`, from memory.

    Tunnels that cannot be used are left out: returned with the reason of each.
    """
    left_out: dict[str, str] = {}
    used: dict[str, Keys] = dict(own)
    while True:
        sources = snapshot.without(left_out).with_keys(files, used, disabled)
        loaded = check(sources, Findings(), offline=offline)
        names = loaded.configuration.tunnels
        wrong = {tunnel_of(problem.key, names): problem for problem in reversed(loaded.errors)}
        found = [name for name in names if name in wrong]
        if not found:
            return loaded, left_out
        for name in found:
            if keys and name in keys and name not in used:
                used[name] = keys[name]
            else:
                # What is no reference to a key is the fingerprint of one that is nowhere any more.
                gone = wrong[name].code == "E-PSK-FORM"
                left_out[name] = "its key is gone" if gone else wrong[name].message
