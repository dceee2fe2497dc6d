"""Registry words."""

from vpnd.wire.iana import Notify2, Payload1, Payload2, name_of


def test_a_number_has_its_registrys_word():
    assert name_of(Notify2, 14) == "NO_PROPOSAL_CHOSEN"
    assert name_of(Payload2, 53) == "SKF"


def test_a_number_without_a_word_stays_a_number():
    assert name_of(Notify2, 60000) == "60000"


def test_no_payload_number_means_something_in_both_versions():
    """An IKEv1 payload in an IKEv2 message is unknown, and the other way round (CVE-2015-3991)."""
    assert not ({int(p) for p in Payload1} & {int(p) for p in Payload2}) - {0}
