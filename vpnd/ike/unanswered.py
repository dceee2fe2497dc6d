"""What it means that a peer does not answer an attempt of ours, by what ICMP and the kernel said about it."""

from __future__ import annotations

from typing import Any

from vpnd.ike.session import Sa
from vpnd.model.diagnosis import Code, Diagnosis, Known
from vpnd.model.policy import NAT_T_PORT
from vpnd.model.unreachable import Unreachable


def unanswered(sa: Sa[Any], otherwise: Code, facts: Known) -> Diagnosis:
    """The diagnosis of silence along the path of `sa`; `otherwise` where nothing was said about it.

    What this machine's own routes say is certain, and comes before what ICMP has said.
    A peer that has answered on port 500 is there, so that what is refused on 4500 is that port.
    """
    known: Known = {"peer": sa.path.remote, "port": sa.path.remote_port}
    if sa.attempt.way is not None:
        refused, interface = sa.attempt.way
        here: Known = {"cause": refused.name.lower(), "detail": refused.value, "ours": interface}
        return Diagnosis.of(_code(refused, on_4500=False), **(known | facts | here))
    path, reason = sa.attempt.unreachable or (sa.path, None)
    if reason is None or path != sa.path:
        return Diagnosis.of(otherwise, **(known | facts))
    said: Known = {"cause": reason.name.lower(), "detail": reason.value}
    return Diagnosis.of(_code(reason, sa.path.local_port == NAT_T_PORT), **(known | facts | said))


def _code(reason: Unreachable, on_4500: bool) -> Code:
    match reason:
        case Unreachable.PORT:
            return Code.UDP_4500 if on_4500 else Code.PORT_CLOSED
        case Unreachable.PROHIBITED if on_4500:
            return Code.UDP_4500
        case Unreachable.INTO_TUNNEL:
            return Code.LOCAL_ROUTE
        case _:
            return Code.UNREACHABLE
