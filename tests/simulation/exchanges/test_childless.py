"""IKE SAs without a CHILD_SA (RFC 6023): vpnd announces as responder that it knows them, and begins so
where no mapping is wanted yet, or where the peer insists on it.
"""

from __future__ import annotations

import pytest

from tests.simulation.policies import Recipe
from tests.simulation.puppet import Puppet
from tests.simulation.stage import Stage
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import ChildDown, ChildUp, Failed
from vpnd.wire.header import Header
from vpnd.wire.iana import Exchange2, Notify2
from vpnd.wire.ikev2 import Delete, Nonce, Notify, Payload, Sa, TsI, TsR

SPI = 0xC0FFEE77
LIMITS = Limits()


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
    """An initiator that insists on it sees that we announce it; if it goes away it is forgotten."""
    stage = Stage()
    puppet = stage.puppet()
    (answer,) = stage.say(puppet.init_message())
    puppet.take_init(answer)
    notifies = [p.type for p in puppet.open(answer).payloads if isinstance(p, Notify)]
    assert Notify2.CHILDLESS_IKEV2_SUPPORTED in notifies
    assert stage.half_open_count() == 1
    stage.world.run_for(31)
    assert stage.half_open_count() == 0
    assert not stage.endpoint.snapshot().sas


def answer_init(stage: Stage, announces: bool) -> tuple[Puppet, list[Payload]]:
    """The last IKE_SA_INIT is answered: the puppet that does, and what is in the IKE_AUTH request."""
    puppet = stage.puppet(initiator=False, seed=len(stage.heard))
    puppet.take_init(first_messages(stage)[-1])
    extra = [Notify(Notify2.CHILDLESS_IKEV2_SUPPORTED)] if announces else []
    (request,) = stage.say(puppet.init_message(*extra))
    return puppet, list(puppet.open(request).payloads)


def begin(stage: Stage, announces: bool) -> tuple[Puppet, list[Payload]]:
    """The endpoint has asked a puppet for mapping 0: the puppet, and what is in the IKE_AUTH request."""
    stage.gateway.initiate()
    return answer_init(stage, announces)


def first_messages(stage: Stage) -> list[bytes]:
    """The endpoint's IKE_SA_INIT requests."""
    return [data for data in stage.heard if Header.decode(data).exchange == Exchange2.IKE_SA_INIT]


def refuse(stage: Stage, puppet: Puppet, proved: bool = False) -> int:
    """The puppet does not want what was in the IKE_AUTH request: how many attempts follow at once.

    `proved`: it says who it is all the same.
    """
    before = len(first_messages(stage))
    proof = [puppet.identity, puppet.auth_payload()] if proved else []
    answer = [*proof, Notify(Notify2.INVALID_SYNTAX)]
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, answer, response=True))
    return len(first_messages(stage)) - before


def is_childless(payloads: list[Payload]) -> bool:
    """Whether an IKE_AUTH request asks for no CHILD_SA."""
    return not any(isinstance(p, Sa | TsI | TsR) for p in payloads)


@pytest.mark.parametrize("proved", [False, True])
def test_failure_resp(proved: bool) -> None:
    """A responder that insists on it refuses our IKE_AUTH: another begins without a CHILD_SA, at once.

    strongSwan with `childless = force` sends its AUTH beside the refusal.
    """
    stage = Stage()
    puppet, payloads = begin(stage, announces=True)
    assert not is_childless(payloads)
    assert refuse(stage, puppet, proved) == 1
    puppet, payloads = answer_init(stage, announces=True)
    assert is_childless(payloads)
    answer = [puppet.identity, puppet.auth_payload()]
    (request,) = stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, answer, response=True))
    assert len(stage.gateway.ike_sas()) == 1
    assert {type(p) for p in puppet.open(request).payloads} == {Sa, Nonce, TsI, TsR}
    made = [*puppet.child_payloads(SPI), Nonce(bytes(range(32)))]
    stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, made, response=True))
    assert [child.spi_out for child in stage.gateway.children()] == [SPI]
    assert not stage.gateway.of(Failed)
    stage.world.run_for(LIMITS.closing + 1)
    assert len(stage.endpoint.snapshot().sas) == 1


