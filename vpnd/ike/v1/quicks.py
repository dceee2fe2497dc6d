"""The quick modes of one ISAKMP SA: one of ours at a time, repeats, and message IDs that are used once.

Peers keep state for very few quick modes at once (strongSwan for three), so wanted mappings wait in a queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vpnd.ike.faults import Drop
from vpnd.ike.outputs import ChildFailed, Failed
from vpnd.ike.retransmit import Schedule
from vpnd.ike.session import Phase
from vpnd.ike.v1 import informational, quick_mode
from vpnd.ike.v1.quick_mode import QuickMode, State
from vpnd.ike.v1.received import LONGEST_WAIT
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.proposals import NO_GROUP
from vpnd.wire.iana import Notify1

if TYPE_CHECKING:
    from vpnd.ike.v1.session import Session

PEERS_AT_ONCE = 8
"""Unfinished quick modes that a peer may have with us; it begins one for each mapping, most often in turn."""
REMEMBERED_IDS = 16_384
"""Message IDs whose reuse is known as such: a day of dead peer detection by both sides."""
REFUSALS_KEPT = 64
"""Refused quick modes of a peer whose repeats are answered alike: more than any peer begins at once."""
LINGER = 30.0
"""Seconds that a finished quick mode still answers repeats: a peer's whole retransmission."""
CROSSED = 3.0
"""Seconds in which copies of a peer's first message arrive; strongSwan repeats it after 4."""
ABOUT_GROUPS = frozenset(
    (
        Notify1.NO_PROPOSAL_CHOSEN,
        Notify1.ATTRIBUTES_NOT_SUPPORTED,
        Notify1.BAD_PROPOSAL_SYNTAX,
        Notify1.INVALID_KEY_INFORMATION,
    )
)
"""What peers say that want another PFS group, or none."""
UNREADABLE = frozenset(
    (Notify1.PAYLOAD_MALFORMED, Notify1.INVALID_HASH_INFORMATION, Notify1.INVALID_PAYLOAD_TYPE)
)
"""What peers say of a message that does not decrypt: they keep an IV chain for very few exchanges."""
UNREAD_WITHIN = 5.0
"""Seconds after our Quick3 in which such an error, with no SPI, is about it: nothing else tells us."""
UNANSWERED = 2
"""Successions in a row that a living peer did not answer: then it may under a new ISAKMP SA."""
NEVER_ACKNOWLEDGED = 30.0
"""Seconds in which it is repeated for a pair that the peer may have, and send on, while we never had it."""


@dataclass(slots=True)
class Refusal:
    """Our answer to a quick mode that we refused, for repeats of `received`; `ends` on the caller's clock."""

    received: bytes
    sent: tuple[bytes, ...]
    ends: float
    repeats: int = 0


