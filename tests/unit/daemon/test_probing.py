"""A peer that refuses twice is asked what it takes; what it shows names both values, and nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from tests.simulation.puppet import in_clear
from tests.unit.daemon.fakes import KEY, configuration
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_reasons import differ, why_of
from tests.unit.daemon.test_stories import BACK, ROUTED, kinds, story
from vpnd.model.child import Path
from vpnd.model.selectors import Address
from vpnd.wire.header import HEADER_LENGTH, Flag, Header
from vpnd.wire.iana import Exchange2, Notify2
from vpnd.wire.ikev2 import Notify

V1 = 'ike.version = "ikev1"'


async def asked(pair: Pair, here: str, there: str) -> None:
    """The two ends differ, and hq has asked, also for what is not configured."""
    await differ(pair, f'diagnose = "all"\n{here}', there)
    await pair.until(lambda: "probed" in kinds(pair.hq), 300)


def left(pair: Pair) -> int:
    """IKE SAs at the branch, also those that are not authenticated."""
    return len(pair.branch.service.gateway.endpoint.snapshot().sas)


@pytest.mark.parametrize(
    ("here", "there", "code", "theirs", "change"),
    [
        ("ike.dh_group = 31", "ike.dh_group = 14", "E-P1-DH", "14", "set ike.dh_group = 14 here"),
        (
            'ike.encryption = "aes-256"',
            'ike.encryption = "aes-128"',
            "E-P1-ENC",
            "aes-128",
            'set ike.encryption = "aes-128" here',
        ),
        (
            'ike.encryption = "aes-256"',
            'ike.encryption = "aes-128-gcm"',
            "E-P1-ENC",
            "aes-128-gcm",
            'set ike.encryption = "aes-128-gcm" here',
        ),
        (
            'ike.integrity = "sha512"',
            'ike.integrity = "sha256"',
            "E-P1-INTEG",
            "sha256",
            'set ike.integrity = "sha256" here',
        ),
        (
            'ike.integrity = "sha512"\nike.dh_group = 31',
            'ike.integrity = "sha256"',
            "E-P1-PROPOSAL",
            "aes-128/sha256/dh14",
            "make ike.encryption, ike.integrity and ike.dh_group the same",
        ),
        (
            f'{V1}\nike.encryption = "aes-256"',
            f'{V1}\nike.encryption = "aes-128"',
            "E-P1-ENC",
            "aes-128",
            'set ike.encryption = "aes-128" here',
        ),
        (
            f"{V1}\nike.dh_group = 5",
            f"{V1}\nike.dh_group = 14",
            "E-P1-DH",
            "14",
            "set ike.dh_group = 14 here",
        ),
        ('ike.version = "ikev2"', V1, "E-V1V2", "ikev1", 'set ike.version = "ikev1" here'),
        (V1, 'ike.version = "ikev2"', "E-V1V2", "ikev2", 'set ike.version = "ikev2" here'),
        (
            'ike.remote_id = "other.example"',
            "",
            "E-ID",
            "192.0.2.2 (IPV4_ADDR)",
            'set ike.remote_id = "192.0.2.2" here',
        ),
        (
            'ike.remote_id = "other.example"',
            'ike.local_id = "branch.example"',
            "E-ID",
            "branch.example",
            'set ike.remote_id = "branch.example" here',
        ),
    ],
)
@with_pair
async def test_what_the_peer_takes_is_found(
    pair: Pair, here: str, there: str, code: str, theirs: str, change: str
) -> None:
    await asked(pair, here, there)
    why = why_of(pair)
    assert why.error.code == code
    assert theirs in why.explanation.peer_said
    assert why.explanation.change.startswith(change)
    assert "probing" in kinds(pair.hq)
    if code == "E-ID":
        assert "has proved that it has our key" in why.explanation.peer_said
    await asyncio.sleep(60)
    assert why_of(pair).error.code == code, "later failures of the kind do not hide it"
    assert not pair.hq.engine.installed


@with_pair
async def test_nothing_is_left_and_no_first_contact_is_claimed(pair: Pair) -> None:
    await asked(pair, 'ike.remote_id = "other.example"', 'ike.local_id = "branch.example"')
    probe = [line for line in pair.hq.journal.traced("t") if line.text.startswith("IKE_AUTH 1 {IDi, AUTH")]
    assert probe, "without INITIAL_CONTACT and IDr"
    await pair.hq.operator.down("t")
    await asyncio.sleep(120)
    assert left(pair) == 0
    assert not pair.branch.engine.installed


@with_pair
async def test_it_is_asked_once_in_ten_minutes(pair: Pair) -> None:
    await asked(pair, "ike.dh_group = 31", "ike.dh_group = 14")
    await asyncio.sleep(500)
    assert kinds(pair.hq).count("probing") == 1


@with_pair
async def test_nobody_is_asked_where_that_is_off(pair: Pair) -> None:
    await differ(pair, 'diagnose = "off"\nike.dh_group = 31', "ike.dh_group = 14")
    await asyncio.sleep(120)
    assert "probing" not in kinds(pair.hq)
    assert why_of(pair).error.code == "E-P1-PROPOSAL"


SECOND = 'routes = ["10.77.0.0/16"]\nike.local_id = "hq.example"'


@pytest.mark.parametrize("ours", ["hq.example", "other.hq.example"])
@with_pair
async def test_no_sa_of_the_same_identity_is_made_beside_one(pair: Pair, ours: str) -> None:
    """A peer that keeps one SA of each pair of identities would let go of the tunnel that is up."""
    wrong = f'ike.local_id = "{ours}"\nike.remote_id = "other.example"'
    other = 'routes = ["10.78.0.0/16"]\nnegotiation = "passive"\nike.remote_id = "hq.example"'
    pair.configure({"u": SECOND, "t": f"{ROUTED}\n{wrong}"}, {"u": other, "t": BACK})
    await pair.start()
    await pair.until(lambda: (why_of(pair).tries or 0) > 3, 300)
    await asyncio.sleep(60)
    assert ("probing" in kinds(pair.hq)) == (ours != "hq.example")


@with_pair
async def test_a_wrong_key_is_not_taken_for_an_identity(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    text = pair.branch.config.read_text()
    key = next(line for line in text.splitlines() if line.startswith("pre_shared_key"))
    pair.branch.write(text.replace(key, 'pre_shared_key = "plain:another key that is long enough"'))
    await pair.start()
    await pair.until(lambda: "probed" in kinds(pair.hq), 300)
    assert why_of(pair).error.code == "E-PSK"
    (ended,) = (event for event in story(pair.hq) if event.event == "probed")
    assert ended.text.startswith("the pre-shared keys differ, or the peer expects another identity of us")
    explanation = why_of(pair).explanation
    assert "put the same key on both sides, or set ike.local_id" in explanation.change
    assert {one.key for one in explanation.where} == {"pre_shared_key", "ike.local_id"}


@with_pair
async def test_what_was_learnt_ends_with_a_change(pair: Pair) -> None:
    await asked(pair, "ike.dh_group = 31", "ike.dh_group = 14")
    pair.configure({"t": ROUTED}, {"t": BACK})
    await pair.hq.operator.reload()
    await pair.until(lambda: pair.state()[0] == "up", 120)
    why = why_of(pair)
    assert (why.error.code, why.standing) == ("E-P1-DH", False)


OTHER = ip_address("192.0.2.3")
SPOOFED: dict[str, Callable[[bytes], list[tuple[int, bytes]]]] = {
    "refused": lambda data: [(Notify2.NO_PROPOSAL_CHOSEN, b"")],
    "another group": lambda data: [(Notify2.INVALID_KE_PAYLOAD, b"\x00\x1f")],
    "another version": lambda data: [(Notify2.INVALID_MAJOR_VERSION, b"")],
    "by turns": lambda data: [(Notify2.NO_PROPOSAL_CHOSEN + 3 * (data[0] % 2), b"\x00\x1f")],
}
"""What a stranger on the way answers to each IKE_SA_INIT."""


@pytest.mark.parametrize("spoofed", SPOOFED)
@with_pair
async def test_a_stranger_provokes_one_round_in_ten_minutes_and_none_of_another_tunnel(
    pair: Pair, spoofed: str
) -> None:
    """It answers for the peer, and says things in the name of another tunnel's peer, which is quiet."""
    other = f'\n[customer_gateways.quiet]\naddress = "{OTHER}"\n'
    text = configuration("hq", "192.0.2.1", "192.0.2.2", {"t": f'{ROUTED}\ndiagnose = "all"'})
    key = f'pre_shared_key = "plain:{KEY}"'
    routes = 'negotiation = "passive"\nroutes = ["10.78.0.0/16"]'
    pair.hq.write(f'{text}{other}[tunnels.u]\ncustomer_gateway = "quiet"\n{key}\n{routes}\n')
    sent: dict[Address, list[bytes]] = {pair.branch.address: [], OTHER: []}
    loop = asyncio.get_running_loop()

    def carry(path: Path, data: bytes) -> None:
        sent[path.remote].append(data)
        back = Path(path.remote, path.remote_port, path.local, path.local_port)
        if data[18] == Exchange2.IKE_SA_INIT and path.remote == pair.branch.address:
            notifies = [Notify(*one) for one in SPOOFED[spoofed](data)]
            answer = in_clear(data[:8], bytes(8), Exchange2.IKE_SA_INIT, Flag.RESPONSE, 0, notifies)
            loop.call_soon(pair.hq.receive, back, answer)

    pair.wire.carry = carry  # type: ignore[method-assign] # a stranger
    await pair.hq.start()
    seconds = 3700
    for second in range(seconds // 10):
        v1 = Header(second.to_bytes(8, "big"), bytes(8), 1, 0x10, 2, 0, 0, HEADER_LENGTH)
        for data in (v1.encode(), b"\xff" * 40, in_clear(b"12345678", bytes(8), 34, 8, 0, [])):
            pair.hq.receive(Path(pair.hq.address, 500, OTHER, 500), data)
        await asyncio.sleep(10)
    began = [event for event in pair.hq.journal.events.recent() if event.event == "probing"]
    assert {event.tunnel for event in began} <= {"t"}
    assert len(began) <= seconds // 600 + 1
    asked = [data for data in sent[OTHER] if not data[19] & Flag.RESPONSE and data[17] == 0x20]
    assert not asked, "the quiet tunnel asks nothing"
    assert len(sent[pair.branch.address]) < 150 * (seconds // 600 + 1)
    assert not pair.hq.engine.installed
