"""Every state in which a message can find an endpoint, each reached through the front door."""

from __future__ import annotations

from collections.abc import Callable

from vpnd.ike.limits import Limits
from vpnd.wire.iana import DhGroup, Exchange2, Notify2
from vpnd.wire.ikev2 import Notify

from .policies import Recipe
from .puppet import Puppet
from .stage import Stage

RECIPE = Recipe(mappings=2, dh=(DhGroup.CURVE25519, DhGroup.ECP_256))
"""A second mapping to ask for, and a second group to be asked for."""

Reach = Callable[[Stage], Puppet]


def no_session(stage: Stage) -> Puppet:
    """Nobody has said anything."""
    return stage.puppet()


def half_open(stage: Stage) -> Puppet:
    """IKE_SA_INIT has been answered; IKE_AUTH is awaited."""
    puppet = stage.puppet()
    stage.half_open(puppet)
    return puppet


def refused(stage: Stage) -> Puppet:
    """The peer's AUTH was wrong and it was told so."""
    puppet = stage.puppet(psk=b"not the key")
    stage.half_open(puppet)
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads()))
    assert not stage.gateway.ike_sas()
    return puppet


def established(stage: Stage) -> Puppet:
    """The peer brought the tunnel up."""
    puppet = stage.puppet()
    stage.establish(puppet)
    return puppet


def deleted_by_the_peer(stage: Stage) -> Puppet:
    """The peer has deleted the IKE SA that it brought up."""
    puppet = established(stage)
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 2, [puppet.delete_ike()]))
    assert not stage.gateway.ike_sas()
    return puppet


def sent_init(stage: Stage) -> Puppet:
    """We have begun; IKE_SA_INIT is not answered."""
    stage.gateway.initiate()
    puppet = stage.puppet(initiator=False)
    puppet.take_init(stage.heard[-1])
    return puppet


def sent_init_with_cookie(stage: Stage) -> Puppet:
    """The peer has asked for a cookie and got it."""
    puppet = sent_init(stage)
    stage.say(puppet.clear(Exchange2.IKE_SA_INIT, 0, [Notify(Notify2.COOKIE, b"cookie")]))
    puppet.take_init(stage.heard[-1])
    return puppet


def sent_init_with_other_group(stage: Stage) -> Puppet:
    """The peer has asked for another group and got it."""
    puppet = sent_init(stage)
    wanted = DhGroup.ECP_256.to_bytes(2, "big")
    stage.say(puppet.clear(Exchange2.IKE_SA_INIT, 0, [Notify(Notify2.INVALID_KE_PAYLOAD, wanted)]))
    return puppet


def sent_auth(stage: Stage) -> Puppet:
    """We have sent IKE_AUTH."""
    puppet = stage.puppet(initiator=False)
    stage.begin(puppet)
    return puppet


def established_by_us(stage: Stage) -> Puppet:
    """We brought the tunnel up."""
    puppet = stage.puppet(initiator=False)
    stage.establish_from_here(puppet)
    return puppet


def asked_for_a_child(stage: Stage) -> Puppet:
    """Established; our CREATE_CHILD_SA for mapping 1 is not answered."""
    puppet = established(stage)
    stage.gateway.initiate(1)
    return puppet


def probing(stage: Stage) -> Puppet:
    """Established; our liveness check is not answered."""
    puppet = established(stage)
    stage.gateway.probe()
    return puppet


def deleting_the_child(stage: Stage) -> Puppet:
    """Established; our DELETE of the child is not answered."""
    puppet = established(stage)
    stage.gateway.close_child()
    return puppet


def closing(stage: Stage) -> Puppet:
    """Our DELETE of the IKE SA is not answered."""
    puppet = established(stage)
    stage.gateway.close()
    return puppet


STATES: dict[str, Reach] = {
    reach.__name__: reach
    for reach in (
        *(no_session, half_open, refused, established, deleted_by_the_peer),
        *(sent_init, sent_init_with_cookie, sent_init_with_other_group, sent_auth, established_by_us),
        *(asked_for_a_child, probing, deleting_the_child, closing),
    )
}


def stage_in(state: str, seed: int = 0, limits: Limits | None = None) -> tuple[Stage, Puppet]:
    """A stage whose endpoint is in this state, and the puppet that brought it there."""
    stage = Stage(RECIPE, seed, limits)
    puppet = STATES[state](stage)
    return stage, puppet
