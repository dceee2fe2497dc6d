"""V23: an IKE SA that nobody uses does not stay, and no peer collects them."""

from __future__ import annotations

import pytest

from tests.simulation.hub import SPOKEN, Hub
from tests.simulation.policies import ADDRESS_A
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import PeerDead
from vpnd.ike.session import Phase

TUNNEL = "to-192.0.2.1"
UNPROVEN = Limits().unproven


def held(hub: Hub) -> int:
    """How many IKE SAs the gateway has with the peer, those included that are ending."""
    return sum(sa.phase is not Phase.CONNECTING for sa in hub.endpoint.snapshot().of(TUNNEL))


@pytest.mark.parametrize("dpd", [True, False])
@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_peer_that_only_authenticates_is_asked_and_forgotten(spoken: str, dpd: bool) -> None:
    """With DPD after a third of its timeout, without it after half a minute: no answer is the end."""
    hub = Hub(spoken, dpd=dpd)
    hub.only_authenticates.add(ADDRESS_A)
    hub.peer(ADDRESS_A, seed=2)
    (first,) = hub.endpoint.snapshot().of(TUNNEL)
    hub.pass_time(UNPROVEN - 1)
    assert len(hub.endpoint.ike_sas(TUNNEL)) == 1
    hub.pass_time(32)
    assert hub.of(PeerDead, TUNNEL)
    # The peer hears us, has no answer, and authenticates again; each IKE SA of that kind ends alike.
    assert first.spi_r not in {sa.spi_r for sa in hub.endpoint.snapshot().of(TUNNEL)}
    assert held(hub) <= 1


@pytest.mark.parametrize("spoken", SPOKEN)
def test_without_dpd_a_peer_that_answers_is_asked_once(spoken: str) -> None:
    hub = Hub(spoken, dpd=False)
    hub.only_authenticates.add(ADDRESS_A)
    peer = hub.peer(ADDRESS_A, seed=2)
    hub.only_authenticates.clear()
    before = len(hub.told)
    hub.pass_time(UNPROVEN + 1)
    asked = len(hub.told)
    assert asked > before
    hub.pass_time(1000)
    assert len(hub.told) == asked
    assert peer.ike_sas("hub")
    assert held(hub) == 1


@pytest.mark.parametrize("spoken", SPOKEN)
def test_without_dpd_traffic_or_a_message_is_proof_enough(spoken: str) -> None:
    hub = Hub(spoken, dpd=False)
    peer = hub.peer(ADDRESS_A, seed=2)
    hub.pass_time(10)
    hub.endpoint.note_activity(hub.now, TUNNEL)
    peer.note_activity(hub.now, "hub")
    before = len(hub.told)
    hub.pass_time(1000)
    assert len(hub.told) == before


@pytest.mark.slow
@pytest.mark.parametrize("first_contact", [True, False])
@pytest.mark.parametrize("spoken", SPOKEN)
def test_a_peer_that_begins_again_and_again_has_one_ike_sa(spoken: str, first_contact: bool) -> None:
    """The one that lives, and for some seconds those that end: never more than the bound, then one.

    Whether it says INITIAL_CONTACT or not; in IKEv1 the predecessor is kept beside it.
    """
    hub = Hub(spoken)
    most = 0
    for attempt in range(30):
        hub.peer(ADDRESS_A, seed=10 + attempt, first_contact=first_contact)
        most = max(most, len(hub.endpoint.ike_sas(TUNNEL)))
        hub.pass_time(0.1)
    assert most <= Limits().ike_sas_per_tunnel
    hub.pass_time(11)
    assert len(hub.endpoint.ike_sas(TUNNEL)) == 1
    assert held(hub) <= (1 if spoken == "IKEv2" else 2)
