"""The numbers of SM4 and SM3 in IKE, which no registry settles, so that every peer may have its own."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.wire.iana import Encr1, EspAuth1, EspTransform1, Hash1

SM3_ICV_LENGTHS = (12, 16, 32)
"""Bytes of HMAC-SM3 that are seen on the wire: cut as in RFC 2407, as in RFC 4868, and whole as in Linux."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers under which SM4 and SM3 are proposed, and how long HMAC-SM3's ICV is on the wire.

    No registry settles these, so peers differ. IKEv1 has the numbers of GM/T 0022; IKEv2 has numbers from
    the range that RFC 7296 section 3.3.2 leaves to private use. The ICV is cut to 96 bits, as for the other
    hashes of RFC 2407; Linux by itself uses all 256.
    """

    sm4_ikev1_phase1: int = Encr1.SM4_CBC
    sm4_ikev1_esp: int = EspTransform1.SM4_CBC
    sm4_ikev2: int = 1031
    sm3_ikev1_hash: int = Hash1.SM3
    sm3_ikev1_esp: int = EspAuth1.HMAC_SM3
    sm3_ikev2_integ: int = 1034
    sm3_ikev2_prf: int = 1035
    sm3_icv_length: int = 12

    def __post_init__(self) -> None:
        if self.sm3_icv_length not in SM3_ICV_LENGTHS:
            raise ValueError(f"an HMAC-SM3 ICV has 12, 16 or 32 bytes, not {self.sm3_icv_length}")


DEFAULT_NUMBERS = Numbers()
