"""The peer's half of a key exchange: checked before ours is made, and the secret that both yield."""

from __future__ import annotations

from vpnd.crypto.dh import InvalidPublicValue, KeyPair, check_public
from vpnd.ike.v2.faults import InvalidSyntax
from vpnd.model.secret import Secret
from vpnd.wire.ikev2 import KeyExchange


def check_value(ke: KeyExchange, exchange: str) -> None:
    """Before any work of our own for the peer: is its value one of its group? Raises InvalidSyntax.

    The group must be one of ours. What an initiator gets is checked in `shared_secret`: its own half exists.
    """
    try:
        check_public(ke.group, ke.data)
    except InvalidPublicValue as error:
        raise InvalidSyntax(exchange=exchange, detail=str(error)) from error


def shared_secret(ours: KeyPair, ke: KeyExchange, exchange: str) -> Secret:
    """g^ir with the peer's value, of the same group. Raises InvalidSyntax for one that is none."""
    try:
        return ours.shared(ke.data)
    except InvalidPublicValue as error:
        raise InvalidSyntax(exchange=exchange, detail=str(error)) from error
