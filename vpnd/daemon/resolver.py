"""The addresses behind a peer's domain name, without ever holding up the loop or the end of the daemon.

The C library's look-up blocks, for half a minute when no name server answers. Each runs in a thread of its
own that nobody waits for: the loop's own threads are waited for when the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from functools import partial
from ipaddress import ip_address
from typing import Any

from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.selectors import Address

LOOKUP_LIMIT = 10.0
"""Ours: seconds that one look-up may take; the C library goes on for up to 30."""

AT_ONCE = 16
"""Ours: threads that look names up; a service manager limits those of the process."""

Found = list[Any] | Exception


class NotResolved(Exception):
    """The name has no address at present."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.code.value)
        self.diagnosis = diagnosis


class Resolver:
    """Looks names up, each once at a time. Belongs to one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[Found]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    async def addresses_of(self, name: str, version: int) -> tuple[Address, ...]:
        """The addresses of `name`, those of this IP version first. Raises NotResolved."""
        try:
            async with asyncio.timeout(LOOKUP_LIMIT):
                found = await self._look_up(name)
        except TimeoutError:
            raise _failed(name, f"no answer from the name servers within {LOOKUP_LIMIT:.0f} s") from None
        if isinstance(found, OSError):
            raise _failed(name, found.strerror or str(found)) from None
        if isinstance(found, Exception):
            raise _failed(name, str(found)) from None
        addresses = dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found)
        if not addresses:
            raise _failed(name, "no address")
        return tuple(sorted(addresses, key=lambda address: address.version != version))

    async def _look_up(self, name: str) -> Found:
        under_way = self._under_way.get(name)
        if under_way is None:
            await self._places.acquire()
            under_way = self._under_way.get(name)
            if under_way is None:
                under_way = self._begin(name)
            else:
                self._places.release()
        return await asyncio.shield(under_way)

    def _begin(self, name: str) -> asyncio.Future[Found]:
        loop = asyncio.get_running_loop()
        under_way: asyncio.Future[Found] = loop.create_future()
        self._under_way[name] = under_way

        def work() -> None:
            found = _getaddrinfo(name)
            # Where the loop has ended meanwhile, nobody asks any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(partial(self._end, name, found))

        try:
            threading.Thread(target=work, name=f"resolve {name}", daemon=True).start()
        except RuntimeError as error:
            # No more threads: this look-up has failed, and the next one may find its place again.
            self._end(name, error)
        return under_way

    def _end(self, name: str, found: Found) -> None:
        self._places.release()
        self._under_way.pop(name).set_result(found)


def _getaddrinfo(name: str) -> Found:
    try:
        return socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        return error


def _failed(name: str, detail: str) -> NotResolved:
    return NotResolved(Diagnosis.of(Code.RESOLVE, peer=name, detail=f"{name}: {detail}"))
