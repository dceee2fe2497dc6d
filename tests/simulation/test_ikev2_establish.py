"""IKE_SA_INIT and IKE_AUTH between two endpoints: every way up, and what each failure says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from tests.simulation.policies import ADDRESS_A as A
from tests.simulation.policies import ADDRESS_B as B
from tests.simulation.policies import ESP, IKE, NAME, mapping, mirrored, policy
from tests.simulation.puppet import in_clear
from tests.simulation.weather import Nat
from tests.simulation.wire import WirePair
from vpnd.crypto.entropy import SeededEntropy
from vpnd.ike.endpoint import Endpoint
from vpnd.ike.limits import Limits
from vpnd.ike.outputs import (
    ChildDown,
    ChildFailed,
    ChildUp,
    Established,
    Failed,
    IkeDown,
    Keepalive,
    LadderLine,
    PathMoved,
    UnknownPeer,
)
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity
from vpnd.model.policy import Encapsulation, NegotiationMode, PeerPolicy
from vpnd.model.proposals import Proposal
from vpnd.model.secret import Secret
from vpnd.model.unreachable import Unreachable
from vpnd.wire.header import Flag, Header
from vpnd.wire.iana import Exchange2, IkeVersion, Notify2, Protocol
from vpnd.wire.ikev2 import Notify


def test_the_ladder_of_a_tunnel_coming_up() -> None:
    pair = WirePair()
    pair.initiate()
    init = "N(NAT_DETECTION_SOURCE_IP), N(NAT_DETECTION_DESTINATION_IP), N(FRAGMENTATION_SUPPORTED), V"
    assert pair.drawn == [
        f"a -> b  IKE_SA_INIT 0 {{SA, KEi, Ni, {init}}}",
        f"a <- b  IKE_SA_INIT 0 {{SA, KEr, Nr, {init[:-1]}N(CHILDLESS_IKEV2_SUPPORTED), V}}",
        "a -> b  IKE_AUTH 1 {IDi, N(INITIAL_CONTACT), IDr, AUTH, SA, TSi, TSr}",
        "a <- b  IKE_AUTH 1 {IDr, AUTH, SA, TSi, TSr}",
    ]
    pair.assert_agreed()
    for side in (pair.a, pair.b):
        (info,) = side.ike_sas()
        assert (info.version, info.mode, info.vendor, info.nat) == (IkeVersion.V2, None, "vpnd", False)
        assert info.expires_at == pair.world.now + 86400
        assert info.rekey_at is not None
        assert 0.8 * 86400 <= info.rekey_at - pair.world.now <= 0.9 * 86400
        assert len(side.of(Established)) == len(side.of(ChildUp)) == 1
        assert not side.endpoint.counters
    assert pair.a.ike_sas()[0].initiator
    assert not pair.b.ike_sas()[0].initiator


@pytest.mark.parametrize("encryption", ["aes-128", "aes-256", "aes-128-gcm", "chacha20-poly1305"])
@pytest.mark.parametrize("integrity", ["sha1", "sha256", "sha384", "sha512"])
@pytest.mark.parametrize("group", [14, 19, 31])
def test_every_suite(encryption: str, integrity: str, group: int) -> None:
    aead = encryption in ("aes-128-gcm", "chacha20-poly1305")
    mac = () if aead else (integrity,)
    ours = policy(
        proposals=(Proposal(Protocol.IKE, (encryption,), (integrity,), mac, (group,)),),
        children=(mapping(proposals=(Proposal(Protocol.ESP, (encryption,), (), mac),)),),
    )
    pair = WirePair(ours)
    pair.establish()
    pair.assert_agreed()
    suite = pair.a.ike_sas()[0].suite
    assert (suite.encryption, suite.prf, suite.integrity, suite.dh) == (
        encryption,
        integrity,
        None if aead else integrity,
        group,
    )
    (child,) = pair.a.children()
    assert (child.suite.encryption, child.suite.integrity) == (encryption, None if aead else integrity)


def test_ipv6_outside_and_inside() -> None:
    child = mapping(local=IPv6Network("fd01::/64"), remote=IPv6Network("fd02::/64"))
    ours = policy(
        local_address=IPv6Address("2001:db8::1"),
        remote_address=IPv6Address("2001:db8::2"),
        local_id=Identity.of("2001:db8::1"),
        remote_id=Identity.of("2001:db8::2"),
        children=(child,),
    )
    pair = WirePair(ours)
    pair.establish()
    pair.assert_agreed()


def test_an_fqdn_is_compared_without_case_and_trailing_dot() -> None:
    ours = policy()
    pair = WirePair(ours, replace(mirrored(ours), remote_id=Identity.of("A.Example.")))
    pair.establish()


# ---------------------------------------------------------------------------------- diagnoses


def failing(ours: PeerPolicy, theirs: PeerPolicy, code: Code, their_code: Code | None = None) -> WirePair:
    """Try to come up and fail: both sides' diagnoses have these codes and nothing is left."""
    pair = WirePair(ours, theirs)
    pair.initiate()
    pair.advance(5)
    assert pair.a.diagnosis(Failed).code is code
    assert pair.a.last(Failed).initiator
    assert pair.b.diagnosis(Failed).code is (their_code or code)
    assert not pair.b.last(Failed).initiator
    assert_nothing_left(pair)
    return pair


