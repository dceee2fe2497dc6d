"""The tunnels of one gateway: which of them a peer along a path may mean, and what is known of each."""

from __future__ import annotations

from collections import Counter

from vpnd.ike.renewals import Renewals
from vpnd.model.child import Path
from vpnd.model.policy import PeerPolicy
from vpnd.model.selectors import Address
from vpnd.wire.iana import IkeVersion


class Policies:
    """Indexed by what messages are matched with; the index is made again after a change, which is rare."""

    def __init__(self) -> None:
        self.by_name: dict[str, PeerPolicy] = {}
        self.renewals = Renewals()
        self.childless: set[str] = set()
        """Tunnels whose peer wants the first CHILD_SA after IKE_AUTH, as a refusal has shown (RFC 6023)."""
        self.refused_for_child: set[str] = set()
        """Tunnels whose last attempt was refused for its CHILD_SA, or the lack of it."""
        self.vendors: dict[str, str] = {}
        """The maker of each tunnel's peer, where it is known: words, which anyone may have sent."""
        self._rekeys_proved: dict[str, PeerPolicy] = {}
        self._index()

    def set_policy(self, policy: PeerPolicy) -> None:
        self.by_name[policy.name] = policy
        self._index()

    def remove_policy(self, name: str) -> None:
        """Forget a tunnel; an unknown name is ignored."""
        self.by_name.pop(name, None)
        self.childless.discard(name)
        self.refused_for_child.discard(name)
        self.renewals.forget(name)
        self._rekeys_proved.pop(name, None)
        self.vendors.pop(name, None)
        self._index()

    def note_vendor(self, name: str, vendor: str | None) -> None:
        """What an IKE SA of this tunnel, or an attempt at one, has shown of its peer's maker."""
        if vendor is not None and name in self.by_name:
            self.vendors[name] = vendor

    def candidates(self, version: IkeVersion | None, path: Path) -> tuple[PeerPolicy, ...]:
        """The tunnels between the two addresses of `path` that speak `version` (None: any).

        Those that have the peer's address come first, then those whose peer may have any.
        """
        key = self._key(version, path)
        if (found := self._candidates.get(key)) is None:
            own = self._between.get((path.local, path.remote), ())
            every = (*own, *self._anywhere.get(path.local, ()))
            found = tuple(policy for policy in every if version in (None, policy.version))
            self._candidates[key] = found
        return found

    def distinct(self, version: IkeVersion, path: Path) -> tuple[PeerPolicy, ...]:
        """Of the candidates one of each kind: to an offer the others are the same."""
        key = self._key(version, path)
        if (found := self._distinct.get(key)) is None:
            kinds: dict[tuple[object, ...], PeerPolicy] = {}
            for one in self.candidates(version, path):
                kinds.setdefault((one.mode, one.proposals, one.lifetime, one.numbers, one.encapsulation), one)
            found = self._distinct[key] = tuple(kinds.values())
        return found

    def knows(self, path: Path) -> bool:
        """Whether a tunnel has the peer's address in its configuration."""
        return (path.local, path.remote) in self._between

    def shares_identities(self, policy: PeerPolicy) -> bool:
        """Whether another tunnel has the identity pair of `policy`."""
        return self._identities[policy.local_id.key, policy.remote_id.key] > 1

    def has_rekey_to_prove(self, policy: PeerPolicy) -> bool:
        """Whether it is not known yet how the peer takes a rekey under this policy."""
        return policy.prove_rekey and self._rekeys_proved.get(policy.name) != policy

    def rekey_is_proved(self, policy: PeerPolicy) -> None:
        """A CHILD_SA was rekeyed under this policy, or the peer has said that it cannot be."""
        if policy.prove_rekey and policy.name in self.by_name:
            self._rekeys_proved[policy.name] = policy

    def _index(self) -> None:
        self._between: dict[tuple[Address, Address], list[PeerPolicy]] = {}
        self._anywhere: dict[Address, list[PeerPolicy]] = {}
        self._identities: Counter[tuple[tuple[int, bytes], tuple[int, bytes]]] = Counter()
        self._candidates: dict[tuple[object, ...], tuple[PeerPolicy, ...]] = {}
        self._distinct: dict[tuple[object, ...], tuple[PeerPolicy, ...]] = {}
        for policy in self.by_name.values():
            if policy.any_address:
                self._anywhere.setdefault(policy.local_address, []).append(policy)
            elif policy.remote_address is not None:
                self._between.setdefault((policy.local_address, policy.remote_address), []).append(policy)
            self._identities[policy.local_id.key, policy.remote_id.key] += 1

    def _key(self, version: IkeVersion | None, path: Path) -> tuple[object, ...]:
        """Strangers have one entry for all of them, so that they cannot fill the memory."""
        here = (path.local, path.remote)
        return (version, *here) if here in self._between else (version, path.local)
