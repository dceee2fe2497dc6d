"""One real endpoint, `b` at 192.0.2.2, alone with an IKEv1 puppet; and every state it can be in."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.policies import ADDRESS_A, ADDRESS_B, Recipe
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, policy_of
from tests.simulation.v1.puppet import Puppet, Quick
from tests.simulation.weather import Datagram
from tests.simulation.world import World
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.limits import Limits
from vpnd.model.policy import NegotiationMode
from vpnd.model.selectors import Address
from vpnd.simulate.gateway import Gateway

RECIPE = Recipe(mappings=2)


class Stage:
    """The endpoint is configured for a peer at 192.0.2.1, whose part the puppet plays.

    Nothing that the endpoint sends goes anywhere: it lies in `heard`, and `say` returns what is new there.
    """

    def __init__(self, mode: NegotiationMode = MAIN, seed: int = 0, limits: Limits | None = None) -> None:
        self.mode = mode
        self.world = World(seed)
        self.heard: list[bytes] = []
        self.world.interceptors.append(self._hear)
        self.endpoint = Endpoint(SeededEntropy(seed + 1), limits or Limits())
        self.gateway: Gateway = self.world.add_gateway("b", ADDRESS_B, self.endpoint)
        self.gateway.set_peer("a", policy_of(RECIPE, mode))

    def _hear(self, datagram: Datagram) -> list[tuple[float, bytes]]:
        self.heard.append(datagram.data)
        return []

    def say(self, data: bytes, source: Address = ADDRESS_A, port: int = 500) -> list[bytes]:
        """One datagram to the endpoint; what it sends at once."""
        before = len(self.heard)
        self.world.inject("b", data, source, port, port)
        return self.heard[before:]

    def insist(self, data: bytes) -> None:
        """Answer the endpoint's message and its first repetition so: once alone anyone may have said it."""
        self.say(data)
        self.world.run_for(0.7)
        self.say(data)

    def puppet(self, initiator: bool = True, psk: bytes | None = None, seed: int = 0) -> Puppet:
        """A peer with the right identity, and with the right key unless another is given."""
        return Puppet(initiator, self.mode, ADDRESS_A, RECIPE.psk if psk is None else psk, seed)

    # --- the puppet begins

    def answered_first(self, puppet: Puppet) -> None:
        """Main1 or Aggressive1 has been answered."""
        (answer,) = self.say(puppet.first_message())
        puppet.take(answer)

    def answered_key(self, puppet: Puppet) -> None:
        """In main mode: Main3 has been answered as well."""
        self.answered_first(puppet)
        (answer,) = self.say(puppet.clear(puppet.exchange, puppet.key_payloads()))
        puppet.take(answer)

    def last_of_phase1(self, puppet: Puppet) -> bytes:
        """Everything but the puppet's proof has been said: the proof."""
        if puppet.aggressive:
            self.answered_first(puppet)
            return puppet.seal_phase1(puppet.proof_payloads()[1:])
        self.answered_key(puppet)
        return puppet.seal_phase1(puppet.proof_payloads())

    def establish(self, puppet: Puppet) -> None:
        """The puppet has brought up an ISAKMP SA."""
        heard = self.say(self.last_of_phase1(puppet))
        if not puppet.aggressive:
            puppet.take_phase1(*heard)
        assert len(self.gateway.ike_sas()) == 1

    def answered_quick(self, puppet: Puppet, spi: int = 0xC0FFEE01, mapping: int = 0) -> Quick:
        """A quick mode of the puppet has been answered."""
        quick = puppet.begin_quick()
        (answer,) = self.say(puppet.seal_quick(quick, puppet.quick1_payloads(quick, spi, mapping)))
        puppet.take_quick(quick, answer)
        return quick

    def with_child(self, puppet: Puppet) -> Quick:
        """The puppet has brought up an ISAKMP SA and mapping 0."""
        self.establish(puppet)
        quick = self.answered_quick(puppet)
        assert self.say(puppet.quick3(quick)) == []
        assert len(self.gateway.installed) == 1
        return quick

    # --- the endpoint begins

    def begin(self, puppet: Puppet) -> None:
        """The endpoint has sent its first message, which the puppet has read."""
        self.gateway.initiate()
        puppet.take(self.heard[-1])

    def begin_key(self, puppet: Puppet) -> None:
        """In main mode: the endpoint has sent Main3, which the puppet has read."""
        self.begin(puppet)
        (answer,) = self.say(puppet.clear(puppet.exchange, puppet.proposal()))
        puppet.take(answer)

    def begin_proof(self, puppet: Puppet) -> None:
        """In main mode: the endpoint has sent Main5, which the puppet has read."""
        self.begin_key(puppet)
        (answer,) = self.say(puppet.clear(puppet.exchange, puppet.key_payloads()))
        puppet.take_phase1(answer)

    def established_from_here(self, puppet: Puppet) -> Quick:
        """The endpoint has brought up an ISAKMP SA and sent Quick1 for mapping 0."""
        if puppet.aggressive:
            self.begin(puppet)
            last = puppet.clear(puppet.exchange, puppet.aggressive2_payloads())
        else:
            self.begin_proof(puppet)
            last = puppet.seal_phase1(puppet.proof_payloads())
        heard = self.say(last)
        if puppet.aggressive:
            puppet.take_phase1(heard[0])
        return puppet.answer_quick(heard[-1])

    def with_child_from_here(self, puppet: Puppet) -> Quick:
        """The endpoint has brought up an ISAKMP SA and mapping 0."""
        quick = self.established_from_here(puppet)
        (last,) = self.say(puppet.quick2(quick))
        puppet.take_quick(quick, last)
        assert len(self.gateway.installed) == 1
        return quick


