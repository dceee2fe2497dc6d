"""The addresses behind a peer's domain name, without ever holding up the loop or the end of the daemon.

The C library's look-up blocks, for half a minute when no name server answers. Each runs in a thread of its
own, which is not waited for: the loop's own threads are waited for when the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from dataclasses import dataclass
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


@dataclass(slots=True)
class _LookUp:
    """One thread's question, and since when it is out, in seconds on the loop's clock."""

    began: float
    answer: asyncio.Future[Found]


class NotResolved(Exception):
    """The name has no address at present."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.code.value)
        self.diagnosis = diagnosis


class Resolver:
    """Looks names up, each once at a time while an answer may come. Belongs to one event loop."""

    def __init__(self) -> None:
        self._under_way: dict[str, _LookUp] = {}
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
        look_up = self._young(name)
        if look_up is None:
            await self._places.acquire()
            look_up = self._young(name)
            if look_up is None:
                look_up = self._begin(name)
            else:
                self._places.release()
        return await asyncio.shield(look_up.answer)

    def _young(self, name: str) -> _LookUp | None:
        """The look-up of a name that is under way, unless the name servers leave it without an answer.

        They may answer again by now, and the C library would ask again only after all its patience.
        """
        look_up = self._under_way.get(name)
        oldest = asyncio.get_running_loop().time() - LOOKUP_LIMIT
        return look_up if look_up is not None and look_up.began > oldest else None

    def _begin(self, name: str) -> _LookUp:
        loop = asyncio.get_running_loop()
        look_up = self._under_way[name] = _LookUp(loop.time(), loop.create_future())

        def work() -> None:
            found = _getaddrinfo(name)
            # Where the loop has ended meanwhile, the answer is not needed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(partial(self._end, name, look_up, found))

        try:
            threading.Thread(target=work, name=f"resolve {name}", daemon=True).start()
        except RuntimeError as error:
            # No more threads: this look-up has failed, and the next one may find its place again.
            self._end(name, look_up, error)
        return look_up

    def _end(self, name: str, look_up: _LookUp, found: Found) -> None:
        self._places.release()
        if self._under_way.get(name) is look_up:
            del self._under_way[name]
        look_up.answer.set_result(found)


def _getaddrinfo(name: str) -> Found:
    try:
        return socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        return error


def _failed(name: str, detail: str) -> NotResolved:
    return NotResolved(Diagnosis.of(Code.RESOLVE, peer=name, detail=f"{name}: {detail}"))