def assert_nothing_left(pair: WirePair) -> None:
    """No SA on either side, and after a while no timer either."""
    pair.advance(60)
    for side in (pair.a, pair.b):
        assert not side.ike_sas()
        assert not side.installed
        assert side.endpoint.next_timeout() is None


@pytest.mark.parametrize(
    ("change", "their_code", "theirs", "ours"),
    [
        ({"encryption": ("aes-256",)}, Code.P1_ENCRYPTION, "aes-128", "aes-256"),
        ({"integrity": ("sha512",)}, Code.P1_INTEGRITY, "sha256", "sha512"),
        ({"prf": ("sha512",)}, Code.P1_PRF, "sha256", "sha512"),
        ({"dh": (19,)}, Code.P1_DH, "31", "19"),
    ],
)
def test_no_common_proposal(change: dict[str, object], their_code: Code, theirs: str, ours: str) -> None:
    mine = policy()
    peer = replace(mirrored(mine), proposals=(replace(IKE[0], **change),))  # type: ignore[arg-type]  # fields by their names
    pair = failing(mine, peer, Code.P1_PROPOSAL, their_code)
    assert pair.a.diagnosis(Failed).fact("ours") == "aes-128/sha256/dh31"
    assert pair.a.diagnosis(Failed).fact("notify") == "NO_PROPOSAL_CHOSEN"
    assert pair.b.diagnosis(Failed).fact("theirs") == theirs
    assert pair.b.diagnosis(Failed).fact("ours") == ours


def test_a_wrong_key() -> None:
    ours = policy()
    theirs = replace(mirrored(ours), psk=Secret(b"another key"))
    pair = failing(ours, theirs, Code.PSK)
    assert pair.a.diagnosis(Failed).fact("ours") == ours.psk.fingerprint()
    assert pair.b.diagnosis(Failed).fact("ours") == theirs.psk.fingerprint()
    assert "a.example" in str(pair.a.diagnosis(Failed).fact("detail"))


def test_an_unknown_initiator_looks_to_it_like_a_wrong_key() -> None:
    ours = policy()
    pair = failing(ours, replace(mirrored(ours), remote_id=Identity.of("c.example")), Code.PSK, Code.IDENTITY)
    assert pair.b.diagnosis(Failed).fact("theirs") == "a.example (FQDN)"
    assert pair.b.diagnosis(Failed).fact("ours") == "c.example (FQDN)"


def test_a_responder_that_is_another_than_asked_for() -> None:
    ours = policy()
    pair = failing(ours, replace(mirrored(ours), local_id=Identity.of("c.example")), Code.PSK, Code.IDENTITY)
    assert pair.b.diagnosis(Failed).fact("theirs") == "b.example (FQDN)"
    assert pair.b.diagnosis(Failed).fact("ours") == "c.example (FQDN)"


def refusals(change: dict[str, object]) -> list[str]:
    """The messages of a refused attempt, as the wire shows them."""
    ours = policy()
    pair = WirePair(ours, replace(mirrored(ours), **change))  # type: ignore[arg-type]  # fields by their names
    pair.initiate()
    return pair.texts


