"""Which failed attempts let the peer be asked: those that were begun here, of a tunnel without SAs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.tunnel.lives import policy
from vpnd.crypto.entropy import SeededEntropy
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity
from vpnd.model.policy import Diagnose
from vpnd.tunnel.asking import attempt_failed
from vpnd.tunnel.commands import AttemptFailed
from vpnd.tunnel.prober import Prober, ProbingBegan
from vpnd.tunnel.tunnels import Tunnels

NOT_PROVED = Diagnosis.of(Code.PSK, notify="AUTHENTICATION_FAILED")
FAILED = AttemptFailed("a", None, NOT_PROVED, 1.0)


def asks(
    failed: AttemptFailed = FAILED,
    diagnose: Diagnose = Diagnose.AUTO,
    up: str = "",
    beside: Identity | None = None,
) -> bool:
    """Whether two such failures of `a` let the peer be asked; `beside`: our identity in tunnel `b`."""
    prober, tunnels = Prober(SeededEntropy(1)), Tunnels(SeededEntropy(2))
    ours, other = policy(name="a"), policy(name="b")
    tunnel = tunnels.add(replace(ours, diagnose=diagnose))
    peer = replace(other.peer, local_id=beside or ours.peer.local_id)
    tunnels.add(replace(other, peer=peer))
    tunnel.start(0.0)
    for _ in range(2):
        attempt_failed(prober, 0.0, failed, tunnels, lambda name: name == up)
    return any(isinstance(one, ProbingBegan) for one in prober.outputs)


def test_two_failures_of_ours() -> None:
    assert asks()


@pytest.mark.parametrize(
    "failed",
    [
        replace(FAILED, mapping=0),
        replace(FAILED, renewal=True),
        replace(FAILED, unproven=True),
        replace(FAILED, tunnel="gone"),
    ],
)
def test_what_does_not_count(failed: AttemptFailed) -> None:
    assert not asks(failed)


def test_what_is_up_or_off_asks_nothing() -> None:
    assert not asks(up="a")
    assert not asks(diagnose=Diagnose.OFF)


def test_nobody_is_asked_who_he_is_beside_an_sa_of_our_identity() -> None:
    assert not asks(up="b")
    assert asks(up="b", beside=Identity.of("elsewhere.example"))
