"""One gateway and many peers that are heard at once: for floods, where a network would only take time."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from ipaddress import ip_address

from tests.simulation.policies import ADDRESS_A, ADDRESS_B, ADDRESS_C, Recipe
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import Output, Transmit
from vpnd.model.child import Path
from vpnd.model.policy import NegotiationMode, PeerPolicy
from vpnd.model.selectors import Address
from vpnd.wire.iana import IkeVersion

SPOKEN = {
    "IKEv2": (IkeVersion.V2, None),
    "IKEv1 main": (IkeVersion.V1, NegotiationMode.MAIN),
    "IKEv1 aggressive": (IkeVersion.V1, NegotiationMode.AGGRESSIVE),
}
ADDRESS_D = ip_address("192.0.2.4")


class Hub:
    """The gateway under test at 192.0.2.2; every peer that speaks with it is heard at once."""

    def __init__(self, spoken: str, limits: Limits | None = None, dpd: bool = True) -> None:
        self.version, self.mode = SPOKEN[spoken]
        self.now = 1000.0
        self.endpoint = Endpoint(SeededEntropy(1), limits or Limits())
        self.dpd = dpd
        self.told: list[Output] = []
        self.peers: dict[Address, Endpoint] = {}
        self.only_authenticates: set[Address] = set()
        """Peers of which nothing is heard once there is an IKE SA with them."""
        for number, address in enumerate((ADDRESS_A, ADDRESS_C, ADDRESS_D), start=10):
            self.endpoint.set_peer(self.now, self.policy(f"to-{address}", ADDRESS_B, address, 2, number))
        self.drain()

    def policy(self, name: str, local: Address, remote: Address, here: int, there: int) -> PeerPolicy:
        """One side's configuration."""
        policy = Recipe().policy(name, local, remote, here, there)
        dpd = replace(policy.dpd, enabled=self.dpd)
        return replace(policy, version=self.version, mode=self.mode, dpd=dpd)

    def peer(
        self, address: Address, seed: int, psk: bytes | None = None, first_contact: bool = True
    ) -> Endpoint:
        """A machine at this address that begins; the one that was there before is gone.

        Without `first_contact` it does not say so: it has another tunnel with the same identities.
        """
        number = {ADDRESS_A: 10, ADDRESS_C: 11, ADDRESS_D: 12}[address]
        policy = self.policy("hub", address, ADDRESS_B, number, 2)
        if psk is not None:
            policy = replace(policy, psk=type(policy.psk)(psk))
        peer = self.peers[address] = Endpoint(SeededEntropy(seed))
        peer.set_peer(self.now, policy)
        if not first_contact:
            peer.set_peer(self.now, replace(policy, name="hub-2"))
        peer.initiate(self.now, "hub", 0)
        self.drain()
        return peer

    def drain(self) -> None:
        """Carries messages until nobody has more to say."""
        while self._carry(self.endpoint, self.told) or any(map(self._carry, self.peers.values())):
            pass

    def _carry(self, sender: Endpoint, told: list[Output] | None = None) -> bool:
        outputs: deque[Output] = sender.outputs
        said = bool(outputs)
        while outputs:
            output = outputs.popleft()
            if told is not None:
                told.append(output)
            if isinstance(output, Transmit):
                path = output.path
                receiver = self.endpoint if path.remote == ADDRESS_B else self.peers.get(path.remote)
                if path.local in self.only_authenticates and self.endpoint.ike_sas(f"to-{path.local}"):
                    receiver = None
                if receiver is not None:
                    back = Path(path.remote, path.remote_port, path.local, path.local_port)
                    receiver.handle_datagram(self.now, back, output.data)
        return said

    def pass_time(self, seconds: float) -> None:
        """Every timer of everybody fires that falls due meanwhile."""
        end = self.now + seconds
        everybody = [self.endpoint, *self.peers.values()]
        while True:
            due = [(at, n) for n, one in enumerate(everybody) if (at := one.next_timeout()) is not None]
            if not due or min(due)[0] > end:
                break
            at, n = min(due)
            self.now = max(self.now, at)
            everybody[n].handle_timeout(self.now)
            self.drain()
        self.now = end

    def of(self, kind: type[Output], tunnel: str) -> list[Output]:
        """What the gateway said of one tunnel."""
        return [o for o in self.told if isinstance(o, kind) and getattr(o, "tunnel", "") == tunnel]