def test_wrong_key_and_unknown_identity_are_answered_alike() -> None:
    """V17: the peer does not learn which of them it was."""
    wrong_key = refusals({"psk": Secret(b"another key")})
    assert wrong_key[-1] == "IKE_AUTH 1 {N(AUTHENTICATION_FAILED)}"
    assert wrong_key == refusals({"remote_id": Identity.of("c.example")})
    assert wrong_key == refusals({"local_id": Identity.of("c.example")})


def test_a_silent_peer() -> None:
    pair = WirePair()
    pair.filter = lambda name, data: []
    pair.initiate()
    pair.advance(29)
    assert not pair.a.of(Failed)
    pair.advance(2)
    diagnosis = pair.a.diagnosis(Failed)
    assert diagnosis.code is Code.SILENT
    assert diagnosis.fact("received") == "0"
    assert int(diagnosis.fact("sent") or 0) in (7, 8)
    assert_nothing_left(pair)


@pytest.mark.parametrize(
    ("reason", "code"), [(Unreachable.PORT, Code.PORT_CLOSED), (Unreachable.HOST, Code.UNREACHABLE)]
)
def test_an_icmp_error_is_the_diagnosis_when_nobody_answers(reason: Unreachable, code: Code) -> None:
    pair = WirePair()
    pair.filter = lambda name, data: []
    pair.initiate()
    for _ in range(29):
        pair.a.do("handle_unreachable", Path(A, 500, B, 500), reason)
        pair.advance(1)
    assert not pair.a.of(Failed), "anyone can forge it: it must not end the attempt (RFC 7296 section 2.4)"
    assert len(pair.sent("a")) == 7
    pair.advance(1.1)
    assert pair.a.diagnosis(Failed).code is code


def test_an_icmp_error_does_not_hasten_the_end_of_a_peer() -> None:
    pair = WirePair()
    pair.establish()
    pair.filter = lambda name, data: []
    for _ in range(20):
        for reason in Unreachable:
            for side in (pair.a, pair.b):
                side.do("handle_unreachable", side.ike_sas()[0].path, reason)
        pair.a.do("probe", NAME)
        pair.b.do("probe", NAME)
        pair.advance(1)
    assert pair.a.ike_sas()
    assert pair.b.ike_sas()


def test_a_forged_icmp_error_does_not_keep_a_real_answer_out() -> None:
    pair = WirePair()
    pair.filter = lambda name, data: []
    pair.initiate()
    pair.a.do("handle_unreachable", Path(A, 500, B, 500), Unreachable.PORT)
    pair.filter = lambda name, data: [data]
    pair.advance(10)
    pair.assert_agreed()
    assert pair.a.ike_sas()
    assert not pair.a.of(Failed)


def test_an_icmp_error_does_nothing_to_an_established_sa() -> None:
    pair = WirePair()
    pair.establish()
    before = len(pair.a.events)
    pair.a.do("handle_unreachable", pair.a.ike_sas()[0].path, Unreachable.PORT)
    pair.advance(10)
    assert len(pair.a.events) == before


def test_port_4500_is_blocked() -> None:
    ours = policy(encapsulation=Encapsulation.UDP)
    pair = WirePair(ours)
    pair.filter = lambda name, data: [data] if Header.decode(data).exchange == Exchange2.IKE_SA_INIT else []
    pair.initiate()
    pair.advance(31)
    assert pair.a.diagnosis(Failed).code is Code.UDP_4500
    assert_nothing_left(pair)


def test_ike_auth_without_answer_on_500_is_silence() -> None:
    pair = WirePair()
    pair.filter = lambda name, data: [data] if Header.decode(data).exchange == Exchange2.IKE_SA_INIT else []
    pair.initiate()
    pair.advance(31)
    diagnosis = pair.a.diagnosis(Failed)
    assert (diagnosis.code, diagnosis.fact("exchange")) == (Code.SILENT, "IKE_AUTH")


