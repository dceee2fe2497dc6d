"""A2, V42: what one first message may hold, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest

from tests.simulation.puppet import DH, ENCR, INTEG, PRF
from tests.simulation.stage import Stage as Stage2
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN
from tests.simulation.v1.puppet import PHASE_1, PHASE_2
from tests.simulation.v1.puppet import Puppet as Puppet1
from tests.simulation.v1.stage import Stage as Stage1
from vpnd.ike.limits import LARGEST_FIRST_MESSAGE
from vpnd.ike.outputs import Failed, LadderLine
from vpnd.model.policy import NegotiationMode
from vpnd.model.text import LONGEST_TEXT
from vpnd.wire import ikev1, ikev2
from vpnd.wire.attributes import Attribute
from vpnd.wire.iana import Exchange2, Protocol
from vpnd.wire.ikev1.proposals import MAX_TRANSFORMS as MOST_1
from vpnd.wire.ikev2.proposals import MAX_TRANSFORMS as MOST_2

T = TypeVar("T")

MODES = (MAIN, AGGRESSIVE)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many transforms are decoded: the work that a message makes."""
    count = [0]

    def counting(decode: Callable[[bytes], T], body: bytes) -> T:
        count[0] += 1
        return decode(body)

    monkeypatch.setattr(ikev1.TransformPart, "decode", partial(counting, ikev1.TransformPart.decode))
    monkeypatch.setattr(ikev2.Transform, "decode", partial(counting, ikev2.Transform.decode))
    return count


def kept(stage: Stage1 | Stage2) -> list[int]:
    """Characters of each text that the endpoint has handed out to be kept."""
    lines = [len(line.text) + sum(map(len, line.detail)) for line in stage.gateway.of(LadderLine)]
    told = [failed.diagnosis for failed in stage.gateway.of(Failed)]
    return lines + [sum(len(value) for _, value in diagnosis.facts) for diagnosis in told]


# ------------------------------------------------------------------------------------- IKEv2


def offer(proposals: int, transforms: int) -> ikev2.Sa:
    """Proposals of algorithms that nobody has, each with so many transforms."""
    many = tuple(ikev2.Transform(1, 1000 + number) for number in range(transforms))
    return ikev2.Sa(
        tuple(ikev2.ProposalPart(number, Protocol.IKE, b"", many) for number in range(1, proposals + 1))
    )


def init(stage: Stage2, *sa: ikev2.Sa, seed: int = 0) -> list[bytes]:
    puppet = stage.puppet(seed=seed)
    rest = [payload for payload in puppet.init_payloads() if not isinstance(payload, ikev2.Sa)]
    return stage.say(puppet.clear(Exchange2.IKE_SA_INIT, 0, [*sa, *rest]), port=1024 + seed)


@pytest.mark.parametrize(("proposals", "transforms"), [(255, 31), (2, 255), (255, 4), (16, 16)])
def test_more_transforms_than_the_bound_are_not_looked_at(
    proposals: int, transforms: int, decoded: list[int]
) -> None:
    stage = Stage2()
    assert init(stage, offer(proposals, transforms)) == []
    assert decoded[0] <= MOST_2
    assert sum(kept(stage)) <= LONGEST_TEXT


def test_as_many_transforms_as_the_bound_are_read() -> None:
    stage = Stage2()
    own = ikev2.ProposalPart(64, Protocol.IKE, b"", (ENCR, PRF, INTEG, DH))
    others = offer(1, MOST_2 - 4).proposals
    assert len(init(stage, ikev2.Sa((*others, own)))[0]) > 100
    assert max(kept(stage)) <= LONGEST_TEXT


def test_a_second_sa_payload_is_not_looked_at(decoded: list[int]) -> None:
    stage = Stage2()
    assert init(stage, *[offer(1, 200)] * 4) == []
    assert decoded[0] == 0


def test_behind_a_key_exchange_the_bound_holds_as_well(decoded: list[int]) -> None:
    """IKE_AUTH is protected, and yet from nobody that is known."""
    stage = Stage2()
    puppet = stage.puppet()
    stage.half_open(puppet)
    decoded[0] = 0
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, [*puppet.auth_payloads()[:2], offer(200, 31)]))
    assert decoded[0] <= MOST_2
    assert not stage.gateway.ike_sas()


# ------------------------------------------------------------------------------------- IKEv1


def offer_v1(proposals: int, transforms: int, attributes: tuple[tuple[int, int], ...] = PHASE_1) -> ikev1.Sa:
    """The same; DES-CBC-like numbers that no suite has."""
    unlike = tuple(Attribute(kind, 65_000 if kind == 1 else value) for kind, value in attributes)
    many = tuple(ikev1.TransformPart(number % 256, 1, unlike) for number in range(transforms))
    parts = (ikev1.ProposalPart(number, Protocol.IKE, b"", many) for number in range(1, proposals + 1))
    return ikev1.Sa(ikev1.IPSEC_DOI, ikev1.SIT_IDENTITY_ONLY, tuple(parts))


def first(puppet: Puppet1, *sa: ikev1.Sa) -> bytes:
    """Main1 or Aggressive1 with these SA payloads."""
    payloads: list[ikev1.Payload] = [*sa]
    if puppet.aggressive:
        payloads += [*puppet.key_payloads(), puppet.identity]
    return puppet.clear(puppet.exchange, payloads)


@pytest.mark.parametrize(("proposals", "transforms"), [(200, 10), (2, 255), (26, 10)])
@pytest.mark.parametrize("mode", MODES)
def test_in_ikev1_more_transforms_are_not_looked_at(
    mode: NegotiationMode, proposals: int, transforms: int, decoded: list[int]
) -> None:
    stage = Stage1(mode)
    assert stage.say(first(stage.puppet(), offer_v1(proposals, transforms, PHASE_1[:1]))) == []
    assert decoded[0] <= MOST_1
    assert not stage.endpoint.snapshot().sas
    assert sum(kept(stage)) <= LONGEST_TEXT


@pytest.mark.parametrize("mode", MODES)
def test_in_ikev1_what_is_kept_of_the_largest_offer_has_an_end(mode: NegotiationMode) -> None:
    """The ladder line of one message held 99,000 characters."""
    stage = Stage1(mode)
    puppet = stage.puppet()
    message = first(puppet, offer_v1(1, MOST_1))
    assert len(message) <= LARGEST_FIRST_MESSAGE
    stage.say(message)
    assert kept(stage)
    assert max(kept(stage)) <= LONGEST_TEXT


def test_in_ikev1_a_second_sa_payload_is_not_looked_at(decoded: list[int]) -> None:
    stage = Stage1()
    assert stage.say(first(stage.puppet(), *[offer_v1(1, 60)] * 3)) == []
    assert decoded[0] == 0


def test_in_quick_mode_the_bound_holds_as_well(decoded: list[int]) -> None:
    stage = Stage1()
    puppet = stage.puppet()
    stage.establish(puppet)
    quick = puppet.begin_quick()
    decoded[0] = 0
    payloads: list[ikev1.Payload] = [offer_v1(200, 10, PHASE_2), ikev1.Nonce(quick.nonce_i)]
    stage.say(puppet.seal_quick(quick, payloads))
    assert decoded[0] <= MOST_1
    assert not stage.gateway.installed
