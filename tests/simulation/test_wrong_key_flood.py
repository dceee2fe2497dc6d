"""F26: a configured peer floods with a wrong key; it costs little, and nobody else."""

from __future__ import annotations

import pytest

from tests.simulation.hub import ADDRESS_D, Hub
from tests.simulation.policies import ADDRESS_A, ADDRESS_C
from tests.tables import TellRow
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.limits import UNPROVED_KEYS_BY_ADDRESS, Limits
from vpnd.ike.outputs import ChildUp, Failed, PeerDead, Transmit
from vpnd.ike.strangers import BURST, FREE_FAILURES
from vpnd.model.diagnosis import Code
from vpnd.wire.chain import decode_chain
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange2, Payload1, Payload2

SECONDS, RATE = 10, 100
PATIENT = Limits(half_open_per_address=SECONDS * RATE)
"""In IKEv1 the bound on half-open attempts is reached first; without it the throttle stands alone."""


def has_public_value(spoken: str, answer: bytes) -> bool:
    """Whether an answer has cost a key exchange; a cookie, or Main2, has not."""
    header = Header.decode(answer)
    kind = Payload2.KE if spoken == "IKEv2" else Payload1.KE
    if header.flags & Flag.ENCRYPTION or header.exchange in (Exchange2.IKE_AUTH, Exchange2.INFORMATIONAL):
        return False
    return any(raw.type == kind for raw in decode_chain(header.next_payload, answer[HEADER_LENGTH:]))


def is_up(peer: Endpoint) -> bool:
    return bool(peer.ike_sas("hub"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoken", "alone"),
    [("IKEv2", False), ("IKEv1 main", False), ("IKEv1 main", True), ("IKEv1 aggressive", False)],
)
def test_a_flood_with_a_wrong_key(spoken: str, alone: bool, row: TellRow) -> None:
    """In aggressive mode it is the initiator who first sees that the keys differ; it never proves its own."""
    hub = Hub(spoken, PATIENT if alone else Limits())
    steady = hub.peer(ADDRESS_C, seed=2)
    assert is_up(steady)
    before = [sa.spi_i for sa in steady.ike_sas("hub")]
    looked_at, newcomer_after = 0, 0.0
    most = FREE_FAILURES + BURST + SECONDS + 1
    if spoken == "IKEv1 aggressive":
        # Its initiator sees first that the keys differ, and then says nothing that could count as a failure.
        most = UNPROVED_KEYS_BY_ADDRESS.most + SECONDS * UNPROVED_KEYS_BY_ADDRESS.a_second + 1
    for attempt in range(SECONDS * RATE):
        answers = len(hub.of(Transmit, "to-192.0.2.1"))
        hub.peer(ADDRESS_A, seed=1000 + attempt, psk=b"a wrong key")
        new = hub.of(Transmit, "to-192.0.2.1")[answers:]
        looked_at += any(has_public_value(spoken, answer.data) for answer in new)  # type: ignore[union-attr]  # hub.of gives Transmit here
        if attempt == SECONDS * RATE // 2:
            began = hub.now
            newcomer = hub.peer(ADDRESS_D, seed=3)
            assert is_up(newcomer)
            newcomer_after = hub.now - began
        hub.pass_time(1 / RATE)
    flood_ended = hub.now
    hub.peers.pop(ADDRESS_A)
    right = hub.peer(ADDRESS_A, seed=4)
    while not is_up(right) and hub.now < flood_ended + 120:
        hub.pass_time(1.0)
        if not right.next_timeout():
            right = hub.peer(ADDRESS_A, seed=5)
    took = hub.now - flood_ended
    dropped = {
        reason: count for reason, count in hub.endpoint.counters.items() if "too many" in reason and count
    }
    row(
        "faults",
        id="F26",
        fault=f"wrong key, {RATE} attempts a second for {SECONDS} s",
        moment=f"{spoken}{', any number half-open' if alone else ''}",
        target="1 each second looked at, others unaffected, the right key works at most 60 s after",
        figure=f"{looked_at} looked at; right key after {took:.0f} s; others at once",
    )
    assert newcomer_after == 0.0
    assert [sa.spi_i for sa in steady.ike_sas("hub")] == before
    assert not hub.of(PeerDead, "to-192.0.2.3")
    assert looked_at <= most
    assert took <= 60.0
    assert sum(dropped.values()) >= SECONDS * RATE - looked_at - 1
    if spoken == "IKEv2" or alone:
        assert set(dropped) == {"too many attempts with a wrong key"}
        floods = [f for f in hub.of(Failed, "to-192.0.2.1") if f.diagnosis.code is Code.FLOOD]  # type: ignore[union-attr] # of one kind
        assert len(floods) == 1
    assert [o for o in hub.told if isinstance(o, ChildUp) and o.child.tunnel == "to-192.0.2.1"]
