"""The probes of a peer that refuses, with a real endpoint: what it takes is learnt, and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tests.simulation.policies import IKE, NAME, mirrored, policy
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import Established, LadderLine, Transmit
from vpnd.ike.v2.proposals import decode_sa
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity
from vpnd.model.policy import Diagnose, NegotiationMode, PeerPolicy
from vpnd.model.proposals import Proposal
from vpnd.model.secret import Secret
from vpnd.tunnel.prober import ROUND_EVERY, ROUNDS, Learned, Prober, ProbingBegan
from vpnd.tunnel.probes import SINGLES
from vpnd.tunnel.standing import Standing
from vpnd.wire.header import HEADER_LENGTH, Header
from vpnd.wire.iana import Exchange1, IkeVersion, Protocol
from vpnd.wire.ikev2 import Sa, decode_payloads

REFUSED = Diagnosis.of(Code.P1_PROPOSAL)
SILENT = Diagnosis.of(Code.SILENT)
NOT_PROVED = Diagnosis.of(Code.PSK, notify="AUTHENTICATION_FAILED")


def ike(
    encryption: str = "aes-128", hash_word: str = "sha256", group: int = 31, *, aead: bool = False
) -> tuple[Proposal, ...]:
    """One proposal of one suite."""
    return (Proposal(Protocol.IKE, (encryption,), (hash_word,), () if aead else (hash_word,), (group,)),)


def as_v1(peer: PeerPolicy) -> PeerPolicy:
    return replace(peer, version=IkeVersion.V1, mode=NegotiationMode.MAIN)


class Talk:
    """Our prober, and the peer's endpoint; `cut` loses what is sent."""

    def __init__(self, ours: PeerPolicy, theirs: PeerPolicy) -> None:
        self.ours = ours
        self.prober = Prober(SeededEntropy(1))
        self.peer = Endpoint(SeededEntropy(2))
        self.peer.set_peer(0.0, theirs)
        self.now = 0.0
        self.cut = False
        self.altered = b"", b""
        """What stands in the peer's answers, and what arrives in its place."""
        self.said: list[ProbingBegan | Learned] = []
        self.established = 0
        self.asked: list[bytes] = []
        self.drawn = 0
        """Messages of ours in the ladder."""

    def fail(self, failure: Diagnosis, times: int = 2, diagnose: Diagnose = Diagnose.AUTO) -> None:
        for _ in range(times):
            self.prober.failed(self.now, self.ours, failure, diagnose)
        self.deliver()

    def deliver(self) -> None:
        """What both have to send, until neither has anything."""
        while self.prober.outputs or self.peer.outputs:
            while self.prober.outputs:
                self._of_ours(self.prober.outputs.popleft())
            while self.peer.outputs:
                output = self.peer.outputs.popleft()
                self.established += isinstance(output, Established)
                if isinstance(output, Transmit) and self.prober.hears(output.data):
                    data = output.data.replace(*self.altered) if any(self.altered) else output.data
                    self.prober.handle_datagram(self.now, turned(output.path), data)

    def _of_ours(self, output: object) -> None:
        if isinstance(output, ProbingBegan | Learned):
            self.said.append(output)
        elif isinstance(output, LadderLine):
            self.drawn += output.outbound
        elif isinstance(output, Transmit) and not self.cut:
            self.asked.append(output.data)
            self.peer.handle_datagram(self.now, turned(output.path), output.data)

    def run(self, seconds: float) -> None:
        """Let time pass at both ends."""
        end = self.now + seconds
        while True:
            due = [at for one in (self.prober, self.peer) if (at := one.next_timeout()) is not None]
            at = min(due, default=end)
            if at > end:
                break
            self.now = max(self.now, at)
            self.prober.handle_timeout(self.now)
            self.peer.handle_timeout(self.now)
            self.deliver()
            if not due:
                break
        self.now = end

    def learnt(self) -> Diagnosis | None:
        (found,) = (one for one in self.said if isinstance(one, Learned))
        return found.diagnosis


def turned(path: Path) -> Path:
    return Path(path.remote, path.remote_port, path.local, path.local_port)


