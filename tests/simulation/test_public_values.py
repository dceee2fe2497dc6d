"""V4, V41: a public value is checked before this side makes a key pair, wherever a KE payload arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.faults.simulated import Counted, counting
from tests.simulation.policies import Recipe
from tests.simulation.puppet import ENCR, IKE_SA, INTEG, NO_ESN, PRF
from tests.simulation.puppet import Puppet as Puppet2
from tests.simulation.stage import Stage as Stage2
from tests.simulation.v1 import puppet as v1
from tests.simulation.v1.pairs import AGGRESSIVE, policy_of
from tests.simulation.v1.puppet import PHASE_1, PHASE_2
from tests.simulation.v1.puppet import Puppet as Puppet1
from tests.simulation.v1.stage import Stage as Stage1
from vpnd.crypto.dh import InvalidPublicValue, check_public
from vpnd.crypto.modp import MODP_GROUPS
from vpnd.crypto.suites import GROUPS
from vpnd.wire import ikev1
from vpnd.wire.iana import DhGroup, Exchange2, Protocol, TransformType
from vpnd.wire.ikev2 import KeyExchange, Nonce, Payload, ProposalPart, Sa, Transform, TsI, TsR

CURVE25519 = 31


def bad_values(group: int) -> Iterator[bytes]:
    """Values that no honest peer sends: a wrong length, out of range, off the curve or the subgroup."""
    length = GROUPS[group].public_length
    yield from (b"", bytes(length - 1), bytes(length + 1), bytes(length))
    modp = MODP_GROUPS.get(group)
    if modp is None:
        yield b"\1" + bytes(length - 1) if group == CURVE25519 else b"\xff" * length
        return
    for number in (1, modp.prime - 1, modp.prime, modp.prime + 1):
        yield number.to_bytes(length, "big")
    if modp.order is not None:
        # Any random value fails there.
        yield (3).to_bytes(length, "big")
        yield pow(3, modp.order, modp.prime).to_bytes(length, "big")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return counting(monkeypatch.setattr)


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_what_is_no_value_of_a_group_is_refused_without_a_key_pair(group: int, counted: Counted) -> None:
    for value in bad_values(group):
        with pytest.raises(InvalidPublicValue):
            check_public(group, value)
    assert counted.number == 0


# ------------------------------------------------------------------------------------- IKEv2

PFS = Recipe(pfs=(CURVE25519,))


def init_request(puppet: Puppet2, group: int, value: bytes) -> bytes:
    proposal = ProposalPart(1, Protocol.IKE, b"", (ENCR, PRF, INTEG, Transform(TransformType.DH, group)))
    payloads: list[Payload] = [Sa((proposal,)), KeyExchange(group, value), Nonce(puppet.nonce)]
    return puppet.clear(Exchange2.IKE_SA_INIT, 0, payloads)


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_in_ike_sa_init(group: int, counted: Counted) -> None:
    for seed, value in enumerate(bad_values(group)):
        stage = Stage2(Recipe(dh=(group,)))
        assert len(stage.say(init_request(stage.puppet(seed=seed), group, value))) == 1
        assert not stage.half_open_count()
    assert counted.number == 0


def ike_rekey(puppet: Puppet2, value: bytes) -> list[Payload]:
    (part,) = IKE_SA.proposals
    sa = Sa((replace(part, spi=puppet.dice.randbytes(8)),))
    return [sa, Nonce(puppet.dice.randbytes(32)), KeyExchange(CURVE25519, value)]


def child_with_pfs(puppet: Puppet2, value: bytes) -> list[Payload]:
    dh = Transform(TransformType.DH, CURVE25519)
    sa = Sa((ProposalPart(1, Protocol.ESP, b"\xc0\xff\xee\x09", (ENCR, INTEG, dh, NO_ESN)),))
    selectors = [p for p in puppet.child_payloads(0xC0FFEE09, 0) if isinstance(p, TsI | TsR)]
    return [sa, Nonce(puppet.dice.randbytes(32)), KeyExchange(CURVE25519, value), *selectors]


@pytest.mark.parametrize("request_of", [ike_rekey, child_with_pfs])
def test_in_create_child_sa(request_of: Callable[[Puppet2, bytes], list[Payload]], counted: Counted) -> None:
    stage = Stage2(PFS)
    puppet = stage.puppet()
    stage.establish(puppet)
    before = counted.number
    for message_id, value in enumerate(bad_values(CURVE25519), start=2):
        (answer,) = stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, message_id, request_of(puppet, value)))
        puppet.open(answer)
    assert counted.number == before
    assert len(stage.gateway.installed) == 1
    assert len(stage.gateway.ike_sas()) == 1


# ------------------------------------------------------------------------------------- IKEv1


def first_of_group(puppet: Puppet1, group: int, value: bytes) -> bytes:
    """Aggressive1 that offers `group`, with this public value."""
    attributes = [(kind, group if kind == 4 else number) for kind, number in PHASE_1]
    sa = v1.sa_of(Protocol.IKE, b"", 1, attributes)
    payloads: list[ikev1.Payload] = [
        sa,
        ikev1.KeyExchange(value),
        ikev1.Nonce(puppet.nonce),
        puppet.identity,
    ]
    return puppet.clear(puppet.exchange, payloads)


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_in_aggressive_mode(group: int, counted: Counted) -> None:
    for seed, value in enumerate(bad_values(group)):
        stage = Stage1(AGGRESSIVE)
        stage.gateway.set_peer("a", policy_of(Recipe(dh=(group,)), AGGRESSIVE))
        assert len(stage.say(first_of_group(stage.puppet(seed=seed), group, value))) == 1
    assert counted.number == 0


def test_in_main_mode(counted: Counted) -> None:
    stage = Stage1()
    puppet = stage.puppet()
    stage.answered_first(puppet)
    for number, value in enumerate(bad_values(CURVE25519)):
        payloads: list[ikev1.Payload] = [ikev1.KeyExchange(value), ikev1.Nonce(bytes((number,)) * 16)]
        assert stage.say(puppet.clear(puppet.exchange, payloads)) == []
    assert counted.number == 0


def test_in_quick_mode(counted: Counted) -> None:
    stage = Stage1()
    stage.gateway.set_peer("a", policy_of(PFS, stage.mode))
    puppet = stage.puppet()
    stage.establish(puppet)
    before = counted.number
    sa = v1.sa_of(Protocol.ESP, b"\xc0\xff\xee\x01", 12, (*PHASE_2, (3, DhGroup.CURVE25519)))
    for value in bad_values(CURVE25519):
        quick = puppet.begin_quick()
        nonce, ranges = ikev1.Nonce(quick.nonce_i), [v1.subnet(1), v1.subnet(2)]
        payloads: list[ikev1.Payload] = [sa, nonce, ikev1.KeyExchange(value), *ranges]
        assert len(stage.say(puppet.seal_quick(quick, payloads))) == 1
    assert counted.number == before
    assert not stage.gateway.installed
