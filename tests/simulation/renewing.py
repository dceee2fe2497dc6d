"""A gateway that closes none of two SAs for the same, as some peers do (strongSwan with a `close_action`)."""

from __future__ import annotations

import pytest

from vpnd.ike.renewals import Renewals
from vpnd.simulate.gateway import Gateway


def closes_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """It treats its peer from now on as one that begins again whatever is closed as redundant.

    The other gateways of the world need another name for the tunnel.
    """
    mine, expects = gateway.tunnel, Renewals.expects

    def closes_none(renewals: Renewals, tunnel: str) -> bool:
        return tunnel == mine or expects(renewals, tunnel)

    monkeypatch.setattr(Renewals, "expects", closes_none)