@pytest.mark.parametrize(
    ("ours", "theirs", "code", "values"),
    [
        (ike(group=31), ike(group=14), Code.P1_DH, ("14", "31")),
        (ike("aes-256"), ike("aes-128"), Code.P1_ENCRYPTION, ("aes-128", "aes-256")),
        (ike("aes-256"), ike("aes-128-gcm", aead=True), Code.P1_ENCRYPTION, ("aes-128-gcm", "aes-256")),
        (ike("aes-256-gcm", aead=True), ike(), Code.P1_ENCRYPTION, ("aes-128", "aes-256-gcm")),
        (ike(hash_word="sha512"), ike(), Code.P1_INTEGRITY, ("sha256", "sha512")),
        (
            ike("aes-256", "sha512"),
            ike("aes-128", "sha256", 14),
            Code.P1_PROPOSAL,
            ("aes-128/sha256/dh14", "aes-256/sha512/dh31"),
        ),
        (
            ike("aes-256-gcm", "sha512", aead=True),
            ike("aes-128-gcm", "sha256", 14, aead=True),
            Code.P1_PROPOSAL,
            ("aes-128-gcm/dh14", "aes-256-gcm/prf-sha512/dh31"),
        ),
    ],
)
def test_what_the_peer_takes_is_learnt(
    ours: tuple[Proposal, ...], theirs: tuple[Proposal, ...], code: Code, values: tuple[str, str]
) -> None:
    talk = Talk(policy(proposals=ours), mirrored(policy(proposals=theirs)))
    talk.fail(REFUSED, diagnose=Diagnose.ALL)
    talk.run(120)
    found = talk.learnt()
    assert found is not None
    assert (found.code, (found.fact("theirs"), found.fact("ours"))) == (code, values)
    assert found.fact("probed") == "yes"
    assert talk.established == 0
    assert talk.drawn == len(talk.asked)
    assert not talk.peer.snapshot().sas, "nothing is half-open"
    assert talk.prober.next_timeout() is None


@pytest.mark.parametrize("ours", [IkeVersion.V1, IkeVersion.V2])
@pytest.mark.parametrize("failure", [REFUSED, SILENT], ids=["refused", "silent"])
def test_the_other_version_is_found(ours: IkeVersion, failure: Diagnosis) -> None:
    both = policy(), as_v1(policy())
    mine, theirs = both if ours is IkeVersion.V2 else both[::-1]
    talk = Talk(mine, mirrored(theirs))
    talk.fail(failure)
    talk.run(60)
    found = talk.learnt()
    assert found is not None
    assert (found.code, found.fact("theirs")) == (
        Code.VERSION,
        "ikev1" if ours is IkeVersion.V2 else "ikev2",
    )
    assert talk.established == 0


LISTS = (
    Proposal(Protocol.IKE, ("aes-256", "aes-128"), ("sha512", "sha256"), ("sha512", "sha256"), (31, 14)),
    Proposal(Protocol.IKE, ("aes-256-gcm",), ("sha256",), (), (31, 14)),
)


@pytest.mark.parametrize("version", [IkeVersion.V1, IkeVersion.V2])
def test_what_is_taken_alone_is_learnt(version: IkeVersion) -> None:
    """A peer that has refused the list, and takes the one combination that it has."""
    both = policy(proposals=LISTS), policy(proposals=ike("aes-128", "sha256", 14))
    if version is IkeVersion.V1:
        both = as_v1(replace(both[0], proposals=LISTS[:1])), as_v1(both[1])
    talk = Talk(both[0], mirrored(both[1]))
    talk.fail(REFUSED)
    talk.run(120)
    found = talk.learnt()
    assert found is not None
    assert (found.code, found.fact("theirs"), found.fact("probed")) == (
        Code.P1_PROPOSAL,
        "aes-128/sha256/dh14",
        "alone",
    )
    assert talk.established == 0
    if version is IkeVersion.V2:
        assert not talk.peer.snapshot().sas, "nothing is half-open"
    else:
        last = Header.decode(talk.asked[-1])
        assert last.exchange == Exchange1.INFORMATIONAL, "the peer is to forget it"


@pytest.mark.parametrize("failure", [REFUSED, SILENT], ids=["refused", "silent"])
@pytest.mark.parametrize("lists", [LISTS, LISTS[1:], LISTS[:1], ike()], ids=["both", "aead", "plain", "one"])
def test_only_what_is_configured_is_offered(lists: tuple[Proposal, ...], failure: Diagnosis) -> None:
    talk = Talk(policy(proposals=lists), mirrored(policy(proposals=ike("3des", "md5", 2))))
    talk.fail(failure)
    talk.run(120)
    assert not any(isinstance(one, Learned) and one.diagnosis for one in talk.said)
    for sa in offered(talk.asked):
        *real, decoy = sa
        assert decoy.encryption == ("encr-65535",)
        for one in real:
            for kind in ("encryption", "prf", "integrity", "dh"):
                ours = {word for proposal in lists for word in getattr(proposal, kind)}
                assert set(getattr(one, kind)) <= ours
            assert not set(one.dh) & set(decoy.dh), "what belongs to KE cannot be taken"
    if failure is REFUSED:
        count = sum(len(p.encryption) * len(p.prf) * len(p.dh) for p in lists)
        assert len({repr(sa) for sa in offered(talk.asked)}) == (min(count, SINGLES) if count > 1 else 0)


