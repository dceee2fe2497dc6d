"""Every code has words; both values and the key to change are in them; a peer's text is tame."""

from __future__ import annotations

import re

import pytest

from vpnd.control.diagnoses import explain, keys_of, message
from vpnd.control.explanation import About
from vpnd.control.mismatches import SM_TESTED
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.identity import Identity
from vpnd.wire.iana import IdType

FACTS = {
    "exchange": "IKE_AUTH",
    "notify": "NO_PROPOSAL_CHOSEN",
    "theirs": "aes-256",
    "ours": "aes-128",
    "peer": "198.51.100.1",
    "mapping": "10.1.0.0/24 - 10.2.0.0/24",
    "sent": "5",
    "received": "0",
    "detail": "said so",
}


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("facts", [{}, FACTS], ids=["bare", "full"])
def test_every_code_is_explained_with_and_without_facts(code: Code, facts: dict[str, str]) -> None:
    explanation = explain(Diagnosis.of(code, **facts), "branch-a")
    assert explanation.code == code.value
    assert explanation.what
    assert explanation.change
    assert explanation.try_
    words = " ".join((explanation.what, explanation.change, *explanation.try_, *explanation.also_possible))
    assert "None" not in words
    assert "{" not in words
    assert explanation.body().try_ == list(explanation.try_)
    assert message(Diagnosis.of(code, **facts)) == explanation.what
    assert "\n" not in explanation.what


@pytest.mark.parametrize(
    ("code", "key", "theirs", "ours"),
    [
        (Code.P1_ENCRYPTION, "ike.encryption", "aes-256, 3des", "aes-128"),
        (Code.P1_INTEGRITY, "ike.integrity", "sha512, sha1", "sha256"),
        (Code.P2_ENCRYPTION, "ipsec.encryption", "aes-256, 3des", "aes-128"),
        (Code.P2_INTEGRITY, "ipsec.integrity", "sha512, sha1", "sha256"),
    ],
)
def test_a_mismatch_names_both_values_and_the_key(code: Code, key: str, theirs: str, ours: str) -> None:
    explanation = explain(Diagnosis.of(code, theirs=theirs, ours=ours))
    assert f"the peer has {theirs}, we have {ours}" in explanation.what
    assert explanation.change is not None
    first, second = theirs.split(", ")
    assert f'set {key} = ["{first}", "{second}"] here' in explanation.change
    assert f"have the peer offer {ours}" in explanation.change
    assert keys_of(Diagnosis.of(code)) == (key,)


@pytest.mark.parametrize(
    ("code", "theirs", "ours", "change"),
    [
        (Code.P1_ENCRYPTION, "encr-23-128", "aes-128", "have the peer offer aes-128: vpnd has nothing else"),
        (Code.P1_ENCRYPTION, "encr-23, aes-256", "aes-128", 'set ike.encryption = "aes-256" here'),
        (Code.P1_ENCRYPTION, "sm4", "aes-128", 'set ike.encryption = "sm4" here'),
        (Code.P1_DH, "14", "31, 14", "have the peer offer 31, 14: vpnd has nothing else"),
        (Code.P1_DH, "22", "14", "have the peer offer 14: vpnd has nothing else"),
        (Code.PFS, "2", "2", "set ipsec.pfs to the same at both ends"),
        (Code.PFS, "22", "2", "set ipsec.pfs to the same at both ends"),
        (Code.P1_PRF, "sha512", "sha256", "have the peer use the PRF sha256"),
    ],
)
def test_the_advice_is_a_value_that_can_be_set_and_is_not(
    code: Code, theirs: str, ours: str, change: str
) -> None:
    assert (explain(Diagnosis.of(code, theirs=theirs, ours=ours)).change or "").startswith(change)


def test_the_advice_of_sm4_says_what_was_tested() -> None:
    change = explain(Diagnosis.of(Code.P2_INTEGRITY, theirs="sm3", ours="sha256")).change or ""
    assert change.endswith(SM_TESTED)
    assert SM_TESTED not in (
        explain(Diagnosis.of(Code.P1_ENCRYPTION, theirs="des", ours="3des")).change or ""
    )


@pytest.mark.parametrize(("version", "word"), [("ikev1", "negotiation mode"), ("ikev2", "")])
def test_what_else_is_possible_belongs_to_the_version(version: str, word: str) -> None:
    silent = explain(Diagnosis.of(Code.SILENT), "a", About(version=version)).also_possible
    refused = explain(Diagnosis.of(Code.TRAFFIC_SELECTORS), "a", About(version=version)).also_possible
    assert any("mode" in other for other in silent) is bool(word)
    assert any("IKEv1" in other for other in refused) is bool(word)


