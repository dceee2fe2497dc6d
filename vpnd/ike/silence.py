"""When silence is a reason to ask the peer for a sign of life; the same in both versions of IKE.

    heard                      asked, and again every 2 s          dead
      |---- half the timeout ----|-- half the timeout, 30 s at most |

Half of the timeout is enough to ask seven times, which 20 % loss each way defeats once in a thousand; a
long timeout does not need more questions.
"""

from __future__ import annotations

import math

QUIET_SHARE = 2
LEAST_QUIET = 5.0
"""Seconds of silence that are no reason to ask, however short the timeout."""

LONGEST_ASKING = 30.0
"""Ours: seconds before the end of the timeout, however long it is, in which the peer is asked."""

ASKED_AGAIN = 2.0
"""Seconds between questions at most."""

RESPONDER_LATER = 1.0
"""Ours: seconds by which the responder waits longer: of two ends that are alike one asks, not both."""

TOGETHER = 0.5
"""Ours: seconds; questions to many peers leave together, for a gateway of a thousand tunnels would else
wake a hundred times a second."""


def question_due(last_heard: float, timeout: float, initiator: bool) -> float:
    """When to ask a peer that was last heard at `last_heard` and is dead `timeout` seconds later."""
    quiet = max(LEAST_QUIET, timeout / QUIET_SHARE, timeout - LONGEST_ASKING)
    quiet += 0.0 if initiator else RESPONDER_LATER
    return math.ceil((last_heard + quiet) / TOGETHER) * TOGETHER