def test_a_refusal_beside_an_ike_sa_that_stands_begins_another_beside_it() -> None:
    """The peer insists on it by now; what is up stays, and nothing has failed."""
    stage = Stage()
    stage.establish_from_here(stage.puppet(initiator=False))
    stage.gateway.do("reinitiate", stage.gateway.tunnel)
    puppet, payloads = answer_init(stage, announces=True)
    assert not is_childless(payloads)
    assert refuse(stage, puppet) == 1
    puppet, payloads = answer_init(stage, announces=True)
    assert is_childless(payloads)
    answer = [puppet.identity, puppet.auth_payload()]
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, answer, response=True))
    assert len(stage.gateway.ike_sas()) == 2
    assert not stage.gateway.of(Failed)


def test_all_mappings_that_were_asked_for_are_asked_for_again() -> None:
    stage = Stage(Recipe(mappings=2))
    stage.gateway.initiate()
    stage.gateway.initiate(1)
    puppet, _ = answer_init(stage, announces=True)
    refuse(stage, puppet)
    puppet, _ = answer_init(stage, announces=True)
    answer = [puppet.identity, puppet.auth_payload()]
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, answer, response=True))
    for number, mapping in ((2, 0), (3, 1)):
        made = [*puppet.child_payloads(SPI + mapping, mapping), Nonce(bytes(range(32)))]
        more = stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, number, made, response=True))
        assert len(more) == 1 - mapping
    assert [child.mapping for child in stage.gateway.children()] == [0, 1]


def test_a_responder_that_refuses_both_ways_is_asked_each_in_turn() -> None:
    """The second refusal of a pair is a failure, after which the tunnel waits."""
    stage = Stage()
    begun = []
    for failures in (1, 2):
        puppet, payloads = begin(stage, announces=True)
        begun.append(is_childless(payloads))
        assert refuse(stage, puppet) == 1
        puppet, payloads = answer_init(stage, announces=True)
        begun.append(is_childless(payloads))
        assert refuse(stage, puppet) == 0
        assert len(stage.gateway.of(Failed)) == failures
        stage.world.run_for(LIMITS.closing + 1)
        assert not stage.endpoint.snapshot().sas
    assert begun == [False, True, False, True]


def test_a_peer_that_wants_none_any_more_gets_the_child_again_at_once() -> None:
    """It insisted on an IKE SA without a CHILD_SA, and its configuration has changed since."""
    stage = Stage()
    puppet, _ = begin(stage, announces=True)
    refuse(stage, puppet)
    puppet, _ = answer_init(stage, announces=True)
    answer = [puppet.identity, puppet.auth_payload()]
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, answer, response=True))
    stage.gateway.close()
    puppet, payloads = begin(stage, announces=True)
    assert is_childless(payloads)
    assert refuse(stage, puppet) == 1
    _, payloads = answer_init(stage, announces=True)
    assert not is_childless(payloads)


def test_a_responder_that_has_not_announced_it_is_always_asked_for_a_child() -> None:
    stage = Stage()
    for _ in range(2):
        puppet, payloads = begin(stage, announces=False)
        assert not is_childless(payloads)
        assert refuse(stage, puppet) == 0
    assert len(stage.gateway.of(Failed)) == 2


@pytest.mark.parametrize("announces", [True, False])
def test_an_ike_sa_for_no_mapping_begins_without_one_where_the_peer_knows_that(announces: bool) -> None:
    stage = Stage()
    first = stage.puppet(initiator=False)
    stage.establish_from_here(first)
    gone = Delete(3, (0xC0FFEE01.to_bytes(4, "big"),))
    stage.say(first.seal(Exchange2.INFORMATIONAL, 0, [gone]))
    assert not stage.gateway.children()
    stage.gateway.do("reinitiate", stage.gateway.tunnel)
    puppet = stage.puppet(initiator=False, seed=7)
    puppet.take_init(stage.heard[-1])
    extra = [Notify(Notify2.CHILDLESS_IKEV2_SUPPORTED)] if announces else []
    (request,) = stage.say(puppet.init_message(*extra))
    assert is_childless(list(puppet.open(request).payloads)) is announces
