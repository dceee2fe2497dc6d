"""The address behind a peer's domain name, without ever holding the loop up."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.selectors import Address

LOOKUP_LIMIT = 10.0
"""Ours: seconds that one look-up may take; the C library goes on for up to 30."""


class NotResolved(Exception):
    """The name has no address at present."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.code.value)
        self.diagnosis = diagnosis


async def resolve(name: str, version: int) -> Address:
    """The first address of `name` of this IP version, else its first of all. Raises NotResolved."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LOOKUP_LIMIT):
            found = await loop.getaddrinfo(name, None, type=socket.SOCK_DGRAM)
    except TimeoutError:
        detail = f"no answer from the name servers within {LOOKUP_LIMIT:.0f} s"
        raise NotResolved(Diagnosis.of(Code.RESOLVE, peer=name, detail=f"{name}: {detail}")) from None
    except (OSError, UnicodeError) as error:
        detail = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise NotResolved(Diagnosis.of(Code.RESOLVE, peer=name, detail=f"{name}: {detail}")) from None
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not addresses:
        raise NotResolved(Diagnosis.of(Code.RESOLVE, peer=name, detail=f"{name}: no address"))
    return next((address for address in addresses if address.version == version), addresses[0])
