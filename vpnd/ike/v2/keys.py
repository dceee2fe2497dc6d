"""The key schedule of IKEv2 (RFC 7296 sections 2.13 to 2.18) and the AUTH payload of a pre-shared key."""

from __future__ import annotations

from dataclasses import dataclass

from vpnd.crypto.prf import PRFS
from vpnd.crypto.seal import key_lengths
from vpnd.model.child import EspKeys
from vpnd.model.proposals import Suite
from vpnd.model.secret import Secret
from vpnd.wire.cursor import Cursor

KEY_PAD = b"Key Pad for IKEv2"
"""Seventeen ASCII characters without a terminating zero (RFC 7296 section 2.15)."""


@dataclass(frozen=True, slots=True)
class DirectionKeys:
    """The keys that protect the IKE messages of one side, and its SK_p."""

    encryption: Secret
    integrity: Secret
    salt: Secret
    sk_p: Secret


@dataclass(frozen=True, slots=True)
class IkeKeys:
    """The keys of one IKE SA. `initiator` are SK_ai, SK_ei and SK_pi; `responder` the others."""

    prf: str
    sk_d: Secret
    initiator: DirectionKeys
    responder: DirectionKeys


def derive_skeyseed(prf: str, shared: Secret, nonce_i: bytes, nonce_r: bytes) -> Secret:
    """SKEYSEED = prf(Ni | Nr, g^ir) (RFC 7296 section 2.14)."""
    return Secret(PRFS[prf](nonce_i + nonce_r, shared.reveal()))


def derive_successor_skeyseed(old: IkeKeys, shared: Secret, nonce_i: bytes, nonce_r: bytes) -> Secret:
    """SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr), with the old SA's prf (RFC 7296 section 2.18)."""
    return Secret(PRFS[old.prf](old.sk_d.reveal(), shared.reveal(), nonce_i, nonce_r))


def derive_ike_keys(
    suite: Suite, skeyseed: Secret, nonce_i: bytes, nonce_r: bytes, spi_i: bytes, spi_r: bytes
) -> IkeKeys:
    """{SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr} = prf+(SKEYSEED, Ni | Nr | SPIi | SPIr).

    For an AEAD cipher there is no SK_a, and SK_e is key | salt (RFC 5282 section 7.1). Raises ValueError
    for a suite that is not an IKE SA's.
    """
    if suite.prf is None:
        raise ValueError("the suite of an IKE SA has a PRF")
    prf = PRFS[suite.prf]
    lengths = key_lengths(suite.encryption, suite.integrity)
    each = lengths.integrity + lengths.encryption + lengths.salt + prf.key_length
    stream = prf.plus(skeyseed.reveal(), nonce_i + nonce_r + spi_i + spi_r, prf.key_length + 2 * each)
    cut = Cursor(stream)
    sk_d = Secret(cut.take(prf.key_length))
    integrity = [Secret(cut.take(lengths.integrity)) for _ in range(2)]
    encryption = [(Secret(cut.take(lengths.encryption)), Secret(cut.take(lengths.salt))) for _ in range(2)]
    sk_p = [Secret(cut.take(prf.key_length)) for _ in range(2)]
    initiator, responder = (
        DirectionKeys(encryption[side][0], integrity[side], encryption[side][1], sk_p[side])
        for side in range(2)
    )
    return IkeKeys(suite.prf, sk_d, initiator, responder)


def derive_child_keys(
    ike: IkeKeys, suite: Suite, nonce_i: bytes, nonce_r: bytes, shared: Secret | None = None
) -> tuple[EspKeys, EspKeys]:
    """KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr), the initiator's direction first (RFC 7296 section 2.17).

    The first of the two protects what the exchange's initiator sends. In each direction the encryption
    key comes first, an AEAD cipher's salt right behind it.
    """
    lengths = key_lengths(suite.encryption, suite.integrity)
    each = lengths.encryption + lengths.salt + lengths.integrity
    seed = (shared.reveal() if shared else b"") + nonce_i + nonce_r
    cut = Cursor(PRFS[ike.prf].plus(ike.sk_d.reveal(), seed, 2 * each))

    def direction() -> EspKeys:
        encryption = Secret(cut.take(lengths.encryption))
        salt = Secret(cut.take(lengths.salt))
        return EspKeys(encryption, Secret(cut.take(lengths.integrity)), salt)

    return direction(), direction()


def auth_of_psk(
    prf: str, psk: Secret, sk_p: Secret, first_message: bytes, peer_nonce: bytes, id_body: bytes
) -> bytes:
    """AUTH = prf(prf(Shared Secret, "Key Pad for IKEv2"), RealMessage | NonceOfThePeer | prf(SK_p, ID')).

    `first_message` is the signer's own IKE_SA_INIT message as it travelled, `id_body` the body of its ID
    payload as it travelled, reserved bytes included (RFC 7296 section 2.15).
    """
    mac = PRFS[prf]
    maced_id = mac(sk_p.reveal(), id_body)
    return mac(mac(psk.reveal(), KEY_PAD), first_message, peer_nonce, maced_id)