def offered(asked: list[bytes]) -> Iterator[tuple[Proposal, ...]]:
    """The proposals of each IKE_SA_INIT."""
    for data in asked:
        header = Header.decode(data)
        if header.major == IkeVersion.V2:
            payloads = decode_payloads(header.next_payload, data[HEADER_LENGTH:])
            yield from (decode_sa(one) for one in payloads if isinstance(one, Sa))


def test_a_peer_that_takes_none_of_ours_shows_no_more() -> None:
    talk = Talk(policy(proposals=ike(group=31)), mirrored(policy(proposals=ike(group=14))))
    talk.fail(REFUSED)
    talk.run(120)
    assert talk.learnt() is None


def test_a_peer_that_wants_a_group_that_was_not_offered_shows_no_more() -> None:
    talk = Talk(policy(proposals=LISTS), mirrored(policy(proposals=ike("aes-128", "sha256", 14))))
    talk.altered = b"\x00\x11\x00\x0e", b"\x00\x11\x00\x18"  # INVALID_KE_PAYLOAD, 14 becomes 24
    talk.fail(REFUSED)
    talk.run(120)
    assert talk.learnt() is None


def test_a_peer_that_has_another_sa_with_us_is_not_asked_who_it_is() -> None:
    talk = Talk(policy(), mirrored(policy()))
    for _ in range(2):
        talk.prober.failed(0.0, talk.ours, NOT_PROVED, shares=True)
    assert not talk.prober.outputs


def test_algorithms_are_asked_in_main_mode_too() -> None:
    talk = Talk(as_v1(policy(proposals=ike(group=5))), mirrored(as_v1(policy(proposals=ike(group=14)))))
    talk.fail(REFUSED, diagnose=Diagnose.ALL)
    talk.run(60)
    found = talk.learnt()
    assert found is not None
    assert (found.code, found.fact("theirs"), found.fact("exchange")) == (Code.P1_DH, "14", "main mode")


def test_who_the_peer_is_is_proved_and_its_sa_is_closed() -> None:
    ours = policy(remote_id=Identity.of("x.example"))
    talk = Talk(ours, mirrored(policy()))
    talk.fail(NOT_PROVED)
    found = talk.learnt()
    assert found is not None
    assert (found.code, found.fact("theirs"), found.fact("key")) == (
        Code.IDENTITY,
        "b.example (FQDN)",
        "proved",
    )
    talk.run(100)
    assert not talk.peer.snapshot().sas
    assert talk.prober.next_timeout() is None


def test_a_peer_that_is_who_we_look_for_is_left_again() -> None:
    """It has refused for another reason, which is over."""
    talk = Talk(policy(), mirrored(policy()))
    talk.fail(NOT_PROVED)
    assert talk.learnt() is None
    assert talk.established == 1
    talk.run(100)
    assert not talk.peer.snapshot().sas


@pytest.mark.parametrize(
    "theirs", [{"psk": Secret(b"another key, long enough")}, {"local_id": Identity.of("x.example")}]
)
def test_a_peer_that_refuses_whoever_it_is_has_another_key_or_wants_another_identity(
    theirs: dict[str, Any],
) -> None:
    """Of a tunnel mirrored there: its key, or who it looks for."""
    talk = Talk(policy(), mirrored(policy(**theirs)))
    talk.fail(NOT_PROVED)
    talk.run(60)
    found = talk.learnt()
    assert found is not None
    assert (found.code, found.fact("probed"), found.fact("notify")) == (
        Code.PSK,
        "yes",
        "AUTHENTICATION_FAILED",
    )
    assert talk.established == 0


@pytest.mark.parametrize("group", [24, 31])
def test_a_peer_that_wants_other_algorithms_now_does_not_say_who_it_is(group: int) -> None:
    """Its group is not what the attempts failed with."""
    talk = Talk(policy(proposals=LISTS), mirrored(policy(proposals=ike("aes-128", "sha256", 14))))
    talk.altered = b"\x00\x11\x00\x0e", bytes((0, 17, 0, group))  # INVALID_KE_PAYLOAD names another
    talk.fail(NOT_PROVED)
    talk.run(120)
    assert talk.learnt() is None
    assert talk.established == 0
    assert talk.prober.next_timeout() is None


