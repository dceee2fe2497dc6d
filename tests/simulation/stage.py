"""One real endpoint, `b` at 192.0.2.2, alone with a puppet: what the puppet says, and what it hears back."""

from __future__ import annotations

from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.limits import Limits
from vpnd.model.selectors import Address
from vpnd.simulate.gateway import Gateway
from vpnd.wire.iana import Exchange2

from .policies import ADDRESS_A, ADDRESS_B, Recipe
from .puppet import Puppet
from .weather import Datagram
from .world import World


class Stage:
    """The endpoint is configured by `recipe` for a peer at 192.0.2.1, whose part the puppet plays.

    Nothing that the endpoint sends goes anywhere: it lies in `heard`, and `say` returns what is new there.
    """

    def __init__(self, recipe: Recipe | None = None, seed: int = 0, limits: Limits | None = None) -> None:
        self.recipe = recipe or Recipe()
        self.world = World(seed)
        self.heard: list[bytes] = []
        self.world.interceptors.append(self._hear)
        endpoint = Endpoint(SeededEntropy(seed + 1), limits or Limits())
        self.endpoint = endpoint
        self.gateway: Gateway = self.world.add_gateway("b", ADDRESS_B, endpoint)
        self.gateway.set_peer("a", self.recipe.pair()[1])

    def _hear(self, datagram: Datagram) -> list[tuple[float, bytes]]:
        self.heard.append(datagram.data)
        return []

    def say(self, data: bytes, source: Address = ADDRESS_A, port: int = 500) -> list[bytes]:
        """One datagram to the endpoint; what it sends at once."""
        before = len(self.heard)
        self.world.inject("b", data, source, port, port)
        return self.heard[before:]

    def puppet(self, initiator: bool = True, psk: bytes | None = None, seed: int = 0) -> Puppet:
        """A peer with the right identity, and with the right key unless another is given."""
        return Puppet(initiator, ADDRESS_A, self.recipe.psk if psk is None else psk, seed)

    def half_open(self, puppet: Puppet) -> None:
        """The endpoint has answered the puppet's IKE_SA_INIT."""
        (answer,) = self.say(puppet.init_message())
        puppet.take_init(answer)

    def establish(self, puppet: Puppet) -> None:
        """The puppet has brought up an IKE SA and mapping 0 as initiator."""
        self.half_open(puppet)
        (answer,) = self.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads()))
        puppet.open(answer)
        assert len(self.gateway.ike_sas()) == 1
        assert len(self.gateway.installed) == 1

    def begin(self, puppet: Puppet) -> bytes:
        """The endpoint has begun an attempt and got IKE_SA_INIT answered; its IKE_AUTH request."""
        self.gateway.initiate()
        puppet.take_init(self.heard[-1])
        (request,) = self.say(puppet.init_message())
        return request

    def establish_from_here(self, puppet: Puppet) -> None:
        """The endpoint has brought up an IKE SA and mapping 0, and the puppet was its responder."""
        puppet.open(self.begin(puppet))
        self.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads(), response=True))
        assert len(self.gateway.ike_sas()) == 1
        assert len(self.gateway.installed) == 1

    def half_open_count(self) -> int:
        """How many attempts of peers hold state in the endpoint, unauthenticated."""
        return len(self.endpoint.snapshot().half_open)
