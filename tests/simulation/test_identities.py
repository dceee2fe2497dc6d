"""The type of an identity counts as much as its value, and the operator sees both."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.simulation.pair import Pair
from tests.simulation.v1.pairs import AGGRESSIVE, MAIN, speaking
from vpnd.control.diagnoses import explain
from vpnd.ike.outputs import Established, Failed
from vpnd.model.diagnosis import Code
from vpnd.model.identity import Identity
from vpnd.wire.iana import IdType

VERSIONS: list[dict[str, Any]] = [{}, speaking(MAIN), speaking(AGGRESSIVE)]
NAMES = ["ikev2", "main", "aggressive"]

NAME, ADDRESS = Identity.of("gw.example"), Identity.of("203.0.113.1")
OTHER_TYPES = [
    (NAME, Identity(IdType.KEY_ID, b"gw.example"), "gw.example (KEY_ID)"),
    (NAME, Identity(IdType.RFC822_ADDR, b"gw.example"), "gw.example (RFC822_ADDR)"),
    (ADDRESS, Identity(IdType.FQDN, b"203.0.113.1"), "@203.0.113.1 (FQDN)"),
    (Identity.of("@203.0.113.1"), ADDRESS, "203.0.113.1 (IPV4_ADDR)"),
    (ADDRESS, Identity(IdType.KEY_ID, b"203.0.113.1"), "203.0.113.1 (KEY_ID)"),
]


@pytest.mark.parametrize(("configured", "sent", "named"), OTHER_TYPES, ids=[n for _, _, n in OTHER_TYPES])
@pytest.mark.parametrize("changes", VERSIONS, ids=NAMES)
def test_the_same_text_of_another_type_is_another_identity(
    changes: dict[str, Any], configured: Identity, sent: Identity, named: str
) -> None:
    pair = Pair(changes_a=changes | {"local_id": sent}, changes_b=changes | {"remote_id": configured})
    pair.a.initiate()
    pair.world.run_for(60)
    assert not pair.b.of(Established)
    failed = pair.b.of(Failed)[0].diagnosis
    assert failed.code is Code.IDENTITY
    assert (failed.fact("theirs"), failed.fact("ours")) == (named, configured.describe())
    told = explain(failed).change or ""
    advised = re.search(r'= "(.*)" here', told)
    assert (advised is None) == (sent.word is None)
    if advised is not None:
        assert Identity.of(advised[1]) == sent != configured


@pytest.mark.parametrize("changes", VERSIONS, ids=NAMES)
def test_a_responder_of_another_type_is_refused_by_the_initiator(changes: dict[str, Any]) -> None:
    sent = Identity(IdType.FQDN, b"203.0.113.1")
    pair = Pair(changes_a=changes | {"remote_id": ADDRESS}, changes_b=changes | {"local_id": sent})
    pair.a.initiate()
    pair.world.run_for(60)
    assert not pair.a.of(Established)
    assert Code.IDENTITY in {failed.diagnosis.code for g in (pair.a, pair.b) for failed in g.of(Failed)}


@pytest.mark.parametrize("changes", VERSIONS, ids=NAMES)
def test_an_fqdn_whose_text_is_an_address_is_an_identity(changes: dict[str, Any]) -> None:
    word = Identity.of("@203.0.113.1")
    pair = Pair(changes_a=changes | {"local_id": word}, changes_b=changes | {"remote_id": word})
    pair.establish()
