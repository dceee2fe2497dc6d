"""Registry words."""

from vpnd.wire.iana import Notify1, Notify2, Payload1, Payload2, name_of


def test_a_number_has_its_registrys_word():
    assert name_of(Notify2, 14) == "NO_PROPOSAL_CHOSEN"
    assert name_of(Payload2, 53) == "SKF"


def test_a_number_without_a_word_stays_a_number():
    assert name_of(Notify2, 60000) == "60000"


def test_no_payload_number_means_something_in_both_versions():
    """An IKEv1 payload in an IKEv2 message is unknown, and the other way round (CVE-2015-3991)."""
    assert not ({int(p) for p in Payload1} & {int(p) for p in Payload2}) - {0}


def test_the_numbers_of_notifies_have_no_gap_where_the_rfcs_have_none() -> None:
    """RFC 2408 section 3.14.1: errors 1 to 30, of which two have no word here; RFC 7296 section 3.10.1."""
    assert {int(one) for one in Notify1 if one <= 30} == set(range(1, 31)) - {28, 29}
    assert {int(one) for one in Notify2} >= set(range(16384, 16396))
