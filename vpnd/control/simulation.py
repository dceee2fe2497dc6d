"""`vpnctl simulate A B`: two configuration files negotiate in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpnd.config.compile import compile_gateway
from vpnd.config.configuration import Findings, Source
from vpnd.config.load import Loaded, check, read_sources
from vpnd.config.problems import Problem
from vpnd.control.diagnoses import explain, message
from vpnd.control.explanation import About
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.secret import Secret
from vpnd.simulate.negotiation import MappingOutcome, Outcome, Round, TunnelOutcome, negotiate
from vpnd.tunnel.commands import MappingState
from vpnd.wire.iana import IkeVersion

if TYPE_CHECKING:
    from rich.text import Text

ELSEWHERE = frozenset({"E-PSK-FILE", "E-PSK-CREDENTIAL", "W-PSK-CREDENTIAL"})
"""What is said of a key that is not on this machine."""

NOBODY = "neither end begins: negotiation is passive at both, or the peer may have any address"
NO_TUNNEL = "no tunnel of {} leads to {}: compare the addresses of the gateways and customer gateways"


class Invalid(Exception):
    """A file with errors; `problems` says which."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("the configuration has errors")
        self.problems = problems


def simulate(first: Path, second: Path) -> tuple[Outcome, list[str]]:
    """The outcome, and what was assumed. Raises Invalid for a file with errors."""
    read = [_read(path) for path in (first, second)]
    missing = [_missing(one) for one in read]
    assumed = []
    for i, path in ((0, first), (1, second)):
        if missing[i]:
            names = ", ".join(missing[i])
            assumed.append(f"{path}: the key of {names} cannot be read here, and is taken to be the other's")
            read[i] = _with_keys(path, missing[i], _key_of(read[1 - i]))
    for one in read:
        if not one.ok:
            raise Invalid(one.errors)
    return negotiate((compile_gateway(read[0]), compile_gateway(read[1]))), assumed


def _read(path: Path, keys: dict[str, Secret] | None = None) -> Loaded:
    """The file as a gateway's whole configuration, without keys that are not here."""
    findings = Findings()
    if keys is None and path.suffix != ".toml" and os.path.isfile(path):
        from vpnd.control.importing import Broken, loaded_of
        from vpnd.translate.imports.importer import format_of

        try:
            if format_of(path) is not None:
                return loaded_of(path)
        except Broken as broken:
            source = Source(broken.place.file, {})
            findings.error(source, (), "E-IMPORT", broken.message, "correct it", at=broken.place.line or None)
            return check([source], findings, offline=True)
    sources = read_sources(path, None, findings)
    if keys is not None:
        sources = [replace(source, keys=keys) for source in sources]
    return check(sources, findings, offline=True)


def _missing(loaded: Loaded) -> tuple[str, ...]:
    """The tunnels whose key is on another machine."""
    if not any(problem.code in ELSEWHERE for problem in loaded.problems):
        return ()
    return tuple(name for name, tunnel in loaded.configuration.tunnels.items() if tunnel.secret is None)


def _key_of(other: Loaded) -> Secret:
    """The other end's key; what stands for it where that is not here either."""
    found = [tunnel.secret for tunnel in other.configuration.tunnels.values() if tunnel.secret is not None]
    return found[0] if found else Secret(b"a key that both ends have")


def _with_keys(path: Path, names: tuple[str, ...], key: Secret) -> Loaded:
    return _read(path, dict.fromkeys(names, key))


# -------------------------------------------------------------------------------------- as JSON


def document(outcome: Outcome, assumed: list[str]) -> dict[str, Any]:
    """The outcome as `--json` prints it."""
    return {
        "works": outcome.works,
        "assumed": [*assumed, *_remarks(outcome)],
        "gateways": [{"name": end.gateway.name, "address": str(end.address)} for end in outcome.ends],
        "rounds": [_round(outcome, one) for one in outcome.rounds],
    }


def _round(outcome: Outcome, one: Round) -> dict[str, Any]:
    return {
        "begins": outcome.ends[one.beginner].gateway.name,
        "works": one.works,
        "gateways": [
            {"name": end.gateway.name, "tunnels": [_tunnel(tunnel) for tunnel in tunnels]}
            for end, tunnels in zip(outcome.ends, one.tunnels, strict=True)
        ],
        "ladder": one.ladder.steps,
    }


def _tunnel(tunnel: TunnelOutcome) -> dict[str, Any]:
    ike = tunnel.ike
    return {
        "name": tunnel.name,
        "state": tunnel.state.value,
        "ike": None
        if ike is None
        else {
            "version": _version(tunnel),
            "mode": ike.mode,
            "encryption": ike.suite.encryption,
            "integrity": ike.suite.integrity or ike.suite.prf,
            "dh_group": ike.suite.dh,
            "nat": ike.nat,
            "renewed": tunnel.ike_renewed,
        },
        "mappings": [_mapping(mapping, tunnel) for mapping in tunnel.mappings],
        "error": _said(tunnel.diagnosis, tunnel),
    }


