"""What both versions check of a key exchange: a public value that no honest peer sends is refused."""

from __future__ import annotations

from vpnd.crypto.dh import InvalidPublicValue, KeyPair, check_public
from vpnd.ike.faults import Fault
from vpnd.model.secret import Secret

NONCE_LENGTH = 32
"""Bytes: at least half the key size of any PRF in use (RFC 7296 section 2.10), and 8 to 256 in IKEv1."""


def check_value(group: int, value: bytes, fault: type[Fault], exchange: str | None = None) -> None:
    """Before any work of our own for the peer: is its value one of the group? Raises `fault`."""
    try:
        check_public(group, value)
    except (InvalidPublicValue, KeyError) as error:
        raise fault(detail=str(error), exchange=exchange) from error


def shared_secret(ours: KeyPair, value: bytes, fault: type[Fault], exchange: str | None = None) -> Secret:
    """g^xy with the peer's value, of the same group. Raises `fault` for one that is none."""
    try:
        return ours.shared(value)
    except InvalidPublicValue as error:
        raise fault(detail=str(error), exchange=exchange) from error
