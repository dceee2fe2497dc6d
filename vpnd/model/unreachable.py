"""What an ICMP error, or the kernel itself, says about packets that do not reach a peer."""

from __future__ import annotations

from enum import Enum

DESTINATION_UNREACHABLE = {4: 3, 6: 1}
"""The ICMP type, by IP version (RFC 792, RFC 4443 section 3.1)."""

_PORT = {4: 3, 6: 4}
_FILTERED = {4: frozenset({9, 10, 13}), 6: frozenset({1, 5, 6})}
"""The codes of a firewall: administratively prohibited (RFC 1812 section 5.2.7.1, RFC 4443 section 3.1)."""


class Unreachable(Enum):
    """Why packets do not reach a peer. Anyone can forge an ICMP error: these are words for a diagnosis."""

    PORT = "port unreachable"
    HOST = "host or network unreachable"
    PROHIBITED = "administratively prohibited"
    """By a firewall on the way or at the peer."""
    FORBIDDEN_HERE = "forbidden on this machine"
    """By a firewall rule here."""
    NO_ROUTE = "this machine has no route to it"
    """Of this machine's routes none leads there, or one that refuses."""
    INTO_TUNNEL = "the route leads into a tunnel"
    """What is to carry the tunnel would have to go through it, or through another one that is not up."""

    @classmethod
    def of_icmp(cls, version: int, kind: int, code: int) -> Unreachable | None:
        """What this type and code of ICMP mean; None where they are about something else."""
        if kind != DESTINATION_UNREACHABLE[version]:
            return None
        if code in _FILTERED[version]:
            return cls.PROHIBITED
        return cls.PORT if code == _PORT[version] else cls.HOST
