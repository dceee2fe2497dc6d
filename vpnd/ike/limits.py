"""Bounds that are ours, each with its reason. What the RFCs bound is named where it is used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one gateway does for peers that have not proved who they are. Times in seconds."""

    half_open_before_cookies: int = 30
    """Half-open IKE SAs overall from which on a cookie is asked for (strongSwan's cookie_threshold)."""
    half_open_before_cookies_per_address: int = 3
    """The same for one address: several tunnels between two gateways start at once."""
    half_open_per_address: int = 5
    """Half-open IKE SAs of one address whose peer has not returned a cookie; the next request is dropped."""
    half_open_in_all: int = 1000
    """Half-open IKE SAs overall, cookies or not: the memory that strangers can take."""
    half_open_lifetime: float = 30.0
    """How long a responder waits for the next message: a peer's whole retransmission."""
    refused_lifetime: float = 10.0
    """How long the answer to a refused attempt is kept, so that a repeated request is answered alike."""
    ike_sas_per_tunnel: int = 4
    """Established IKE SAs of one tunnel: one live, one in rekeying, and both again while both ends race."""
    unproven: float = 30.0
    """How long a peer that began an IKE SA may be silent before it is asked for life, also without DPD.

    Whoever makes a peer authenticate and then lets it lie would otherwise leave an IKE SA here that nobody
    uses, to the end of its lifetime.
    """
    error_listening: float = 2.0
    """How long an initiator still listens for a real answer after an unauthenticated error."""
    closing: float = 5.0
    """How long an IKE SA that is being closed waits for the peer's answer to its DELETE."""
    repeats: int = 12
    """Answers to one repeated request; an honest peer's schedule is over before (libreswan's bound)."""
