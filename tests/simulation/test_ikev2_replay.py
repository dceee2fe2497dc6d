"""F3 and V18: everything that was ever sent, said again at every later moment, to either side.

The answer is the cached one, byte for byte, or silence; nothing is installed, removed or derived again.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vpnd.ike.outputs import LadderLine, Story
from vpnd.model.child import Path
from vpnd.simulate.gateway import Gateway

from .pair import Pair
from .policies import Recipe

LIFE: list[tuple[str, Callable[[Pair], None]]] = [
    ("handshake", lambda pair: pair.a.initiate(0)),
    ("new child", lambda pair: pair.a.initiate(1)),
    ("new child by b", lambda pair: pair.b.initiate(2)),
    ("liveness", lambda pair: pair.a.probe()),
    ("liveness by b", lambda pair: pair.b.probe()),
    ("delete of a child", lambda pair: pair.b.close_child(1)),
    ("delete of the IKE SA", lambda pair: pair.a.close()),
]


def held_by(gateway: Gateway) -> tuple[object, ...]:
    """What a repeated message must not change."""
    events = [event for event in gateway.events if not isinstance(event, LadderLine | Story)]
    spis = [(info.spi_i, info.spi_r) for info in gateway.ike_sas()]
    return spis, sorted(gateway.installed), events


@pytest.mark.parametrize("moment", range(len(LIFE)), ids=[name for name, _ in LIFE])
@pytest.mark.parametrize("pause", [0.0, 12.0, 100.0])
def test_whatever_was_sent_may_be_sent_again(moment: int, pause: float) -> None:
    pair = Pair(recipe=Recipe(mappings=3))
    for _, act in LIFE[: moment + 1]:
        act(pair)
        pair.world.settle()
    pair.world.run_for(pause)
    history = list(pair.world.sent)
    known = {datagram.data for datagram in history}
    before = held_by(pair.a), held_by(pair.b)
    pair.world.silence("a")
    pair.world.silence("b")
    for datagram in history:
        receiver = pair.b if datagram.sender == "a" else pair.a
        path = Path(datagram.destination, datagram.destination_port, datagram.source, datagram.source_port)
        receiver.receive(path, datagram.data)
    answers = [datagram.data for datagram in pair.world.sent[len(history) :]]
    assert (held_by(pair.a), held_by(pair.b)) == before
    fresh = [data for data in answers if data not in known]
    # An IKE_SA_INIT of an IKE SA that is gone is a new one: nobody can tell, and it proves nothing.
    assert len(fresh) <= 1, f"{len(fresh)} answers differ from the cached ones"
    assert len(answers) <= len(history)


@pytest.mark.parametrize("moment", range(len(LIFE) - 1), ids=[name for name, _ in LIFE[:-1]])
def test_a_message_reflected_to_its_sender_does_nothing(moment: int) -> None:
    pair = Pair(recipe=Recipe(mappings=3))
    for _, act in LIFE[: moment + 1]:
        act(pair)
        pair.world.settle()
    before = held_by(pair.a), held_by(pair.b)
    sent = len(pair.world.sent)
    for datagram in list(pair.world.sent):
        sender = pair.world.gateways[datagram.sender]
        path = Path(datagram.source, datagram.source_port, datagram.destination, datagram.destination_port)
        sender.receive(path, datagram.data)
    assert (held_by(pair.a), held_by(pair.b)) == before
    assert len(pair.world.sent) - sent <= 1


def test_a_request_is_answered_a_bounded_number_of_times() -> None:
    pair = Pair()
    pair.establish()
    pair.a.probe()
    pair.world.settle()
    request = next(d for d in reversed(pair.world.sent) if d.sender == "a")
    answers = []
    path = Path(request.destination, request.destination_port, request.source, request.source_port)
    for _ in range(100):
        before = len(pair.world.sent)
        pair.b.receive(path, request.data)
        answers += [d.data for d in pair.world.sent[before:]]
    assert 1 <= len(answers) <= 20
    assert len(set(answers)) == 1
    pair.world.run_for(60)
    pair.assert_one_tunnel()