@pytest.mark.parametrize(
    ("vendor", "version", "code", "words"),
    [
        ("Fortinet", "ikev2", Code.P1_PROPOSAL, " (FortiGate: Phase 1 Proposal)"),
        ("Fortinet", "ikev1", Code.P2_ENCRYPTION, " (FortiGate: Phase 2 Proposal)"),
        ("Cisco", "ikev2", Code.P1_DH, " (Cisco: crypto ikev2 proposal)"),
        ("Cisco", "ikev1", Code.P1_DH, " (Cisco: crypto isakmp policy)"),
        ("strongSwan", "ikev2", Code.IDENTITY, " (strongSwan: local.id)"),
        (None, "ikev2", Code.P1_DH, ""),
        ("somebody's", "ikev2", Code.P1_DH, ""),
    ],
)
def test_the_advice_uses_the_words_of_the_peers_product(
    vendor: str | None, version: str, code: Code, words: str
) -> None:
    about = About(version=version, vendor=vendor)
    change = explain(Diagnosis.of(code, theirs="14", ours="2"), "a", about).change or ""
    plain = explain(Diagnosis.of(code, theirs="14", ours="2"), "a", About(version=version)).change or ""
    assert change == plain + words


@pytest.mark.parametrize(
    ("cause", "port", "words"),
    [
        ("prohibited", "500", "a firewall on the way, or at the peer, does not let UDP 500 through"),
        ("prohibited", "4500", "a firewall on the way, or at the peer, does not let UDP 4500 through"),
        ("forbidden_here", "500", "a firewall on this machine does not let UDP 500 through"),
        ("host", "500", "the network cannot reach"),
    ],
)
def test_a_firewall_is_called_one(cause: str, port: str, words: str) -> None:
    facts = {"cause": cause, "port": port, "peer": "198.51.100.1"}
    assert explain(Diagnosis.of(Code.UNREACHABLE, **facts)).what.startswith(words)


@pytest.mark.parametrize(
    ("facts", "change"),
    [
        (
            {"errno": "EADDRINUSE", "owner": "charon (pid 13)"},
            "end charon (pid 13), or let it listen elsewhere",
        ),
        (
            {"errno": "EADDRINUSE"},
            "end the other program that has UDP 500 or 4500, or let it listen elsewhere",
        ),
    ],
)
def test_who_has_the_port_is_named(facts: dict[str, str], change: str) -> None:
    assert explain(Diagnosis.of(Code.LOCAL_SOCKET, **facts)).change == change


def test_an_interface_that_cannot_be_made_has_one_cause() -> None:
    taken = explain(Diagnosis.of(Code.LOCAL_INTERFACE, ours="vpn-t", cause="taken"))
    refused = explain(Diagnosis.of(Code.LOCAL_INTERFACE, ours="vpn-t", detail="Operation not permitted"))
    assert "CAP_NET_ADMIN" not in (taken.change or "")
    assert taken.try_ == ("ip -d link show vpn-t",)
    assert refused.change == "run vpnd with CAP_NET_ADMIN and /dev/net/tun"


@pytest.mark.parametrize("exchange", ["IKE_AUTH", "CREATE_CHILD_SA", "quick mode"])
def test_what_was_not_negotiated_cannot_differ(exchange: str) -> None:
    """The first SA of IKEv2 has no key exchange of its own."""
    diagnosis = Diagnosis.of(Code.P2_PROPOSAL, exchange=exchange, ours="aes-128/sha256")
    explanation = explain(diagnosis, "t", About(version="ikev2"))
    about_pfs = any("pfs" in one for one in (explanation.change or "", *explanation.also_possible))
    assert about_pfs == ("ipsec.pfs" in keys_of(diagnosis)) == (exchange != "IKE_AUTH")


def test_what_is_refused_on_port_4500_is_told() -> None:
    explanation = explain(Diagnosis.of(Code.UDP_4500, cause="prohibited", sent=4, received=1))
    assert explanation.what.endswith(": 4 sent, 1 received")
    assert explanation.peer_said == "ICMP: administratively prohibited, says a firewall, on UDP 4500"
    assert not explanation.also_possible


def test_a_peer_that_takes_one_of_ours_alone() -> None:
    facts = {"theirs": "aes-128/sha256/dh14", "ours": "aes-256 or aes-128/sha256/dh14"}
    told = explain(Diagnosis.of(Code.P1_PROPOSAL, probed="alone", **facts), "t")
    assert "takes aes-128/sha256/dh14 of it where that is offered alone" in told.what
    assert told.change == (
        "offer aes-128/sha256/dh14 alone: one value each for ike.encryption, ike.integrity and ike.dh_group"
    )
    assert not any("diagnose" in line for line in told.try_)


