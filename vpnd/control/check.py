"""`vpnd check`: every problem of a configuration, with its place and what to change."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vpnd.config.load import Loaded, load
from vpnd.config.mappings import MAX_MAPPINGS, mappings_of
from vpnd.config.paths import DEFAULT_CONFIG, DEFAULT_STATE
from vpnd.config.problems import Problem, Severity, counted

if TYPE_CHECKING:
    from vpnd.control.schema import CustomerGatewayStatus, TunnelCheck

EXIT_DONE = 0
EXIT_CONFIGURATION = 2


def check(
    file: Path = DEFAULT_CONFIG,
    as_json: bool = False,
    state: Path | None = None,
    out: TextIO | None = None,
) -> int:
    """Check `file` and what belongs to it, print the findings, return the exit code.

    The tunnels of the API are checked too, where the state directory can be read: by default only with the
    installed configuration, since another file is for another gateway.
    """
    if state is None and file == DEFAULT_CONFIG:
        state = DEFAULT_STATE
    loaded = load(file, state, offline=True)
    stream = out if out is not None else sys.stdout
    if as_json:
        stream.write(json.dumps(as_document(loaded), indent=2) + "\n")
    else:
        stream.write("\n".join([*lines(loaded.problems), summary(loaded)]) + "\n")
    return EXIT_DONE if loaded.ok else EXIT_CONFIGURATION


def lines(problems: Iterable[Problem]) -> list[str]:
    """`FILE:LINE  CODE  MESSAGE`, and below it what to change."""
    text: list[str] = []
    for problem in problems:
        text.append(f"{problem.place}  {problem.code}  {problem.message}")
        if problem.hint:
            text.append(f"    {problem.hint}")
    return text


def summary(loaded: Loaded) -> str:
    """`3 tunnels (1 disabled), 2 customer gateways, mappings 37/200, 0 errors, 1 warning`."""
    configuration = loaded.configuration
    off = sum(not one.table.enabled or one.disabled for one in configuration.tunnels.values())
    counts = (
        counted(len(configuration.tunnels), "tunnel") + (f" ({off} disabled)" if off else ""),
        counted(len(configuration.customer_gateways), "customer gateway"),
        f"mappings {loaded.configuration.spd_mappings}/{MAX_MAPPINGS}",
        counted(len(loaded.errors), "error"),
        counted(len(loaded.warnings), "warning"),
    )
    return ", ".join(counts)


def as_document(loaded: Loaded) -> dict[str, Any]:
    """The findings and the counts, as `--json` prints them."""
    return {
        "ok": loaded.ok,
        "mappings": loaded.configuration.spd_mappings,
        "max_mappings": MAX_MAPPINGS,
        "tunnels": list(loaded.configuration.tunnels),
        "errors": len(loaded.errors),
        "warnings": len(loaded.warnings),
        "problems": [as_body(problem) for problem in loaded.problems],
    }


def checked(loaded: Loaded, name: str, label: str) -> TunnelCheck:
    """What the API says of one tunnel, whose file is called `label`: its findings, and every error."""
    from vpnd.control.schema import MappingPreview, ProblemBody, TunnelCheck

    problems = [p for p in loaded.problems if p.file == label or p.severity is Severity.ERROR]
    tunnel = loaded.configuration.tunnels.get(name)
    mappings = mappings_of(tunnel.table) if tunnel is not None else ()
    return TunnelCheck(
        ok=loaded.ok,
        problems=[ProblemBody(**as_body(problem)) for problem in problems],
        mappings=[MappingPreview(local=str(one.local), remote=str(one.remote)) for one in mappings],
        spd_mappings=loaded.configuration.spd_mappings,
        max_spd_mappings=MAX_MAPPINGS,
    )


def named_gateways(loaded: Loaded) -> list[CustomerGatewayStatus]:
    """The customer gateways that a tunnel can name, and who does."""
    from vpnd.control.schema import CustomerGatewayStatus

    tunnels = loaded.configuration.tunnels.values()
    return [
        CustomerGatewayStatus(
            name=key,
            address=gateway.table.address,
            tunnels=[one.name for one in tunnels if one.table.customer_gateway == key],
            source=gateway.place,
            from_api=gateway.from_api,
        )
        for key, gateway in loaded.configuration.customer_gateways.items()
        if gateway.path[0] == "customer_gateways"
    ]


def as_body(problem: Problem) -> dict[str, Any]:
    """The fields of the API's problem."""
    return {
        "file": problem.file,
        "line": problem.line,
        "code": problem.code,
        "severity": "error" if problem.severity is Severity.ERROR else "warning",
        "message": problem.message,
        "hint": problem.hint,
        "key": problem.key,
    }
