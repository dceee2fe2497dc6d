"""From files to a checked configuration: the main file, `tunnels.d/*.toml` beside it, and the API's tunnels.

Every problem is collected, with its file and line; nothing is raised for what is in a file, and nothing is
changed anywhere. `compile_gateway` turns a configuration without errors into what the daemon runs.
"""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from sys import intern
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from vpnd.config import rules, tls, weak
from vpnd.config.configuration import Configuration, CustomerGateway, Findings, Source, Tables, Tunnel
from vpnd.config.foreign import foreign_line
from vpnd.config.paths import DEFAULT_CONFIG
from vpnd.config.places import NOWHERE, Places
from vpnd.config.places import Path as KeyPath
from vpnd.config.problems import Problem, Severity, did_you_mean, quoted
from vpnd.config.schema import (
    TOP_LEVEL_KEYS,
    ApiTable,
    CustomerGatewayTable,
    GatewayLabels,
    GatewayTable,
    MetricsTable,
    TunnelTable,
    with_profile,
)
from vpnd.config.secrets import (
    KEYS,
    CredentialUnavailable,
    SecretError,
    only_owner_reads,
    read_secret,
    stamp_of_key,
    suspicions,
    unreadable_by_service,
)
from vpnd.config.stamps import Stamp, stamp, stamp_of
from vpnd.config.translate import translate
from vpnd.config.values import check_name
from vpnd.model.secret import Secret

TUNNELS_DIRECTORY = "tunnels.d"
DISABLED_FILE = "disabled.toml"
"""In the state directory: the tunnels that an operator has disabled."""
GATEWAYS_DIRECTORY = "customer_gateways.d"
"""In the state directory: one file for each customer gateway that was made through the API."""
GATEWAY_FILE = "gateway.toml"
"""In the state directory: the gateway's labels that were set through the API."""

MAX_FILE_BYTES = 4 * 1024 * 1024
"""Ours: 1,000 tunnels take a tenth of it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The outcome: what could be understood, and every problem. It can be compiled if `ok`."""

    configuration: Configuration
    problems: tuple[Problem, ...]
    sources: tuple[Source, ...] = field(default=(), repr=False)
    """The files that it was read from."""

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep it from being used."""
        return tuple(p for p in self.problems if p.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The others."""
        return tuple(p for p in self.problems if p.severity is Severity.WARNING)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors


def load(
    path: Path = DEFAULT_CONFIG,
    state: Path | None = None,
    *,
    offline: bool = False,
    known: Sequence[Source] = (),
) -> Loaded:
    """Read and check everything. `state` is the directory of the tunnels that were made through the API.

    `offline`: a systemd credential that is only there within the service is a warning, not an error.
    `known`: files that were read before; those whose content is the same are not parsed and validated again.
    """
    findings = Findings()
    return check(read_sources(path, state, findings, known), findings, offline=offline)


def load_with(
    path: Path,
    state: Path,
    proposed: Source,
    base: Sequence[Source] | None = None,
    known: Sequence[Source] = (),
) -> Loaded:
    """As `load`, with `proposed` in place of the file of its path, or added: a change before it is made.

    `base`: what runs, where the files hold something else.
    """
    findings = Findings()
    sources = base if base is not None else read_sources(path, state, findings, known)
    disabled = frozenset[str]().union(*(source.disabled for source in sources))
    others = (source for source in sources if source.path != proposed.path)
    return check([*others, replace(proposed, disabled=disabled)], findings)


def load_without(
    path: Path,
    state: Path,
    removed: Path,
    base: Sequence[Source] | None = None,
    known: Sequence[Source] = (),
) -> Loaded:
    """As `load`, without the file `removed`. `base`: as of `load_with`."""
    findings = Findings()
    sources = base if base is not None else read_sources(path, state, findings, known)
    return check([s for s in sources if s.path != removed], findings)


# --------------------------------------------------------------------------------------- files


def read_sources(
    path: Path, state: Path | None, findings: Findings, known: Sequence[Source] = ()
) -> list[Source]:
    """Every file, parsed; a file that cannot be read or parsed is a finding, and the others go on.

    `known`: as of `load`.
    """
    before = {one.path: one for one in known if isinstance(one.tables, Tables) and one.places is not NOWHERE}
    files = [(path, True, False)]
    files += [(extra, False, False) for extra in _toml_files(path.parent / TUNNELS_DIRECTORY, findings)]
    if state is not None:
        labels = state / GATEWAY_FILE
        files += [(labels, False, True)] if _is_there(labels) else []
        for directory in (GATEWAYS_DIRECTORY, TUNNELS_DIRECTORY):
            files += [(extra, False, True) for extra in _toml_files(state / directory, findings)]
    sources = (_read_file(file, main, from_api, findings, before.get(file)) for file, main, from_api in files)
    disabled = read_disabled(state, findings) if state is not None else frozenset()
    return [_disabling(source, disabled) for source in sources if source is not None]


