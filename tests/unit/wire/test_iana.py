"""Registry words."""

from enum import IntEnum

from vpnd.wire import iana
from vpnd.wire.iana import Notify2, Payload1, Payload2, name_of


def test_a_number_has_its_registrys_word() -> None:
    assert name_of(Notify2, 14) == "NO_PROPOSAL_CHOSEN"
    assert name_of(Payload2, 53) == "SKF"


def test_a_number_without_a_word_stays_a_number() -> None:
    assert name_of(Notify2, 60000) == "60000"


def test_no_payload_number_means_something_in_both_versions() -> None:
    """An IKEv1 payload in an IKEv2 message is unknown, and the other way round (CVE-2015-3991)."""
    assert not ({int(p) for p in Payload1} & {int(p) for p in Payload2}) - {0}


NUMBERS: dict[type[IntEnum], tuple[int, ...]] = {
    iana.IkeVersion: (1, 2),
    iana.Protocol: (0, 1, 2, 3),
    iana.IpProtocol: (0, 1, 4, 6, 17, 33, 41, 47, 50, 51, 58, 89, 103, 112, 132, 136),
    iana.Exchange2: (34, 35, 36, 37, 43),
    iana.Payload2: (0, *range(33, 49), 53),
    iana.TransformType: (1, 2, 3, 4, 5),
    iana.Encr2: (2, 3, 11, 12, 20, 28),
    iana.Prf2: (1, 2, 5, 6, 7),
    iana.Integ2: (0, 1, 2, 12, 13, 14),
    iana.DhGroup: (0, 1, 2, 5, 14, 15, 16, 19, 20, 21, 24, 31),
    iana.Kem: (35, 36, 37),
    iana.Esn: (0, 1),
    iana.AuthMethod2: (1, 2, 3, 9, 10, 11, 13, 14),
    iana.Notify2: (
        *(1, 4, 5, 7, 9, 11, 14, 17, 24, *range(34, 40), 43, 44),
        *(*range(16384, 16400), 16404, 16406, 16418, 16420, 16430, 16431),
    ),
    iana.TsType: (7, 8),
    iana.IdType: tuple(range(1, 12)),
    iana.Exchange1: (2, 4, 5, 6, 32, 33),
    iana.Payload1: (*range(14), 20, 21, 130, 131, 132),
    iana.TransformId1: (1,),
    iana.Phase1Attribute: tuple(range(1, 17)),
    iana.Phase2Attribute: tuple(range(1, 14)),
    iana.Encr1: (1, 5, 7, 129),
    iana.Hash1: (1, 2, 4, 5, 6, 20),
    iana.EspTransform1: (2, 3, 11, 12, 20, 129),
    iana.EspAuth1: (1, 2, 5, 6, 7, 20),
    iana.AuthMethod1: (1, 2, 3, 4, 5, 65001),
    iana.LifeType: (1, 2),
    iana.EncapsulationMode: (1, 2, 3, 4, 61443),
    iana.Notify1: (*range(1, 28), 30, 16384, 24576, 24577, 24578, 36136, 36137),
}
"""The numbers of each registry of IANA, in the order in which it lists the words that we have."""


def test_every_registry_has_its_numbers() -> None:
    found = {one for one in vars(iana).values() if isinstance(one, type) and issubclass(one, IntEnum)}
    assert found - {IntEnum} == set(NUMBERS)
    assert {registry: tuple(map(int, registry)) for registry in NUMBERS} == NUMBERS