AGGRESSIVE = replace(as_v1(policy()), mode=NegotiationMode.AGGRESSIVE)
REFUSED_IDENTITY = Diagnosis.of(
    Code.IDENTITY, exchange="aggressive mode", notify="AUTHENTICATION_FAILED", whose="ours"
)


@pytest.mark.parametrize(
    ("failure", "established"),
    [(SILENT, 0), (REFUSED, 0), (REFUSED_IDENTITY, 1)],
    ids=lambda one: str(one)[:30],
)
def test_a_peer_of_main_mode_is_found(failure: Diagnosis, established: int) -> None:
    talk = Talk(AGGRESSIVE, mirrored(as_v1(policy())))
    talk.fail(failure)
    found = talk.learnt()
    assert found is not None
    assert (found.code, found.fact("theirs"), found.fact("ours")) == (Code.MODE, "main", "aggressive")
    assert found.fact("key") == ("proved" if established else None)
    assert talk.established == established
    talk.run(100)
    assert not talk.peer.snapshot().sas
    assert talk.prober.next_timeout() is None


def test_a_refusal_before_the_peer_proves_itself_says_nothing_of_who_it_is() -> None:
    """It wants another group by now, which a probe of its identity does not look for."""
    talk = Talk(policy(), mirrored(policy(proposals=ike(group=14))))
    talk.fail(NOT_PROVED)
    talk.run(60)
    assert talk.asked
    assert talk.learnt() is None
    assert not talk.peer.snapshot().sas


def test_a_peer_of_main_mode_with_another_identity_is_of_main_mode_first() -> None:
    other = replace(AGGRESSIVE, remote_id=Identity.of("other.example"))
    talk = Talk(other, mirrored(as_v1(policy())))
    talk.fail(REFUSED_IDENTITY)
    talk.run(60)
    found = talk.learnt()
    assert found is not None
    assert found.code is Code.MODE


def test_a_peer_of_aggressive_mode_that_refuses_our_identity_shows_no_more() -> None:
    talk = Talk(AGGRESSIVE, mirrored(replace(AGGRESSIVE, local_id=Identity.of("x.example"))))
    talk.fail(REFUSED_IDENTITY)
    talk.run(60)
    assert talk.learnt() is None
    assert talk.established == 0


@pytest.mark.parametrize(
    "failure", [SILENT, REFUSED, REFUSED_IDENTITY], ids=["silent", "refused", "identity"]
)
def test_aggressive_mode_is_never_tried(failure: Diagnosis) -> None:
    """It shows our identity to anyone on the way."""
    for ours in (as_v1(policy()), policy(), AGGRESSIVE):
        talk = Talk(ours, mirrored(AGGRESSIVE))
        talk.fail(failure, diagnose=Diagnose.ALL)
        talk.run(200)
        exchanges = {Header.decode(data).exchange for data in talk.asked}
        assert Exchange1.AGGRESSIVE not in exchanges


def test_a_peer_that_answers_nothing_shows_no_more() -> None:
    talk = Talk(policy(), mirrored(policy()))
    talk.cut = True
    talk.fail(REFUSED)
    talk.run(60)
    assert talk.learnt() is None
    assert talk.prober.next_timeout() is None


def test_one_failure_or_two_of_different_kinds_are_no_reason() -> None:
    talk = Talk(policy(), mirrored(policy()))
    talk.fail(REFUSED, times=1)
    talk.fail(SILENT, times=1)
    talk.fail(Diagnosis.of(Code.PEER_DEAD), times=3)
    assert talk.said == []


def test_a_tunnel_is_asked_for_once_in_ten_minutes() -> None:
    talk = Talk(policy(proposals=ike(group=14)), mirrored(policy(proposals=IKE)))
    talk.fail(REFUSED, times=9)
    talk.run(60)
    assert [type(one) for one in talk.said] == [ProbingBegan, Learned]
    talk.run(ROUND_EVERY + 1)
    talk.fail(REFUSED)
    talk.run(60)
    assert [type(one) for one in talk.said] == [ProbingBegan, Learned] * 2


def test_few_are_asked_for_at_the_same_time() -> None:
    prober = Prober(SeededEntropy(1))
    for number in range(ROUNDS + 3):
        for _ in range(2):
            peer = policy(f"t{number}", remote_address=ip_address(f"192.0.2.{number + 10}"))
            prober.failed(0.0, peer, REFUSED)
    assert sum(isinstance(one, ProbingBegan) for one in prober.outputs) == ROUNDS