@pytest.mark.parametrize("spoken", [IkeVersion.V1])
def test_the_other_version_is_configured(spoken: IkeVersion) -> None:
    ours = policy()
    pair = WirePair(ours, replace(mirrored(ours), version=spoken))
    pair.initiate()
    diagnosis = pair.b.diagnosis(Failed)
    assert diagnosis.code is Code.VERSION
    assert (diagnosis.fact("theirs"), diagnosis.fact("ours")) == ("ikev2", "ikev1")


@pytest.mark.parametrize("before", [IkeVersion.V1, IkeVersion.V2])
def test_what_an_ike_sa_of_the_other_version_leaves_behind_is_no_attempt(before: IkeVersion) -> None:
    main = NegotiationMode.MAIN
    ours = policy(version=before, mode=main if before is IkeVersion.V1 else None)
    pair = WirePair(ours)
    pair.establish()
    pair.a.close()
    left = pair.sent("a")[-1]
    assert Header.decode(left).spi_r != bytes(8)
    other = IkeVersion.V1 if before is IkeVersion.V2 else IkeVersion.V2
    changed = WirePair(replace(ours, version=other, mode=main if other is IkeVersion.V1 else None))
    changed.inject("b", left)
    assert sum(changed.b.endpoint.counters.values()) == 1
    assert not changed.b.events


def test_an_address_that_is_not_configured_hears_nothing() -> None:
    pair = WirePair()
    pair.b.do("remove_peer", NAME)
    pair.initiate()
    (noticed,) = pair.b.events
    assert isinstance(noticed, UnknownPeer)
    assert pair.b.endpoint.counters == {"unknown peer": 1}


def test_a_peer_whose_name_is_not_resolved_cannot_be_called() -> None:
    pair = WirePair(policy(remote_address=None), mirrored(policy()))
    pair.initiate()
    assert pair.a.diagnosis(Failed).code is Code.RESOLVE


# ------------------------------------------------------------------------------ the first child


def test_different_subnets_leave_the_ike_sa_without_a_child() -> None:
    ours = policy()
    child = replace(mirrored(ours).children[0], local=IPv4Network("10.9.0.0/24"))
    pair = WirePair(ours, replace(mirrored(ours), children=(child,)))
    pair.initiate()
    assert pair.lines[-1][1] == "IKE_AUTH 1 {IDr, AUTH, N(TS_UNACCEPTABLE)}"
    assert pair.a.diagnosis(ChildFailed).code is Code.TRAFFIC_SELECTORS
    assert pair.a.last(ChildFailed).mapping == 0
    theirs = pair.b.diagnosis(Failed)
    assert theirs.code is Code.TRAFFIC_SELECTORS
    assert theirs.fact("theirs") == "10.2.0.0/24 - 10.1.0.0/24"
    assert theirs.fact("ours") == "10.9.0.0/24 - 10.1.0.0/24"
    assert pair.a.ike_sas()
    assert pair.b.ike_sas()
    pair.assert_agreed()


def test_different_esp_algorithms_leave_the_ike_sa_without_a_child() -> None:
    ours = policy()
    child = replace(mirrored(ours).children[0], proposals=(Proposal(Protocol.ESP, ("aes-256-gcm",)),))
    pair = WirePair(ours, replace(mirrored(ours), children=(child,)))
    pair.initiate()
    assert pair.a.diagnosis(ChildFailed).code is Code.P2_PROPOSAL
    theirs = pair.b.diagnosis(Failed)
    assert (theirs.code, theirs.fact("theirs"), theirs.fact("ours")) == (
        Code.P2_ENCRYPTION,
        "aes-128-gcm",
        "aes-256-gcm",
    )
    pair.assert_agreed()
    assert pair.a.ike_sas()


def test_a_responder_narrows_to_what_it_has() -> None:
    ours = policy(children=(mapping(local=IPv4Network("10.1.0.0/16"), remote=IPv4Network("10.2.0.0/16")),))
    narrow = replace(
        mirrored(ours).children[0], local=IPv4Network("10.2.7.0/24"), remote=IPv4Network("10.1.0.0/20")
    )
    pair = WirePair(ours, replace(mirrored(ours), children=(narrow,)))
    pair.establish()
    pair.assert_agreed()
    (child,) = pair.a.children()
    assert [str(s) for s in (*child.ts_local, *child.ts_remote)] == ["10.1.0.0/20", "10.2.7.0/24"]


