"""The key exchanges of IKEv2: our half of each, the restarts, and what both sides have at the end."""

from __future__ import annotations

from typing import TypeVar

from vpnd.crypto.dh import KeyPair
from vpnd.crypto.entropy import Entropy
from vpnd.crypto.suites import GROUPS
from vpnd.ike.key_exchange import check_value, shared_secret
from vpnd.ike.v2.faults import InvalidKe, InvalidSyntax
from vpnd.ike.v2.ladder import group_wanted
from vpnd.model.policy import PeerPolicy, Probing
from vpnd.model.secret import Secret
from vpnd.wire.iana import Notify2
from vpnd.wire.ikev2 import KeyExchange, Notify

T = TypeVar("T")

INVALID_KE_ROUNDS = 3
"""Restarts with another group: more than one is already odd (libreswan's bound)."""


DECOYS = (19, 14)
"""Groups of a key exchange that the peer cannot take: of these the first that is not asked about."""


class IkeKeyExchange:
    """Our half of the key exchange of an IKE SA, which the peer may want in another group.

    An attempt that only asks what the peer takes has a value of a group that it cannot take
    (`proposals.never_taken`). A peer that takes what is asked about says INVALID_KE_PAYLOAD, names the group,
    and keeps nothing.
    """

    def __init__(self, policy: PeerPolicy, entropy: Entropy) -> None:
        self._policy = policy
        self._entropy = entropy
        self._rounds = 0
        groups = _groups(policy)
        if policy.probing is Probing.OFFER:
            groups = tuple(group for group in DECOYS if group not in groups) or groups
        self.pair = KeyPair.generate(groups[0], entropy)

    @property
    def payload(self) -> KeyExchange:
        return KeyExchange(self.pair.group, self.pair.public)

    def restart(self, error: Notify) -> bool:
        """Whether to ask again after this refusal, with the group that the peer names."""
        group = group_wanted(error)
        wanted = error.type == Notify2.INVALID_KE_PAYLOAD and group in _groups(self._policy)
        if self._policy.probing is Probing.OFFER:
            return False
        if not wanted or group is None or group == self.pair.group or self._rounds >= INVALID_KE_ROUNDS:
            return False
        self._rounds += 1
        self.pair = KeyPair.generate(group, self._entropy)
        return True


def answer_ke(
    ke: KeyExchange, group: int | None, entropy: Entropy, exchange: str
) -> tuple[KeyExchange, Secret]:
    """The responder's KE payload, and g^ir; `group` is the chosen one. Raises InvalidKe, InvalidSyntax."""
    if group is None or ke.group != group:
        raise InvalidKe.wanting(group or 0)
    check_value(group, ke.data, InvalidSyntax, exchange=exchange)
    ours = KeyPair.generate(group, entropy)
    shared = shared_secret(ours, ke.data, InvalidSyntax, exchange=exchange)
    return KeyExchange(group, ours.public), shared


def conclude_ke(ours: KeyPair | None, ke: KeyExchange | None, group: int | None, exchange: str) -> Secret:
    """The initiator's g^ir; `group` is what the responder has chosen. Raises InvalidSyntax."""
    if ours is None or ke is None or not ours.group == ke.group == group:
        raise InvalidSyntax(exchange=exchange, detail="KE does not fit the chosen proposal")
    return shared_secret(ours, ke.data, InvalidSyntax, exchange=exchange)


def required(value: T | None) -> T:
    """What an answer cannot do without. Raises InvalidSyntax."""
    if value is None:
        raise InvalidSyntax(exchange="CREATE_CHILD_SA", detail="an answer that does not fit the request")
    return value


def _groups(policy: PeerPolicy) -> tuple[int, ...]:
    return tuple(dict.fromkeys(g for proposal in policy.proposals for g in proposal.dh if g in GROUPS))
