"""The words of a path and of a diagnosis."""

from ipaddress import ip_address, ip_network

import pytest

from vpnd.model.child import Path, endpoint_text
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.policy import ChildPolicy, Lifetimes


def test_a_path_names_both_ends() -> None:
    path = Path(ip_address("192.0.2.1"), 4500, ip_address("2001:db8::1"), 500)
    assert str(path) == "192.0.2.1:4500 - [2001:db8::1]:500"


@pytest.mark.parametrize(
    ("address", "text"), [("192.0.2.1", "192.0.2.1:500"), ("2001:db8::1", "[2001:db8::1]:500")]
)
def test_an_ipv6_address_stands_in_brackets(address: str, text: str) -> None:
    assert endpoint_text(ip_address(address), 500) == text


def test_a_mapping_is_named_by_its_networks() -> None:
    mapping = ChildPolicy(0, ip_network("10.0.1.0/24"), ip_network("10.1.0.0/16"), (), (), Lifetimes(3600))
    assert str(mapping) == "10.0.1.0/24 - 10.1.0.0/16"


def test_a_diagnosis_keeps_the_facts_that_are_known() -> None:
    diagnosis = Diagnosis.of(Code.PSK, exchange="IKE_AUTH", notify=None, sent=3)
    assert diagnosis.facts == (("exchange", "IKE_AUTH"), ("sent", "3"))
    assert diagnosis.fact("sent") == "3"
    assert diagnosis.fact("notify") is None


def test_diagnosis_codes_are_the_operators_names_and_all_differ() -> None:
    names = [code.value for code in Code]
    assert all(name.startswith(("E-", "W-", "I-")) for name in names)
    assert len(set(names)) == len(Code.__members__)