def test_several_tunnels_between_the_same_addresses_are_told_apart_by_identity() -> None:
    first, second = policy("one"), policy("two", local_id=Identity.of("a2.example"))
    pair = WirePair(first, mirrored(first))
    pair.a.set_peer("b", second)
    pair.b.set_peer("a", mirrored(second))
    for name in ("two", "one"):
        pair.a.do("initiate", name, 0)
        pair.run()
    assert [e.tunnel for e in pair.b.of(Established)] == ["two", "one"]
    assert [e.child.tunnel for e in pair.b.of(ChildUp)] == ["two", "one"]
    assert not pair.b.of(IkeDown)


def test_attempts_at_one_address_take_turns() -> None:
    first, second = policy("one"), policy("two", local_id=Identity.of("a2.example"))
    pair = WirePair(first, mirrored(first))
    pair.a.set_peer("b", second)
    pair.b.set_peer("a", mirrored(second))
    pair.a.do("initiate", "one", 0)
    pair.a.do("initiate", "two", 0)
    assert len(pair.wire) == 1
    pair.run()
    assert [e.tunnel for e in pair.a.of(Established)] == ["one", "two"]


def test_a_waiting_attempt_is_forgotten_with_its_tunnel() -> None:
    first, second = policy("one"), policy("two")
    pair = WirePair(first, mirrored(first))
    pair.a.set_peer("b", second)
    pair.a.do("initiate", "one", 0)
    pair.a.do("initiate", "two", 0)
    pair.a.do("remove_peer", "two")
    pair.run()
    assert [e.tunnel for e in pair.a.of(Established)] == ["one"]


def test_initial_contact_replaces_what_the_peer_has_lost() -> None:
    pair = WirePair()
    pair.establish()
    pair.a = pair.world.add_gateway("a", A, Endpoint(SeededEntropy(9)))
    pair.a.set_peer("b", pair.ours)
    pair.world.clear_ladder()
    pair.initiate()
    assert "N(INITIAL_CONTACT)" in pair.lines[2][1]
    down = pair.b.last(IkeDown)
    assert down.diagnosis.code is Code.PEER_RESTARTED
    assert len(pair.b.of(ChildDown)) == 1
    assert len(pair.b.ike_sas()) == 1


def test_no_initial_contact_while_another_tunnel_has_the_same_identities() -> None:
    primary, secondary = policy("primary"), policy("secondary", children=(mapping(1),))
    pair = WirePair(primary, mirrored(primary))
    pair.a.set_peer("b", secondary)
    pair.b.set_peer("a", mirrored(secondary))
    for name in ("primary", "secondary"):
        pair.a.do("initiate", name, 0 if name == "primary" else 1)
        pair.run()
    assert not any("INITIAL_CONTACT" in text for _, text in pair.lines)
    assert sorted(e.tunnel for e in pair.b.of(Established)) == ["primary", "secondary"]
    assert not pair.b.of(IkeDown)


# ------------------------------------------------------------------------ cookies and restarts


def test_another_group_is_asked_for_and_used() -> None:
    ours = policy(proposals=(replace(IKE[0], dh=(31, 19)),))
    pair = WirePair(ours, replace(mirrored(ours), proposals=(replace(IKE[0], dh=(19,)),)))
    pair.initiate()
    assert [text.split(" {")[0] for _, text in pair.lines] == ["IKE_SA_INIT 0"] * 4 + ["IKE_AUTH 1"] * 2
    assert pair.lines[1][1] == "IKE_SA_INIT 0 {N(INVALID_KE_PAYLOAD)}"
    assert pair.a.ike_sas()[0].suite.dh == 19
    assert not pair.b.of(Failed)
    pair.assert_agreed()


