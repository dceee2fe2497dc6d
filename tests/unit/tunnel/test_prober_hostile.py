"""Probes of a peer that answers them wrongly, late, or in a hostile way: nothing breaks, little is sent, and
nothing stays behind.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from tests.simulation.policies import ADDRESS_A, ADDRESS_B, Recipe
from tests.simulation.puppet import Puppet, esp_sa, in_clear, subnet
from tests.unit.tunnel.test_prober import NOT_PROVED, REFUSED, REFUSED_IDENTITY, SILENT, as_v1, turned
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.outputs import LadderLine, Transmit
from vpnd.model.child import Path
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.identity import Identity
from vpnd.model.policy import Diagnose, NegotiationMode, PeerPolicy
from vpnd.model.proposals import Proposal
from vpnd.tunnel.prober import ANSWER_WITHIN, CLOSED_WITHIN, LATE_WITHIN, Learned, Prober, ProbingBegan
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange1, Exchange2, Notify2, Protocol
from vpnd.wire.ikev2 import (
    Delete,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    ProposalPart,
    Sa,
    Transform,
    TsI,
    TsR,
    decode_payloads,
)

KEY = Recipe().psk
OURS = Recipe().policy("t", ADDRESS_A, ADDRESS_B, 1, 2)
LISTS = (
    Proposal(Protocol.IKE, ("aes-256", "aes-128"), ("sha512", "sha256"), ("sha512", "sha256"), (31, 14)),
    Proposal(Protocol.IKE, ("aes-256-gcm",), ("sha256",), (), (31, 14)),
)
SEVERAL = replace(OURS, proposals=LISTS)
Answer = Callable[[bytes, int], Sequence[bytes]]
"""What a peer sends for a message of ours, which is the n-th."""


class Talk:
    """Our prober, and a peer that follows a script."""

    def __init__(self, ours: PeerPolicy, answer: Answer) -> None:
        self.ours, self.answer = ours, answer
        self.prober = Prober(SeededEntropy(1))
        self.now = 0.0
        self.asked: list[bytes] = []
        self.said: list[ProbingBegan | Learned] = []
        self.lines: list[LadderLine] = []
        self.elsewhere = 0
        """Answers that are none, so that they go to the endpoint of all tunnels."""
        self.late: list[tuple[float, bytes]] = []
        """What is still on its way, and when it arrives."""
        self.delay = 0.0

    def fail(self, failure: Diagnosis, diagnose: Diagnose = Diagnose.AUTO) -> None:
        for _ in range(2):
            self.prober.failed(self.now, self.ours, failure, diagnose)
        self.deliver()

    def deliver(self) -> None:
        outputs = self.prober.outputs
        while outputs:
            match outputs.popleft():
                case Transmit(_, path, data):
                    self.asked.append(data)
                    for one in self.answer(data, len(self.asked)):
                        if self.delay:
                            self.late.append((self.now + self.delay, one))
                        else:
                            self.arrive(turned(path), one)
                case LadderLine() as line:
                    self.lines.append(line)
                case ProbingBegan() | Learned() as said:
                    self.said.append(said)

    def arrive(self, path: Path, data: bytes) -> None:
        """Our side of the path is the local one."""
        if self.prober.hears(data):
            self.prober.handle_datagram(self.now, Path(path.remote, 500, path.local, 500), data)
        else:
            self.elsewhere += 1

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = [at for at in (self.prober.next_timeout(), *(at for at, _ in self.late)) if at is not None]
            at = min(due, default=end)
            if at > end or not due:
                break
            self.now = max(self.now, at)
            arrived, self.late = (
                [one for one in self.late if one[0] <= self.now],
                [one for one in self.late if one[0] > self.now],
            )
            for _, data in arrived:
                self.arrive(Path(ADDRESS_B, 500, ADDRESS_A, 500), data)
            self.prober.handle_timeout(self.now)
            self.deliver()
        self.now = end

    def is_over(self, most: int) -> Diagnosis | None:
        """Nothing is left, little was sent, no secret was said; what was learnt."""
        assert not self.prober.is_busy
        assert self.prober.next_timeout() is None
        assert not any(self.prober.hears(data) for data in self.asked)
        assert len(self.asked) <= most, len(self.asked)
        assert [type(one) for one in self.said] == [ProbingBegan, Learned]
        secrets = (KEY.decode(), KEY.hex(), base64.b64encode(KEY).decode(), repr(KEY))
        said = repr((self.said, self.lines))
        assert not any(secret in said for secret in secrets)
        assert "\\x1b" not in said.replace("\\\\x1b", ""), "a terminal obeys it"
        last = self.said[-1]
        assert isinstance(last, Learned)
        return last.diagnosis


# ------------------------------------------------------------------------- what a peer may answer


def response(data: bytes, *payloads: Payload, spi_r: bytes = b"R" * 8) -> bytes:
    """To IKE_SA_INIT."""
    return in_clear(data[:8], spi_r, Exchange2.IKE_SA_INIT, Flag.RESPONSE, 0, payloads)


def notify(kind: int, body: bytes = b"") -> Answer:
    return lambda data, _: [response(data, Notify(kind, body), spi_r=bytes(8))]


def chosen(*transforms: Transform, group: int = 31, size: int = 32) -> Answer:
    def answer(data: bytes, _: int) -> list[bytes]:
        proposal = ProposalPart(1, Protocol.IKE, b"", transforms)
        return [response(data, Sa((proposal,)), KeyExchange(group, b"\x09" * size), Nonce(b"n" * 32))]

    return answer


def the_decoy(data: bytes, _: int) -> list[bytes]:
    """It takes what nobody takes: the last proposal of ours."""
    header = Header.decode(data)
    if header.exchange != Exchange2.IKE_SA_INIT:
        return []
    payloads = decode_payloads(header.next_payload, data[HEADER_LENGTH:])
    (offer,) = (one for one in payloads if isinstance(one, Sa))
    (ke,) = (one for one in payloads if isinstance(one, KeyExchange))
    return [response(data, Sa(offer.proposals[-1:]), ke, Nonce(b"n" * 32))]


def so_many(count: int) -> Answer:
    return lambda data, _: [response(data, Notify(9999, b""))] * count


def cut(data: bytes, at: int) -> bytes:
    whole = response(data, Notify(Notify2.NO_PROPOSAL_CHOSEN, b""))
    return whole[:at]


def header_of(data: bytes, body: bytes, version: int, exchange: int, flags: int = Flag.RESPONSE) -> bytes:
    total = HEADER_LENGTH + len(body)
    return Header(data[:8], b"R" * 8, 41, version, exchange, flags, 0, total).encode() + body


CAMELLIA = (Transform(1, 23, 256), Transform(2, 5), Transform(3, 12), Transform(4, 31))
UNKNOWN = tuple(Transform(kind, 60000) for kind in (1, 2, 3, 4))
HOSTILE: dict[str, Answer] = {
    "silence": lambda data, _: [],
    "no proposal": notify(Notify2.NO_PROPOSAL_CHOSEN),
    "an error nobody knows": notify(9999),
    "a status nobody knows": notify(40000, b"\x1b[2J" * 20),
    "another version": notify(Notify2.INVALID_MAJOR_VERSION),
    "two hundred notifies": lambda data, _: [response(data, *[Notify(9999, b"x" * 99)] * 200)],
    "ten messages": lambda data, _: [response(data, Notify(9999, b""))] * 10,
    "a cookie again and again": lambda data, n: [
        response(data, Notify(Notify2.COOKIE, bytes([n % 256]) * 64))
    ],
    "an empty cookie": notify(Notify2.COOKIE),
    "a long cookie": notify(Notify2.COOKIE, b"c" * 2000),
    "a group never offered": notify(Notify2.INVALID_KE_PAYLOAD, b"\x00\x18"),
    "no group": notify(Notify2.INVALID_KE_PAYLOAD),
    "half a group": notify(Notify2.INVALID_KE_PAYLOAD, b"\x0e"),
    "one group and the other": lambda data, n: [
        response(data, Notify(Notify2.INVALID_KE_PAYLOAD, bytes([0, (14, 31)[n % 2]])), spi_r=bytes(8))
    ],
    "what was never offered": chosen(*CAMELLIA),
    "algorithms nobody knows": chosen(*UNKNOWN),
    "no transforms": chosen(),
    "an empty value": chosen(*CAMELLIA, size=0),
    "the decoy": the_decoy,
    "other bytes": lambda data, n: [header_of(data, bytes(range(n % 256, 256)), 0x20, 34)],
    "a cut message": lambda data, n: [cut(data, at) for at in range(8, 40)],
    "60,000 bytes": lambda data, _: [header_of(data, b"\xff" * 60_000, 0x20, 34)],
    "a version of its own": lambda data, _: [header_of(data, b"", 0x70, 34)],
    "the version of the other": lambda data, _: [
        header_of(data, b"\x00" * 40, 0x10 if data[17] >> 4 == 2 else 0x20, Exchange1.INFORMATIONAL)
    ],
    "a protected message": lambda data, _: [header_of(data, b"\x00\x00\x00\x40" + b"s" * 60, 0x20, 35)],
    "a DELETE in clear": lambda data, _: [
        in_clear(data[:8], b"R" * 8, Exchange2.INFORMATIONAL, 0, 0, [Delete(Protocol.IKE, ())])
    ],
    "another SPI": lambda data, _: [response(b"another!", Notify(Notify2.NO_PROPOSAL_CHOSEN, b""))],
    "our own message": lambda data, _: [data],
    "our own message as an answer": lambda data, _: [data[:19] + bytes([Flag.RESPONSE]) + data[20:]],
}

AGGRESSIVE = replace(as_v1(SEVERAL), proposals=LISTS[:1], mode=NegotiationMode.AGGRESSIVE)
ROUNDS: dict[str, tuple[PeerPolicy, Diagnosis, Diagnose, int]] = {
    "single algorithms": (SEVERAL, REFUSED, Diagnose.AUTO, 12 + 1),
    "all algorithms": (SEVERAL, REFUSED, Diagnose.ALL, 150),
    "the version": (OURS, SILENT, Diagnose.AUTO, 1),
    "who it is": (OURS, NOT_PROVED, Diagnose.AUTO, 1),
    "single algorithms, ikev1": (as_v1(replace(OURS, proposals=LISTS[:1])), REFUSED, Diagnose.AUTO, 9),
    "the mode": (AGGRESSIVE, REFUSED_IDENTITY, Diagnose.AUTO, 1),
}
"""Ours, the failure, what is allowed, and the most probes of a round."""
TRIES = 8
"""Messages of one probe at most: three tries, two cookies, as many groups."""


@pytest.mark.parametrize("asked", ROUNDS)
@pytest.mark.parametrize("answer", HOSTILE)
def test_a_hostile_answer_ends_in_nothing(asked: str, answer: str) -> None:
    ours, failure, diagnose, probes = ROUNDS[asked]
    talk = Talk(ours, HOSTILE[answer])
    talk.fail(failure, diagnose)
    talk.run(probes * ANSWER_WITHIN + LATE_WITHIN + 1)
    learnt = talk.is_over(probes * TRIES)
    if learnt is not None:
        # A group of those that were offered may be what it wants: nobody proves that it is not.
        assert answer == "one group and the other"
        assert (learnt.fact("theirs") or "").rpartition("dh")[2] in ("14", "31", "ikev2")


def test_what_begins_something_is_no_answer() -> None:
    """It goes to where every other first message goes, and meets the bounds there."""
    talk = Talk(OURS, HOSTILE["our own message"])
    talk.fail(NOT_PROVED)
    talk.run(60)
    assert talk.elsewhere == len(talk.asked)


@pytest.mark.parametrize("ours", [SEVERAL, as_v1(replace(OURS, proposals=LISTS[:1]))], ids=["v2", "v1"])
def test_a_flood_of_answers_costs_little(ours: PeerPolicy) -> None:
    """It brings no further message of ours, and what is said of it is no more than what came."""
    asked = {}
    for count in (1, 100):
        talk = Talk(ours, so_many(count))
        talk.fail(REFUSED)
        talk.run(100)
        asked[count] = len(talk.asked)
        assert len([line for line in talk.lines if not line.outbound]) <= count * len(talk.asked)
        assert talk.is_over(100) is None
    assert asked[1] == asked[100]


# --------------------------------------------------------------------- a peer that has the key


class Proving:
    """A peer with the key, which answers IKE_AUTH with what a test makes of it, and keeps what we say."""

    def __init__(self, make: Callable[[Puppet], Sequence[Payload]]) -> None:
        self.make = make
        self.puppet = Puppet(False, ADDRESS_B, KEY, 7)
        self.heard: list[tuple[int, tuple[Payload, ...]]] = []
        """Exchange and payloads of each protected message."""

    def __call__(self, data: bytes, number: int) -> list[bytes]:
        puppet, header = self.puppet, Header.decode(data)
        if header.exchange == Exchange2.IKE_SA_INIT:
            puppet.take_init(data)
            return [puppet.init_message()]
        self.heard.append((header.exchange, tuple(puppet.open(data).payloads)))
        if header.exchange == Exchange2.IKE_AUTH:
            return [puppet.seal(Exchange2.IKE_AUTH, header.message_id, self.make(puppet), response=True)]
        return [puppet.seal(header.exchange, header.message_id, [], response=True)]

    @property
    def deleted(self) -> bool:
        """Whether we have closed the IKE SA that it made."""
        return any(
            isinstance(one, Delete) and one.protocol == Protocol.IKE
            for exchange, payloads in self.heard
            if exchange == Exchange2.INFORMATIONAL
            for one in payloads
        )


def proved(*child: Payload) -> Callable[[Puppet], Sequence[Payload]]:
    return lambda puppet: [puppet.identity, puppet.auth_payload(), *child]


AFTER_AUTH: dict[str, Callable[[Puppet], Sequence[Payload]]] = {
    "as asked": lambda puppet: puppet.auth_payloads(),
    "ranges never asked for": proved(esp_sa(0xC0FFEE01), TsI(subnet(8)), TsR(subnet(9))),
    "no SA": proved(Notify(Notify2.NO_PROPOSAL_CHOSEN, b"")),
    "no ranges": proved(esp_sa(0xC0FFEE01)),
    "many notifies": lambda puppet: [*puppet.auth_payloads(), *[Notify(40001, b"z" * 60)] * 100],
}


@pytest.mark.parametrize("answer", AFTER_AUTH)
def test_what_a_peer_with_the_key_makes_is_closed(answer: str) -> None:
    peer = Proving(AFTER_AUTH[answer])
    talk = Talk(replace(OURS, remote_id=Identity.of("x.example")), peer)
    talk.fail(NOT_PROVED)
    talk.run(60)
    talk.is_over(12)
    assert peer.deleted
    assert [exchange for exchange, _ in peer.heard].count(Exchange2.IKE_AUTH) == 1


@pytest.mark.parametrize("delay", [3.0, ANSWER_WITHIN + 1, CLOSED_WITHIN + ANSWER_WITHIN + 5])
def test_what_a_late_proof_makes_is_closed_too(delay: float) -> None:
    """Nothing is repeated meanwhile, so that no SA is made beside the tunnel's own."""
    peer = Proving(AFTER_AUTH["as asked"])

    def slow(data: bytes, number: int) -> Sequence[bytes]:
        talk.delay = delay if Header.decode(data).exchange == Exchange2.IKE_AUTH else 0.0
        return peer(data, number)

    talk = Talk(OURS, slow)
    talk.fail(NOT_PROVED)
    talk.run(delay + 60)
    talk.is_over(14)
    assert peer.deleted


