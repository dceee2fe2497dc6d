"""A tunnel is changed while a peer's attempt is half-open: what is configured then answers its proof."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.policies import ADDRESS_C, Recipe
from tests.simulation.puppet import Puppet
from tests.simulation.stage import Stage
from vpnd.ike.limits import Limits
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.secret import Secret
from vpnd.wire.iana import Exchange2, Notify2
from vpnd.wire.ikev2 import Notify, Payload


def half_open() -> tuple[Stage, Puppet]:
    """The peer has IKE_SA_INIT answered."""
    stage = Stage()
    puppet = stage.puppet()
    stage.half_open(puppet)
    return stage, puppet


def proof(stage: Stage, puppet: Puppet) -> list[Payload]:
    """What the peer's IKE_AUTH is answered with."""
    (answer,) = stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads()))
    return list(puppet.open(answer).payloads)


@pytest.mark.parametrize("how", ["removed and added", "reset", "another tunnel is changed"])
def test_the_attempt_goes_on(how: str) -> None:
    stage, puppet = half_open()
    (policy,) = stage.gateway.policies.values()
    if how == "another tunnel is changed":
        other = replace(policy, name="other", remote_address=ADDRESS_C)
        stage.gateway.set_peer("c", other)
        stage.gateway.do("remove_peer", "other")
        del stage.gateway.policies["other"]
    elif how == "reset":
        stage.gateway.close()
    else:
        stage.gateway.do("remove_peer", policy.name)
        stage.gateway.do("set_peer", replace(policy, lifetime=policy.lifetime + 1))
    proof(stage, puppet)
    assert len(stage.gateway.ike_sas()) == 1
    assert stage.gateway.sends(0)


@pytest.mark.parametrize("how", ["removed", "another key", "other algorithms"])
def test_a_proof_that_fits_nothing_any_more_is_refused_at_once(how: str) -> None:
    stage, puppet = half_open()
    (policy,) = stage.gateway.policies.values()
    stage.gateway.do("remove_peer", policy.name)
    if how == "another key":
        stage.gateway.do("set_peer", replace(policy, psk=Secret(b"another one")))
    elif how == "other algorithms":
        proposals = (Recipe(encryption=("aes-256",)).ike_proposal(),)
        stage.gateway.do("set_peer", replace(policy, proposals=proposals))
    assert Notify(Notify2.AUTHENTICATION_FAILED) in proof(stage, puppet)
    assert not stage.gateway.ike_sas(policy.name)


def test_one_that_is_never_proved_goes_with_its_time() -> None:
    stage, _ = half_open()
    (name,) = stage.gateway.policies
    stage.gateway.do("remove_peer", name)
    assert stage.half_open_count() == 1
    stage.world.run_for(Limits().half_open_lifetime + 1)
    assert stage.half_open_count() == 0
    assert not stage.endpoint.snapshot().sas


def test_an_attempt_of_ours_ends_with_its_tunnel() -> None:
    stage = Stage()
    stage.begin(stage.puppet(initiator=False))
    stage.gateway.do("close", stage.gateway.tunnel, Diagnosis.of(Code.DOWN_BY_OPERATOR))
    stage.world.run_for(6)
    assert not stage.endpoint.snapshot().sas
