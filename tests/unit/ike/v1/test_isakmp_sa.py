"""The facts of an ISAKMP SA: where its successor begins, what is not known yet, and its message IDs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tests.simulation.bounds import NAT_T_02, REMEMBERED_IDS
from tests.simulation.v1.pairs import MAIN, policy_of
from tests.simulation.v1.puppet import sa_of
from tests.simulation.v1.stage import RECIPE
from vpnd.crypto.dh import KeyPair
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.commands import CloseChild, Probe, RekeyChildNow, RekeyNow
from vpnd.ike.faults import Drop
from vpnd.ike.limits import Limits
from vpnd.ike.natt import Nat
from vpnd.ike.registry import NO_SPI, Registry
from vpnd.ike.v1.exchanges.phase1 import candidate_keys
from vpnd.ike.v1.exchanges.quick_mode import encapsulation, shared
from vpnd.ike.v1.faults import InvalidKeyInformation, NoProposalChosen
from vpnd.ike.v1.isakmp_sa import IsakmpSa, PeerFeatures
from vpnd.ike.v1.message_transport import MessageTransport
from vpnd.ike.v1.messages import Main1, Main2, Received
from vpnd.ike.v1.quick_modes import QuickMode, Stage
from vpnd.ike.v1.session import Session
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.wire.errors import DecodeError
from vpnd.wire.header import Header
from vpnd.wire.iana import EncapsulationMode, Exchange1
from vpnd.wire.ikev1 import Fragment, KeyExchange, Nonce, VendorId, decode_payloads

OURS, THEIRS, MOVED = (ip_address(f"192.0.2.{octet}") for octet in (1, 2, 3))
PATH = Path(OURS, 500, THEIRS, 500)
FLOATED = Path(OURS, 4500, THEIRS, 61234)
"""The peer is behind a NAT, which has a port of its own for it."""
REGISTRY = Registry(SeededEntropy(1), Limits())


def new_session(registry: Registry = REGISTRY) -> Session:
    """One to which nothing has happened."""
    policy = replace(policy_of(RECIPE, MAIN), local_address=OURS, remote_address=THEIRS)
    return Session(registry, IsakmpSa.new(0.0, registry, policy, PATH, peer_cookie=bytes(range(8))))


@pytest.mark.parametrize(
    ("nat", "remote", "path"),
    [
        (Nat(theirs=True), THEIRS, FLOATED),
        (Nat(ours=True), THEIRS, FLOATED),
        (Nat(), THEIRS, PATH),
        (Nat(theirs=True), MOVED, Path(OURS, 500, MOVED, 500)),
        (Nat(), None, PATH),
    ],
)
def test_a_successor_goes_through_the_nat_unless_the_name_of_the_peer_has_moved(
    nat: Nat, remote: Any, path: Path
) -> None:
    sa = new_session().sa
    sa.nat, sa.path, sa.policy = nat, FLOATED, replace(sa.policy, remote_address=remote)
    assert sa.path_of_successor() == path


def test_nothing_is_known_before_anything_was_said() -> None:
    registry = Registry(SeededEntropy(1), Limits())
    session = new_session(registry)
    for name in ("suite", "keys", "chain"):
        with pytest.raises(Drop):
            getattr(session.sa, name)
    assert list(candidate_keys(session.context)) == []
    session.command(1.0, Probe())
    session.note_activity(1.0)
    session.command(1.0, RekeyNow())
    session.command(1.0, RekeyChildNow(77))
    session.command(1.0, CloseChild(99, Diagnosis.of(Code.LIFETIME)))
    session.peer_sends(1.0, 99)
    assert registry.sessions.all() == ()
    assert not registry.outputs


def test_a_message_id_is_never_zero_and_never_one_that_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(SeededEntropy(1), Limits())
    transport = MessageTransport(registry, new_session(registry).sa)
    transport.use(7)
    numbers = iter([bytes(4), b"\0\0\0\7", b"\0\0\0\x08"])
    monkeypatch.setattr(registry.entropy, "bytes", lambda count: next(numbers))
    assert transport.new_message_id() == 8


def test_old_message_ids_are_forgotten_in_the_end() -> None:
    transport = MessageTransport(REGISTRY, new_session().sa)
    for number in range(REMEMBERED_IDS + 1):
        transport.use(number)
    assert not transport.is_used(0)
    assert transport.is_used(1)


def test_more_than_thrice_as_much_is_not_sent_to_the_unproven() -> None:
    registry = Registry(SeededEntropy(1), Limits())
    transport = MessageTransport(registry, new_session(registry).sa)
    transport.received = 1000
    transport.send(Exchange1.INFORMATIONAL, [VendorId(bytes(2900))], 9)
    sent = transport.sent
    transport.send(Exchange1.INFORMATIONAL, [VendorId(bytes(100))], 9)
    assert transport.sent == sent > 2900
    assert registry.counters["amplification bound"] == 1


def test_long_messages_are_cut_for_a_peer_that_says_it_reads_fragments() -> None:
    """IKEv1 with 4096-bit groups in quick mode is the longest; here it is a vendor ID."""
    sa = new_session().sa
    transport, long = MessageTransport(REGISTRY, sa), VendorId(bytes(3000))
    sa.negotiation.peer = PeerFeatures(fragments=True)
    assert len(transport.send(Exchange1.INFORMATIONAL, [long], 9)) == 1, "before there are keys"
    unused: Any = object()
    sa.set_keys(unused, unused)
    sent = transport.send(Exchange1.INFORMATIONAL, [long], 9)
    assert len(sent) == 3
    assert max(map(len, sent)) <= 1280 - 48 - 4
    pieces = [decode_payloads(Header.decode(one).next_payload, one[28:], padded=True)[0] for one in sent]
    cut = [piece for piece in pieces if isinstance(piece, Fragment)]
    assert [(one.id, one.number, one.last) for one in cut] == [(1, 1, False), (1, 2, False), (1, 3, True)]
    whole = b"".join(one.data for one in cut)
    assert Header.decode(whole).length == len(whole)
    assert decode_payloads(Header.decode(whole).next_payload, whole[28:], padded=True) == (long,)


def test_a_message_that_was_read_is_of_one_type_and_protected_or_not() -> None:
    header = Header(NO_SPI, NO_SPI, 0, 16, 2, 0, 0, 28)
    main1 = Main1(sa_of(1, b"", 1, ()), ())
    received = Received(main1, (Nonce(bytes(16)),), (), header, PATH, b"")
    with pytest.raises(Drop):
        received.of(Main2)
    with pytest.raises(Drop):
        _ = received.chain
    with pytest.raises(DecodeError):
        _ = received.behind_hash


def test_an_answer_to_pfs_has_a_public_value_of_the_group() -> None:
    policy, chain = policy_of(RECIPE, MAIN).children[0], None
    quick = QuickMode(1, chain, policy, True, 0, Stage.SENT_QUICK1, 0.0)  # type: ignore[arg-type]  # its IVs are not asked for
    quick.key_pair = KeyPair.generate(31, SeededEntropy(3))
    with pytest.raises(NoProposalChosen):
        shared(quick, None)
    with pytest.raises(InvalidKeyInformation):
        shared(quick, KeyExchange(bytes(5)))
    assert shared(quick, KeyExchange(KeyPair.generate(31, SeededEntropy(4)).public))


def test_the_encapsulation_has_the_number_of_the_agreed_nat_traversal() -> None:
    context = new_session().context
    assert encapsulation(context) is EncapsulationMode.TUNNEL
    context.sa.nat = Nat(ours=True, theirs=False)
    assert encapsulation(context) is EncapsulationMode.UDP_TUNNEL
    context.sa.negotiation.peer = PeerFeatures(nat_t=NAT_T_02)
    assert encapsulation(context) is EncapsulationMode.UDP_TUNNEL_DRAFT