Reach = Callable[[Stage], Puppet]


def _reached(step: Callable[[Stage, Puppet], object], initiator: bool, psk: bytes | None = None) -> Reach:
    def reach(stage: Stage) -> Puppet:
        puppet = stage.puppet(initiator, psk)
        step(stage, puppet)
        return puppet

    return reach


def _refused(stage: Stage, puppet: Puppet) -> None:
    puppet.identity = type(puppet.identity)(2, b"somebody.example")
    stage.say(stage.last_of_phase1(puppet))
    assert not stage.gateway.ike_sas()


def _deleted(stage: Stage, puppet: Puppet) -> None:
    stage.with_child(puppet)
    stage.say(puppet.informational(puppet.delete_ike()))
    assert not stage.gateway.ike_sas()


def _deleted_in_succession(stage: Stage, puppet: Puppet) -> None:
    stage.with_child(puppet)
    stage.answered_key(stage.puppet(seed=99))
    stage.say(puppet.informational(puppet.delete_ike()))
    assert stage.gateway.installed, "the children wait for the successor"


def _replaced(stage: Stage, puppet: Puppet) -> None:
    stage.with_child(puppet)
    stage.establish(stage.puppet(seed=99))


def _suspicious(stage: Stage, puppet: Puppet) -> None:
    stage.say(stage.last_of_phase1(puppet))


STATES: dict[str, tuple[NegotiationMode, Reach]] = {
    "no session, main": (MAIN, _reached(lambda stage, puppet: None, True)),
    "no session, aggressive": (AGGRESSIVE, _reached(lambda stage, puppet: None, True)),
    "answered Main1": (MAIN, _reached(Stage.answered_first, True)),
    "answered Main3": (MAIN, _reached(Stage.answered_key, True)),
    "answered Aggressive1": (AGGRESSIVE, _reached(Stage.answered_first, True)),
    "wrong key, main": (MAIN, _reached(_suspicious, True, b"a guess")),
    "wrong key, aggressive": (AGGRESSIVE, _reached(_suspicious, True, b"a guess")),
    "refused": (MAIN, _reached(_refused, True)),
    "established, main": (MAIN, _reached(Stage.establish, True)),
    "established, aggressive": (AGGRESSIVE, _reached(Stage.establish, True)),
    "with a child": (MAIN, _reached(Stage.with_child, True)),
    "replaced": (MAIN, _reached(_replaced, True)),
    "deleted by the peer": (MAIN, _reached(_deleted, True)),
    "deleted, a successor is being made": (MAIN, _reached(_deleted_in_succession, True)),
    "sent Main1": (MAIN, _reached(Stage.begin, False)),
    "sent Main3": (MAIN, _reached(Stage.begin_key, False)),
    "sent Main5": (MAIN, _reached(Stage.begin_proof, False)),
    "sent Aggressive1": (AGGRESSIVE, _reached(Stage.begin, False)),
    "sent Quick1, main": (MAIN, _reached(Stage.established_from_here, False)),
    "sent Quick1, aggressive": (AGGRESSIVE, _reached(Stage.established_from_here, False)),
    "with a child from here": (MAIN, _reached(Stage.with_child_from_here, False)),
}


def stage_in(state: str) -> tuple[Stage, Puppet]:
    """A stage in this state, with its puppet."""
    mode, reach = STATES[state]
    stage = Stage(mode)
    return stage, reach(stage)
