"""IKE SAs without a CHILD_SA (RFC 6023). vpnd makes none itself, and can be the responder of one.

It does not announce that (N(CHILDLESS_IKEV2_SUPPORTED)): with a configured tunnel there is always a mapping
to ask for. So the sides that vpnd does not play are played by a puppet.
"""

from __future__ import annotations

from tests.simulation.puppet import Puppet
from tests.simulation.stage import Stage
from vpnd.ike.outputs import ChildDown, ChildUp, Failed
from vpnd.wire.iana import Exchange2, Notify2
from vpnd.wire.ikev2 import Delete, Nonce, Notify, Sa, TsI, TsR

SPI = 0xC0FFEE77


def childless(stage: Stage, puppet: Puppet) -> None:
    """The puppet has brought up an IKE SA and nothing else."""
    stage.half_open(puppet)
    (answer,) = stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, [puppet.identity, puppet.auth_payload()]))
    payloads = puppet.open(answer).payloads
    assert not [p for p in payloads if isinstance(p, Sa | TsI | TsR)]
    assert len(stage.gateway.ike_sas()) == 1
    assert not stage.gateway.of(ChildUp)


def ask_for_child(stage: Stage, puppet: Puppet, message_id: int) -> None:
    """CREATE_CHILD_SA for mapping 0."""
    payloads = [*puppet.child_payloads(SPI), Nonce(bytes(range(32)))]
    (answer,) = stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, message_id, payloads))
    assert {type(p) for p in puppet.open(answer).payloads} == {Sa, Nonce, TsI, TsR}
    assert [child.spi_out for child in stage.gateway.children()] == [SPI]


def test_regular() -> None:
    """The CHILD_SA follows in an exchange of its own."""
    stage = Stage()
    puppet = stage.puppet()
    childless(stage, puppet)
    ask_for_child(stage, puppet, 2)


def test_regular_manual() -> None:
    """The CHILD_SA follows much later, goes, and comes again."""
    stage = Stage()
    puppet = stage.puppet()
    childless(stage, puppet)
    stage.world.run_for(5)
    assert not stage.gateway.installed
    ask_for_child(stage, puppet, 2)
    gone = Delete(3, (SPI.to_bytes(4, "big"),))
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 3, [gone]))
    assert len(stage.gateway.of(ChildDown)) == 1
    assert len(stage.gateway.ike_sas()) == 1
    ask_for_child(stage, puppet, 4)


def test_failure_init() -> None:
    """An initiator that insists on it sees in our answer that we do not announce it, and goes away."""
    stage = Stage()
    puppet = stage.puppet()
    (answer,) = stage.say(puppet.init_message())
    puppet.take_init(answer)
    notifies = [p.type for p in puppet.open(answer).payloads if isinstance(p, Notify)]
    assert Notify2.CHILDLESS_IKEV2_SUPPORTED not in notifies
    assert stage.half_open_count() == 1
    stage.world.run_for(31)
    assert stage.half_open_count() == 0
    assert not list(stage.endpoint._registry.sessions())


def test_failure_resp() -> None:
    """A responder that insists on it refuses our IKE_AUTH, and we say so and leave nothing."""
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    puppet.open(stage.begin(puppet))
    refusal = [Notify(Notify2.INVALID_SYNTAX)]
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, refusal, response=True))
    assert len(stage.gateway.of(Failed)) == 1
    stage.world.run_for(60)
    assert not stage.gateway.ike_sas()
    assert not stage.gateway.installed
    assert not list(stage.endpoint._registry.sessions())
