"""IKEV2_MESSAGE_ID_SYNC (RFC 6311), which vpnd does not speak: what a peer says of it moves nothing.

The cases in which a cluster member sets the message IDs of an IKE SA again do not apply, and neither do those
in which its request is wrong (`NOT_APPLICABLE`): an extension that was not announced is not in use, and a
peer that keeps to RFC 6311 section 5.1 never sends the notification. What remains is that one that is sent
all the same, with message ID 0 as it prescribes, has no effect.
"""

from __future__ import annotations

import pytest

from tests.simulation.puppet import Puppet
from tests.simulation.stage import Stage
from vpnd.wire.iana import Exchange2
from vpnd.wire.ikev2 import Notify

MESSAGE_ID_SYNC = 16422
"""IKEV2_MESSAGE_ID_SYNC (RFC 6311 section 8)."""


def reached(by_puppet: bool) -> tuple[Stage, Puppet, int]:
    """An established IKE SA in either role, and the message ID of the puppet's next request."""
    stage = Stage()
    puppet = stage.puppet(initiator=by_puppet)
    if by_puppet:
        stage.establish(puppet)
    else:
        stage.establish_from_here(puppet)
    next_id = 2 if by_puppet else 0
    for number in range(next_id, next_id + 2):
        assert len(stage.say(puppet.seal(Exchange2.INFORMATIONAL, number, []))) == 1
    return stage, puppet, next_id + 2


def sync(puppet: Puppet, send: int, receive: int) -> bytes:
    """The notification: a nonce, the next message ID to send and to receive."""
    data = b"none" + send.to_bytes(4, "big") + receive.to_bytes(4, "big")
    return puppet.seal(Exchange2.INFORMATIONAL, 0, [Notify(MESSAGE_ID_SYNC, data)])


@pytest.mark.parametrize("by_puppet", [True, False])
@pytest.mark.parametrize("times", [1, 3], ids=["disabled", "replay"])
def test_disabled(by_puppet: bool, times: int) -> None:
    """Once, and once more: message IDs go on as if nothing had been said."""
    stage, puppet, next_id = reached(by_puppet)
    held = sorted(stage.gateway.installed)
    notification = sync(puppet, 50, 60)
    for _ in range(times):
        assert stage.say(notification) == []
    assert stage.say(puppet.seal(Exchange2.INFORMATIONAL, 60, [])) == []
    assert len(stage.say(puppet.seal(Exchange2.INFORMATIONAL, next_id, []))) == 1
    before = len(stage.heard)
    stage.gateway.probe()
    (request,) = stage.heard[before:]
    assert puppet.open(request).header.message_id == (0 if by_puppet else 2)
    assert sorted(stage.gateway.installed) == held


def test_replay() -> None:
    """Between its copies the peer goes on: no copy is answered, and none counts as a sign of life."""
    stage, puppet, next_id = reached(by_puppet=True)
    notification = sync(puppet, 50, 60)
    (before,) = stage.gateway.ike_sas()
    stage.world.run_for(1)
    assert stage.say(notification) == []
    (after,) = stage.gateway.ike_sas()
    assert after.last_heard == before.last_heard
    assert len(stage.say(puppet.seal(Exchange2.INFORMATIONAL, next_id, []))) == 1
    assert stage.say(notification) == []