def test_two_tunnels_of_one_peer_are_asked_for_one_after_the_other() -> None:
    """Peers limit the half-open IKE SAs of an address, and the attempts themselves are some."""
    prober = Prober(SeededEntropy(1))
    for name in ("t", "u", "t", "u", "u"):
        prober.failed(0.0, policy(name), REFUSED)
    began = [one.tunnel for one in prober.outputs if isinstance(one, ProbingBegan)]
    assert began == ["t"]
    prober.stop(0.0, "t")
    prober.failed(1.0, policy("u"), REFUSED)
    assert [one.tunnel for one in prober.outputs if isinstance(one, ProbingBegan)] == ["t", "u"]


def test_without_an_address_or_a_mapping_nobody_is_asked() -> None:
    prober = Prober(SeededEntropy(1))
    for peer in (policy(remote_address=None), policy("u", children=())):
        for _ in range(2):
            prober.failed(0.0, peer, REFUSED)
    assert not prober.outputs


@pytest.mark.parametrize("failure", [REFUSED, NOT_PROVED], ids=["algorithms", "identity"])
def test_a_tunnel_that_comes_up_or_goes_asks_no_more(failure: Diagnosis) -> None:
    talk = Talk(policy(), mirrored(policy()))
    talk.cut = True
    talk.fail(failure)
    busy = [talk.prober.is_busy]
    talk.prober.stop(talk.now, NAME)
    assert [*busy, talk.prober.is_busy] == [True, False]
    talk.run(60)
    assert [type(one) for one in talk.said] == [ProbingBegan]
    assert talk.prober.next_timeout() is None
    talk.prober.forget(talk.now, NAME)
    talk.prober.forget(talk.now, "nobody")


def test_what_was_learnt_stands_for_failures_of_that_kind_alone() -> None:
    standing, differs = Standing(), Diagnosis.of(Code.P1_DH, theirs="14", ours="31")
    standing.learn(0.0, Code.P1_PROPOSAL, differs)
    assert not standing.faults
    standing.record(1.0, REFUSED, None)
    standing.learn(2.0, Code.P1_PROPOSAL, differs)
    standing.record(3.0, REFUSED, None)
    assert standing.error is not None
    assert standing.error.diagnosis == differs
    standing.record(4.0, SILENT, None)
    assert standing.error.diagnosis == SILENT
    standing.works()
    standing.record(5.0, REFUSED, None)
    assert standing.error.diagnosis == REFUSED


def test_what_was_learnt_ends_when_the_peer_shows_it_no_longer() -> None:
    """It was mended at the peer, and attempts fail in the same way for another reason."""
    standing, differs = Standing(), Diagnosis.of(Code.P1_DH, theirs="14", ours="31")
    standing.record(1.0, REFUSED, None)
    standing.learn(2.0, Code.P1_PROPOSAL, differs)
    other = Diagnosis.of(Code.P1_ENCRYPTION, theirs="aes-128", ours="aes-256")
    standing.learn(3.0, Code.P1_PROPOSAL, other)
    assert standing.error is not None
    assert standing.error.diagnosis == other
    standing.learn(4.0, Code.P1_PROPOSAL, None)
    assert standing.error.diagnosis == REFUSED
    standing.record(5.0, REFUSED, None)
    assert standing.error.diagnosis == REFUSED
    standing.forget_error()
    standing.note(6.0, SILENT)
    standing.learn(7.0, Code.P1_PROPOSAL, differs)
    assert standing.error.diagnosis == SILENT


def test_a_refusal_before_the_tunnel_was_up_is_history() -> None:
    standing = Standing()
    standing.refuse(1.0, NOT_PROVED)
    before = standing.failure(all_up=False)
    assert before is not None
    assert before.diagnosis == NOT_PROVED
    for passes in (standing.works, standing.forget_error):
        standing.refuse(2.0, NOT_PROVED)
        passes()
        assert standing.failure(all_up=False) is None
        assert [*standing.refused] == [Code.PSK], "what is kept of it"


def test_why_packets_do_not_pass_keeps_the_time_of_its_beginning() -> None:
    standing = Standing()
    standing.impede(1.0, Diagnosis.of(Code.ONE_WAY, seconds=10))
    standing.impede(2.0, Diagnosis.of(Code.ONE_WAY, seconds=10))
    standing.impede(3.0, Diagnosis.of(Code.ONE_WAY, seconds=20))
    assert standing.impaired is not None
    assert (standing.impaired.at, len(standing.faults)) == (1.0, 1)
    standing.impede(4.0, Diagnosis.of(Code.NO_REPLY))
    assert (standing.impaired.at, len(standing.faults)) == (4.0, 2)
    standing.forget_flow()
    assert standing.impaired is None