def test_a_peer_that_takes_none_of_ours_can_be_asked_for_more() -> None:
    told = explain(Diagnosis.of(Code.P1_PROPOSAL, ours="aes-256/sha512/dh31"), "t")
    assert told.what.endswith("acceptable to both sides: aes-256/sha512/dh31")
    assert told.try_[-1].startswith('diagnose = "all" in [tunnels.t]')


def test_a_dh_group_is_written_without_quotes() -> None:
    explanation = explain(Diagnosis.of(Code.P1_DH, theirs=14, ours=2))
    assert explanation.what == "the DH group of the IKE SA differs: the peer has 14, we have 2"
    assert (explanation.change or "").startswith("set ike.dh_group = 14 here")


@pytest.mark.parametrize(("theirs", "change"), [("14", "ipsec.pfs = 14"), ("none", 'ipsec.pfs = "disable"')])
def test_pfs(theirs: str, change: str) -> None:
    explanation = explain(Diagnosis.of(Code.PFS, theirs=theirs, ours="2"))
    assert change in (explanation.change or "")


def test_a_wrong_key_gives_the_fingerprint_and_the_other_possibility() -> None:
    explanation = explain(Diagnosis.of(Code.PSK, notify="AUTHENTICATION_FAILED", ours="3f9a-77c1"), "a")
    assert explanation.what == "the pre-shared keys, or the identities, differ"
    assert "3f9a-77c1" in (explanation.we_have or "")
    assert any("identity" in text for text in explanation.also_possible)
    assert "vpnctl psk fingerprint a" in explanation.try_


def test_who_checks_the_proof_itself_knows_that_it_is_the_key() -> None:
    assert (
        explain(Diagnosis.of(Code.PSK, exchange="IKE_AUTH")).what == "the pre-shared keys differ (IKE_AUTH)"
    )


def test_how_the_peer_authenticates_is_what_it_said() -> None:
    for theirs, said in (("RSA signature", "RSA signature"), (None, "AUTHENTICATION_FAILED")):
        facts = {"notify": "AUTHENTICATION_FAILED"} | ({"theirs": theirs} if theirs else {})
        explanation = explain(Diagnosis.of(Code.P1_AUTH_METHOD, **facts))
        assert explanation.peer_said == said
        assert (": RSA signature" in explanation.what) is (theirs is not None)


@pytest.mark.parametrize(
    ("facts", "we_have"),
    [
        ({"ours": "3f9a-77c1", "detail": "said so"}, "a key with the fingerprint 3f9a-77c1"),
        ({"detail": "said so"}, "said so"),
        ({}, None),
    ],
)
def test_silence_on_port_4500_shows_the_key_that_may_differ(
    facts: dict[str, str], we_have: str | None
) -> None:
    assert explain(Diagnosis.of(Code.UDP_4500, **facts)).we_have == we_have


def test_pfs_is_written_with_the_word_of_the_file() -> None:
    explanation = explain(Diagnosis.of(Code.PFS, theirs="14", ours="none"))
    assert explanation.we_have == "ipsec.pfs: disable"
    assert explanation.change == "set ipsec.pfs = 14 here, or none at the peer"


@pytest.mark.parametrize(
    ("whose", "key"),
    [("theirs", "ike.remote_id"), ("ours", "ike.local_id")],
)
def test_an_identity_names_the_side_that_differs(whose: str, key: str) -> None:
    """It is a fact of its own: no words in the detail decide."""
    facts = {"theirs": "10.0.0.1 (IPV4_ADDR)", "ours": "198.51.100.1 (IPV4_ADDR)", "whose": whose}
    facts["detail"] = "our identity (IDr)"
    explanation = explain(Diagnosis.of(Code.IDENTITY, **facts))
    assert "10.0.0.1 (IPV4_ADDR)" in explanation.what
    assert "198.51.100.1 (IPV4_ADDR)" in explanation.what
    assert f'set {key} = "10.0.0.1" here' in (explanation.change or "")


