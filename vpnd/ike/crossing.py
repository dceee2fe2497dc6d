"""Both ends have begun an IKE SA at once, and two came up: the one that both keep has to answer.

A rule that both ends share says which one that is. But the peer may have dropped it already without a word
(strongSwan, when INITIAL_CONTACT comes on the other one).

    both stand --0.2 s--> ask under the one that is kept; once it is heard the other one goes
               --1.7 s in silence--> ask under the other one; if that is heard it stays instead
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

from vpnd.ike.commands import Probe
from vpnd.ike.context import Context
from vpnd.ike.session import Sa
from vpnd.ike.silence import ASKED_AGAIN

S = TypeVar("S", bound=Sa[Any])

ASK_AFTER = 0.2
"""Seconds until the one that is kept is asked, unless it was heard: the peer knows both by then."""
ASK_AGAIN = 0.5
"""Seconds between questions at first: three are sent to the one that is kept."""
ANSWERS_WITHIN = 1.7
"""Seconds that it has to answer: less than it takes for traffic without an answer to begin a new IKE SA."""
LOST_AFTER = 10.0
"""Seconds of silence after which IKEv2 closes it; the other one sends before that. Where answers are late by
seconds each end could else close the one that the other end keeps, and none would be left.
"""


def stays_instead(sa: Sa[Any], since: float) -> bool:
    """Whether the other one was heard after that; `since`: when both stood, on the caller's clock."""
    return sa.last_message > since + ANSWERS_WITHIN


def ask_either(context: Context[S], kept: Context[S], since: float, now: float, timer: Enum) -> Probe | None:
    """Ask under the one of the two whose turn it is; `timer` is due when to ask again."""
    overdue = since + ANSWERS_WITHIN
    if now >= overdue:
        context.timers.arm(timer, now + (ASK_AGAIN if now < overdue + ASKED_AGAIN else ASKED_AGAIN))
        return Probe()
    context.timers.arm(timer, min(now + ASK_AGAIN, overdue))
    kept.command(now, Probe())
    kept.rearm()
    return None
