"""What support needs to know of a gateway, as texts without a key: for `vpnctl trace --bundle`.

All of it is what the API shows to who may only read, so that nothing can be in it that is a secret.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from vpnd import __version__
from vpnd.control import metrics
from vpnd.control.operations import OperationError, Operations
from vpnd.control.schema import Bundle, BundleFile
from vpnd.daemon.state import file_stem
from vpnd.host.host import HostFailed

MOST_BYTES = 16 * 1024 * 1024
"""Ours: of all texts. A tunnel has up to 150 KB, so some hundred of a gateway with a thousand."""

PACKAGES = ("cryptography", "pyroute2", "pydantic", "fastapi", "uvicorn", "typer", "rich", "h11")


async def collect(
    operations: Operations, host_facts: Callable[[], Awaitable[list[str]]], tunnels: Sequence[str]
) -> Bundle:
    """The files of a bundle. Tunnels that have failed come first; those without room are named."""
    files = [BundleFile(name="versions.json", text=_json(_versions()))]
    status = operations.status()
    files.append(BundleFile(name="status.json", text=status.model_dump_json(indent=2)))
    events = [event.model_dump_json() async for event in operations.events(False, None)]
    files.append(BundleFile(name="events.jsonl", text="".join(line + "\n" for line in events)))
    files.append(BundleFile(name="counters.json", text=_json(dict(operations.counters()))))
    files.append(BundleFile(name="metrics.txt", text=(await metrics.exposition(operations)).decode()))
    files.append(BundleFile(name="host.txt", text=await _host(host_facts)))
    files.append(
        BundleFile(name="configurations.json", text=operations.configurations().model_dump_json(indent=2))
    )
    wanted = tunnels or [one.name for one in sorted(status.tunnels, key=lambda one: one.last_error is None)]
    room, left_out = MOST_BYTES - sum(len(file.text) for file in files), []
    for name in wanted:
        await asyncio.sleep(0)
        found = list(_of_tunnel(operations, name))
        size = sum(len(file.text) for file in found)
        if size > room:
            left_out.append(name)
            continue
        room -= size
        files += found
    return Bundle(files=files, left_out=left_out)


def _of_tunnel(operations: Operations, name: str) -> Iterator[BundleFile]:
    """Everything about one tunnel; nothing of one that was removed meanwhile."""
    place = f"tunnels/{file_stem(name)}"
    try:
        yield BundleFile(name=f"{place}/show.json", text=operations.tunnel(name).model_dump_json(indent=2))
        yield BundleFile(
            name=f"{place}/values.json", text=operations.settings(name).model_dump_json(indent=2)
        )
        yield BundleFile(name=f"{place}/why.json", text=operations.why(name).model_dump_json(indent=2))
        yield BundleFile(name=f"{place}/trace.json", text=operations.trace(name).model_dump_json(indent=1))
    except OperationError:
        return


async def _host(host_facts: Callable[[], Awaitable[list[str]]]) -> str:
    try:
        lines = await host_facts()
    except (HostFailed, OSError) as error:
        lines = [f"cannot be read: {error}"]
    return "".join(line + "\n" for line in lines)


def _versions() -> dict[str, str]:
    found = {"vpnd": __version__, "python": sys.version, "system": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