def test_a_group_that_is_not_ours_ends_in_a_diagnosis_with_both() -> None:
    pair = WirePair()
    # The responder would say NO_PROPOSAL_CHOSEN; a peer that insists on its group is played here.

    def insist(name: str, data: bytes) -> list[bytes]:
        if name == "a":
            return [data]
        header = Header.decode(data)
        wanted = Notify(Notify2.INVALID_KE_PAYLOAD, (19).to_bytes(2, "big"))
        return [in_clear(header.spi_i, bytes(8), header.exchange, Flag.RESPONSE, 0, [wanted])]

    pair.filter = insist
    pair.initiate()
    pair.advance(3)
    diagnosis = pair.a.diagnosis(Failed)
    assert (diagnosis.code, diagnosis.fact("theirs"), diagnosis.fact("ours")) == (Code.P1_DH, "19", "31")


def test_a_crowd_meets_cookies_and_the_honest_one_comes_up() -> None:
    pair = WirePair(limits=Limits(half_open_before_cookies_per_address=0))
    pair.initiate()
    assert pair.texts[1:3] == [
        "IKE_SA_INIT 0 {N(COOKIE)}",
        "IKE_SA_INIT 0 {N(COOKIE), SA, KEi, Ni, N(NAT_DETECTION_SOURCE_IP), "
        "N(NAT_DETECTION_DESTINATION_IP), N(FRAGMENTATION_SUPPORTED), V}",
    ]
    pair.assert_agreed()
    assert pair.b.ike_sas()
    # What is drawn of a stranger is what the log has once a minute.
    (asked,) = (line for line in pair.b.of(LadderLine) if line.text == "IKE_SA_INIT 0 {N(COOKIE)}")
    assert asked.stranger


def test_cookie_and_another_group_together() -> None:
    ours = policy(proposals=(replace(IKE[0], dh=(31, 19)),))
    theirs = replace(mirrored(ours), proposals=(replace(IKE[0], dh=(19,)),))
    pair = WirePair(ours, theirs, limits=Limits(half_open_before_cookies_per_address=0))
    pair.initiate()
    pair.assert_agreed()
    assert pair.a.ike_sas()[0].suite.dh == 19


def half_open(pair: WirePair, count: int, seed: int = 100) -> list[bytes]:
    """Let `count` initiators at a's address send a first message to b and never go on; b's answers."""
    start = len(pair.b.events)
    for index in range(count):
        stranger = WirePair(seed=seed + 2 * index)
        stranger.a.initiate()
        pair.deliver(stranger.wire[0])
    answers = [d.data for d in pair.wire if d.sender == "b"]
    pair.wire.clear()
    assert len(pair.b.events) >= start
    return answers


def test_half_open_attempts_of_one_address_are_bounded() -> None:
    """Three take state, then cookies are asked for; strangers without a cookie never get beyond."""
    pair = WirePair()
    answers = half_open(pair, 12)
    assert len(answers) == 12
    sizes = [len(answer) for answer in answers]
    assert all(size > 100 for size in sizes[:3])
    assert all(size < 80 for size in sizes[3:])
    pair.initiate()
    assert pair.b.ike_sas()


def test_half_open_attempts_are_forgotten() -> None:
    pair = WirePair()
    half_open(pair, 3)
    assert pair.b.endpoint.next_timeout() is not None
    pair.advance(31)
    assert pair.b.endpoint.next_timeout() is None
    assert len(half_open(pair, 1, seed=500)[0]) > 100


def test_an_unauthenticated_answer_is_no_larger_than_what_asked_for_it() -> None:
    pair = WirePair(limits=Limits(half_open_before_cookies_per_address=0))
    (answer,) = half_open(pair, 1)
    assert len(answer) < 236


# ---------------------------------------------------------------------------------- NAT


@pytest.fixture
def nat_pair() -> WirePair:
    ours = policy()
    pair = WirePair(ours, replace(mirrored(ours), remote_address=IPv4Address("203.0.113.7")))
    pair.world.nats.append(Nat([A], IPv4Address("203.0.113.7")))
    return pair


def test_a_nat_is_found_and_ike_floats_to_4500(nat_pair: WirePair) -> None:
    nat_pair.initiate()
    a, b = nat_pair.a.ike_sas()[0], nat_pair.b.ike_sas()[0]
    assert a.nat
    assert b.nat
    assert a.path == Path(A, 4500, B, 4500)
    assert (b.path.local_port, b.path.remote_port) == (4500, Nat.FIRST_PORT + 1)
    nat_pair.assert_agreed()
    for side in (nat_pair.a, nat_pair.b):
        (child,) = side.children()
        assert child.udp
        assert child.path == side.ike_sas()[0].path


