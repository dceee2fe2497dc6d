"""What was refused once does not stand in the way of the next attempt, which is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.v1.pairs import MAIN, MODES
from tests.simulation.v1.puppet import Puppet, esp_sa, sa_of, subnet
from tests.simulation.v1.stage import Stage
from vpnd.ike.limits import Limits
from vpnd.model.policy import NegotiationMode
from vpnd.wire.iana import Exchange1, Notify1, Protocol
from vpnd.wire.ikev1 import Id, Nonce, Notify

DES = ((1, 1), (2, 4), (3, 1), (4, 31), (11, 1), (12, 28800))
"""A proposal of phase 1 that fits no tunnel."""


def wrong_proposal(stage: Stage, puppet: Puppet) -> None:
    payloads = [sa_of(Protocol.IKE, b"", 1, DES), *puppet.proposal()[1:]]
    if puppet.aggressive:
        payloads[1:1] = [*puppet.key_payloads(), puppet.identity]
    stage.say(puppet.clear(puppet.exchange, payloads))


def wrong_identity(stage: Stage, puppet: Puppet) -> None:
    puppet.identity = Id(2, b"other.example")
    if puppet.aggressive:
        stage.say(puppet.first_message())
    else:
        stage.say(stage.last_of_phase1(puppet))


def wrong_key(stage: Stage, puppet: Puppet) -> None:
    puppet.psk = b"a guess"
    stage.say(stage.last_of_phase1(puppet))


WRONG = {"proposal": wrong_proposal, "identity": wrong_identity, "key": wrong_key}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_a_first_phase(mode: NegotiationMode, wrong: Callable[[Stage, Puppet], None]) -> None:
    """From the same address and port, at once, and refused more than once."""
    stage = Stage(mode)
    for seed in range(3):
        wrong(stage, stage.puppet(seed=seed))
        assert not stage.gateway.ike_sas()
    right = stage.puppet(seed=9)
    stage.with_child(right)
    assert [one.spi_i for one in stage.gateway.ike_sas()] == [right.cky_i]
    stage.world.run_for(Limits().refused_lifetime + 1)
    assert stage.gateway.sends()


@pytest.mark.parametrize("what", ["ranges", "proposal"])
def test_a_quick_mode(what: str) -> None:
    stage = Stage(MAIN)
    puppet = stage.puppet()
    stage.establish(puppet)
    for spi in (0x7001, 0x7002):
        quick = puppet.begin_quick()
        payloads = puppet.quick1_payloads(quick, spi)
        if what == "ranges":
            payloads = [esp_sa(spi), Nonce(quick.nonce_i), subnet(9), subnet(2)]
        else:
            payloads[0] = sa_of(Protocol.ESP, spi.to_bytes(4, "big"), 2, ((4, 1), (5, 1)))
        stage.say(puppet.seal_quick(quick, payloads))
        assert not stage.gateway.children()
    quick = stage.answered_quick(puppet, 0x7003)
    stage.say(puppet.quick3(quick))
    assert [child.spi_out for child in stage.gateway.children()] == [0x7003]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_an_attempt_of_ours(mode: NegotiationMode) -> None:
    """The peer refuses our first message; the tunnel's next attempt is its own."""
    stage = Stage(mode)
    first = stage.puppet(initiator=False)
    stage.begin(first)
    stage.insist(
        first.clear(Exchange1.INFORMATIONAL, [Notify(Notify1.NO_PROPOSAL_CHOSEN, b"", Protocol.IKE)])
    )
    stage.world.run_for(3)
    assert not stage.endpoint.snapshot().sas
    stage.with_child_from_here(stage.puppet(initiator=False, seed=5))