IDENTITIES = [
    (Identity(IdType.FQDN, b"203.0.113.1"), 'set ike.remote_id = "@203.0.113.1" here'),
    (Identity(IdType.FQDN, b"user@host"), 'set ike.remote_id = "@user@host" here'),
    (Identity.of("203.0.113.1"), 'set ike.remote_id = "203.0.113.1" here'),
    (Identity.of("gw.example"), 'set ike.remote_id = "gw.example" here'),
    (Identity(IdType.KEY_ID, b"gw.example"), "vpnd has no word for "),
    (Identity(IdType.RFC822_ADDR, b"gw.example"), "vpnd has no word for "),
    (Identity(IdType.DER_ASN1_DN, b"0\x00"), "vpnd has no word for "),
    (Identity(IdType.IPV4_ADDR, b"gw"), "vpnd has no word for "),
    (Identity(IdType.FQDN, b"gw example"), "vpnd has no word for "),
    (Identity(IdType.FQDN, b"#gw"), "vpnd has no word for "),
]


@pytest.mark.parametrize(("theirs", "change"), IDENTITIES)
def test_what_an_identity_is_to_be_set_to_works_and_is_not_set_already(theirs: Identity, change: str) -> None:
    facts = {"theirs": theirs.describe(), "ours": Identity.of("gw.example").describe()}
    told = explain(Diagnosis.of(Code.IDENTITY, **facts)).change or ""
    assert change in told
    written = re.search(r'= "(.*)" here', told)
    assert written is None or Identity.of(written[1]).matches(theirs)


def test_our_identity_refused_in_aggressive_mode_may_be_the_mode() -> None:
    facts = {"ours": "hq.example (FQDN)", "whose": "ours", "exchange": "aggressive mode"}
    explanation = explain(Diagnosis.of(Code.IDENTITY, **facts))
    assert explanation.we_have == "ike.local_id: hq.example (FQDN)"
    assert explanation.change == "compare ike.local_id and ike.negotiation_mode with the peer's configuration"
    assert keys_of(Diagnosis.of(Code.IDENTITY, **facts)) == ("ike.local_id", "ike.negotiation_mode")
    facts["exchange"] = "IKE_AUTH"
    assert keys_of(Diagnosis.of(Code.IDENTITY, **facts)) == ("ike.local_id",)
    assert any("main mode" in other for other in explanation.also_possible)


@pytest.mark.parametrize(("theirs", "ours"), [("ikev1", "ikev2"), (None, "ikev2"), ("ikev2", "ikev1")])
def test_versions(theirs: str | None, ours: str) -> None:
    explanation = explain(Diagnosis.of(Code.VERSION, theirs=theirs, ours=ours))
    other = "ikev1" if ours == "ikev2" else "ikev2"
    assert f'set ike.version = "{other}" here' in (explanation.change or "")


def test_silence_counts_messages() -> None:
    explanation = explain(Diagnosis.of(Code.SILENT, peer="198.51.100.1", sent=5, received=0))
    assert explanation.what == "198.51.100.1 does not answer: 5 sent, 0 received"


def test_what_a_peer_said_is_tame() -> None:
    explanation = explain(Diagnosis.of(Code.PEER_REFUSED, detail="a\n\x1b[2Jb\x00"), "a")
    assert explanation.what == "the peer refused: a\\n\\x1b[2Jb\\x00"


@pytest.mark.parametrize(
    ("errno", "change"),
    [("EADDRNOTAVAIL", "gateway.address"), ("EADDRINUSE", "the other program"), ("EPERM", "CAP_NET_ADMIN")],
)
def test_a_socket_that_cannot_be_opened_says_which_way_out(errno: str, change: str) -> None:
    """By the number of the error: its words are those of the C library, in its language."""
    facts = {"errno": errno, "detail": "kann nicht: in use, assign"}
    assert change in (explain(Diagnosis.of(Code.LOCAL_SOCKET, **facts)).change or "")


def test_a_mapping_that_the_peer_wants_only_beside_another_says_what_to_write_at_either_end() -> None:
    facts = {"notify": "TS_UNACCEPTABLE", "mapping": "10.1.1.0/24 - 10.2.0.0/24", "detail": "offered"}
    explanation = explain(Diagnosis.of(Code.NARROWED, **facts), "branch-a")
    assert explanation.what.startswith("10.1.1.0/24 - 10.2.0.0/24: ")
    assert explanation.peer_said == "TS_UNACCEPTABLE"
    assert "at the peer" in (explanation.change or "")
    assert "here one mapping" in (explanation.change or "")


def test_a_demand_is_named_with_its_remedy() -> None:
    theirs = "additional key exchange ML_KEM_768"
    explanation = explain(Diagnosis.of(Code.ADDITION, theirs=theirs), "branch-a")
    assert theirs in explanation.what
    assert "ke1_none" in (explanation.change or "")