def test_only_the_side_behind_the_nat_keeps_it_open(nat_pair: WirePair) -> None:

    nat_pair.initiate()
    nat_pair.advance(65)
    assert len(nat_pair.a.of(Keepalive)) == 3
    assert not nat_pair.b.of(Keepalive)


def test_the_peer_is_followed_when_its_nat_moves(nat_pair: WirePair) -> None:

    nat_pair.initiate()
    (box,) = nat_pair.world.nats
    box.rebind()
    nat_pair.a.probe()
    nat_pair.run()
    assert nat_pair.b.last(PathMoved).path.remote_port == Nat.FIRST_PORT + 2
    assert nat_pair.b.ike_sas()[0].path.remote_port == Nat.FIRST_PORT + 2


def test_a_forged_message_does_not_move_the_peer(nat_pair: WirePair) -> None:

    nat_pair.initiate()
    nat_pair.world.nats[:] = [Nat([A], IPv4Address("203.0.113.66"))]
    nat_pair.filter = lambda name, data: [data[:-1] + bytes((data[-1] ^ 1,))]
    nat_pair.a.probe()
    nat_pair.run()
    assert not nat_pair.b.of(PathMoved)
    assert nat_pair.b.endpoint.counters["integrity check failed"] == 1


@pytest.mark.parametrize("forcing", ["a", "b"])
def test_udp_is_forced_without_a_nat(forcing: str) -> None:
    ours = policy()
    theirs = mirrored(ours)
    forced = {"encapsulation": Encapsulation.UDP}
    pair = WirePair(
        replace(ours, **forced) if forcing == "a" else ours,  # type: ignore[arg-type]  # fields by their names
        replace(theirs, **forced) if forcing == "b" else theirs,  # type: ignore[arg-type]  # fields by their names
    )
    pair.establish()
    pair.assert_agreed()
    for side in (pair.a, pair.b):
        (child,) = side.children()
        assert child.udp
        assert (child.path.local_port, child.path.remote_port) == (4500, 4500)


# --------------------------------------------------------------------------- closing while connecting


def test_closing_before_any_answer_ends_the_attempt_quietly() -> None:
    pair = WirePair()
    pair.a.do("initiate", NAME, 0)
    pair.wire.clear()
    pair.a.do("close", NAME, Diagnosis.of(Code.DOWN_BY_OPERATOR))
    pair.run()
    assert pair.a.diagnosis(Failed).code is Code.DOWN_BY_OPERATOR
    assert_nothing_left(pair)


def test_closing_with_ike_auth_under_way_deletes_what_the_peer_has_made() -> None:
    pair = WirePair()
    pair.a.do("initiate", NAME, 0)
    for _ in range(2):
        pair.deliver(pair.wire.pop(0))
    pair.a.do("close", NAME, Diagnosis.of(Code.DOWN_BY_OPERATOR))
    pair.run()
    assert pair.b.of(Established)
    assert pair.b.diagnosis(IkeDown).code is Code.PEER_DELETED
    assert not pair.a.of(Established)
    assert_nothing_left(pair)


def test_a_ladder_never_shows_a_key() -> None:
    ours = policy()
    pair = WirePair(ours)
    pair.establish()
    shown = repr(pair.a.events) + repr(pair.b.events)
    secrets = [ours.psk.reveal()]
    for side in (pair.a, pair.b):
        for child in side.children():
            secrets += [child.keys_in.encryption.reveal(), child.keys_out.encryption.reveal()]
    for secret in secrets:
        assert secret.hex() not in shown
        assert repr(secret) not in shown
    assert any("TSi: 10.1.0.0/24" in line.detail for line in pair.a.of(LadderLine))


def test_child_proposals_are_those_of_the_policy() -> None:
    pair = WirePair()
    pair.establish()
    (child,) = pair.a.children()
    assert child.suite.encryption == ESP[0].encryption[0]
    assert child.spi_in >= 256
    assert child.spi_out >= 256
