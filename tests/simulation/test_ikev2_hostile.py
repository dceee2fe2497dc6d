"""Strangers, forgers and floods: V4, V8, V9, V13, V14, V19, V20 and F20, as far as they are IKE's."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest

from vpnd.ike.limits import Limits
from vpnd.ike.outputs import ChildDown, Established, Failed, LadderLine, Story
from vpnd.model.child import ChildSa
from vpnd.model.diagnosis import Code
from vpnd.wire.header import Header
from vpnd.wire.iana import AuthMethod2, DhGroup, Exchange2, IdType, Notify2, Payload2, Protocol
from vpnd.wire.ikev2 import (
    Auth,
    Delete,
    IdI,
    IdR,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    Sa,
    TsI,
    TsR,
    Unknown,
    VendorId,
)

from .invariants import leaks
from .pair import Pair
from .policies import ADDRESS_A, ADDRESS_B, STRANGER, Recipe
from .puppet import IKE_SA, Puppet, esp_sa, subnet
from .stage import Stage
from .states import stage_in
from .weather import Datagram

WALKS = 60
STEPS = 12


def test_the_puppet_and_the_endpoint_derive_the_same_keys_in_both_roles() -> None:
    """A peer that knows the key gets in: the other tests here would hold for a wall, too."""
    for reach in ("established", "established_by_us"):
        stage, puppet = stage_in(reach)
        answers = stage.say(puppet.seal(Exchange2.INFORMATIONAL, 2 if puppet.initiator else 0, []))
        assert puppet.open(answers[0]).payloads == ()


def secrets_of(child: ChildSa) -> tuple[bytes, ...]:
    """The keys of both directions, inbound first."""
    both = (child.keys_in, child.keys_out)
    return tuple(key.reveal() for keys in both for key in (keys.encryption, keys.integrity))


def test_the_puppet_and_the_endpoint_derive_the_same_esp_keys() -> None:
    """The first child from the nonces of IKE_SA_INIT, a further one from those of its own exchange."""
    stage, puppet = stage_in("established")
    keys = puppet.child_keys(puppet.nonce, puppet.peer_nonce)
    assert secrets_of(stage.gateway.child(0)) == keys
    nonce = Nonce(bytes(range(32)))
    payloads = [*puppet.child_payloads(0xC0FFEE05, mapping=1), nonce]
    (answer,) = stage.say(puppet.seal(Exchange2.CREATE_CHILD_SA, 2, payloads))
    theirs = puppet.open(answer).one(Nonce)
    assert isinstance(theirs, Nonce)
    assert secrets_of(stage.gateway.child(1)) == puppet.child_keys(nonce.data, theirs.data)


# ------------------------------------------------------------------------------- authentication


def forged_auths(puppet: Puppet) -> dict[str, list[Payload]]:
    """IKE_AUTH requests that prove nothing."""
    right = puppet.auth_payloads()
    identity, auth, *child = right
    assert isinstance(auth, Auth)
    return {
        "no AUTH": [identity, *child],
        "no ID": [auth, *child],
        "only the child": list(child),
        "nothing": [],
        "empty AUTH": [identity, Auth(AuthMethod2.SHARED_KEY_MIC, b""), *child],
        "zero AUTH": [identity, Auth(AuthMethod2.SHARED_KEY_MIC, bytes(32)), *child],
        "cut AUTH": [identity, Auth(AuthMethod2.SHARED_KEY_MIC, auth.data[:-1]), *child],
        "long AUTH": [identity, Auth(AuthMethod2.SHARED_KEY_MIC, auth.data + b"\0"), *child],
        "NULL method": [identity, Auth(AuthMethod2.NULL, auth.data), *child],
        "RSA method": [identity, Auth(AuthMethod2.RSA_SIGNATURE, auth.data), *child],
        "two AUTHs": [identity, auth, Auth(AuthMethod2.SHARED_KEY_MIC, bytes(32)), *child],
        "other ID": [IdI(IdType.IPV4_ADDR, ADDRESS_B.packed), auth, *child],
        "other ID type": [IdI(IdType.KEY_ID, ADDRESS_A.packed), auth, *child],
        "empty ID": [IdI(IdType.IPV4_ADDR, b""), auth, *child],
        "long ID": [IdI(IdType.FQDN, b"x" * 60_000), auth, *child],
        "critical unknown": [identity, auth, *child, Unknown(200, b"", critical=True)],
    }


@pytest.mark.parametrize("name", sorted(forged_auths(Puppet(True, ADDRESS_A, b"k"))))
def test_ike_auth_that_proves_nothing_establishes_nothing(name: str) -> None:
    """V8, V9. The right key, but something else is wrong; and the next attempt, all right, succeeds."""
    stage = Stage()
    puppet = stage.puppet()
    stage.half_open(puppet)
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, forged_auths(puppet)[name]))
    assert not stage.gateway.of(Established)
    assert not stage.gateway.installed
    stage.world.run_for(60)
    stage.establish(stage.puppet(seed=1))


@pytest.mark.parametrize("psk", [b"", b"guess", Recipe().psk + b"x", Recipe().psk[:-1], Recipe().psk.upper()])
def test_a_wrong_key_is_refused_and_reported(psk: bytes) -> None:
    stage = Stage()
    puppet = stage.puppet(psk=psk)
    stage.half_open(puppet)
    (answer,) = stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads()))
    notifies = [p.type for p in puppet.open(answer).payloads if isinstance(p, Notify)]
    assert notifies == [Notify2.AUTHENTICATION_FAILED]
    assert [failed.diagnosis.code for failed in stage.gateway.of(Failed)] == [Code.PSK]
    assert not stage.gateway.installed


def test_a_responder_that_lacks_the_key_is_not_believed() -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False, psk=b"guess")
    stage.begin(puppet)
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads(), response=True))
    stage.world.run_for(60)
    assert not stage.gateway.of(Established)
    assert stage.gateway.of(Failed)[0].diagnosis.code == Code.PSK


def test_a_responder_with_the_key_but_another_name_is_not_believed() -> None:
    stage = Stage()
    puppet = stage.puppet(initiator=False)
    puppet.identity = IdR(IdType.IPV4_ADDR, STRANGER.packed)
    stage.begin(puppet)
    stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads(), response=True))
    stage.world.run_for(60)
    assert not stage.gateway.of(Established)
    assert stage.gateway.of(Failed)[0].diagnosis.code == Code.IDENTITY


def test_the_same_answer_to_a_wrong_key_and_to_an_unknown_identity() -> None:
    """V17: an asker cannot tell which of the two was wrong."""
    sizes = []
    for psk, identity in ((b"guess", ADDRESS_A), (None, STRANGER)):
        stage = Stage()
        puppet = stage.puppet(psk=psk)
        puppet.identity = IdI(IdType.IPV4_ADDR, identity.packed)
        stage.half_open(puppet)
        (answer,) = stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads()))
        sizes.append((len(answer), puppet.open(answer).payloads))
    assert sizes[0] == sizes[1]


@pytest.mark.slow
@pytest.mark.parametrize("initiator", [True, False], ids=["as initiator", "as responder"])
def test_a_random_walk_without_the_key_never_establishes(initiator: bool) -> None:
    """V8: any order of any messages, with a key exchange but without the pre-shared key."""
    for seed in range(WALKS):
        dice = random.Random(seed)
        stage = Stage(seed=seed)
        puppet = stage.puppet(initiator, psk=b"guess", seed=seed)
        stage.half_open(puppet) if initiator else stage.begin(puppet)
        for step in range(STEPS):
            stage.say(random_message(puppet, dice))
            if dice.random() < 0.2:
                stage.world.run_for(dice.uniform(0, 3))
            established = stage.gateway.of(Established) or stage.gateway.installed
            assert not established, f"seed {seed}, step {step}"


def random_message(puppet: Puppet, dice: random.Random) -> bytes:
    """One of some thirty kinds of message, protected with the right SK keys most of the time."""
    vocabulary: list[Payload] = [
        IKE_SA,
        esp_sa(dice.randrange(2**32)),
        KeyExchange(DhGroup.CURVE25519, puppet.public),
        Nonce(dice.randbytes(32)),
        puppet.identity,
        puppet.auth_payload(),
        Auth(AuthMethod2.SHARED_KEY_MIC, dice.randbytes(32)),
        Auth(AuthMethod2.NULL, b""),
        TsI(subnet(1)),
        TsR(subnet(2)),
        Notify(Notify2.REKEY_SA, b"", Protocol.ESP, dice.randbytes(4)),
        Notify(Notify2.INITIAL_CONTACT),
        Notify(Notify2.COOKIE, dice.randbytes(8)),
        Delete(Protocol.IKE, ()),
        VendorId(b"vpnd"),
    ]
    exchange = dice.choice([*Exchange2, Exchange2.IKE_AUTH, Exchange2.CREATE_CHILD_SA])
    message_id = dice.choice([0, 1, 1, 1, 2, 3])
    response = dice.random() < (0.2 if puppet.initiator else 0.8)
    payloads = dice.sample(vocabulary, dice.randrange(len(vocabulary)))
    if dice.random() < 0.3:
        payloads = list(puppet.auth_payloads())
        exchange = dice.choice([Exchange2.IKE_AUTH, Exchange2.CREATE_CHILD_SA, Exchange2.INFORMATIONAL])
    if dice.random() < 0.15:
        return puppet.clear(exchange, message_id, payloads, response)
    return puppet.seal(exchange, message_id, payloads, response)


@pytest.mark.parametrize("exchange", [Exchange2.CREATE_CHILD_SA, Exchange2.INFORMATIONAL])
@pytest.mark.parametrize("message_id", [0, 1, 2])
def test_nothing_may_come_before_ike_auth(exchange: Exchange2, message_id: int) -> None:
    """V8, CVE-2014-2338: a child or a DELETE on an IKE SA that is not authenticated."""
    stage = Stage()
    puppet = stage.puppet()
    stage.half_open(puppet)
    payloads: list[Payload] = [IKE_SA, Nonce(puppet.nonce), *puppet.child_payloads(0xC0FFEE09)]
    stage.say(puppet.seal(exchange, message_id, payloads if exchange == Exchange2.CREATE_CHILD_SA else []))
    assert not stage.gateway.of(Established)
    assert not stage.gateway.installed


# ------------------------------------------------------------------------------- in the clear


ERRORS = [n for n in Notify2 if n < Notify2.INITIAL_CONTACT]


@pytest.mark.parametrize("state", ["established", "established_by_us", "asked_for_a_child", "probing"])
def test_no_error_in_the_clear_ends_anything(state: str) -> None:
    """V19: plaintext notifies and DELETEs, with the right SPIs and every message ID that could be due."""
    stage, puppet = stage_in(state)
    held = stage.gateway.ike_sas(), sorted(stage.gateway.installed)
    for notify in ERRORS:
        for message_id in range(4):
            for response in (False, True):
                for exchange in Exchange2:
                    payloads: list[Payload] = [Notify(notify), Delete(Protocol.IKE, ())]
                    stage.say(puppet.clear(exchange, message_id, payloads, response))
    assert (stage.gateway.ike_sas(), sorted(stage.gateway.installed)) == held


@pytest.mark.parametrize("notify", ERRORS)
def test_a_forged_refusal_does_not_end_the_attempt(notify: Notify2) -> None:
    """V19: during IKE_SA_INIT a forged error is followed by the true answer, and the tunnel comes up."""
    pair = Pair()
    pair.a.initiate()
    forger = Puppet(False, ADDRESS_B, b"guess")
    forger.take_init(pair.world.sent[0].data)
    forged = forger.clear(Exchange2.IKE_SA_INIT, 0, [Notify(notify, b"\x00\x13")])
    pair.world.inject("a", forged, ADDRESS_B)
    pair.world.run_until(lambda: pair.a.installed and pair.b.installed, within=30)
    pair.world.settle()
    pair.assert_one_tunnel()


def test_a_forged_answer_to_ike_sa_init_does_not_keep_the_tunnel_down() -> None:
    """An attacker faster than the peer: a whole IKE_SA_INIT response with keys of its own."""
    pair = Pair()
    pair.a.initiate()
    forger = Puppet(False, ADDRESS_B, b"guess")
    forger.take_init(pair.world.sent[0].data)
    pair.world.inject("a", forger.init_message(), ADDRESS_B)
    end = pair.world.now + 65
    while not (pair.a.installed and pair.b.installed) and pair.world.now < end:
        pair.a.initiate()
        pair.world.run_for(1)
    pair.world.settle()
    pair.assert_one_tunnel()


# ------------------------------------------------------------------------------- the hostile but valid peer


@pytest.mark.parametrize(
    "inside",
    [b"\0", bytes((0, 0, 0, 3)), bytes((0, 0, 1, 0)), bytes((Payload2.NONCE, 0, 0, 4))],
    ids=["no header", "shorter than its header", "longer than the message", "nothing follows"],
)
def test_what_is_proved_and_cannot_be_read_is_answered(inside: bytes) -> None:
    """RFC 7296 section 2.21.3: the peer is told, once, and the IKE SA stays."""
    stage = Stage()
    puppet = stage.puppet()
    stage.establish(puppet)
    request = puppet.seal_chain(Exchange2.INFORMATIONAL, 2, Payload2.NOTIFY, inside, response=False)
    (answer,) = stage.say(request)
    (notify,) = puppet.open(answer).payloads
    assert isinstance(notify, Notify)
    assert notify.type == Notify2.INVALID_SYNTAX
    assert stage.say(request) == [answer]
    assert len(stage.say(puppet.seal(Exchange2.INFORMATIONAL, 3, ()))) == 1
    assert len(stage.gateway.installed) == 1


def test_a_delete_reaches_only_the_senders_own_sas() -> None:
    """V20: repeated, foreign and countless SPIs, and DELETE together with other payloads."""
    stage, puppet = stage_in("established")
    (child,) = stage.gateway.children()
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 2, [Delete(Protocol.ESP, (b"\0\0\1\0",) * 1000)]))
    named = child.spi_out.to_bytes(4, "big")
    others = [Delete(protocol, (named,)) for protocol in (Protocol.AH, Protocol.ESP + 1)]
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 3, others))
    own = child.spi_in.to_bytes(4, "big")
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 4, [Delete(Protocol.ESP, (own,))]))
    assert stage.gateway.children() == [child], "an SPI that is ours, not the peer's, was deleted"
    spis = (child.spi_out.to_bytes(4, "big"),) * 2
    deletes: list[Payload] = [
        Delete(Protocol.ESP, spis),
        Notify(Notify2.INITIAL_CONTACT),
        Delete(Protocol.ESP, spis),
    ]
    stage.say(puppet.seal(Exchange2.INFORMATIONAL, 5, deletes))
    assert stage.gateway.children() == []
    assert len(stage.gateway.of(ChildDown)) == 1
    assert len(stage.gateway.ike_sas()) == 1


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), b"", bytes(31), bytes(33), bytes(3000)])
def test_a_public_value_that_is_none_is_refused(public: bytes) -> None:
    """V4: zero, small-order, short, long."""
    stage = Stage()
    puppet = stage.puppet()
    payloads: list[Payload] = [IKE_SA, KeyExchange(DhGroup.CURVE25519, public), Nonce(puppet.nonce)]
    stage.say(puppet.clear(Exchange2.IKE_SA_INIT, 0, payloads))
    stage.world.run_for(60)
    stage.establish(stage.puppet(seed=1))


@pytest.mark.parametrize("group", [0, 1, 22, 1025, 65535])
def test_invalid_ke_with_a_group_that_we_did_not_offer_is_not_followed(group: int) -> None:
    """V4: at most three rounds, and never to a group outside the proposal."""
    stage = Stage()
    stage.gateway.initiate()
    puppet = stage.puppet(initiator=False)
    puppet.take_init(stage.heard[0])
    answer = puppet.clear(
        Exchange2.IKE_SA_INIT, 0, [Notify(Notify2.INVALID_KE_PAYLOAD, group.to_bytes(2, "big"))]
    )
    for _ in range(10):
        stage.say(answer)
    groups = set()
    for data in stage.heard:
        ke = puppet.open(data).one(KeyExchange)
        assert isinstance(ke, KeyExchange)
        groups.add(ke.group)
    assert groups == {DhGroup.CURVE25519}


def test_invalid_ke_that_names_the_group_that_we_sent_is_not_followed() -> None:
    """V4: it asks for what the peer has already, so that it says nothing and costs no key pair."""
    stage = Stage()
    stage.gateway.initiate()
    puppet = stage.puppet(initiator=False)
    puppet.take_init(stage.heard[0])
    data = DhGroup.CURVE25519.to_bytes(2, "big")
    answer = puppet.clear(Exchange2.IKE_SA_INIT, 0, [Notify(Notify2.INVALID_KE_PAYLOAD, data)])
    assert stage.say(answer) == []


# ------------------------------------------------------------------------------- bounds


def strangers(count: int) -> list[IPv4Address]:
    """So many source addresses that nobody configured."""
    return [IPv4Address("198.18.0.0") + n for n in range(count)]


def test_strangers_hear_nothing() -> None:
    stage = Stage()
    for source in strangers(50):
        assert stage.say(stage.puppet(seed=int(source)).init_message(), source) == []


def test_a_flood_of_first_messages_takes_bounded_state() -> None:
    """F20, V13: thousands of IKE_SA_INIT with the address of a configured peer, and then the peer itself."""
    limits = Limits()
    stage = Stage(limits=limits)
    sent = received = 0
    for seed in range(2000):
        data = stage.puppet(seed=seed).init_message()
        sent += len(data)
        received += sum(map(len, stage.say(data, port=1024 + seed)))
    half_open = stage.half_open_count()
    assert half_open == 3
    assert received <= sent, "the flood was amplified"
    assert not stage.gateway.installed
    stage.world.run_for(limits.half_open_lifetime + 1)
    assert stage.half_open_count() == 0
    stage.establish(stage.puppet(seed=9999))


def test_the_real_peer_gets_through_a_flood_by_its_cookie() -> None:
    """F20: while the flood lasts, a peer that can receive at the address returns the cookie and is served."""
    stage = Stage()
    for seed in range(100):
        stage.say(stage.puppet(seed=seed).init_message(), port=1024 + seed)
    puppet = stage.puppet(seed=5000)
    (demand,) = stage.say(puppet.init_message())
    cookie = puppet.open(demand).one(Notify)
    assert isinstance(cookie, Notify)
    assert cookie.type == Notify2.COOKIE
    (answer,) = stage.say(puppet.init_message(cookie))
    puppet.take_init(answer)
    (answer,) = stage.say(puppet.seal(Exchange2.IKE_AUTH, 1, puppet.auth_payloads()))
    puppet.open(answer)
    assert len(stage.gateway.ike_sas()) == 1


@pytest.mark.parametrize("state", ["no_session", "half_open", "refused", "established"])
def test_nothing_unproven_is_answered_with_more_than_it_brought(state: str) -> None:
    """V14: bytes out are at most bytes in, for everything that has no valid ICV, over a minute."""
    stage, puppet = stage_in(state)
    dice = random.Random(4)
    brought = answered = 0
    for number in range(300):
        fresh = stage.puppet(seed=number)
        data = dice.choice(
            [
                fresh.init_message(),
                puppet.clear(dice.choice(list(Exchange2)), dice.randrange(4), puppet.auth_payloads()),
                dice.randbytes(dice.randrange(200)),
                fresh.clear(Exchange2.INFORMATIONAL, 0, [], response=False),
                fresh.clear(Exchange2.IKE_AUTH, 1, [], response=False),
            ]
        )
        brought += len(data)
        answered += sum(map(len, stage.say(data)))
    before = len(stage.heard)
    if not stage.gateway.ike_sas():
        stage.world.run_for(60)
        answered += sum(map(len, stage.heard[before:]))
    assert answered <= brought


def test_failed_attempts_leave_no_trace() -> None:
    """V34: refused by us, refused by the peer, or ended in silence at either message; no state adds up."""
    stage = Stage()
    for seed in range(40):
        guesser = stage.puppet(psk=b"guess", seed=seed)
        stage.half_open(guesser)
        stage.say(guesser.seal(Exchange2.IKE_AUTH, 1, guesser.auth_payloads()))
        stage.half_open(stage.puppet(seed=1000 + seed))
        stage.gateway.initiate()
        if seed % 4:
            liar = stage.puppet(initiator=False, psk=b"guess", seed=seed)
            liar.take_init(stage.heard[-1])
            stage.say(liar.init_message())
            if seed % 4 > 1:
                stage.say(liar.seal(Exchange2.IKE_AUTH, 1, liar.auth_payloads(), response=True))
        stage.world.run_for(100)
    assert len(stage.gateway.of(Failed)) == 80
    assert leaks(stage.gateway) == []
    assert stage.endpoint.next_timeout() is None


def test_what_is_told_of_a_message_is_bounded() -> None:
    """A hostile but valid peer fills a message to the brim: trace and log must not."""
    stage, puppet = stage_in("established")
    brimful: list[list[Payload]] = [
        [Delete(Protocol.ESP, tuple(n.to_bytes(4, "big") for n in range(300, 15_300)))],
        [Notify(60_000 + n, bytes(3000)) for n in range(19)],
        [VendorId(bytes(3000)) for _ in range(19)],
        [Sa(IKE_SA.proposals * 200), Nonce(puppet.nonce), KeyExchange(31, puppet.public)],
        [esp_sa(300), Nonce(puppet.nonce), TsI(subnet(1) * 250), TsR(subnet(2) * 250)],
    ]
    exchanges = [Exchange2.INFORMATIONAL] * 3 + [Exchange2.CREATE_CHILD_SA] * 2
    for number, (exchange, payloads) in enumerate(zip(exchanges, brimful, strict=True), start=2):
        stage.say(puppet.seal(exchange, number, payloads))
    for line in stage.gateway.of(LadderLine):
        assert len(line.text) + sum(map(len, line.detail)) < 32_000
    for event in stage.gateway.of(Story):
        assert len(event.text) < 1000
    for failed in stage.gateway.of(Failed):
        assert len(str(failed.diagnosis)) < 4000


def test_a_peer_that_only_ever_rekeys_the_ike_sa_is_slowed_down() -> None:
    """Each succession leaves an IKE SA that waits for its DELETE; an authenticated peer sends none."""
    pair = Pair(recipe=Recipe(dpd=False))
    pair.establish()
    for _ in range(100):
        pair.a.rekey_ike()
        pair.world.interceptors[:] = [lose_deletes]
        pair.world.run_for(0.2)
    assert len(pair.endpoint_b.snapshot().sas) <= 8
    pair.world.interceptors.clear()
    pair.world.run_for(120)
    pair.assert_one_tunnel()
    before = pair.a.ike_sas()
    pair.a.rekey_ike()
    pair.world.run_for(60)
    assert pair.a.ike_sas() != before


def lose_deletes(datagram: Datagram) -> list[tuple[float, bytes]] | None:
    """No INFORMATIONAL arrives."""
    return [] if Header.decode(datagram.data).exchange == Exchange2.INFORMATIONAL else None
