"""A daemon whose kernel is made up, with its API over TCP: python -m tests.api.served DIRECTORY

Once it answers it prints a line of JSON: `url`, `certificate` (a file), and the tokens `admin` and `read`.
It ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.unit.control import certificates
from tests.unit.control.test_exporter import free
from tests.unit.daemon.fakes import Machine, Wire, configuration
from vpnd.control.api import create_app
from vpnd.control.listening import ApiSocket
from vpnd.control.remote import Remote, Wanted
from vpnd.control.server import ApiServer
from vpnd.control.tokens import Tokens
from vpnd.daemon.events import logs

ROUTED = 'routes = ["10.2.0.0/16"]'
BACK = 'routes = ["10.1.0.0/16"]\nnegotiation = "passive"'


async def serve(directory: Path) -> None:
    """Two daemons with a tunnel between them; the first one's API is served."""
    logs.configure("error")
    wire = Wire()
    hq = Machine(wire, directory / "hq", "192.0.2.1", 1)
    branch = Machine(wire, directory / "branch", "192.0.2.2", 2)
    hq.write(configuration("hq", "192.0.2.1", "192.0.2.2", {"branch-a": ROUTED}))
    branch.write(configuration("branch", "192.0.2.2", "192.0.2.1", {"branch-a": BACK}))
    for machine in (branch, hq):
        await machine.start()
    pair = certificates.make(directory / "tls")
    wanted, tokens = Wanted(free(), pair.certificate, pair.key), Tokens(hq.state)
    remote = Remote(hq.operator, tokens)
    await remote.listen(wanted)
    socket = directory / "vpnd.sock"
    local = asyncio.create_task(ApiServer(create_app(hq.operator, tokens), ApiSocket(socket)).run())
    told = {
        "url": f"https://{wanted.at}",
        "socket": str(socket),
        "certificate": str(pair.certificate),
        "admin": tokens.create("admin", "admin"),
        "read": tokens.create("read", "read"),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(os.read, 0, 1)
    local.cancel()
    await asyncio.wait((local,))
    await remote.close()
    for machine in (hq, branch):
        await machine.service.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