def _disabling(source: Source, disabled: frozenset[str]) -> Source:
    """The very same source where that is what it says already: with it goes what was found of it."""
    return source if source.disabled == disabled else replace(source, disabled=disabled)


def read_disabled(state: Path, findings: Findings) -> frozenset[str]:
    """The tunnels that an operator has disabled; of one that is not configured it says nothing."""
    path = state / DISABLED_FILE
    source = _read_file(path, False, True, findings) if _is_there(path) else None
    names = source.tables.get("disabled") if source is not None else []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        hint = 'write disabled = ["NAME"], or remove the file'
        findings.error(source or Source(str(path), {}), (), "E-TYPE", "disabled is no list of names", hint)
        return frozenset()
    return frozenset(names)


def read_file(path: Path, findings: Findings) -> Source | None:
    """One file of the state directory; None, and a finding, where it cannot be read or parsed."""
    return _read_file(path, False, True, findings)


def _is_there(path: Path) -> bool:
    """Whether there is such a file. Where that cannot be seen there is: reading it says why."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _toml_files(directory: Path, findings: Findings) -> list[Path]:
    try:
        names = (n for n in os.listdir(directory) if n.endswith(".toml") and not n.startswith("."))
        return [directory / name for name in sorted(names)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        nothing = Source(str(directory), {})
        message = f"the directory cannot be read: {error.strerror}"
        findings.error(nothing, (), "E-FILE", message, "correct its owner and mode")
        return []


def _read_file(
    path: Path, main: bool, from_api: bool, findings: Findings, known: Source | None = None
) -> Source | None:
    if known is not None and _is_unchanged(path, main, from_api, known):
        return known
    nothing = Source(str(path), {}, path=path)
    try:
        if not main and path.exists() and not path.is_file():
            # A pipe would be read until another process writes into it, which holds up every reload.
            raise ValueError("it is not a regular file")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            private, stamp = only_owner_reads(status), stamp_of(status)
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
        text = data.decode()
    except OSError as error:
        hint = "name another file, or write one: conf/ has examples" if main else "correct its owner and mode"
        if not main and isinstance(error, FileNotFoundError):
            hint = "remove the link that leads nowhere; if the file has just been removed, try again"
        findings.error(nothing, (), "E-FILE", f"the file cannot be read: {error.strerror}", hint)
        return None
    except ValueError as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        findings.error(nothing, (), "E-FILE", f"the file cannot be read: {reason}", "write it as TOML")
        return None
    digest = hashlib.sha256(data).digest()
    if known is not None and isinstance(known.tables, Tables) and known.tables.digest == digest:
        if _is_as_read(known, path, main, from_api) and known.private == private:
            known.tables.stamp = stamp
            return known
        # `known` stays in force where this is refused: the stamp of another mode must not become its own.
        tables = known.tables.read_again(stamp)
        return Source(str(path), tables, known.places, path, main, from_api, private)
    empty = replace(nothing, main=main, from_api=from_api, private=private)
    return parsed(text, empty, findings, digest, stamp)


def _is_unchanged(path: Path, main: bool, from_api: bool, known: Source) -> bool:
    """Whether the file that was read before is still the same, which its stamp tells without its content."""
    read = known.tables.stamp if isinstance(known.tables, Tables) else None
    return read is not None and _is_as_read(known, path, main, from_api) and read == stamp(path)


def _is_as_read(known: Source, path: Path, main: bool, from_api: bool) -> bool:
    """Whether it is the file of this path as it was read: not rolled back, and without keys of its own."""
    alone = not known.keys and not known.next_keys and known.places is not NOWHERE
    return alone and (known.label, known.main, known.from_api) == (str(path), main, from_api)


def parsed(
    text: str, empty: Source, findings: Findings, digest: bytes = b"", stamp: Stamp | None = None
) -> Source | None:
    """`empty` with the tables of this text; None, and a finding, where it is no TOML.

    `digest` and `stamp` are those of the file that it was read from.
    """
    try:
        tables = {intern(key): _interned(value) for key, value in tomllib.loads(text).items()}
        read = Tables(tables, digest, stamp)
        places = Places(text)
    except tomllib.TOMLDecodeError as error:
        message, line = _syntax_error(str(error))
        at = min(line, text.count("\n") + 1) if line else text.count("\n") + 1
        findings.error(empty, (), "E-TOML", message, "correct the TOML syntax", at=at)
        return None
    except RecursionError:
        findings.error(
            empty, (), "E-TOML", "the values are nested too deeply", "correct the TOML syntax", at=1
        )
        return None
    return replace(empty, tables=read, places=places)


def _interned(value: object) -> object:
    """The same with each key and word once in memory: a thousand tunnels have the same ones.

    But for pre-shared keys: Python 3.12 keeps what it has interned to its end.
    """
    match value:
        case dict():
            return {intern(key): one if key in KEYS else _interned(one) for key, one in value.items()}
        case list():
            return [_interned(one) for one in value]
        case str():
            return intern(value)
        case _:
            return value


def _syntax_error(text: str) -> tuple[str, int | None]:
    """tomllib's message and line: it ends in `(at line 3, column 5)` or `(at end of document)`."""
    text = re.sub(r"^Cannot declare \((.*?),?\) twice", _twice, text)
    text = text.replace("Cannot overwrite a value", "the key before this place is already there")
    found = re.search(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$", text)
    if found is None:
        return text, None
    return text[: found.start()], int(found[1]) if found[1] else None


def _twice(found: re.Match[str]) -> str:
    table = ".".join(re.findall(r"'([^']*)'", found[1]))
    return f"[{table}] is there twice: join the two"


# -------------------------------------------------------------------------------------- tables

T = TypeVar("T", bound=BaseModel)


def check(sources: Sequence[Source], findings: Findings, *, offline: bool = False) -> Loaded:
    """Validate every table, then what concerns several, then the keys; all problems at once."""
    gateway, gateway_source = _gateway(sources, findings)
    customer_gateways: dict[str, CustomerGateway] = {}
    tunnels: dict[str, Tunnel] = {}
    for source in sources:
        _check_top_level(source, findings)
        _add_customer_gateways(source, customer_gateways, findings)
    for source in sources:
        _add_tunnels(source, tunnels, customer_gateways, findings)
    tunnels = {name: _with_secrets(tunnel, offline, findings) for name, tunnel in tunnels.items()}
    metrics, metrics_source = _only(MetricsTable, "metrics", sources, findings)
    api, api_source = _only(ApiTable, "api", sources, findings)
    configuration = _with_labels(
        Configuration(
            gateway, gateway_source, customer_gateways, tunnels, metrics, metrics_source, api, api_source
        ),
        sources,
        findings,
    )
    rules.check(configuration, findings)
    tls.check(configuration, findings)
    weak.check(configuration, findings)
    ordered = findings.in_order([source.label for source in sources])
    return Loaded(configuration, ordered, tuple(sources))


def _gateway(sources: Sequence[Source], findings: Findings) -> tuple[GatewayTable | None, Source | None]:
    main = next((source for source in sources if source.main), None)
    if main is not None and not any("gateway" in source.tables for source in sources if not source.from_api):
        hint = "add [gateway] with name and address"
        findings.error(main, (), "E-GATEWAY", "there is no [gateway] table", hint)
    files = [source for source in sources if not source.from_api]
    return _only(GatewayTable, "gateway", files, findings, "E-GATEWAY")


def _with_labels(
    configuration: Configuration, sources: Sequence[Source], findings: Findings
) -> Configuration:
    """The labels that the API has kept, where the file has none: they are one value, never half of each."""
    gateway = configuration.gateway
    if gateway is None or configuration.labels_in_file is not None:
        return configuration
    made = [source for source in sources if source.from_api]
    labels, source = _only(GatewayLabels, "gateway", made, findings)
    if labels is None:
        return configuration
    return replace(
        configuration, gateway=gateway.model_copy(update=labels.model_dump()), labels_source=source
    )


def _only(
    model: type[T], key: str, sources: Sequence[Source], findings: Findings, twice: str = "E-DUPLICATE"
) -> tuple[T | None, Source | None]:
    """A table that there is once, in whichever file; None where there is none, or a wrong one."""
    holders = [source for source in sources if key in source.tables]
    if not holders:
        return None, None
    first, *others = holders
    for other in others:
        message = f"[{key}] is already in {first.label}"
        findings.error(other, (key,), twice, message, "keep one of the two")
    return _validate(model, first.tables[key], first, (key,), findings), first


def _check_top_level(source: Source, findings: Findings) -> None:
    for key in source.tables:
        if key not in TOP_LEVEL_KEYS:
            hint = did_you_mean(key, TOP_LEVEL_KEYS) or "one of: " + ", ".join(TOP_LEVEL_KEYS)
            findings.error(source, (key,), "E-KEY", f"unknown key {quoted(key)}", hint)


def _tables(source: Source, key: str, findings: Findings) -> Mapping[str, object]:
    found = source.tables.get(key, {})
    if isinstance(found, dict):
        return found
    findings.error(source, (key,), "E-TYPE", f"{key} is not a table", f"write [{key}.NAME]")
    return {}


def _add_customer_gateways(source: Source, into: dict[str, CustomerGateway], findings: Findings) -> None:
    for name, raw in _tables(source, "customer_gateways", findings).items():
        path: KeyPath = ("customer_gateways", name)
        wrong = check_name(name) if source.from_api else None
        if wrong is not None or OF_ONE_TUNNEL.fullmatch(name):
            message = wrong or f"{quoted(name)} is the gateway that a tunnel has in its own table"
            findings.error(source, path, "E-NAME", message, "printable characters without '/', at most 60")
            continue
        if name in into:
            other = into[name]
            message = f"the customer gateway {quoted(name)} is already in {other.place}"
            findings.error(source, path, "E-DUPLICATE", message, "rename or remove one of the two")
            continue
        table = _validate(CustomerGatewayTable, raw, source, path, findings)
        if table is not None:
            into[name] = CustomerGateway(name, table, source, path)


def _add_tunnels(
    source: Source, into: dict[str, Tunnel], gateways: dict[str, CustomerGateway], findings: Findings
) -> None:
    for name, raw in _tables(source, "tunnels", findings).items():
        path: KeyPath = ("tunnels", name)
        wrong = check_name(name)
        if wrong is not None:
            findings.error(source, path, "E-NAME", wrong, "printable characters without '/', at most 60")
            continue
        if name in into:
            message = f"the tunnel {quoted(name)} is already in {into[name].place}"
            findings.error(source, path, "E-DUPLICATE", message, "rename or remove one of the two")
            continue
        by_itself = partial(_by_itself, source, name, raw)
        table, gateway, problems = source.once(("by itself", name), (), by_itself)
        findings.add(problems)
        if gateway is not None:
            of_this = _gateway_of(name)
            gateways[of_this] = CustomerGateway(name, gateway, source, (*path, "customer_gateway"))
        if table is not None:
            into[name] = Tunnel(name, table, source, disabled=name in source.disabled)


OF_ONE_TUNNEL = re.compile(r"tunnels\..*\.customer_gateway", re.DOTALL)
"""What the gateway in a tunnel's own table is called among the others."""


def _gateway_of(tunnel: str) -> str:
    return f"tunnels.{tunnel}.customer_gateway"


ByItself = tuple[TunnelTable | None, CustomerGatewayTable | None, tuple[Problem, ...]]


def _by_itself(source: Source, name: str, raw: object) -> ByItself:
    """A tunnel's table, the gateway that it has in it, and what is wrong with them whatever else there is."""
    path: KeyPath = ("tunnels", name)
    findings, gateway = Findings(), None
    if isinstance(raw, dict):
        inline = raw.get("customer_gateway")
        if isinstance(inline, dict):
            # A gateway of this tunnel alone, under the tunnel's name.
            where = (*path, "customer_gateway")
            gateway = _validate(CustomerGatewayTable, inline, source, where, findings)
            raw = {**raw, "customer_gateway": _gateway_of(name)}
        raw = with_profile(raw)
    table = _validate(TunnelTable, raw, source, path, findings)
    if table is None and isinstance(raw, dict):
        table = _what_is_valid(raw)
    return table, gateway, tuple(findings)


def _validate(model: type[T], raw: object, source: Source, path: KeyPath, findings: Findings) -> T | None:
    """The validated table, or None and a finding for each thing that is wrong with it."""
    if not isinstance(raw, dict):
        findings.error(source, path, "E-TYPE", f"{path[-1]} is not a table", "write it as a TOML table")
        return None
    valid = source.tables.valid if isinstance(source.tables, Tables) else {}
    known = valid.get((model, path))
    if isinstance(known, model):
        return known
    try:
        table = model.model_validate(raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_context=True):
            translate(detail, model, source, path, findings)
        return None
    valid[model, path] = table
    return table


_DECISIVE = frozenset({"communication", "version", "spd"})
"""Keys whose value decides what the others mean: without a valid one nothing more is said of a tunnel."""


def _what_is_valid(raw: dict[str, object]) -> TunnelTable | None:
    """A refused tunnel without its refused values, so that the rules can still report what else is wrong.

    Nothing is ever compiled from it: the errors have been found. None if too little is left.
    """
    try:
        TunnelTable.model_validate(raw)
    except ValidationError as error:
        refused = sorted(
            (d["loc"] for d in error.errors(include_url=False)), key=_place_in_list, reverse=True
        )
    else:
        return None
    rest = deepcopy(raw)
    for loc in refused:
        if not loc or _DECISIVE & {str(part) for part in loc} or not _remove(rest, loc):
            return None
    try:
        return TunnelTable.model_validate(rest)
    except ValidationError:
        return None


def _element(table: object, part: int | str) -> object:
    if isinstance(table, list) and isinstance(part, int):
        return table[part]
    return table.get(part) if isinstance(table, dict) else None


def _place_in_list(loc: tuple[int | str, ...]) -> tuple[tuple[bool, int, str], ...]:
    return tuple((isinstance(part, str), part if isinstance(part, int) else 0, str(part)) for part in loc)


def _remove(table: dict[str, object], loc: tuple[int | str, ...]) -> bool:
    """Take the value at `loc` out; a value that stands for a list of one has no element to take."""
    *above, last = loc
    inner: object = table
    for part in above:
        following = _element(inner, part)
        if not isinstance(following, dict | list):
            last = part
            break
        inner = following
    if isinstance(inner, list) and isinstance(last, int):
        del inner[last]
        return True
    return isinstance(inner, dict) and inner.pop(last, None) is not None


# ---------------------------------------------------------------------------------------- keys


def _with_secrets(tunnel: Tunnel, offline: bool, findings: Findings) -> Tunnel:
    """The tunnel with its keys, or without one and with a finding that says why."""
    table, source = tunnel.table, tunnel.source
    secret = _secret(tunnel, "pre_shared_key", source.keys.get(tunnel.name), offline, findings)
    following = None
    if table.next_pre_shared_key is not None:
        known = source.next_keys.get(tunnel.name)
        following = _secret(tunnel, "next_pre_shared_key", known, offline, findings)
    return Tunnel(tunnel.name, table, source, secret, following, tunnel.disabled)


def _secret(
    tunnel: Tunnel, key: str, known: Secret | None, offline: bool, findings: Findings
) -> Secret | None:
    """What this key of the table leads to; None, and a finding that says why, where that is no key."""
    source, reference = tunnel.source, getattr(tunnel.table, key)
    if known is not None or offline or (file := stamp_of_key(reference, source.path)) is None:
        return _looked_up(tunnel, key, known, offline, findings)

    def find() -> tuple[Secret | None, tuple[Problem, ...]]:
        found = Findings()
        return _looked_up(tunnel, key, None, False, found), tuple(found)

    secret, problems = source.once((key, tunnel.name), (reference, file), find)
    findings.add(problems)
    return secret


def _looked_up(
    tunnel: Tunnel, key: str, known: Secret | None, offline: bool, findings: Findings
) -> Secret | None:
    """As `_secret`, by reading it."""
    source, path, reference = tunnel.source, (*tunnel.path, key), getattr(tunnel.table, key)
    try:
        secret = known or read_secret(reference, source.path, source.private, key)
    except CredentialUnavailable as missing:
        report = findings.warn if offline else findings.error
        report(source, path, "W-PSK-CREDENTIAL" if offline else missing.code, missing.message, missing.hint)
        return None
    except SecretError as error:
        findings.error(source, path, error.code, error.message, error.hint)
        return None
    foreign = foreign_line(secret)
    if foreign is not None:
        findings.error(source, path, foreign.code, foreign.message, foreign.hint)
        return None
    found = suspicions(secret)
    if offline and (owner := unreadable_by_service(reference, source.path)) is not None:
        found = (*found, owner)
    for suspicion in found:
        findings.warn(source, path, suspicion.code, suspicion.message, suspicion.hint)
    return secret