def _mapping(mapping: MappingOutcome, tunnel: TunnelOutcome) -> dict[str, Any]:
    suite = mapping.suite
    return {
        "local": str(mapping.policy.ts_local),
        "remote": str(mapping.policy.ts_remote),
        "state": mapping.state.value,
        "encryption": suite.encryption if suite else None,
        "integrity": suite.integrity if suite else None,
        "pfs": suite.dh if suite else None,
        "esn": suite.esn if suite else None,
        "encapsulation": None if suite is None else "udp" if mapping.udp else "esp",
        "renewed": mapping.renewed,
        "reason": _said(mapping.diagnosis, tunnel),
    }


def _said(diagnosis: Diagnosis | None, tunnel: TunnelOutcome) -> dict[str, Any] | None:
    if diagnosis is None:
        return None
    return {"code": diagnosis.code.value, "message": message(diagnosis), "change": _change(diagnosis, tunnel)}


def _change(diagnosis: Diagnosis, tunnel: TunnelOutcome) -> str | None:
    """What to change, in the version of the tunnel."""
    udp = next((mapping.udp for mapping in tunnel.mappings if mapping.suite is not None), None)
    return explain(diagnosis, tunnel.name, About.of(tunnel.policy, None, udp)).change


def _version(tunnel: TunnelOutcome) -> str:
    return "ikev1" if tunnel.policy.peer.version is IkeVersion.V1 else "ikev2"


def _remarks(outcome: Outcome) -> Iterator[str]:
    """What is said before the rounds."""
    for i, end in enumerate(outcome.ends):
        other = outcome.ends[1 - i]
        if end.elsewhere and end.tunnels:
            names = ", ".join(tunnel.name for tunnel in end.elsewhere)
            yield f"{end.gateway.name}: left out, since they do not lead to {other.address}: {names}"
        if not end.tunnels:
            yield NO_TUNNEL.format(end.gateway.name, other.address)
    if outcome.nat is not None:
        own, outside = outcome.nat
        yield f"{own} is known to the other end as {outside}: a NAT stands between them here"
    if not outcome.rounds and all(end.tunnels for end in outcome.ends):
        yield NOBODY


# -------------------------------------------------------------------------------------- as text


def lines(outcome: Outcome, assumed: list[str], *, ladder: bool = False) -> Iterable[Text]:
    """The outcome for people."""
    from rich.text import Text

    for remark in (*assumed, *_remarks(outcome)):
        yield Text(remark, style="yellow")
    shown: list[str] = []
    for one in outcome.rounds:
        text = "\n".join(_round_lines(outcome, one))
        head = f"{outcome.ends[one.beginner].gateway.name} begins:"
        if one.works and text in shown:
            yield Text(f"{head} the same")
            continue
        shown.append(text)
        yield Text(head, style="bold")
        for line in text.split("\n"):
            yield Text(line, style="red" if line.lstrip().startswith(("!", "E-")) else "")
        if ladder:
            yield from (Text(f"    {step}", style="dim") for step in one.ladder.steps)


def _round_lines(outcome: Outcome, one: Round) -> Iterator[str]:
    if one.works:
        for tunnel in one.tunnels[0]:
            yield from _agreed(tunnel)
        for end, tunnels in zip(outcome.ends, one.tunnels, strict=True):
            for tunnel in tunnels:
                yield from _warnings(end.gateway.name, tunnel)
        return
    for end, tunnels in zip(outcome.ends, one.tunnels, strict=True):
        for tunnel in tunnels:
            yield f"  {end.gateway.name}: {tunnel.name} is {tunnel.state.value}"
            if tunnel.ike is not None:
                yield from _agreed(tunnel)
            yield from _failures(tunnel)


def _agreed(tunnel: TunnelOutcome) -> Iterator[str]:
    ike = tunnel.ike
    if ike is not None:
        words = [tunnel.name, _version(tunnel), ike.mode or "", str(ike.suite), "NAT" if ike.nat else ""]
        renewed = {True: "its rekey works", False: "! its rekey fails", None: ""}[tunnel.ike_renewed]
        yield "  " + "  ".join(word for word in (*words, renewed) if word)
    for mapping in tunnel.mappings:
        words = [f"{mapping.policy.ts_local} - {mapping.policy.ts_remote}", mapping.state.value]
        if mapping.suite is not None:
            words += [str(mapping.suite), "" if mapping.suite.dh else "no PFS"]
            words += ["ESN" if mapping.suite.esn else "", "in UDP" if mapping.udp else "ESP"]
        renewed = {True: "its rekey works", False: "! its rekey fails", None: ""}[mapping.renewed]
        yield "    " + "  ".join(word for word in (*words, renewed) if word)


def _warnings(gateway: str, tunnel: TunnelOutcome) -> Iterator[str]:
    found = [m.diagnosis for m in tunnel.mappings if m.diagnosis is not None]
    for text in dict.fromkeys(f"{d.code.value}  {message(d)}" for d in found):
        yield f"    {gateway}: {text}"


def _failures(tunnel: TunnelOutcome) -> Iterator[str]:
    """Each thing that is wrong once, with what to change."""
    found = [tunnel.diagnosis, *(m.diagnosis for m in tunnel.mappings)]
    told: set[str] = set()
    for diagnosis in found:
        if diagnosis is None or message(diagnosis) in told:
            continue
        told.add(message(diagnosis))
        yield f"    {diagnosis.code.value}  {message(diagnosis)}"
        if change := _change(diagnosis, tunnel):
            yield f"        {change}"
    if not told and any(m.state is not MappingState.UP for m in tunnel.mappings):
        yield "    it says nothing: it heard no message that it could refuse"
