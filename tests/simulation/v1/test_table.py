"""The state table of IKEv1 is complete: each type of message in each state has its row, or is a counted drop.

A type is said as it should be, in clear although it is a protected one, and protected with a wrong hash.
Where there is no row, and where the hash is wrong, nothing changes, nothing is answered, no IV chain moves.
Some types look alike (Main1 and Main2), and one that repeats the last is answered alike: these are rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import pytest

from tests.simulation.v1.puppet import Puppet, Quick
from tests.simulation.v1.stage import STATES, stage_in
from vpnd.ike.outputs import Failed, LadderLine, Story
from vpnd.ike.session import Phase
from vpnd.ike.v1 import messages, quick_modes, version
from vpnd.ike.v1.messages import (
    Aggressive1,
    Aggressive2,
    Aggressive3,
    Informational,
    Main1,
    Main2,
    Main3,
    Main4,
    Main5,
    Main6,
    PlainInformational,
    Quick1,
    Quick2,
    Quick3,
)
from vpnd.ike.v1.quick_modes import Stage
from vpnd.ike.v1.session import Session
from vpnd.ike.v1.state import State
from vpnd.ike.v1.table import EXPECTED, STEPS
from vpnd.model.diagnosis import Diagnosis
from vpnd.wire.iana import Exchange1, Notify1
from vpnd.wire.ikev1 import Hash, Notify, Payload

NO_TYPES = {messages.Received, messages.UnopenedProof, messages.UnopenedInformational}
TYPES: list[type] = [
    one
    for one in vars(messages).values()
    if isinstance(one, type)
    and is_dataclass(one)
    and one.__module__ == messages.__name__
    and not one.__name__.startswith("_")
    and one not in NO_TYPES
]
PROTECTED = {Main5, Main6, Aggressive3, Quick1, Quick2, Quick3, Informational}
ALIKE = {Main1: Main2, Main2: Main1, Main3: Main4, Main4: Main3, Main5: Main6, Main6: Main5}
MAY_BE_IN_CLEAR = {Aggressive3}
"""RFC 2409 section 5.4."""
QUICK_MODES = {State.ESTABLISHED, State.REPLACED}
WRONG = bytes(32)
MAIN, AGGRESSIVE = Exchange1.IDENTITY_PROTECTION, Exchange1.AGGRESSIVE


def payloads_of(kind: type, puppet: Puppet, quick: Quick) -> tuple[int, int, list[Payload]]:
    """Exchange type, message ID, and the payloads behind the hash that informational and quick mode have."""
    proof = puppet.proof_payloads()
    number = quick.message_id
    found: dict[type, tuple[int, int, list[Payload]]] = {
        Main1: (MAIN, 0, puppet.proposal()),
        Main2: (MAIN, 0, puppet.proposal()),
        Main3: (MAIN, 0, puppet.key_payloads()),
        Main4: (MAIN, 0, puppet.key_payloads()),
        Main5: (MAIN, 0, proof),
        Main6: (MAIN, 0, proof),
        Aggressive1: (AGGRESSIVE, 0, [*puppet.proposal()[:1], *puppet.key_payloads(), puppet.identity]),
        Aggressive2: (AGGRESSIVE, 0, puppet.aggressive2_payloads()),
        Aggressive3: (AGGRESSIVE, 0, proof[1:]),
        Quick1: (Exchange1.QUICK_MODE, number, puppet.quick1_payloads(quick)),
        Quick2: (Exchange1.QUICK_MODE, number, puppet.quick1_payloads(quick)),
        Quick3: (Exchange1.QUICK_MODE, number, []),
        Informational: (Exchange1.INFORMATIONAL, 5, [puppet.delete_ike()]),
        PlainInformational: (Exchange1.INFORMATIONAL, 5, [Notify(Notify1.NO_PROPOSAL_CHOSEN)]),
    }
    return found[kind]


def rightly(kind: type, puppet: Puppet, quick: Quick) -> bytes:
    """A message of this type as a peer with the key says it."""
    exchange, number, payloads = payloads_of(kind, puppet, quick)
    if kind not in PROTECTED:
        return puppet.clear(exchange, payloads, number)
    if kind is Informational:
        return puppet.informational(*payloads, message_id=number)
    if kind is Quick1:
        return puppet.seal_quick(quick, payloads)
    if kind is Quick2:
        return puppet.quick2(quick)
    if kind is Quick3:
        return puppet.quick3(quick)
    return puppet.seal(exchange, 0, payloads, puppet.iv)


def in_clear(kind: type, puppet: Puppet, quick: Quick) -> bytes:
    """A protected type without protection."""
    exchange, number, payloads = payloads_of(kind, puppet, quick)
    hashed = payloads if exchange in (MAIN, AGGRESSIVE) else [Hash(WRONG), *payloads]
    return puppet.clear(exchange, hashed, number)


def forged(kind: type, puppet: Puppet, quick: Quick) -> bytes:
    """A protected type with a wrong hash."""
    exchange, number, payloads = payloads_of(kind, puppet, quick)
    if kind is Informational:
        return puppet.informational(*payloads, message_id=number, proof=WRONG)
    if kind is Quick2:
        return puppet.quick2(quick, proof=WRONG)
    if kind is Quick3:
        return puppet.quick3(quick, WRONG)
    if kind is Quick1:
        return puppet.seal_quick(quick, payloads, proof=WRONG)
    wrong: list[Payload] = [Hash(WRONG) if isinstance(payload, Hash) else payload for payload in payloads]
    return puppet.seal(exchange, 0, wrong, puppet.iv)


MANNERS = {"rightly": rightly, "in clear": in_clear, "forged": forged}


@contextmanager
def sessions_made() -> Iterator[list[Session]]:
    """The sessions that begin meanwhile."""
    made: list[Session] = []

    class Noted(Session):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(version, "Session", Noted)
        yield made


class Cell:
    """A stage in a state, until a message has had an effect there."""

    def __init__(self, name: str) -> None:
        with sessions_made() as sessions:
            self.stage, self.puppet = stage_in(name)
        alive = (one for one in sessions if one.sa.phase is not Phase.GONE)
        self.session = next((one for one in alive if self.puppet.cky_i == one.sa.spi_i), None)
        self.state = self.session.sa.state if self.session else State.NEW

    def ongoing(self) -> Iterator[Quick]:
        """A new quick mode, and the one that we have begun."""
        yield self.puppet.begin_quick()
        for quick in self.session.context.quick_modes.all() if self.session else ():
            yield Quick(quick.message_id, quick.chain.iv, quick.nonce_i, quick.nonce_r)

    def has_row(self, kind: type, quick: Quick, data: bytes) -> bool:
        """Whether the table has a row for the type in the present state, or `data` repeats the last one."""
        if self.session is not None and self.session.context.phase1.is_repeat(data):
            return True
        known = self.session.context.quick_modes.find(quick.message_id) if self.session else None
        if kind in (Quick1, Quick2, Quick3):
            if kind not in EXPECTED[self.state]:
                return False
            return kind is (Quick1 if known is None else quick_modes.ANSWERS.get(known.stage))
        if kind is PlainInformational:
            unconfirmed = self.session is not None and self.session.context.phase1.unconfirmed
            return kind in EXPECTED[self.state] and (self.state not in QUICK_MODES or unconfirmed)
        if kind is Informational:
            return kind in EXPECTED[self.state]
        rows = {kind, ALIKE.get(kind, kind)} & EXPECTED[self.state]
        again = self.session is not None and self.session.sa.attempt.proof_iv is not None
        return bool(rows) and (self.state not in QUICK_MODES or again)

    @property
    def hint(self) -> Diagnosis | None:
        """What the operator will be told if nothing comes of the attempt: the one effect of the unproven."""
        return self.session.sa.attempt.hint if self.session else None

    def settled(self) -> tuple[object, ...]:
        """What must stay as it is where there is no row."""
        session = self.session
        # Why a first message was dropped is told to the operator.
        told = (LadderLine, Story) if session else (LadderLine, Story, Failed)
        events = [event for event in self.stage.gateway.events if not isinstance(event, told)]
        ivs = None if session is None else session.snapshot().ivs
        state = session.sa.state if session else None
        sas = self.stage.gateway.ike_sas(), sorted(self.stage.gateway.installed)
        return (*sas, events, state, ivs, len(self.stage.heard))


def test_every_state_is_tried() -> None:
    reached = {Cell(name).state for name in STATES}
    assert reached == set(State) - {State.GONE, State.HELD}, "one that is held has tests of its own"


def test_every_type_is_tried() -> None:
    assert len(TYPES) == 14
    kinds = {key for _, key in STEPS if getattr(key, "__module__", "") == messages.__name__}
    assert kinds - NO_TYPES == set(TYPES)


@pytest.mark.parametrize("name", sorted(STATES))
def test_each_type_in_each_state_has_a_row_or_is_a_counted_drop(name: str) -> None:
    cell = Cell(name)
    for kind in TYPES:
        for manner, say in MANNERS.items():
            if manner != "rightly" and kind not in PROTECTED:
                continue
            for number in range(len(list(cell.ongoing()))):
                quick = list(cell.ongoing())[number]
                before, drops = cell.settled(), sum(cell.stage.endpoint.counters.values())
                data = say(kind, cell.puppet, quick)
                understood = manner == "rightly" or (manner == "in clear" and kind in MAY_BE_IN_CLEAR)
                has_row = understood and cell.has_row(kind, quick, data)
                cell.stage.say(data)
                dropped = sum(cell.stage.endpoint.counters.values()) > drops
                what = f"{kind.__name__} {manner}, {name}, quick mode {number}"
                if has_row:
                    assert dropped or cell.settled() != before or cell.hint is not None, what
                    cell = Cell(name)
                else:
                    assert dropped, f"{what}: no drop was counted"
                    assert cell.settled() == before, f"{what}: something has changed"


def test_rows_of_quick_mode_are_reached() -> None:
    """Those of the table by which a peer's message moves a quick mode on; ABANDONED has tests of its own."""
    reached = set()
    for name in STATES:
        cell = Cell(name)
        for quick in cell.ongoing():
            known = cell.session.context.quick_modes.find(quick.message_id) if cell.session else None
            if known is not None:
                reached.add(known.stage)
    assert Stage.SENT_QUICK1 in reached
