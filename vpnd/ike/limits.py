"""Bounds that are ours, each with its reason. What the RFCs bound is named where it is used."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.wire.errors import DecodeError

LARGEST_FIRST_MESSAGE = 10_000
"""Bytes of a message for which there is no state; an honest one has some 2,000 with every algorithm."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A count that each event raises by one, to `most` at most, and that falls by `a_second`."""

    a_second: float
    most: float


REFUSALS_BY_ADDRESS = Rate(a_second=0.1, most=6.0)
REFUSALS_IN_ALL = Rate(a_second=1.0, most=60.0)
"""First messages that were refused: they count towards asking for cookies, for half a minute or so."""

UNPROVED_KEYS_BY_ADDRESS = Rate(a_second=5.0, most=10.0)
UNPROVED_KEYS_IN_ALL = Rate(a_second=50.0, most=100.0)
"""Key exchanges for peers whose address nothing proves, as in aggressive mode: some 3 % of a processor in
group 14. Several tunnels of one peer begin at once, and a hundred peers after an outage."""

UNKNOWN_PEERS_SAID = Rate(a_second=1 / 300, most=10.0)
"""Machines without a tunnel that begin IKE, as operators hear of them: each gateway is scanned."""

UNREADABLE_BY_ADDRESS = Rate(a_second=10.0, most=50.0)
UNREADABLE_IN_ALL = Rate(a_second=100.0, most=200.0)
"""Datagrams of peers' addresses that are no IKE message and are looked at all the same, to name what is wrong
with them: more than an operator can read, at 40 us each. Of a flood the others are counted, at 5 us."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one gateway does for peers that have not proved who they are. Times in seconds."""

    half_open_before_cookies: int = 30
    """Half-open IKE SAs overall, and first messages refused lately, from which on a cookie is asked for
    (strongSwan's cookie_threshold)."""
    half_open_before_cookies_per_address: int = 3
    """The same for one address: several tunnels between two gateways start at once."""
    half_open_per_address: int = 5
    """Half-open IKE SAs of one address that have proved the address; the next one has to wait."""
    half_open_unproved_per_address: int = 256
    """The others, which IKEv1 has no cookies against: beyond it the oldest goes. A peer's attempt outlives
    1,000 forged ones a second for 0.25 s, and needs one round trip; each takes about 5 KB."""
    half_open_in_all: int = 1000
    """Half-open IKE SAs overall: the memory that strangers can take. Beyond it the oldest goes."""
    half_open_lifetime: float = 30.0
    """How long a responder waits for the next message: a peer's whole retransmission."""
    refused_lifetime: float = 10.0
    """How long the answer to a refused attempt is kept, so that a repeated request is answered alike."""
    ike_sas_per_tunnel: int = 4
    """Established IKE SAs of one tunnel: one live, one in rekeying, and both again while both ends race."""
    unproven: float = 30.0
    """How long a peer that began an IKE SA may be silent before it is asked for life, also without DPD.

    An attacker who makes a peer authenticate and then lets it lie would otherwise leave an IKE SA here that
    nobody uses, to the end of its lifetime.
    """
    error_listening: float = 2.0
    """How long an initiator still listens for a real answer after an unauthenticated error.

    To the first message the error must have come twice, the second time after a repetition: a peer that means
    it says it to each, and one forged datagram ends nothing (RFC 7296 section 2.21).
    """
    closing: float = 5.0
    """How long an IKE SA that is being closed waits for the peer's answer to its DELETE."""
    repeats: int = 12
    """Answers to one repeated request; an honest peer's schedule is over before (libreswan's bound)."""


def too_long(length: int) -> DecodeError:
    """What is wrong with a first message of so many bytes."""
    return DecodeError(
        "message length", f"{length} bytes; a first message has {LARGEST_FIRST_MESSAGE} at most"
    )