@pytest.mark.parametrize("stopped", [True, False])
def test_a_probe_that_is_over_repeats_nothing(stopped: bool) -> None:
    """A tunnel that has come up is not to lose its SA to one that the peer makes of an old request."""

    def mute(data: bytes, number: int) -> Sequence[bytes]:
        return peer(data, number) if Header.decode(data).exchange == Exchange2.IKE_SA_INIT else []

    peer = Proving(AFTER_AUTH["as asked"])
    talk = Talk(OURS, mute)
    talk.fail(NOT_PROVED)
    if stopped:
        talk.prober.stop(talk.now, "t")
    else:
        talk.run(ANSWER_WITHIN)
    sent = len(talk.asked)
    talk.run(60)
    assert len(talk.asked) == sent
    assert talk.prober.next_timeout() is None


# ------------------------------------------------------------------------------- behind a NAT


class Behind:
    """Our prober behind a NAT, and a peer's endpoint, which sees other ports."""

    def __init__(self, ours: PeerPolicy, theirs: PeerPolicy) -> None:
        self.prober, self.peer = Prober(SeededEntropy(1)), Endpoint(SeededEntropy(2))
        self.peer.set_peer(0.0, theirs)
        self.ours, self.ports = ours, set[int]()
        self.said: list[object] = []

    def fail(self) -> None:
        for _ in range(2):
            self.prober.failed(0.0, self.ours, NOT_PROVED)
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[None]:
        while self.prober.outputs or self.peer.outputs:
            while self.prober.outputs:
                match self.prober.outputs.popleft():
                    case Transmit(_, path, data):
                        self.ports.add(path.local_port)
                        seen = Path(path.remote, path.remote_port, path.local, 30_000 + path.local_port)
                        self.peer.handle_datagram(0.0, seen, data)
                    case Learned() as said:
                        self.said.append(said)
            while self.peer.outputs:
                output = self.peer.outputs.popleft()
                if isinstance(output, Transmit) and self.prober.hears(output.data):
                    path = output.path
                    back = Path(path.remote, path.remote_port - 30_000, path.local, path.local_port)
                    self.prober.handle_datagram(0.0, back, output.data)
            yield


def test_behind_a_nat_it_is_proved_and_closed_on_port_4500() -> None:
    there = Recipe().policy("t", ADDRESS_B, ADDRESS_A, 2, 1)
    behind = Behind(replace(OURS, remote_id=Identity.of("x.example")), there)
    behind.fail()
    (learnt,) = behind.said
    assert isinstance(learnt, Learned)
    assert learnt.diagnosis is not None
    assert learnt.diagnosis.fact("theirs") == "192.0.2.2 (IPV4_ADDR)"
    assert behind.ports == {500, 4500}
    assert not behind.peer.ike_sas("t")
