"""Identities: what a word means, when two match, and that a peer's bytes print safely."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpnd.model.identity import MAX_FQDN, Identity
from vpnd.wire.iana import IdType


@pytest.mark.parametrize(
    ("word", "kind", "value"),
    [
        ("192.0.2.1", IdType.IPV4_ADDR, bytes([192, 0, 2, 1])),
        ("2001:db8::1", IdType.IPV6_ADDR, ip_address("2001:db8::1").packed),
        ("gw.example.org", IdType.FQDN, b"gw.example.org"),
        ("@gw.example.org", IdType.FQDN, b"gw.example.org"),
        ("branch_1.2", IdType.FQDN, b"branch_1.2"),
        ("@203.0.113.1", IdType.FQDN, b"203.0.113.1"),
        ("@192.0.2.300", IdType.FQDN, b"192.0.2.300"),
        ("@user@host", IdType.FQDN, b"user@host"),
        ("@any", IdType.FQDN, b"any"),
    ],
)
def test_a_configuration_word_is_an_address_or_a_name(word: str, kind: IdType, value: bytes) -> None:
    assert Identity.of(word) == Identity(kind, value)
    assert Identity.of(str(Identity.of(word))) == Identity.of(word)


def test_only_a_text_that_looks_like_something_else_is_shown_with_its_mark() -> None:
    assert str(Identity.of("@gw.example.org")) == "gw.example.org"
    assert str(Identity.of("@203.0.113.1")) == "@203.0.113.1"


REFUSED = [
    *["", "@", "gw example", "gw\n", "gÄteway", "a" * (MAX_FQDN + 1), "@" + "a" * (MAX_FQDN + 1), '@a"b'],
    *["192.0.2.300", "192.0.2", "192.0.2.1-192.0.2.9", "192.0.2.0/24", "192.0.2.1:500", "[2001:db8::1]"],
    *["%any", "%fromcert", "*", "*.example.com", "any", "0.0.0.0", "::", "fe80::1%eth0"],
    *["user@host", "@@user@host", "@#6162", "@[key]", "@~3031", "C=CH,CN=gw", "/C=CH/CN=gw"],
    *["keyid:x", "fqdn:gw", "dns:gw", "rfc822:a@b", "asn1dn:CN=gw", "ipv4:192.0.2.1", "{2}:gw"],
]


@pytest.mark.parametrize("word", REFUSED)
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"neither an IP address nor a domain name|not the address of one"):
        Identity.of(word)


@given(st.sampled_from([t.value for t in IdType]), st.binary(max_size=20))
def test_the_word_of_an_identity_means_it_again(kind: int, value: bytes) -> None:
    identity = Identity(kind, value)
    if identity.word is not None:
        assert Identity.of(identity.word) == identity
        assert str(identity) == identity.word


@pytest.mark.parametrize("kind", [IdType.RFC822_ADDR, IdType.KEY_ID, IdType.DER_ASN1_DN])
def test_other_types_have_no_word(kind: IdType) -> None:
    assert Identity(kind, b"gw.example.org").word is None


def test_a_key_id_is_shown_as_the_text_that_it_most_often_is() -> None:
    assert Identity(IdType.KEY_ID, b"branch").describe() == "branch (KEY_ID)"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gw.example.org", "GW.Example.ORG"),
        ("gw.example.org", "gw.example.org."),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:0db8:0::1"),
    ],
)
def test_these_match(one: str, other: str) -> None:
    assert Identity.of(one).matches(Identity.of(other))
    assert Identity.of(other).matches(Identity.of(one))


def test_mail_addresses_match_without_regard_to_case() -> None:
    assert Identity(IdType.RFC822_ADDR, b"A@b.c").matches(Identity(IdType.RFC822_ADDR, b"a@B.C"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Identity.of("gw.example.org"), Identity.of("gw2.example.org")),
        (Identity.of("192.0.2.1"), Identity.of("192.0.2.2")),
        (Identity.of("192.0.2.1"), Identity(IdType.FQDN, b"192.0.2.1")),
        (Identity.of("192.0.2.1"), Identity(IdType.FQDN, bytes([192, 0, 2, 1]))),
        (Identity(IdType.KEY_ID, b"key"), Identity(IdType.KEY_ID, b"KEY")),
        (Identity(IdType.KEY_ID, b"key"), Identity(IdType.KEY_ID, b"key.")),
        (Identity(IdType.FQDN, b"key"), Identity(IdType.RFC822_ADDR, b"key")),
    ],
)
def test_these_do_not(one: Identity, other: Identity) -> None:
    assert not one.matches(other)
    assert not other.matches(one)


def test_an_address_of_another_length_matches_only_itself() -> None:
    odd = Identity(IdType.IPV4_ADDR, b"\xc0\x00\x02")
    assert str(odd) == "IPV4_ADDR:c00002"
    assert not odd.matches(Identity.of("192.0.2.1"))


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        (Identity(IdType.FQDN, b"gw\nERROR all keys lost"), "gw\\x0aERROR\\x20all\\x20keys\\x20lost"),
        (Identity(IdType.FQDN, b"\x1b[31m"), "\\x1b[31m"),
        (Identity(IdType.FQDN, b"\xff\x00\x7f"), "\\xff\\x00\\x7f"),
        (Identity(IdType.KEY_ID, b"\x01\x02"), "KEY_ID:0102"),
        (Identity(IdType.DER_ASN1_DN, b"\x30\x00"), "DER_ASN1_DN:3000"),
        (Identity(250, b"x"), "250:78"),
        (Identity(IdType.IPV6_ADDR, b"short"), "IPV6_ADDR:73686f7274"),
    ],
)
def test_a_peers_bytes_are_escaped(identity: Identity, text: str) -> None:
    assert str(identity) == text


def test_a_long_name_is_cut() -> None:
    assert len(str(Identity(IdType.FQDN, b"a" * 60000))) == MAX_FQDN
    assert len(str(Identity(IdType.KEY_ID, b"a" * 60000))) == len("KEY_ID:") + 128


@given(st.integers(0, 255), st.binary(max_size=300))
def test_whatever_a_peer_says_prints_on_one_line(kind: int, value: bytes) -> None:
    for text in (str(Identity(kind, value)), Identity(kind, value).describe()):
        assert text.isascii()
        assert text.isprintable()


def test_a_diagnosis_shows_value_and_type() -> None:
    assert Identity.of("192.0.2.1").describe() == "192.0.2.1 (IPV4_ADDR)"
    assert Identity.of("gw.example.org").describe() == "gw.example.org (FQDN)"