class Quicks:
    """Quick modes by message ID."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._by_id: dict[int, QuickMode] = {}
        self._ends: dict[int, float] = {}
        self._refusals: dict[int, Refusal] = {}
        self._used: dict[int, None] = {}
        self._crossed: dict[int, float] = {}
        self._unanswered_successions = 0
        self._unread: set[int] = set()
        self._done_at = float("-inf")

    # --- ours

    def want(self, now: float, mapping: int, replaces: int | None = None) -> None:
        """A pair of SAs for this mapping, as soon as none of ours is under way.

        The last wish counts: a pair that was to be succeeded may be gone, and the mapping wants its first.
        """
        quick = self.own()
        if quick is None or quick.policy.index != mapping:
            self._session.peer.wanted[mapping] = replaces
        elif replaces is None:
            quick.replaces = None
        self.next(now)

    def hand_on(self) -> None:
        """What we have begun and not finished is wanted once more, before all else."""
        quick, peer = self.own(), self._session.peer
        if quick is not None:
            self.abandon(quick)
            peer.wanted = {quick.policy.index: quick.replaces} | peer.wanted

    def own(self) -> QuickMode | None:
        """The one that we began and that waits for its answer."""
        return next((q for q in self._by_id.values() if q.initiator and q.state is State.SENT_QUICK1), None)

    def is_renewing(self, spi_in: int) -> bool:
        """Whether a successor of this pair is being made, or waits for its turn."""
        quick = self.own()
        return spi_in in self._session.peer.wanted.values() or (
            quick is not None and quick.replaces == spi_in
        )

    def next(self, now: float) -> None:
        """Begin the quick mode whose turn it is, if none of ours is under way."""
        session = self._session
        policies = {policy.index: policy for policy in session.policy.children}
        for mapping, replaces in list(session.peer.wanted.items()):
            if not session.may_begin or self.own() is not None:
                return
            if session.children.pending(mapping):
                # The peer has been faster; should nothing come of it, it is our turn.
                continue
            del session.peer.wanted[mapping]
            if mapping in policies and not session.children.settled(mapping, replaces):
                quick_mode.begin(session, now, policies[mapping], replaces)

    def abandon(self, quick: QuickMode) -> None:
        """It is not wanted any more. The peer may have answered already, so its answer is still taken."""
        quick.state = State.ABANDONED
        quick.schedule = None
        self._ends[quick.message_id] = quick.began + LINGER

    def restart(self, now: float) -> None:
        """What we have begun cannot be read by the peer: begin it anew."""
        quick = self.own()
        if quick is not None:
            self.abandon(quick)
            self.want(now, quick.policy.index, quick.replaces)

    # --- all

    def add(self, quick: QuickMode) -> None:
        """Messages with its ID belong to it."""
        self._by_id[quick.message_id] = quick
        self.use(quick.message_id)

    def cross(self, now: float, message_id: int, under_way: bool) -> None:
        """The peer's quick mode meets ours for the same mapping, which counts: Raises Drop.

        Copies of the peer's message that are still in the network when ours is done are dropped as well.
        A peer that does not know the rule repeats its message later, and finds it answered.
        """
        first = self._crossed.get(message_id)
        if under_way and first is None:
            self._crossed = {message_id: now}
        if under_way or (first is not None and now < first + CROSSED):
            raise Drop("crossing quick mode")

    def check_room(self) -> None:
        """Raises Drop if the peer has too many under way."""
        theirs = [q for q in self._by_id.values() if q.state is State.SENT_QUICK2]
        if len(theirs) >= PEERS_AT_ONCE:
            raise Drop("too many quick modes")

    def find(self, message_id: int) -> QuickMode | None:
        """The quick mode with this message ID. Raises Drop for an ID whose exchange is over."""
        quick = self._by_id.get(message_id)
        if quick is None and message_id in self._used:
            raise Drop("message ID used before")
        return quick

    def use(self, message_id: int) -> None:
        """An exchange has this message ID: a replay of it is known as such."""
        self._used[message_id] = None
        if len(self._used) > REMEMBERED_IDS:
            del self._used[next(iter(self._used))]

    def is_used(self, message_id: int) -> bool:
        """Whether an exchange has or had this message ID."""
        return message_id in self._used

    def busy(self, now: float) -> bool:
        """Whether one is under way, or over so lately that its last message may not have arrived."""
        if now < self._done_at + self._session.registry.limits.closing:
            return True
        return any(q.state in (State.SENT_QUICK1, State.SENT_QUICK2) for q in self._by_id.values())

    def done(self, now: float, quick: QuickMode) -> None:
        """Both sides have the SAs; the exchange stays to answer repeats."""
        self._unanswered_successions = 0
        self._done_at = now
        quick.state = State.DONE
        quick.schedule = None
        quick.key_pair = None
        self._ends[quick.message_id] = now + LINGER
        self._session.current_sa.quicks.settle(now)

    def confirmed(self, now: float, spi_in: int) -> None:
        """The peer sends on the pair of one of its quick modes, so it has had our answer."""
        for quick in list(self._by_id.values()):
            if quick.spi_in == spi_in and quick.state is State.SENT_QUICK2:
                self.done(now, quick)

    def settle(self, now: float) -> None:
        """A pair has come up: what we have begun for the same is not needed, and the next has its turn."""
        quick = self.own()
        if quick is not None and self._session.children.settled(quick.policy.index, quick.replaces):
            self.abandon(quick)
        self.next(now)

    def fail(self, now: float, quick: QuickMode, diagnosis: Diagnosis) -> None:
        """It ends without SAs; the next mapping has its turn."""
        session = self._session
        wanted = quick.state is not State.ABANDONED
        self._drop(quick, diagnosis)
        if not wanted:
            return
        if quick.initiator:
            session.registry.emit(ChildFailed(session.tunnel, quick.policy.index, diagnosis))
        else:
            session.registry.emit(Failed(session.tunnel, diagnosis, initiator=False))
        self.next(now)

    def meant_by(self, spi: bytes) -> QuickMode | None:
        """The quick mode that an error of the peer is about: by an SPI of it, else ours, else its latest."""
        waiting = [q for q in self._by_id.values() if q.state in (State.SENT_QUICK1, State.SENT_QUICK2)]
        for quick in waiting:
            spis = {quick.spi_in, quick.child.spi_out if quick.child is not None else quick.spi_in}
            if spi in {one.to_bytes(4, "big") for one in spis}:
                return quick
        return self.own() or next(reversed(waiting), None)

    def last_unread(self, now: float) -> bool:
        """Whether the peer could not read a Quick3 of ours: it has no SAs then, and the mapping gets others.

        Under load strongSwan handles a Quick3 after what we sent next, and by then knows its IV no more. Once
        for a mapping: a peer that reads no Quick3 of ours would have quick modes without end.
        """
        lately = [
            quick
            for quick in self._by_id.values()
            if quick.initiator and quick.state is State.DONE and quick.policy.index not in self._unread
            if now < self._ends[quick.message_id] - LINGER + UNREAD_WITHIN
        ]
        if not lately:
            return False
        quick = lately[-1]
        self._unread.add(quick.policy.index)
        if not self._session.children.settled(quick.policy.index, quick.spi_in):
            self._session.current_sa.quicks.want(now, quick.policy.index, quick.spi_in)
        return True

    def peer_refused(self, now: float, quick: QuickMode, notify: int, diagnosis: Diagnosis) -> None:
        """The peer has refused it. Another PFS group may do where the first was the trouble of ours."""
        if not quick.initiator:
            self.fail(now, quick, diagnosis)
            return
        further = self._further_groups(quick) if notify in ABOUT_GROUPS else ()
        if further:
            self._drop(quick, diagnosis)
            refused = (*quick.refused, quick.group)
            quick_mode.begin(self._session, now, quick.policy, quick.replaces, further[0], refused)
            return
        self.fail(now, quick, diagnosis)

    def _further_groups(self, quick: QuickMode) -> tuple[int, ...]:
        """What to ask for next. Where PFS is off, the peer may want it: with the ISAKMP SA's group, once."""
        groups = quick.policy.pfs
        if groups:
            return groups[groups.index(quick.group) + 1 :] if quick.group in groups else ()
        own = self._session.suite.dh or NO_GROUP
        return tuple({NO_GROUP, own} - {*quick.refused, quick.group})

    def end(self, now: float, diagnosis: Diagnosis) -> None:
        """The ISAKMP SA is gone: nothing is under way any more, and a successor sees to what that leaves."""
        current = self._session.peer.current
        if current is not None and current is not self._session and current.may_begin:
            self._take_back_under(now, current)
        for quick in list(self._by_id.values()):
            self._drop(quick, diagnosis)
        self._ends.clear()
        self._refusals.clear()

    def _take_back_under(self, now: float, current: Session) -> None:
        """A predecessor ends: the peer may have the pairs that it would have taken back, and send on them."""
        for quick in self._by_id.values():
            if quick.state in (State.SENT_QUICK2, State.GIVEN_UP):
                entropy = current.registry.entropy
                current.peer.repeat_delete(now, quick.spi_in, entropy, NEVER_ACKNOWLEDGED, LONGEST_WAIT)
                informational.send_delete_child(current, quick.spi_in)
        current.registry.arm(current)

    def _drop(self, quick: QuickMode, diagnosis: Diagnosis) -> None:
        """Forget the exchange, and its SAs unless both sides have them."""
        self._by_id.pop(quick.message_id, None)
        self._ends.pop(quick.message_id, None)
        if quick.state is State.GIVEN_UP:
            self._session.registry.release_esp_spi(quick.spi_in)
        elif quick.state is not State.DONE:
            self._session.remove_child(quick.spi_in, diagnosis)

    # --- repeats

    def repeat(self, now: float, quick: QuickMode) -> None:
        """Answer a repeated message with the last answer, a bounded number of times."""
        quick.repeats += 1
        if quick.initiator and quick.state is State.DONE:
            # The peer has not had our third message, and not the pair either.
            self._session.children.give_time(now, quick.spi_in)
        self._repeat(quick.last_sent, quick.repeats)

    def refused(self, now: float, message_id: int, received: bytes, sent: tuple[bytes, ...]) -> None:
        """A quick mode of the peer was refused; a repeat of its message is answered alike."""
        self.use(message_id)
        self._refusals[message_id] = Refusal(received, sent, now + LINGER)
        if len(self._refusals) > REFUSALS_KEPT:
            del self._refusals[next(iter(self._refusals))]

    def repeat_refusal(self, message_id: int, received: bytes) -> bool:
        """Whether this was a repeat of what we have refused; it has been answered then."""
        refusal = self._refusals.get(message_id)
        if refusal is None or refusal.received != received:
            return False
        refusal.repeats += 1
        self._repeat(refusal.sent, refusal.repeats)
        return True

    def _repeat(self, datagrams: tuple[bytes, ...], times: int) -> None:
        if times > self._session.registry.limits.repeats:
            raise Drop("repeated too often")
        self._session.carrier.repeat(self._session.path, datagrams)

    # --- time

    def ivs(self) -> dict[int, bytes]:
        """The last block of each, by its message ID."""
        return {message_id: quick.chain.iv for message_id, quick in self._by_id.items()}

    def next_timeout(self) -> float | None:
        """The earliest deadline of all quick modes."""
        due = [quick.schedule.due for quick in self._by_id.values() if quick.schedule is not None]
        due += [refusal.ends for refusal in self._refusals.values()]
        return min([*due, *self._ends.values()], default=None)

    def handle_timeout(self, now: float) -> None:
        """Forget what is over, repeat what has no answer yet, give up what has had none for long."""
        over = Diagnosis.of(Code.SILENT, exchange="quick mode")
        for message_id in [one for one, end in self._ends.items() if end <= now]:
            del self._ends[message_id]
            self._drop(self._by_id[message_id], over)
        for message_id in [one for one, refusal in self._refusals.items() if refusal.ends <= now]:
            del self._refusals[message_id]
        for quick in list(self._by_id.values()):
            schedule = quick.schedule
            if schedule is None or schedule.due > now:
                continue
            if schedule.exhausted(now):
                self._unanswered(now, quick)
                continue
            schedule.again(now)
            self._session.attempt.repeat_unconfirmed()
            if quick.state is State.GIVEN_UP:
                informational.send_delete_child(self._session, quick.spi_in)
            else:
                self._session.carrier.repeat(self._session.path, quick.last_sent)

    def _unanswered(self, now: float, quick: QuickMode) -> None:
        session = self._session
        if quick.state is State.GIVEN_UP:
            self._by_id.pop(quick.message_id, None)
            session.registry.release_esp_spi(quick.spi_in)
            return
        diagnosis = session.attempt.hint or Diagnosis.of(
            Code.SILENT, exchange="quick mode", mapping=str(quick.policy), peer=session.path.remote
        )
        self.fail(now, quick, diagnosis)
        if quick.initiator:
            session.silent_since(now, quick.began)
            self._count_succession(now, quick)
        elif session.phase is not Phase.GONE:
            self._take_back(now, quick)

    def _count_succession(self, now: float, quick: QuickMode) -> None:
        """A pair that works has found no successor: there is time for a new phase 1 before it ends."""
        if quick.replaces is None:
            return
        self._unanswered_successions += 1
        if self._unanswered_successions >= UNANSWERED:
            self._unanswered_successions = 0
            self._session.rekey(now)

    def _take_back(self, now: float, quick: QuickMode) -> None:
        """The initiator may have the SAs, if all its acknowledgements were lost: tell it more than once."""
        quick.state = State.GIVEN_UP
        entropy = self._session.registry.entropy
        quick.schedule = Schedule(now, entropy, NEVER_ACKNOWLEDGED, LONGEST_WAIT)
        self._by_id[quick.message_id] = quick
        informational.send_delete_child(self._session, quick.spi_in)
