"""Which pre-shared key a tunnel is authenticated with, while the next one takes the place of the current one.

Both are accepted for as long as both are configured. An attempt begins with the key that the peer was seen
with last, at first with the current one, and where that is refused the other is tried at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vpnd.model.policy import PeerPolicy
from vpnd.model.secret import Secret


@dataclass(frozen=True, slots=True)
class KeyInUse:
    """The key that one end has proved itself with last, and since when, in seconds on the caller's clock.

    By its fingerprint (`Secret.fingerprint`): it is known longer than the key, and kept over restarts.
    """

    fingerprint: str
    since: float


@dataclass(frozen=True, slots=True)
class KeysInUse:
    """The keys that the two ends of a tunnel have proved themselves with; of IKEv1 they are the same."""

    ours: KeyInUse
    theirs: KeyInUse


class SharedKeys:
    """What is known of each tunnel's keys, by the tunnel's name."""

    def __init__(self) -> None:
        self._in_use: dict[str, KeysInUse] = {}
        self._refused: dict[str, Secret] = {}
        """With which key the peer has refused an attempt of ours; until one of both is authenticated."""
        self._to_prove: dict[str, Secret] = {}
        """What the next attempt of ours is to begin with."""
        self._in_vain: dict[str, Secret] = {}
        """With which key we have answered, in aggressive mode, an initiator that did not go on."""

    def in_use(self, name: str) -> KeysInUse | None:
        """None where nothing was authenticated yet."""
        return self._in_use.get(name)

    def known(self) -> dict[str, KeysInUse]:
        """What is to be kept over a restart, by the tunnel's name."""
        return dict(self._in_use)

    def remember(self, known: Mapping[str, KeysInUse]) -> None:
        """What was known before a restart; what was authenticated since then counts more."""
        self._in_use = {**known, **self._in_use}

    def of(self, policy: PeerPolicy) -> tuple[Secret, ...]:
        """The keys of a tunnel, the one first that the peer was seen with last."""
        seen = self._in_use.get(policy.name)
        if seen is None or len(policy.keys) == 1:
            return policy.keys
        return tuple(sorted(policy.keys, key=lambda psk: psk.fingerprint() != seen.theirs.fingerprint))

    def to_begin_with(self, policy: PeerPolicy) -> Secret:
        """The key of an attempt of ours."""
        asked, refused = self._to_prove.pop(policy.name, None), self._refused.get(policy.name)
        if asked in policy.keys and asked is not None:
            return asked
        return next((psk for psk in self.of(policy) if psk != refused), policy.psk)

    def to_answer_with(self, policy: PeerPolicy) -> Secret:
        """The key of our proof where the peer has not shown which it has."""
        in_vain = self._in_vain.get(policy.name)
        return next((psk for psk in self.of(policy) if psk != in_vain), policy.psk)

    def has_another(self, policy: PeerPolicy, psk: Secret | None) -> bool:
        """Whether a key of the tunnel is left that no attempt of ours was refused with, besides `psk`."""
        refused = self._refused.get(policy.name)
        return any(other not in (psk, refused) for other in policy.keys)

    def refused(self, policy: PeerPolicy, psk: Secret | None) -> bool:
        """The peer has refused our attempt with `psk`: whether the other key is to be tried at once."""
        another = psk is not None and self.has_another(policy, psk)
        if psk is not None and another:
            self._refused[policy.name] = psk
        else:
            self._refused.pop(policy.name, None)
        return another

    def try_next(self, name: str, psk: Secret) -> None:
        """The next attempt of ours at this tunnel begins with `psk`, whatever the peer was seen with."""
        self._to_prove[name] = psk

    def may_answer_with_another(self, policy: PeerPolicy) -> bool:
        """The peer's proof, in aggressive mode, is made with none of our keys: whether to begin once more.

        It answers before it sees our key. Where ours is a new one it may have taken the former, and takes the
        other of its two as soon as it hears that this one was wrong.
        """
        seen, psk = self._in_use.get(policy.name), policy.keys[-1]
        fingerprints = [one.fingerprint() for one in policy.keys]
        again = (
            seen is not None
            and seen.theirs.fingerprint not in fingerprints
            and self._refused.get(policy.name) != psk
        )
        if again:
            self._refused[policy.name] = psk
        else:
            self._refused.pop(policy.name, None)
        return again

    def answered_in_vain(self, policy: PeerPolicy, psk: Secret | None) -> None:
        """The initiator has not gone on after our proof with `psk`: the next time it gets the other's."""
        if psk is not None and len(policy.keys) > 1:
            self._in_vain[policy.name] = psk

    def has_shown_another(self, policy: PeerPolicy, psk: Secret, since: float) -> bool:
        """Whether the peer proves itself with another key than `psk`, since then."""
        seen = self._in_use.get(policy.name)
        return (
            seen is not None and seen.theirs.since >= since and seen.theirs.fingerprint != psk.fingerprint()
        )

    def proved(self, now: float, policy: PeerPolicy, ours: Secret, theirs: Secret) -> bool:
        """Both sides are authenticated, with these keys. Returns whether the peer was seen with the next
        key for the first time."""
        name, before = policy.name, self._in_use.get(policy.name)
        self._refused.pop(name, None)
        self._in_vain.pop(name, None)
        self._in_use[name] = KeysInUse(
            _since(now, ours, before.ours if before is not None else None),
            _since(now, theirs, before.theirs if before is not None else None),
        )
        first_time = before is None or before.theirs.fingerprint != theirs.fingerprint()
        return theirs == policy.next_psk and first_time

    def end_attempts(self, name: str) -> None:
        """The tunnel is taken down: what an attempt has shown counts no longer, what was proved does."""
        for known in (self._refused, self._to_prove, self._in_vain):
            known.pop(name, None)

    def forget(self, name: str) -> None:
        """The tunnel is gone."""
        self.end_attempts(name)
        self._in_use.pop(name, None)


def _since(now: float, psk: Secret, before: KeyInUse | None) -> KeyInUse:
    fingerprint = psk.fingerprint()
    return before if before is not None and before.fingerprint == fingerprint else KeyInUse(fingerprint, now)
